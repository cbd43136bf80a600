//! The derivation tree: which capability was made from which. All of it takes constant time.

use crate::machine::Machine;
use crate::objects::{Link, Slot};
use crate::reference::Ref;

/// Makes `child`, which is in no tree, the first child of `parent`.
pub(crate) fn adopt<M: Machine>(machine: &M, parent: Ref<Slot>, child: Ref<Slot>) {
    let (parent_slot, child_slot) = (machine.object(parent), machine.object(child));
    child_slot.set_before(Link::Parent(parent));
    match parent_slot.first_child() {
        Some(first) => {
            child_slot.set_after(Link::Sibling(first));
            machine.object(first).set_before(Link::Sibling(child));
        }
        None => {
            child_slot.set_after(Link::Parent(parent));
            parent_slot.set_last_child(Some(child));
        }
    }
    parent_slot.set_first_child(Some(child));
}

/// Takes a slot out of its tree. Its children take its place.
pub(crate) fn unlink<M: Machine>(machine: &M, slot: Ref<Slot>) {
    let leaving = machine.object(slot);
    let (before, after) = (leaving.before(), leaving.after());
    let (left, right) = match (leaving.first_child(), leaving.last_child()) {
        (Some(first), Some(last)) => {
            machine.object(first).set_before(before);
            machine.object(last).set_after(after);
            (Link::Sibling(first), Link::Sibling(last))
        }
        _ => (after, before),
    };
    match before {
        Link::Nobody => {}
        Link::Sibling(sibling) => machine.object(sibling).set_after(left),
        Link::Parent(parent) => machine.object(parent).set_first_child(sibling(left)),
    }
    match after {
        Link::Nobody => {}
        Link::Sibling(sibling) => machine.object(sibling).set_before(right),
        Link::Parent(parent) => machine.object(parent).set_last_child(sibling(right)),
    }
    clear(leaving);
}

/// Gives the place of a slot in the tree to another one, which is in none.
pub(crate) fn relocate<M: Machine>(machine: &M, from: Ref<Slot>, to: Ref<Slot>) {
    let (old, new) = (machine.object(from), machine.object(to));
    new.set_before(old.before());
    new.set_after(old.after());
    new.set_first_child(old.first_child());
    new.set_last_child(old.last_child());
    match old.before() {
        Link::Nobody => {}
        Link::Sibling(sibling) => machine.object(sibling).set_after(Link::Sibling(to)),
        Link::Parent(parent) => machine.object(parent).set_first_child(Some(to)),
    }
    match old.after() {
        Link::Nobody => {}
        Link::Sibling(sibling) => machine.object(sibling).set_before(Link::Sibling(to)),
        Link::Parent(parent) => machine.object(parent).set_last_child(Some(to)),
    }
    if let (Some(first), Some(last)) = (old.first_child(), old.last_child()) {
        machine.object(first).set_before(Link::Parent(to));
        machine.object(last).set_after(Link::Parent(to));
    }
    clear(old);
}

fn sibling(link: Link) -> Option<Ref<Slot>> {
    match link {
        Link::Sibling(slot) => Some(slot),
        Link::Parent(_) | Link::Nobody => None,
    }
}

fn clear(slot: &Slot) {
    slot.set_before(Link::Nobody);
    slot.set_after(Link::Nobody);
    slot.set_first_child(None);
    slot.set_last_child(None);
}

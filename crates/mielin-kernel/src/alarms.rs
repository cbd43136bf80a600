//! The threads that wait for a moment: for their budget to be filled, or at most so long.
//!
//! A pairing heap (Fredman, Sedgewick, Sleator, Tarjan, 1986) through the threads themselves: entering takes constant time,
//! leaving a logarithmic one, on average over the operations. A single one can take time in proportion to the number of threads.

use core::cell::Cell;

use crate::machine::Machine;
use crate::reference::Ref;
use crate::thread::Thread;

/// The heap, by time.
#[derive(Debug)]
pub(crate) struct Alarms {
    first: Cell<Option<Ref<Thread>>>,
}

impl Alarms {
    pub(crate) const fn new() -> Self {
        Self {
            first: Cell::new(None),
        }
    }

    /// Who is to be woken first, and when.
    pub(crate) fn first<M: Machine>(&self, machine: &M) -> Option<(Ref<Thread>, u64)> {
        let first = self.first.get()?;
        Some((first, machine.object(first).heap.at.get()))
    }

    /// Enters a thread that is not in it.
    pub(crate) fn insert<M: Machine>(&self, machine: &M, thread: Ref<Thread>, at: u64) {
        let links = &machine.object(thread).heap;
        links.at.set(at);
        links.linked.set(true);
        links.child.set(None);
        links.sibling.set(None);
        links.before.set(None);
        let first = match self.first.get() {
            Some(first) => meld(machine, first, thread),
            None => thread,
        };
        self.first.set(Some(first));
    }

    /// Takes a thread out, if it is in it.
    #[inline(always)]
    pub(crate) fn remove<M: Machine>(&self, machine: &M, thread: Ref<Thread>) {
        if machine.object(thread).heap.linked.get() {
            self.take_out(machine, thread);
        }
    }

    #[inline(never)]
    fn take_out<M: Machine>(&self, machine: &M, thread: Ref<Thread>) {
        let links = &machine.object(thread).heap;
        links.linked.set(false);
        let below = pair(machine, links.child.take());
        match links.before.take() {
            None => self.first.set(below),
            Some(before) => {
                let sibling = links.sibling.take();
                let neighbour = &machine.object(before).heap;
                match neighbour.child.get() == Some(thread) {
                    true => neighbour.child.set(sibling),
                    false => neighbour.sibling.set(sibling),
                }
                if let Some(sibling) = sibling {
                    machine.object(sibling).heap.before.set(Some(before));
                }
                if let (Some(first), Some(below)) = (self.first.get(), below) {
                    self.first.set(Some(meld(machine, first, below)));
                }
            }
        }
    }
}

/// Makes one heap of two: the later root becomes the first child of the earlier.
fn meld<M: Machine>(machine: &M, a: Ref<Thread>, b: Ref<Thread>) -> Ref<Thread> {
    let time = |thread: Ref<Thread>| machine.object(thread).heap.at.get();
    let (root, child) = match time(b) < time(a) {
        true => (b, a),
        false => (a, b),
    };
    let (root_links, child_links) = (&machine.object(root).heap, &machine.object(child).heap);
    let sibling = root_links.child.get();
    child_links.sibling.set(sibling);
    child_links.before.set(Some(root));
    if let Some(sibling) = sibling {
        machine.object(sibling).heap.before.set(Some(child));
    }
    root_links.child.set(Some(child));
    root_links.sibling.set(None);
    root_links.before.set(None);
    root
}

/// Makes one heap of a list of siblings: in pairs, and then of the pairs from the last to the first.
fn pair<M: Machine>(machine: &M, list: Option<Ref<Thread>>) -> Option<Ref<Thread>> {
    let links = |thread: Ref<Thread>| &machine.object(thread).heap;
    let (mut rest, mut pairs) = (list, None);
    while let Some(a) = rest {
        let b = links(a).sibling.take();
        links(a).before.set(None);
        let root = match b {
            Some(b) => {
                rest = links(b).sibling.take();
                links(b).before.set(None);
                meld(machine, a, b)
            }
            None => {
                rest = None;
                a
            }
        };
        // The pairs so far hang together by `sibling`, the last one first.
        links(root).sibling.set(pairs);
        pairs = Some(root);
    }
    let mut heap = pairs?;
    let mut next = links(heap).sibling.take();
    while let Some(other) = next {
        next = links(other).sibling.take();
        heap = meld(machine, heap, other);
    }
    Some(heap)
}

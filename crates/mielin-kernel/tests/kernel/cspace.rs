//! Capabilities and memory against a naive model: a table of what each slot holds and what that was made of.

use std::collections::{BTreeMap, HashSet};

use mielin_kernel::abi::{Error, Method, ObjectKind, Retype, Rights, boot};
use mielin_kernel::{Capability, Link, Machine, Ref, Slot};
use proptest::prelude::*;

use crate::random::run;
use crate::world::{After, World, invocation};

/// What a slot holds, and the slot that this was made of. Slots go by their addresses.
#[derive(Clone, Copy, Debug)]
struct Held {
    capability: Capability,
    parent: Option<u64>,
}

/// All capabilities that the test is about: those of one untyped, and of what is made of it.
struct Model {
    slots: BTreeMap<u64, Held>,
    /// The node in which all addresses are looked up.
    root: Capability,
}

/// What a program does. Addresses and nodes are capabilities' addresses as programs see them.
#[derive(Clone, Copy, Debug)]
struct Operation {
    node: u64,
    method: Method,
    words: [u64; 4],
}

impl Model {
    fn held(&self, slot: u64) -> Capability {
        self.slots
            .get(&slot)
            .map_or(Capability::Null, |held| held.capability)
    }

    fn children(&self, slot: u64) -> Vec<u64> {
        let children = self.slots.iter();
        let children = children.filter(|(_, held)| held.parent == Some(slot));
        children.map(|(at, _)| *at).collect()
    }

    /// The slot at an address, and the rights of the node that it is in.
    fn lookup(&self, address: u64) -> Result<(u64, Rights), Error> {
        let mut capability = self.root;
        let mut rest = address;
        loop {
            let Capability::Node { node, bits, rights } = capability else {
                return Err(Error::NoCapability);
            };
            let index = rest % (1 << bits);
            rest >>= bits;
            if index == 0 {
                return Err(Error::NoCapability);
            }
            let slot = node.address() + index * 32;
            if rest == 0 {
                return Ok((slot, rights));
            }
            capability = self.held(slot);
        }
    }

    /// A slot in a node, by the node's address and an index.
    fn place(&self, node: u64, index: u64) -> Result<u64, Error> {
        let Capability::Node { node, bits, .. } = self.node(node)? else {
            return Err(Error::WrongKind);
        };
        if index == 0 || index >= 1 << bits {
            return Err(Error::InvalidArgument);
        }
        Ok(node.address() + index * 32)
    }

    /// A node that may be changed.
    fn node(&self, address: u64) -> Result<Capability, Error> {
        match self.held(self.lookup(address)?.0) {
            Capability::Null => Err(Error::NoCapability),
            Capability::Node { rights, .. } if !rights.has(Rights::WRITE) => Err(Error::Denied),
            node @ Capability::Node { .. } => Ok(node),
            _ => Err(Error::WrongKind),
        }
    }

    fn serve(&mut self, operation: &Operation) -> Result<(), Error> {
        let [first, second, third, fourth] = operation.words;
        if operation.method == Method::Retype {
            return self.retype(operation.node, Retype(first), second, third);
        }
        self.node(operation.node)?;
        let place = self.place(operation.node, first)?;
        match operation.method {
            Method::Copy => self.derive(second, place, Rights::ALL, 0),
            Method::Mint => self.derive(second, place, Rights(third as u8), fourth),
            Method::Move => {
                let (from, rights) = self.lookup(second)?;
                if !rights.has(Rights::WRITE) {
                    return Err(Error::Denied);
                }
                if self.held(from) == Capability::Null {
                    return Err(Error::NoCapability);
                }
                if self.held(place) != Capability::Null {
                    return Err(Error::SlotTaken);
                }
                let held = self.slots.remove(&from).expect("it is there");
                self.slots.insert(place, held);
                for child in self.slots.values_mut() {
                    if child.parent == Some(from) {
                        child.parent = Some(place);
                    }
                }
                Ok(())
            }
            Method::Delete => {
                self.delete(place);
                Ok(())
            }
            Method::Revoke => {
                while let Some(child) = self.children(place).first() {
                    // The way to the slot may be among what goes.
                    if self.place(operation.node, first) != Ok(place) {
                        return Err(Error::NoCapability);
                    }
                    self.delete(*child);
                }
                Ok(())
            }
            _ => Err(Error::WrongKind),
        }
    }

    fn derive(&mut self, from: u64, to: u64, rights: Rights, badge: u64) -> Result<(), Error> {
        let (from, _) = self.lookup(from)?;
        if self.held(to) != Capability::Null {
            return Err(Error::SlotTaken);
        }
        let capability = match self.held(from) {
            Capability::Null => return Err(Error::NoCapability),
            Capability::Untyped { .. } => return Err(Error::NotCopyable),
            Capability::Endpoint { badge: own, .. } if own != 0 && badge != 0 => {
                return Err(Error::Denied);
            }
            Capability::Endpoint {
                endpoint,
                rights: old,
                badge: own,
            } => Capability::Endpoint {
                endpoint,
                rights: old.and(rights),
                badge: own | badge,
            },
            _ if badge != 0 => return Err(Error::InvalidArgument),
            Capability::Node {
                node,
                bits,
                rights: old,
            } => Capability::Node {
                node,
                bits,
                rights: old.and(rights),
            },
            other => other,
        };
        let parent = Some(from);
        self.slots.insert(to, Held { capability, parent });
        Ok(())
    }

    /// Empties a slot. What was made of its capability belongs to whoever that was made of; a node without capabilities ends, with
    /// all that is in it.
    fn delete(&mut self, slot: u64) {
        let Some(gone) = self.slots.remove(&slot) else {
            return;
        };
        for child in self.slots.values_mut() {
            if child.parent == Some(slot) {
                child.parent = gone.parent;
            }
        }
        let Capability::Node { node, bits, .. } = gone.capability else {
            return;
        };
        let is_left = self.slots.values().any(
            |held| matches!(held.capability, Capability::Node { node: same, .. } if same == node),
        );
        if !is_left {
            for index in 1..1 << bits {
                self.delete(node.address() + index * 32);
            }
        }
    }

    fn retype(&mut self, from: u64, what: Retype, node: u64, index: u64) -> Result<(), Error> {
        let (from, _) = self.lookup(from)?;
        let held = self.held(from);
        match held {
            Capability::Null => return Err(Error::NoCapability),
            // A node looks at the index first that its own methods have.
            Capability::Node { rights, .. } if !rights.has(Rights::WRITE) => {
                return Err(Error::Denied);
            }
            Capability::Node { bits, .. } if what.0 == 0 || what.0 >= 1 << bits => {
                return Err(Error::InvalidArgument);
            }
            _ => {}
        }
        let Capability::Untyped {
            base,
            bits,
            device,
            used,
        } = held
        else {
            return Err(Error::WrongKind);
        };
        let kind = ObjectKind::from_number(what.kind()).ok_or(Error::InvalidArgument)?;
        let size = kind.bits(what.size()).ok_or(Error::InvalidArgument)?;
        if what.count() == 0 || what.count() > 256 {
            return Err(Error::InvalidArgument);
        }
        let used = match self.children(from).is_empty() {
            true => 0,
            false => u64::from(used) * 16,
        };
        let begin = (base + used).next_multiple_of(1 << size);
        let end = begin + (what.count() << size);
        if end > base + (1 << bits) {
            return Err(Error::NoMemory);
        }
        for index in index..index + what.count() {
            let place = self.place(node, index)?;
            if self.held(place) != Capability::Null {
                return Err(Error::SlotTaken);
            }
        }
        let parent = Some(from);
        for offset in 0..what.count() {
            let at = begin + (offset << size);
            let rights = Rights::ALL;
            let capability = match kind {
                ObjectKind::Untyped => Capability::Untyped {
                    base: at,
                    bits: size,
                    device,
                    used: 0,
                },
                ObjectKind::Node => Capability::Node {
                    node: Ref::at(at).expect("an object"),
                    bits: size - 5,
                    rights,
                },
                ObjectKind::Endpoint => Capability::Endpoint {
                    endpoint: Ref::at(at).expect("an object"),
                    rights,
                    badge: 0,
                },
                ObjectKind::Reply => Capability::Reply {
                    reply: Ref::at(at).expect("an object"),
                },
                other => panic!("the test makes no {other:?}"),
            };
            let place = self.place(node, index + offset)?;
            self.slots.insert(place, Held { capability, parent });
        }
        let used = ((end - base) / 16) as u32;
        let untyped = self.slots.get_mut(&from).expect("it is there");
        untyped.capability = Capability::Untyped {
            base,
            bits,
            device,
            used,
        };
        Ok(())
    }
}

/// A kernel and its model, with an untyped of 4 KiB and a node of 8 slots that both know.
struct Pair {
    world: World,
    model: Model,
}

/// Where the untyped and the node are in the first node, and where the first node has places for more.
const UNTYPED: u64 = 64;
const NODE: u64 = 65;
const FREE: u64 = 66;
/// The bits of addresses below that of a slot in the node, and in a node in that.
const FIRST_BITS: u32 = 12;
const SECOND_BITS: u32 = 15;

impl Pair {
    fn new() -> Self {
        let world = World::new();
        assert_eq!(world.make(ObjectKind::Untyped, 12), UNTYPED);
        assert_eq!(world.make(ObjectKind::Node, 3), NODE);
        let held = |at: u64| {
            let slot = world.slot(at);
            let capability = world.capability(at);
            let parent = None;
            (slot.address(), Held { capability, parent })
        };
        let model = Model {
            slots: BTreeMap::from([held(UNTYPED), held(NODE), held(boot::NODE)]),
            root: world.capability(boot::NODE),
        };
        Self { world, model }
    }

    /// Does the same in both, and compares results and everything that is in slots.
    fn step(&mut self, operation: &Operation) {
        let world = &self.world;
        let request = invocation(operation.node, operation.method, &operation.words);
        let got = match world.call(&request) {
            After::Done(result) => result,
            after => panic!("{operation:?} ended as {after:?}"),
        };
        let expected = self.model.serve(operation);
        assert_eq!(got, expected, "{operation:?}");
        for (&slot, held) in &self.model.slots {
            let at: Ref<Slot> = Ref::at(slot).expect("a slot");
            let real = world.arena().object(at);
            assert_eq!(
                real.capability(),
                held.capability,
                "{at:?} after {operation:?}"
            );
            let parent = parent(world, at).filter(|p| self.model.slots.contains_key(p));
            assert_eq!(
                parent, held.parent,
                "what {at:?} was made of, after {operation:?}"
            );
        }
        // Nothing is anywhere else.
        let others = world.arena().all::<Slot>().into_iter().filter(|at| {
            let in_first =
                (world.slot(0).address()..world.slot(FREE).address()).contains(&at.address());
            !in_first && !self.model.slots.contains_key(&at.address())
        });
        for at in others {
            let held = world.arena().object(at).capability();
            let own = matches!(held, Capability::Null | Capability::Header { .. });
            assert!(own || is_first_threads(world, at), "{held:?} is at {at:?}");
        }
    }
}

fn is_first_threads(world: &World, at: Ref<Slot>) -> bool {
    let first = world.thread().address();
    (first - 256..first).contains(&at.address())
}

/// The slot that a slot's capability was made of.
fn parent(world: &World, slot: Ref<Slot>) -> Option<u64> {
    let mut at = slot;
    loop {
        match world.arena().object(at).after() {
            Link::Sibling(next) => at = next,
            Link::Parent(parent) => return Some(parent.address()),
            Link::Nobody => return None,
        }
    }
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        2 => Just(UNTYPED),
        1 => Just(NODE),
        4 => (1..8u64).prop_map(|i| NODE | i << FIRST_BITS),
        4 => (1..8u64, 0..4u64).prop_map(|(i, j)| NODE | i << FIRST_BITS | j << SECOND_BITS),
        2 => (0..4u64).prop_map(|i| FREE + i),
    ]
}

fn node() -> impl Strategy<Value = (u64, u64)> {
    prop_oneof![
        6 => (Just(NODE), 0..9u64),
        3 => (1..8u64, 0..5u64).prop_map(|(i, j)| (NODE | i << FIRST_BITS, j)),
        2 => (0..4u64).prop_map(|i| (boot::NODE, FREE + i)),
        1 => Just((boot::NODE, UNTYPED)),
        1 => Just((boot::NODE, NODE)),
        1 => (0..4u64, 1..3u64).prop_map(|(i, j)| (FREE + i, j)),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let kind = prop_oneof![
        (5..12u8).prop_map(|bits| (ObjectKind::Untyped, bits)),
        (1..4u8).prop_map(|bits| (ObjectKind::Node, bits)),
        Just((ObjectKind::Endpoint, 0)),
        Just((ObjectKind::Reply, 0)),
    ];
    let make = |node, method, words| Operation {
        node,
        method,
        words,
    };
    prop_oneof![
        6 => (address(), kind, 0..4u64, node()).prop_map(move |(from, (kind, size), count, to)| {
            make(from, Method::Retype, [Retype::new(kind, size, count).0, to.0, to.1, 0])
        }),
        3 => (node(), address()).prop_map(move |(to, from)| {
            make(to.0, Method::Copy, [to.1, from, 0, 0])
        }),
        3 => (node(), address(), 0..16u64, 0..3u64).prop_map(move |(to, from, rights, badge)| {
            make(to.0, Method::Mint, [to.1, from, rights, badge])
        }),
        3 => (node(), address()).prop_map(move |(to, from)| {
            make(to.0, Method::Move, [to.1, from, 0, 0])
        }),
        2 => node().prop_map(move |at| make(at.0, Method::Delete, [at.1, 0, 0, 0])),
        1 => node().prop_map(move |at| make(at.0, Method::Revoke, [at.1, 0, 0, 0])),
    ]
}

#[test]
fn random_histories_of_capabilities_are_those_of_the_model() {
    let histories = (any::<u64>(), prop::collection::vec(operation(), 1..60));
    run(600, &histories, |(interruptions, operations)| {
        let mut pair = Pair::new();
        pair.world
            .arena()
            .interruptions
            .set(interruptions & interruptions >> 1);
        for operation in &operations {
            pair.step(operation);
            pair.world.check();
        }
        Ok(())
    });
}

#[test]
fn all_short_histories_of_capabilities() {
    let slot = |index: u64| NODE | index << FIRST_BITS;
    let retype = |from, kind, size, index| Operation {
        node: from,
        method: Method::Retype,
        words: [Retype::new(kind, size, 1).0, NODE, index, 0],
    };
    let on_node = |node, method, words| Operation {
        node,
        method,
        words,
    };
    let operations = [
        retype(UNTYPED, ObjectKind::Endpoint, 0, 1),
        retype(UNTYPED, ObjectKind::Untyped, 11, 2),
        retype(slot(2), ObjectKind::Node, 1, 3),
        on_node(NODE, Method::Copy, [4, slot(1), 0, 0]),
        on_node(NODE, Method::Mint, [5, slot(4), 2, 9]),
        on_node(NODE, Method::Mint, [5, slot(3), 1, 0]),
        on_node(slot(3), Method::Copy, [1, slot(3), 0, 0]),
        on_node(slot(3), Method::Move, [1, slot(1), 0, 0]),
        on_node(NODE, Method::Move, [1, slot(3) | 1 << SECOND_BITS, 0, 0]),
        on_node(NODE, Method::Move, [6, slot(2), 0, 0]),
        on_node(NODE, Method::Delete, [1, 0, 0, 0]),
        on_node(NODE, Method::Delete, [3, 0, 0, 0]),
        on_node(NODE, Method::Delete, [2, 0, 0, 0]),
        on_node(NODE, Method::Revoke, [1, 0, 0, 0]),
        on_node(boot::NODE, Method::Revoke, [UNTYPED, 0, 0, 0]),
    ];
    let mut seen = HashSet::from([Pair::new().world.observe()]);
    let mut frontier = vec![Vec::new()];
    let mut tried = 0;
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for path in &frontier {
            for operation in &operations {
                let mut path: Vec<Operation> = path.clone();
                path.push(*operation);
                tried += 1;
                let mut pair = Pair::new();
                let (last, before) = path.split_last().expect("it has one at least");
                for operation in before {
                    pair.world.call(&invocation(
                        operation.node,
                        operation.method,
                        &operation.words,
                    ));
                    let _ = pair.model.serve(operation);
                }
                pair.step(last);
                // Registers tell the last call, which makes no difference to capabilities.
                let text = pair.world.observe();
                let text = text.lines().filter(|line| !line.starts_with("thread"));
                if seen.insert(text.collect()) {
                    pair.world.check();
                    next.push(path);
                }
            }
        }
        frontier = next;
    }
    assert_eq!((seen.len(), tried), (735, 5565));
}

/// So many operations one after the other.
const DEPTH: usize = 7;

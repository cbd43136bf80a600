//! Capabilities in messages, against a table of slots: which go, and where they are then.

use mielin_kernel::abi::{
    BUFFER_CAPABILITIES, BUFFER_INDEX, BUFFER_NODE, MESSAGE_CAPABILITIES_MAX, MessageInfo, Method,
    ObjectKind, Rights, SLOT_BYTES, SystemCall, ThreadSlot, boot,
};
use mielin_kernel::{Capability, Machine, Page, Ref, Slot, Thread, registers};
use proptest::prelude::*;

use crate::random::run;
use crate::world::{After, World, message, request};

/// Slots of the receiver's node, as a power of two.
const BITS: u8 = 3;

/// What the sender can name.
#[derive(Clone, Copy, Debug)]
enum Named {
    /// These can be copied.
    Endpoint,
    Notification,
    Reply,
    /// These cannot.
    Memory,
    Table,
    /// There is nothing.
    Nothing,
}

/// What the receiver names as the node for what comes.
#[derive(Clone, Copy, Debug)]
enum Target {
    Node,
    /// The same node, without the right to change it.
    Unchangeable,
    /// Something that is no node.
    Endpoint,
    Nothing,
}

#[derive(Clone, Debug)]
enum Step {
    Send {
        grants: bool,
        claimed: usize,
        named: [Named; MESSAGE_CAPABILITIES_MAX],
        target: Target,
        index: u64,
    },
    /// The receiver empties a slot.
    Empty(u64),
    /// The sender takes back all that was made of one.
    Revoke(Named),
}

fn named() -> impl Strategy<Value = Named> {
    prop_oneof![
        4 => Just(Named::Endpoint),
        4 => Just(Named::Notification),
        4 => Just(Named::Reply),
        1 => Just(Named::Memory),
        1 => Just(Named::Table),
        1 => Just(Named::Nothing),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let target = prop_oneof![
        12 => Just(Target::Node),
        1 => Just(Target::Unchangeable),
        1 => Just(Target::Endpoint),
        1 => Just(Target::Nothing),
    ];
    let index = prop_oneof![12 => 0..10_u64, 1 => Just(u64::MAX), 1 => any::<u64>()];
    let send = (
        prop::bool::weighted(0.9),
        0..6_usize,
        [named(), named(), named()],
        target,
        index,
    );
    let send = send.prop_map(|(grants, claimed, named, target, index)| Step::Send {
        grants,
        claimed,
        named,
        target,
        index,
    });
    prop_oneof![
        6 => send,
        3 => (1..8_u64).prop_map(Step::Empty),
        1 => named().prop_map(Step::Revoke),
    ]
}

struct Scene {
    world: World,
    receiver: Ref<Thread>,
    endpoint: u64,
    weak: u64,
    notification: u64,
    reply: u64,
    memory: u64,
    table: u64,
    node: u64,
    unchangeable: u64,
    /// What is in the receiver's node, by index.
    slots: [Option<Named>; 1 << BITS],
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let minted = |from: u64, rights: Rights| {
            let to = world.free();
            let mint = [to, from, u64::from(rights.0), 0];
            assert!(world.invoke(boot::NODE, Method::Mint, &mint).is_ok());
            to
        };
        let endpoint = world.make(ObjectKind::Endpoint, 0);
        let node = world.make(ObjectKind::Node, BITS);
        let weak = minted(endpoint, Rights::WRITE);
        let unchangeable = minted(node, Rights::READ);
        let made = world.make_thread(255, 1000, 0);
        let frame = world.make(ObjectKind::Frame, 12);
        let equip = [ThreadSlot::Buffer as u64, frame, 1024];
        assert!(world.invoke(made.thread, Method::Equip, &equip).is_ok());
        assert!(world.invoke(made.thread, Method::Resume, &[]).is_ok());
        Self {
            receiver: world.thread_at(made.thread),
            endpoint,
            weak,
            notification: world.make(ObjectKind::Notification, 0),
            reply: world.make(ObjectKind::Reply, 0),
            memory: world.make(ObjectKind::Untyped, 6),
            table: world.make(ObjectKind::PageTable, 0),
            node,
            unchangeable,
            slots: [None; 1 << BITS],
            world,
        }
    }

    fn address(&self, named: Named) -> u64 {
        match named {
            Named::Endpoint => self.endpoint,
            Named::Notification => self.notification,
            Named::Reply => self.reply,
            Named::Memory => self.memory,
            Named::Table => self.table,
            Named::Nothing => 999,
        }
    }

    /// How many go, by the rules; the table of slots has them then.
    fn expect(&mut self, claimed: usize, named: &[Named], target: Target, index: u64) -> usize {
        if !matches!(target, Target::Node) {
            return 0;
        }
        let mut gone = 0;
        for named in &named[..claimed.min(named.len())] {
            let is_copied = matches!(named, Named::Endpoint | Named::Notification | Named::Reply);
            let place = index.checked_add(gone as u64);
            // Slot 0 is the kernel's.
            let place = place.filter(|place| (1..1 << BITS).contains(place));
            let Some(place) = place.map(|place| &mut self.slots[place as usize]) else {
                break;
            };
            if !is_copied || place.is_some() {
                break;
            }
            *place = Some(*named);
            gone += 1;
        }
        gone
    }

    fn buffer(&self, of: Ref<Thread>) -> &[core::cell::Cell<u64>] {
        let at = self.world.arena().object(of).buffer().expect("it has one");
        let page: &Page = self
            .world
            .arena()
            .object(Ref::at(at & !0xfff).expect("a page"));
        &page[(at & 0xfff) as usize / 8..]
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Send {
                grants,
                claimed,
                named,
                target,
                index,
            } => {
                let expected = match grants {
                    true => self.expect(*claimed, named, *target, *index),
                    false => 0,
                };
                let place = match target {
                    Target::Node => self.node,
                    Target::Unchangeable => self.unchangeable,
                    Target::Endpoint => self.endpoint,
                    Target::Nothing => 0,
                };
                let by = if *grants { self.endpoint } else { self.weak };
                assert_eq!(self.send(by, *claimed, named, place, *index), expected);
            }
            Step::Empty(index) => {
                let world = &self.world;
                assert!(world.invoke(self.node, Method::Delete, &[*index]).is_ok());
                self.slots[*index as usize] = None;
            }
            Step::Revoke(named) => {
                let address = self.address(*named);
                let revoked = self.world.invoke(boot::NODE, Method::Revoke, &[address]);
                assert!(revoked.is_ok());
                for slot in &mut self.slots {
                    let is_it = slot.is_some_and(|held| {
                        std::mem::discriminant(&held) == std::mem::discriminant(named)
                    });
                    if is_it {
                        *slot = None;
                    }
                }
                // The weak one is made of the endpoint, too.
                if matches!(named, Named::Endpoint) {
                    let mint = [self.weak, self.endpoint, u64::from(Rights::WRITE.0), 0];
                    assert!(self.world.invoke(boot::NODE, Method::Mint, &mint).is_ok());
                }
            }
        }
        self.compare();
    }

    /// Has the receiver wait, and sends. How many came, as the receiver is told.
    fn send(&self, by: u64, claimed: usize, named: &[Named], node: u64, index: u64) -> usize {
        let world = &self.world;
        let (me, other) = (world.thread(), self.receiver);
        self.buffer(other)[BUFFER_NODE].set(node);
        self.buffer(other)[BUFFER_INDEX].set(index);
        let words = &self.buffer(me)[BUFFER_CAPABILITIES..];
        for (word, named) in words.iter().zip(named) {
            word.set(self.address(*named));
        }
        let yields = request(SystemCall::Yield, 0);
        assert_eq!(world.call(&yields), After::Done(Ok(())));
        assert_eq!(world.thread(), other);
        let receive = message(SystemCall::Receive, self.endpoint, 0, &[]);
        assert_eq!(world.call(&receive), After::Waits);
        let mut send = message(SystemCall::Send, by, 0, &[1]);
        send.info = send.info.with_capabilities(claimed);
        assert_eq!(world.call(&send), After::Done(Ok(())));
        MessageInfo(world.register(other, registers::INFO)).capabilities()
    }

    fn compare(&self) {
        self.world.check();
        let Capability::Node { node, .. } = self.world.capability(self.node) else {
            panic!("the node is gone")
        };
        for (index, expected) in (0..).zip(&self.slots).skip(1) {
            let slot = Ref::<Slot>::at(node.address() + index * SLOT_BYTES).expect("a slot");
            let held = self.world.arena().object(slot).capability();
            let fits = match expected {
                None => held == Capability::Null,
                Some(Named::Endpoint) => matches!(held, Capability::Endpoint { .. }),
                Some(Named::Notification) => matches!(held, Capability::Notification { .. }),
                Some(Named::Reply) => matches!(held, Capability::Reply { .. }),
                Some(other) => panic!("{other:?} cannot be copied"),
            };
            assert!(fits, "slot {index} has {held:?}, not {expected:?}");
        }
    }
}

#[test]
fn capabilities_in_messages_go_where_the_model_says() {
    run(128, &prop::collection::vec(step(), 1..60), |steps| {
        let mut scene = Scene::new();
        for step in &steps {
            scene.step(step);
        }
        Ok(())
    });
}

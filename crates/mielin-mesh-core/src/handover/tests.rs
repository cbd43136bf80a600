#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod forms;
mod keeping;
mod line;
mod lives;
mod moving;
mod talking;
mod world;

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use super::{
    HostEnd, HostEndEvent, HostMessage, LeafEnd, LeafEndEvent, LeafMessage, Profile, Status,
    Transfer,
};
use crate::{AgentId, Epoch, Name};

const A: AgentId = AgentId([0xa; 16]);
const B: AgentId = AgentId([0xb; 16]);
const C: AgentId = AgentId([0xc; 16]);
const ROOM_BYTES: u32 = 5_000;
const REAL_NS: u64 = 1_780_000_000_000_000_000;

fn profile() -> Profile {
    Profile {
        name: Name::new("shed").unwrap(),
        sensors: 2,
        actuators: 1,
        status: Status {
            ready: true,
            room_bytes: ROOM_BYTES,
            ..Status::default()
        },
    }
}

/// A leaf and its host on a link that carries at once what it is asked to.
struct Pair {
    leaf: LeafEnd,
    host: HostEnd,
    boots: u64,
    up: VecDeque<Vec<u8>>,
    down: VecDeque<Vec<u8>>,
    /// Everything that was said.
    said: Vec<(LeafOrHost, usize)>,
}

type LeafOrHost = Result<LeafMessage, HostMessage>;

impl Pair {
    fn new() -> Pair {
        Pair {
            leaf: LeafEnd::new(1, profile()).unwrap(),
            host: HostEnd::new(),
            boots: 1,
            up: VecDeque::new(),
            down: VecDeque::new(),
            said: Vec::new(),
        }
    }

    /// Both know each other, and nothing was said since.
    fn greeted() -> Pair {
        let mut pair = Pair::new();
        pair.run();
        pair.events();
        pair.said.clear();
        pair
    }

    /// The agent runs at the leaf, in epoch 5.
    fn with_guest(agent: AgentId) -> Pair {
        let mut pair = Pair::greeted();
        pair.give(agent, Epoch(5));
        pair
    }

    fn give(&mut self, agent: AgentId, epoch: Epoch) {
        self.host.offer(agent, epoch, vec![1; 600]).unwrap();
        self.run();
        self.leaf.accept(agent).unwrap();
        self.run();
        self.host.let_go(agent).unwrap();
        self.run();
        self.events();
        self.said.clear();
    }

    /// What both have to say goes out, and does not arrive.
    fn say(&mut self) {
        while let Some(message) = self.leaf.poll_message() {
            let (said, tail) = LeafMessage::decode(&message).unwrap();
            self.said.push((Ok(said), tail.len()));
            self.up.push_back(message);
        }
        while let Some(message) = self.host.poll_message(REAL_NS) {
            let (said, tail) = HostMessage::decode(&message).unwrap();
            self.said.push((Err(said), tail.len()));
            self.down.push_back(message);
        }
    }

    fn hear(&mut self) {
        while let Some(message) = self.up.pop_front() {
            self.host.handle_message(&message).unwrap();
        }
        while let Some(message) = self.down.pop_front() {
            self.leaf.handle_message(&message).unwrap();
        }
    }

    /// Until nobody has anything to say.
    fn run(&mut self) {
        loop {
            self.say();
            if self.up.is_empty() && self.down.is_empty() {
                return;
            }
            self.hear();
        }
    }

    fn leaf_events(&mut self) -> Vec<LeafEndEvent> {
        core::iter::from_fn(|| self.leaf.poll_event()).collect()
    }

    fn host_events(&mut self) -> Vec<HostEndEvent> {
        core::iter::from_fn(|| self.host.poll_event()).collect()
    }

    fn events(&mut self) -> (Vec<LeafEndEvent>, Vec<HostEndEvent>) {
        (self.leaf_events(), self.host_events())
    }

    /// Both learn that the streams begin again, and nothing of what was under way arrives.
    fn cut(&mut self) {
        self.up.clear();
        self.down.clear();
        self.said.clear();
        self.leaf.restarted();
        self.host.restarted();
    }

    fn leaf_dies(&mut self) {
        self.boots += 1;
        self.leaf = LeafEnd::new(self.boots, profile()).unwrap();
        self.cut();
    }

    fn host_dies(&mut self) {
        self.host = HostEnd::new();
        self.cut();
    }

    /// What was said of hand-overs, without pieces.
    fn transfers(&self) -> Vec<Transfer> {
        let transfers = self.said.iter().filter_map(|(said, _)| match said {
            Ok(LeafMessage::Transfer(transfer)) | Err(HostMessage::Transfer(transfer)) => {
                Some(*transfer)
            }
            _ => None,
        });
        let no_piece = |transfer: &Transfer| !matches!(transfer, Transfer::Chunk { .. });
        transfers.filter(no_piece).collect()
    }
}

/// Without the hello.
fn concluded(events: Vec<HostEndEvent>) -> Vec<HostEndEvent> {
    let no_hello = |event: &HostEndEvent| !matches!(event, HostEndEvent::Hello { .. });
    events.into_iter().filter(no_hello).collect()
}

/// Drivers keep both ends in tasks that move between threads.
#[test]
fn both_ends_may_cross_threads() {
    const fn check<T: Send + Sync>() {}
    check::<LeafEnd>();
    check::<HostEnd>();
}

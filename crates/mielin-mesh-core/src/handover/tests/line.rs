//! What joins a leaf and its host: the leaf link over a bad line, or a model of what it promises.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::Instant;
use crate::leaf::{
    Admission, HostEventKind, Leaf, LeafEvent, LeafHost, LeafNumber, PACKET_BYTES_MAX, PublicKey,
    SecretKey,
};
use crate::limits::{LEAF_HOST_QUEUE_MAX, LEAF_QUEUE_MAX};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Leaf,
    Host,
}

impl End {
    pub(super) const fn other(self) -> End {
        match self {
            End::Leaf => End::Host,
            End::Host => End::Leaf,
        }
    }
}

pub(super) trait Line {
    fn has_room(&self, at: End) -> bool;
    fn send(&mut self, from: End, message: Vec<u8>);
    fn take(&mut self, at: End) -> Option<Vec<u8>>;
    /// Whether this end has learnt since it was asked last that the streams begin again.
    fn restarted(&mut self, at: End) -> bool;
    /// This end has lost its memory.
    fn dies(&mut self, end: End);
    /// Both ends are there and remember each other, and the streams begin again all the same.
    fn starts_over(&mut self);
    /// Whether anything passes at all.
    fn cut(&mut self, cut: bool);
    /// Some time passes.
    fn pass(&mut self);
}

/// What the leaf link promises: exactly once and in order, until the streams begin again. Then some of the first of what
/// was sent may have arrived, and what was not sent goes first.
pub(super) struct Model {
    rng: StdRng,
    cut: bool,
    ends: [ModelEnd; 2],
}

#[derive(Default)]
struct ModelEnd {
    /// Accepted from the end that is here.
    outgoing: VecDeque<Vec<u8>>,
    /// How many of them are on their way.
    flying: usize,
    /// Arrived, and not taken by the end that is here.
    incoming: VecDeque<Vec<u8>>,
    /// It has to be told that the streams begin again when there is a connection.
    stale: bool,
    restarted: bool,
}

impl Model {
    pub(super) fn new(seed: u64) -> Model {
        Model {
            rng: StdRng::seed_from_u64(seed),
            cut: false,
            ends: [ModelEnd::default(), ModelEnd::default()],
        }
    }

    /// Some of what is under way arrives, and the rest is gone.
    fn end_stream_from(&mut self, from: End) {
        let flying = self.ends[from as usize].flying;
        let arrive = if flying == 0 {
            0
        } else {
            self.rng.random_range(0..=flying)
        };
        self.arrive(from, arrive);
        let from = &mut self.ends[from as usize];
        from.outgoing.drain(..from.flying);
        from.flying = 0;
    }

    fn arrive(&mut self, from: End, count: usize) {
        let sender = &mut self.ends[from as usize];
        let count = count.min(sender.flying);
        sender.flying -= count;
        let arrived: Vec<_> = sender.outgoing.drain(..count).collect();
        self.ends[from.other() as usize].incoming.extend(arrived);
    }
}

impl Line for Model {
    fn has_room(&self, at: End) -> bool {
        self.ends[at as usize].outgoing.len() < LEAF_QUEUE_MAX
    }

    fn send(&mut self, from: End, message: Vec<u8>) {
        self.ends[from as usize].outgoing.push_back(message);
    }

    fn take(&mut self, at: End) -> Option<Vec<u8>> {
        self.ends[at as usize].incoming.pop_front()
    }

    fn restarted(&mut self, at: End) -> bool {
        core::mem::take(&mut self.ends[at as usize].restarted)
    }

    fn dies(&mut self, end: End) {
        self.end_stream_from(end);
        self.end_stream_from(end.other());
        self.ends[end as usize] = ModelEnd::default();
        self.ends[end.other() as usize].stale = true;
    }

    fn starts_over(&mut self) {
        for end in [End::Leaf, End::Host] {
            self.end_stream_from(end);
            self.ends[end as usize].stale = true;
        }
    }

    fn cut(&mut self, cut: bool) {
        self.cut = cut;
    }

    fn pass(&mut self) {
        if self.cut {
            return;
        }
        for end in &mut self.ends {
            end.restarted |= core::mem::take(&mut end.stale);
        }
        for end in [End::Leaf, End::Host] {
            let sender = &mut self.ends[end as usize];
            let waiting = sender.outgoing.len() - sender.flying;
            sender.flying += self.rng.random_range(0..=waiting);
            // An end takes what has arrived only after it has learnt that the streams begin again.
            let arrive = self.rng.random_range(0..=self.ends[end as usize].flying);
            self.arrive(end, arrive);
        }
    }
}

const NUMBER: LeafNumber = LeafNumber(1);
const MESH: [u8; 32] = [9; 32];

/// The leaf link, over datagrams of which some are lost.
pub(super) struct Link {
    rng: StdRng,
    now: Instant,
    cut: bool,
    lost_percent: u32,
    leaf: Leaf,
    host: LeafHost<()>,
    admission: Admission,
    key: Option<PublicKey>,
    restarted: [bool; 2],
}

impl Link {
    pub(super) fn new(seed: u64) -> Link {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut host = LeafHost::new(SecretKey::from_bytes([1; 32]), MESH, rng.random());
        let admission = host.admit(NUMBER, [5; 32], None).unwrap();
        Link {
            leaf: Leaf::new(leaf_key(), admission.clone(), rng.random()),
            host,
            admission,
            lost_percent: rng.random_range(0..30),
            rng,
            now: Instant::START,
            cut: false,
            key: None,
            restarted: [false; 2],
        }
    }

    fn look(&mut self) {
        while let Some(event) = self.leaf.poll_event() {
            if let LeafEvent::Restarted { .. } = event {
                self.restarted[End::Leaf as usize] = true;
            }
        }
        while let Some(event) = self.host.poll_event() {
            match event.kind {
                HostEventKind::Restarted { .. } => self.restarted[End::Host as usize] = true,
                HostEventKind::Connected { key } => self.key = Some(key),
                _ => {}
            }
        }
    }
}

fn leaf_key() -> SecretKey {
    SecretKey::from_bytes([3; 32])
}

impl Line for Link {
    fn has_room(&self, at: End) -> bool {
        match at {
            End::Leaf => self.leaf.unacknowledged() < LEAF_QUEUE_MAX,
            End::Host => self.host.unacknowledged(NUMBER) < LEAF_HOST_QUEUE_MAX,
        }
    }

    fn send(&mut self, from: End, message: Vec<u8>) {
        match from {
            End::Leaf => self.leaf.send(&message).unwrap(),
            End::Host => self.host.send(NUMBER, &message).unwrap(),
        }
    }

    fn take(&mut self, at: End) -> Option<Vec<u8>> {
        match at {
            End::Leaf => self.leaf.take(),
            End::Host => self.host.take(NUMBER),
        }
    }

    fn restarted(&mut self, at: End) -> bool {
        core::mem::take(&mut self.restarted[at as usize])
    }

    fn dies(&mut self, end: End) {
        match end {
            End::Leaf => {
                self.leaf = Leaf::new(leaf_key(), self.admission.clone(), self.rng.random());
            }
            End::Host => {
                let key = SecretKey::from_bytes([1; 32]);
                self.host = LeafHost::new(key, MESH, self.rng.random());
                self.host.admit(NUMBER, [5; 32], self.key).unwrap();
            }
        }
        self.restarted[end as usize] = false;
    }

    fn starts_over(&mut self) {
        self.host.dismiss(NUMBER).unwrap();
        self.host.admit(NUMBER, [5; 32], self.key).unwrap();
        self.restarted[End::Host as usize] = true;
    }

    fn cut(&mut self, cut: bool) {
        self.cut = cut;
    }

    fn pass(&mut self) {
        let millis = self.rng.random_range(0..400);
        self.now = self.now + Duration::from_millis(millis);
        self.leaf.handle_timeout(self.now);
        self.host.handle_timeout(self.now);
        let mut buffer = [0; PACKET_BYTES_MAX];
        loop {
            let is_lost = self.cut || self.rng.random_range(0..100) < self.lost_percent;
            if let Some(packet) = self.leaf.poll_transmit(self.now, &mut buffer) {
                if !is_lost {
                    // Of connections that have ended some packets are left.
                    let _ = self.host.handle_packet(self.now, (), packet);
                }
            } else if let Some(((), packet)) = self.host.poll_transmit(self.now, &mut buffer) {
                if !is_lost {
                    let _ = self.leaf.handle_packet(self.now, packet);
                }
            } else {
                break;
            }
            self.look();
        }
    }
}

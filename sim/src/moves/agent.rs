//! An agent as far as a move is concerned: pages that it writes, mailboxes, and what it has heard.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use mielin_mesh_core::codec::CodecError;
use mielin_mesh_core::delivery::{Envelope, Inbox, MessageKind, Outbox};
use mielin_mesh_core::{AgentId, Epoch, Instant};
use oxicode::{Decode, Encode};
use rand::RngExt;
use rand::rngs::StdRng;

/// Writes that are carried out for one look at the memory: beyond that it is the hot set that counts.
const WRITES_MAX: u64 = 400;

/// How an agent writes its memory.
#[derive(Clone, Copy, Debug, Encode, Decode)]
pub(super) struct Habits {
    /// The pages that it writes are the first so many.
    pub(super) hot: u32,
    /// Pages that it writes in a second.
    pub(super) rate: u64,
}

/// A copy of an agent. What it is stands in here by value; a copy at another node has nothing in common with it.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    pub(super) id: AgentId,
    pub(super) epoch: Epoch,
    /// The epoch in which what this copy knows was lived.
    pub(super) since: Epoch,
    pub(super) habits: Habits,
    /// What was written last to each page; zero is a page that is zero.
    pub(super) memory: Vec<u32>,
    writes: u32,
    /// Pages written since somebody looked.
    pub(super) dirty: BTreeSet<u32>,
    written_at: Instant,
    /// The share of its time that it has, in percent.
    pub(super) share: u64,
    /// The last message that it has dealt with, of each sender.
    heard: BTreeMap<AgentId, u64>,
    pub(super) outbox: Outbox,
    pub(super) inbox: Inbox,
}

/// What goes over while it stands still, beside pages.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Travelling {
    since: Epoch,
    hot: u32,
    rate: u64,
    writes: u32,
    heard: Vec<(AgentId, u64)>,
    outbox: Vec<u8>,
    inbox: Vec<u8>,
    /// All of the memory as it is at the source: what the pages that came are compared with. A node compares digests.
    pub(super) memory: Vec<u32>,
}

/// A message that an agent dealt with.
pub(super) struct Heard {
    pub(super) from: AgentId,
    pub(super) sequence: u64,
    /// It was the next one.
    pub(super) is_next: bool,
}

impl Agent {
    pub(super) fn new(id: AgentId, pages: u32, habits: Habits, now: Instant) -> Agent {
        Agent {
            id,
            epoch: Epoch(1),
            since: Epoch(1),
            habits,
            // Every seventh was never written.
            memory: (0..pages).map(|page| u32::from(page % 7 > 0)).collect(),
            writes: 1,
            dirty: BTreeSet::new(),
            written_at: now,
            share: 100,
            heard: BTreeMap::new(),
            outbox: Outbox::new(id),
            inbox: Inbox::new(id),
        }
    }

    /// Writes what it has written since the last look.
    pub(super) fn write(&mut self, now: Instant, random: &mut StdRng) {
        let elapsed = now.since(self.written_at).as_micros() as u64;
        self.written_at = now;
        let writes = elapsed * self.habits.rate * self.share / 100_000_000;
        for _ in 0..writes.min(WRITES_MAX) {
            let page = random.random_range(0..self.habits.hot.max(1));
            self.writes += 1;
            // Some are cleared.
            let value = if self.writes.is_multiple_of(50) {
                0
            } else {
                self.writes
            };
            if let Some(it) = self.memory.get_mut(page as usize) {
                *it = value;
                self.dirty.insert(page);
            }
        }
    }

    /// It goes on now, after a time in which it stood still.
    pub(super) fn wake(&mut self, now: Instant) {
        self.written_at = now;
        self.share = 100;
    }

    /// Sends a message; gives its number, if there was room.
    pub(super) fn say(&mut self, to: AgentId, content: u64) -> Option<u64> {
        let payload = Bytes::copy_from_slice(&content.to_le_bytes());
        let pushed = self.outbox.push(self.epoch, to, MessageKind::Send, payload);
        pushed.ok()
    }

    /// Deals with one message.
    pub(super) fn hear(&mut self) -> Option<Heard> {
        let Envelope {
            source, sequence, ..
        } = self.inbox.take()?;
        let last = self.heard.entry(source).or_default();
        let is_next = sequence == *last + 1;
        *last = sequence;
        Some(Heard {
            from: source,
            sequence,
            is_next,
        })
    }

    /// The last message of each sender that it has dealt with or has waiting.
    pub(super) fn has(&self) -> Vec<(AgentId, u64)> {
        let mut has = self.heard.clone();
        let mut waiting = self.inbox.clone();
        while let Some(envelope) = waiting.take() {
            has.insert(envelope.source, envelope.sequence);
        }
        has.into_iter().collect()
    }

    pub(super) fn travelling(&self) -> Travelling {
        Travelling {
            since: self.epoch,
            hot: self.habits.hot,
            rate: self.habits.rate,
            writes: self.writes,
            heard: self
                .heard
                .iter()
                .map(|(from, last)| (*from, *last))
                .collect(),
            outbox: self.outbox.encode(),
            inbox: self.inbox.encode(),
            memory: self.memory.clone(),
        }
    }

    /// The agent of what has travelled, with the memory that has come.
    pub(super) fn arrived(
        id: AgentId,
        epoch: Epoch,
        state: &Travelling,
        memory: Vec<u32>,
    ) -> Result<Agent, CodecError> {
        Ok(Agent {
            id,
            epoch,
            since: state.since,
            habits: Habits {
                hot: state.hot,
                rate: state.rate,
            },
            memory,
            writes: state.writes,
            dirty: BTreeSet::new(),
            written_at: Instant::from_start(Duration::ZERO),
            share: 100,
            heard: state.heard.iter().copied().collect(),
            outbox: Outbox::decode(id, &Bytes::from(state.outbox.clone()))?,
            inbox: Inbox::decode(id, &Bytes::from(state.inbox.clone()))?,
        })
    }
}

/// What a message says.
pub(super) fn content(envelope: &Envelope) -> u64 {
    let bytes = envelope.payload.first_chunk::<8>();
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

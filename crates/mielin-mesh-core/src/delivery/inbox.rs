//! The receiver's half: what is taken, what waits, what was taken before.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use bytes::Bytes;

use super::{DeliveryReply, Envelope, Stored, StoredMailbox, all_consumed, next_payload};
use crate::AgentId;
use crate::codec::{self, CodecError};
use crate::limits::{INBOX_BYTES_MAX, INBOX_COUNT_MAX, INBOX_SENDERS_MAX};

/// What became of an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It is in the mailbox.
    New {
        /// Its sequence number: everything up to here is accepted.
        through: u64,
    },
    /// It was accepted before.
    Duplicate {
        /// Everything up to here is accepted.
        through: u64,
    },
    /// Something before it is missing.
    Gap {
        /// The sequence number that must come next.
        expected: u64,
    },
    /// There is no room.
    Full,
    /// It is for another agent.
    Misaddressed,
}

impl Acceptance {
    /// What to answer to the sender's node.
    #[must_use]
    pub const fn reply(self) -> DeliveryReply {
        match self {
            Acceptance::New { through } | Acceptance::Duplicate { through } => {
                DeliveryReply::Acknowledged { through }
            }
            Acceptance::Gap { expected } => DeliveryReply::Gap { expected },
            Acceptance::Full => DeliveryReply::Full,
            Acceptance::Misaddressed => DeliveryReply::Unknown,
        }
    }
}

/// The mailbox of one receiving agent, with what it accepted from each sender. It travels with the agent.
///
/// An envelope is accepted and queued in one step, so that what was acknowledged cannot be lost between
/// the two. At most [`INBOX_COUNT_MAX`] messages and [`INBOX_BYTES_MAX`] payload bytes wait, and at most
/// [`INBOX_SENDERS_MAX`] senders are remembered; beyond that new ones are refused as [`Acceptance::Full`],
/// because forgetting one would let its old messages in again.
#[derive(Clone, Debug)]
pub struct Inbox {
    agent: AgentId,
    /// The last sequence number accepted from each sender.
    accepted: BTreeMap<AgentId, u64>,
    waiting: VecDeque<Envelope>,
    waiting_bytes: usize,
}

impl Inbox {
    /// An empty mailbox.
    #[must_use]
    pub const fn new(agent: AgentId) -> Inbox {
        Inbox {
            agent,
            accepted: BTreeMap::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// Takes an envelope if it is the next one of its sender.
    pub fn accept(&mut self, envelope: Envelope) -> Acceptance {
        if envelope.destination != self.agent {
            return Acceptance::Misaddressed;
        }
        let known = self.accepted.get(&envelope.source).copied();
        let last = known.unwrap_or(0);
        if envelope.sequence <= last {
            return Acceptance::Duplicate { through: last };
        }
        if envelope.sequence != last + 1 {
            return Acceptance::Gap { expected: last + 1 };
        }
        let bytes = self.waiting_bytes + envelope.payload.len();
        let too_many = self.waiting.len() >= INBOX_COUNT_MAX
            || bytes > INBOX_BYTES_MAX
            || (known.is_none() && self.accepted.len() >= INBOX_SENDERS_MAX);
        if too_many {
            return Acceptance::Full;
        }
        self.waiting_bytes = bytes;
        let through = envelope.sequence;
        self.accepted.insert(envelope.source, through);
        self.waiting.push_back(envelope);
        Acceptance::New { through }
    }

    /// The message that [`Inbox::take`] would give.
    #[must_use]
    pub fn peek(&self) -> Option<&Envelope> {
        self.waiting.front()
    }

    /// The oldest message.
    pub fn take(&mut self) -> Option<Envelope> {
        let envelope = self.waiting.pop_front()?;
        self.waiting_bytes -= envelope.payload.len();
        if self.waiting.is_empty() {
            // Most agents wait for a message most of the time.
            self.waiting = VecDeque::new();
        }
        Some(envelope)
    }

    /// Messages that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no message waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sequences and waiting messages, to travel with the agent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let counters = self
            .accepted
            .iter()
            .map(|(peer, last)| (*peer, *last))
            .collect();
        let stored = |envelope: &Envelope| Stored {
            peer: envelope.source,
            source_epoch: envelope.source_epoch,
            sequence: envelope.sequence,
            kind: envelope.kind,
            payload_bytes: envelope.payload.len() as u64,
        };
        let messages = self.waiting.iter().map(stored).collect();
        let mut bytes = codec::encode(&StoredMailbox { counters, messages });
        for envelope in &self.waiting {
            bytes.extend_from_slice(&envelope.payload);
        }
        bytes
    }

    /// The mailbox of `agent` in these bytes; payloads share their buffer.
    ///
    /// # Errors
    ///
    /// [`CodecError`] if [`Inbox::encode`] cannot have written them.
    pub fn decode(agent: AgentId, bytes: &Bytes) -> Result<Inbox, CodecError> {
        let (stored, mut payloads) = StoredMailbox::decode(bytes)?;
        let mut inbox = Inbox::new(agent);
        let counts = (stored.counters.len(), stored.messages.len());
        inbox.accepted = stored.counters.into_iter().collect();
        if inbox.accepted.len() != counts.0
            || counts.0 > INBOX_SENDERS_MAX
            || counts.1 > INBOX_COUNT_MAX
        {
            return Err(CodecError::Malformed);
        }
        let mut newest = BTreeMap::new();
        for Stored {
            peer,
            source_epoch,
            sequence,
            kind,
            payload_bytes,
        } in stored.messages
        {
            let payload = next_payload(&mut payloads, payload_bytes)?;
            // From one sender the waiting messages follow one another, and the last was the last accepted.
            let follows = newest
                .get(&peer)
                .is_none_or(|before: &u64| before.checked_add(1) == Some(sequence));
            let accepted = inbox
                .accepted
                .get(&peer)
                .is_some_and(|last| sequence <= *last);
            if !follows || !accepted {
                return Err(CodecError::Malformed);
            }
            newest.insert(peer, sequence);
            inbox.waiting_bytes += payload.len();
            let (source, destination) = (peer, agent);
            let envelope = Envelope {
                source,
                source_epoch,
                destination,
                sequence,
                kind,
                payload,
            };
            inbox.waiting.push_back(envelope);
        }
        if newest
            .iter()
            .any(|(peer, sequence)| inbox.accepted.get(peer) != Some(sequence))
        {
            return Err(CodecError::Malformed);
        }
        all_consumed(&payloads)?;
        Ok(inbox)
    }
}

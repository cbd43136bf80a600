//! Messages between agents, exactly once and in order per sender, while both ends move.

use alloc::vec::Vec;

use bytes::Bytes;
use oxicode::{Decode, Encode};
use thiserror::Error;

use crate::codec::CodecError;
use crate::{AgentId, Epoch, Instant, NodeId};

/// What a message is to its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum MessageKind {
    /// Nothing is expected back.
    Send,
    /// A reply is expected.
    Request,
    /// The answer to a request.
    Reply {
        /// The request's sequence number, counted by the agent that asked.
        to_sequence: u64,
    },
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The agent that sent it.
    pub source: AgentId,
    /// How often the sender had been handed over when it sent it.
    pub source_epoch: Epoch,
    /// The agent it is for.
    pub destination: AgentId,
    /// Counted from 1 for each (source, destination).
    pub sequence: u64,
    /// What it is to its receiver.
    pub kind: MessageKind,
    /// The bytes, at most [`crate::limits::PAYLOAD_BYTES_MAX`].
    pub payload: Bytes,
}

impl Envelope {
    /// The header's bytes; on the wire the payload follows them raw.
    pub fn header(&self) -> Vec<u8> {
        todo!()
    }
    /// Header and payload in one buffer.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }
    /// The message in these bytes; the payload shares their buffer.
    pub fn decode(_bytes: &Bytes) -> Result<Envelope, CodecError> {
        todo!()
    }
}

/// What the node of the destination says to an envelope (or to the last of several).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum DeliveryReply {
    /// Everything up to here is in the mailbox, or was before.
    Acknowledged {
        /// The last sequence number accepted.
        through: u64,
    },
    /// Something before it is missing.
    Gap {
        /// The sequence number that must come next.
        expected: u64,
    },
    /// The mailbox is full; try later.
    Full,
    /// The agent is frozen or on its way; try later.
    Busy,
    /// The agent went to another node.
    Moved {
        /// The node.
        node: NodeId,
        /// Its epoch there.
        epoch: Epoch,
    },
    /// No such agent is known here; look it up again.
    Unknown,
    /// The agent has ended: nothing will ever be accepted.
    Ended,
}

/// What the sender's node should do after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing but asking for the next transmission.
    Continue,
    /// Look the destination up again before the next transmission, this being the newest that is known.
    Redirect {
        /// The node.
        node: NodeId,
        /// The agent's epoch there.
        epoch: Epoch,
    },
    /// Look the destination up again; the next transmission waits a little.
    LookUp,
    /// The destination has ended; its messages were dropped.
    Dropped {
        /// How many.
        count: usize,
    },
}

/// Why a message was not taken for sending. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OutboxError {
    /// Too much is unacknowledged; wait until [`Outbox::can_push`].
    #[error("too many messages are unacknowledged")]
    Full,
    /// Larger than a message may be. The caller is at fault.
    #[error(
        "a payload has at most {} bytes, this has {len}",
        crate::limits::PAYLOAD_BYTES_MAX
    )]
    TooLarge {
        /// Its length.
        len: usize,
    },
}

/// The unacknowledged messages of one sending agent. It travels with the agent.
#[derive(Clone, Debug)]
pub struct Outbox {}

impl Outbox {
    /// An empty outbox: every sequence starts at 1.
    pub fn new(_agent: AgentId) -> Outbox {
        todo!()
    }
    /// Takes a message; gives its sequence number.
    pub fn push(
        &mut self,
        _epoch: Epoch,
        _to: AgentId,
        _kind: MessageKind,
        _payload: Bytes,
    ) -> Result<u64, OutboxError> {
        todo!()
    }
    /// Whether [`Outbox::push`] would take a payload of this length.
    pub fn can_push(&self, _len: usize) -> bool {
        todo!()
    }
    /// The next message to transmit.
    pub fn poll_transmit(&mut self, _now: Instant) -> Option<Envelope> {
        todo!()
    }
    /// Takes what the destination's node said.
    pub fn handle_reply(&mut self, _now: Instant, _to: &AgentId, _reply: DeliveryReply) -> Advice {
        todo!()
    }
    /// Takes that a transmission could not be made (no location, no connection): it is repeated later.
    pub fn undeliverable(&mut self, _now: Instant, _to: &AgentId) {
        todo!()
    }
    /// Takes that the destination has a new location: everything unacknowledged is transmitted again at once.
    pub fn relocated(&mut self, _now: Instant, _to: &AgentId) {
        todo!()
    }
    /// When to ask [`Outbox::poll_transmit`] again although nothing happened.
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
    /// Messages not acknowledged yet.
    pub fn len(&self) -> usize {
        todo!()
    }
    /// Whether everything is acknowledged.
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    /// Destinations with unacknowledged messages.
    pub fn destinations(&self) -> impl Iterator<Item = AgentId> {
        core::iter::empty()
    }
    /// Counters and unacknowledged messages, to travel with the agent.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }
    /// The outbox in these bytes; all that is unacknowledged is transmitted again.
    pub fn decode(_agent: AgentId, _bytes: &Bytes) -> Result<Outbox, CodecError> {
        todo!()
    }
}

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
}

impl Acceptance {
    /// What to answer to the sender's node.
    pub fn reply(self) -> DeliveryReply {
        todo!()
    }
}

/// The mailbox of one receiving agent, with what it accepted from each sender. It travels with the agent.
#[derive(Clone, Debug)]
pub struct Inbox {}

impl Inbox {
    /// An empty mailbox.
    pub fn new(_agent: AgentId) -> Inbox {
        todo!()
    }
    /// Takes an envelope if it is the next one of its sender.
    pub fn accept(&mut self, _envelope: Envelope) -> Acceptance {
        todo!()
    }
    /// The message that [`Inbox::take`] would give.
    pub fn peek(&self) -> Option<&Envelope> {
        todo!()
    }
    /// The oldest message.
    pub fn take(&mut self) -> Option<Envelope> {
        todo!()
    }
    /// Messages that wait.
    pub fn len(&self) -> usize {
        todo!()
    }
    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    /// Sequences and waiting messages, to travel with the agent.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }
    /// The mailbox in these bytes.
    pub fn decode(_agent: AgentId, _bytes: &Bytes) -> Result<Inbox, CodecError> {
        todo!()
    }
}

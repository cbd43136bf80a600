//! Messages between agents, exactly once and in order per sender, while both ends move.
//!
//! The protocol is go-back-N with cumulative acknowledgements between two *agents*, not two nodes. The
//! sender's [`Outbox`] counts the messages to each destination from 1 and keeps each one until the
//! destination's node has said that it is in the mailbox. The receiver's [`Inbox`] takes from each sender
//! exactly the next number. Both travel with their agents, so neither a move nor a lost, doubled or reordered
//! transmission loses, doubles or reorders a message. Where the destination is now is the business of the
//! driver; [`DeliveryReply`] corrects it.
//!
//! An agent that starts anew has a new [`AgentId`], so its sequences start at 1 at every receiver.
//!
//! # Driving
//!
//! After every call on an outbox, and at [`Outbox::poll_timeout`], [`Outbox::ready`] says to whom something may
//! be transmitted. There are two ways. What [`Outbox::poll_post`] gives is sent to the node that holds the
//! destination without waiting for an answer; it is given to [`Outbox::handle_reply`], may stand for several
//! envelopes, or be [`Outbox::unheard`]. What [`Outbox::begin_exchange`] gives is sent there and one answer
//! waited for, before [`Outbox::end_exchange`]. The outbox never lets one overtake the other.

mod inbox;
mod outbox;

use alloc::vec::Vec;

use bytes::Bytes;
use oxicode::{Decode, Encode};

use crate::codec::{self, CodecError};
use crate::limits::PAYLOAD_BYTES_MAX;
use crate::{AgentId, Epoch, NodeId};

pub use inbox::{Acceptance, Inbox};
pub use outbox::{Advice, Outbox, OutboxError};

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
    /// The bytes, at most [`PAYLOAD_BYTES_MAX`].
    pub payload: Bytes,
}

/// What goes through the codec of an [`Envelope`].
#[derive(Encode, Decode)]
struct Header {
    source: AgentId,
    source_epoch: Epoch,
    destination: AgentId,
    sequence: u64,
    kind: MessageKind,
}

impl Envelope {
    /// The header's bytes; on the wire the payload follows them raw.
    #[must_use]
    pub fn header(&self) -> Vec<u8> {
        let Envelope {
            source,
            source_epoch,
            destination,
            sequence,
            kind,
            ..
        } = *self;
        codec::encode(&Header {
            source,
            source_epoch,
            destination,
            sequence,
            kind,
        })
    }

    /// Header and payload in one buffer, for drivers that cannot send them one after the other.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.header();
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// The message in these bytes; the payload shares their buffer.
    ///
    /// # Errors
    ///
    /// [`CodecError`] if they are no message, or one with too large a payload.
    pub fn decode(bytes: &Bytes) -> Result<Envelope, CodecError> {
        let (header, payload) = codec::decode_prefix::<Header>(bytes)?;
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(CodecError::TooLarge {
                limit: PAYLOAD_BYTES_MAX,
            });
        }
        let Header {
            source,
            source_epoch,
            destination,
            sequence,
            kind,
        } = header;
        let payload = bytes.slice_ref(payload);
        Ok(Envelope {
            source,
            source_epoch,
            destination,
            sequence,
            kind,
            payload,
        })
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
    /// Something before it is missing; everything before that is acknowledged.
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

/// Header of a message that travels inside a snapshot, where the other end of the pair is known.
#[derive(Encode, Decode)]
struct Stored {
    peer: AgentId,
    source_epoch: Epoch,
    sequence: u64,
    kind: MessageKind,
    payload_bytes: u64,
}

/// What goes through the codec of a mailbox; the payloads follow it raw, in order.
#[derive(Encode, Decode)]
struct StoredMailbox {
    counters: Vec<(AgentId, u64)>,
    messages: Vec<Stored>,
}

impl StoredMailbox {
    fn decode(bytes: &Bytes) -> Result<(StoredMailbox, Bytes), CodecError> {
        use crate::limits::MAILBOX_HEADERS_BYTES_MAX as LIMIT;
        let (stored, payloads) = codec::decode_prefix_limited::<StoredMailbox, LIMIT>(bytes)?;
        Ok((stored, bytes.slice_ref(payloads)))
    }
}

/// Cuts the next payload off the front of the rest.
fn next_payload(rest: &mut Bytes, len: u64) -> Result<Bytes, CodecError> {
    match usize::try_from(len) {
        Ok(len) if len > PAYLOAD_BYTES_MAX => Err(CodecError::TooLarge {
            limit: PAYLOAD_BYTES_MAX,
        }),
        Ok(len) if len <= rest.len() => Ok(rest.split_to(len)),
        _ => Err(CodecError::Truncated),
    }
}

fn all_consumed(rest: &Bytes) -> Result<(), CodecError> {
    match rest.len() {
        0 => Ok(()),
        count => Err(CodecError::Trailing { count }),
    }
}

#[cfg(test)]
mod tests;

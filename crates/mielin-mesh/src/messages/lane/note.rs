//! What stands in the header of a lane's frame.
//!
//! A note is a row of parts, each behind a byte that says what it is:
//!
//! ```text
//! 1  last        nothing more is posted
//! 2  message     source 16 | destination 16 | source epoch u64 | sequence u64 | kind
//!                kind: 0 send, 1 request, 2 reply and to_sequence u64
//! 3  said        source 16 | destination 16 | reply
//!                reply: 0 in an exchange, 1 acknowledged through u64, 2 gap, expected u64, 3 full,
//!                       4 moved, node 32 and epoch u64, 5 ended
//! ```
//!
//! Numbers are big endian, the message is the last part, and its payload is the frame's. It is written by hand, because
//! decoding and encoding with OxiCode took a quarter of the instructions that a posted message costs beside those of
//! the transport.

use bytes::{Buf, BufMut, Bytes};
use mielin_mesh_core::delivery::{DeliveryReply, Envelope, MessageKind};
use mielin_mesh_core::{AgentId, Epoch, NodeId};

const LAST: u8 = 1;
const MESSAGE: u8 = 2;
const SAID: u8 = 3;

/// What was said to messages that were posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) source: AgentId,
    pub(super) destination: AgentId,
    /// `None`: they have to come in an exchange.
    pub(super) reply: Option<DeliveryReply>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Last,
    /// A message without its payload.
    Message(Envelope),
    Said(Said),
}

pub(super) fn put_last(note: &mut Vec<u8>) {
    note.put_u8(LAST);
}

pub(super) fn put_message(note: &mut Vec<u8>, envelope: &Envelope) {
    note.put_u8(MESSAGE);
    note.put_slice(&envelope.source.0);
    note.put_slice(&envelope.destination.0);
    note.put_u64(envelope.source_epoch.0);
    note.put_u64(envelope.sequence);
    match envelope.kind {
        MessageKind::Send => note.put_u8(0),
        MessageKind::Request => note.put_u8(1),
        MessageKind::Reply { to_sequence } => {
            note.put_u8(2);
            note.put_u64(to_sequence);
        }
    }
}

/// Busy and Unknown are for exchanges.
pub(super) fn put_said(note: &mut Vec<u8>, said: &Said) {
    note.put_u8(SAID);
    note.put_slice(&said.source.0);
    note.put_slice(&said.destination.0);
    match said.reply {
        None | Some(DeliveryReply::Busy | DeliveryReply::Unknown) => note.put_u8(0),
        Some(DeliveryReply::Acknowledged { through }) => {
            note.put_u8(1);
            note.put_u64(through);
        }
        Some(DeliveryReply::Gap { expected }) => {
            note.put_u8(2);
            note.put_u64(expected);
        }
        Some(DeliveryReply::Full) => note.put_u8(3),
        Some(DeliveryReply::Moved { node, epoch }) => {
            note.put_u8(4);
            note.put_slice(&node.0);
            note.put_u64(epoch.0);
        }
        Some(DeliveryReply::Ended) => note.put_u8(5),
    }
}

/// Takes the next part of a note; `None` if it is malformed.
#[inline]
pub(super) fn part(rest: &mut &[u8]) -> Option<Part> {
    match rest.try_get_u8().ok()? {
        LAST => Some(Part::Last),
        MESSAGE => {
            let message = Envelope {
                source: agent(rest)?,
                destination: agent(rest)?,
                source_epoch: Epoch(rest.try_get_u64().ok()?),
                sequence: rest.try_get_u64().ok()?,
                kind: match rest.try_get_u8().ok()? {
                    0 => MessageKind::Send,
                    1 => MessageKind::Request,
                    2 => MessageKind::Reply {
                        to_sequence: rest.try_get_u64().ok()?,
                    },
                    _ => return None,
                },
                payload: Bytes::new(),
            };
            rest.is_empty().then_some(Part::Message(message))
        }
        SAID => Some(Part::Said(Said {
            source: agent(rest)?,
            destination: agent(rest)?,
            reply: match rest.try_get_u8().ok()? {
                0 => None,
                1 => Some(DeliveryReply::Acknowledged {
                    through: rest.try_get_u64().ok()?,
                }),
                2 => Some(DeliveryReply::Gap {
                    expected: rest.try_get_u64().ok()?,
                }),
                3 => Some(DeliveryReply::Full),
                4 => Some(DeliveryReply::Moved {
                    node: NodeId(*take(rest)?),
                    epoch: Epoch(rest.try_get_u64().ok()?),
                }),
                5 => Some(DeliveryReply::Ended),
                _ => return None,
            },
        })),
        _ => None,
    }
}

fn agent(rest: &mut &[u8]) -> Option<AgentId> {
    take(rest).map(|id| AgentId(*id))
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, others) = rest.split_first_chunk()?;
    *rest = others;
    Some(first)
}

#[cfg(test)]
mod tests;

//! Messages that other members carry: forwarded hop by hop to a node that the sender cannot reach itself.
//!
//! A [`RoutedMessage`] is a request. It goes from neighbour to neighbour, each waits for the answer of the next, and
//! the answer comes back on the same way. A [`Router`] is one node's part: it takes each message in once, and hands
//! out a [`Passage`] that says to whom the message goes next.
//!
//! - **The next hop** is the neighbour nearest to the destination by XOR distance, as in Kademlia (Maymounkov and
//!   Mazières 2002). Neighbours whose distances have their highest bit in the same place count as equally near, and
//!   the one with the lowest latency goes first. Greedy forwarding alone gets stuck where the neighbours are not a
//!   Kademlia table, so a neighbour that gives up is followed by the next nearest, up to [`ROUTED_WAYS_MAX`]: a search
//!   in depth which ends, because every node takes a message in only once.
//! - **Bounds**: at most [`ROUTED_HOPS_MAX`] links, and the life that is left goes with the message. A way that is
//!   not the last leaves an eighth of it for the others.
//! - **Once**: the pair of source and number is remembered for twice the longest life. Numbers of a source ascend, and
//!   of what was forgotten the highest is kept, so an old message that somebody kept is refused for good.
//! - **The sender is proved** by a signature of everything that forwarders may not change, checked at every hop before
//!   anything is remembered. The destination signs its answer. Forwarders can read, delay and drop a message.
//!
//! What a forwarder says about the way (the [`Hop`]s of an answer, a refusal) is believed, as is proper among members.

mod passage;
mod seen;

use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::time::Duration;

use bytes::Bytes;
use oxicode::{Decode, Encode};
use thiserror::Error;

use crate::codec::{self, CodecError};
use crate::kademlia::Key;
use crate::limits::{ROUTED_HOPS_MAX, ROUTED_TTL_MAX, ROUTED_WAYS_MAX};
use crate::registry::Verify;
use crate::{Instant, NodeId};
pub use passage::{Passage, Step};
use seen::Seen;

/// What the source's signature is made for, so that none of another kind passes for it.
const MESSAGE_PURPOSE: &[u8] = b"mielin 2026 routed message\0";
/// The same for the destination's.
const ANSWER_PURPOSE: &[u8] = b"mielin 2026 routed answer\0";

/// A request on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutedMessage {
    /// Who asks.
    pub source: NodeId,
    /// Who is asked.
    pub destination: NodeId,
    /// The source's number for it; the numbers of a source ascend.
    pub id: u64,
    /// Who at the destination is to answer.
    pub protocol: u16,
    /// The life that is left, in milliseconds.
    pub ttl_ms: u32,
    /// Links that it has crossed.
    pub hops: u8,
    /// The source's Ed25519 key, whose hash is [`RoutedMessage::source`].
    pub key: [u8; 32],
    /// The source's signature.
    pub signature: [u8; 64],
    /// What is asked.
    pub payload: Bytes,
}

/// The header of a [`RoutedMessage`], which the payload follows.
#[derive(Encode, Decode)]
struct Header {
    source: NodeId,
    destination: NodeId,
    id: u64,
    protocol: u16,
    ttl_ms: u32,
    hops: u8,
    key: [u8; 32],
    signature: [u8; 64],
}

impl RoutedMessage {
    /// Everything but the payload, in at most [`RoutedMessage::HEADER_BYTES_MAX`].
    #[must_use]
    pub fn header(&self) -> Vec<u8> {
        codec::encode(&Header {
            source: self.source,
            destination: self.destination,
            id: self.id,
            protocol: self.protocol,
            ttl_ms: self.ttl_ms,
            hops: self.hops,
            key: self.key,
            signature: self.signature,
        })
    }

    /// The longest header.
    pub const HEADER_BYTES_MAX: u16 = 256;

    /// The message with this header and payload. Nothing is checked yet: [`Router::receive`] does.
    ///
    /// # Errors
    ///
    /// The header is none.
    pub fn decode(header: &[u8], payload: Bytes) -> Result<RoutedMessage, CodecError> {
        let header: Header = codec::decode(header)?;
        Ok(RoutedMessage {
            source: header.source,
            destination: header.destination,
            id: header.id,
            protocol: header.protocol,
            ttl_ms: header.ttl_ms,
            hops: header.hops,
            key: header.key,
            signature: header.signature,
            payload,
        })
    }

    /// How long the message may still live.
    #[must_use]
    pub const fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms as u64)
    }

    /// What the source signs: all that forwarders must leave as it is.
    fn signed(&self) -> Vec<u8> {
        let mut message = MESSAGE_PURPOSE.to_vec();
        let payload = *blake3::hash(&self.payload).as_bytes();
        message.extend(codec::encode(&(
            self.source,
            self.destination,
            self.id,
            self.protocol,
            payload,
        )));
        message
    }

    /// What the destination signs under an answer to this message.
    #[must_use]
    pub fn answer_signed(&self, answer: &[u8]) -> Vec<u8> {
        let mut message = ANSWER_PURPOSE.to_vec();
        let answer = *blake3::hash(answer).as_bytes();
        message.extend(codec::encode(&(
            self.source,
            self.destination,
            self.id,
            answer,
        )));
        message
    }
}

/// Why a message went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Error)]
pub enum RouteRefusal {
    /// The source's signature is wrong, or the number of links or the life is above what is allowed.
    #[error("the message is not genuine")]
    NotGenuine,
    /// Its life is over.
    #[error("the message's life was over")]
    Expired,
    /// It has crossed the greatest number of links.
    #[error("the message crossed {ROUTED_HOPS_MAX} links and had not arrived")]
    TooManyHops,
    /// It, or a newer message that is forgotten already, was here before: it went in a circle, or was repeated.
    #[error("the message had been there before")]
    Duplicate,
    /// No neighbour could bring it further.
    #[error("no neighbour could bring the message further")]
    NoWay,
    /// Too many messages, of this source or of all, are on their way there.
    #[error("too many messages were on their way")]
    Busy,
    /// The destination does not answer routed messages of that protocol.
    #[error("the destination does not answer such messages")]
    Unserved,
    /// The destination's handler refused or failed.
    #[error("the destination refused the request")]
    Failed,
}

impl RouteRefusal {
    /// Whether another way may help.
    #[must_use]
    pub const fn is_local(self) -> bool {
        matches!(
            self,
            RouteRefusal::TooManyHops
                | RouteRefusal::Duplicate
                | RouteRefusal::NoWay
                | RouteRefusal::Busy
        )
    }
}

/// One link of the way that was taken, as the node before it measured it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hop {
    /// The node at the link's far end.
    pub node: NodeId,
    /// From sending the message over this link to its answer, in microseconds: this link and all behind it.
    pub rtt_us: u32,
}

/// What came of a message. The answer's bytes follow it raw.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RoutedAnswer {
    /// The destination answered.
    Answered {
        /// The destination's Ed25519 key.
        key: [u8; 32],
        /// Its signature under the answer.
        signature: [u8; 64],
        /// The way there, the first link first.
        hops: Vec<Hop>,
    },
    /// It went no further.
    Refused {
        /// Who refused last.
        by: NodeId,
        /// Why.
        refusal: RouteRefusal,
    },
}

impl RoutedAnswer {
    /// The longest encoding: sixteen hops of some 40 bytes and a signature.
    pub const BYTES_MAX: u16 = 1_024;

    /// Reads an answer.
    ///
    /// # Errors
    ///
    /// It is none, or has more hops than there may be links.
    pub fn decode(bytes: &[u8]) -> Result<RoutedAnswer, CodecError> {
        let answer: RoutedAnswer =
            codec::decode_limited::<_, { 2 * RoutedAnswer::BYTES_MAX as usize }>(bytes)?;
        match &answer {
            RoutedAnswer::Answered { hops, .. } if hops.len() > usize::from(ROUTED_HOPS_MAX) => {
                Err(CodecError::Malformed)
            }
            _ => Ok(answer),
        }
    }

    /// The answer as the node before hands it back: with the link over which it came.
    #[must_use]
    pub fn over(mut self, node: NodeId, rtt: Duration) -> RoutedAnswer {
        if let RoutedAnswer::Answered { hops, .. } = &mut self {
            hops.truncate(usize::from(ROUTED_HOPS_MAX) - 1);
            let rtt_us = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
            hops.insert(0, Hop { node, rtt_us });
        }
        self
    }
}

/// Somebody to whom this node can hand a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Who.
    pub node: NodeId,
    /// The smoothed round trip time, if there is a connection.
    pub rtt: Option<Duration>,
}

/// For whom a message is that has come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// For this node: answer it. It comes only once.
    Here,
    /// For another: ask [`Router::passage`].
    Onward,
}

/// One node's part in forwarding.
pub struct Router<V> {
    local: NodeId,
    next_id: u64,
    seen: Seen,
    verifier: PhantomData<fn() -> V>,
}

impl<V> fmt::Debug for Router<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("local", &self.local)
            .field("next_id", &self.next_id)
            .finish_non_exhaustive()
    }
}

impl<V: Verify> Router<V> {
    /// A router that has seen nothing. `first_id` must be above every number that an earlier life of this node has
    /// used: the microseconds since 1970 are, as long as a node sends less than a million messages a second.
    #[must_use]
    pub fn new(local: NodeId, first_id: u64) -> Router<V> {
        Router {
            local,
            next_id: first_id,
            seen: Seen::default(),
            verifier: PhantomData,
        }
    }

    /// A message of this node's own, signed. `key` is the public half of what `sign` signs with; lives longer than
    /// [`ROUTED_TTL_MAX`] become that.
    ///
    /// # Errors
    ///
    /// Those of `sign`; the number is used up.
    pub fn originate<E>(
        &mut self,
        now: Instant,
        destination: NodeId,
        request: (u16, Bytes),
        ttl: Duration,
        key: [u8; 32],
        sign: impl FnOnce(&[u8]) -> Result<[u8; 64], E>,
    ) -> Result<RoutedMessage, E> {
        let id = self.next_id;
        self.next_id = self.next_id.saturating_add(1);
        let (protocol, payload) = request;
        let mut message = RoutedMessage {
            source: self.local,
            destination,
            id,
            protocol,
            ttl_ms: ttl.min(ROUTED_TTL_MAX).as_millis() as u32,
            hops: 0,
            key,
            signature: [0; 64],
            payload,
        };
        message.signature = sign(&message.signed())?;
        // When it comes back here it has gone in a circle. A node that sends too much learns it from the others.
        let _ = self.seen.note(now, self.local, id);
        Ok(message)
    }

    /// Takes in a message that a peer handed over.
    ///
    /// # Errors
    ///
    /// [`RouteRefusal`], for the peer. Only a message that is genuine and new is remembered.
    pub fn receive(
        &mut self,
        now: Instant,
        message: &RoutedMessage,
    ) -> Result<Arrival, RouteRefusal> {
        if message.hops > ROUTED_HOPS_MAX || message.ttl() > ROUTED_TTL_MAX {
            return Err(RouteRefusal::NotGenuine);
        }
        if message.ttl_ms == 0 {
            return Err(RouteRefusal::Expired);
        }
        if self.seen.knows(&message.source, message.id) {
            return Err(RouteRefusal::Duplicate);
        }
        if NodeId::of_ed25519_key(&message.key) != message.source
            || !V::verify(&message.key, &message.signed(), &message.signature)
        {
            return Err(RouteRefusal::NotGenuine);
        }
        if message.destination != self.local && message.hops == ROUTED_HOPS_MAX {
            // Not remembered: a shorter way may lead through here.
            return Err(RouteRefusal::TooManyHops);
        }
        self.seen.note(now, message.source, message.id)?;
        Ok(if message.destination == self.local {
            Arrival::Here
        } else {
            Arrival::Onward
        })
    }

    /// The ways on for a message that goes onward, or that this node sends: the destination itself if it is a
    /// neighbour, then the others by nearness. `from` is who handed it over.
    #[must_use]
    pub fn passage(
        &self,
        now: Instant,
        message: RoutedMessage,
        from: Option<NodeId>,
        neighbours: impl IntoIterator<Item = Neighbour>,
    ) -> Passage {
        let target = Key::from(message.destination);
        let mut ways: Vec<_> = neighbours
            .into_iter()
            .filter(|way| Some(way.node) != from)
            .filter(|way| way.node != self.local && way.node != message.source)
            .map(|way| {
                let distance = target.distance(&Key::from(way.node));
                let latency = way.rtt.unwrap_or(Duration::MAX);
                (distance.bucket(), latency, distance, way.node)
            })
            .collect();
        ways.sort_unstable();
        ways.dedup_by_key(|(_, _, _, node)| *node);
        ways.truncate(ROUTED_WAYS_MAX);
        let ways = ways.into_iter().map(|(_, _, _, node)| node);
        Passage::new(now, self.local, message, ways.collect())
    }

    /// Whether the destination signed this answer to a message.
    #[must_use]
    pub fn is_answered(
        message: &RoutedMessage,
        key: &[u8; 32],
        signature: &[u8; 64],
        answer: &[u8],
    ) -> bool {
        NodeId::of_ed25519_key(key) == message.destination
            && V::verify(key, &message.answer_signed(answer), signature)
    }

    /// Messages that are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.seen.len()
    }
}

#[cfg(test)]
mod tests;

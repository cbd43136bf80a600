//! Who is there: SWIM membership with suspicion and refutation.
//!
//! The protocol is SWIM (Das, Gupta, Motivala, "SWIM: Scalable Weakly-consistent Infection-style Process
//! Group Membership Protocol", DSN 2002) with the suspicion of its section 4.2, as implemented by the crate
//! `foca`. This module gives it an identity, a wire format, timers and events.

use alloc::vec::Vec;
use core::net::SocketAddr;

use thiserror::Error;

use crate::{Instant, MemberState, Name, NodeId, NodeRole};

/// A node as the group knows it. One node has one identity at a time: the one with the highest generation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The node.
    pub id: NodeId,
    /// What people call it.
    pub name: Name,
    /// What it is for.
    pub role: NodeRole,
    /// Where it listens.
    pub address: SocketAddr,
    /// Rises with every start of the node (use the milliseconds since 1970) and whenever the node comes back
    /// from the dead, so that news about an earlier life cannot bury this one.
    pub generation: u64,
    /// Whether the node said that it leaves. A local identity starts with `false`.
    pub departed: bool,
}

/// A member and what is believed about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who it is.
    pub identity: Identity,
    /// What is believed about it.
    pub state: MemberState,
}

/// How fast silence becomes death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Preset {
    /// Seconds: suspect after two, dead after five.
    Lan,
    /// Suspect after at most 15 s, dead after at most 30 s.
    Wan,
}

/// Something to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The node it is for.
    pub to: NodeId,
    /// Where that node listens.
    pub address: SocketAddr,
    /// The datagram, at most [`crate::limits::MEMBERSHIP_DATAGRAM_BYTES_MAX`] bytes.
    pub bytes: Vec<u8>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipEvent {
    /// A member appeared, or its state, address, name or generation changed.
    MemberChanged(Member),
    /// The group had buried this node; it rejoined with a new generation.
    Rejoined {
        /// The new generation.
        generation: u64,
    },
}

/// What a datagram or a call did wrong. None changes the membership.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MembershipError {
    /// The datagram is no membership message. The peer is at fault.
    #[error("the datagram is not a membership message")]
    Malformed,
    /// The datagram names another sender than the one it came from. The peer is at fault.
    #[error("a datagram from {from:?} claims to come from {claimed:?}")]
    Spoofed {
        /// The authenticated peer.
        from: NodeId,
        /// Whom the datagram names.
        claimed: NodeId,
    },
    /// The message does not fit a datagram, or the identity says that it has departed. The caller is at fault.
    #[error("the identity cannot be used")]
    BadIdentity,
}

/// One node's view of the group.
pub struct Membership {}

impl Membership {
    /// A group of one. `seed` feeds the choice of whom to probe; the same seed and inputs give the same run.
    pub fn new(
        _local: Identity,
        _preset: Preset,
        _seed: u64,
    ) -> Result<Membership, MembershipError> {
        todo!()
    }
    /// This node.
    pub fn local(&self) -> &Identity {
        todo!()
    }
    /// Asks the node at an address to take this node in. Repeat it until a member is known.
    pub fn announce(
        &mut self,
        _now: Instant,
        _to: NodeId,
        _address: SocketAddr,
    ) -> Result<(), MembershipError> {
        todo!()
    }
    /// Takes a datagram from an authenticated peer.
    pub fn handle_datagram(
        &mut self,
        _now: Instant,
        _from: NodeId,
        _bytes: &[u8],
    ) -> Result<(), MembershipError> {
        todo!()
    }
    /// Takes the hint that the connection to a peer broke: it is a suspect at once.
    pub fn connection_lost(&mut self, _now: Instant, _peer: &NodeId) {
        todo!()
    }
    /// Tells the group that this node leaves. Afterwards only transmissions remain; everything else is ignored.
    pub fn leave(&mut self, _now: Instant) {
        todo!()
    }
    /// Lets time pass. Call it at or after [`Membership::poll_timeout`].
    pub fn handle_timeout(&mut self, _now: Instant) {
        todo!()
    }
    /// When to call [`Membership::handle_timeout`]; ask again after every other call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
    /// The next datagram to send; ask after every call until there is none.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        todo!()
    }
    /// The next event; ask after every call until there is none.
    pub fn poll_event(&mut self) -> Option<MembershipEvent> {
        todo!()
    }
    /// Everyone known, this node included, by id.
    pub fn members(&self) -> Vec<Member> {
        todo!()
    }
    /// What is known about a node.
    pub fn member(&self, _id: &NodeId) -> Option<Member> {
        todo!()
    }
}

//! Who is shut out: nodes whose certificates the mesh's root has taken back.
//!
//! A revocation is signed with the root's key, so any member may carry it and none can make one up. Nothing
//! takes it back: the set only grows, and two sets merge by union, in whatever order news arrives (a
//! grow-only set in the sense of Shapiro, Preguiça, Baquero and Zawirski, "Conflict-free Replicated Data Types",
//! SSS 2011).
//!
//! News is handed on at once to [`FANOUT`] members at random, which infects nearly all of them (Demers and others,
//! "Epidemic Algorithms for Replicated Database Maintenance", PODC 1987). For the rest, and after a partition,
//! members compare digests: whenever two connect, and every [`SUMMARY_PERIOD`] with one at random. Where the
//! digests differ each is sent what it lacks.

mod signed;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::marker::PhantomData;
use core::time::Duration;

use oxicode::{Decode, Encode};
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{RngExt, SeedableRng};
use thiserror::Error;

use crate::codec::{self, CodecError};
use crate::limits::{REVOCATION_MESSAGE_BYTES_MAX, REVOCATIONS_MAX};
use crate::registry::Verify;
use crate::{Instant, NodeId};
pub use signed::{Reason, ReasonError, Revocation, SignedRevocation};

/// Members that are told of a new revocation at once.
pub const FANOUT: usize = 8;
/// How often a node compares digests with a member.
pub const SUMMARY_PERIOD: Duration = Duration::from_secs(10);
/// Revocations in one message: at most some 30 KB.
const RECORDS_PER_MESSAGE: usize = 64;

/// A message for a member. Send it over a stream: most are too long for a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationTransmit {
    /// The member it is for.
    pub to: NodeId,
    /// The message, at most [`REVOCATION_MESSAGE_BYTES_MAX`] bytes.
    pub bytes: Vec<u8>,
}

/// What a message did wrong. The peer is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RevocationError {
    /// It is no message of this protocol. Nothing changed.
    #[error("not a message about revocations: {0}")]
    Malformed(#[from] CodecError),
    /// A revocation in it was not signed by the root. What stood before it was taken in.
    #[error("the revocation of {} was not signed by the mesh's root", .0.short())]
    Forged(NodeId),
    /// As many nodes are revoked as a set can hold. The set is as before.
    #[error("{REVOCATIONS_MAX} nodes are revoked already")]
    Full,
}

#[derive(Encode, Decode)]
enum Message {
    /// A hash over the ids of the revoked.
    Summary([u8; 32]),
    /// The ids themselves, because the digests differ; `asks` for an answer of the same kind if something is
    /// missing here.
    Held { nodes: Vec<NodeId>, asks: bool },
    /// Revocations that the other lacks.
    News(Vec<SignedRevocation>),
}

/// One node's set of revocations, and what it says to the members about it.
pub struct Revocations<V> {
    root_key: [u8; 32],
    held: BTreeMap<NodeId, SignedRevocation>,
    members: BTreeSet<NodeId>,
    rng: StdRng,
    next_summary: Option<Instant>,
    transmits: VecDeque<RevocationTransmit>,
    events: VecDeque<SignedRevocation>,
    verifier: PhantomData<fn() -> V>,
}

impl<V: Verify> Revocations<V> {
    /// A set that believes the root with this Ed25519 key and begins with what was stored; of that, what the root
    /// did not sign is left out. `seed` feeds the choice of whom to tell.
    #[must_use]
    pub fn new(
        root_key: [u8; 32],
        stored: impl IntoIterator<Item = SignedRevocation>,
        seed: u64,
    ) -> Self {
        let genuine = stored
            .into_iter()
            .filter(|one| one.is_genuine::<V>(&root_key));
        let held = genuine.map(|one| (one.revocation().node, one));
        Revocations {
            root_key,
            held: held.take(REVOCATIONS_MAX).collect(),
            members: BTreeSet::new(),
            rng: StdRng::seed_from_u64(seed),
            next_summary: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            verifier: PhantomData,
        }
    }

    /// Whether a node is revoked.
    #[must_use]
    pub fn contains(&self, node: &NodeId) -> bool {
        self.held.contains_key(node)
    }

    /// All revocations, by node.
    pub fn iter(&self) -> impl Iterator<Item = &SignedRevocation> {
        self.held.values()
    }

    /// A member is there: it may be told news from now on.
    pub fn member_joined(&mut self, now: Instant, node: NodeId) {
        if self.contains(&node) {
            return;
        }
        self.members.insert(node);
        if self.next_summary.is_none() {
            // Nodes that start together do not speak together.
            let share = self.rng.random_range(0.0..1.0);
            self.next_summary = Some(now + SUMMARY_PERIOD.mul_f64(share));
        }
    }

    /// A member is not there any more.
    pub fn member_left(&mut self, node: &NodeId) {
        self.members.remove(node);
    }

    /// A connection with a node stands: the two compare what they hold.
    pub fn connected(&mut self, node: NodeId) {
        if !self.contains(&node) {
            self.send_summary(node);
        }
    }

    /// Takes in a revocation, from whomever; says whether it is new. News is handed on.
    ///
    /// # Errors
    ///
    /// [`RevocationError::Forged`] and [`RevocationError::Full`].
    pub fn insert(&mut self, revocation: SignedRevocation) -> Result<bool, RevocationError> {
        let (new, from) = (Vec::from([revocation]), None);
        Ok(self.merge(new, from)? > 0)
    }

    /// Takes a message from an authenticated peer.
    ///
    /// # Errors
    ///
    /// [`RevocationError`].
    pub fn handle_message(&mut self, from: NodeId, bytes: &[u8]) -> Result<(), RevocationError> {
        let message = codec::decode_limited::<_, REVOCATION_MESSAGE_BYTES_MAX>(bytes)?;
        match message {
            Message::Summary(theirs) if theirs == self.digest() => {}
            Message::Summary(_) => self.send_held(from, true),
            Message::Held { nodes, asks } => {
                let theirs: BTreeSet<NodeId> = nodes.into_iter().collect();
                self.send_lacking(from, &theirs);
                if asks && theirs.iter().any(|node| !self.contains(node)) {
                    self.send_held(from, false);
                }
            }
            Message::News(news) => {
                self.merge(news, Some(from))?;
            }
        }
        Ok(())
    }

    /// Lets time pass. Call it at or after [`Revocations::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_summary.is_none_or(|at| at > now) {
            return;
        }
        let member = self.members.iter().choose(&mut self.rng).copied();
        self.next_summary = member.map(|_| now + SUMMARY_PERIOD);
        if let Some(member) = member {
            self.send_summary(member);
        }
    }

    /// When to call [`Revocations::handle_timeout`]; ask again after every other call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_summary
    }

    /// The next message to send; ask after every call until there is none.
    pub fn poll_transmit(&mut self) -> Option<RevocationTransmit> {
        self.transmits.pop_front()
    }

    /// The next revocation that is new here: store it and shut the node out. Ask after every call until there is
    /// none.
    pub fn poll_event(&mut self) -> Option<SignedRevocation> {
        self.events.pop_front()
    }

    fn merge(
        &mut self,
        news: Vec<SignedRevocation>,
        from: Option<NodeId>,
    ) -> Result<usize, RevocationError> {
        let mut new = Vec::new();
        let mut outcome = Ok(());
        for one in news {
            let node = one.revocation().node;
            if self.contains(&node) {
                continue;
            }
            if !one.is_genuine::<V>(&self.root_key) {
                outcome = Err(RevocationError::Forged(node));
                break;
            }
            if self.held.len() >= REVOCATIONS_MAX {
                outcome = Err(RevocationError::Full);
                break;
            }
            self.members.remove(&node);
            self.held.insert(node, one.clone());
            self.events.push_back(one.clone());
            new.push(one);
        }
        if !new.is_empty() {
            let others = self.members.iter().filter(|node| Some(**node) != from);
            let chosen: Vec<NodeId> = others.copied().sample(&mut self.rng, FANOUT);
            for to in chosen {
                self.send(to, &Message::News(new.clone()));
            }
        }
        outcome.map(|()| new.len())
    }

    fn send_lacking(&mut self, to: NodeId, theirs: &BTreeSet<NodeId>) {
        let lacking = self.held.iter().filter(|(node, _)| !theirs.contains(node));
        let lacking: Vec<_> = lacking.map(|(_, one)| one.clone()).collect();
        for chunk in lacking.chunks(RECORDS_PER_MESSAGE) {
            self.send(to, &Message::News(chunk.to_vec()));
        }
    }

    fn send_summary(&mut self, to: NodeId) {
        let digest = self.digest();
        self.send(to, &Message::Summary(digest));
    }

    fn send_held(&mut self, to: NodeId, asks: bool) {
        let nodes = self.held.keys().copied().collect();
        self.send(to, &Message::Held { nodes, asks });
    }

    fn send(&mut self, to: NodeId, message: &Message) {
        let bytes = codec::encode(message);
        self.transmits.push_back(RevocationTransmit { to, bytes });
    }

    fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for node in self.held.keys() {
            hasher.update(&node.0);
        }
        *hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests;

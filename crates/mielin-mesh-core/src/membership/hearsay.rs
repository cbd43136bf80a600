//! What this node takes from others about third parties, and about itself.
//!
//! The highest generation of a node wins, so whoever makes one up silences the node: the others then wait for a life
//! that nobody lives. Three rules keep that short:
//!
//! - Others raise the generation of a member by at most [`GENERATION_STEP`] in a probe period; what a member says of
//!   itself is not bounded, and the last of all generations is nobody's: it is for those who are shut out.
//! - Who talks under a generation that was overtaken is told by which, and begins a life after it.
//! - It does so at most once in a period, and so does a node that is told that its present life has ended. It climbs
//!   by more steps at a time than others can raise it.
//!
//! Nor do inventions fill the memory: at most [`MEMBERS_MAX`] members are known. Whoever died first is forgotten for a
//! newcomer; when all are there, newcomers are passed over, and counted.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use foca::{Incarnation, State};

use super::sync::EntriesHeader;
use super::wire::{WireHeader, WireMember};
use super::{Identity, KIND_ENTRIES, Membership, MembershipError, MembershipEvent};
use crate::limits::{
    GENERATION_STEP, GENERATION_STEPS_OWN, GENERATION_UNHEARD_MAX, MEMBERS_MAX,
    MEMBERSHIP_DATAGRAM_BYTES_MAX,
};
use crate::{Instant, NodeId, codec};

/// The last generation of a life. The one after it is for those who are shut out.
pub(super) const GENERATION_MAX: u64 = u64::MAX - 1;

/// More members than a datagram can hold: each has an id.
const DATAGRAM_MEMBERS_MAX: usize = MEMBERSHIP_DATAGRAM_BYTES_MAX / size_of::<NodeId>();

/// The generation of another life of this node, and where it is said to listen.
pub(super) type Told = (u64, SocketAddr);

/// How far hearsay has gone in the present probe period.
#[derive(Debug, Default)]
pub(super) struct Hearsay {
    /// By member: since when others raise its generation, and how far they may.
    raised: BTreeMap<NodeId, (Instant, u64)>,
    renewed: Option<Instant>,
    outlived: Option<Instant>,
    /// Those whom the present datagram brings.
    newcomers: BTreeSet<NodeId>,
    strangers_refused: u64,
}

/// Whether something may happen again that may happen once in a period; notes that it does.
fn is_due(last: &mut Option<Instant>, now: Instant, period: Duration) -> bool {
    let due = last.is_none_or(|last| now >= last + period);
    if due {
        *last = Some(now);
    }
    due
}

impl Hearsay {
    pub(super) const fn strangers_refused(&self) -> u64 {
        self.strangers_refused
    }

    pub(super) fn forget(&mut self, node: &NodeId) {
        self.raised.remove(node);
    }

    /// Whether others may say that the member has this generation now.
    fn may_raise(
        &mut self,
        now: Instant,
        period: Duration,
        known: &Identity,
        generation: u64,
    ) -> bool {
        if generation <= known.generation {
            return true;
        }
        let limit = known.generation.saturating_add(GENERATION_STEP);
        let limit = limit.min(GENERATION_MAX);
        let window = self.raised.entry(known.id).or_insert((now, limit));
        if now >= window.0 + period {
            *window = (now, limit);
        }
        generation <= window.1
    }
}

impl Membership {
    /// Whether foca is to hear that this node's present life has ended: once in a period.
    pub(super) fn may_renew(&mut self) -> bool {
        is_due(&mut self.hearsay.renewed, self.effects.now, self.period)
    }

    /// Whether foca is to hear this from a peer. Notes in `told` a life of this node that overtakes the present one.
    pub(super) fn believes(
        &mut self,
        from: NodeId,
        member: &foca::Member<Identity>,
        told: &mut Option<Told>,
    ) -> bool {
        let identity = member.id();
        let local = self.foca.identity();
        if identity == local {
            let ends = member.state() == State::Down
                || member.state() == State::Suspect && member.incarnation() == Incarnation::MAX;
            return !ends || self.may_renew();
        }
        if identity.id == local.id {
            if foca::Identity::win_addr_conflict(identity, local) {
                *told = (*told).max(Some((identity.generation, identity.address)));
            }
            return false;
        }
        if identity.id == from {
            return identity.generation <= GENERATION_MAX;
        }
        let Some(known) = self.known.get(&identity.id) else {
            return identity.generation <= GENERATION_UNHEARD_MAX && self.has_room_for(identity.id);
        };
        let generation = identity.generation;
        self.hearsay
            .may_raise(self.effects.now, self.period, &known.identity, generation)
    }

    /// Forgets those who died first until there is room for what one datagram can bring.
    pub(super) fn make_room(&mut self) {
        self.hearsay.newcomers.clear();
        let missing = (self.known.len() + DATAGRAM_MEMBERS_MAX).saturating_sub(MEMBERS_MAX);
        if missing == 0 {
            return;
        }
        let dead = self.known.values().filter(|m| !m.state.is_active());
        let mut dead: Vec<_> = dead.map(|m| (m.since, m.identity.id)).collect();
        dead.sort_unstable();
        let forgotten: BTreeSet<NodeId> =
            dead.into_iter().take(missing).map(|(_, id)| id).collect();
        for id in &forgotten {
            let Some(member) = self.known.get(id) else {
                continue;
            };
            let timer = foca::Timer::RemoveDown(member.identity.clone());
            let result = self.foca.handle_timer(timer, &mut self.effects);
            debug_assert!(result.is_ok(), "forgetting cannot fail");
        }
        if !forgotten.is_empty() {
            self.effects.forget(&forgotten);
            self.effects.touched.add_all();
            self.settle(Ok(()));
        }
    }

    /// Whether one more is to be known than are known already and were brought by the present datagram.
    pub(super) fn has_room_for(&mut self, stranger: NodeId) -> bool {
        let newcomers = &mut self.hearsay.newcomers;
        let room = self.known.len() + newcomers.len() < MEMBERS_MAX;
        if newcomers.contains(&stranger) {
            return true;
        }
        if room {
            newcomers.insert(stranger);
        } else {
            self.hearsay.strangers_refused += 1;
        }
        room
    }

    /// A datagram of foca's without the news that this node does not believe.
    pub(super) fn sifted(
        &mut self,
        from: NodeId,
        header: &WireHeader,
        bytes: &[u8],
        news: &[u8],
        told: &mut Option<Told>,
    ) -> Result<Vec<u8>, MembershipError> {
        let mut sifted = bytes.to_vec();
        // foca reads no news in other datagrams.
        let Some((count, mut rest)) = news.split_first_chunk::<2>() else {
            return Ok(sifted);
        };
        if !header.has_news() {
            return Ok(sifted);
        }
        let at = bytes.len() - news.len();
        sifted.truncate(at + 2);
        let mut believed = 0_u16;
        for _ in 0..u16::from_be_bytes(*count) {
            let (member, after) =
                codec::decode_prefix::<WireMember>(rest).map_err(|_| MembershipError::Malformed)?;
            if self.believes(from, &member.into(), told) {
                believed += 1;
                sifted.extend_from_slice(&rest[..rest.len() - after.len()]);
            }
            rest = after;
        }
        sifted[at..at + 2].copy_from_slice(&believed.to_be_bytes());
        sifted.extend_from_slice(rest);
        Ok(sifted)
    }

    /// Tells a peer by which of its lives the one has been overtaken that it speaks under.
    pub(super) fn tell_overtaken(&mut self, source: &Identity) {
        let overtakes = |known: &Identity| {
            known.generation <= GENERATION_MAX && foca::Identity::win_addr_conflict(known, source)
        };
        if !self
            .known
            .get(&source.id)
            .is_some_and(|known| known.identity != *source && overtakes(&known.identity))
        {
            return;
        }
        let mut members = self.foca.iter_membership_state();
        let Some(member) = members.find(|m| m.id().id == source.id).cloned() else {
            return;
        };
        drop(members);
        let local = self.local().id;
        let mut bytes = alloc::vec![KIND_ENTRIES];
        bytes.extend(codec::encode(&EntriesHeader { source: local }));
        bytes.extend(codec::encode(&WireMember::from(&member)));
        self.transmit(source, bytes);
    }

    /// Begins a life after one that others say this node has.
    pub(super) fn outlive(&mut self, told: Option<Told>) {
        let Some((told, address)) = told else {
            return;
        };
        if address != self.local().address {
            self.events
                .push_back(MembershipEvent::OtherLife { address });
        }
        let local = self.local();
        let reach = GENERATION_STEP * GENERATION_STEPS_OWN;
        let generation = told
            .saturating_add(1)
            .min(local.generation.saturating_add(reach))
            .min(GENERATION_MAX);
        if generation <= local.generation {
            return;
        }
        let identity = Identity {
            generation,
            ..local.clone()
        };
        if !is_due(&mut self.hearsay.outlived, self.effects.now, self.period) {
            return;
        }
        self.effects.ping = None;
        self.effects.touched.add_all();
        self.effects.rejoined = true;
        let result = self.foca.change_identity(identity, &mut self.effects);
        self.settle(result);
    }
}

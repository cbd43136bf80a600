//! Who is there: SWIM membership with suspicion and refutation.
//!
//! The protocol is SWIM (Das, Gupta, Motivala, "SWIM: Scalable Weakly-consistent Infection-style Process
//! Group Membership Protocol", DSN 2002) with the suspicion of its section 4.2, as implemented by the crate
//! `foca`. This module gives it an identity, a wire format, timers and events, and deviates in seven points:
//!
//! - A member that stops or leaves says so: it spreads its own death under an identity marked as departed, so
//!   that the group can tell [`MemberState::Stopped`] and [`MemberState::Left`] from [`MemberState::Dead`].
//! - A member that was buried alive comes back by itself, with a higher generation.
//! - The dead are announced to from time to time, so that a healed partition heals (anti-entropy).
//! - Two members at a time compare what they know, so that everybody learns in the end what gossip did not
//!   bring (anti-entropy; module `sync` has the protocol). Each datagram begins with its kind.
//! - A node that is slow blames itself first (Lifeguard; module `health`).
//! - A ping is repeated until it is answered, so that a lost datagram is not taken for a death (module `ping`).
//! - A broken connection is a hint: the peer is a suspect at once, and refutes if it lives.
//!
//! Datagrams come from authenticated peers, and one that names another sender is refused; but a peer may
//! still say anything about third parties, as in every SWIM. Whoever holds a certificate of the mesh is
//! trusted that far, within the bounds of module `hearsay`.

mod health;
mod hearsay;
mod identity;
mod ping;
mod place;
mod preset;
mod sync;
mod touched;
mod wire;

use alloc::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicU16, Ordering};
use core::time::Duration;

use foca::{Foca, NoCustomBroadcast, Notification, State, Timer};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use thiserror::Error;

use crate::codec;
use crate::limits::{MEMBERSHIP_DATAGRAM_BYTES_MAX, RELAYS_MAX};
use crate::{Instant, MemberState, Name, NodeId, NodeRole};
use health::Health;
use hearsay::{GENERATION_MAX, Hearsay};
pub(crate) use identity::WireAddress;
pub use identity::{Departure, Identity, Member};
use ping::Ping;
pub use preset::{NotPreset, Preset};
use sync::{Digest, EntriesHeader};
use touched::Touched;
use wire::{OxiCodec, WireHeader, WireMember};

/// Something to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The node it is for.
    pub to: NodeId,
    /// Where that node listens.
    pub address: SocketAddr,
    /// The datagram, at most [`MEMBERSHIP_DATAGRAM_BYTES_MAX`] bytes.
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
    /// A member tells of another life of this node, at another address: a former one, one made up, or another process
    /// with its key.
    OtherLife {
        /// Where it is said to listen.
        address: SocketAddr,
    },
    /// A member that has been gone for long is forgotten.
    Forgotten(NodeId),
}

/// What a datagram or a call did wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MembershipError {
    /// The datagram is no membership message. The peer is at fault; at most its own liveness was noted.
    #[error("the datagram is not a membership message")]
    Malformed,
    /// The datagram names another sender than the one it came from. The peer is at fault; nothing changed.
    #[error("a datagram from {} claims to come from {}", .from.short(), .claimed.short())]
    Spoofed {
        /// The authenticated peer.
        from: NodeId,
        /// Whom the datagram names.
        claimed: NodeId,
    },
    /// The local identity says that it has departed. The caller is at fault; nothing changed.
    #[error("a node cannot begin as departed")]
    Departed,
}

/// The first byte of a datagram: one of foca's follows.
const KIND_SWIM: u8 = 0;
/// A [`Digest`] follows.
const KIND_DIGEST: u8 = 1;
/// An [`EntriesHeader`] and members follow.
const KIND_ENTRIES: u8 = 2;

/// One node's view of the group.
pub struct Membership {
    foca: Foca<Identity, OxiCodec, StdRng, NoCustomBroadcast>,
    suspect_to_dead: Duration,
    departed: Option<Departure>,
    /// Another process that bears this node's id is in its place.
    gives_way: bool,
    known: BTreeMap<NodeId, Member>,
    hearsay: Hearsay,
    period: Duration,
    /// When to compare what is known with somebody; `None` without others.
    sync_at: Option<Instant>,
    random: StdRng,
    effects: Effects,
    events: VecDeque<MembershipEvent>,
}

/// What foca asks of the world, kept until the driver fetches it.
struct Effects {
    local: NodeId,
    now: Instant,
    transmits: VecDeque<Transmit>,
    /// Soonest first; of several at one time, in foca's own order of kinds, then in order of submission.
    timers: BinaryHeap<Reverse<(Instant, Timer<Identity>, u64)>>,
    submitted: u64,
    /// The dead that a timer is there for, one for each.
    forgetting: BTreeSet<NodeId>,
    /// The token of the current probe cycle: timers with an older one are void.
    token: Option<foca::TimerToken>,
    rejoined: bool,
    /// Members that may have changed.
    touched: Arc<Touched>,
    health: Health,
    probe_rtt: Duration,
    ping: Option<Ping>,
    /// This node's incarnation in what foca sent last.
    incarnation: Arc<AtomicU16>,
}

impl foca::Runtime<Identity> for Effects {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        match notification {
            Notification::MemberUp(member)
            | Notification::MemberDown(member)
            | Notification::Rename(_, member) => self.touched.add(&member.id),
            Notification::Rejoin(_) => {
                self.rejoined = true;
                self.ping = None;
                self.touched.add_all();
            }
            Notification::Active | Notification::Idle | Notification::Defunct => {
                self.ping = None;
                self.touched.add_all();
            }
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        // foca keeps another identity of this node, an earlier life or what a peer made up, as a dead
        // member, and greets those now and then.
        if to.id == self.local {
            return;
        }
        let swim = |data: &[u8]| {
            let mut bytes = Vec::with_capacity(1 + data.len());
            bytes.push(KIND_SWIM);
            bytes.extend_from_slice(data);
            Transmit {
                to: to.id,
                address: to.address,
                bytes,
            }
        };
        if let Ok((header, news)) = codec::decode_prefix::<WireHeader>(data)
            && let Some(number) = header.ping()
        {
            let bare = swim(&data[..data.len() - news.len()]);
            let patience = self.health.patience(self.probe_rtt);
            self.ping = Some(Ping::sent(self.now, number, bare, patience));
        }
        self.transmits.push_back(swim(data));
    }

    fn submit_after(&mut self, timer: Timer<Identity>, after: Duration) {
        let after = match &timer {
            Timer::ProbeRandomMember(token) => {
                self.token = Some(*token);
                self.health.patience(after)
            }
            Timer::SendIndirectProbe { .. } => self.health.patience(after),
            Timer::ChangeSuspectToDown { .. } => {
                self.health.suspects();
                self.health.mercy(after)
            }
            Timer::RemoveDown(dead) => {
                // The timer of an earlier life would find nothing.
                if self.forgetting.contains(&dead.id) {
                    self.forget(&BTreeSet::from([dead.id]));
                }
                self.forgetting.insert(dead.id);
                after
            }
            _ => after,
        };
        self.submitted += 1;
        self.timers
            .push(Reverse((self.now + after, timer, self.submitted)));
    }
}

impl Effects {
    /// Drops the timers that would forget these.
    fn forget(&mut self, dead: &BTreeSet<NodeId>) {
        self.forgetting.retain(|id| !dead.contains(id));
        let forgets = |timer: &Timer<Identity>| matches!(timer, Timer::RemoveDown(identity) if dead.contains(&identity.id));
        self.timers.retain(|Reverse((_, timer, _))| !forgets(timer));
    }
}

impl Membership {
    /// A group of one. `seed` feeds the choice of whom to probe; the same seed and inputs give the same run.
    ///
    /// # Errors
    ///
    /// [`MembershipError::Departed`].
    pub fn new(local: Identity, preset: Preset, seed: u64) -> Result<Membership, MembershipError> {
        if local.departed.is_some() {
            return Err(MembershipError::Departed);
        }
        let config = preset.config();
        let (suspect_to_dead, probe_rtt) = (config.suspect_to_down_after, config.probe_rtt);
        let id = local.id;
        let touched = Arc::new(Touched::default());
        let incarnation = Arc::new(AtomicU16::new(0));
        let codec = OxiCodec::new(Arc::clone(&touched), Arc::clone(&incarnation));
        let mut random = StdRng::seed_from_u64(seed);
        let foca = Foca::new(local, config, StdRng::seed_from_u64(random.random()), codec);
        Ok(Membership {
            foca,
            suspect_to_dead,
            departed: None,
            gives_way: false,
            known: BTreeMap::new(),
            hearsay: Hearsay::default(),
            period: preset.probe_period(),
            sync_at: None,
            random,
            effects: Effects {
                local: id,
                now: Instant::START,
                transmits: VecDeque::new(),
                timers: BinaryHeap::new(),
                submitted: 0,
                forgetting: BTreeSet::new(),
                token: None,
                rejoined: false,
                touched,
                health: Health::default(),
                probe_rtt,
                ping: None,
                incarnation,
            },
            events: VecDeque::new(),
        })
    }

    /// This node. Its generation rises when it rejoins.
    #[must_use]
    pub fn local(&self) -> &Identity {
        self.foca.identity()
    }

    /// How badly this node does, by its own probes: 0 is well, 8 is worst. While it is not well it waits longer for
    /// answers, and for suspects to refute.
    #[must_use]
    pub fn local_health(&self) -> u8 {
        self.effects.health.score()
    }

    /// Datagrams and members that were passed over because this node knows as many members as it may.
    #[must_use]
    pub fn strangers_refused(&self) -> u64 {
        self.hearsay.strangers_refused()
    }

    /// Tells the group through which relays this node is reached; none if its address can be dialled. At most
    /// [`RELAYS_MAX`] are told.
    ///
    /// This makes a new identity of the same generation. foca spreads that the former is dead, and only this node
    /// does: always under the name of the new one, which everybody takes in first. So nobody sees this node die.
    pub fn advertise_relays(&mut self, now: Instant, mut relays: Vec<NodeId>) {
        relays.truncate(RELAYS_MAX);
        if relays != self.local().relays {
            self.revise(now, |identity| identity.relays = relays);
        }
    }

    /// Tells the group that this node listens elsewhere now; nobody sees it die of that either.
    pub fn advertise_address(&mut self, now: Instant, address: SocketAddr) {
        if address != self.local().address {
            self.revise(now, |identity| identity.address = address);
        }
    }

    /// Makes a new identity of the same generation.
    fn revise(&mut self, now: Instant, change: impl FnOnce(&mut Identity)) {
        if self.is_out() {
            return;
        }
        let mut identity = self.local().clone();
        identity.revision = identity.revision.saturating_add(1);
        change(&mut identity);
        self.effects.now = now;
        // The new identity begins with probes of its own.
        self.effects.ping = None;
        let result = self.foca.change_identity(identity, &mut self.effects);
        self.settle(result);
        self.wake();
    }

    /// Asks the node at an address to take this node in. Repeat it until a member is known: the datagram may
    /// be lost.
    pub fn announce(&mut self, now: Instant, to: NodeId, address: SocketAddr) {
        if self.is_out() || to == self.local().id {
            return;
        }
        // Only the id matters: a node answers an announcement to any of its identities.
        let name = Name::new("unknown").expect("seven letters are a name");
        let to = Identity {
            id: to,
            name,
            role: NodeRole::Edge,
            address,
            generation: 0,
            departed: None,
            revision: 0,
            relays: Vec::new(),
        };
        self.effects.now = now;
        let result = self.foca.announce(to, &mut self.effects);
        self.settle(result);
    }

    /// Takes a datagram from an authenticated peer.
    ///
    /// # Errors
    ///
    /// [`MembershipError::Malformed`] and [`MembershipError::Spoofed`].
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: NodeId,
        bytes: &[u8],
    ) -> Result<(), MembershipError> {
        if self.is_out() {
            return Ok(());
        }
        if bytes.len() > MEMBERSHIP_DATAGRAM_BYTES_MAX {
            return Err(MembershipError::Malformed);
        }
        let (kind, body) = bytes.split_first().ok_or(MembershipError::Malformed)?;
        self.effects.now = now;
        match *kind {
            KIND_SWIM => self.handle_swim(from, body),
            KIND_DIGEST => self.handle_digest(from, body),
            KIND_ENTRIES => self.handle_entries(from, body),
            _ => Err(MembershipError::Malformed),
        }
    }

    fn handle_swim(&mut self, from: NodeId, bytes: &[u8]) -> Result<(), MembershipError> {
        let (header, news) =
            codec::decode_prefix::<WireHeader>(bytes).map_err(|_| MembershipError::Malformed)?;
        proves(from, header.source.id)?;
        if header.source.generation > GENERATION_MAX {
            return Err(MembershipError::Malformed);
        }
        self.make_room();
        if !self.known.contains_key(&from) && !self.has_room_for(from) {
            return Ok(());
        }
        let mut told = None;
        let sifted;
        let mut heard = bytes;
        // Of others foca takes in announcements only.
        if header.destination == *self.local() {
            if header.turns_undead() && !self.may_renew() {
                return Ok(());
            }
            sifted = self.sifted(from, &header, bytes, news, &mut told)?;
            heard = &sifted;
        }
        if let (Some(ping), Some(number)) = (&self.effects.ping, header.ack())
            && ping.is_answered_by(&from, number)
        {
            self.effects.ping = None;
        }
        let result = self.foca.handle_data(heard, &mut self.effects);
        let understood = result.is_ok();
        self.settle(result);
        self.tell_overtaken(&header.source);
        self.outlive(told);
        if understood {
            Ok(())
        } else {
            Err(MembershipError::Malformed)
        }
    }

    /// Shows somebody at random whom this node takes to be there.
    fn sync(&mut self) {
        let count = self.foca.num_members();
        if count == 0 {
            return;
        }
        let index = self.random.random_range(0..count);
        let Some(peer) = self.foca.iter_members().nth(index) else {
            return;
        };
        let peer = peer.id().clone();
        let (local, salt) = (self.local().id, self.random.random());
        let members = self.foca.iter_membership_state();
        let digest = Digest::new(local, peer.id, false, salt, members);
        self.show(&peer, &digest);
    }

    fn show(&mut self, peer: &Identity, digest: &Digest) {
        let mut bytes = alloc::vec![KIND_DIGEST];
        bytes.extend(codec::encode(digest));
        self.transmit(peer, bytes);
    }

    fn transmit(&mut self, to: &Identity, bytes: Vec<u8>) {
        self.effects.transmits.push_back(Transmit {
            to: to.id,
            address: to.address,
            bytes,
        });
    }

    fn handle_digest(&mut self, from: NodeId, bytes: &[u8]) -> Result<(), MembershipError> {
        let theirs = codec::decode::<Digest>(bytes).map_err(|_| MembershipError::Malformed)?;
        proves(from, theirs.source)?;
        // Who is not known to be there is not told anything: it has to announce itself first.
        let Some(peer) = self.foca.iter_members().find(|m| m.id().id == from) else {
            return Ok(());
        };
        let peer = peer.id().clone();
        let local = self.local().id;
        let ours = theirs.counterpart(local, self.foca.iter_membership_state());
        if ours.agrees(&theirs) {
            return Ok(());
        }
        let members = self.foca.iter_membership_state();
        for datagram in sync::entries(&ours, &theirs, KIND_ENTRIES, members) {
            self.transmit(&peer, datagram);
        }
        if !theirs.answer {
            self.show(&peer, &ours);
        }
        Ok(())
    }

    fn handle_entries(&mut self, from: NodeId, bytes: &[u8]) -> Result<(), MembershipError> {
        let (header, mut rest) =
            codec::decode_prefix::<EntriesHeader>(bytes).map_err(|_| MembershipError::Malformed)?;
        proves(from, header.source)?;
        let mut members = Vec::new();
        let mut told = None;
        while !rest.is_empty() {
            let (member, after) =
                codec::decode_prefix::<WireMember>(rest).map_err(|_| MembershipError::Malformed)?;
            let member = foca::Member::from(member);
            members.push(member);
            rest = after;
        }
        self.make_room();
        members.retain(|member| {
            let id = member.id().id;
            // Nobody learns of an unknown dead member this way.
            let counts = member.state() != State::Down
                || self.known.contains_key(&id)
                || id == self.local().id;
            counts && self.believes(from, member, &mut told)
        });
        self.outlive(told);
        if !self.foca.iter_members().any(|m| m.id().id == from) {
            return Ok(());
        }
        // What is news about a known member is spread. An unknown one is not: the group knows it already, as a
        // rule, and a newcomer would repeat all its members to everybody.
        let (known, unknown): (Vec<_>, Vec<_>) = members
            .into_iter()
            .partition(|m| self.known.contains_key(&m.id().id));
        for (news, spread) in [(known, true), (unknown, false)] {
            let result = self
                .foca
                .apply_many(news.into_iter(), spread, &mut self.effects);
            self.settle(result);
        }
        Ok(())
    }

    /// Takes the hint that the connection to a peer broke (not that it was closed for being idle): an alive
    /// peer becomes a suspect at once, without waiting to be probed, and refutes if it lives.
    pub fn connection_lost(&mut self, now: Instant, peer: &NodeId) {
        let alive = |member: &&foca::Member<Identity>| {
            member.id().id == *peer && member.state() == State::Alive
        };
        let Some(member) = self.foca.iter_members().find(alive).cloned() else {
            return;
        };
        let Some(token) = self.effects.token else {
            return;
        };
        if self.is_out() {
            return;
        }
        self.effects.now = now;
        let suspect = foca::Member::new(member.id().clone(), member.incarnation(), State::Suspect);
        let result = self
            .foca
            .apply_many([suspect].into_iter(), true, &mut self.effects);
        self.settle(result);
        // foca starts this timer only after a failed probe of its own.
        let buried = Timer::ChangeSuspectToDown {
            member_id: member.id().clone(),
            incarnation: member.incarnation(),
            token,
        };
        foca::Runtime::submit_after(&mut self.effects, buried, self.suspect_to_dead);
        let result = self.foca.gossip(&mut self.effects);
        self.settle(result);
    }

    /// Tells the group that this node stops or leaves. Afterwards only transmissions remain to be sent;
    /// everything else is ignored.
    pub fn depart(&mut self, now: Instant, departure: Departure) {
        if self.is_out() {
            self.departed = self.departed.or(Some(departure));
            return;
        }
        self.effects.now = now;
        let local = self.local();
        let generation = local.generation.saturating_add(1).min(GENERATION_MAX);
        let departed = Identity {
            generation,
            departed: Some(departure),
            ..local.clone()
        };
        // News about another identity of this node: foca takes it in as dead and spreads it.
        let news = foca::Member::down(departed);
        let result = self
            .foca
            .apply_many([news].into_iter(), true, &mut self.effects);
        self.settle(result);
        for _ in 0..3 {
            // Each goes to three members at random, who spread it.
            let result = self.foca.gossip(&mut self.effects);
            self.settle(result);
        }
        self.departed = Some(departure);
        self.effects.timers.clear();
        self.effects.ping = None;
        self.sync_at = None;
    }

    /// Lets time pass. Call it at or after [`Membership::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.gives_way {
            return;
        }
        self.effects.now = now;
        if self.sync_at.is_some_and(|at| at <= now) {
            self.sync_at = Some(now + self.period);
            self.sync();
        }
        while let Some(Reverse((at, _, _))) = self.effects.timers.peek() {
            if *at > now {
                break;
            }
            let Some(Reverse((_, timer, _))) = self.effects.timers.pop() else {
                break;
            };
            if self.is_void(&timer) {
                continue;
            }
            if let Timer::RemoveDown(dead) = &timer {
                self.effects.forgetting.remove(&dead.id);
                self.effects.touched.add_all();
            }
            let probe_ends = matches!(timer, Timer::ProbeRandomMember(_));
            if probe_ends {
                self.effects.health.judge();
            }
            let result = self.foca.handle_timer(timer, &mut self.effects);
            self.effects.health.judged();
            self.settle(result);
        }
        // After the timers: a probe that is over is not repeated.
        let again = self.effects.ping.as_mut().and_then(|p| p.repeat(now));
        self.effects.transmits.extend(again);
    }

    /// When to call [`Membership::handle_timeout`]; ask again after every other call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.gives_way {
            return None;
        }
        let timer = self.effects.timers.peek().map(|Reverse((at, _, _))| *at);
        let ping = self.effects.ping.as_ref().map(Ping::at);
        timer.into_iter().chain(self.sync_at).chain(ping).min()
    }

    /// The next datagram to send; ask after every call until there is none.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.effects.transmits.pop_front()
    }

    /// The next event; ask after every call until there is none.
    pub fn poll_event(&mut self) -> Option<MembershipEvent> {
        self.events.pop_front()
    }

    /// Everyone known, this node included, by id.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let local = self.local_member();
        let others = self.known.values().cloned();
        let mut members: Vec<Member> = others.chain([local]).collect();
        members.sort_by_key(|member| member.identity.id);
        members
    }

    /// What is known about a node.
    #[must_use]
    pub fn member(&self, id: &NodeId) -> Option<Member> {
        if *id == self.local().id {
            return Some(self.local_member());
        }
        self.known.get(id).cloned()
    }

    /// Whether a timer's suspicion was refuted meanwhile.
    ///
    /// foca 2.0.0 checks this too, but then tells the refuter all the same that it was declared dead
    /// (`handle_timer` sends `TurnUndead` whatever `apply_existing_if` answers), and a member that refuted
    /// would need a new generation each time.
    fn is_void(&self, timer: &Timer<Identity>) -> bool {
        let Timer::ChangeSuspectToDown {
            member_id,
            incarnation,
            ..
        } = timer
        else {
            return false;
        };
        !self.foca.iter_membership_state().any(|member| {
            member.id() == member_id
                && member.incarnation() == *incarnation
                && member.state() == State::Suspect
        })
    }

    /// A foca with a new identity probes again only when it next applies an update: gives it an empty one.
    fn wake(&mut self) {
        let _ = self
            .foca
            .apply_many(core::iter::empty(), false, &mut self.effects);
    }

    fn local_member(&self) -> Member {
        Member {
            identity: self.local().clone(),
            state: self.departed.map_or(MemberState::Alive, MemberState::from),
            since: Instant::START,
        }
    }

    /// Turns what a call to foca changed into events.
    ///
    /// Errors end here: those that peers cause were reported to the caller of [`Membership::handle_datagram`],
    /// and foca recovers by itself from late timers, the only other cause.
    fn settle(&mut self, _result: Result<(), foca::Error>) {
        let incarnation = self.effects.incarnation.load(Ordering::Relaxed);
        self.effects.health.speaks(incarnation);
        if core::mem::take(&mut self.effects.rejoined) {
            let generation = self.foca.identity().generation;
            self.events
                .push_back(MembershipEvent::Rejoined { generation });
            self.wake();
        }
        let Some(touched) = self.effects.touched.take() else {
            return;
        };
        if self.foca.num_members() == 0 {
            self.sync_at = None;
        } else if self.sync_at.is_none() {
            // At a moment of its own, so that the members do not all compare at once.
            let share = self.random.random_range(0..1_000);
            self.sync_at = Some(self.effects.now + self.period * share / 1_000);
        }
        let local = self.foca.identity().id;
        let mut count = 0;
        for member in self
            .foca
            .iter_membership_state()
            .filter(|m| m.id().id != local)
        {
            count += 1;
            let identity = member.id();
            if !touched.contain(&identity.id) {
                continue;
            }
            let state = state_of(member);
            let known = self.known.get(&identity.id);
            if !known.is_some_and(|known| known.state == state && known.identity == *identity) {
                let same_state = known.filter(|known| known.state == state);
                let member = Member {
                    identity: identity.clone(),
                    state,
                    since: same_state.map_or(self.effects.now, |known| known.since),
                };
                self.known.insert(identity.id, member.clone());
                self.events
                    .push_back(MembershipEvent::MemberChanged(member));
            }
        }
        if self.known.len() > count {
            let remembered = self.foca.iter_membership_state().map(|m| m.id().id);
            let remembered: BTreeSet<NodeId> = remembered.collect();
            self.known.retain(|id, _| {
                let keep = remembered.contains(id);
                if !keep {
                    self.hearsay.forget(id);
                    self.events.push_back(MembershipEvent::Forgotten(*id));
                }
                keep
            });
        }
    }
}

fn state_of(member: &foca::Member<Identity>) -> MemberState {
    match member.state() {
        State::Alive => MemberState::Alive,
        State::Suspect => MemberState::Suspect,
        State::Down => member
            .id()
            .departed
            .map_or(MemberState::Dead, MemberState::from),
    }
}

/// Whether a datagram names the peer that it came from.
fn proves(from: NodeId, claimed: NodeId) -> Result<(), MembershipError> {
    if claimed == from {
        Ok(())
    } else {
        Err(MembershipError::Spoofed { from, claimed })
    }
}

#[cfg(test)]
mod tests;

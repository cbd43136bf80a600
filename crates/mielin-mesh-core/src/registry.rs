//! Where each agent is: location records with epochs, spread to all members.
//!
//! The node that holds an agent announces it to every member, and only that node may: a record from anybody
//! else is refused. The higher epoch wins; within an epoch only the holder may revise, and the higher revision
//! wins. A holder that learns of a higher epoch elsewhere has a stale copy and is told so
//! ([`RegistryEvent::Fenced`]).
//!
//! Announcements are repeated within the life of a record, and a new member is sent everything its peers hold.
//! Should one be lost all the same, the digest that each holder shows to its peers in turn tells.
//!
//! This is the registry of one membership group, where everybody knows everything. The same records, signed
//! ([`SignedLocation`]), are kept at the three nodes nearest to them in the table of [`crate::kademlia`], where
//! who has not heard of an agent finds it.

mod signed;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::ToString;
use alloc::vec::Vec;
use core::time::Duration;

use oxicode::{Decode, Encode};
use thiserror::Error;

use crate::codec;
use crate::limits::{
    DEAD_FORGOTTEN_AFTER, REGISTRY_DIGEST_PERIOD, REGISTRY_RECORDS_PER_MESSAGE_MAX,
    REGISTRY_RECORDS_PER_NODE_MAX, REGISTRY_REFRESH, REGISTRY_TTL,
};
use crate::{AgentId, AgentState, Epoch, Instant, Member, MemberState, Name, NodeId};
pub use signed::{SignedLocation, Verify};

/// Where an agent is and what it does, as announced by the node that holds it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LocationRecord {
    /// The agent.
    pub agent: AgentId,
    /// What people call it.
    pub name: Name,
    /// The hash of the module it runs.
    pub module: [u8; 32],
    /// The node that spawned it.
    pub owner: NodeId,
    /// When that was, by the node's clock, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// The node that holds it.
    pub node: NodeId,
    /// How often it was handed over.
    pub epoch: Epoch,
    /// Rises with every revision of the record within the epoch. [`AgentRegistry::announce`] counts it, not
    /// below the number it is given: a node that restarts with its agents gives its start in milliseconds,
    /// and so outnumbers its former self.
    pub revision: u64,
    /// What it does.
    pub state: AgentState,
}

/// A record and what this node knows about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The record.
    pub record: LocationRecord,
    /// Whether the node that holds the agent is alive as far as this node knows.
    pub reachable: bool,
    /// When the record is forgotten unless it is announced again.
    pub expires: Instant,
}

/// Something to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryTransmit {
    /// The member it is for.
    pub to: NodeId,
    /// The message, about 16 KB at most.
    pub bytes: Vec<u8>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryEvent {
    /// A record is new or changed, or its node became reachable or unreachable.
    LocationChanged(Location),
    /// A record was not announced again in time and is gone.
    LocationExpired(LocationRecord),
    /// Another node holds an agent of this node with a higher epoch: the copy here is stale and must stop.
    Fenced {
        /// The agent.
        agent: AgentId,
        /// The epoch held here.
        ours: Epoch,
        /// The record that supersedes it.
        by: LocationRecord,
    },
}

/// What became of a record that a peer announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// It is new, or supersedes the one that was known.
    Accepted,
    /// It is the one that was known; it lives longer now.
    Refreshed,
    /// It is older than the one that is known.
    Stale,
    /// It may not be announced by that peer.
    Refused(MergeRefusal),
}

/// Why a record is refused. The peer is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeRefusal {
    /// The peer announces an agent that it says another node holds.
    NotHolder,
    /// Another node holds the agent in the same epoch.
    HeldByAnother,
    /// The peer has too many records.
    TooMany,
}

/// An announcement that cannot be made, or bytes that are no registry message. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RegistryError {
    /// The message is no registry message. The peer is at fault.
    #[error("not a registry message")]
    Malformed,
    /// The record names another holder than this node. The caller is at fault.
    #[error("only the node that holds an agent announces it")]
    NotHolder,
    /// The agent is known with a higher epoch, or with the same one elsewhere: the caller's copy is stale.
    #[error("the agent is held by {node:?} with epoch {epoch}")]
    Superseded {
        /// The holder that is known.
        node: NodeId,
        /// Its epoch.
        epoch: Epoch,
    },
    /// The agent was withdrawn.
    #[error("the agent was removed")]
    Removed,
    /// This node has too many records.
    #[error(
        "a node announces at most {} agents",
        crate::limits::REGISTRY_RECORDS_PER_NODE_MAX
    )]
    TooMany,
}

/// What members say to each other about agents.
#[derive(Encode, Decode)]
enum Message {
    /// These agents are at the sender.
    Records(Vec<LocationRecord>),
    /// The digest of all that the sender holds.
    Digest([u8; 32]),
    /// The sender has another digest of what the receiver holds, and wants all of it.
    Missing,
}

/// What one node knows about the agents of the mesh.
#[derive(Clone, Debug)]
pub struct AgentRegistry {
    local: NodeId,
    locations: BTreeMap<AgentId, Location>,
    expiries: BTreeSet<(Instant, AgentId)>,
    counts: BTreeMap<NodeId, usize>,
    /// Agents held here that are announced again and again.
    held: BTreeSet<AgentId>,
    /// Active members other than this node, with their generations.
    members: BTreeMap<NodeId, u64>,
    /// Held agents whose news has not been spread yet.
    unspread: BTreeSet<AgentId>,
    transmits: VecDeque<RegistryTransmit>,
    events: VecDeque<RegistryEvent>,
    refresh_at: Option<Instant>,
    digest_at: Option<Instant>,
    /// The member that was shown the digest last.
    shown: Option<NodeId>,
}

impl AgentRegistry {
    /// An empty registry of a node.
    #[must_use]
    pub const fn new(local: NodeId) -> AgentRegistry {
        AgentRegistry {
            local,
            locations: BTreeMap::new(),
            expiries: BTreeSet::new(),
            counts: BTreeMap::new(),
            held: BTreeSet::new(),
            members: BTreeMap::new(),
            unspread: BTreeSet::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            refresh_at: None,
            digest_at: None,
            shown: None,
        }
    }

    /// Announces, or announces anew, an agent that this node holds.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NotHolder`], [`RegistryError::Superseded`], [`RegistryError::Removed`] and
    /// [`RegistryError::TooMany`].
    pub fn announce(
        &mut self,
        now: Instant,
        mut record: LocationRecord,
    ) -> Result<(), RegistryError> {
        if record.node != self.local {
            return Err(RegistryError::NotHolder);
        }
        if let Some(Location { record: known, .. }) = self.locations.get(&record.agent) {
            let (node, epoch) = (known.node, known.epoch);
            if epoch > record.epoch || (epoch == record.epoch && node != self.local) {
                return Err(RegistryError::Superseded { node, epoch });
            }
            if epoch == record.epoch {
                if known.state == AgentState::Removed {
                    return Err(RegistryError::Removed);
                }
                record.revision = record.revision.max(known.revision.saturating_add(1));
            }
        }
        if !self.make_room(&record) {
            return Err(RegistryError::TooMany);
        }
        let agent = record.agent;
        self.held.insert(agent);
        self.unspread.insert(agent);
        self.insert(now, record);
        self.refresh_at.get_or_insert(now + REGISTRY_REFRESH);
        self.digest_at.get_or_insert(now + REGISTRY_DIGEST_PERIOD);
        Ok(())
    }

    /// Announces for the last time an agent that this node holds: it is [`AgentState::Removed`], so no member
    /// lists it any more. The record itself is kept until it expires, so that older news of the agent stay old.
    pub fn withdraw(&mut self, now: Instant, agent: &AgentId) {
        if !self.held.remove(agent) {
            return;
        }
        if let Some(Location { record, .. }) = self.locations.get(agent) {
            let mut record = record.clone();
            record.revision = record.revision.saturating_add(1);
            record.state = AgentState::Removed;
            self.unspread.insert(*agent);
            self.insert(now, record);
        }
    }

    /// Takes news about a member. A new one is sent everything this node holds; the records of one that
    /// died or went are marked unreachable. Those of one that stopped are kept for as long as membership
    /// remembers it, because it will bring its agents back. One that comes back may have lost its agents, so
    /// what was known of it is forgotten and asked for again.
    pub fn member_changed(&mut self, now: Instant, member: &Member) {
        let id = member.identity.id;
        if id == self.local {
            return;
        }
        if member.state.is_active() {
            let generation = member.identity.generation;
            if self.members.insert(id, generation) != Some(generation) {
                if self.forget_agents_of(&id) {
                    self.send(id, &Message::Missing);
                }
                self.send_all(id);
                self.digest_at.get_or_insert(now + REGISTRY_DIGEST_PERIOD);
            }
        } else if self.members.remove(&id).is_some() {
            self.transmits.retain(|transmit| transmit.to != id);
        }
        if member.state == MemberState::Stopped {
            for agent in self.agents_of(&id) {
                self.prolong(now, &agent, DEAD_FORGOTTEN_AFTER);
            }
        }
        let reachable = self.members.contains_key(&id);
        for location in self.locations.values_mut() {
            if location.record.node == id && location.reachable != reachable {
                location.reachable = reachable;
                self.events
                    .push_back(RegistryEvent::LocationChanged(location.clone()));
            }
        }
    }

    /// Takes a message from an authenticated peer; gives a result for each record in it.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Malformed`].
    pub fn handle_message(
        &mut self,
        now: Instant,
        from: NodeId,
        bytes: &[u8],
    ) -> Result<Vec<Merge>, RegistryError> {
        match codec::decode(bytes).map_err(|_| RegistryError::Malformed)? {
            Message::Records(records) => {
                if records.len() > REGISTRY_RECORDS_PER_MESSAGE_MAX {
                    return Err(RegistryError::Malformed);
                }
                Ok(records
                    .into_iter()
                    .map(|record| self.merge(now, from, record))
                    .collect())
            }
            Message::Digest(theirs) => {
                if theirs != self.digest_of(&from) {
                    self.send(from, &Message::Missing);
                }
                Ok(Vec::new())
            }
            Message::Missing => {
                self.send_all(from);
                Ok(Vec::new())
            }
        }
    }

    /// Takes a record that its holder has proved to have made, whoever brought it.
    pub fn learn(&mut self, now: Instant, record: LocationRecord) -> Merge {
        self.merge(now, record.node, record)
    }

    fn merge(&mut self, now: Instant, from: NodeId, record: LocationRecord) -> Merge {
        if record.node != from || from == self.local {
            return Merge::Refused(MergeRefusal::NotHolder);
        }
        let agent = record.agent;
        if let Some(Location { record: known, .. }) = self.locations.get(&agent) {
            if record.epoch < known.epoch {
                return Merge::Stale;
            }
            if record.epoch == known.epoch {
                if record.node != known.node {
                    return Merge::Refused(MergeRefusal::HeldByAnother);
                }
                if record.revision < known.revision {
                    return Merge::Stale;
                }
                if record.revision == known.revision {
                    self.prolong(now, &agent, REGISTRY_TTL);
                    return Merge::Refreshed;
                }
            }
            let ours = known.epoch;
            if known.node == self.local && self.held.remove(&agent) {
                self.unspread.remove(&agent);
                let by = record.clone();
                self.events
                    .push_back(RegistryEvent::Fenced { agent, ours, by });
            }
        }
        if !self.make_room(&record) {
            return Merge::Refused(MergeRefusal::TooMany);
        }
        self.insert(now, record);
        Merge::Accepted
    }

    /// Whether the record may be inserted. A removed agent of the same node gives way to it.
    fn make_room(&mut self, record: &LocationRecord) -> bool {
        let replaces = |location: &Location| location.record.node == record.node;
        if self.locations.get(&record.agent).is_some_and(replaces)
            || self.counts.get(&record.node).copied().unwrap_or(0) < REGISTRY_RECORDS_PER_NODE_MAX
        {
            return true;
        }
        let removed = |location: &&Location| replaces(location) && !is_listed(location);
        let oldest = self
            .locations
            .values()
            .filter(removed)
            .min_by_key(|location| location.expires)
            .map(|location| location.record.agent);
        oldest.is_some_and(|oldest| self.remove(&oldest).is_some())
    }

    fn insert(&mut self, now: Instant, record: LocationRecord) {
        let agent = record.agent;
        self.remove(&agent);
        let reachable = record.node == self.local || self.members.contains_key(&record.node);
        let expires = now + REGISTRY_TTL;
        *self.counts.entry(record.node).or_default() += 1;
        self.expiries.insert((expires, agent));
        let location = Location {
            record,
            reachable,
            expires,
        };
        self.events
            .push_back(RegistryEvent::LocationChanged(location.clone()));
        self.locations.insert(agent, location);
    }

    fn remove(&mut self, agent: &AgentId) -> Option<LocationRecord> {
        let location = self.locations.remove(agent)?;
        self.expiries.remove(&(location.expires, *agent));
        if let Some(count) = self.counts.get_mut(&location.record.node) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&location.record.node);
            }
        }
        Some(location.record)
    }

    fn agents_of(&self, node: &NodeId) -> Vec<AgentId> {
        self.locations
            .values()
            .filter(|location| location.record.node == *node)
            .map(|location| location.record.agent)
            .collect()
    }

    /// Gives whether there was anything to forget.
    fn forget_agents_of(&mut self, node: &NodeId) -> bool {
        let agents = self.agents_of(node);
        let any = !agents.is_empty();
        for agent in agents {
            if let Some(record) = self.remove(&agent) {
                self.events
                    .push_back(RegistryEvent::LocationExpired(record));
            }
        }
        any
    }

    fn prolong(&mut self, now: Instant, agent: &AgentId, life: Duration) {
        if let Some(location) = self.locations.get_mut(agent) {
            self.expiries.remove(&(location.expires, *agent));
            location.expires = now + life;
            self.expiries.insert((location.expires, *agent));
        }
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.refresh_at.is_some_and(|at| at <= now) {
            let held: Vec<AgentId> = self.held.iter().copied().collect();
            for agent in &held {
                self.prolong(now, agent, REGISTRY_TTL);
            }
            self.refresh_at = (!held.is_empty()).then(|| now + REGISTRY_REFRESH);
            self.unspread.extend(held);
        }
        if self.digest_at.is_some_and(|at| at <= now) {
            self.show_digest();
            let anything = self.counts.contains_key(&self.local);
            self.digest_at = anything.then(|| now + REGISTRY_DIGEST_PERIOD);
        }
        while let Some((at, agent)) = self.expiries.first().copied() {
            if at > now {
                break;
            }
            if let Some(record) = self.remove(&agent) {
                self.events
                    .push_back(RegistryEvent::LocationExpired(record));
            }
        }
    }

    /// When to call [`AgentRegistry::handle_timeout`]; ask again after every other call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let expiry = self.expiries.first().map(|(at, _)| *at);
        [self.refresh_at, self.digest_at, expiry]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next message to send; ask after every call until there is none. One that cannot be sent need not
    /// be kept: the digest will tell.
    pub fn poll_transmit(&mut self) -> Option<RegistryTransmit> {
        if self.transmits.is_empty() && !self.unspread.is_empty() {
            let agents = core::mem::take(&mut self.unspread);
            let messages = self.records_of(agents.into_iter());
            let members: Vec<NodeId> = self.members.keys().copied().collect();
            for to in members {
                for message in &messages {
                    self.send(to, message);
                }
            }
        }
        self.transmits.pop_front()
    }

    /// The next event; ask after every call until there is none.
    pub fn poll_event(&mut self) -> Option<RegistryEvent> {
        self.events.pop_front()
    }

    /// Where an agent is, unless it was removed.
    #[must_use]
    pub fn locate(&self, agent: &AgentId) -> Option<&Location> {
        self.locations.get(agent).filter(|found| is_listed(found))
    }

    /// All agents of the mesh but the removed ones, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Location> {
        self.locations.values().filter(|found| is_listed(found))
    }

    /// The agents with this name: several nodes may have used it. Looks at every record.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Vec<&Location> {
        self.iter()
            .filter(|location| location.record.name == *name)
            .collect()
    }

    /// The agents whose id begins with these hexadecimal digits, in either case; none if they are no such
    /// digits.
    #[must_use]
    pub fn by_prefix(&self, prefix: &str) -> Vec<&Location> {
        let digits = prefix.to_ascii_lowercase();
        let mut first = [0; 16];
        for (index, digit) in digits.chars().enumerate() {
            let (Some(value), Some(byte)) = (digit.to_digit(16), first.get_mut(index / 2)) else {
                return Vec::new();
            };
            *byte |= (value as u8) << if index % 2 == 0 { 4 } else { 0 };
        }
        self.locations
            .range(AgentId(first)..)
            .take_while(|(agent, _)| agent.to_string().starts_with(&digits))
            .map(|(_, location)| location)
            .filter(|found| is_listed(found))
            .collect()
    }

    /// A digest of what is known of a node's own agents, withdrawn ones included until they expire.
    fn digest_of(&self, node: &NodeId) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let known = self.locations.values();
        for Location { record, .. } in known.filter(|l| l.record.node == *node) {
            hasher.update(&record.agent.0);
            hasher.update(&record.epoch.0.to_le_bytes());
            hasher.update(&record.revision.to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    fn show_digest(&mut self) {
        let after = self
            .shown
            .map_or(core::ops::Bound::Unbounded, core::ops::Bound::Excluded);
        let next = self
            .members
            .range((after, core::ops::Bound::Unbounded))
            .next();
        let next = next
            .or_else(|| self.members.first_key_value())
            .map(|(id, _)| *id);
        if let Some(to) = next {
            self.shown = Some(to);
            let digest = self.digest_of(&self.local);
            self.send(to, &Message::Digest(digest));
        }
    }

    fn send_all(&mut self, to: NodeId) {
        let agents = self.agents_of(&self.local);
        for message in self.records_of(agents.into_iter()) {
            self.send(to, &message);
        }
    }

    fn records_of(&self, agents: impl Iterator<Item = AgentId>) -> Vec<Message> {
        let records: Vec<LocationRecord> = agents
            .filter_map(|agent| self.locations.get(&agent))
            .filter(|location| location.record.node == self.local)
            .map(|location| location.record.clone())
            .collect();
        let parts = records.chunks(REGISTRY_RECORDS_PER_MESSAGE_MAX);
        parts.map(|part| Message::Records(part.to_vec())).collect()
    }

    fn send(&mut self, to: NodeId, message: &Message) {
        self.transmits.push_back(RegistryTransmit {
            to,
            bytes: codec::encode(message),
        });
    }
}

fn is_listed(location: &Location) -> bool {
    location.record.state != AgentState::Removed
}

#[cfg(test)]
mod tests;

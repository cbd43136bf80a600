//! Where each agent is: location records with epochs, as one node knows them.
//!
//! The node that holds an agent announces it, and only that node may. The higher epoch wins; within an epoch only the
//! holder may revise, and the higher revision wins. A holder that learns of a higher epoch elsewhere has a stale copy
//! and is told so ([`RegistryEvent::Fenced`]).
//!
//! The mesh keeps the records, signed ([`SignedLocation`]), at the three nodes nearest to them in the table of
//! [`crate::kademlia`]. [`AgentRegistry`] is what one node needs beside that: the records of the agents that it holds,
//! which it publishes, and a cache of those that it has found, which expire, and which whoever is asked in vain
//! corrects. Who wants to see every agent asks all members for their pages ([`AgentQuery`]).

mod listing;
mod signed;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::cmp::Reverse;

use oxicode::{Decode, Encode};
use thiserror::Error;

use crate::limits::{
    REGISTRY_RECORDS_MAX, REGISTRY_RECORDS_PER_NODE_MAX, REGISTRY_REFRESH, REGISTRY_TTL,
};
use crate::{AgentId, AgentState, Epoch, Instant, Member, Name, NodeId};
pub use listing::{AgentListing, AgentPage, AgentQuery, MalformedPage, NotAPrefix, Prefix};
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

impl LocationRecord {
    /// Orders records of one agent, the one that counts last. The higher epoch wins; within one, the holder's newer
    /// revision; between two nodes that claim the same epoch the one with the smaller id, so that all agree.
    #[must_use]
    pub fn rank(&self) -> (Epoch, Reverse<NodeId>, u64) {
        (self.epoch, Reverse(self.node), self.revision)
    }
}

/// A record and what this node knows about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The record.
    pub record: LocationRecord,
    /// Whether the node that holds the agent is alive as far as this node knows.
    pub reachable: bool,
}

#[derive(Clone, Debug)]
struct Known {
    location: Location,
    expires: Instant,
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
    /// The node that holds it is shut out.
    ShutOut,
}

/// An announcement that cannot be made. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RegistryError {
    /// The record names another holder than this node. The caller is at fault.
    #[error("only the node that holds an agent announces it")]
    NotHolder,
    /// The agent is known with a higher epoch, or with the same one elsewhere: the caller's copy is stale.
    #[error("the agent is held by {} with epoch {epoch}", .node.short())]
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

/// What one node knows about the agents of the mesh.
#[derive(Clone, Debug)]
pub struct AgentRegistry {
    local: NodeId,
    locations: BTreeMap<AgentId, Known>,
    expiries: BTreeSet<(Instant, AgentId)>,
    counts: BTreeMap<NodeId, usize>,
    /// Agents held here, whose records do not expire.
    held: BTreeSet<AgentId>,
    /// Active members other than this node, with their generations.
    members: BTreeMap<NodeId, u64>,
    /// Nodes whose records count for nothing.
    shut_out: BTreeSet<NodeId>,
    events: VecDeque<RegistryEvent>,
    refresh_at: Option<Instant>,
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
            shut_out: BTreeSet::new(),
            events: VecDeque::new(),
            refresh_at: None,
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
        if let Some(known) = self.record(&record.agent) {
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
        self.insert(now, record);
        self.refresh_at.get_or_insert(now + REGISTRY_REFRESH);
        Ok(())
    }

    /// Announces for the last time an agent that this node holds: it is [`AgentState::Removed`], so nobody lists it
    /// any more. The record itself is kept until it expires, so that older news of the agent stay old.
    pub fn withdraw(&mut self, now: Instant, agent: &AgentId) {
        if !self.held.remove(agent) {
            return;
        }
        if let Some(record) = self.record(agent) {
            let mut record = record.clone();
            record.revision = record.revision.saturating_add(1);
            record.state = AgentState::Removed;
            self.insert(now, record);
        }
    }

    /// An agent that this node has held is at another node now, which announces it. This node's record leads there
    /// until it is superseded, or expires.
    pub fn release(&mut self, agent: &AgentId) {
        self.held.remove(agent);
    }

    /// Takes news about a member. The records of one that died or went are marked unreachable. One that comes back may
    /// have lost its agents, so what was found of it before is forgotten.
    pub fn member_changed(&mut self, member: &Member) {
        let id = member.identity.id;
        if id == self.local {
            return;
        }
        if member.state.is_active() {
            let generation = member.identity.generation;
            if self.members.insert(id, generation) != Some(generation) {
                self.forget_agents_of(&id);
            }
        } else {
            self.members.remove(&id);
        }
        let reachable = self.members.contains_key(&id);
        for Known { location, .. } in self.locations.values_mut() {
            if location.record.node == id && location.reachable != reachable {
                location.reachable = reachable;
                self.events
                    .push_back(RegistryEvent::LocationChanged(location.clone()));
            }
        }
    }

    /// Forgets the agents of a node for good: what it says, or has said, counts for nothing from now on.
    pub fn shut_out(&mut self, node: &NodeId) {
        self.shut_out.insert(*node);
        self.members.remove(node);
        self.forget_agents_of(node);
    }

    /// Takes a record of which it is known that its holder has made it, whoever brought it.
    ///
    /// One that this node itself has made in a former life yields to what it holds now.
    pub fn learn(&mut self, now: Instant, record: LocationRecord) -> Merge {
        if record.node == self.local {
            return self.outbid(now, &record);
        }
        if self.shut_out.contains(&record.node) {
            return Merge::Refused(MergeRefusal::ShutOut);
        }
        self.merge(now, record)
    }

    /// Revises what this node says about an agent so that it supersedes what it has once said.
    fn outbid(&mut self, now: Instant, former: &LocationRecord) -> Merge {
        let agent = former.agent;
        let Some(record) = self.record(&agent) else {
            return Merge::Refused(MergeRefusal::NotHolder);
        };
        let mut record = record.clone();
        if !self.held.contains(&agent) || record.epoch != former.epoch {
            return Merge::Refused(MergeRefusal::NotHolder);
        }
        if former.revision > record.revision {
            record.revision = former.revision.saturating_add(1);
            self.insert(now, record);
        }
        Merge::Stale
    }

    fn merge(&mut self, now: Instant, record: LocationRecord) -> Merge {
        let agent = record.agent;
        if let Some(known) = self.record(&agent) {
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
                    self.prolong(now, &agent);
                    return Merge::Refreshed;
                }
            }
            let ours = known.epoch;
            if known.node == self.local && self.held.remove(&agent) {
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

    /// Whether the record may be inserted. A removed agent of the same node gives way to it, and in a full registry
    /// whichever found record expires first.
    fn make_room(&mut self, record: &LocationRecord) -> bool {
        let replaces = |known: &Known| known.location.record.node == record.node;
        if self.locations.len() >= REGISTRY_RECORDS_MAX
            && !self.locations.contains_key(&record.agent)
        {
            let mut found = self.expiries.iter().map(|(_, agent)| *agent);
            if let Some(first) = found.find(|agent| !self.held.contains(agent)) {
                self.remove(&first);
            }
        }
        if self.locations.get(&record.agent).is_some_and(replaces)
            || self.counts.get(&record.node).copied().unwrap_or(0) < REGISTRY_RECORDS_PER_NODE_MAX
        {
            return true;
        }
        if record.node == self.local && self.held.len() >= REGISTRY_RECORDS_PER_NODE_MAX {
            // None of them is removed.
            return false;
        }
        let removed = |known: &&Known| replaces(known) && !is_listed(&known.location);
        let oldest = self
            .locations
            .values()
            .filter(removed)
            .min_by_key(|known| known.expires)
            .map(|known| known.location.record.agent);
        oldest.is_some_and(|oldest| self.remove(&oldest).is_some())
    }

    fn insert(&mut self, now: Instant, record: LocationRecord) {
        let agent = record.agent;
        self.remove(&agent);
        let expires = now + REGISTRY_TTL;
        *self.counts.entry(record.node).or_default() += 1;
        self.expiries.insert((expires, agent));
        let location = self.location_of(record);
        self.events
            .push_back(RegistryEvent::LocationChanged(location.clone()));
        self.locations.insert(agent, Known { location, expires });
    }

    /// A record with what is known of its node.
    fn location_of(&self, record: LocationRecord) -> Location {
        let reachable = record.node == self.local || self.members.contains_key(&record.node);
        Location { record, reachable }
    }

    fn record(&self, agent: &AgentId) -> Option<&LocationRecord> {
        let known = self.locations.get(agent);
        known.map(|known| &known.location.record)
    }

    fn remove(&mut self, agent: &AgentId) -> Option<LocationRecord> {
        let Known { location, expires } = self.locations.remove(agent)?;
        self.expiries.remove(&(expires, *agent));
        if let Some(count) = self.counts.get_mut(&location.record.node) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&location.record.node);
            }
        }
        Some(location.record)
    }

    fn agents_of(&self, node: &NodeId) -> Vec<AgentId> {
        let records = self.locations.values().map(|known| &known.location.record);
        let theirs = records.filter(|record| record.node == *node);
        theirs.map(|record| record.agent).collect()
    }

    fn forget_agents_of(&mut self, node: &NodeId) {
        for agent in self.agents_of(node) {
            if let Some(record) = self.remove(&agent) {
                self.events
                    .push_back(RegistryEvent::LocationExpired(record));
            }
        }
    }

    fn prolong(&mut self, now: Instant, agent: &AgentId) {
        if let Some(known) = self.locations.get_mut(agent) {
            self.expiries.remove(&(known.expires, *agent));
            known.expires = now + REGISTRY_TTL;
            self.expiries.insert((known.expires, *agent));
        }
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.refresh_at.is_some_and(|at| at <= now) {
            let held: Vec<AgentId> = self.held.iter().copied().collect();
            for agent in &held {
                self.prolong(now, agent);
            }
            self.refresh_at = (!held.is_empty()).then(|| now + REGISTRY_REFRESH);
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
        [self.refresh_at, expiry].into_iter().flatten().min()
    }

    /// The next event; ask after every call until there is none.
    pub fn poll_event(&mut self) -> Option<RegistryEvent> {
        self.events.pop_front()
    }

    /// Where an agent is, unless it was removed.
    #[must_use]
    pub fn locate(&self, agent: &AgentId) -> Option<&Location> {
        let found = self.locations.get(agent).map(|known| &known.location);
        found.filter(|found| is_listed(found))
    }

    /// Every agent that this node holds or has found, but the removed ones, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Location> {
        let found = self.locations.values().map(|known| &known.location);
        found.filter(|found| is_listed(found))
    }
}

fn is_listed(location: &Location) -> bool {
    location.record.state != AgentState::Removed
}

#[cfg(test)]
mod tests;

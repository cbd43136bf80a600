//! Where each agent is: location records with epochs, spread to all members.

use alloc::vec::Vec;

use oxicode::{Decode, Encode};
use thiserror::Error;

use crate::{AgentId, AgentState, Epoch, Instant, Member, Name, NodeId};

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
    /// The node that holds it.
    pub node: NodeId,
    /// How often it was handed over.
    pub epoch: Epoch,
    /// How often its holder revised this record within the epoch. [`AgentRegistry::announce`] counts it.
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
    /// This node has too many records.
    #[error(
        "a node announces at most {} agents",
        crate::limits::REGISTRY_RECORDS_PER_NODE_MAX
    )]
    TooMany,
}

/// What one node knows about the agents of the mesh.
pub struct AgentRegistry {}

impl AgentRegistry {
    /// An empty registry of a node.
    pub fn new(_local: NodeId) -> AgentRegistry {
        todo!()
    }
    /// Announces, or announces anew, an agent that this node holds. Its revision is counted here.
    pub fn announce(
        &mut self,
        _now: Instant,
        _record: LocationRecord,
    ) -> Result<(), RegistryError> {
        todo!()
    }
    /// Stops announcing an agent: its record expires everywhere.
    pub fn withdraw(&mut self, _now: Instant, _agent: &AgentId) {
        todo!()
    }
    /// Takes news about a member: a new one is sent everything this node holds.
    pub fn member_changed(&mut self, _now: Instant, _member: &Member) {
        todo!()
    }
    /// Takes a message from an authenticated peer; one result for each record in it.
    pub fn handle_message(
        &mut self,
        _now: Instant,
        _from: NodeId,
        _bytes: &[u8],
    ) -> Result<Vec<Merge>, RegistryError> {
        todo!()
    }
    /// Lets time pass.
    pub fn handle_timeout(&mut self, _now: Instant) {
        todo!()
    }
    /// When to call [`AgentRegistry::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<RegistryTransmit> {
        todo!()
    }
    /// The next event.
    pub fn poll_event(&mut self) -> Option<RegistryEvent> {
        todo!()
    }
    /// Where an agent is.
    pub fn locate(&self, _agent: &AgentId) -> Option<&Location> {
        todo!()
    }
    /// All agents of the mesh, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Location> {
        core::iter::empty()
    }
    /// The agents with this name: several nodes may have used it.
    pub fn by_name(&self, _name: &str) -> Vec<&Location> {
        todo!()
    }
    /// The agents whose id begins with these hexadecimal digits; none if they are no such digits.
    pub fn by_prefix(&self, _prefix: &str) -> Vec<&Location> {
        todo!()
    }
}

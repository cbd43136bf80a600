//! What the mesh tells its subscribers.

use std::net::SocketAddr;
use std::time::Duration;

use mielin_mesh_core::{
    AgentId, Epoch, Location, LocationRecord, Member, MemberState, Name, NodeId, NodeRole,
    Revocation,
};

/// This node as the members see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalNode {
    /// Hash of the node's public key.
    pub id: NodeId,
    /// Chosen by its user.
    pub name: String,
    /// As its certificate says.
    pub role: NodeRole,
    /// The address that members were told at the start. [`MeshService::address`](crate::MeshService::address) is
    /// the one that they are told now.
    pub address: SocketAddr,
}

/// A member that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absence {
    /// Which one.
    pub node: NodeId,
    /// Its name, which may be unknown only when it was shut out.
    pub name: Option<Name>,
    /// Dead, stopped or left.
    pub state: MemberState,
    /// Whether it was shut out of the mesh.
    pub revoked: bool,
    /// For how long this node has known, or since when it is shut out.
    pub since: Duration,
}

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeshEvent {
    /// A member appeared, or its state, name or address changed.
    MemberChanged(Member),
    /// A newer location of an agent is known, or its node became reachable or
    /// unreachable.
    LocationChanged(Location),
    /// An agent's record was not announced again in time and is gone.
    LocationExpired(LocationRecord),
    /// Another node holds an agent of this node with a higher epoch: the copy
    /// here is stale and must stop.
    Fenced {
        /// The agent.
        agent: AgentId,
        /// The epoch held here.
        ours: Epoch,
        /// The record that supersedes it.
        by: LocationRecord,
    },
    /// A node was shut out of the mesh.
    Revoked(Revocation),
    /// The last connection to a peer broke or timed out. It says nothing about
    /// membership, which decides later, but comes sooner.
    PeerConnectionLost(NodeId),
}

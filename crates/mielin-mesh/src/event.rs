//! What the mesh tells its subscribers.

use std::net::SocketAddr;

use mielin_mesh_core::{LocationRecord, MemberState, NodeId, NodeRole};

/// This node as the members see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalNode {
    /// Hash of the node's public key.
    pub id: NodeId,
    /// Chosen by its user; not unique by force.
    pub name: String,
    /// As its certificate says.
    pub role: NodeRole,
    /// The address that members dial.
    pub address: SocketAddr,
}

/// One node of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Hash of the node's public key.
    pub id: NodeId,
    /// Chosen by its user; not unique by force.
    pub name: String,
    /// What the node is good for.
    pub role: NodeRole,
    /// Whether it is believed to be there.
    pub state: MemberState,
    /// Where it can be dialled.
    pub address: SocketAddr,
}

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeshEvent {
    /// A member appeared, or its state, name or address changed.
    MemberChanged(Member),
    /// A newer location of an agent is known.
    LocationChanged(LocationRecord),
    /// The last connection to a peer broke or timed out. It says nothing about
    /// membership, which decides later, but comes sooner.
    PeerConnectionLost(NodeId),
}

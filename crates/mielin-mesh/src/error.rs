//! Why an operation on the mesh failed.

use std::time::Duration;

use mielin_mesh_core::NodeId;
use mielin_mesh_core::reach::CircuitRefusal;
use mielin_mesh_core::revocation::RevocationError;
use mielin_mesh_core::routing::RouteRefusal;
use mielin_mesh_wire::{AuthorityError, CredentialsError, DirectoryError, StreamError, WireError};

use crate::serving::Refusal;

/// Failure of a [`MeshService`](crate::MeshService) operation. None of them
/// changes the state of the mesh on this side; whether a request that failed
/// with [`Timeout`](MeshError::Timeout) or [`Stream`](MeshError::Stream) took
/// effect at the peer is unknown.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// No member has this id, and it is not connected either.
    #[error("node {0} is not a member of this mesh")]
    UnknownNode(NodeId),
    /// The request was addressed to this node itself.
    #[error("node {0} is this node itself")]
    IsLocal(NodeId),
    /// The endpoint could not be opened, or the peer not be reached.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// There is neither a direct way to the node nor one through a relay.
    #[error(
        "{node} cannot be reached: {direct}; none of the {relays} relays that were asked has a way to it either"
    )]
    NoPath {
        /// Who was wanted.
        node: NodeId,
        /// Why not directly.
        direct: Box<WireError>,
        /// How many relays were asked.
        relays: usize,
    },
    /// The members could not hand a message on to the node.
    #[error("no message reached {} by way of the members: {refusal} (at {})", .node.short(), .by.short())]
    NotRouted {
        /// Who was wanted.
        node: NodeId,
        /// Where it ended.
        by: NodeId,
        /// Why.
        refusal: RouteRefusal,
    },
    /// A relay gave no circuit.
    #[error("the relay {relay} gave no circuit: {refusal}")]
    NoCircuit {
        /// Who was asked.
        relay: NodeId,
        /// What it said.
        refusal: CircuitRefusal,
    },
    /// The stream broke after it was opened.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The peer answered with a refusal.
    #[error("{node} refused: {refusal}")]
    Refused {
        /// Who refused.
        node: NodeId,
        /// What it said.
        refusal: Refusal,
    },
    /// The peer sent something that is not an answer.
    #[error("{0} answered with a malformed response")]
    MalformedResponse(NodeId),
    /// No answer arrived in time.
    #[error("{node} did not answer within {limit:?}")]
    Timeout {
        /// Who was asked.
        node: NodeId,
        /// How long was waited.
        limit: Duration,
    },
    /// The request is above 16 MiB.
    #[error("a request of {len} bytes is above the limit of {limit} bytes")]
    Oversized {
        /// Length of the request.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The system gave no random numbers, or its clock is before 1970.
    #[error("the system lacks {0}")]
    System(&'static str),
    /// The credentials could not be renewed.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The members that were remembered could not be read.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Only the holder of the mesh root can do that.
    #[error("only the node that founded the mesh can do that")]
    NotIssuer,
    /// A node could not be shut out.
    #[error(transparent)]
    Revocation(#[from] RevocationError),
    /// The holder of the mesh root failed.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// No member that holds the mesh root is known.
    #[error("no member that holds the mesh root is known")]
    NoIssuer,
    /// The node has no registry, because its settings say so.
    #[error("the registry is switched off on this node")]
    RegistryOff,
    /// Too many searches run already.
    #[error("too many searches run already; try again in a moment")]
    Busy,
    /// The service has been shut down.
    #[error("the mesh service has been shut down")]
    ShutDown,
}

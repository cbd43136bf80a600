//! Why the endpoint could not be opened or a peer not be reached.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mielin_mesh_core::{NodeId, SignedRevocation, codec};
use quinn::{ConnectionError, TransportErrorCode, VarInt};

use super::{CLOSE_IDLE, CLOSE_ITSELF, CLOSE_REVOKED, CLOSE_SUPERSEDED};
use crate::certificate::CertificateError;
use crate::tls::TlsError;

/// Why the endpoint could not be opened or a peer not be reached.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Another program, or another node, listens there.
    #[error("address {address} is already in use; choose another port with --bind")]
    AddressInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The system does not let us listen there.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The credentials do not make a TLS configuration.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address cannot be dialled at all.
    #[error("cannot dial {address}: {source}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: quinn::ConnectError,
    },
    /// Nobody answers there.
    #[error("{address} did not answer within {limit:?}")]
    Timeout {
        /// Who was dialled.
        address: SocketAddr,
        /// How long was waited.
        limit: Duration,
    },
    /// The handshake failed or the peer closed.
    #[error("cannot connect to {address}: {source}")]
    Unreachable {
        /// Who was dialled.
        address: SocketAddr,
        /// What the transport said.
        source: ConnectionError,
    },
    /// The peer's certificate, or ours in its eyes, is from another mesh.
    #[error("the node at {address} belongs to another mesh")]
    OtherMesh {
        /// Who was dialled.
        address: SocketAddr,
    },
    /// The peer has shown no certificate, or one whose names do not follow from
    /// its key.
    #[error("the peer at {address} did not prove that it is a member: {source}")]
    NotAMember {
        /// Who was dialled.
        address: SocketAddr,
        /// What is wrong.
        source: CertificateError,
    },
    /// The mesh has shut the node out.
    #[error("node {node} was revoked")]
    Revoked {
        /// Who.
        node: NodeId,
    },
    /// The peer says that the mesh has shut this node out.
    #[error(
        "the node at {address} says that this node was revoked: it is no member any more. Join with another --data-dir, which makes a new identity"
    )]
    RevokedHere {
        /// Who was dialled.
        address: SocketAddr,
    },
    /// The mesh has shut this node out, as its root has signed.
    #[error(
        "this node was revoked: it is no member any more. Join with another --data-dir, which makes a new identity"
    )]
    ShutOut,
    /// Another node than the one that was wanted answers there.
    #[error("node {actual} answers at {address}, not {expected}")]
    OtherNode {
        /// Who was dialled.
        address: SocketAddr,
        /// Who was wanted.
        expected: NodeId,
        /// Who is there.
        actual: NodeId,
    },
    /// The node could not be dialled there a moment ago, and is left alone until it is tried again.
    #[error("{reason}; it is tried again in {wait:.1?}")]
    Pausing {
        /// Why it could not be dialled.
        reason: String,
        /// For how long it is left alone.
        wait: Duration,
    },
    /// No circuit to the node stands, so a connection cannot go over one.
    #[error("no circuit to {node} stands")]
    NoCircuit {
        /// Who was wanted.
        node: NodeId,
    },
    /// Another process with this node's own key answers there.
    #[error("another process that bears this node's identity answers at {address}")]
    Copy {
        /// The address.
        address: SocketAddr,
    },
    /// Another process with this node's key runs for longer, so this one keeps out of the mesh.
    #[error("another process that bears this node's identity is in its place in the mesh")]
    GivesWay,
    /// The address is this node's own.
    #[error("{address} is this node itself")]
    Itself {
        /// The address.
        address: SocketAddr,
    },
}

/// Whether a handshake failed because one side does not know the other's root.
pub(crate) fn close_reason_is_other_mesh(reason: &ConnectionError) -> bool {
    /// TLS alert `unknown_ca` (RFC 8446, section 6).
    const UNKNOWN_CA: u8 = 48;
    let unknown_ca = TransportErrorCode::crypto(UNKNOWN_CA);
    match reason {
        ConnectionError::TransportError(error) => error.code == unknown_ca,
        ConnectionError::ConnectionClosed(close) => close.error_code == unknown_ca,
        _ => false,
    }
}

impl WireError {
    /// Whether another attempt may fare better in a while. The others end at once, and each says what is wrong.
    pub(super) fn may_pass(&self) -> bool {
        use WireError::{Copy, GivesWay, Itself, Revoked, ShutOut};
        // That a peer says that this node was revoked proves nothing: another may not say so.
        !matches!(
            self,
            Revoked { .. } | ShutOut | Copy { .. } | GivesWay | Itself { .. }
        )
    }
}

/// `waited` is how long the handshake took to fail.
pub(super) fn dial_error(
    address: SocketAddr,
    waited: Duration,
    source: ConnectionError,
) -> WireError {
    /// Nobody wants to read microseconds.
    const TENTH: u128 = 100;
    match source {
        ref reason if close_reason_is_other_mesh(reason) => WireError::OtherMesh { address },
        ConnectionError::TimedOut => WireError::Timeout {
            address,
            limit: Duration::from_millis((waited.as_millis() / TENTH * TENTH) as u64),
        },
        ref reason if says(reason, CLOSE_ITSELF) => WireError::Itself { address },
        ref reason if says_revoked(reason) => WireError::RevokedHere { address },
        source => WireError::Unreachable { address, source },
    }
}

/// Whether a peer closed a connection because this node was shut out.
#[must_use]
pub fn says_revoked(reason: &ConnectionError) -> bool {
    says(reason, CLOSE_REVOKED)
}

/// What a peer shows for having closed a connection because this node was shut out. It may have made it up: the root's
/// signature is to be checked.
#[must_use]
pub fn revocation_said(reason: &ConnectionError) -> Option<Box<SignedRevocation>> {
    match reason {
        ConnectionError::ApplicationClosed(close) if close.error_code == CLOSE_REVOKED => {
            codec::decode(&close.reason).ok().map(Box::new)
        }
        _ => None,
    }
}

/// Whether a peer closed a connection because nobody used it.
pub(crate) fn says_idle(reason: &ConnectionError) -> bool {
    says(reason, CLOSE_IDLE)
}

/// Whether a peer closed a connection on which, as far as it knew, nothing was going on.
pub(crate) fn says_unused(reason: &ConnectionError) -> bool {
    says(reason, CLOSE_IDLE) || says(reason, CLOSE_SUPERSEDED)
}

fn says(reason: &ConnectionError, code: VarInt) -> bool {
    matches!(reason, ConnectionError::ApplicationClosed(close) if close.error_code == code)
}

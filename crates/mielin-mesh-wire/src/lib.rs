//! QUIC, certificates and framing for the mesh.
//!
//! This floor carries bytes between nodes that have proved who they are; it
//! takes no protocol decisions. It knows:
//!
//! - the **data directory** of a node ([`DataDirectory`]): versioned, owner-only,
//!   written atomically;
//! - **identity** ([`NodeKey`], [`NodeCredentials`]): an Ed25519 key whose
//!   BLAKE3 hash is the `NodeId`, and a certificate from the mesh root;
//! - **joining** ([`join`], [`Authority`], [`JoinToken`]): how a node without a
//!   certificate obtains one, by a token or by approval, and how its
//!   membership ends ([`Revoked`]);
//! - the **wire** ([`Endpoint`], [`Peer`], [`MeshStream`]): one QUIC endpoint
//!   that listens and dials, pooled connections, datagrams and framed streams;
//! - **circuits** ([`Circuits`]): the same connections through a relay, and
//!   whether a node can be dialled at all ([`answers_unasked`]).
//!
//! Who is a member, where an agent lives and what a stream says is decided
//! above, in `mielin-mesh`. Certificates are verified by rustls's ordinary
//! WebPKI verifiers on both sides, with the mesh root as the only trust anchor.

mod authority;
mod buckets;
mod certificate;
mod circuit;
mod class;
mod credentials;
mod dial_back;
mod directory;
mod endpoint;
mod exchange;
#[cfg(test)]
mod hostile;
mod identity;
mod introduction;
mod joining;
mod peer;
mod peers;
mod revoked;
mod signature;
mod socket;
mod stream;
mod tls;
mod token;
mod usage;

pub use authority::{Authority, AuthorityError, PendingJoin, TOKEN_LIFETIME_MAX, TOKEN_USES_MAX};
pub use certificate::{CertificateError, MeshId, RENEW_BELOW, RootCertificate};
pub use circuit::{CircuitError, CircuitTraffic, Circuits};
pub use class::{ClassTraffic, TrafficClass};
pub use credentials::{CredentialsError, NodeCredentials, create_mesh, load_credentials};
pub use dial_back::answers_unasked;
pub use directory::{DATA_VERSION, DataDirectory, DirectoryError};
pub use endpoint::{
    Endpoint, Features, Liveness, Traffic, WireError, revocation_said, says_revoked,
};
pub use identity::{IdentityError, NodeKey};
pub use introduction::IntroductionError;
pub use joining::{JoinError, JoinProgress, JoinRequest, join};
pub use peer::{DatagramError, Incoming, Peer, WireEvent};
pub use peers::{remember_peers, remembered_peers};
pub use revoked::{
    Revoked, store_revocations, store_revoked_names, stored_revocations, stored_revoked_names,
};
pub use signature::{Ed25519, Signer};
pub use stream::{
    Frame, FrameHead, FrameLimit, MeshStream, Pieces, RecvHalf, SendHalf, StreamError,
};
pub use tls::TlsError;
pub use token::{JoinToken, TokenError};

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

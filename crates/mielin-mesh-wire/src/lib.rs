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
//!   certificate obtains one, by a one-time token or by approval;
//! - the **wire** ([`Endpoint`], [`Peer`], [`MeshStream`]): one QUIC endpoint
//!   that listens and dials, pooled connections, datagrams and framed streams.
//!
//! Who is a member, where an agent lives and what a stream says is decided
//! above, in `mielin-mesh`. Certificates are verified by rustls's ordinary
//! WebPKI verifiers on both sides, with the mesh root as the only trust anchor.

mod directory;
mod identity;
mod certificate;
mod token;
mod authority;
mod credentials;
mod tls;
mod stream;
mod introduction;
mod exchange;
mod joining;
mod endpoint;

pub use authority::{Authority, AuthorityError, PendingJoin};
pub use certificate::{CertificateError, MeshId, RootCertificate};
pub use credentials::{CredentialsError, NodeCredentials, create_mesh, load_credentials};
pub use directory::{DATA_VERSION, DataDirectory, DirectoryError};
pub use endpoint::{Endpoint, Incoming, Liveness, Peer, WireError, WireEvent};
pub use identity::{IdentityError, NodeKey};
pub use joining::{JoinError, JoinProgress, JoinRequest, join};
pub use stream::{Frame, FrameLimit, MAX_PAYLOAD_BYTES, MeshStream, RecvHalf, SendHalf, StreamError};
pub use token::{JoinToken, TokenError};

//! Drives the mesh protocols over the wire.
//!
//! [`MeshService`] is one node's place in a mesh. It feeds the deterministic
//! cores of `mielin-mesh-core` (membership, agent registry) with datagrams,
//! timers and peers from `mielin-mesh-wire`, and offers what stands on top
//! three things: requests with a reply, streams, and location records that
//! reach every member. It knows nothing of agents beyond their location.
//!
//! ```no_run
//! use std::path::Path;
//! use mielin_mesh::{MeshConfig, MeshService, create_mesh};
//! use mielin_mesh_core::NodeRole;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let credentials = create_mesh(Path::new("/var/lib/mielin"), "first", NodeRole::Core)?;
//! let config = MeshConfig::new("0.0.0.0:9000".parse()?);
//! let mesh = MeshService::start(config, credentials).await?;
//! for member in mesh.members() {
//!     println!("{} {}", member.identity.name, member.state);
//! }
//! mesh.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod address;
mod arrivals;
mod certificates;
mod config;
mod copied;
mod courier;
mod directory;
mod discovery;
mod error;
mod event;
mod features;
mod leaves;
mod messages;
mod metrics;
mod reach;
mod relay;
mod revoking;
mod room;
mod routed;
mod service;
mod serving;
mod state;
mod table;
mod upkeep;

pub use certificates::CertManager;
pub use config::{Dialling, MeshConfig};
pub use copied::RunningCopy;
pub use directory::MeshAgents;
pub use discovery::bootstrap::{BootstrapError, BootstrapNode};
pub use error::MeshError;
pub use event::{Absence, LocalNode, MeshEvent};
pub use features::PeerProgram;
pub use leaves::{
    LeafConfig, LeafEntry, LeafError, LeafNews, LeafNewsKind, LeafPresence, LeafWay, Leaves,
    LineSource, LineSourceError, WayEnd,
};
pub use messages::{Lane, Mailboxes};
pub use metrics::METRICS_CONTENT_TYPE;
pub use reach::{Path, Reachability, Route};
pub use routed::ROUTED_ANSWER_BYTES_MAX;
pub use service::MeshService;
pub use serving::{
    BoxFuture, Refusal, RequestHandler, StreamHandler, request_handler, stream_handler,
};
pub use table::AgentLookup;

// Users of this floor need no other crate for what its signatures name.
pub use mielin_mesh_core::revocation::{Reason, ReasonError};
pub use mielin_mesh_core::{Departure, Preset, Revocation};
pub use mielin_mesh_wire::{
    Authority, AuthorityError, CredentialsError, DataDirectory, DirectoryError, Features, Frame,
    FrameLimit, IntroductionError, JoinError, JoinProgress, JoinRequest, JoinToken, MeshId,
    MeshStream, NodeCredentials, PendingJoin, RecvHalf, SendHalf, StreamError, TOKEN_LIFETIME_MAX,
    TokenError, WireError, create_mesh, join, load_credentials,
};

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

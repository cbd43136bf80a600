//! The mesh protocols of MielinOS as deterministic cores.
//!
//! Every type here is a state machine in the manner of `quinn-proto`: it is given the time, bytes that
//! arrived and things that happened, and is then asked for what to send, what to report and when to wake
//! it. It owns no socket, clock, thread or random source, so a whole mesh runs in one test thread, and a
//! seed reproduces a failure. `mielin-mesh` and `mielin-cells` drive these cores over QUIC.
//!
//! | module | protocol |
//! |---|---|
//! | [`membership`] | who is there: SWIM with suspicion and refutation |
//! | [`registry`] | where each agent is: location records with epochs |
//! | [`kademlia`] | what is kept where: a table of records at the nodes nearest to their keys |
//! | [`reach`] | who can be dialled, and by which relays the others are reached |
//! | [`routing`] | forwarding to a node that the sender cannot reach: [`RoutedMessage`] |
//! | [`revocation`] | who is shut out: revocations that the mesh's root has signed |
//! | [`delivery`] | messages between agents exactly once and in order, while both move |
//! | [`migration`] | handing a running agent over: one live copy, always |
//! | [`leaf`] | the link of a microcontroller to the node that speaks for it: `Leaf` and `LeafHost` |
//! | [`handover`] | agents over that link: `LeafEnd` and `HostEnd` |
//! | [`codec`] | the only encoding and decoding functions of the project |
//!
//! What must not be here: sockets, TLS, the system clock, tasks, an engine, maps with random seeds.
//!
//! # Driving a core
//!
//! After each call that takes `now`, ask `poll_transmit` and `poll_event` until they return `None`, then
//! sleep until `poll_timeout` or the next arrival.
//!
//! ```
//! use core::time::Duration;
//! use mielin_mesh_core::{Identity, Instant, Membership, Name, NodeId, NodeRole, Preset};
//!
//! let node = |key: &[u8], port: u16| Identity {
//!     id: NodeId::of_public_key(key),
//!     name: Name::new("n").unwrap(),
//!     role: NodeRole::Edge,
//!     address: ([127, 0, 0, 1], port).into(),
//!     generation: 1,
//!     departed: None,
//!     revision: 0,
//!     relays: Vec::new(),
//! };
//! let (a, b) = (node(b"key a", 1), node(b"key b", 2));
//! let now = Instant::from_start(Duration::ZERO);
//! let mut first = Membership::new(a.clone(), Preset::Lan, 1).unwrap();
//! let mut second = Membership::new(b.clone(), Preset::Lan, 2).unwrap();
//! second.announce(now, a.id, a.address);
//! while let Some(sent) = second.poll_transmit() {
//!     first.handle_datagram(now, b.id, &sent.bytes).unwrap();
//! }
//! assert_eq!(first.members().len(), 2);
//! ```

#![no_std]

extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

pub mod codec;
pub mod delivery;
pub mod handover;
mod ids;
pub mod kademlia;
pub mod leaf;
pub mod limits;
pub mod membership;
pub mod migration;
pub mod reach;
pub mod registry;
pub mod revocation;
pub mod routing;
mod time;

pub use ids::{
    AgentId, AgentState, Epoch, IdError, MemberState, Name, NameError, NodeId, NodeRole,
};
pub use kademlia::Dht;
pub use membership::{
    Departure, Identity, Member, Membership, MembershipError, MembershipEvent, Preset,
};
pub use migration::{
    MigrationCoordinator, MigrationFrame, MigrationMetrics, MigrationPhase, MigrationReceiver,
    MigrationStrategy, RollbackReason,
};
pub use registry::{AgentRegistry, Location, LocationRecord, RegistryEvent, SignedLocation};
pub use revocation::{Revocation, Revocations, SignedRevocation};
pub use routing::{RoutedMessage, Router};
pub use time::Instant;

//! The mesh's protocols at scale: deterministic simulation.
//!
//! One thread, one virtual clock, one seed. What runs is [`mielin_mesh_core::Membership`] and
//! [`mielin_mesh_core::Dht`] themselves, not models of them; what is made up is the network between them, the
//! clocks that they see, and who crashes when. The same seed gives the same run, byte for byte.
//!
//! What must not be here: sockets, the system clock, threads, and any part of a protocol.

pub mod curves;
pub mod lookup;
pub mod membership;
pub mod moves;
pub mod world;

//! Protocols 200 and 300: agents on their way from node to node.
//!
//! The decisions are `mielin_mesh_core::migration`'s; here they are carried out. [`source`] freezes, reads and sends,
//! [`target`] prepares, writes and starts, and [`frames`] is what passes between them. What travels besides memory and
//! stack: the agent's identity, its logs (what was there before the freeze goes ahead), its host state, its mailbox
//! and its outbox. A digest over everything that changed hands is compared before the target says that it is ready.

pub(crate) mod doubtful;
mod follow_up;
mod frames;
mod orphaned;
mod packing;
mod source;
mod target;

pub(crate) use follow_up::follow_up;
pub(crate) use frames::Identified;
pub(crate) use orphaned::ask_source;
pub(crate) use source::move_agent;
pub(crate) use source::settled::until_settled;
pub(crate) use target::{Inbound, serve, serve_pages};

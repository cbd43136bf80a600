//! Handing a running agent over: one live copy, always.
//!
//! States, messages and invariants are described in `docs/MIGRATION.md`.

mod arrivals;
mod coordinator;
mod frame;
mod metrics;
mod packing;
mod phase;
mod receiver;

pub use arrivals::{Arrivals, Query, QueryReply};
pub use coordinator::{MigrationCoordinator, Move, SourceAction, SourceInput};
pub use frame::{MigrationFrame, Offer, PageBatch, page_indices, page_runs, read_page_runs};
pub use metrics::{MigrationMetrics, PhaseTime, Round};
pub use packing::{PackingChoice, Traffic, Trial};
pub use phase::{MigrationPhase, MigrationStrategy, RollbackReason};
pub use receiver::{MigrationReceiver, TargetAction, TargetInput};

#[cfg(test)]
mod tests;

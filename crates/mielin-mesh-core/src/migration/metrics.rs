//! What a move cost.

use alloc::vec::Vec;
use core::time::Duration;

use crate::migration::{MigrationPhase, MigrationStrategy};

/// How long a phase took.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PhaseTime {
    /// The phase.
    pub phase: MigrationPhase,
    /// Its duration.
    pub duration: Duration,
}

/// One transfer of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Round {
    /// Pages sent.
    pub pages: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// From the harvest until the target had them; for the last, frozen round until they were sent.
    pub duration: Duration,
}

/// What a move cost, measured by the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationMetrics {
    /// What was done.
    pub strategy: MigrationStrategy,
    /// The phases so far, in order.
    pub phases: Vec<PhaseTime>,
    /// The rounds of pages, in order; the last one was sent frozen, if any was.
    pub rounds: Vec<Round>,
    /// Bytes sent: module, pages, state.
    pub bytes: u64,
    /// Pages that followed the running agent.
    pub followed: u64,
    /// The largest share of its time, in percent, that was taken from the agent so that it writes less.
    pub restrained_percent: u8,
    /// From the moment the agent stopped at the source until the source knew that it runs again, here or there.
    pub downtime: Duration,
    /// From the request until now, or until the end.
    pub total: Duration,
}

//! The phases of a move, its strategies, and the reasons for which it is rolled back.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use oxicode::{Decode, Encode};
use thiserror::Error;

/// How the memory of an agent goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum MigrationStrategy {
    /// Freeze, send everything, go on there. Shortest for small agents.
    StopCopy,
    /// Send while it runs, round after round, and freeze for what is left.
    PreCopy,
    /// Freeze, go on there at once, and let memory follow: pages that the agent touches first.
    PostCopy,
    /// Send while it runs, as in pre-copy, and let what is left follow, as in post-copy.
    Hybrid,
}

impl MigrationStrategy {
    /// All of them.
    pub const ALL: [MigrationStrategy; 4] = [
        MigrationStrategy::StopCopy,
        MigrationStrategy::PreCopy,
        MigrationStrategy::PostCopy,
        MigrationStrategy::Hybrid,
    ];

    /// Whether memory may follow the running agent.
    #[must_use]
    pub const fn lets_follow(self) -> bool {
        matches!(
            self,
            MigrationStrategy::PostCopy | MigrationStrategy::Hybrid
        )
    }
}

impl fmt::Display for MigrationStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            MigrationStrategy::StopCopy => "stop-copy",
            MigrationStrategy::PreCopy => "pre-copy",
            MigrationStrategy::PostCopy => "post-copy",
            MigrationStrategy::Hybrid => "hybrid",
        })
    }
}

/// Not the name of a strategy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected a strategy: stop-copy, pre-copy, post-copy or hybrid")]
pub struct NotStrategy;

impl FromStr for MigrationStrategy {
    type Err = NotStrategy;

    fn from_str(text: &str) -> Result<MigrationStrategy, NotStrategy> {
        match text {
            "stop-copy" => Ok(MigrationStrategy::StopCopy),
            "pre-copy" => Ok(MigrationStrategy::PreCopy),
            "post-copy" => Ok(MigrationStrategy::PostCopy),
            "hybrid" => Ok(MigrationStrategy::Hybrid),
            _ => Err(NotStrategy),
        }
    }
}

/// Where a move stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MigrationPhase {
    /// The target was asked.
    Planning,
    /// The target gets the module and makes an instance.
    Preparing,
    /// This round of pages goes over while the agent runs.
    PreCopy(u32),
    /// The agent comes to its next safepoint.
    Freezing,
    /// The last pages and the execution state go over.
    Transferring,
    /// The target has everything; the hand-over is being said.
    Committing,
    /// The target starts the agent.
    Resuming,
    /// The agent runs at the target, and pages of its memory follow.
    PostCopy,
    /// The agent runs at the target, which has everything, writes down that the agent is its own, and says so.
    Securing,
    /// The hand-over was said and its answer is lost: the source is frozen and asks.
    InDoubt,
    /// The agent runs at the target.
    Complete,
    /// The agent stays, or goes on, at the source.
    RolledBack(RollbackReason),
}

impl MigrationPhase {
    /// Whether the move is over.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(
            self,
            MigrationPhase::Complete | MigrationPhase::RolledBack(_)
        )
    }
}

impl fmt::Display for MigrationPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MigrationPhase::Planning => f.pad("planning"),
            MigrationPhase::Preparing => f.pad("preparing"),
            MigrationPhase::PreCopy(round) => write!(f, "pre-copy {round}"),
            MigrationPhase::Freezing => f.pad("freezing"),
            MigrationPhase::Transferring => f.pad("transferring"),
            MigrationPhase::Committing => f.pad("committing"),
            MigrationPhase::Resuming => f.pad("resuming"),
            MigrationPhase::PostCopy => f.pad("post-copy"),
            MigrationPhase::Securing => f.pad("securing"),
            MigrationPhase::InDoubt => f.pad("in doubt"),
            MigrationPhase::Complete => f.pad("complete"),
            MigrationPhase::RolledBack(reason) => write!(f, "rolled back: {reason}"),
        }
    }
}

/// Why the agent stays where it was.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error, Encode, Decode)]
pub enum RollbackReason {
    /// The target does not want the agent.
    #[error("the target refused: {0}")]
    Refused(String),
    /// The target could not prepare, store or install it.
    #[error("the target failed: {0}")]
    TargetFailed(String),
    /// This node could not freeze, read or send it.
    #[error("the source failed: {0}")]
    SourceFailed(String),
    /// The hand-over was not reached in time.
    #[error("the move took longer than its limit")]
    TimedOut,
    /// The connection broke before the hand-over.
    #[error("the connection to the target broke")]
    ConnectionLost,
    /// The target died.
    #[error("the target died")]
    TargetDied,
    /// The source died.
    #[error("the source died")]
    SourceDied,
    /// Somebody changed their mind.
    #[error("the move was cancelled")]
    Cancelled,
    /// The other node said something that makes no sense at this point.
    #[error("the other node broke the protocol")]
    Protocol,
    /// The agent lives elsewhere with a higher epoch: the copy here is stale, and was dropped.
    #[error("the agent lives elsewhere with a higher epoch")]
    Superseded,
    /// The hand-over was said, but the target did not start the agent, or undid that.
    #[error("the target did not start the agent, or undid it")]
    NotStarted,
    /// The target does not answer, and somebody who knows that it has not got the agent said so.
    #[error("somebody said that the target has not got it")]
    Forced,
}

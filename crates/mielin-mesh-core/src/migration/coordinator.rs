//! The source's side of a move.

use alloc::string::String;
use core::time::Duration;

use crate::migration::{
    MigrationFrame, MigrationMetrics, MigrationPhase, MigrationStrategy, QueryReply,
};
use crate::{AgentId, Epoch, Instant};

/// A move to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The agent.
    pub agent: AgentId,
    /// Its epoch here.
    pub epoch: Epoch,
    /// The hash of its module.
    pub module: [u8; 32],
    /// The module's length.
    pub module_bytes: u64,
    /// Its linear memory.
    pub memory_bytes: u64,
    /// The part of it that is not zero (or all of it, if that is not known).
    pub nonzero_bytes: u64,
    /// What to do; `None` chooses by `nonzero_bytes`.
    pub strategy: Option<MigrationStrategy>,
    /// The limit until the hand-over; [`crate::limits::MIGRATION_TIMEOUT`] by default.
    pub timeout: Duration,
}

/// What happened at the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceInput {
    /// The target sent this.
    Frame(MigrationFrame),
    /// [`SourceAction::SendModule`] was done.
    ModuleSent,
    /// [`SourceAction::Harvest`] was done.
    Harvested {
        /// All pages that must still be sent: the ones just found and the ones harvested before and not sent.
        pages: u64,
    },
    /// [`SourceAction::SendPages`] was done.
    PagesSent {
        /// Pages sent.
        pages: u64,
        /// Bytes sent.
        bytes: u64,
    },
    /// [`SourceAction::Freeze`] was done: the agent stands at a safepoint.
    Frozen,
    /// [`SourceAction::SendState`] was done.
    StateSent {
        /// Bytes sent.
        bytes: u64,
    },
    /// An action could not be done.
    Failed(String),
    /// The stream to the target broke.
    ConnectionLost,
    /// Membership declared the target dead.
    TargetDead,
    /// Somebody wants the agent to stay.
    Cancelled,
    /// The target answered [`SourceAction::Query`].
    Answered(QueryReply),
    /// [`SourceAction::Query`] could not be asked, or was not answered.
    QueryFailed,
    /// A location record of the agent with a higher epoch arrived.
    Superseded {
        /// Its epoch.
        epoch: Epoch,
    },
}

/// What the source's node must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceAction {
    /// Send this frame, without a tail unless it is the offer's.
    Send(MigrationFrame),
    /// Send the module, then say [`SourceInput::ModuleSent`].
    SendModule,
    /// Add the pages dirtied since the last harvest to those still to be sent, then say
    /// [`SourceInput::Harvested`]. The first harvest gives every non-zero page.
    Harvest,
    /// Send all harvested pages, then say [`SourceInput::PagesSent`].
    SendPages,
    /// Stop the agent at its next safepoint, then say [`SourceInput::Frozen`].
    Freeze,
    /// Send the state with this epoch, then say [`SourceInput::StateSent`].
    SendState {
        /// The epoch the target shall have.
        epoch: Epoch,
    },
    /// Ask the target, on a connection of its own, then say [`SourceInput::Answered`] or
    /// [`SourceInput::QueryFailed`].
    Query {
        /// The epoch handed over.
        epoch: Epoch,
    },
    /// Let the agent go on here with this epoch (its own, or a higher one after a hand-over that failed).
    Resume {
        /// The epoch.
        epoch: Epoch,
    },
    /// Drop the frozen agent: it runs elsewhere.
    Release,
}

/// The source's side of a move.
#[derive(Clone, Debug)]
pub struct MigrationCoordinator {}

impl MigrationCoordinator {
    /// Begins a move; the first action is there at once.
    pub fn new(_now: Instant, _plan: Move) -> MigrationCoordinator {
        todo!()
    }
    /// Takes what happened.
    pub fn handle(&mut self, _now: Instant, _input: SourceInput) {
        todo!()
    }
    /// Lets time pass.
    pub fn handle_timeout(&mut self, _now: Instant) {
        todo!()
    }
    /// When to call [`MigrationCoordinator::handle_timeout`]; ask again after every other call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
    /// The next thing to do; ask after every call until there is none.
    pub fn poll_action(&mut self) -> Option<SourceAction> {
        todo!()
    }
    /// Where the move stands.
    pub fn phase(&self) -> &MigrationPhase {
        todo!()
    }
    /// What it cost so far.
    pub fn metrics(&self, _now: Instant) -> MigrationMetrics {
        todo!()
    }
}

//! The target's side of a move.

use alloc::string::String;

use crate::migration::{MigrationFrame, MigrationPhase, Offer, RollbackReason};
use crate::{Epoch, Instant};

/// What happened at the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetInput {
    /// The source sent this. Act on the resulting actions before the next frame.
    Frame(MigrationFrame),
    /// Answer to [`TargetAction::Decide`]: yes.
    Accepted {
        /// Whether the module must be sent.
        need_module: bool,
    },
    /// Answer to [`TargetAction::Decide`]: no.
    Refused(String),
    /// [`TargetAction::Prepare`] was done.
    Prepared,
    /// [`TargetAction::WritePages`] was done.
    PagesWritten,
    /// [`TargetAction::Install`] was done.
    Installed,
    /// [`TargetAction::Start`] was done.
    Started,
    /// An action could not be done.
    Failed(String),
    /// The stream to the source broke.
    ConnectionLost,
    /// The source asked about the agent on another connection: it has given this stream up.
    Queried,
}

/// What the target's node must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetAction {
    /// Send this frame.
    Send(MigrationFrame),
    /// Say whether the agent is welcome.
    Decide(Offer),
    /// Compile (the module is the frame's tail if it was just sent), instantiate, touch memory.
    Prepare,
    /// Write the pages of the frame's tail.
    WritePages {
        /// How many.
        count: u32,
    },
    /// Restore the state in the frame's tail; the agent shall have this epoch.
    Install {
        /// The epoch.
        epoch: Epoch,
    },
    /// Remember the arrival ([`crate::migration::Arrivals::record`]), then let the agent run.
    Start {
        /// The epoch.
        epoch: Epoch,
    },
    /// Drop everything: the agent is not coming.
    Discard(RollbackReason),
}

/// The target's side of a move.
#[derive(Clone, Debug)]
pub struct MigrationReceiver {}

impl MigrationReceiver {
    /// Waits for an offer.
    pub fn new(_now: Instant) -> MigrationReceiver {
        todo!()
    }
    /// Takes what happened.
    pub fn handle(&mut self, _now: Instant, _input: TargetInput) {
        todo!()
    }
    /// Lets time pass.
    pub fn handle_timeout(&mut self, _now: Instant) {
        todo!()
    }
    /// When to call [`MigrationReceiver::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<TargetAction> {
        todo!()
    }
    /// Where the move stands.
    pub fn phase(&self) -> &MigrationPhase {
        todo!()
    }
}

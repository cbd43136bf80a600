//! The target's side of a move.

use alloc::collections::VecDeque;
use alloc::string::{String, ToString};

use crate::limits::{FOLLOW_TIMEOUT, MIGRATION_TIMEOUT, RELEASE_TIMEOUT};
use crate::migration::{
    Arrivals, MigrationFrame, MigrationPhase, MigrationStrategy, Offer, RollbackReason,
};
use crate::{AgentId, Epoch, Instant};

/// What happened at the target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetInput {
    /// The source sent this. Do the resulting actions, and say that they are done, before the next frame.
    Frame(MigrationFrame),
    /// Answer to [`TargetAction::Decide`]: yes.
    Accepted {
        /// Whether the module must be sent.
        need_module: bool,
        /// Whether pages may follow the running agent.
        post_copy: bool,
    },
    /// Answer to [`TargetAction::Decide`]: no.
    Refused(String),
    /// [`TargetAction::Prepare`] was done.
    Prepared,
    /// [`TargetAction::WritePages`] was done.
    PagesWritten,
    /// [`TargetAction::NoteAbsent`] was done.
    AbsentNoted,
    /// [`TargetAction::Install`] was done.
    Installed,
    /// [`TargetAction::Start`] was done.
    Started,
    /// A page that followed has been put in its place, on whichever stream it came.
    PageCame,
    /// All pages that were absent are in their places, or nobody needs them any more.
    Resident,
    /// [`TargetAction::Secure`] was done.
    Secured,
    /// [`TargetAction::Undo`] was done.
    Undone,
    /// An action other than [`TargetAction::Start`] could not be done. (What keeps a complete agent from
    /// running is the agent's own failure, and it fails here.)
    Failed(String),
    /// The stream to the source broke.
    ConnectionLost,
    /// The source asked about the agent on another connection, and got [`Arrivals::answer`].
    Queried,
    /// Membership declared the source dead.
    SourceDead,
}

/// What the target's node must do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetAction {
    /// Send this frame.
    Send(MigrationFrame),
    /// Say whether the agent is welcome.
    Decide(Offer),
    /// Compile (the module is the frame's tail if it was just sent), instantiate.
    Prepare,
    /// Write the pages of the frame's tail.
    WritePages {
        /// How many.
        count: u32,
    },
    /// The pages in the frame's tail will follow: arrange that the agent waits where it touches one of them.
    NoteAbsent {
        /// How many runs of pages.
        count: u32,
    },
    /// The pages in the frame's tail are zero: put that in place.
    WriteZeros {
        /// How many runs of pages.
        count: u32,
    },
    /// Restore the state in the frame's tail; the agent shall have this epoch.
    Install {
        /// The epoch.
        epoch: Epoch,
    },
    /// Let the agent run; keep its outgoing messages and its acknowledgements back until [`TargetAction::Confirm`].
    Start {
        /// The epoch.
        epoch: Epoch,
    },
    /// Write down, so that a crash does not undo it, that the agent is this node's; then say
    /// [`TargetInput::Secured`].
    Secure {
        /// The epoch.
        epoch: Epoch,
    },
    /// Stop the agent that was started, and drop it with all that it did; then say [`TargetInput::Undone`]. Nobody
    /// has seen anything of it.
    Undo(RollbackReason),
    /// Messages and acknowledgements may go out.
    Confirm {
        /// The source has said that it dropped its copy. If not, it may still ask: before anything goes out, write down
        /// that the answer must be [`QueryReply::Running`](super::QueryReply::Running) even after a crash, also when the
        /// agent has gone on from here by then.
        released: bool,
    },
    /// Drop everything: the agent is not coming.
    Discard(RollbackReason),
}

/// What the target waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Offer,
    Decision,
    Module,
    Prepared,
    PagesOrState,
    PagesWritten,
    AbsentNoted,
    Installed,
    Go,
    Started,
    Resident,
    Secured,
    Released,
    Undone,
    Nothing,
}

/// The target's side of a move.
///
/// The target runs the agent only after [`MigrationFrame::Go`], and only if [`Arrivals`] has not told the
/// source in the meantime that it will not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MigrationReceiver {
    stage: Stage,
    phase: MigrationPhase,
    offer: Option<Offer>,
    epoch: Epoch,
    /// The round that is coming in, counted from 1.
    round: u32,
    /// Pages may follow the running agent.
    may_follow: bool,
    /// Pages follow it.
    follow: bool,
    actions: VecDeque<TargetAction>,
    deadline: Option<Instant>,
}

impl MigrationReceiver {
    /// For explorations of all states: forgets when the time will be up, and keeps that it will.
    #[cfg(test)]
    pub(super) fn forget_times(&mut self) {
        self.deadline = self.deadline.map(|_| Instant::START);
    }

    /// Waits for an offer.
    #[must_use]
    pub fn new(now: Instant) -> MigrationReceiver {
        MigrationReceiver {
            stage: Stage::Offer,
            phase: MigrationPhase::Planning,
            offer: None,
            epoch: Epoch(0),
            round: 1,
            may_follow: false,
            follow: false,
            actions: VecDeque::new(),
            deadline: Some(now + MIGRATION_TIMEOUT),
        }
    }

    /// The agent that is coming, once it was offered.
    #[must_use]
    pub fn agent(&self) -> Option<AgentId> {
        self.offer.as_ref().map(|offer| offer.agent)
    }

    /// Takes what happened. `arrivals` is the node's, and held under its lock for the call.
    pub fn handle(&mut self, now: Instant, input: TargetInput, arrivals: &mut Arrivals) {
        match (self.stage, input) {
            (Stage::Nothing, _) => {}
            (_, TargetInput::Frame(frame)) => {
                if self.is_before_go() {
                    self.deadline = Some(now + MIGRATION_TIMEOUT);
                }
                self.handle_frame(frame, arrivals);
            }
            (
                Stage::Decision,
                TargetInput::Accepted {
                    need_module,
                    post_copy,
                },
            ) => {
                self.may_follow = post_copy;
                self.send(MigrationFrame::Accept {
                    need_module,
                    post_copy,
                });
                self.phase = MigrationPhase::Preparing;
                if need_module {
                    self.stage = Stage::Module;
                } else {
                    self.ask(Stage::Prepared, TargetAction::Prepare);
                }
            }
            (Stage::Decision, TargetInput::Refused(reason)) => {
                self.send(MigrationFrame::Refuse {
                    reason: reason.clone(),
                });
                self.discard(RollbackReason::Refused(reason));
            }
            (Stage::Prepared, TargetInput::Prepared) => {
                self.send(MigrationFrame::Prepared);
                self.stage = Stage::PagesOrState;
                let in_rounds = |offer: &Offer| match offer.strategy {
                    MigrationStrategy::PreCopy | MigrationStrategy::Hybrid => true,
                    MigrationStrategy::PostCopy => !self.may_follow,
                    MigrationStrategy::StopCopy => false,
                };
                self.phase = if self.offer.as_ref().is_some_and(in_rounds) {
                    MigrationPhase::PreCopy(self.round)
                } else {
                    MigrationPhase::Transferring
                };
            }
            (Stage::PagesWritten, TargetInput::PagesWritten) => self.stage = Stage::PagesOrState,
            (Stage::AbsentNoted, TargetInput::AbsentNoted) => self.stage = Stage::PagesOrState,
            (Stage::Installed, TargetInput::Installed) => {
                self.send(MigrationFrame::Ready { epoch: self.epoch });
                self.phase = MigrationPhase::Committing;
                self.stage = Stage::Go;
            }
            (Stage::Started, TargetInput::Started) => {
                self.phase = MigrationPhase::Resuming;
                self.send(MigrationFrame::Running { epoch: self.epoch });
                if self.follow {
                    self.phase = MigrationPhase::PostCopy;
                    self.stage = Stage::Resident;
                    self.deadline = Some(now + FOLLOW_TIMEOUT);
                } else {
                    self.secure();
                }
            }
            (Stage::Resident, TargetInput::PageCame) => self.deadline = Some(now + FOLLOW_TIMEOUT),
            (Stage::Resident, TargetInput::Resident) => self.secure(),
            (Stage::Secured, TargetInput::Secured) => {
                arrivals.secure(self.guest(), self.epoch);
                self.phase = MigrationPhase::Securing;
                self.send(MigrationFrame::Secured { epoch: self.epoch });
                self.stage = Stage::Released;
                self.deadline = Some(now + RELEASE_TIMEOUT);
            }
            (Stage::Undone, TargetInput::Undone) => {
                arrivals.undo(self.guest(), self.epoch);
                if let MigrationPhase::RolledBack(reason) = &self.phase {
                    let reason = reason.to_string();
                    self.send(MigrationFrame::Failed { reason });
                }
                self.stage = Stage::Nothing;
            }
            // Pages are missing, and nobody will bring them.
            (Stage::Resident, TargetInput::ConnectionLost | TargetInput::Queried) => {
                self.undo(RollbackReason::ConnectionLost);
            }
            (Stage::Resident, TargetInput::SourceDead) => self.undo(RollbackReason::SourceDied),
            (Stage::Resident, TargetInput::Failed(why)) => {
                self.undo(RollbackReason::TargetFailed(why));
            }
            // Without the note nobody could be told later that the agent was here.
            (Stage::Secured, TargetInput::Failed(why)) => {
                self.undo(RollbackReason::TargetFailed(why));
            }
            (_, TargetInput::Failed(why)) if self.is_before_go() => {
                self.send(MigrationFrame::Failed {
                    reason: why.clone(),
                });
                self.discard(RollbackReason::TargetFailed(why));
            }
            // A source that asks elsewhere has given the stream up.
            (_, TargetInput::ConnectionLost | TargetInput::Queried | TargetInput::SourceDead)
                if self.is_before_go() =>
            {
                self.discard(RollbackReason::ConnectionLost)
            }
            // A source that got its answer, or is dead, will not run the agent.
            (Stage::Released, TargetInput::Queried | TargetInput::SourceDead) => {
                self.confirm(false);
            }
            // Done too late, or a broken stream after the hand-over: the source will ask.
            _ => {}
        }
    }

    fn handle_frame(&mut self, frame: MigrationFrame, arrivals: &mut Arrivals) {
        match (self.stage, frame) {
            (Stage::Offer, MigrationFrame::Offer(offer)) => {
                self.offer = Some(offer.clone());
                self.ask(Stage::Decision, TargetAction::Decide(offer));
            }
            (Stage::Module, MigrationFrame::Module) => {
                self.ask(Stage::Prepared, TargetAction::Prepare);
            }
            (Stage::PagesOrState, MigrationFrame::Pages { count }) => {
                self.ask(Stage::PagesWritten, TargetAction::WritePages { count });
            }
            (Stage::PagesOrState, MigrationFrame::Zeros { count }) => {
                self.ask(Stage::PagesWritten, TargetAction::WriteZeros { count });
            }
            (Stage::PagesOrState, MigrationFrame::Absent { count })
                if self.may_follow && !self.follow =>
            {
                self.follow = true;
                self.ask(Stage::AbsentNoted, TargetAction::NoteAbsent { count });
            }
            (Stage::PagesOrState, MigrationFrame::RoundEnd { round, .. })
                if round == self.round =>
            {
                self.send(MigrationFrame::RoundAck { round });
                self.round += 1;
                self.phase = MigrationPhase::PreCopy(self.round);
            }
            (Stage::PagesOrState, MigrationFrame::State { epoch }) if self.follows(epoch) => {
                self.epoch = epoch;
                self.phase = MigrationPhase::Transferring;
                self.ask(Stage::Installed, TargetAction::Install { epoch });
            }
            (Stage::Go, MigrationFrame::Go { epoch }) if epoch == self.epoch => {
                if arrivals.start(self.guest(), epoch) {
                    self.deadline = None;
                    self.ask(Stage::Started, TargetAction::Start { epoch });
                } else {
                    self.discard(RollbackReason::ConnectionLost);
                }
            }
            (Stage::Released, MigrationFrame::Released) => self.confirm(true),
            (Stage::Resident, MigrationFrame::Pages { count }) => {
                self.actions.push_back(TargetAction::WritePages { count });
            }
            (Stage::Resident, MigrationFrame::Zeros { count }) => {
                self.actions.push_back(TargetAction::WriteZeros { count });
            }
            (Stage::Resident, MigrationFrame::Abort { reason }) => self.undo(reason),
            (Stage::Resident, _) => self.undo(RollbackReason::Protocol),
            (_, MigrationFrame::Abort { reason }) if self.is_before_go() => self.discard(reason),
            _ if self.is_before_go() => {
                let reason = RollbackReason::Protocol;
                self.send(MigrationFrame::Failed {
                    reason: reason.to_string(),
                });
                self.discard(reason);
            }
            // The agent runs here: nothing that the source says can change that.
            _ => {}
        }
    }

    fn follows(&self, epoch: Epoch) -> bool {
        self.offer.as_ref().is_some_and(|offer| epoch > offer.epoch)
    }

    const fn is_before_go(&self) -> bool {
        !matches!(
            self.stage,
            Stage::Started
                | Stage::Resident
                | Stage::Secured
                | Stage::Released
                | Stage::Undone
                | Stage::Nothing
        )
    }

    fn guest(&self) -> AgentId {
        self.agent()
            .expect("a receiver comes to have an agent by an offer")
    }

    fn secure(&mut self) {
        self.deadline = None;
        let epoch = self.epoch;
        self.ask(Stage::Secured, TargetAction::Secure { epoch });
    }

    fn undo(&mut self, reason: RollbackReason) {
        self.phase = MigrationPhase::RolledBack(reason.clone());
        self.deadline = None;
        self.ask(Stage::Undone, TargetAction::Undo(reason));
    }

    fn confirm(&mut self, released: bool) {
        self.actions.push_back(TargetAction::Confirm { released });
        self.phase = MigrationPhase::Complete;
        self.stage = Stage::Nothing;
        self.deadline = None;
    }

    fn discard(&mut self, reason: RollbackReason) {
        // What was to be done is not needed any more; what was to be said still is.
        self.actions
            .retain(|action| matches!(action, TargetAction::Send(_)));
        self.actions
            .push_back(TargetAction::Discard(reason.clone()));
        self.phase = MigrationPhase::RolledBack(reason);
        self.stage = Stage::Nothing;
        self.deadline = None;
    }

    fn send(&mut self, frame: MigrationFrame) {
        self.actions.push_back(TargetAction::Send(frame));
    }

    fn ask(&mut self, stage: Stage, action: TargetAction) {
        self.stage = stage;
        self.actions.push_back(action);
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|at| at > now) {
            return;
        }
        if self.stage == Stage::Released {
            // Either `Released` was lost, or the source is cut off and in doubt. In the latter case it stays
            // frozen until this node answers it.
            self.confirm(false);
        } else if self.stage == Stage::Resident {
            self.undo(RollbackReason::TimedOut);
        } else if self.is_before_go() {
            self.send(MigrationFrame::Failed {
                reason: RollbackReason::TimedOut.to_string(),
            });
            self.discard(RollbackReason::TimedOut);
        }
    }

    /// When to call [`MigrationReceiver::handle_timeout`]; ask again after every other call.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// The next thing to do; ask after every call until there is none.
    pub fn poll_action(&mut self) -> Option<TargetAction> {
        self.actions.pop_front()
    }

    /// Where the move stands.
    #[must_use]
    pub const fn phase(&self) -> &MigrationPhase {
        &self.phase
    }
}

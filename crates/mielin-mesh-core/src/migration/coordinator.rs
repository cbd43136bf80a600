//! The source's side of a move.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::limits::{
    FOLLOW_BYTES_PER_SECOND_MIN, FOLLOW_TIMEOUT, MIGRATION_TIMEOUT, PAGE_BYTES,
    PRE_COPY_DOWNTIME_BUDGET, PRE_COPY_PAGES_SMALL, PRE_COPY_SHRINK_PERCENT, QUERY_PERIOD,
    RESTRAINT_PERCENT, RESUME_TIMEOUT, STOP_COPY_BELOW_BYTES,
};
use crate::migration::{
    MigrationFrame, MigrationMetrics, MigrationPhase, MigrationStrategy, Offer, PhaseTime, Query,
    QueryReply, RollbackReason, Round,
};
use crate::{AgentId, Epoch, Instant};

/// A move to be made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
    /// What to do; `None` chooses: stop-copy by `nonzero_bytes`, and else how much of the memory goes ahead and how
    /// much follows, by what the rounds show of the writer and the link.
    pub strategy: Option<MigrationStrategy>,
    /// How long the agent should stand still at most, usually [`PRE_COPY_DOWNTIME_BUDGET`]. Rounds end when what is
    /// left would cross in this time; what would not may follow the running agent.
    pub downtime: Duration,
    /// The limit until the hand-over, usually [`MIGRATION_TIMEOUT`].
    pub timeout: Duration,
}

impl Move {
    /// A move of an agent whose memory may be non-zero throughout, strategy chosen, with the usual limit.
    #[must_use]
    pub const fn new(agent: AgentId, epoch: Epoch, module: [u8; 32], memory_bytes: u64) -> Move {
        Move {
            agent,
            epoch,
            module,
            module_bytes: 0,
            memory_bytes,
            nonzero_bytes: memory_bytes,
            strategy: None,
            downtime: PRE_COPY_DOWNTIME_BUDGET,
            timeout: MIGRATION_TIMEOUT,
        }
    }

    /// What the target is told to prepare for.
    #[must_use]
    pub fn strategy(&self) -> MigrationStrategy {
        let by_size = if self.nonzero_bytes < STOP_COPY_BELOW_BYTES {
            MigrationStrategy::StopCopy
        } else {
            MigrationStrategy::Hybrid
        };
        self.strategy.unwrap_or(by_size)
    }
}

/// What happened at the source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SourceInput {
    /// The target sent this.
    Frame(MigrationFrame),
    /// [`SourceAction::SendModule`] was done.
    ModuleSent {
        /// Bytes sent.
        bytes: u64,
    },
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
    /// [`SourceAction::SendAbsent`] was done.
    AbsentSent,
    /// [`SourceAction::SendState`] was done.
    StateSent {
        /// Bytes sent.
        bytes: u64,
    },
    /// Pages went to the running agent, by [`SourceAction::ServePages`].
    PagesServed {
        /// Pages of the list that had not been sent before.
        pages: u64,
        /// Bytes sent.
        bytes: u64,
    },
    /// An action could not be done.
    Failed(String),
    /// Somebody who knows that the target has not got the agent, and will not run it, says so. Ignored unless the
    /// source is in doubt.
    Forced,
    /// The stream to the target broke.
    ConnectionLost,
    /// Membership declared the target dead.
    TargetDead,
    /// Somebody wants the agent to stay. Ignored after the hand-over.
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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SourceAction {
    /// Send this frame, without a tail unless it is the offer's.
    Send(MigrationFrame),
    /// Send the module, then say [`SourceInput::ModuleSent`].
    SendModule,
    /// Add the pages dirtied since the last harvest to those still to be sent, then say
    /// [`SourceInput::Harvested`]. The first harvest gives every non-zero page.
    Harvest,
    /// Keep the agent off its thread for this share of its time from now on, in percent; 0 ends that. However the move
    /// ends, an agent that goes on here has been told 0 before.
    Restrain {
        /// The share.
        percent: u8,
    },
    /// Send all harvested pages, then say [`SourceInput::PagesSent`].
    SendPages,
    /// Stop the agent at its next safepoint, then say [`SourceInput::Frozen`].
    Freeze,
    /// Send the list of all harvested pages, which will follow, then say [`SourceInput::AbsentSent`].
    SendAbsent,
    /// Send the state with this epoch, then say [`SourceInput::StateSent`].
    SendState {
        /// The epoch the target shall have.
        epoch: Epoch,
    },
    /// Ask the target, on a connection of its own, then say [`SourceInput::Answered`] or
    /// [`SourceInput::QueryFailed`].
    Query(Query),
    /// Let the agent go on here with this epoch: its own, or a higher one after a hand-over that failed.
    /// A freeze that is still under way is taken back.
    Resume {
        /// The epoch.
        epoch: Epoch,
    },
    /// The agent runs there: send each page of the list once, first those that it waits for, and say
    /// [`SourceInput::PagesServed`] now and then. Ends with the move.
    ServePages,
    /// Drop the frozen agent: it runs elsewhere.
    Release,
}

/// What the source waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Answer,
    ModuleSent,
    Prepared,
    Harvested,
    PagesSent,
    RoundAck,
    Frozen,
    LastHarvested,
    LastPagesSent,
    AbsentSent,
    StateSent,
    Ready,
    Running,
    /// The agent runs there, and the target has yet to say that it is its own.
    Secured,
    /// In doubt, and asking.
    Answered,
    /// In doubt, until it is time to ask again.
    NextQuery,
    Nothing,
}

/// What a harvest of a running agent leads to.
enum Step {
    Freeze,
    Send,
    /// The same, with less time for the agent.
    Restrain(u8),
}

/// The source's side of a move.
///
/// The hand-over is the moment at which [`MigrationFrame::Go`] becomes an action. Before it, everything that
/// goes wrong lets the agent go on here. After it, the agent goes on here only when the target is known not to
/// run it: the target said so, or somebody who knows. That membership declared the target dead is no such knowledge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MigrationCoordinator {
    plan: Move,
    strategy: MigrationStrategy,
    stage: Stage,
    phase: MigrationPhase,
    actions: VecDeque<SourceAction>,
    /// The limit before the hand-over, the next step after it.
    deadline: Option<Instant>,
    /// The current round, counted from 1.
    round: u32,
    round_began: Instant,
    round_pages: u64,
    round_bytes: u64,
    freeze_requested: bool,
    /// How many steps of [`RESTRAINT_PERCENT`] the agent is restrained by.
    restraint: usize,
    /// The target lets memory follow.
    may_follow: bool,
    /// Pages that follow the running agent.
    following: u64,
    /// Those of them that have not been sent yet.
    unserved: u64,
    /// When all of them must have been sent.
    served_by: Option<Instant>,
    frozen_at: Option<Instant>,
    resumed_at: Option<Instant>,
    began: Instant,
    phase_began: Instant,
    ended: Option<Instant>,
    phases: Vec<PhaseTime>,
    rounds: Vec<Round>,
    bytes: u64,
}

impl MigrationCoordinator {
    /// For explorations of all states: forgets when things happened, and keeps what they were.
    #[cfg(test)]
    pub(super) fn forget_times(&mut self) {
        self.phases.clear();
        let last = self.rounds.pop();
        self.rounds = last.into_iter().collect();
        self.bytes = 0;
        self.deadline = self.deadline.map(|_| Instant::START);
        for time in [
            &mut self.served_by,
            &mut self.frozen_at,
            &mut self.resumed_at,
            &mut self.ended,
        ] {
            *time = time.map(|_| Instant::START);
        }
        for time in [
            &mut self.began,
            &mut self.phase_began,
            &mut self.round_began,
        ] {
            *time = Instant::START;
        }
    }

    /// Begins a move; the first action is there at once.
    #[must_use]
    pub fn new(now: Instant, plan: Move) -> MigrationCoordinator {
        let strategy = plan.strategy();
        let offer = MigrationFrame::Offer(Offer {
            agent: plan.agent,
            epoch: plan.epoch,
            module: plan.module,
            module_bytes: plan.module_bytes,
            memory_bytes: plan.memory_bytes,
            strategy,
        });
        MigrationCoordinator {
            strategy,
            stage: Stage::Answer,
            phase: MigrationPhase::Planning,
            actions: VecDeque::from([SourceAction::Send(offer)]),
            deadline: Some(now + plan.timeout),
            round: 0,
            round_began: now,
            round_pages: 0,
            round_bytes: 0,
            freeze_requested: false,
            restraint: 0,
            may_follow: false,
            following: 0,
            unserved: 0,
            served_by: None,
            frozen_at: None,
            resumed_at: None,
            began: now,
            phase_began: now,
            ended: None,
            phases: Vec::new(),
            rounds: Vec::new(),
            bytes: 0,
            plan,
        }
    }

    /// Takes what happened. Inputs that come too late, for instance after a rollback, change nothing.
    pub fn handle(&mut self, now: Instant, input: SourceInput) {
        match input {
            // They were sent, whatever has come of the move meanwhile.
            SourceInput::PagesServed { pages, bytes } => {
                self.bytes += bytes;
                self.pages_served(now, pages);
            }
            _ if self.stage == Stage::Nothing => {}
            SourceInput::Frame(frame) => self.handle_frame(now, frame),
            SourceInput::ModuleSent { bytes } => {
                self.bytes += bytes;
                if self.stage == Stage::ModuleSent {
                    self.stage = Stage::Prepared;
                }
            }
            SourceInput::Harvested { pages } => self.harvested(now, pages),
            SourceInput::PagesSent { pages, bytes } => self.pages_sent(now, pages, bytes),
            SourceInput::Frozen if self.stage == Stage::Frozen => {
                self.frozen_at = Some(now);
                self.enter(now, MigrationPhase::Transferring);
                self.ask(Stage::LastHarvested, SourceAction::Harvest);
                self.round_began = now;
            }
            SourceInput::AbsentSent if self.stage == Stage::AbsentSent => self.send_state(),
            SourceInput::StateSent { bytes } => {
                self.bytes += bytes;
                if self.stage == Stage::StateSent {
                    self.state_sent(now);
                }
            }
            SourceInput::Failed(why) => {
                self.give_up(now, RollbackReason::SourceFailed(why));
            }
            SourceInput::ConnectionLost => self.give_up(now, RollbackReason::ConnectionLost),
            SourceInput::TargetDead => self.give_up(now, RollbackReason::TargetDied),
            SourceInput::Forced if self.is_in_doubt() => {
                self.roll_back(now, RollbackReason::Forced, self.epoch_here());
            }
            SourceInput::Cancelled if !self.is_handed_over() => {
                self.give_up(now, RollbackReason::Cancelled);
            }
            SourceInput::Answered(QueryReply::Running { epoch })
                if self.is_handed_over() && epoch >= self.epoch_there() =>
            {
                self.complete(now);
            }
            SourceInput::Answered(QueryReply::NotHere { .. }) if self.stage == Stage::Answered => {
                let epoch = self.epoch_here();
                self.roll_back(now, RollbackReason::NotStarted, epoch);
            }
            SourceInput::Answered(_) | SourceInput::QueryFailed
                if self.stage == Stage::Answered =>
            {
                self.stage = Stage::NextQuery;
                self.deadline = Some(now + QUERY_PERIOD);
            }
            SourceInput::Superseded { epoch } => self.superseded(now, epoch),
            // Done too late: the stage has moved on.
            _ => {}
        }
    }

    fn handle_frame(&mut self, now: Instant, frame: MigrationFrame) {
        match (self.stage, frame) {
            (
                Stage::Answer,
                MigrationFrame::Accept {
                    need_module,
                    post_copy,
                },
            ) => {
                self.enter(now, MigrationPhase::Preparing);
                self.may_follow = post_copy && self.strategy.lets_follow();
                if !self.may_follow && self.strategy.lets_follow() {
                    self.strategy = MigrationStrategy::PreCopy;
                }
                if need_module {
                    self.ask(Stage::ModuleSent, SourceAction::SendModule);
                } else {
                    self.stage = Stage::Prepared;
                }
            }
            (Stage::Answer, MigrationFrame::Refuse { reason }) => {
                self.roll_back(now, RollbackReason::Refused(reason), self.plan.epoch);
            }
            // Here and below: the target may have the last byte, and answer, before the source has noticed
            // that it sent it.
            (Stage::Prepared | Stage::ModuleSent, MigrationFrame::Prepared) => {
                match self.strategy {
                    MigrationStrategy::StopCopy | MigrationStrategy::PostCopy => self.freeze(now),
                    MigrationStrategy::PreCopy | MigrationStrategy::Hybrid => self.next_round(now),
                }
            }
            (Stage::RoundAck, MigrationFrame::RoundAck { round }) if round == self.round => {
                self.rounds.push(Round {
                    pages: self.round_pages,
                    bytes: self.round_bytes,
                    duration: now.since(self.round_began),
                });
                self.next_round(now);
            }
            (Stage::Ready | Stage::StateSent, MigrationFrame::Ready { epoch })
                if epoch == self.epoch_there() =>
            {
                if self.stage == Stage::StateSent {
                    self.state_sent(now);
                }
                self.enter(now, MigrationPhase::Resuming);
                let go = MigrationFrame::Go { epoch };
                self.ask(Stage::Running, SourceAction::Send(go));
                self.deadline = Some(now + RESUME_TIMEOUT);
            }
            (Stage::Running, MigrationFrame::Running { epoch }) if epoch == self.epoch_there() => {
                self.runs_there(now);
            }
            // In doubt, it is late news of what only the target's answer can settle.
            (Stage::Answered | Stage::NextQuery, MigrationFrame::Running { epoch })
                if epoch == self.epoch_there() => {}
            (_, MigrationFrame::Secured { epoch })
                if self.is_handed_over() && epoch == self.epoch_there() =>
            {
                self.complete(now);
            }
            // The target says this only of an agent that does not run there.
            (_, MigrationFrame::Failed { reason }) => {
                let epoch = self.epoch_here();
                self.roll_back(now, RollbackReason::TargetFailed(reason), epoch);
            }
            _ => self.give_up(now, RollbackReason::Protocol),
        }
    }

    fn next_round(&mut self, now: Instant) {
        self.round += 1;
        self.round_began = now;
        self.enter(now, MigrationPhase::PreCopy(self.round));
        self.ask(Stage::Harvested, SourceAction::Harvest);
    }

    fn harvested(&mut self, now: Instant, pages: u64) {
        match self.stage {
            // Pages of a round that is not sent stay harvested, and go with the last ones.
            Stage::Harvested => match self.next_step(now, pages) {
                Step::Freeze => self.freeze(now),
                Step::Send => self.ask(Stage::PagesSent, SourceAction::SendPages),
                Step::Restrain(percent) => {
                    self.restraint += 1;
                    self.actions.push_back(SourceAction::Restrain { percent });
                    self.ask(Stage::PagesSent, SourceAction::SendPages);
                }
            },
            Stage::LastHarvested if self.is_better_late(pages) => {
                self.following = pages;
                self.ask(Stage::AbsentSent, SourceAction::SendAbsent);
            }
            Stage::LastHarvested if pages > 0 => {
                self.ask(Stage::LastPagesSent, SourceAction::SendPages);
            }
            Stage::LastHarvested => self.send_state(),
            _ => {}
        }
    }

    /// Whether to send these pages while the agent runs, rather than freeze it and send them then, and whether to slow it
    /// down for that.
    ///
    /// What a round gains is known from the one before: it sent so many pages, and meanwhile the agent dirtied these.
    /// A hot set that is written faster than it crosses comes back whole in each harvest. Sending it again makes the
    /// frozen rest no smaller, so there must be clearly fewer pages than the round before sent. And a round must leave
    /// time for a frozen rest of the same size before the limit, or the move would be rolled back.
    ///
    /// Where the rest may follow, a writer that gains on the link is left alone. Where it may not, the agent would stand
    /// still until all of it has crossed; so it is given less and less time to write in, and rounds go on.
    fn next_step(&self, now: Instant, pages: u64) -> Step {
        if pages <= PRE_COPY_PAGES_SMALL {
            return Step::Freeze;
        }
        let Some(before) = self.rounds.last() else {
            // The first harvest is the whole memory.
            return Step::Send;
        };
        let estimate = self.crossing_time(pages).as_nanos();
        let left = self.deadline.map_or(Duration::ZERO, |at| at.since(now));
        if (self.may_follow && self.plan.strategy == Some(MigrationStrategy::Hybrid))
            || estimate <= self.plan.downtime.as_nanos()
            || estimate.saturating_mul(2) > left.as_nanos()
        {
            Step::Freeze
        } else if u128::from(pages) * 100 <= u128::from(before.pages) * PRE_COPY_SHRINK_PERCENT {
            Step::Send
        } else {
            match RESTRAINT_PERCENT.get(self.restraint) {
                Some(percent) if !self.may_follow => Step::Restrain(*percent),
                _ => Step::Freeze,
            }
        }
    }

    /// How long so many pages would take at the speed of the round before.
    fn crossing_time(&self, pages: u64) -> Duration {
        let Some(before) = self.rounds.last() else {
            return Duration::MAX;
        };
        let pages = u32::try_from(pages).unwrap_or(u32::MAX);
        let before_pages = u32::try_from(before.pages.max(1)).unwrap_or(u32::MAX);
        before.duration.saturating_mul(pages) / before_pages
    }

    /// Whether these last pages should follow the running agent, rather than go while it stands still.
    fn is_better_late(&self, pages: u64) -> bool {
        self.may_follow
            && match self.plan.strategy {
                Some(MigrationStrategy::PostCopy) => pages > 0,
                Some(_) => pages > PRE_COPY_PAGES_SMALL,
                None => {
                    pages > PRE_COPY_PAGES_SMALL && self.crossing_time(pages) > self.plan.downtime
                }
            }
    }

    fn pages_sent(&mut self, now: Instant, pages: u64, bytes: u64) {
        match self.stage {
            Stage::PagesSent => {
                (self.round_pages, self.round_bytes) = (pages, bytes);
                self.bytes += bytes;
                let end = MigrationFrame::RoundEnd {
                    round: self.round,
                    pages,
                };
                self.ask(Stage::RoundAck, SourceAction::Send(end));
            }
            Stage::LastPagesSent => {
                self.bytes += bytes;
                let duration = now.since(self.round_began);
                self.rounds.push(Round {
                    pages,
                    bytes,
                    duration,
                });
                self.send_state();
            }
            _ => {}
        }
    }

    fn freeze(&mut self, now: Instant) {
        self.freeze_requested = true;
        self.enter(now, MigrationPhase::Freezing);
        self.ask(Stage::Frozen, SourceAction::Freeze);
    }

    fn send_state(&mut self) {
        let epoch = self.epoch_there();
        self.ask(Stage::StateSent, SourceAction::SendState { epoch });
    }

    fn state_sent(&mut self, now: Instant) {
        self.stage = Stage::Ready;
        self.enter(now, MigrationPhase::Committing);
    }

    /// The agent runs at the target, and is this node's to bring back until the target has secured it.
    fn runs_there(&mut self, now: Instant) {
        self.resumed_at = Some(now);
        self.stage = Stage::Secured;
        if self.following > 0 {
            self.enter(now, MigrationPhase::PostCopy);
            self.actions.push_back(SourceAction::ServePages);
            self.deadline = Some(now + FOLLOW_TIMEOUT);
            let bytes = self.following.saturating_mul(PAGE_BYTES as u64);
            let crossing = Duration::from_secs(bytes / FOLLOW_BYTES_PER_SECOND_MIN);
            self.served_by = Some(now + FOLLOW_TIMEOUT + crossing);
            self.unserved = self.following;
        } else {
            self.enter(now, MigrationPhase::Securing);
            self.deadline = Some(now + RESUME_TIMEOUT);
        }
    }

    /// More time, if what is left has become less: a target may ask for the same pages for ever.
    fn pages_served(&mut self, now: Instant, pages: u64) {
        let pages = pages.min(self.unserved);
        self.unserved -= pages;
        if self.stage == Stage::Secured && pages > 0 {
            let next = now + FOLLOW_TIMEOUT;
            self.deadline = Some(self.served_by.map_or(next, |by| next.min(by)));
        }
    }

    fn superseded(&mut self, now: Instant, epoch: Epoch) {
        if self.is_handed_over() && epoch >= self.epoch_there() {
            self.complete(now);
        } else if epoch > self.plan.epoch {
            self.actions.clear();
            self.actions
                .push_back(SourceAction::Send(MigrationFrame::Abort {
                    reason: RollbackReason::Superseded,
                }));
            self.actions.push_back(SourceAction::Release);
            self.finish(now, MigrationPhase::RolledBack(RollbackReason::Superseded));
        }
    }

    /// Ends a move that cannot go on: a rollback before the hand-over, doubt after it.
    fn give_up(&mut self, now: Instant, reason: RollbackReason) {
        match self.stage {
            Stage::Running | Stage::Secured => {
                self.actions.clear();
                self.enter(now, MigrationPhase::InDoubt);
                self.query();
            }
            Stage::Answered | Stage::NextQuery => {}
            _ => {
                let epoch = self.plan.epoch;
                self.roll_back(now, reason, epoch);
            }
        }
    }

    fn query(&mut self) {
        let query = Query {
            agent: self.plan.agent,
            epoch: self.epoch_there(),
        };
        self.ask(Stage::Answered, SourceAction::Query(query));
        self.deadline = None;
    }

    fn roll_back(&mut self, now: Instant, reason: RollbackReason, epoch: Epoch) {
        // What was not begun need not be.
        self.actions.clear();
        let target_hears = !matches!(
            reason,
            RollbackReason::ConnectionLost
                | RollbackReason::TargetDied
                | RollbackReason::Refused(_)
                | RollbackReason::TargetFailed(_)
                | RollbackReason::NotStarted
                | RollbackReason::Forced
        );
        if target_hears {
            let abort = MigrationFrame::Abort {
                reason: reason.clone(),
            };
            self.actions.push_back(SourceAction::Send(abort));
        }
        if self.restraint > 0 {
            self.actions
                .push_back(SourceAction::Restrain { percent: 0 });
        }
        if self.freeze_requested {
            self.actions.push_back(SourceAction::Resume { epoch });
        }
        self.finish(now, MigrationPhase::RolledBack(reason));
    }

    fn complete(&mut self, now: Instant) {
        self.actions.clear();
        // After a doubt the stream may be gone; the target then takes the question for the same news.
        self.actions.push_back(SourceAction::Release);
        self.actions
            .push_back(SourceAction::Send(MigrationFrame::Released));
        self.finish(now, MigrationPhase::Complete);
    }

    fn finish(&mut self, now: Instant, phase: MigrationPhase) {
        self.enter(now, phase);
        self.stage = Stage::Nothing;
        self.deadline = None;
        self.ended = Some(now);
    }

    const fn is_handed_over(&self) -> bool {
        matches!(
            self.stage,
            Stage::Running | Stage::Secured | Stage::Answered | Stage::NextQuery
        )
    }

    const fn is_in_doubt(&self) -> bool {
        matches!(self.stage, Stage::Answered | Stage::NextQuery)
    }

    /// The epoch that the target gets.
    const fn epoch_there(&self) -> Epoch {
        self.plan.epoch.next()
    }

    /// The epoch in which the agent would go on here: after the hand-over one that beats the target's.
    const fn epoch_here(&self) -> Epoch {
        if self.is_handed_over() {
            self.plan.epoch.next().next()
        } else {
            self.plan.epoch
        }
    }

    fn ask(&mut self, stage: Stage, action: SourceAction) {
        self.stage = stage;
        self.actions.push_back(action);
    }

    fn enter(&mut self, now: Instant, phase: MigrationPhase) {
        let phase = core::mem::replace(&mut self.phase, phase);
        let duration = now.since(self.phase_began);
        self.phases.push(PhaseTime { phase, duration });
        self.phase_began = now;
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|at| at > now) {
            return;
        }
        self.deadline = None;
        match self.stage {
            Stage::NextQuery => self.query(),
            _ => self.give_up(now, RollbackReason::TimedOut),
        }
    }

    /// When to call [`MigrationCoordinator::handle_timeout`]; ask again after every other call.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// The next thing to do; ask after every call until there is none.
    pub fn poll_action(&mut self) -> Option<SourceAction> {
        self.actions.pop_front()
    }

    /// Where the move stands.
    #[must_use]
    pub const fn phase(&self) -> &MigrationPhase {
        &self.phase
    }

    /// By how much the agent is restrained, or was at the end of the rounds.
    fn restrained_percent(&self) -> u8 {
        match self.restraint {
            0 => 0,
            steps => RESTRAINT_PERCENT[steps - 1],
        }
    }

    /// What was done in the end: of a hybrid whose rounds left nothing to follow, pre-copy.
    fn done(&self) -> MigrationStrategy {
        match self.strategy {
            MigrationStrategy::Hybrid if self.frozen_at.is_some() && self.following == 0 => {
                MigrationStrategy::PreCopy
            }
            strategy => strategy,
        }
    }

    /// What it cost so far.
    #[must_use]
    pub fn metrics(&self, now: Instant) -> MigrationMetrics {
        let until = self.ended.unwrap_or(now);
        let mut phases = self.phases.clone();
        if self.ended.is_none() {
            let duration = now.since(self.phase_began);
            phases.push(PhaseTime {
                phase: self.phase.clone(),
                duration,
            });
        }
        MigrationMetrics {
            strategy: self.done(),
            phases,
            rounds: self.rounds.clone(),
            bytes: self.bytes,
            followed: self.following,
            restrained_percent: self.restrained_percent(),
            downtime: self.frozen_at.map_or(Duration::ZERO, |at| {
                self.resumed_at.unwrap_or(until).since(at)
            }),
            total: until.since(self.began),
        }
    }
}

//! Every order of events of a hand-over, with faults at every point, explored exhaustively.
//!
//! The states are those of [`MigrationCoordinator`] and [`MigrationReceiver`] themselves, with what is under way
//! between them; only times are left out, so any timer that is set may fire at any moment. `stateright` walks through
//! all of them. `docs/MIGRATION.md` has the invariants; `super` runs the same cores with times and longer moves.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use std::println;

use stateright::{Checker, Model, Property};

use super::super::*;
use crate::{AgentId, Epoch, Instant};

const AGENT: AgentId = AgentId([7; 16]);
const EPOCH: Epoch = Epoch(4);
const NOW: Instant = Instant::START;

/// The two sides of one move and everything between them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// `None` when its process has died.
    source: Option<MigrationCoordinator>,
    target: Option<MigrationReceiver>,
    arrivals: Arrivals,
    stream: bool,
    to_target: VecDeque<MigrationFrame>,
    to_source: VecDeque<MigrationFrame>,
    /// What was asked of a side and is not done, in order.
    source_does: VecDeque<SourceInput>,
    target_does: VecDeque<TargetInput>,
    /// A question of a source in doubt, its answer, and the news of it at the target, on their ways.
    query: Option<Query>,
    answer: Option<QueryReply>,
    queried: bool,
    source_runs: Option<Epoch>,
    source_holds: bool,
    /// The agent has less than all of its time at the source.
    restrained: bool,
    target_runs: Option<Epoch>,
    /// The target's agent lacks pages.
    lacks: bool,
    /// The target's messages went out.
    confirmed: bool,
    /// The answer that the target has written down.
    written: Option<Epoch>,
    /// The target's process will not come back.
    gone: bool,
    faults: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Event {
    SourceDone,
    TargetDone,
    ToTarget,
    ToSource,
    Asked,
    Answered,
    AnswerLost,
    HearsOfQuestion,
    SourceTimer,
    TargetTimer,
    Fault(Fault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fault {
    /// Frames on their way are lost, all of them or those behind the first.
    Cut,
    SourceDies,
    /// Likewise, and nobody tells the target that the stream broke before it hears of the death.
    SourceDiesInSilence,
    TargetDies,
    TargetDiesAndStartsAgain,
    SourceFails,
    TargetFails,
    Cancel,
    Refuse,
}

struct Handover {
    strategy: MigrationStrategy,
    faults: u8,
}

impl State {
    fn settle(&mut self) {
        loop {
            let source = self.source.as_mut().and_then(|source| source.poll_action());
            if let Some(action) = source {
                self.at_source(action);
                continue;
            }
            match self.target.as_mut().and_then(|target| target.poll_action()) {
                Some(action) => self.at_target(action),
                None => break,
            }
        }
        if let Some(source) = &mut self.source {
            source.forget_times();
        }
        if let Some(target) = &mut self.target {
            target.forget_times();
        }
    }

    fn at_source(&mut self, action: SourceAction) {
        let mut send = |frame: MigrationFrame| {
            if self.stream {
                self.to_target.push_back(frame);
            }
        };
        let done = match action {
            SourceAction::Send(frame) => return send(frame),
            SourceAction::SendModule => {
                send(MigrationFrame::Module);
                SourceInput::ModuleSent { bytes: 1 }
            }
            SourceAction::Harvest => SourceInput::Harvested { pages: 1_000 },
            SourceAction::SendPages => {
                send(MigrationFrame::Pages { count: 1 });
                SourceInput::PagesSent {
                    pages: 1_000,
                    bytes: 1,
                }
            }
            SourceAction::Freeze => {
                self.source_runs = None;
                SourceInput::Frozen
            }
            SourceAction::SendAbsent => {
                send(MigrationFrame::Absent { count: 1 });
                SourceInput::AbsentSent
            }
            SourceAction::SendState { epoch } => {
                send(MigrationFrame::State { epoch });
                SourceInput::StateSent { bytes: 1 }
            }
            SourceAction::ServePages => {
                send(MigrationFrame::Pages { count: 1 });
                send(MigrationFrame::Zeros { count: 1 });
                SourceInput::PagesServed {
                    pages: 1_000,
                    bytes: 1,
                }
            }
            SourceAction::Query(query) => {
                self.query = Some(query);
                return;
            }
            SourceAction::Restrain { percent } => {
                self.restrained = percent > 0;
                return;
            }
            SourceAction::Resume { epoch } => {
                self.source_runs = Some(epoch);
                self.source_does.clear();
                return;
            }
            SourceAction::Release => {
                self.source_holds = false;
                return;
            }
        };
        self.source_does.push_back(done);
    }

    fn at_target(&mut self, action: TargetAction) {
        let done = match action {
            TargetAction::Send(frame) => {
                if self.stream {
                    self.to_source.push_back(frame);
                }
                return;
            }
            TargetAction::Decide(_) => TargetInput::Accepted {
                need_module: false,
                post_copy: true,
            },
            TargetAction::Prepare => TargetInput::Prepared,
            TargetAction::NoteAbsent { .. } => {
                self.lacks = true;
                TargetInput::AbsentNoted
            }
            // The second frame brings the rest.
            TargetAction::WriteZeros { .. } => {
                self.lacks = false;
                TargetInput::Resident
            }
            TargetAction::WritePages { .. } if self.lacks => TargetInput::PageCame,
            TargetAction::WritePages { .. } => TargetInput::PagesWritten,
            TargetAction::Install { .. } => TargetInput::Installed,
            TargetAction::Start { epoch } => {
                self.target_runs = Some(epoch);
                TargetInput::Started
            }
            TargetAction::Secure { .. } => TargetInput::Secured,
            TargetAction::Undo(_) => {
                self.target_runs = None;
                TargetInput::Undone
            }
            TargetAction::Confirm { released } => {
                self.confirmed = true;
                if !released {
                    self.written = self.target_runs;
                }
                return;
            }
            TargetAction::Discard(_) => {
                self.target_does.clear();
                return;
            }
        };
        self.target_does.push_back(done);
    }

    fn tell_source(&mut self, input: SourceInput) {
        if let Some(source) = &mut self.source {
            source.handle(NOW, input);
        }
        self.settle();
    }

    fn tell_target(&mut self, input: TargetInput) {
        if let Some(target) = &mut self.target {
            target.handle(NOW, input, &mut self.arrivals);
        }
        self.settle();
    }

    fn break_stream(&mut self) {
        self.stream = false;
        self.to_target.clear();
        self.to_source.clear();
    }

    fn suffer(&mut self, fault: Fault) {
        self.faults -= 1;
        match fault {
            Fault::Cut => {
                self.break_stream();
                self.source_does.push_back(SourceInput::ConnectionLost);
                self.target_does.push_back(TargetInput::ConnectionLost);
            }
            Fault::SourceDies | Fault::SourceDiesInSilence => {
                self.break_stream();
                self.source = None;
                self.source_runs = None;
                self.source_holds = false;
                self.source_does.clear();
                (self.query, self.answer) = (None, None);
                if fault == Fault::SourceDies {
                    self.target_does.push_back(TargetInput::ConnectionLost);
                }
                self.target_does.push_back(TargetInput::SourceDead);
            }
            Fault::TargetDies | Fault::TargetDiesAndStartsAgain => {
                self.break_stream();
                self.target = None;
                self.target_runs = None;
                self.target_does.clear();
                self.queried = false;
                self.arrivals = Arrivals::new();
                if let Some(epoch) = self.written {
                    self.arrivals.secure(AGENT, epoch);
                }
                self.gone = fault == Fault::TargetDies;
                self.source_does.push_back(SourceInput::ConnectionLost);
                if self.gone {
                    self.source_does.push_back(SourceInput::TargetDead);
                }
            }
            Fault::SourceFails => {
                let done = self.source_does.front_mut();
                *done.unwrap() = SourceInput::Failed("broken".into());
            }
            Fault::TargetFails => {
                let done = self.target_does.front_mut();
                *done.unwrap() = TargetInput::Failed("broken".into());
            }
            Fault::Cancel => self.source_does.push_back(SourceInput::Cancelled),
            Fault::Refuse => {
                let done = self.target_does.front_mut();
                *done.unwrap() = TargetInput::Refused("full".into());
            }
        }
    }

    /// Whether this fault can happen now.
    fn may_suffer(&self, fault: Fault) -> bool {
        match fault {
            Fault::Cut => self.stream,
            Fault::SourceDies | Fault::SourceDiesInSilence | Fault::Cancel => self.source.is_some(),
            Fault::TargetDies | Fault::TargetDiesAndStartsAgain => self.target.is_some(),
            Fault::SourceFails => matches!(
                self.source_does.front(),
                Some(
                    SourceInput::ModuleSent { .. }
                        | SourceInput::Harvested { .. }
                        | SourceInput::PagesSent { .. }
                        | SourceInput::Frozen
                        | SourceInput::AbsentSent
                        | SourceInput::StateSent { .. }
                        | SourceInput::PagesServed { .. }
                )
            ),
            Fault::TargetFails => matches!(
                self.target_does.front(),
                Some(
                    TargetInput::Prepared
                        | TargetInput::PagesWritten
                        | TargetInput::PageCame
                        | TargetInput::AbsentNoted
                        | TargetInput::Installed
                        | TargetInput::Secured
                )
            ),
            Fault::Refuse => {
                matches!(self.target_does.front(), Some(TargetInput::Accepted { .. }))
            }
        }
    }

    fn is_over(&self) -> bool {
        let source = self.source.as_ref();
        let target = self.target.as_ref();
        source.is_none_or(|source| source.phase().is_final())
            && target.is_none_or(|target| target.phase().is_final())
            && self.source_does.is_empty()
            && self.target_does.is_empty()
            && self.to_source.is_empty()
            && self.to_target.is_empty()
    }

    /// Whether the source is frozen, and waits for a target that does not come back.
    fn waits_for_the_dead(&self) -> bool {
        let phase = self.source.as_ref().map(MigrationCoordinator::phase);
        self.gone && phase == Some(&MigrationPhase::InDoubt)
    }
}

impl Model for Handover {
    type State = State;
    type Action = Event;

    fn init_states(&self) -> Vec<State> {
        let plan = Move {
            strategy: Some(self.strategy),
            ..Move::new(AGENT, EPOCH, [1; 32], 1 << 22)
        };
        let mut state = State {
            source: Some(MigrationCoordinator::new(NOW, plan)),
            target: Some(MigrationReceiver::new(NOW)),
            arrivals: Arrivals::new(),
            stream: true,
            to_target: VecDeque::new(),
            to_source: VecDeque::new(),
            source_does: VecDeque::new(),
            target_does: VecDeque::new(),
            query: None,
            answer: None,
            queried: false,
            source_runs: Some(EPOCH),
            source_holds: true,
            restrained: false,
            target_runs: None,
            lacks: false,
            confirmed: false,
            written: None,
            gone: false,
            faults: self.faults,
        };
        state.settle();
        Vec::from([state])
    }

    fn actions(&self, state: &State, actions: &mut Vec<Event>) {
        let mut can = |event, possible| {
            if possible {
                actions.push(event);
            }
        };
        can(Event::SourceDone, !state.source_does.is_empty());
        can(Event::TargetDone, !state.target_does.is_empty());
        // A frame is handled when what the one before it asked for is done.
        let free = state.target_does.is_empty();
        can(Event::ToTarget, free && !state.to_target.is_empty());
        can(Event::ToSource, !state.to_source.is_empty());
        can(Event::Asked, state.query.is_some() && !state.gone);
        can(Event::Answered, state.answer.is_some());
        can(
            Event::AnswerLost,
            state.answer.is_some() || (state.query.is_some() && state.gone),
        );
        can(Event::HearsOfQuestion, state.queried);
        let source = state.source.as_ref();
        can(
            Event::SourceTimer,
            source.is_some_and(|source| source.poll_timeout().is_some()),
        );
        let target = state.target.as_ref();
        can(
            Event::TargetTimer,
            target.is_some_and(|target| target.poll_timeout().is_some()),
        );
        for fault in [
            Fault::Cut,
            Fault::SourceDies,
            Fault::SourceDiesInSilence,
            Fault::TargetDies,
            Fault::TargetDiesAndStartsAgain,
            Fault::SourceFails,
            Fault::TargetFails,
            Fault::Cancel,
            Fault::Refuse,
        ] {
            can(
                Event::Fault(fault),
                state.faults > 0 && state.may_suffer(fault),
            );
        }
    }

    fn next_state(&self, state: &State, event: Event) -> Option<State> {
        let mut state = state.clone();
        match event {
            Event::SourceDone => {
                let input = state.source_does.pop_front()?;
                state.tell_source(input);
            }
            Event::TargetDone => {
                let input = state.target_does.pop_front()?;
                state.tell_target(input);
            }
            Event::ToTarget => {
                let frame = state.to_target.pop_front()?;
                state.tell_target(TargetInput::Frame(frame));
            }
            Event::ToSource => {
                let frame = state.to_source.pop_front()?;
                state.tell_source(SourceInput::Frame(frame));
            }
            Event::Asked => {
                let query = state.query.take()?;
                state.answer = Some(state.arrivals.answer(query));
                state.queried = state.target.is_some();
            }
            Event::Answered => {
                let reply = state.answer.take()?;
                state.tell_source(SourceInput::Answered(reply));
            }
            Event::AnswerLost => {
                (state.query, state.answer) = (None, None);
                state.tell_source(SourceInput::QueryFailed);
            }
            Event::HearsOfQuestion => {
                state.queried = false;
                state.tell_target(TargetInput::Queried);
            }
            Event::SourceTimer => {
                state.source.as_mut()?.handle_timeout(NOW);
                state.settle();
            }
            Event::TargetTimer => {
                state.target.as_mut()?.handle_timeout(NOW);
                state.settle();
            }
            Event::Fault(fault) => {
                state.suffer(fault);
                state.settle();
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        Vec::from([
            Property::always("at most one copy runs", |_, state: &State| {
                state.source_runs.is_none() || state.target_runs.is_none()
            }),
            Property::always("the source runs what it holds", |_, state: &State| {
                state.source_runs.is_none() || state.source_holds
            }),
            Property::always(
                "the source does not run an agent whose messages went out from the target",
                |_, state: &State| state.source_runs.is_none() || !state.confirmed,
            ),
            Property::always(
                "the source lets go only of an agent that the target holds whole",
                |_, state: &State| {
                    let held = state.target_runs.is_some() && !state.lacks;
                    state.source_holds || state.source.is_none() || state.target.is_none() || held
                },
            ),
            Property::always(
                "an agent that lacks pages is not shown to anybody",
                |_, state: &State| !(state.lacks && state.confirmed),
            ),
            Property::always("nothing ends without an owner", |_, state: &State| {
                let owned =
                    state.source_runs.is_some() || (state.target_runs.is_some() && state.confirmed);
                let died = state.source.is_none() || state.target.is_none();
                !state.is_over() || owned || (died && !state.source_holds)
            }),
            Property::always("nothing stands still", |model: &Handover, state: &State| {
                let mut actions = Vec::new();
                model.actions(state, &mut actions);
                actions.retain(|event| !matches!(event, Event::Fault(_)));
                !actions.is_empty() || state.is_over() || state.waits_for_the_dead()
            }),
            Property::always(
                "an agent that stays has all of its time",
                |_, state: &State| {
                    !(state.is_over() && state.source_runs.is_some() && state.restrained)
                },
            ),
            Property::sometimes("a move completes", |_, state: &State| {
                let phase = state.source.as_ref().map(MigrationCoordinator::phase);
                phase == Some(&MigrationPhase::Complete) && state.confirmed
            }),
            Property::sometimes("a source in doubt takes it back", |_, state: &State| {
                state.source_runs == Some(Epoch(6))
            }),
        ])
    }
}

fn explore(strategy: MigrationStrategy, faults: u8) {
    let model = Handover { strategy, faults };
    let checker = model.checker().spawn_bfs().join();
    println!(
        "{strategy} with {faults} faults: {} states, at most {} steps long",
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
}

#[test]
fn every_order_of_events_with_three_faults_leaves_one_copy() {
    for strategy in MigrationStrategy::ALL {
        explore(strategy, 3);
    }
}

//! The source's end of a move: does what the coordinator decides, one thing after the other.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use mielin_mesh_core::limits::PAGE_BYTES;
use mielin_mesh_core::migration::{Move, QueryReply, SourceAction, SourceInput};
use mielin_mesh_core::{
    AgentId, Instant, MigrationCoordinator, MigrationFrame, MigrationPhase, MigrationStrategy,
    codec,
};

use super::Sabotage;
use super::node::{Entry, Node, Standing, Task};
use super::stream::Key;
use super::wire::{Event, Said, Tail};

/// How long the target may take to say what became of an agent.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// Pages in one frame.
const BATCH: usize = 64;
/// What a frame without pages takes on the link.
const FRAME_BYTES: u64 = 200;
/// A page and its index.
const PAGE_WEIGHT: u64 = PAGE_BYTES as u64 + 4;

/// What a move carries out now.
#[derive(Debug)]
struct Pending {
    token: u64,
    action: SourceAction,
    /// What is said when it is done.
    done: SourceInput,
}

/// What has come and is not dealt with.
#[derive(Debug)]
enum Queued {
    Frame(MigrationFrame),
    Input(SourceInput),
}

/// A move from here.
pub(super) struct Outbound {
    number: u64,
    pub(super) target: usize,
    coordinator: MigrationCoordinator,
    phase: MigrationPhase,
    /// The stream, and whether it can still be written to.
    stream: Key,
    writable: bool,
    pending: Option<Pending>,
    queued: VecDeque<Queued>,
    /// All of the memory was harvested once.
    harvested: bool,
    unsent: BTreeSet<u32>,
    /// Pages that follow and nobody has sent yet.
    following: Option<BTreeSet<u32>>,
    /// The stream on which the target is asked, while it is.
    query: Option<Key>,
    /// Its next action fails.
    fails: bool,
}

impl Outbound {
    pub(super) fn phase(&self) -> &MigrationPhase {
        &self.phase
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let waits = self.pending.as_ref().is_some_and(Pending::must_end);
        self.coordinator.poll_timeout().filter(|_| !waits)
    }
}

impl Pending {
    fn must_end(&self) -> bool {
        matches!(self.action, SourceAction::Query(_))
    }

    fn needs_stream(&self) -> bool {
        !matches!(self.action, SourceAction::Freeze | SourceAction::Harvest)
    }
}

impl Node {
    /// Begins to move an agent; false if that cannot be.
    pub(super) fn move_agent(
        &mut self,
        now: Instant,
        agent: AgentId,
        number: u64,
        target: usize,
        strategy: Option<MigrationStrategy>,
    ) -> bool {
        if !self.may_move(&agent) {
            return false;
        }
        let Some(it) = self.residents.get_mut(&agent) else {
            return false;
        };
        it.claimed = true;
        it.agent.dirty.clear();
        let memory_bytes = it.agent.memory.len() as u64 * PAGE_BYTES as u64;
        let plan = Move {
            strategy,
            module_bytes: 50_000,
            ..Move::new(agent, it.agent.epoch, [1; 32], memory_bytes)
        };
        let out = Outbound {
            number,
            target,
            coordinator: MigrationCoordinator::new(now, plan),
            phase: MigrationPhase::Planning,
            stream: self.streams.open(now, target),
            writable: true,
            pending: None,
            queued: VecDeque::new(),
            harvested: false,
            unsent: BTreeSet::new(),
            following: None,
            query: None,
            fails: false,
        };
        self.outbound.insert(agent, out);
        self.report_phase(agent);
        self.drive_source(now, agent);
        true
    }

    /// Somebody wants the agent to stay.
    pub(super) fn cancel(&mut self, now: Instant, agent: AgentId) {
        self.tell_source(now, agent, SourceInput::Cancelled);
    }

    /// The next thing that the source has to do fails.
    pub(super) fn fail_source(&mut self, agent: AgentId) {
        if let Some(out) = self.outbound.get_mut(&agent) {
            out.fails = true;
        }
    }

    /// Breaks the stream of a move.
    pub(super) fn break_move(&mut self, now: Instant, agent: AgentId) {
        if let Some(out) = self.outbound.get(&agent) {
            let stream = out.stream;
            self.streams.reset(stream);
            self.source_lost(now, stream);
        }
    }

    fn report_phase(&mut self, agent: AgentId) {
        if let Some(out) = self.outbound.get(&agent) {
            let (number, target, phase) = (out.number, out.target, out.phase.clone());
            self.report(Event::Phase {
                agent,
                number,
                target,
                phase,
            });
        }
    }

    fn note_phase(&mut self, agent: AgentId) {
        let Some(out) = self.outbound.get_mut(&agent) else {
            return;
        };
        if *out.coordinator.phase() != out.phase {
            out.phase = out.coordinator.phase().clone();
            self.report_phase(agent);
        }
    }

    /// Takes what happened, at once if nothing is being carried out.
    pub(super) fn tell_source(&mut self, now: Instant, agent: AgentId, input: SourceInput) {
        if let Some(out) = self.outbound.get_mut(&agent) {
            out.queued.push_back(Queued::Input(input));
            self.drive_source(now, agent);
        }
    }

    fn drive_source(&mut self, now: Instant, agent: AgentId) {
        loop {
            self.note_phase(agent);
            let Some(out) = self.outbound.get_mut(&agent) else {
                return;
            };
            if out.pending.is_some() {
                return;
            }
            if let Some(action) = out.coordinator.poll_action() {
                let input = self.act(now, agent, action);
                if let (Some(input), Some(out)) = (input, self.outbound.get_mut(&agent)) {
                    out.coordinator.handle(now, input);
                }
                continue;
            }
            if out.phase.is_final() {
                return self.end_outbound(now, agent);
            }
            match out.queued.pop_front() {
                // To whom it may go is written down while it still runs.
                Some(Queued::Frame(MigrationFrame::Prepared)) => {
                    let departure = Some((out.target, self.residents[&agent].agent.epoch.next()));
                    if let Some(entry) = self.disk.entries.get_mut(&agent) {
                        entry.departure = departure;
                    }
                    let done = SourceInput::Frame(MigrationFrame::Prepared);
                    let took = self.takes(500, 4_000);
                    self.carry_out(now, agent, SourceAction::SendModule, done, took);
                }
                Some(Queued::Frame(frame)) => {
                    out.coordinator.handle(now, SourceInput::Frame(frame));
                }
                Some(Queued::Input(input)) => out.coordinator.handle(now, input),
                None => return,
            }
        }
    }

    /// Carries an action out that takes so long.
    fn carry_out(
        &mut self,
        now: Instant,
        agent: AgentId,
        action: SourceAction,
        done: SourceInput,
        took: Duration,
    ) {
        let token = self.token();
        if let Some(out) = self.outbound.get_mut(&agent) {
            let fails = std::mem::take(&mut out.fails);
            let done = if fails && !matches!(action, SourceAction::Query(_)) {
                SourceInput::Failed("made to fail".to_owned())
            } else {
                done
            };
            out.pending = Some(Pending {
                token,
                action,
                done,
            });
            self.later(now, took, Task::SourceDone { agent, token });
        }
    }

    fn act(&mut self, now: Instant, agent: AgentId, action: SourceAction) -> Option<SourceInput> {
        let out = self.outbound.get_mut(&agent)?;
        // Whatever comes after it ends it.
        out.following = None;
        match action {
            SourceAction::Send(frame) => self.send_frame(now, agent, frame, Tail::Nothing, 0).err(),
            SourceAction::SendModule => {
                let sent =
                    self.send_frame(now, agent, MigrationFrame::Module, Tail::Nothing, 50_000);
                let done = SourceInput::ModuleSent { bytes: 50_000 };
                self.when_sent(now, agent, action, done, sent)
            }
            SourceAction::Harvest => {
                let took = self.takes(50, 800);
                // How many there are is seen when it is done.
                let done = SourceInput::Harvested { pages: 0 };
                self.carry_out(now, agent, action, done, took);
                None
            }
            SourceAction::Restrain { percent } => {
                let it = self.residents.get_mut(&agent)?;
                it.agent.write(now, &mut self.random);
                it.agent.share = 100 - u64::from(percent);
                None
            }
            SourceAction::SendPages => {
                let pages: Vec<u32> = std::mem::take(&mut out.unsent).into_iter().collect();
                let (count, bytes) = (pages.len() as u64, pages.len() as u64 * PAGE_WEIGHT);
                let sent = self.send_pages(now, agent, &pages);
                let pages = count;
                let done = SourceInput::PagesSent { pages, bytes };
                self.when_sent(now, agent, action, done, sent)
            }
            SourceAction::Freeze => {
                let took = self.takes(50, 5_000);
                self.carry_out(now, agent, action, SourceInput::Frozen, took);
                None
            }
            SourceAction::SendAbsent => {
                let pages: Vec<u32> = out.unsent.iter().copied().collect();
                let frame = MigrationFrame::Absent {
                    count: pages.len() as u32,
                };
                let sent = self.send_frame(now, agent, frame, Tail::Named(pages), 2_000);
                self.when_sent(now, agent, action, SourceInput::AbsentSent, sent)
            }
            SourceAction::SendState { epoch } => {
                let state = self.residents.get(&agent)?.agent.travelling();
                let frame = MigrationFrame::State { epoch };
                let sent = self.send_frame(now, agent, frame, Tail::State(state), 8_000);
                let done = SourceInput::StateSent { bytes: 8_000 };
                self.when_sent(now, agent, action, done, sent)
            }
            SourceAction::ServePages => {
                out.following = Some(std::mem::take(&mut out.unsent));
                self.later(now, Duration::ZERO, Task::Serve(agent));
                None
            }
            SourceAction::Query(query) => {
                let target = out.target;
                let stream = self.streams.open(now, target);
                let said = codec::encode(&Said::Query(query));
                self.streams.say(now, stream, FRAME_BYTES, said);
                self.outbound.get_mut(&agent)?.query = Some(stream);
                let done = SourceInput::QueryFailed;
                self.carry_out(now, agent, action, done, QUERY_TIMEOUT);
                None
            }
            SourceAction::Resume { epoch } => {
                self.resume(now, agent, epoch);
                None
            }
            SourceAction::Release => {
                self.release(agent);
                None
            }
        }
    }

    /// Waits until something has left.
    fn when_sent(
        &mut self,
        now: Instant,
        agent: AgentId,
        action: SourceAction,
        done: SourceInput,
        sent: Result<Instant, SourceInput>,
    ) -> Option<SourceInput> {
        match sent {
            Ok(left) => {
                self.carry_out(now, agent, action, done, left.since(now));
                None
            }
            Err(input) => Some(input),
        }
    }

    fn send_frame(
        &mut self,
        now: Instant,
        agent: AgentId,
        frame: MigrationFrame,
        tail: Tail,
        weight: u64,
    ) -> Result<Instant, SourceInput> {
        let lost = SourceInput::ConnectionLost;
        let out = self.outbound.get(&agent).ok_or(lost.clone())?;
        if !out.writable || !self.streams.is_open(out.stream) {
            return Err(lost);
        }
        let stream = out.stream;
        let said = codec::encode(&Said::Frame { frame, tail });
        Ok(self.streams.say(now, stream, FRAME_BYTES + weight, said))
    }

    /// Sends pages, those that are zero by name; gives when the last of them has left.
    fn send_pages(
        &mut self,
        now: Instant,
        agent: AgentId,
        pages: &[u32],
    ) -> Result<Instant, SourceInput> {
        let mut left = now;
        for batch in pages.chunks(BATCH) {
            let memory = self.residents.get(&agent).map(|it| &it.agent.memory);
            let read = |page: &u32| memory.and_then(|memory| memory.get(*page as usize).copied());
            let of = batch.iter().map(|page| (*page, read(page).unwrap_or(0)));
            let (full, zero): (Vec<_>, Vec<_>) = of.partition(|(_, value)| *value != 0);
            if !full.is_empty() {
                let weight = full.len() as u64 * PAGE_WEIGHT;
                let count = full.len() as u32;
                let frame = MigrationFrame::Pages { count };
                left = self.send_frame(now, agent, frame, Tail::Pages(full), weight)?;
            }
            if !zero.is_empty() {
                let zero: Vec<u32> = zero.into_iter().map(|(page, _)| page).collect();
                let count = zero.len() as u32;
                let frame = MigrationFrame::Zeros { count };
                left = self.send_frame(now, agent, frame, Tail::Named(zero), 0)?;
            }
        }
        Ok(left)
    }

    pub(super) fn source_done(&mut self, now: Instant, agent: AgentId, token: u64) {
        let Some(out) = self.outbound.get_mut(&agent) else {
            return;
        };
        let Some(pending) = out.pending.take_if(|pending| pending.token == token) else {
            return;
        };
        let Pending {
            action, mut done, ..
        } = pending;
        match (&action, &mut done) {
            (SourceAction::Harvest, SourceInput::Harvested { pages }) => {
                *pages = self.harvest(now, agent);
            }
            (SourceAction::Freeze, SourceInput::Frozen) => {
                if let Some(it) = self.residents.get_mut(&agent) {
                    it.agent.write(now, &mut self.random);
                    it.frozen = true;
                    self.report(Event::Stops { agent });
                }
            }
            (SourceAction::Query(_), _) => {
                let asked = out.query.take();
                if let Some(stream) = asked {
                    self.streams.reset(stream);
                }
                self.seek(now, agent);
                if self.common.sabotage == Some(Sabotage::ResumesWithoutAnswer)
                    && done == SourceInput::QueryFailed
                {
                    let last = mielin_mesh_core::Epoch(0);
                    done = SourceInput::Answered(QueryReply::NotHere { last });
                }
            }
            _ => {}
        }
        if let Some(out) = self.outbound.get_mut(&agent) {
            out.coordinator.handle(now, done);
        }
        self.drive_source(now, agent);
    }

    /// Adds what was written to what is to be sent.
    fn harvest(&mut self, now: Instant, agent: AgentId) -> u64 {
        let (Some(out), Some(it)) = (
            self.outbound.get_mut(&agent),
            self.residents.get_mut(&agent),
        ) else {
            return 0;
        };
        if !it.frozen {
            it.agent.write(now, &mut self.random);
        }
        if std::mem::replace(&mut out.harvested, true) {
            out.unsent.append(&mut it.agent.dirty);
        } else {
            it.agent.dirty.clear();
            let pages = (0..).zip(&it.agent.memory);
            let used = pages.filter(|(_, value)| **value != 0);
            out.unsent.extend(used.map(|(page, _)| page));
        }
        out.unsent.len() as u64
    }

    /// The target answered a question.
    pub(super) fn answered(&mut self, now: Instant, stream: Key, reply: QueryReply) {
        let asked = |out: &&mut Outbound| out.query == Some(stream);
        let Some(out) = self.outbound.values_mut().find(asked) else {
            return;
        };
        out.query = None;
        if let Some(pending) = &mut out.pending {
            pending.done = SourceInput::Answered(reply);
            if let SourceAction::Query(query) = pending.action {
                let (agent, token) = (query.agent, pending.token);
                self.source_done(now, agent, token);
            }
        }
    }

    /// Takes a frame of the target; false if the stream is of no move from here.
    pub(super) fn source_hears(
        &mut self,
        now: Instant,
        stream: Key,
        frame: &MigrationFrame,
    ) -> bool {
        let mut outbound = self.outbound.iter_mut();
        let Some((agent, out)) = outbound.find(|(_, out)| out.stream == stream) else {
            return false;
        };
        let agent = *agent;
        out.queued.push_back(Queued::Frame(frame.clone()));
        self.drive_source(now, agent);
        true
    }

    /// A stream is broken; false if it is of no move from here.
    pub(super) fn source_lost(&mut self, now: Instant, stream: Key) -> bool {
        let of = |out: &Outbound| out.stream == stream || out.query == Some(stream);
        let Some((agent, out)) = self.outbound.iter_mut().find(|(_, out)| of(out)) else {
            return false;
        };
        let agent = *agent;
        if out.query == Some(stream) {
            if let Some(token) = out.pending.as_ref().map(|pending| pending.token) {
                self.source_done(now, agent, token);
            }
            return true;
        }
        out.writable = false;
        out.queued
            .push_back(Queued::Input(SourceInput::ConnectionLost));
        if out.pending.as_ref().is_some_and(Pending::needs_stream)
            && !out.pending.as_ref().is_some_and(Pending::must_end)
        {
            out.pending = None;
            out.coordinator.handle(now, SourceInput::ConnectionLost);
        }
        self.drive_source(now, agent);
        true
    }

    /// Time passes for the moves of this node.
    pub(super) fn time_out_moves(&mut self, now: Instant) {
        let due = |(agent, out): (&AgentId, &Outbound)| {
            out.poll_timeout()
                .is_some_and(|at| at <= now)
                .then_some(*agent)
        };
        let due: Vec<AgentId> = self.outbound.iter().filter_map(due).collect();
        for agent in due {
            if let Some(out) = self.outbound.get_mut(&agent) {
                let interrupted = out.pending.take().is_some();
                out.coordinator.handle_timeout(now);
                if interrupted {
                    // A frame may have been cut in the middle.
                    out.writable = false;
                    let late = SourceInput::Failed("the time is up".to_owned());
                    out.coordinator.handle(now, late);
                    let stream = out.stream;
                    self.streams.finish(now, stream);
                }
            }
            self.drive_source(now, agent);
        }
        self.time_out_targets(now);
    }

    /// Pushes the next pages behind the agent.
    pub(super) fn serve(&mut self, now: Instant, agent: AgentId) {
        let Some(out) = self.outbound.get_mut(&agent) else {
            return;
        };
        let Some(left) = &mut out.following else {
            return;
        };
        let batch: Vec<u32> = left.iter().copied().take(BATCH).collect();
        for page in &batch {
            left.remove(page);
        }
        let pages = batch.len() as u64;
        if !batch.is_empty()
            && let Ok(sent) = self.send_pages(now, agent, &batch)
        {
            self.later(now, sent.since(now), Task::Serve(agent));
            self.served(now, agent, pages, pages * PAGE_WEIGHT);
        }
    }

    /// Sends a page that the agent waits for.
    pub(super) fn serve_wanted(&mut self, now: Instant, stream: Key, page: u32) {
        let mut outbound = self.outbound.iter_mut();
        let Some((agent, out)) = outbound.find(|(_, out)| out.stream == stream) else {
            return;
        };
        let agent = *agent;
        if let Some(left) = &mut out.following {
            let pages = u64::from(left.remove(&page));
            if self.send_pages(now, agent, &[page]).is_ok() {
                self.served(now, agent, pages, PAGE_WEIGHT);
            }
        }
    }

    fn served(&mut self, now: Instant, agent: AgentId, pages: u64, bytes: u64) {
        // It is no reason to interrupt what serves them.
        if let Some(out) = self.outbound.get_mut(&agent)
            && out.pending.is_none()
        {
            out.coordinator
                .handle(now, SourceInput::PagesServed { pages, bytes });
        }
    }

    fn resume(&mut self, now: Instant, agent: AgentId, epoch: mielin_mesh_core::Epoch) {
        let Some(it) = self.residents.get_mut(&agent) else {
            return;
        };
        let since = it.agent.epoch;
        let same = self.common.sabotage == Some(Sabotage::ResumesInTheTargetsEpoch);
        let epoch = if same { epoch.min(since.next()) } else { epoch };
        it.agent.epoch = epoch.max(since);
        let has = it.agent.has();
        if std::mem::take(&mut it.frozen) {
            it.agent.wake(now);
            let provisional = false;
            self.report(Event::Runs {
                agent,
                epoch,
                since,
                provisional,
                has,
            });
            self.report(Event::Opens { agent });
            let soon = self.takes(100, 20_000);
            self.later(now, soon, Task::Turn(agent));
        }
        if epoch > since {
            if let Some(Entry {
                record: Some(record),
                ..
            }) = self.disk.entries.get_mut(&agent)
            {
                record.epoch = epoch;
            }
            self.announce(now, agent);
        }
    }

    fn release(&mut self, agent: AgentId) {
        let Some(out) = self.outbound.get(&agent) else {
            return;
        };
        let Some(it) = self.residents.get(&agent) else {
            return;
        };
        let there = (out.target, it.agent.epoch.next());
        let record = self.registry.locate(&agent);
        let known = record.map(|it| (self.index(&it.record.node), it.record.epoch));
        let known = known.filter(|(node, epoch)| *node != self.number && *epoch > there.1);
        let (node, epoch) = known.unwrap_or(there);
        self.report(Event::Drops { agent });
        self.entomb(agent, node, epoch);
    }

    fn end_outbound(&mut self, now: Instant, agent: AgentId) {
        let Some(out) = self.outbound.remove(&agent) else {
            return;
        };
        self.streams.finish(now, out.stream);
        if let Some(it) = self.residents.get_mut(&agent)
            && it.standing == Standing::Kept
        {
            it.claimed = false;
            it.agent.share = 100;
            let took = self.takes(500, 4_000);
            self.later(now, took, Task::Stayed(agent));
        }
    }

    /// It is written down that the agent was not handed over.
    pub(super) fn stayed(&mut self, agent: AgentId) {
        if !self.outbound.contains_key(&agent)
            && let Some(entry) = self.disk.entries.get_mut(&agent)
        {
            entry.departure = None;
        }
    }
}

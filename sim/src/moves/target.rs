//! The target's end of a move: prepares, writes, starts, one thing after the other.

use std::collections::btree_map::Entry;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use mielin_mesh_core::migration::{Offer, TargetAction, TargetInput};
use mielin_mesh_core::{
    AgentId, Epoch, Instant, MigrationFrame, MigrationPhase, MigrationReceiver, codec,
};

use super::Sabotage;
use super::agent::{Agent, Travelling};
use super::node::{self, Node, Record, Resident, Standing, Task};
use super::stream::Key;
use super::wire::{Event, Said, Tail};

/// What a frame without pages takes on the link.
const FRAME_BYTES: u64 = 200;
/// How long a move waits for the end of an earlier one of the same agent, and how often it looks.
const EARLIER_LOOKS: u32 = 50;
const EARLIER_PAUSE: Duration = Duration::from_millis(100);
/// A running agent touches a page that is not there about so often.
const TOUCH: Duration = Duration::from_millis(3);

#[derive(Debug)]
struct Pending {
    token: u64,
    action: TargetAction,
    done: TargetInput,
}

/// What has come and is not dealt with.
#[derive(Debug)]
enum Queued {
    Frame(MigrationFrame, Tail),
    Input(TargetInput),
}

/// A move to here.
pub(super) struct Inbound {
    pub(super) from: usize,
    receiver: MigrationReceiver,
    phase: MigrationPhase,
    open: bool,
    pending: Option<Pending>,
    queued: VecDeque<Queued>,
    /// The tail of the frame that is being acted on.
    tail: Tail,
    /// It was let in: no other move of the agent is.
    entered: bool,
    looks: u32,
    /// What has come of the memory.
    memory: Vec<u32>,
    guest: Option<Agent>,
    /// The memory as it was at the source.
    frozen: Vec<u32>,
    absent: BTreeSet<u32>,
    /// Its next action fails.
    fails: bool,
}

impl Inbound {
    fn new(now: Instant, from: usize) -> Inbound {
        Inbound {
            from,
            receiver: MigrationReceiver::new(now),
            phase: MigrationPhase::Planning,
            open: true,
            pending: None,
            queued: VecDeque::new(),
            tail: Tail::Nothing,
            entered: false,
            looks: 0,
            memory: Vec::new(),
            guest: None,
            frozen: Vec::new(),
            absent: BTreeSet::new(),
            fails: false,
        }
    }

    pub(super) fn phase(&self) -> &MigrationPhase {
        &self.phase
    }

    pub(super) fn agent(&self) -> Option<AgentId> {
        self.receiver.agent().filter(|_| self.entered)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let is_idle = self.pending.is_none();
        self.receiver.poll_timeout().filter(|_| is_idle)
    }
}

impl Node {
    /// The next thing that the target has to do fails.
    pub(super) fn fail_target(&mut self, agent: AgentId) {
        let coming = self.inbound.values_mut();
        for inbound in coming.filter(|it| it.agent() == Some(agent)) {
            inbound.fails = true;
        }
    }

    pub(super) fn tell_targets_of(&mut self, now: Instant, agent: AgentId, input: &TargetInput) {
        let coming = self.inbound.iter();
        let coming = coming.filter(|(_, it)| it.agent() == Some(agent));
        let streams: Vec<Key> = coming.map(|(stream, _)| *stream).collect();
        for stream in streams {
            self.tell_target(now, stream, input.clone());
        }
    }

    pub(super) fn tell_target(&mut self, now: Instant, stream: Key, input: TargetInput) {
        if let Some(inbound) = self.inbound.get_mut(&stream) {
            inbound.queued.push_back(Queued::Input(input));
            self.drive_target(now, stream);
        }
    }

    /// Takes a frame of a source.
    pub(super) fn target_hears(
        &mut self,
        now: Instant,
        stream: Key,
        from: usize,
        frame: MigrationFrame,
        tail: Tail,
    ) {
        let begins = matches!(frame, MigrationFrame::Offer(_));
        let inbound = match self.inbound.entry(stream) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) if begins => new.insert(Inbound::new(now, from)),
            // A move that has ended here.
            Entry::Vacant(_) => return,
        };
        inbound.queued.push_back(Queued::Frame(frame, tail));
        self.drive_target(now, stream);
    }

    pub(super) fn target_lost(&mut self, now: Instant, stream: Key) {
        if let Some(inbound) = self.inbound.get_mut(&stream) {
            inbound.open = false;
            let lost = TargetInput::ConnectionLost;
            inbound.queued.push_back(Queued::Input(lost));
        }
        self.drive_target(now, stream);
    }

    pub(super) fn time_out_targets(&mut self, now: Instant) {
        let due = |(stream, it): (&Key, &Inbound)| {
            it.poll_timeout()
                .is_some_and(|at| at <= now)
                .then_some(*stream)
        };
        let due: Vec<Key> = self.inbound.iter().filter_map(due).collect();
        for stream in due {
            if let Some(inbound) = self.inbound.get_mut(&stream) {
                inbound.receiver.handle_timeout(now);
            }
            self.drive_target(now, stream);
        }
    }

    fn drive_target(&mut self, now: Instant, stream: Key) {
        loop {
            let Some(inbound) = self.inbound.get_mut(&stream) else {
                return;
            };
            if *inbound.receiver.phase() != inbound.phase {
                inbound.phase = inbound.receiver.phase().clone();
                if let Some(agent) = inbound.agent() {
                    let text = format!("at the target: {}", inbound.phase);
                    self.note(agent, text);
                }
                continue;
            }
            if inbound.pending.is_some() {
                return;
            }
            if let Some(action) = inbound.receiver.poll_action() {
                if let Some(input) = self.act_at_target(now, stream, action) {
                    self.heed_target(now, stream, input);
                }
                continue;
            }
            if inbound.phase.is_final() {
                self.inbound.remove(&stream);
                return self.streams.finish(now, stream);
            }
            match inbound.queued.pop_front() {
                Some(Queued::Frame(frame, tail)) => {
                    inbound.tail = tail;
                    self.heed_target(now, stream, TargetInput::Frame(frame));
                }
                Some(Queued::Input(input)) => self.heed_target(now, stream, input),
                None => return,
            }
        }
    }

    fn heed_target(&mut self, now: Instant, stream: Key, input: TargetInput) {
        if let Some(inbound) = self.inbound.get_mut(&stream) {
            inbound.receiver.handle(now, input, &mut self.arrivals);
        }
    }

    /// Carries an action out that takes between so many and so many microseconds.
    fn carry_out_at_target(
        &mut self,
        now: Instant,
        stream: Key,
        action: TargetAction,
        done: TargetInput,
        (from_us, to_us): (u64, u64),
    ) {
        let token = self.token();
        let took = self.takes(from_us, to_us);
        let Some(inbound) = self.inbound.get_mut(&stream) else {
            return;
        };
        let may_fail = matches!(
            action,
            TargetAction::Prepare
                | TargetAction::WritePages { .. }
                | TargetAction::NoteAbsent { .. }
                | TargetAction::Install { .. }
                | TargetAction::Secure { .. }
        );
        let done = if may_fail && std::mem::take(&mut inbound.fails) {
            TargetInput::Failed("made to fail".to_owned())
        } else {
            done
        };
        inbound.pending = Some(Pending {
            token,
            action,
            done,
        });
        self.later(now, took, Task::TargetDone { stream, token });
    }

    fn act_at_target(
        &mut self,
        now: Instant,
        stream: Key,
        action: TargetAction,
    ) -> Option<TargetInput> {
        let done = match &action {
            TargetAction::Send(frame) => return self.send_at_target(now, stream, frame.clone()),
            TargetAction::Discard(reason) => {
                let agent = self.inbound.get(&stream)?.agent();
                if let Some(agent) = agent {
                    self.note(agent, format!("discarded at the target: {reason}"));
                }
                return None;
            }
            TargetAction::Confirm { released: true } => {
                self.open(stream, true);
                let agent = self.inbound.get(&stream)?.agent()?;
                let took = self.takes(500, 8_000);
                self.later(now, took, Task::Settled(agent));
                return None;
            }
            TargetAction::Decide(_) => TargetInput::Refused("it does not want it".to_owned()),
            TargetAction::Prepare => TargetInput::Prepared,
            TargetAction::WritePages { .. } | TargetAction::WriteZeros { .. } => {
                TargetInput::PagesWritten
            }
            TargetAction::NoteAbsent { .. } => TargetInput::AbsentNoted,
            TargetAction::Install { .. } => TargetInput::Installed,
            TargetAction::Start { .. } => TargetInput::Started,
            TargetAction::Secure { .. } => TargetInput::Secured,
            TargetAction::Undo(_) => TargetInput::Undone,
            // Nothing is said about it; only what comes behind it waits.
            TargetAction::Confirm { released: false } => TargetInput::PageCame,
        };
        let time_us = match &action {
            TargetAction::Prepare => (500, 30_000),
            TargetAction::Secure { .. } | TargetAction::Confirm { .. } => (500, 8_000),
            TargetAction::Undo(_) => (100, 5_000),
            _ => (20, 500),
        };
        if let TargetAction::Secure { epoch } = action
            && self.chance(50.0)
        {
            // It is on the disk before anybody knows.
            self.secure(stream, epoch);
        }
        self.carry_out_at_target(now, stream, action, done, time_us);
        None
    }

    fn send_at_target(
        &mut self,
        now: Instant,
        stream: Key,
        frame: MigrationFrame,
    ) -> Option<TargetInput> {
        let secured = matches!(frame, MigrationFrame::Secured { .. });
        let sent = self.inbound.get(&stream)?.open && self.streams.is_open(stream);
        if sent {
            let tail = Tail::Nothing;
            let said = codec::encode(&Said::Frame { frame, tail });
            self.streams.say(now, stream, FRAME_BYTES, said);
        }
        if secured {
            // The source was told, as far as it can be.
            let agent = self.inbound.get(&stream)?.agent()?;
            if self.residents.contains_key(&agent) {
                self.announce(now, agent);
            }
        }
        (!sent).then_some(TargetInput::ConnectionLost)
    }

    pub(super) fn target_done(&mut self, now: Instant, stream: Key, token: u64) {
        let Some(inbound) = self.inbound.get_mut(&stream) else {
            return;
        };
        let Some(pending) = inbound.pending.take_if(|pending| pending.token == token) else {
            return;
        };
        let Pending { action, done, .. } = pending;
        let failed = matches!(done, TargetInput::Failed(_));
        let input = match action {
            TargetAction::Decide(offer) => match self.decide(now, stream, &offer) {
                Some(input) => input,
                None => {
                    // It is looked at again.
                    let token = self.token();
                    if let Some(inbound) = self.inbound.get_mut(&stream) {
                        let action = TargetAction::Decide(offer);
                        inbound.pending = Some(Pending {
                            token,
                            action,
                            done,
                        });
                    }
                    self.later(now, EARLIER_PAUSE, Task::TargetDone { stream, token });
                    return;
                }
            },
            _ if failed => done,
            TargetAction::WritePages { .. } | TargetAction::WriteZeros { .. } => {
                self.place_pages(now, stream)
            }
            TargetAction::NoteAbsent { .. } => {
                if let Some(inbound) = self.inbound.get_mut(&stream)
                    && let Tail::Named(pages) = &inbound.tail
                {
                    inbound.absent = pages.iter().copied().collect();
                }
                done
            }
            TargetAction::Install { epoch } => self.install(stream, epoch).unwrap_or(done),
            TargetAction::Start { epoch } => {
                self.run_guest(now, stream, epoch);
                done
            }
            TargetAction::Secure { epoch } => {
                self.secure(stream, epoch);
                self.keep(stream);
                done
            }
            TargetAction::Undo(_) => {
                self.undo(stream);
                done
            }
            TargetAction::Confirm { .. } => {
                self.open(stream, false);
                return self.drive_target(now, stream);
            }
            TargetAction::Prepare | TargetAction::Send(_) | TargetAction::Discard(_) => done,
        };
        self.heed_target(now, stream, input);
        self.drive_target(now, stream);
    }

    /// Whether the agent is welcome; nothing if that is not known yet.
    fn decide(&mut self, now: Instant, stream: Key, offer: &Offer) -> Option<TargetInput> {
        let agent = offer.agent;
        let refused = |why: &str| Some(TargetInput::Refused(why.to_owned()));
        if let Some(it) = self.residents.get(&agent)
            && (matches!(it.standing, Standing::Kept | Standing::Provisional)
                || it.agent.epoch > offer.epoch)
        {
            return refused("it is on this node already");
        }
        if self.chance(self.common.timing.refused_percent) {
            return refused("there is no room");
        }
        let mut others = self.inbound.iter();
        let is_earlier = others.any(|(key, it)| *key != stream && it.agent() == Some(agent));
        let inbound = self.inbound.get_mut(&stream)?;
        inbound.looks += 1;
        if is_earlier {
            if inbound.looks > EARLIER_LOOKS {
                return refused("it is on its way here already");
            }
            // Its source has given the earlier one up, or would not make another.
            self.tell_targets_of(now, agent, &TargetInput::Queried);
            return None;
        }
        inbound.entered = true;
        let follows = self.common.timing.follows_percent;
        let need_module = self.chance(50.0);
        let post_copy = self.chance(follows);
        Some(TargetInput::Accepted {
            need_module,
            post_copy,
        })
    }

    /// Writes the pages of a frame; says what came of it.
    fn place_pages(&mut self, now: Instant, stream: Key) -> TargetInput {
        let gone = TargetInput::Failed("the move is over".to_owned());
        let Some(inbound) = self.inbound.get_mut(&stream) else {
            return gone;
        };
        let pages: Vec<(u32, u32)> = match std::mem::replace(&mut inbound.tail, Tail::Nothing) {
            Tail::Pages(pages) => pages,
            Tail::Named(pages) => pages.into_iter().map(|page| (page, 0)).collect(),
            Tail::Nothing | Tail::State(_) => Vec::new(),
        };
        let agent = inbound.agent();
        if inbound.frozen.is_empty() {
            for (page, value) in pages {
                let index = page as usize;
                if inbound.memory.len() <= index {
                    inbound.memory.resize(index + 1, 0);
                }
                let is_lost = self.common.sabotage == Some(Sabotage::LosesPages) && value == 99;
                inbound.memory[index] = if is_lost { 0 } else { value };
            }
            return TargetInput::PagesWritten;
        }
        let (Some(agent), mut torn) = (agent, Vec::new()) else {
            return gone;
        };
        if let Some(it) = self.residents.get_mut(&agent) {
            for (page, value) in pages {
                if inbound.absent.remove(&page) {
                    let index = page as usize;
                    if inbound.frozen.get(index) != Some(&value) {
                        torn.push(page);
                    }
                    if let Some(place) = it.agent.memory.get_mut(index) {
                        *place = value;
                    }
                }
            }
            if inbound.absent.is_empty() {
                it.agent.wake(now);
            }
        }
        let is_whole = inbound.absent.is_empty();
        for page in torn {
            self.report(Event::Torn { agent, page });
        }
        if is_whole {
            TargetInput::Resident
        } else {
            TargetInput::PageCame
        }
    }

    fn install(&mut self, stream: Key, epoch: Epoch) -> Option<TargetInput> {
        let inbound = self.inbound.get_mut(&stream)?;
        let agent = inbound.agent()?;
        let Tail::State(state) = std::mem::replace(&mut inbound.tail, Tail::Nothing) else {
            return Some(TargetInput::Failed("there is no state".to_owned()));
        };
        let mut memory = std::mem::take(&mut inbound.memory);
        memory.resize(state.memory.len(), 0);
        let torn: Vec<u32> = Inbound::torn(&state, &memory, &inbound.absent);
        inbound.frozen.clone_from(&state.memory);
        match Agent::arrived(agent, epoch, &state, memory) {
            Ok(guest) => inbound.guest = Some(guest),
            Err(error) => return Some(TargetInput::Failed(error.to_string())),
        }
        for page in torn {
            self.report(Event::Torn { agent, page });
        }
        None
    }

    fn run_guest(&mut self, now: Instant, stream: Key, epoch: Epoch) {
        let Some(inbound) = self.inbound.get_mut(&stream) else {
            return;
        };
        let Some(mut agent) = inbound.guest.take() else {
            return;
        };
        if !inbound.absent.is_empty() {
            self.later(now, TOUCH, Task::Touch { stream });
        }
        agent.wake(now);
        let (id, since, has) = (agent.id, agent.since, agent.has());
        self.left.remove(&id);
        let resident = Resident {
            agent,
            copy: self.token(),
            standing: Standing::Provisional,
            frozen: false,
            withheld: true,
            claimed: true,
        };
        self.residents.insert(id, resident);
        self.report(Event::Runs {
            agent: id,
            epoch,
            since,
            provisional: true,
            has,
        });
        let soon = self.takes(100, 20_000);
        self.later(now, soon, Task::Turn(id));
    }

    /// The agent touches a page that is not there, and waits for it.
    pub(super) fn touch(&mut self, now: Instant, stream: Key) {
        let Some(inbound) = self.inbound.get(&stream) else {
            return;
        };
        let Some(page) = inbound.absent.first().copied() else {
            return;
        };
        if inbound.open && self.streams.is_open(stream) {
            let wanted = codec::encode(&Said::Wanted(page));
            self.streams.say(now, stream, FRAME_BYTES, wanted);
            self.later(now, TOUCH * 10, Task::Touch { stream });
        }
    }

    /// Writes down that the agent is here.
    fn secure(&mut self, stream: Key, epoch: Epoch) {
        if self.common.sabotage == Some(Sabotage::DropsTheNote) {
            return;
        }
        let agent = self.inbound.get(&stream).and_then(Inbound::agent);
        let Some(agent) = agent.filter(|agent| self.residents.contains_key(agent)) else {
            return;
        };
        let settled = false;
        let record = Some(Record { epoch, settled });
        let departure = None;
        self.disk
            .entries
            .insert(agent, node::Entry { record, departure });
    }

    fn keep(&mut self, stream: Key) {
        let Some(agent) = self.inbound.get(&stream).and_then(Inbound::agent) else {
            return;
        };
        if let Some(it) = self.residents.get_mut(&agent) {
            it.standing = Standing::Kept;
            it.claimed = false;
            self.report(Event::Keeps { agent });
        }
    }

    fn undo(&mut self, stream: Key) {
        let Some(agent) = self.inbound.get(&stream).and_then(Inbound::agent) else {
            return;
        };
        if self.residents.remove(&agent).is_some() {
            self.report(Event::Drops { agent });
        }
        self.forget(&agent);
    }

    /// Lets messages and acknowledgements out.
    fn open(&mut self, stream: Key, released: bool) {
        let Some(agent) = self.inbound.get(&stream).and_then(Inbound::agent) else {
            return;
        };
        let Some(it) = self.residents.get_mut(&agent) else {
            return;
        };
        it.withheld = false;
        let epoch = it.agent.epoch;
        if !released {
            self.settle(agent);
            if self.common.sabotage != Some(Sabotage::DropsTheNote)
                && self.common.sabotage != Some(Sabotage::ForgetsWhoWasHere)
            {
                self.disk.owed.insert(agent, epoch);
            }
        }
        self.report(Event::Opens { agent });
    }
}

impl Inbound {
    /// Pages that should be there and are not what they were at the source.
    fn torn(state: &Travelling, memory: &[u32], absent: &BTreeSet<u32>) -> Vec<u32> {
        let pages = (0_u32..).zip(state.memory.iter().zip(memory));
        let differ = pages.filter(|(page, (there, here))| there != here && !absent.contains(page));
        differ.map(|(page, _)| page).collect()
    }
}

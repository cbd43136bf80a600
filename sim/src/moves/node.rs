//! A node: agents, what is on its disk, both ends of moves, and the way of messages.
//!
//! It does what `mielin-cells` does around the cores, with time for each thing it does: one action or frame of a move
//! after the other, and what may interrupt it does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use mielin_mesh_core::migration::{Arrivals, Query, QueryReply, SourceInput, TargetInput};
use mielin_mesh_core::{
    AgentId, AgentRegistry, AgentState, Epoch, Instant, LocationRecord, Name, NodeId,
    RegistryEvent, codec,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::agent::Agent;
use super::post::Exchange;
use super::source::Outbound;
use super::stream::{Key, StreamEvent, Streams};
use super::target::Inbound;
use super::wire::{Datagram, Event, Said};
use super::{Sabotage, Timing};
use crate::world::Core;

/// Nodes that keep an agent's record, in place of the table's nearest three.
const KEEPERS: usize = 3;
/// A holder says so often where its agents are: what was lost is said again.
const PUBLISH: Duration = Duration::from_secs(10);
/// How often a node asks that was killed while it handed an agent over.
const FOLLOW_UP: Duration = Duration::from_secs(5);
/// From an agent to another on the same node.
const LOCAL: Duration = Duration::from_micros(50);

/// What all nodes of a run have in common.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) ids: Vec<NodeId>,
    pub(super) numbers: BTreeMap<NodeId, usize>,
    pub(super) timing: Timing,
    pub(super) sabotage: Option<Sabotage>,
    /// The name of all agents in their records.
    pub(super) name: Name,
    pub(super) seed: u64,
}

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) entries: BTreeMap<AgentId, Entry>,
    /// Agents whose former sources are told for ever that they were here, and in which epoch.
    pub(super) owed: BTreeMap<AgentId, Epoch>,
}

/// What is written down of an agent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    pub(super) record: Option<Record>,
    /// To whom it may have been handed over, and in which epoch.
    pub(super) departure: Option<(usize, Epoch)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) epoch: Epoch,
    /// Its source has let go of it, or is answered as if it had.
    pub(super) settled: bool,
}

/// An agent that is here.
#[derive(Debug)]
pub(super) struct Resident {
    pub(super) agent: Agent,
    /// Tells it from copies of the agent that were here before.
    pub(super) copy: u64,
    pub(super) standing: Standing,
    /// Stands still for a move.
    pub(super) frozen: bool,
    /// Nothing comes in or goes out until its source is known to have let go of it.
    pub(super) withheld: bool,
    /// A move has it.
    pub(super) claimed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// May have to be given back.
    Provisional,
    /// This node's.
    Kept,
    /// Went down with a former life of the node.
    Ended,
    /// The same, but it may live elsewhere, which is asked.
    Missing,
}

/// What is to be done later.
#[derive(Clone, Debug)]
pub(super) enum Task {
    /// An action of a move is done.
    SourceDone {
        agent: AgentId,
        token: u64,
    },
    TargetDone {
        stream: Key,
        token: u64,
    },
    /// Pages are pushed behind an agent.
    Serve(AgentId),
    /// A running agent touches a page that is not there.
    Touch {
        stream: Key,
    },
    /// An agent deals with its messages.
    Turn(AgentId),
    /// An exchange was not answered.
    Unanswered(u64),
    /// What a node says to itself meets no network.
    Local(Vec<u8>),
    Publish,
    FollowUp(AgentId),
    /// That an agent stays was written.
    Settled(AgentId),
    /// That an agent was not handed over was written.
    Stayed(AgentId),
}

pub(super) struct Node {
    pub(super) number: usize,
    pub(super) common: Rc<Common>,
    pub(super) random: StdRng,
    pub(super) disk: Disk,
    pub(super) streams: Streams,
    pub(super) residents: BTreeMap<AgentId, Resident>,
    /// Where agents went that were here.
    pub(super) left: BTreeMap<AgentId, (usize, Epoch)>,
    /// Where others said that agents went.
    pub(super) hints: BTreeMap<AgentId, (usize, Epoch)>,
    pub(super) arrivals: Arrivals,
    /// Agents that were here before a crash, and of which their sources may not have let go.
    pub(super) unsettled: BTreeSet<AgentId>,
    pub(super) registry: AgentRegistry,
    pub(super) outbound: BTreeMap<AgentId, Outbound>,
    pub(super) inbound: BTreeMap<Key, Inbound>,
    /// Questions about agents that were handed over before a crash.
    pub(super) follow_ups: BTreeMap<Key, AgentId>,
    pub(super) exchanges: BTreeMap<u64, Exchange>,
    /// When it was last asked where an agent is.
    pub(super) sought: BTreeMap<AgentId, Instant>,
    timers: BTreeMap<(Instant, u64), Task>,
    counter: u64,
    transmits: VecDeque<(usize, Vec<u8>)>,
    events: VecDeque<Event>,
}

impl Node {
    /// A node that has what is on the disk, which is nothing at first.
    pub(super) fn start(
        number: usize,
        life: u32,
        common: Rc<Common>,
        disk: Disk,
        now: Instant,
    ) -> Node {
        let seed = common.seed ^ ((number as u64) << 32) ^ u64::from(life);
        let bandwidth = common.timing.bandwidth;
        let mut node = Node {
            number,
            random: StdRng::seed_from_u64(seed),
            streams: Streams::new(number, life, bandwidth),
            residents: BTreeMap::new(),
            left: BTreeMap::new(),
            hints: BTreeMap::new(),
            arrivals: Arrivals::new(),
            unsettled: BTreeSet::new(),
            registry: AgentRegistry::new(common.ids[number]),
            outbound: BTreeMap::new(),
            inbound: BTreeMap::new(),
            follow_ups: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            sought: BTreeMap::new(),
            timers: BTreeMap::new(),
            // Exchanges of former lives have other numbers.
            counter: u64::from(life) << 40,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            disk,
            common,
        };
        node.recall(now);
        node.later(now, PUBLISH, Task::Publish);
        node
    }

    /// What was known of agents before a crash: see `persist` of `mielin-cells`.
    fn recall(&mut self, now: Instant) {
        for (agent, epoch) in self.disk.owed.clone() {
            self.arrivals.secure(agent, epoch);
        }
        for (agent, entry) in self.disk.entries.clone() {
            let Some(record) = entry.record else {
                self.disk.entries.remove(&agent);
                continue;
            };
            if record.settled {
                self.arrivals.secure(agent, record.epoch);
            }
            let standing = if !record.settled {
                self.unsettled.insert(agent);
                Standing::Missing
            } else if entry.departure.is_some() {
                self.later(now, Duration::ZERO, Task::FollowUp(agent));
                Standing::Missing
            } else {
                Standing::Ended
            };
            let mut gone = Agent::new(agent, 0, super::agent::Habits { hot: 0, rate: 0 }, now);
            gone.epoch = record.epoch;
            let copy = self.token();
            self.residents.insert(
                agent,
                Resident {
                    agent: gone,
                    copy,
                    standing,
                    frozen: false,
                    withheld: false,
                    claimed: false,
                },
            );
        }
    }

    /// Has a new agent.
    pub(super) fn spawn(&mut self, now: Instant, agent: Agent) {
        let (id, epoch) = (agent.id, agent.epoch);
        let settled = true;
        let record = Some(Record { epoch, settled });
        let departure = None;
        self.disk.entries.insert(id, Entry { record, departure });
        self.report(Event::Runs {
            agent: id,
            epoch,
            since: epoch,
            provisional: false,
            has: Vec::new(),
        });
        let copy = self.token();
        self.residents.insert(
            id,
            Resident {
                agent,
                copy,
                standing: Standing::Kept,
                frozen: false,
                withheld: false,
                claimed: false,
            },
        );
        self.report(Event::Opens { agent: id });
        self.announce(now, id);
    }

    pub(super) fn index(&self, node: &NodeId) -> usize {
        self.common.numbers.get(node).copied().unwrap_or(usize::MAX)
    }

    /// Whether a move of the agent can begin here.
    pub(super) fn may_move(&self, agent: &AgentId) -> bool {
        let eager = self.common.sabotage == Some(Sabotage::MovesOnBeforeItIsSettled);
        self.residents.get(agent).is_some_and(|it| {
            it.standing == Standing::Kept && !it.claimed && (!it.withheld || eager)
        })
    }

    /// What is still under way here, for the end of a run.
    pub(super) fn unfinished(&self) -> Vec<(AgentId, String)> {
        let mut unfinished = Vec::new();
        for (agent, out) in &self.outbound {
            unfinished.push((*agent, format!("a move from here is {}", out.phase())));
        }
        for inbound in self.inbound.values() {
            if let Some(agent) = inbound.agent() {
                unfinished.push((agent, format!("a move to here is {}", inbound.phase())));
            }
        }
        for (agent, it) in &self.residents {
            if it.standing == Standing::Kept && (it.frozen || it.withheld) {
                unfinished.push((*agent, "it is kept back".to_owned()));
            }
        }
        unfinished
    }

    pub(super) fn later(&mut self, now: Instant, after: Duration, task: Task) {
        self.counter += 1;
        self.timers.insert((now + after, self.counter), task);
    }

    pub(super) fn token(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// A time between the two.
    pub(super) fn takes(&mut self, from_us: u64, to_us: u64) -> Duration {
        Duration::from_micros(self.random.random_range(from_us..=to_us))
    }

    pub(super) fn chance(&mut self, percent: f64) -> bool {
        percent > 0.0 && self.random.random_range(0.0..100.0) < percent
    }

    pub(super) fn send(&mut self, to: usize, datagram: &Datagram) {
        self.transmits.push_back((to, codec::encode(datagram)));
    }

    /// What is for this node itself comes back to it.
    pub(super) fn turn_round(&mut self, now: Instant) {
        let number = self.number;
        let (own, others) = std::mem::take(&mut self.transmits)
            .into_iter()
            .partition::<VecDeque<_>, _>(|(to, _)| *to == number);
        self.transmits = others;
        for (_, bytes) in own {
            self.later(now, LOCAL, Task::Local(bytes));
        }
    }

    pub(super) fn report(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(super) fn note(&mut self, agent: AgentId, text: impl Into<String>) {
        let text = text.into();
        self.report(Event::Note { agent, text });
    }

    // What is on the disk.

    pub(super) fn forget(&mut self, agent: &AgentId) {
        self.disk.entries.remove(agent);
        if self.common.sabotage == Some(Sabotage::ForgetsWhoWasHere) {
            self.disk.owed.remove(agent);
        }
    }

    /// Writes down that an agent stays, whatever its source asks.
    pub(super) fn settle(&mut self, agent: AgentId) {
        if self.common.sabotage == Some(Sabotage::DropsTheNote) {
            return;
        }
        let here = self.residents.get(&agent).map(|it| it.agent.epoch);
        if let (Some(epoch), Some(entry)) = (here, self.disk.entries.get_mut(&agent))
            && let Some(record) = &mut entry.record
        {
            record.settled = true;
            record.epoch = record.epoch.max(epoch);
        }
    }

    // Where agents are.

    fn keepers(&self, agent: &AgentId) -> Vec<usize> {
        let count = self.common.ids.len();
        let first = usize::from(agent.0[0]) << 8 | usize::from(agent.0[1]);
        (0..KEEPERS.min(count))
            .map(|n| (first + n) % count)
            .collect()
    }

    pub(super) fn announce(&mut self, now: Instant, agent: AgentId) {
        let Some(it) = self.residents.get(&agent) else {
            return;
        };
        let record = LocationRecord {
            agent,
            name: self.common.name.clone(),
            module: [0; 32],
            owner: self.common.ids[0],
            started_ms: 0,
            node: self.common.ids[self.number],
            epoch: it.agent.epoch,
            revision: 1,
            state: AgentState::Running,
        };
        let epoch = record.epoch;
        if let Err(error) = self.registry.announce(now, record) {
            return self.note(agent, format!("it cannot be announced: {error}"));
        }
        self.report(Event::Announced { agent, epoch });
        self.publish(agent);
        self.heed_registry(now);
    }

    fn publish(&mut self, agent: AgentId) {
        let Some(location) = self.registry.locate(&agent) else {
            return;
        };
        let record = location.record.clone();
        for keeper in self.keepers(&agent) {
            if keeper != self.number {
                self.send(keeper, &Datagram::Record(record.clone()));
            }
        }
    }

    /// Asks who keeps its record where an agent is, not more than twice a second.
    pub(super) fn seek(&mut self, now: Instant, agent: AgentId) {
        let pause = Duration::from_millis(500);
        if self.sought.get(&agent).is_some_and(|at| *at + pause > now) {
            return;
        }
        self.sought.insert(agent, now);
        for keeper in self.keepers(&agent) {
            if keeper != self.number {
                self.send(keeper, &Datagram::Where(agent));
            }
        }
    }

    fn heed_registry(&mut self, now: Instant) {
        while let Some(event) = self.registry.poll_event() {
            let record = match event {
                RegistryEvent::LocationChanged(location) => location.record,
                RegistryEvent::Fenced { by, .. } => by,
                RegistryEvent::LocationExpired(_) => continue,
            };
            let (agent, epoch) = (record.agent, record.epoch);
            for it in self.residents.values_mut() {
                it.agent.outbox.relocated(&agent);
            }
            let Some(it) = self.residents.get(&agent) else {
                continue;
            };
            let node = self.index(&record.node);
            if node == self.number || epoch <= it.agent.epoch {
                continue;
            }
            match it.standing {
                Standing::Missing | Standing::Ended => self.entomb(agent, node, epoch),
                Standing::Kept if it.claimed => {
                    let input = SourceInput::Superseded { epoch };
                    self.tell_source(now, agent, input);
                }
                Standing::Kept => {
                    self.note(agent, "it is fenced");
                    self.report(Event::Drops { agent });
                    self.entomb(agent, node, epoch);
                }
                Standing::Provisional => {}
            }
        }
    }

    /// An agent that was here is elsewhere.
    pub(super) fn entomb(&mut self, agent: AgentId, node: usize, epoch: Epoch) {
        self.registry.release(&agent);
        self.residents.remove(&agent);
        self.unsettled.remove(&agent);
        self.left.insert(agent, (node, epoch));
        self.forget(&agent);
    }

    // Questions about agents that were handed over.

    /// What a source in doubt is told.
    pub(super) fn answer(&mut self, now: Instant, query: Query) -> QueryReply {
        let reply = self.arrivals.answer(query);
        let is_given_back = matches!(reply, QueryReply::NotHere { .. });
        if is_given_back && self.unsettled.remove(&query.agent) {
            self.residents.remove(&query.agent);
            self.forget(&query.agent);
        }
        self.note(query.agent, format!("a source is told {reply:?}"));
        self.tell_targets_of(now, query.agent, &TargetInput::Queried);
        reply
    }

    fn follow_up(&mut self, now: Instant, agent: AgentId) {
        let Some(Entry {
            departure: Some((target, epoch)),
            ..
        }) = self.disk.entries.get(&agent).copied()
        else {
            return;
        };
        let is_open = self.follow_ups.values().any(|asked| *asked == agent);
        if !is_open {
            let stream = self.streams.open(now, target);
            let query = Said::Query(Query { agent, epoch });
            self.streams.say(now, stream, 100, codec::encode(&query));
            self.follow_ups.insert(stream, agent);
        }
        self.later(now, FOLLOW_UP, Task::FollowUp(agent));
    }

    fn followed_up(&mut self, agent: AgentId, reply: QueryReply) {
        let departure = self.disk.entries.get(&agent).and_then(|it| it.departure);
        let Some((target, _)) = departure else { return };
        // It may have come back meanwhile.
        let standing = self.residents.get(&agent).map(|it| it.standing);
        if standing != Some(Standing::Missing) {
            return;
        }
        self.note(agent, format!("after the crash it is {reply:?}"));
        match reply {
            QueryReply::Running { epoch } => self.entomb(agent, target, epoch),
            QueryReply::NotHere { .. } => {
                if let Some(entry) = self.disk.entries.get_mut(&agent) {
                    entry.departure = None;
                }
                if let Some(it) = self.residents.get_mut(&agent) {
                    it.standing = Standing::Ended;
                }
            }
            QueryReply::Unsettled => {}
        }
    }

    /// Membership takes another node for dead.
    pub(super) fn hear_of_death(&mut self, now: Instant, of: usize) {
        let out = self.outbound.iter().filter(|(_, out)| out.target == of);
        let agents: Vec<AgentId> = out.map(|(agent, _)| *agent).collect();
        for agent in agents {
            self.tell_source(now, agent, SourceInput::TargetDead);
        }
        let coming = self.inbound.iter().filter(|(_, it)| it.from == of);
        let streams: Vec<Key> = coming.map(|(stream, _)| *stream).collect();
        for stream in streams {
            self.tell_target(now, stream, TargetInput::SourceDead);
        }
    }

    fn heed_streams(&mut self, now: Instant) {
        while let Some(event) = self.streams.poll_event() {
            match event {
                StreamEvent::Said {
                    stream,
                    peer,
                    bytes,
                } => {
                    if let Ok(said) = codec::decode::<Said>(&bytes) {
                        self.heed_said(now, stream, peer, said);
                    }
                }
                StreamEvent::Closed { stream } => {
                    if self.follow_ups.remove(&stream).is_none()
                        && !self.source_lost(now, stream)
                        && self.inbound.contains_key(&stream)
                    {
                        self.target_lost(now, stream);
                    }
                    self.streams.finish(now, stream);
                }
            }
        }
    }

    fn heed_said(&mut self, now: Instant, stream: Key, peer: usize, said: Said) {
        match said {
            Said::Query(query) => {
                if self.common.sabotage == Some(Sabotage::NeverAnswers) {
                    return;
                }
                let reply = Said::Reply(self.answer(now, query));
                self.streams.say(now, stream, 100, codec::encode(&reply));
                self.streams.finish(now, stream);
            }
            Said::Reply(reply) => {
                if let Some(agent) = self.follow_ups.remove(&stream) {
                    self.followed_up(agent, reply);
                } else {
                    self.answered(now, stream, reply);
                }
                self.streams.finish(now, stream);
            }
            Said::Wanted(page) => self.serve_wanted(now, stream, page),
            Said::Frame { frame, tail } => {
                if !self.source_hears(now, stream, &frame) {
                    self.target_hears(now, stream, peer, frame, tail);
                }
            }
        }
    }

    fn perform(&mut self, now: Instant, task: Task) {
        match task {
            Task::Local(bytes) => self.receive(now, self.number, &bytes),
            Task::SourceDone { agent, token } => self.source_done(now, agent, token),
            Task::TargetDone { stream, token } => self.target_done(now, stream, token),
            Task::Serve(agent) => self.serve(now, agent),
            Task::Touch { stream } => self.touch(now, stream),
            Task::Turn(agent) => self.turn(now, agent),
            Task::Unanswered(number) => self.unanswered(now, number),
            Task::FollowUp(agent) => self.follow_up(now, agent),
            Task::Settled(agent) => self.settle(agent),
            Task::Stayed(agent) => self.stayed(agent),
            Task::Publish => {
                let kept = self.residents.iter();
                let kept = kept.filter(|(_, it)| it.standing == Standing::Kept);
                let agents: Vec<AgentId> = kept.map(|(agent, _)| *agent).collect();
                for agent in agents {
                    let is_ours = |location: &mielin_mesh_core::Location| {
                        location.record.node == self.common.ids[self.number]
                    };
                    if self.registry.locate(&agent).is_some_and(is_ours) {
                        self.publish(agent);
                    }
                }
                self.later(now, PUBLISH, Task::Publish);
            }
        }
    }
}

impl Core for Node {
    type Event = Event;

    fn receive(&mut self, now: Instant, from: usize, bytes: &[u8]) {
        let Ok(datagram) = codec::decode::<Datagram>(bytes) else {
            return;
        };
        match datagram {
            Datagram::Stream(packet) => {
                self.streams.receive(now, from, packet);
                self.heed_streams(now);
            }
            Datagram::Post(envelope) => self.posted(now, from, envelope),
            Datagram::Answer {
                source,
                destination,
                reply,
            } => self.replied(now, from, source, destination, reply),
            Datagram::Exchange {
                number,
                destination,
                envelopes,
            } => {
                let reply = self.deliver(now, destination, envelopes);
                self.send(from, &Datagram::Exchanged { number, reply });
            }
            Datagram::Exchanged { number, reply } => self.exchanged(now, number, reply),
            Datagram::Where(agent) => {
                if let Some(location) = self.registry.locate(&agent) {
                    let record = location.record.clone();
                    self.send(from, &Datagram::Record(record));
                }
            }
            Datagram::Record(record) => {
                self.registry.learn(now, record);
                self.heed_registry(now);
            }
        }
        self.post_all(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let task = entry.remove();
            self.perform(now, task);
        }
        self.streams.handle_timeout(now);
        self.heed_streams(now);
        self.time_out_moves(now);
        self.registry.handle_timeout(now);
        self.heed_registry(now);
        self.post_all(now);
    }

    fn poll_timeout(&self, _: Instant) -> Option<Instant> {
        let timer = self.timers.keys().next().map(|(at, _)| *at);
        let sources = self.outbound.values().filter_map(Outbound::poll_timeout);
        let targets = self.inbound.values().filter_map(Inbound::poll_timeout);
        let boxes = self.residents.values().filter(|it| it.is_open());
        let boxes = boxes.filter_map(|it| it.agent.outbox.poll_timeout());
        let others = [
            timer,
            self.streams.poll_timeout(),
            self.registry.poll_timeout(),
        ];
        let others = others.into_iter().flatten();
        sources.chain(targets).chain(boxes).chain(others).min()
    }

    fn poll_transmit(&mut self) -> Option<(usize, Vec<u8>)> {
        while let Some((to, packet)) = self.streams.poll_packet() {
            self.send(to, &Datagram::Stream(packet));
        }
        self.transmits.pop_front()
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

//! A leaf and its host with drivers as they have to be, on lines that are cut, and ends that die in the middle of
//! everything; and a witness that looks at who runs what after each thing that happens.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::line::{End, Line};
use super::profile;
use crate::delivery::MessageKind;
use crate::handover::{
    HandoverError, HostEnd, HostEndEvent, LeafEnd, LeafEndEvent, Letter, PostResult, Reading,
    Reason, Role,
};
use crate::{AgentId, Epoch};

/// The end whose turn it was has died in the middle of it.
struct Died;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    LeafDies,
    HostDies,
    BothDie,
    StreamsStartOver,
    Cut,
}

/// When.
pub(super) enum Faults {
    Never,
    /// At this step.
    At(u64, Fault),
    /// In one step of so many.
    OneIn(u32),
}

/// What the drivers do besides what they must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Will {
    /// Whatever is allowed.
    Any,
    /// Each agent goes to the leaf, takes a mail and makes a post there, comes back and stays.
    ThereAndBack,
    /// Nothing new begins.
    Rest,
}

/// All that an agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// It was started anew so often.
    life: u64,
    /// Mail below this was taken.
    taken: u64,
    /// Posts below this were made.
    posted: u64,
    visits: u64,
}

impl State {
    fn checkpoint(self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [self.life, self.taken, self.posted, self.visits] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend((0..len).map(|at| (at as u64 ^ self.taken) as u8));
        bytes
    }

    fn restore(bytes: &[u8]) -> State {
        let number = |at: usize| u64::from_le_bytes(bytes[8 * at..][..8].try_into().unwrap());
        let state = State {
            life: number(0),
            taken: number(1),
            posted: number(2),
            visits: number(3),
        };
        assert_eq!(state.checkpoint(bytes.len() - 32), bytes, "damaged");
        state
    }
}

/// An agent in the memory of the leaf.
struct Visitor {
    state: State,
    /// What it had taken when it came.
    base: u64,
    held: bool,
    frozen: bool,
    wanted: bool,
    asked_for: bool,
}

struct LeafSide {
    end: LeafEnd,
    visitors: BTreeMap<AgentId, Visitor>,
    arrived: Vec<(AgentId, Vec<u8>)>,
    /// Readings that were not forgotten.
    readings: BTreeSet<u64>,
    read: u64,
}

impl LeafSide {
    fn new(boot: u64) -> LeafSide {
        LeafSide {
            end: LeafEnd::new(boot, profile()).unwrap(),
            visitors: BTreeMap::new(),
            arrived: Vec::new(),
            readings: BTreeSet::new(),
            read: 0,
        }
    }
}

/// What the host has written down of an agent. It outlives it.
#[derive(Clone, Debug)]
enum Record {
    Here(State),
    Giving(State, Vec<u8>),
    /// With the state in which it left.
    Away(State),
    Taken(Vec<u8>, State, Epoch),
}

struct HostSide {
    end: HostEnd,
    arrived: Vec<(AgentId, Epoch, Vec<u8>)>,
    wanted: BTreeMap<AgentId, (Epoch, u64)>,
    posts: Vec<(AgentId, Epoch, u64, Vec<u8>)>,
}

impl HostSide {
    fn new() -> HostSide {
        HostSide {
            end: HostEnd::new(),
            arrived: Vec::new(),
            wanted: BTreeMap::new(),
            posts: Vec::new(),
        }
    }
}

/// What is seen from outside.
#[derive(Default)]
struct Witness {
    performed: BTreeSet<(AgentId, u64, u64)>,
    /// Mail below this is not kept any more.
    freed: BTreeMap<AgentId, u64>,
    /// The leaf has died with these.
    may_be_lost: BTreeSet<AgentId>,
    seen: BTreeMap<&'static str, u64>,
}

impl Witness {
    fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// An agent begins to run somewhere: nothing that it has done may be unknown to it.
    fn resumes(&mut self, agent: AgentId, state: State) {
        let after = (agent, state.life, state.posted)..(agent, state.life + 1, 0);
        assert_eq!(
            self.performed.range(after).next(),
            None,
            "went back in time"
        );
        let freed = self.freed.get(&agent).copied().unwrap_or(0);
        assert!(freed <= state.taken, "mail is lost");
        self.may_be_lost.remove(&agent);
    }

    fn performs(&mut self, agent: AgentId, life: u64, index: u64) {
        let is_new = self.performed.insert((agent, life, index));
        assert!(is_new, "{agent:?} posts {index} twice");
    }
}

pub(super) struct World {
    rng: StdRng,
    line: Box<dyn Line>,
    faults: Faults,
    will: Will,
    steps: u64,
    boots: u64,
    leaf: LeafSide,
    host: HostSide,
    agents: Vec<AgentId>,
    /// The host's disk.
    records: BTreeMap<AgentId, (Epoch, Record)>,
    readings_done: (u64, u64),
    witness: Witness,
    is_cut: bool,
}

impl World {
    pub(super) fn new(seed: u64, agents: usize, line: Box<dyn Line>) -> World {
        let agents: Vec<_> = (1..=agents).map(|n| AgentId([n as u8; 16])).collect();
        let state = State {
            life: 0,
            taken: 0,
            posted: 0,
            visits: 0,
        };
        let here = |agent: &AgentId| (*agent, (Epoch(1), Record::Here(state)));
        World {
            rng: StdRng::seed_from_u64(seed),
            line,
            faults: Faults::Never,
            will: Will::Any,
            steps: 0,
            boots: 1,
            leaf: LeafSide::new(1),
            host: HostSide::new(),
            records: agents.iter().map(here).collect(),
            agents,
            readings_done: (0, 0),
            witness: Witness::default(),
            is_cut: false,
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    /// How often each thing has happened.
    pub(super) fn seen(&self) -> &BTreeMap<&'static str, u64> {
        &self.witness.seen
    }

    pub(super) const fn steps(&self) -> u64 {
        self.steps
    }

    /// Turns of both in any order, with these faults.
    pub(super) fn live(&mut self, will: Will, faults: Faults, turns: u32) {
        self.will = will;
        self.faults = faults;
        for _ in 0..turns {
            // Who dies in a turn takes the next.
            match self.rng.random_range(0..3) {
                0 => drop(self.leaf_turn()),
                1 => drop(self.host_turn()),
                _ => self.line.pass(),
            }
            if self.is_cut && self.chance(10) {
                self.is_cut = false;
                self.line.cut(false);
            }
        }
    }

    /// Nothing goes wrong any more, and what has begun ends.
    pub(super) fn come_to_rest(&mut self, will: Will) {
        self.is_cut = false;
        self.line.cut(false);
        for _ in 0..100 {
            self.live(will, Faults::Never, 100);
            if self.is_at_rest() {
                // What is still on its way changes nothing, or comes to rest as well.
                self.live(will, Faults::Never, 100);
                if self.is_at_rest() {
                    break;
                }
            }
        }
        for agent in &self.agents {
            let (epoch, record) = &self.records[agent];
            let visitor = self.leaf.visitors.get(agent);
            match record {
                Record::Here(_) => assert!(visitor.is_none(), "{agent:?} is at both ends"),
                Record::Away(_) => {
                    let visitor = visitor.unwrap_or_else(|| panic!("{agent:?} is nowhere"));
                    assert!(!visitor.held && !visitor.frozen, "{agent:?} does not run");
                    let guest = self.leaf.end.guests().find(|guest| guest.agent == *agent);
                    assert_eq!(guest.map(|guest| guest.stay), Some(*epoch));
                }
                record => panic!("{agent:?} is on its way: {record:?}"),
            }
        }
    }

    fn is_at_rest(&self) -> bool {
        let is_there = |agent: &AgentId| {
            let visitor = self.leaf.visitors.get(agent);
            visitor.is_some_and(|visitor| !visitor.held && !visitor.frozen)
        };
        let is_settled = |agent: &AgentId| match self.records[agent].1 {
            Record::Here(state) => {
                let is_done = self.will == Will::Rest || state.visits > 0;
                is_done && !self.leaf.visitors.contains_key(agent)
            }
            Record::Away(_) => self.will == Will::Rest && is_there(agent),
            Record::Giving(..) | Record::Taken(..) => false,
        };
        // Who does not know that the other has started anew finds out.
        let both_know = self.leaf.end.is_welcomed() && self.host.end.is_greeted();
        both_know && self.agents.iter().all(is_settled)
    }

    pub(super) fn all_are_back(&self) -> bool {
        self.agents
            .iter()
            .all(|agent| matches!(&self.records[agent].1, Record::Here(state) if state.visits > 0))
    }

    /// Between any two things that happen: looks who runs what, and lets something go wrong.
    fn step(&mut self, turn: End) -> Result<(), Died> {
        self.steps += 1;
        for agent in &self.agents {
            let at_leaf = self.leaf.visitors.get(agent);
            let at_leaf = at_leaf.is_some_and(|visitor| !visitor.held && !visitor.frozen);
            let at_host = matches!(self.records[agent].1, Record::Here(_));
            assert!(!(at_leaf && at_host), "{agent:?} runs twice");
        }
        let fault = match self.faults {
            Faults::At(step, fault) if step == self.steps => fault,
            Faults::OneIn(steps) if self.rng.random_range(0..steps) == 0 => {
                let faults = [
                    Fault::LeafDies,
                    Fault::HostDies,
                    Fault::BothDie,
                    Fault::StreamsStartOver,
                    Fault::Cut,
                ];
                faults[self.rng.random_range(0..faults.len())]
            }
            _ => return Ok(()),
        };
        let dies = match fault {
            Fault::LeafDies => {
                self.leaf_dies();
                Some(End::Leaf)
            }
            Fault::HostDies => {
                self.host_dies();
                Some(End::Host)
            }
            Fault::BothDie => {
                self.leaf_dies();
                self.host_dies();
                Some(turn)
            }
            Fault::StreamsStartOver => {
                self.line.starts_over();
                None
            }
            Fault::Cut => {
                self.is_cut = true;
                self.line.cut(true);
                None
            }
        };
        if dies == Some(turn) {
            Err(Died)
        } else {
            Ok(())
        }
    }

    fn leaf_dies(&mut self) {
        self.witness.note("the leaf dies");
        let guests = self.leaf.end.guests().map(|guest| guest.agent);
        self.witness.may_be_lost.extend(guests);
        self.boots += 1;
        self.leaf = LeafSide::new(self.boots);
        self.line.dies(End::Leaf);
    }

    fn host_dies(&mut self) {
        self.witness.note("the host dies");
        self.host = HostSide::new();
        for (agent, (epoch, record)) in &self.records {
            let role = match record {
                Record::Here(_) => continue,
                Record::Giving(_, bytes) => Role::Giving(bytes.clone()),
                Record::Away(_) => Role::Away,
                Record::Taken(_, _, _) => Role::Taken,
            };
            let epoch = match record {
                Record::Taken(_, _, taken) => *taken,
                _ => *epoch,
            };
            self.host.end.restore(*agent, epoch, role).unwrap();
        }
        self.line.dies(End::Host);
    }

    fn leaf_turn(&mut self) -> Result<(), Died> {
        let end = End::Leaf;
        if self.line.restarted(end) {
            self.leaf.end.restarted();
            self.leaf_events()?;
        }
        while let Some(message) = self.line.take(end) {
            self.leaf.end.handle_message(&message).unwrap();
            self.step(end)?;
            self.leaf_events()?;
            if self.chance(20) {
                break;
            }
        }
        self.leaf_acts()?;
        while self.line.has_room(end)
            && let Some(message) = self.leaf.end.poll_message()
        {
            self.line.send(end, message);
            self.step(end)?;
            if self.chance(10) {
                break;
            }
        }
        Ok(())
    }

    fn leaf_events(&mut self) -> Result<(), Died> {
        while let Some(event) = self.leaf.end.poll_event() {
            self.leaf_event(event);
            self.step(End::Leaf)?;
        }
        Ok(())
    }

    fn leaf_event(&mut self, event: LeafEndEvent) {
        let (leaf, witness) = (&mut self.leaf, &mut self.witness);
        let visitors = &mut leaf.visitors;
        match event {
            LeafEndEvent::Welcomed { .. } | LeafEndEvent::Actuate { .. } => {}
            LeafEndEvent::Arrived { agent, bytes, .. } => {
                assert!(!visitors.contains_key(&agent));
                leaf.arrived.push((agent, bytes));
            }
            LeafEndEvent::Run { agent, .. } => {
                let visitor = visitors.get_mut(&agent).unwrap();
                assert!(visitor.held);
                visitor.held = false;
                witness.resumes(agent, visitor.state);
                witness.note("an agent runs at the leaf");
            }
            LeafEndEvent::Cancelled { agent, .. } => {
                leaf.arrived.retain(|(arrived, _)| *arrived != agent);
                let dropped = visitors.remove(&agent);
                assert!(dropped.is_none_or(|visitor| visitor.held));
                witness.note("an agent does not come to the leaf");
            }
            LeafEndEvent::HandedOver { agent, .. } => {
                let dropped = visitors.remove(&agent);
                assert!(dropped.is_some_and(|visitor| visitor.frozen));
                witness.note("the leaf lets go");
            }
            LeafEndEvent::Refused { agent, .. } => {
                let visitor = visitors.get_mut(&agent).unwrap();
                assert!(visitor.frozen);
                visitor.frozen = false;
                witness.note("the host refuses");
            }
            LeafEndEvent::Come { agent } => visitors.get_mut(&agent).unwrap().asked_for = true,
            LeafEndEvent::Mail {
                agent,
                number,
                letter,
                ..
            } => {
                let visitor = visitors.get_mut(&agent).unwrap();
                assert!(!visitor.frozen && !visitor.held && visitor.wanted);
                assert_eq!(visitor.state.taken, visitor.base + number);
                assert_eq!(letter.sequence, visitor.state.taken, "a wrong mail");
                visitor.wanted = false;
                visitor.state.taken += 1;
                witness.note("a mail is taken at the leaf");
            }
            LeafEndEvent::Posted { agent, result, .. } => {
                let visitor = visitors.get_mut(&agent).unwrap();
                let state = &mut visitor.state;
                let post = (agent, state.life, state.posted);
                let is_performed = witness.performed.contains(&post);
                match result {
                    PostResult::Sent { sequence } => {
                        assert!(is_performed && sequence == state.posted);
                        state.posted += 1;
                        witness.note("a post is performed");
                    }
                    PostResult::InDoubt => {
                        state.posted += 1;
                        witness.note("a post is in doubt");
                    }
                    _ => assert!(!is_performed),
                }
            }
            LeafEndEvent::Sense { after, .. } => {
                leaf.readings = leaf.readings.split_off(&(after + 1));
            }
        }
    }

    fn leaf_acts(&mut self) -> Result<(), Died> {
        let eager = self.will != Will::Any;
        if eager || self.chance(50) {
            for (agent, bytes) in core::mem::take(&mut self.leaf.arrived) {
                if self.will == Will::Any && self.chance(10) {
                    self.leaf.end.refuse(agent, Reason::Unsuitable).unwrap();
                } else {
                    self.leaf.end.accept(agent).unwrap();
                    let mut state = State::restore(&bytes);
                    state.visits += 1;
                    let visitor = Visitor {
                        base: state.taken,
                        state,
                        held: true,
                        frozen: false,
                        wanted: false,
                        asked_for: false,
                    };
                    self.leaf.visitors.insert(agent, visitor);
                }
                self.step(End::Leaf)?;
            }
        }
        for agent in self.agents.clone() {
            self.visitor_acts(agent)?;
        }
        self.leaf.read += 1;
        self.leaf.readings.insert(self.leaf.read);
        while let Some(after) = self.leaf.end.wanted_readings(0)
            && let Some(&number) = self.leaf.readings.range(after + 1..).next()
        {
            let reading = Reading {
                number,
                time_ns: 0,
                value: 0,
            };
            self.leaf.end.reading(0, reading).unwrap();
        }
        Ok(())
    }

    fn visitor_acts(&mut self, agent: AgentId) -> Result<(), Died> {
        let act = self.rng.random_range(0..100);
        let len = self.rng.random_range(0..1_500);
        let (end, will) = (&mut self.leaf.end, self.will);
        let Some(visitor) = self.leaf.visitors.get_mut(&agent) else {
            return Ok(());
        };
        if visitor.held {
            return Ok(());
        }
        let state = visitor.state;
        let number = state.taken - visitor.base;
        if visitor.frozen {
            if will == Will::Any && act < 10 {
                end.cancel(agent).unwrap();
                visitor.frozen = false;
                self.witness.note("the leaf cancels");
            }
            return self.step(End::Leaf);
        }
        let is_done = match will {
            Will::Any => act < 15 || visitor.asked_for,
            Will::ThereAndBack => number > 0 && state.posted > 0,
            Will::Rest => false,
        };
        if is_done {
            match end.offer(agent, state.checkpoint(len), number) {
                Ok(_) => {
                    visitor.frozen = true;
                    visitor.asked_for = false;
                }
                Err(error) => assert_eq!(error, HandoverError::Unanswered),
            }
        } else if will != Will::Rest {
            match end.log(agent, 1, &state.posted.to_le_bytes()) {
                Ok(()) => self.witness.note("a log is written"),
                Err(error) => assert_eq!(error, HandoverError::Full),
            }
            if act < 60 {
                end.want(agent, number).unwrap();
                visitor.wanted = true;
            }
            if act > 30 {
                let to = AgentId([99; 16]);
                let payload = [state.life.to_le_bytes(), state.posted.to_le_bytes()].concat();
                match end.post(agent, to, MessageKind::Send, &payload) {
                    Ok(_) => {}
                    Err(error) => assert_eq!(error, HandoverError::Unanswered),
                }
            }
        }
        self.step(End::Leaf)
    }

    fn host_turn(&mut self) -> Result<(), Died> {
        let end = End::Host;
        if self.line.restarted(end) {
            self.host.end.restarted();
            self.host.wanted.clear();
            self.host_events()?;
        }
        while let Some(message) = self.line.take(end) {
            self.host.end.handle_message(&message).unwrap();
            self.step(end)?;
            self.host_events()?;
            if self.chance(20) {
                break;
            }
        }
        self.host_acts()?;
        while self.line.has_room(end)
            && let Some(message) = self.host.end.poll_message(1)
        {
            self.line.send(end, message);
            self.step(end)?;
            if self.chance(10) {
                break;
            }
        }
        Ok(())
    }

    fn host_events(&mut self) -> Result<(), Died> {
        while let Some(event) = self.host.end.poll_event() {
            self.host_event(event)?;
            self.step(End::Host)?;
        }
        Ok(())
    }

    fn write(&mut self, agent: AgentId, epoch: Epoch, record: Record) {
        if let Record::Here(state) = &record {
            self.witness.resumes(agent, *state);
        }
        self.records.insert(agent, (epoch, record));
    }

    fn host_event(&mut self, event: HostEndEvent) -> Result<(), Died> {
        match event {
            HostEndEvent::Hello { boot, .. } => {
                self.host.wanted.clear();
                if self.readings_done.0 != boot {
                    self.readings_done = (boot, 0);
                }
                self.host.end.sense(0, self.readings_done.1);
            }
            HostEndEvent::Arrived {
                agent,
                epoch,
                bytes,
                taken,
                posted,
            } => {
                self.host.wanted.remove(&agent);
                let (_, Record::Away(left)) = &self.records[&agent] else {
                    panic!("{agent:?} arrives from where it is not");
                };
                let state = State::restore(&bytes);
                assert_eq!(state.taken, left.taken + taken);
                assert!(state.posted <= left.posted + posted);
                self.host.arrived.retain(|(other, _, _)| *other != agent);
                self.host.arrived.push((agent, epoch, bytes));
            }
            HostEndEvent::Released { agent, epoch } => {
                let (_, Record::Taken(bytes, _, taken)) = &self.records[&agent] else {
                    panic!("{agent:?} is released and was not taken");
                };
                assert_eq!(*taken, epoch);
                let state = State::restore(bytes);
                self.witness.note("an agent runs at the host again");
                self.write(agent, epoch, Record::Here(state));
            }
            HostEndEvent::Cancelled { agent, epoch, stay } => {
                self.host.arrived.retain(|(other, _, _)| *other != agent);
                let (away, record) = &self.records[&agent];
                assert_eq!(*away, stay);
                if let Record::Taken(_, left, taken) = record {
                    assert_eq!(*taken, epoch);
                    let left = *left;
                    self.write(agent, stay, Record::Away(left));
                    self.witness.note("the host deletes a copy");
                }
            }
            HostEndEvent::Held { agent, epoch } => {
                let (giving, Record::Giving(state, _)) = &self.records[&agent] else {
                    panic!("{agent:?} is held and was not given");
                };
                assert_eq!(*giving, epoch);
                let state = *state;
                if self.will == Will::Any && self.chance(10) {
                    self.host.end.cancel(agent).unwrap();
                    self.step(End::Host)?;
                    self.write(agent, epoch, Record::Here(state));
                    self.witness.note("the host cancels what is held");
                } else {
                    self.write(agent, epoch, Record::Away(state));
                    self.step(End::Host)?;
                    self.host.end.let_go(agent).unwrap();
                }
            }
            HostEndEvent::Refused { agent, epoch, .. } => {
                let (giving, Record::Giving(state, _)) = &self.records[&agent] else {
                    panic!("{agent:?} is refused and was not given");
                };
                assert_eq!(*giving, epoch);
                let state = *state;
                self.write(agent, epoch, Record::Here(state));
                self.witness.note("the leaf refuses");
            }
            HostEndEvent::Lost { agent, epoch } => self.is_lost(agent, epoch),
            HostEndEvent::Found { agent, .. } => panic!("{agent:?} was not written down"),
            HostEndEvent::Want { agent, epoch, next } => {
                let (away, Record::Away(left)) = &self.records[&agent] else {
                    panic!("{agent:?} wants mail where it is not");
                };
                assert_eq!(*away, epoch);
                self.witness.freed.insert(agent, left.taken + next);
                self.host.wanted.insert(agent, (epoch, next));
            }
            HostEndEvent::Post {
                agent,
                epoch,
                number,
                payload,
                ..
            } => self.host.posts.push((agent, epoch, number, payload)),
            HostEndEvent::Reading { reading, .. } => {
                let done = &mut self.readings_done.1;
                assert!(reading.number <= *done + 1, "a reading is lost");
                if reading.number == *done + 1 {
                    *done += 1;
                    let done = *done;
                    self.host.end.sense(0, done);
                    self.witness.note("a reading is taken");
                }
            }
            HostEndEvent::Log { agent, .. } => {
                assert!(!matches!(self.records[&agent].1, Record::Here(_)));
                self.witness.note("a log comes");
            }
            HostEndEvent::Status(_) | HostEndEvent::Actuated { .. } => {}
        }
        Ok(())
    }

    /// The leaf has lost it: it begins a new life here.
    fn is_lost(&mut self, agent: AgentId, epoch: Epoch) {
        let lost = self.witness.may_be_lost.remove(&agent);
        assert!(lost, "{agent:?} is lost, and the leaf had not lost it");
        let (away, Record::Away(left)) = &self.records[&agent] else {
            panic!("{agent:?} is lost where it is not");
        };
        assert_eq!(*away, epoch);
        let freed = self.witness.freed.get(&agent).copied().unwrap_or(0);
        let state = State {
            life: left.life + 1,
            taken: freed.max(left.taken),
            posted: 0,
            visits: 0,
        };
        self.host.arrived.retain(|(other, _, _)| *other != agent);
        self.write(agent, epoch.next(), Record::Here(state));
        self.witness.note("an agent is lost");
    }

    fn host_acts(&mut self) -> Result<(), Died> {
        let eager = self.will != Will::Any;
        if eager || self.chance(50) {
            for (agent, epoch, bytes) in core::mem::take(&mut self.host.arrived) {
                let (away, Record::Away(left)) = self.records[&agent].clone() else {
                    panic!("{agent:?} is to be stored and is not away");
                };
                if self.will == Will::Any && self.chance(10) {
                    match self.host.end.refuse(agent, Reason::Damaged) {
                        Ok(()) => {}
                        error => panic!("{error:?}"),
                    }
                } else {
                    self.write(agent, away, Record::Taken(bytes, left, epoch));
                    self.step(End::Host)?;
                    self.host.end.have(agent).unwrap();
                }
                self.host_events()?;
                self.step(End::Host)?;
            }
        }
        for (agent, (epoch, next)) in self.host.wanted.clone() {
            if !eager && self.chance(50) {
                continue;
            }
            let (_, Record::Away(left)) = &self.records[&agent] else {
                continue;
            };
            let letter = Letter {
                from: AgentId([99; 16]),
                sequence: left.taken + next,
                kind: MessageKind::Send,
            };
            self.host.wanted.remove(&agent);
            let answer = self.host.end.mail(agent, epoch, next, letter, b"mail");
            // It may have gone on its way since.
            assert!(matches!(answer, Ok(()) | Err(HandoverError::NotWanted)));
            self.step(End::Host)?;
        }
        for (agent, epoch, number, payload) in core::mem::take(&mut self.host.posts) {
            let part = |at: usize| u64::from_le_bytes(payload[at..][..8].try_into().unwrap());
            let (life, index) = (part(0), part(8));
            let result = if self.will == Will::Any && self.chance(20) {
                PostResult::Full
            } else {
                self.witness.performs(agent, life, index);
                PostResult::Sent { sequence: index }
            };
            self.step(End::Host)?;
            // The agent may be lost since.
            let answer = self.host.end.posted(agent, epoch, number, result);
            assert!(matches!(answer, Ok(()) | Err(HandoverError::State)));
            self.step(End::Host)?;
        }
        for agent in self.agents.clone() {
            self.record_acts(agent)?;
        }
        Ok(())
    }

    fn record_acts(&mut self, agent: AgentId) -> Result<(), Died> {
        let act = self.rng.random_range(0..100);
        let len = self.rng.random_range(0..1_500);
        let (epoch, record) = self.records[&agent].clone();
        match record {
            Record::Here(mut state) => {
                let goes = match self.will {
                    Will::Any => act < 30,
                    Will::ThereAndBack => state.visits == 0,
                    Will::Rest => false,
                };
                if goes {
                    let (epoch, bytes) = (epoch.next(), state.checkpoint(len));
                    let giving = Record::Giving(state, bytes.clone());
                    self.write(agent, epoch, giving);
                    self.step(End::Host)?;
                    self.host.end.offer(agent, epoch, bytes).unwrap();
                } else if self.will == Will::Any {
                    // It lives here meanwhile.
                    state.taken += 1;
                    self.witness.performs(agent, state.life, state.posted);
                    state.posted += 1;
                    self.witness.freed.insert(agent, state.taken);
                    self.write(agent, epoch, Record::Here(state));
                }
            }
            Record::Giving(state, _) if self.will == Will::Any && act < 5 => {
                self.host.end.cancel(agent).unwrap();
                self.step(End::Host)?;
                self.write(agent, epoch, Record::Here(state));
                self.witness.note("the host cancels");
            }
            Record::Away(_) if self.will == Will::Any && act < 3 => {
                let answer = self.host.end.come(agent);
                assert!(matches!(answer, Ok(()) | Err(HandoverError::State)));
            }
            _ => {}
        }
        self.step(End::Host)
    }
}

/// What must have happened in many lives, so that they say something.
pub(super) const ORDINARY: [&str; 16] = [
    "a log comes",
    "a mail is taken at the leaf",
    "a post is in doubt",
    "a post is performed",
    "a reading is taken",
    "an agent does not come to the leaf",
    "an agent is lost",
    "an agent runs at the host again",
    "an agent runs at the leaf",
    "the host cancels",
    "the host cancels what is held",
    "the host deletes a copy",
    "the host refuses",
    "the leaf cancels",
    "the leaf lets go",
    "the leaf refuses",
];

pub(super) fn sum(of: &mut BTreeMap<&'static str, u64>, with: &BTreeMap<&'static str, u64>) {
    for (what, count) in with {
        *of.entry(what).or_default() += count;
    }
}

/// All faults, each at each step of what happens.
pub(super) const FAULTS: [Fault; 5] = [
    Fault::LeafDies,
    Fault::HostDies,
    Fault::BothDie,
    Fault::StreamsStartOver,
    Fault::Cut,
];

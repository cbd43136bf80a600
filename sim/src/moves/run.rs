//! One run: what is begun and what goes wrong when, and what is counted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, ensure};
use mielin_mesh_core::{AgentId, Instant, MigrationPhase, MigrationStrategy, Name, NodeId};
use rand::RngExt;

use super::agent::{Agent, Habits};
use super::faults::{Fault, phase_name};
use super::node::{Common, Disk, Node};
use super::witness::{Broken, Step, Violation, Witness};
use super::{Outcome, Scenario, Timing};
use crate::world::{Clock, Network, Severed, World};

/// Between two moves, on average.
const MOVE_PAUSE: Duration = Duration::from_millis(250);
/// Between two messages, on average.
const MESSAGE_PAUSE: Duration = Duration::from_millis(60);
/// From a crash to the news of it, and from a false rumour to nothing at all.
const DEAD_AFTER: Duration = Duration::from_secs(5);
/// An agent that nobody has had for so long is replaced by another.
const REPLACED_AFTER: Duration = Duration::from_secs(60);
/// How long everything may take to come to rest when everybody can talk again: longer than all limits of the cores
/// and their sum, and a source in doubt asks every second.
const CALM: Duration = Duration::from_secs(150);

/// What is to happen.
#[derive(Clone, Debug)]
enum Control {
    Move,
    Say,
    Fault(Fault, Step),
    /// An agent goes on from a node to another.
    MoveOn(AgentId, usize),
    Crash(usize),
    Restart(usize, Option<Box<Disk>>),
    Mend(Vec<(usize, usize)>),
    Unite,
    /// Everybody else hears that a node is dead.
    Rumour(usize),
    Replace,
}

struct Due(Duration, u64, Control);

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

struct Run<'s> {
    scenario: &'s Scenario,
    common: Rc<Common>,
    world: World<Node>,
    witness: Witness,
    outcome: Outcome,
    controls: BinaryHeap<Reverse<Due>>,
    sequence: u64,
    agents: Vec<AgentId>,
    lives: Vec<u32>,
    /// How many cuts there are of each link.
    cuts: BTreeMap<(usize, usize), u32>,
    parted: bool,
    down: BTreeSet<usize>,
    doubts: BTreeMap<u64, Duration>,
    /// Moves that have not ended.
    moving: BTreeMap<u64, usize>,
    calm: bool,
}

/// Moves agents until enough moves have begun, lets everything come to rest, and says what came of it.
///
/// # Errors
/// The scenario cannot be run.
pub fn run(scenario: &Scenario) -> Result<Outcome> {
    ensure!(scenario.nodes >= 3, "three nodes are needed at least");
    ensure!(scenario.agents >= 2, "two agents are needed at least");
    let mut run = Run::new(scenario)?;
    if let Err(violation) = run.all() {
        run.outcome.note(violation);
    }
    Ok(run.count())
}

impl<'s> Run<'s> {
    fn new(scenario: &'s Scenario) -> Result<Run<'s>> {
        let id = |node: usize| NodeId::of_public_key(&(node as u64).to_le_bytes());
        let ids: Vec<NodeId> = (0..scenario.nodes).map(id).collect();
        let common = Rc::new(Common {
            numbers: (0..).zip(&ids).map(|(number, id)| (*id, number)).collect(),
            ids,
            timing: Timing {
                bandwidth: scenario.bandwidth,
                refused_percent: 1.0,
                follows_percent: 85.0,
            },
            sabotage: scenario.sabotage,
            name: Name::new("agent")?,
            seed: scenario.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        });
        let network = Network {
            latency_min: Duration::from_millis(1),
            latency_max: scenario.latency_max.max(Duration::from_millis(1)),
            loss_percent: scenario.loss_percent,
            duplicate_percent: scenario.duplicate_percent,
        };
        let mut world = World::new(network, scenario.seed);
        for number in 0..scenario.nodes {
            let clock = Clock {
                skew: Duration::from_millis(world.random.random_range(0..3_600_000)),
                drift_ppm: world.random.random_range(-200..=200),
            };
            let now = Instant::from_start(clock.skew);
            let disk = Disk::default();
            let node = Node::start(number, 0, Rc::clone(&common), disk, now);
            world.start(node, clock);
        }
        Ok(Run {
            scenario,
            common,
            world,
            witness: Witness::new(scenario.seed),
            outcome: Outcome {
                runs: 1,
                seed: scenario.seed,
                ..Outcome::default()
            },
            controls: BinaryHeap::new(),
            sequence: 0,
            agents: Vec::new(),
            lives: vec![0; scenario.nodes],
            cuts: BTreeMap::new(),
            parted: false,
            down: BTreeSet::new(),
            doubts: BTreeMap::new(),
            moving: BTreeMap::new(),
            calm: false,
        })
    }

    fn all(&mut self) -> Result<(), Violation> {
        for _ in 0..self.scenario.agents {
            self.spawn()?;
        }
        self.after(Duration::from_secs(1), Control::Move);
        self.after(Duration::from_millis(500), Control::Say);
        self.after(REPLACED_AFTER, Control::Replace);
        while self.outcome.moves < self.scenario.moves {
            self.next(Duration::MAX)?;
        }
        self.come_to_rest()
    }

    /// Everybody can talk again, and nothing new begins.
    fn come_to_rest(&mut self) -> Result<(), Violation> {
        self.calm = true;
        self.world.heal();
        self.world.cut_off(BTreeSet::new(), Severed::Both);
        let end = self.world.now() + CALM;
        // What is down comes up.
        self.controls
            .retain(|due| matches!(due.0.2, Control::Restart(..) | Control::Rumour(_)));
        while self.next(end)? {}
        for node in 0..self.scenario.nodes {
            let unfinished = self.world.core(node).map(Node::unfinished);
            if let Some((agent, why)) = unfinished.into_iter().flatten().next() {
                let why = format!("node {node}: {why}");
                return Err(self.witness.violation(agent, Broken::Stuck, &why));
            }
        }
        self.witness.end()
    }

    /// Lets the next thing happen; false, and it is `end`, when there is none before.
    fn next(&mut self, end: Duration) -> Result<bool, Violation> {
        let control = self.controls.peek().map(|due| due.0.0);
        let until = control.filter(|at| *at <= end).unwrap_or(end);
        if self.world.step(until) {
            self.look()?;
            return Ok(true);
        }
        match self.controls.pop() {
            Some(Reverse(due)) if due.0 <= end => self.perform(due.2).map(|()| true),
            _ => Ok(false),
        }
    }

    /// Has the witness see what happened.
    fn look(&mut self) -> Result<(), Violation> {
        let at = self.world.now();
        while let Some((node, event)) = self.world.poll_event() {
            if let Some(step) = self.witness.see(at, node, event)? {
                self.stepped(step);
            }
        }
        Ok(())
    }

    fn stepped(&mut self, step: Step) {
        let at = self.world.now();
        match &step.phase {
            MigrationPhase::InDoubt => {
                self.outcome.in_doubt += 1;
                self.doubts.insert(step.number, at);
            }
            MigrationPhase::Complete => self.outcome.completed += 1,
            MigrationPhase::RolledBack(_) => self.outcome.rolled_back += 1,
            _ => {}
        }
        if step.phase.is_final() {
            self.moving.remove(&step.number);
            if let Some(since) = self.doubts.remove(&step.number) {
                self.outcome.in_doubt_resolved += 1;
                let lasted = (at - since).as_secs_f64();
                self.outcome.in_doubt_s_max = self.outcome.in_doubt_s_max.max(lasted);
            }
            return;
        }
        self.moving.insert(step.number, step.source);
        let breaks_in = self.world.random.random_range(0.0..100.0) < self.scenario.faults_percent;
        if breaks_in && !self.calm {
            let fault = Fault::any(&mut self.world.random);
            // At once, while the next frame is on its way, or later.
            let after = match self.world.random.random_range(0..4) {
                0 | 1 => Duration::ZERO,
                2 => Duration::from_micros(self.world.random.random_range(0..4_000)),
                _ => Duration::from_micros(self.world.random.random_range(0..80_000)),
            };
            self.after(after, Control::Fault(fault, step));
        }
    }

    fn after(&mut self, after: Duration, control: Control) {
        self.sequence += 1;
        let due = Due(self.world.now() + after, self.sequence, control);
        self.controls.push(Reverse(due));
    }

    fn about(&mut self, pause: Duration) -> Duration {
        let micros = pause.as_micros() as u64;
        Duration::from_micros(self.world.random.random_range(0..2 * micros))
    }

    fn spawn(&mut self) -> Result<(), Violation> {
        let up: Vec<usize> = self.up();
        let node = up[self.world.random.random_range(0..up.len())];
        let mut id = [0; 16];
        for byte in &mut id {
            *byte = self.world.random.random_range(0..=255_u8);
        }
        let id = AgentId(id);
        let pages = match self.world.random.random_range(0..3) {
            0 => self.world.random.random_range(8..64),
            1 => self.world.random.random_range(64..256),
            _ => self.world.random.random_range(256..600),
        };
        let habits = Habits {
            hot: self.world.random.random_range(1..=pages),
            rate: [20, 500, 20_000][self.world.random.random_range(0..3)],
        };
        self.agents.push(id);
        self.outcome.agents += 1;
        self.world.with(node, |node, now| {
            node.spawn(now, Agent::new(id, pages, habits, now));
        });
        self.look()
    }

    fn up(&self) -> Vec<usize> {
        (0..self.scenario.nodes)
            .filter(|node| !self.down.contains(node))
            .collect()
    }

    fn perform(&mut self, control: Control) -> Result<(), Violation> {
        match control {
            Control::Move => {
                self.begin_move();
                let pause = self.about(MOVE_PAUSE);
                self.after(pause, Control::Move);
            }
            Control::Say => {
                self.say();
                let pause = self.about(MESSAGE_PAUSE);
                self.after(pause, Control::Say);
            }
            Control::Fault(fault, step) => self.suffer(fault, &step),
            Control::MoveOn(agent, from) => self.move_from(agent, from),
            Control::Crash(node) => self.crash(node),
            Control::Restart(node, disk) => {
                self.down.remove(&node);
                self.lives[node] += 1;
                let (life, common) = (self.lives[node], Rc::clone(&self.common));
                let disk = disk.map(|disk| *disk).unwrap_or_default();
                let start = |now| Node::start(node, life, common, disk, now);
                self.world.restart(node, start);
            }
            Control::Mend(links) => self.mend(&links),
            Control::Unite => {
                self.parted = false;
                self.world.cut_off(BTreeSet::new(), Severed::Both);
            }
            Control::Rumour(of) => {
                for node in (0..self.scenario.nodes).filter(|node| *node != of) {
                    self.world.with(node, |it, now| it.hear_of_death(now, of));
                    self.look()?;
                }
            }
            Control::Replace => {
                let gone = self.witness.gone(self.world.now(), REPLACED_AFTER);
                let living = self.agents.len();
                self.agents.retain(|agent| !gone.contains(agent));
                for _ in self.agents.len()..living {
                    self.spawn()?;
                }
                self.after(Duration::from_secs(5), Control::Replace);
            }
        }
        self.look()
    }

    fn any_agent(&mut self) -> AgentId {
        self.agents[self.world.random.random_range(0..self.agents.len())]
    }

    fn begin_move(&mut self) {
        let agent = self.any_agent();
        if let Some(source) = self.witness.runner(&agent) {
            self.move_from(agent, source);
        }
    }

    fn move_from(&mut self, agent: AgentId, source: usize) {
        let target = self.world.random.random_range(0..self.scenario.nodes - 1);
        let target = target + usize::from(target >= source);
        if self.down.contains(&target) {
            return;
        }
        let number = self.outcome.moves + 1;
        let by_turns = MigrationStrategy::ALL.get(number as usize % 5).copied();
        let strategy = self.scenario.strategy.or(by_turns);
        let begun = self.world.with(source, |node, now| {
            node.move_agent(now, agent, number, target, strategy)
        });
        if begun == Some(true) {
            self.outcome.moves += 1;
        }
    }

    /// An agent writes to one of the three that came behind it.
    fn say(&mut self) {
        let from = self.any_agent();
        let place = self.agents.iter().position(|agent| *agent == from);
        let step = self.world.random.random_range(1..=3);
        let to = self.agents[(place.unwrap_or(0) + step) % self.agents.len()];
        let content = self.world.random.random_range(0..u64::MAX);
        if let Some(node) = self.witness.runner(&from)
            && to != from
            && self
                .world
                .with(node, |it, now| it.say(now, from, to, content))
                == Some(true)
        {
            self.outcome.messages_sent += 1;
        }
    }

    fn suffer(&mut self, fault: Fault, step: &Step) {
        let (agent, source, target) = (step.agent, step.source, step.target);
        // The move may have ended before this.
        let phase = match self.witness.moving(&agent) {
            Some(now) if now.number == step.number => phase_name(&now.phase),
            _ => "over".to_owned(),
        };
        let crashes = matches!(fault, Fault::SourceCrashes | Fault::TargetCrashes);
        if crashes && self.down.len() >= self.scenario.nodes / 4 {
            return;
        }
        *self.outcome.faults.entry(fault.name()).or_default() += 1;
        *self.outcome.fault_phases.entry(phase).or_default() += 1;
        let at = self.world.now();
        self.witness.remember(
            at,
            agent,
            &format!("fault: {fault:?} between {source} and {target}"),
        );
        match fault {
            Fault::SourceCrashes => self.crash(source),
            Fault::TargetCrashes => self.crash(target),
            Fault::Cut(severed, lasts) => self.cut(source, target, severed, lasts),
            Fault::LeftBehind(lasts) => {
                if self.part(BTreeSet::from([source]), Severed::Both, lasts) {
                    let goes_on = self.about(lasts / 3);
                    self.after(goes_on, Control::MoveOn(agent, target));
                    let crashes = goes_on + self.about(lasts / 6);
                    self.after(crashes, Control::Crash(target));
                }
            }
            Fault::Partition(severed, lasts) => {
                let mut island = BTreeSet::from([target]);
                while island.len() < self.scenario.nodes / 4 {
                    island.insert(self.world.random.random_range(0..self.scenario.nodes));
                }
                island.remove(&source);
                self.part(island, severed, lasts);
            }
            Fault::StreamBreaks => {
                self.world.with(source, |it, now| it.break_move(now, agent));
            }
            Fault::Cancelled => {
                self.world.with(source, |it, now| it.cancel(now, agent));
            }
            Fault::SourceFails => {
                self.world.with(source, |it, _| it.fail_source(agent));
            }
            Fault::TargetFails => {
                self.world.with(target, |it, _| it.fail_target(agent));
            }
            Fault::TakenForDead => {
                self.world
                    .with(source, |it, now| it.hear_of_death(now, target));
                self.world
                    .with(target, |it, now| it.hear_of_death(now, source));
            }
        }
    }

    fn crash(&mut self, node: usize) {
        if self.down.len() >= self.scenario.nodes / 4 || !self.down.insert(node) {
            return;
        }
        let disk = self.world.crash(node).map(|node| Box::new(node.disk));
        self.witness.crashed(self.world.now(), node);
        let short = self.moving.iter().filter(|(_, source)| **source == node);
        let short: Vec<u64> = short.map(|(number, _)| *number).collect();
        for number in short {
            self.moving.remove(&number);
            let doubt = self.doubts.remove(&number);
            self.outcome.in_doubt_cut_short += u64::from(doubt.is_some());
            self.outcome.cut_short += 1;
        }
        let lasts = match self.world.random.random_range(0..3) {
            0 => 50..500,
            1 => 500..6_000,
            _ => 6_000..40_000,
        };
        let lasts = Duration::from_millis(self.world.random.random_range(lasts));
        self.after(lasts, Control::Restart(node, disk));
        if lasts > DEAD_AFTER {
            self.after(DEAD_AFTER, Control::Rumour(node));
        }
    }

    fn cut(&mut self, source: usize, target: usize, severed: Severed, lasts: Duration) {
        let links = match severed {
            Severed::Both => vec![(source, target), (target, source)],
            Severed::Outward => vec![(source, target)],
            Severed::Inward => vec![(target, source)],
        };
        for (from, to) in &links {
            *self.cuts.entry((*from, *to)).or_default() += 1;
            self.world.cut(*from, *to);
        }
        self.after(lasts, Control::Mend(links));
    }

    fn mend(&mut self, links: &[(usize, usize)]) {
        for link in links {
            if let Some(cuts) = self.cuts.get_mut(link) {
                *cuts = cuts.saturating_sub(1);
                if *cuts == 0 {
                    self.cuts.remove(link);
                    self.world.mend(link.0, link.1);
                }
            }
        }
    }

    /// Cuts some nodes off from all others, if none are.
    fn part(&mut self, island: BTreeSet<usize>, severed: Severed, lasts: Duration) -> bool {
        if std::mem::replace(&mut self.parted, true) {
            return false;
        }
        self.world.cut_off(island, severed);
        self.after(lasts, Control::Unite);
        true
    }

    fn count(mut self) -> Outcome {
        let gone = self.witness.gone(self.world.now(), Duration::ZERO);
        // What was lost otherwise has ended the run.
        self.outcome.died_with_holder = (gone.len() as u64).saturating_sub(self.outcome.lost);
        self.outcome.messages_taken = self.witness.messages_taken;
        self.outcome.messages_heard = self.witness.messages_heard;
        self.outcome.checks = self.witness.checks;
        self.outcome.virtual_s = self.world.now().as_secs_f64();
        self.outcome
    }
}

//! How fast a group learns of a death and of a join, how often it is wrong, and what it costs.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mielin_mesh_core::{
    Identity, Instant, MemberState, Membership, MembershipEvent, Name, NodeId, NodeRole, Preset,
};
use rand::RngExt;
use rand::seq::SliceRandom;
use serde::Serialize;

use crate::world::{Clock, Core, Network, Severed, Traffic, World};

/// What to run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Nodes in the group.
    pub nodes: usize,
    /// Datagrams that are lost, in percent.
    pub loss_percent: f64,
    /// Datagrams that arrive twice, in percent.
    pub duplicate_percent: f64,
    /// Hours of virtual time during which nothing happens but churn, and nobody who lives may be taken for dead.
    pub hours: f64,
    /// How fast silence becomes death.
    pub preset: Preset,
    /// The most that a clock gains or loses, in millionths.
    pub drift_ppm: u32,
    /// Nodes that get to everything late.
    pub slow_nodes: usize,
    /// How late.
    pub slow_by: Duration,
    /// Directed links, chosen at random, that carry nothing.
    pub cuts: usize,
    /// Of the nodes, in percent, so many crash in each of the hours, and as many others join.
    pub churn_percent: f64,
    /// In the middle of the hours, and beside them, a third of the group is cut off from the rest for so long.
    pub partition: Duration,
    /// Which ways that cut severs.
    pub partition_cuts: Severed,
    /// The one source of chance.
    pub seed: u64,
}

impl Scenario {
    /// The WAN preset over links that duplicate one datagram in a hundred, with clocks that drift by up to 200
    /// millionths.
    #[must_use]
    pub fn new(nodes: usize, loss_percent: f64, hours: f64, seed: u64) -> Scenario {
        Scenario {
            nodes,
            loss_percent,
            duplicate_percent: 1.0,
            hours,
            preset: Preset::Wan,
            drift_ppm: 200,
            slow_nodes: 0,
            slow_by: Duration::ZERO,
            cuts: 0,
            churn_percent: 0.0,
            partition: Duration::ZERO,
            partition_cuts: Severed::Both,
            seed,
        }
    }
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Probe periods until a death was known to all, the longest of [`TRIALS`].
    pub death_known_all_periods: f64,
    /// Probe periods until a join was known to all, the longest of [`TRIALS`].
    pub join_known_all_periods: f64,
    /// Lives that somebody took for ended while they were not. Those that a partition ended, in the eyes of the other
    /// side, are not counted, nor is the news of it, until the group is whole again.
    pub false_deaths: usize,
    /// Bytes of datagrams sent by a node in a second of the quiet hours' second half.
    pub bytes_per_node_s: f64,
    /// Datagrams likewise.
    pub msgs_per_node_s: f64,
    /// Probe periods from the end of the partition until everybody took everybody for alive; `None` without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition_healed_periods: Option<f64>,
}

/// Deaths and joins that are measured, one after the other.
pub const TRIALS: usize = 3;

/// After so many periods something is taken never to happen.
const PERIODS_MAX: u32 = 1_000;

struct Participant(Membership);

fn address(node: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(node as u32)), 9_000)
}

fn node_at(address: SocketAddr) -> Option<usize> {
    match address.ip() {
        IpAddr::V4(ip) => Some(ip.to_bits() as usize),
        IpAddr::V6(_) => None,
    }
}

fn id(node: usize) -> NodeId {
    NodeId::of_public_key(&(node as u64).to_le_bytes())
}

impl Core for Participant {
    type Event = MembershipEvent;

    fn receive(&mut self, now: Instant, from: usize, bytes: &[u8]) {
        self.0
            .handle_datagram(now, id(from), bytes)
            .expect("every node here speaks the protocol");
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.0.handle_timeout(now);
    }

    fn poll_timeout(&self, _: Instant) -> Option<Instant> {
        self.0.poll_timeout()
    }

    fn poll_transmit(&mut self) -> Option<(usize, Vec<u8>)> {
        let transmit = self.0.poll_transmit()?;
        let to = node_at(transmit.address).expect("every address here was given out here");
        Some((to, transmit.bytes))
    }

    fn poll_event(&mut self) -> Option<MembershipEvent> {
        self.0.poll_event()
    }
}

/// What everybody believes about everybody, kept from the events alone.
struct Group {
    scenario: Scenario,
    world: World<Participant>,
    period: Duration,
    /// By observer, then by subject.
    beliefs: Vec<Vec<Option<MemberState>>>,
    /// Lives that were taken for ended: the subject and its generation.
    false_deaths: BTreeSet<(usize, u64)>,
    partition: Option<Partition>,
}

/// A cut through the group, until it is whole again.
struct Partition {
    island: BTreeSet<usize>,
    /// Lives that somebody on the other side took for ended.
    buried: BTreeSet<(usize, u64)>,
}

/// Runs a scenario.
///
/// # Errors
///
/// There are fewer than three nodes, no hours, nobody would stay, the group does not form, or news does not reach everybody in a thousand periods.
pub fn run(scenario: &Scenario) -> Result<Outcome> {
    ensure!(scenario.nodes >= 3, "a death needs two who learn of it");
    ensure!(
        (0.0..=100.0).contains(&scenario.churn_percent),
        "churn is a share of the nodes"
    );
    ensure!(scenario.hours > 0.0, "in no time nothing can be measured");
    let mut group = Group::new(scenario.clone());
    group.form()?;
    group.disturb();
    let quiet = Duration::from_secs_f64(scenario.hours * 3_600.0) / 2;
    // In the first half the news of how the group formed are still told.
    group.live(quiet);
    let healed = group.part().context("the partition does not heal")?;
    let before = group.world.traffic();
    group.live(quiet);
    let after = group.world.traffic();
    group.world.heal();
    if scenario.churn_percent > 0.0 {
        group.until_all_know_all()?;
    }
    let residents = group.world.len();
    let (mut join, mut death) = (0.0_f64, 0.0_f64);
    for trial in 0..TRIALS {
        join = join.max(group.join().with_context(|| format!("join {trial}"))?);
        let periods = group.death(residents);
        death = death.max(periods.with_context(|| format!("death {trial}"))?);
    }
    let node_seconds = scenario.nodes as f64 * quiet.as_secs_f64();
    let rate = |count: fn(&Traffic) -> u64| {
        rounded((count(&after) - count(&before)) as f64 / node_seconds.max(1.0))
    };
    Ok(Outcome {
        death_known_all_periods: rounded(death),
        join_known_all_periods: rounded(join),
        false_deaths: group.false_deaths.len(),
        bytes_per_node_s: rate(|traffic| traffic.bytes),
        msgs_per_node_s: rate(|traffic| traffic.messages),
        partition_healed_periods: healed.map(rounded),
    })
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

impl Group {
    fn new(scenario: Scenario) -> Group {
        let network = Network {
            latency_min: Duration::from_millis(5),
            latency_max: Duration::from_millis(120),
            loss_percent: scenario.loss_percent,
            duplicate_percent: scenario.duplicate_percent,
        };
        Group {
            period: scenario.preset.probe_period(),
            world: World::new(network, scenario.seed),
            scenario,
            beliefs: Vec::new(),
            false_deaths: BTreeSet::new(),
            partition: None,
        }
    }

    fn start(&mut self) -> usize {
        let node = self.world.len();
        let identity = Identity {
            id: id(node),
            name: Name::new(format!("node-{node}")).expect("letters and digits are a name"),
            role: NodeRole::Edge,
            address: address(node),
            generation: 1,
            departed: None,
            revision: 0,
            relays: Vec::new(),
        };
        let drift = i64::from(self.scenario.drift_ppm);
        let clock = Clock {
            skew: Duration::from_millis(self.world.random.random_range(0..3_600_000)),
            drift_ppm: self.world.random.random_range(-drift..=drift),
        };
        let seed = self.world.random.random();
        let core = Membership::new(identity, self.scenario.preset, seed)
            .expect("this identity has not departed");
        self.beliefs.push(Vec::new());
        self.world.start(Participant(core), clock)
    }

    /// The nodes start during one period, each knowing the first one, and find each other.
    fn form(&mut self) -> Result<()> {
        let gap = self.period / self.scenario.nodes.max(1) as u32;
        for _ in 0..self.scenario.nodes {
            let node = self.start();
            self.greet_first(node);
            self.run_for(gap);
        }
        let all = self.scenario.nodes;
        for _ in 0..PERIODS_MAX {
            let missing = |group: &Group, node: usize| {
                let known = group.beliefs[node].iter();
                all - 1
                    - known
                        .filter(|b| b.is_some_and(MemberState::is_active))
                        .count()
            };
            let lonely: Vec<usize> = (1..all).filter(|n| missing(self, *n) == all - 1).collect();
            for node in lonely {
                self.greet_first(node);
            }
            if (0..all).all(|node| missing(self, node) == 0) {
                return Ok(());
            }
            self.run_for(self.period);
        }
        bail!("seed {}: the group did not form", self.scenario.seed)
    }

    /// Has a node announce itself to the first one. Newcomers that greeted one another, while what they said to the
    /// others was lost, would be a group of their own.
    fn greet_first(&mut self, node: usize) {
        if node > 0 {
            self.world
                .with(node, |core, now| core.0.announce(now, id(0), address(0)));
        }
    }

    /// Has a node announce itself to some node that was there before it.
    fn greet(&mut self, node: usize) {
        let there = self.up(node);
        if there.is_empty() {
            return;
        }
        let known = there[self.world.random.random_range(0..there.len())];
        self.world.with(node, |core, now| {
            core.0.announce(now, id(known), address(known));
        });
    }

    /// Some nodes become slow, and some links are cut in one direction.
    fn disturb(&mut self) {
        for node in 0..self.scenario.slow_nodes.min(self.scenario.nodes) {
            self.world.slow_down(node, self.scenario.slow_by);
        }
        for _ in 0..self.scenario.cuts {
            let from = self.world.random.random_range(0..self.scenario.nodes);
            let to = self.world.random.random_range(0..self.scenario.nodes);
            self.world.cut(from, to);
        }
    }

    /// Lets time pass in which, one after the other, nodes crash and others join.
    fn live(&mut self, time: Duration) {
        let hours = time.as_secs_f64() / 3_600.0;
        let share = self.scenario.churn_percent / 100.0;
        let replaced = (self.scenario.nodes as f64 * share * hours).round() as u32;
        let began = self.world.now();
        for number in 0..replaced {
            self.run_until(began + time * number / replaced);
            let up = self.up(self.world.len());
            let leaving = up[self.world.random.random_range(0..up.len())];
            self.world.crash(leaving);
            let joining = self.start();
            self.greet(joining);
        }
        self.run_until(began + time);
    }

    /// Runs to a moment; who knows nobody announces itself again, once a period or more often, as its driver has it do.
    fn run_until(&mut self, end: Duration) {
        while self.world.now() < end {
            self.run_for(self.period.min(end - self.world.now()));
            self.greet_again();
        }
    }

    fn greet_again(&mut self) {
        for node in self.up(self.world.len()) {
            if self.beliefs[node].is_empty() {
                self.greet(node);
            }
        }
    }

    /// Those of the first so many nodes that have not crashed.
    fn up(&self, count: usize) -> Vec<usize> {
        (0..count).filter(|n| self.world.is_up(*n)).collect()
    }

    /// Cuts a third of the group off, if the scenario says so, and says how many periods after that it is whole.
    fn part(&mut self) -> Result<Option<f64>> {
        let time = self.scenario.partition;
        if time.is_zero() {
            return Ok(None);
        }
        let mut up = self.up(self.world.len());
        up.shuffle(&mut self.world.random);
        let island: BTreeSet<usize> = up[..up.len() / 3].iter().copied().collect();
        let severed = self.scenario.partition_cuts;
        self.world.cut_off(island.clone(), severed);
        self.partition = Some(Partition {
            island,
            buried: BTreeSet::new(),
        });
        self.run_for(time);
        self.world.cut_off(BTreeSet::new(), severed);
        let healed = self.until_all_know_all()?;
        self.partition = None;
        Ok(Some(healed))
    }

    /// Periods until all that are up take each other to be there.
    fn until_all_know_all(&mut self) -> Result<f64> {
        let began = self.world.now();
        let tick = self.period / 50;
        loop {
            let up = self.up(self.world.len());
            let all = up.iter().all(|n| self.all_believe(*n, MemberState::Alive));
            let periods = (self.world.now() - began).as_secs_f64() / self.period.as_secs_f64();
            if all {
                return Ok(periods);
            }
            if periods > f64::from(PERIODS_MAX) {
                bail!("seed {}: not all know all", self.scenario.seed);
            }
            self.run_until(self.world.now() + tick);
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.world.now() + time;
        while self.world.step(end) {
            self.note();
        }
    }

    /// Takes in what the nodes reported.
    fn note(&mut self) {
        while let Some((observer, event)) = self.world.poll_event() {
            let MembershipEvent::MemberChanged(member) = event else {
                continue;
            };
            let subject =
                node_at(member.identity.address).expect("every address here was given out here");
            let beliefs = &mut self.beliefs[observer];
            if beliefs.len() <= subject {
                beliefs.resize(subject + 1, None);
            }
            beliefs[subject] = Some(member.state);
            if member.state == MemberState::Dead && self.world.is_up(subject) {
                let life = (subject, member.identity.generation);
                let parted = self.partition.as_mut();
                if !parted.is_some_and(|p| p.explains(observer, life)) {
                    self.false_deaths.insert(life);
                }
            }
        }
    }

    /// Whether all that are up believe this of a node. Whom some suspect, they know to be there: where much is lost,
    /// somebody is a suspect at any time. A newcomer that has never heard of a node does not believe it alive.
    fn all_believe(&self, subject: usize, state: MemberState) -> bool {
        let others = (0..self.world.len()).filter(|n| *n != subject && self.world.is_up(*n));
        others
            .map(|observer| self.beliefs[observer].get(subject))
            .all(|belief| {
                let belief = belief.copied().flatten();
                belief == Some(state)
                    || state == MemberState::Dead && belief.is_none()
                    || state.is_active() && belief.is_some_and(MemberState::is_active)
            })
    }

    /// Periods until all believe this of a node.
    fn periods_until(&mut self, subject: usize, state: MemberState) -> Result<f64> {
        let began = self.world.now();
        let tick = self.period / 50;
        while !self.all_believe(subject, state) {
            let since = self.world.now() - began;
            if since > self.period * PERIODS_MAX {
                let seed = self.scenario.seed;
                bail!("seed {seed}: not everybody took node {subject} for {state:?}");
            }
            if state == MemberState::Alive && self.beliefs[subject].is_empty() {
                self.greet(subject);
            }
            self.run_for(tick);
        }
        Ok((self.world.now() - began).as_secs_f64() / self.period.as_secs_f64())
    }

    fn join(&mut self) -> Result<f64> {
        let node = self.start();
        self.periods_until(node, MemberState::Alive)
    }

    /// One of the first so many nodes crashes: none that has joined for a measurement.
    fn death(&mut self, residents: usize) -> Result<f64> {
        let up = self.up(residents);
        let node = up[self.world.random.random_range(0..up.len())];
        self.world.crash(node);
        self.periods_until(node, MemberState::Dead)
    }
}

impl Partition {
    /// Whether the observer takes this life for ended because it was on the other side, or has heard so from those to
    /// whom it was.
    fn explains(&mut self, observer: usize, life: (usize, u64)) -> bool {
        if self.island.contains(&observer) != self.island.contains(&life.0) {
            self.buried.insert(life);
        }
        self.buried.contains(&life)
    }
}

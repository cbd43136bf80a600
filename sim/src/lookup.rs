//! Whether records are found in the table, over how many hops, while nodes come and go.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use anyhow::{Result, ensure};
use mielin_mesh_core::kademlia::{
    Contact, Dht, DhtEvent, DhtTransmit, Found, Key, LookupId, Record,
};
use mielin_mesh_core::limits::REGISTRY_TTL;
use mielin_mesh_core::{Instant, NodeId};
use oxicode::{Decode, Encode};
use rand::RngExt;
use rand::seq::SliceRandom;
use serde::Serialize;

use crate::world::{Clock, Core, Network, Severed, World};

/// What to run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Nodes in the table.
    pub nodes: usize,
    /// Of these, in percent, so many crash during the searches, and as many others join.
    pub churn_percent: f64,
    /// Messages that are lost, in percent.
    pub loss_percent: f64,
    /// Messages that arrive twice, in percent.
    pub duplicate_percent: f64,
    /// Nodes that get to everything late.
    pub slow_nodes: usize,
    /// How late.
    pub slow_by: Duration,
    /// In the middle of the searches a third of the nodes is cut off from the rest for so long.
    pub partition: Duration,
    /// Which ways that cut severs.
    pub partition_cuts: Severed,
    /// Searches.
    pub lookups: usize,
    /// The one source of chance.
    pub seed: u64,
}

impl Scenario {
    /// 2,000 searches, over links that lose and duplicate nothing, while nobody comes or goes.
    #[must_use]
    pub fn new(nodes: usize, seed: u64) -> Scenario {
        Scenario {
            nodes,
            churn_percent: 0.0,
            loss_percent: 0.0,
            duplicate_percent: 0.0,
            slow_nodes: 0,
            slow_by: Duration::ZERO,
            partition: Duration::ZERO,
            partition_cuts: Severed::Both,
            lookups: 2_000,
            seed,
        }
    }
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The share of the searches that found their record, 0 to 1.
    pub success: f64,
    /// Requests that led to the record, one by way of the other, on average.
    pub mean_hops: f64,
    /// The same for the worst search but one in a hundred.
    pub p99_hops: u32,
    /// The share of the searches begun during the partition that found their record; `None` without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition_success: Option<f64>,
    /// The share of those begun after it, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition_healed_success: Option<f64>,
}

/// Between two attempts to join: two requests, both unanswered.
const JOIN_PAUSE: Duration = Duration::from_secs(5);
/// Between the beginning of a cut and the news that those beyond it are dead, and between its end and the news that they
/// live: what membership takes with the WAN preset.
const NEWS_AFTER: Duration = Duration::from_secs(30);
/// Records, each from a node of its own where there are so many.
const RECORDS: usize = 256;

/// A record about a number, kept under the hash of that number.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Numbered {
    number: u64,
    version: u64,
}

fn key_of(number: u64) -> Key {
    Key(blake3::derive_key(
        "mielin 2026 key in a test run",
        &number.to_le_bytes(),
    ))
}

impl Record for Numbered {
    type Subject = u64;

    fn subject(&self) -> u64 {
        self.number
    }

    fn supersedes(&self, other: &Numbered) -> bool {
        self.version > other.version
    }

    fn publisher(&self) -> Option<NodeId> {
        None
    }

    fn gives_way(&self) -> bool {
        false
    }

    fn is_genuine(&self, key: &Key) -> bool {
        *key == key_of(self.number)
    }
}

struct Participant(Dht<Numbered>);

fn id(node: usize) -> NodeId {
    NodeId::of_public_key(&(node as u64).to_le_bytes())
}

fn contact(node: usize) -> Contact {
    let ip = IpAddr::V4(Ipv4Addr::from_bits(node as u32));
    Contact {
        id: id(node),
        addresses: vec![SocketAddr::new(ip, 9_000)],
    }
}

fn node_at(contact: &Contact) -> Option<usize> {
    match contact.addresses.first()?.ip() {
        IpAddr::V4(ip) => Some(ip.to_bits() as usize),
        IpAddr::V6(_) => None,
    }
}

impl Core for Participant {
    type Event = DhtEvent<Numbered>;

    fn receive(&mut self, now: Instant, from: usize, bytes: &[u8]) {
        // An answer that comes after its time limit is refused, and that is all.
        let _ = self.0.handle_message(now, id(from), bytes);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.0.handle_timeout(now);
    }

    fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.0.poll_timeout(now)
    }

    fn poll_transmit(&mut self) -> Option<(usize, Vec<u8>)> {
        let DhtTransmit { to, bytes } = self.0.poll_transmit()?;
        let to = node_at(&to).expect("every address here was given out here");
        Some((to, bytes))
    }

    fn poll_event(&mut self) -> Option<DhtEvent<Numbered>> {
        self.0.poll_event()
    }
}

struct Mesh {
    world: World<Participant>,
    /// Nodes that have met nobody yet, and when they were last told of somebody.
    lonely: BTreeMap<usize, Duration>,
    found: BTreeMap<(usize, LookupId), Found<Numbered>>,
    partition: Option<Partition>,
}

/// A cut through the table.
struct Partition {
    island: BTreeSet<usize>,
    severed: Severed,
    /// What is still to come, in order.
    stages: VecDeque<(Duration, Stage)>,
    /// From when to when.
    cut: Range<Duration>,
}

/// What a cut brings about, in order.
#[derive(Clone, Copy)]
enum Stage {
    /// Messages are lost.
    Cut,
    /// Each side hears that the other is dead.
    Buried,
    /// Messages arrive again.
    Healed,
    /// Each side hears that the other lives.
    Greeted,
}

/// Runs a scenario: the nodes join one after the other, some publish a record each, and then, within one
/// life of a record, the churn happens and records are looked for from nodes at random. Only records whose
/// publisher lives through it are looked for: the others are to vanish.
///
/// # Errors
///
/// There are fewer than two nodes, nobody would stay, or the partition is longer than the searches.
pub fn run(scenario: &Scenario) -> Result<Outcome> {
    ensure!(scenario.nodes >= 2, "a search needs two nodes");
    ensure!(scenario.churn_percent < 100.0, "somebody must stay");
    ensure!(
        scenario.partition < REGISTRY_TTL,
        "the searches take ten minutes"
    );
    let mut mesh = Mesh::grown(scenario);
    let mut order: Vec<usize> = (0..scenario.nodes).collect();
    order.shuffle(&mut mesh.world.random);
    let leaving = (scenario.nodes as f64 * scenario.churn_percent / 100.0) as usize;
    let mut leaving = order.split_off(scenario.nodes - leaving);
    order.truncate(RECORDS);
    for (number, node) in order.iter().enumerate() {
        mesh.publish(*node, number as u64);
    }
    mesh.run_for(Duration::from_secs(60));
    for node in 0..scenario.slow_nodes.min(scenario.nodes) {
        mesh.world.slow_down(node, scenario.slow_by);
    }
    mesh.foresee(scenario);
    let asked = mesh.search(scenario, &mut leaving, order.len());
    Ok(mesh.outcome(&asked))
}

/// A search that was begun.
struct Asked {
    from: usize,
    lookup: LookupId,
    number: u64,
    at: Duration,
}

impl Mesh {
    fn grown(scenario: &Scenario) -> Mesh {
        let network = Network {
            latency_min: Duration::from_millis(5),
            latency_max: Duration::from_millis(60),
            loss_percent: scenario.loss_percent,
            duplicate_percent: scenario.duplicate_percent,
        };
        let mut mesh = Mesh {
            world: World::new(network, scenario.seed),
            lonely: BTreeMap::new(),
            found: BTreeMap::new(),
            partition: None,
        };
        for _ in 0..scenario.nodes {
            mesh.join();
            mesh.run_for(Duration::from_millis(20));
        }
        mesh.run_for(Duration::from_secs(30));
        mesh
    }

    fn join(&mut self) {
        let node = self.world.len();
        let seed = self.world.random.random();
        let mut dht = Dht::new(id(node), Some(contact(node)), seed);
        let clock = Clock {
            skew: Duration::from_millis(self.world.random.random_range(0..3_600_000)),
            drift_ppm: self.world.random.random_range(-200..=200),
        };
        let known = self.someone_up();
        let node = self
            .world
            .start(Participant(Dht::new(id(node), None, 0)), clock);
        self.world.with(node, |core, now| {
            if let Some(known) = known {
                dht.join(now, contact(known));
            }
            core.0 = dht;
        });
        if known.is_some() {
            self.lonely.insert(node, self.world.now());
        }
    }

    /// Tells nodes again of somebody whose way in was lost, as [`Dht::join`] asks for: the driver of a node does so
    /// with the news of membership.
    fn join_again(&mut self) {
        let now = self.world.now();
        let waiting: Vec<(usize, Duration)> = self.lonely.iter().map(|(n, t)| (*n, *t)).collect();
        for (node, told) in waiting {
            let contacts = self.world.with(node, |core, _| core.0.contacts());
            // Gone, or in.
            if contacts != Some(0) {
                self.lonely.remove(&node);
                continue;
            }
            let known = self.someone_up().filter(|known| *known != node);
            let due = now - told >= JOIN_PAUSE;
            if let Some(known) = known.filter(|_| due) {
                self.world
                    .with(node, |core, now| core.0.join(now, contact(known)));
            }
            self.lonely.insert(node, if due { now } else { told });
        }
    }

    /// Somebody who is in: whoever is told of the lonely stays as lonely.
    fn someone_up(&mut self) -> Option<usize> {
        let up: Vec<usize> = (0..self.world.len())
            .filter(|node| self.world.is_up(*node) && !self.lonely.contains_key(node))
            .collect();
        let index = self.world.random.random_range(0..up.len().max(1));
        up.get(index).copied()
    }

    fn publish(&mut self, node: usize, number: u64) {
        let record = Numbered { number, version: 1 };
        self.world.with(node, |core, now| {
            core.0.publish(now, key_of(number), record)
        });
    }

    fn run_for(&mut self, time: Duration) {
        self.join_again();
        let end = self.world.now() + time;
        while self.world.step(end) {
            while let Some((node, event)) = self.world.poll_event() {
                if let DhtEvent::Found(found) = event {
                    self.found.insert((node, found.lookup), found);
                }
            }
        }
    }

    /// Spreads the searches, the crashes and the joins evenly over one life of a record.
    fn search(
        &mut self,
        scenario: &Scenario,
        leaving: &mut Vec<usize>,
        records: usize,
    ) -> Vec<Asked> {
        let mut asked = Vec::new();
        let (lookups, churn) = (scenario.lookups.max(1), leaving.len());
        for index in 0..lookups {
            while churn - leaving.len() < churn * (index + 1) / lookups {
                if let Some(node) = leaving.pop() {
                    self.world.crash(node);
                    self.join();
                }
            }
            self.pass_stages();
            let number = self.world.random.random_range(0..records as u64);
            // One that has just joined, or is about to crash, would be a test of something else.
            let from = self.world.random.random_range(0..scenario.nodes);
            if self.world.is_up(from) && !leaving.contains(&from) {
                let lookup = self
                    .world
                    .with(from, |core, now| core.0.find_value(now, key_of(number)));
                if let Some(Ok(lookup)) = lookup {
                    asked.push(Asked {
                        from,
                        lookup,
                        number,
                        at: self.world.now(),
                    });
                }
            }
            self.run_for(REGISTRY_TTL / lookups as u32);
        }
        self.run_for(Duration::from_secs(60));
        asked
    }

    /// Chooses who will be cut off, if the scenario says so, and when.
    fn foresee(&mut self, scenario: &Scenario) {
        if scenario.partition.is_zero() {
            return;
        }
        let mut nodes: Vec<usize> = (0..scenario.nodes).collect();
        nodes.shuffle(&mut self.world.random);
        nodes.truncate(scenario.nodes / 3);
        let begin = self.world.now() + (REGISTRY_TTL - scenario.partition) / 2;
        let end = begin + scenario.partition;
        let mut stages = VecDeque::from([(begin, Stage::Cut), (end, Stage::Healed)]);
        // A shorter one is over before anybody is dead.
        if scenario.partition > NEWS_AFTER {
            stages.insert(1, (begin + NEWS_AFTER, Stage::Buried));
            stages.push_back((end + NEWS_AFTER, Stage::Greeted));
        }
        self.partition = Some(Partition {
            island: nodes.into_iter().collect(),
            severed: scenario.partition_cuts,
            stages,
            cut: begin..end,
        });
    }

    /// Lets those stages of the partition begin that are due.
    fn pass_stages(&mut self) {
        let now = self.world.now();
        let Some(mut partition) = self.partition.take() else {
            return;
        };
        while let Some((_, stage)) = partition.stages.pop_front_if(|(at, _)| *at <= now) {
            let (island, severed) = (&partition.island, partition.severed);
            match stage {
                Stage::Cut => self.world.cut_off(island.clone(), severed),
                Stage::Healed => self.world.cut_off(BTreeSet::new(), severed),
                Stage::Buried => self.hear(island, false),
                Stage::Greeted => self.hear(island, true),
            }
        }
        self.partition = Some(partition);
    }

    /// Each node hears of those on the other side what membership says, and does what its driver does then.
    fn hear(&mut self, island: &BTreeSet<usize>, alive: bool) {
        let mut up: Vec<usize> = (0..self.world.len()).collect();
        up.retain(|node| self.world.is_up(*node));
        // News come in any order.
        up.shuffle(&mut self.world.random);
        for node in &up {
            let beyond = up
                .iter()
                .filter(|n| island.contains(n) != island.contains(node));
            self.world.with(*node, |core, now| {
                for other in beyond {
                    if alive {
                        core.0.heard_of(now, contact(*other));
                    } else {
                        core.0.remove(now, &id(*other));
                    }
                }
            });
        }
    }

    /// The requests that led to the record, if a search found it.
    fn hops(&self, asked: &Asked) -> Option<u32> {
        let found = self.found.get(&(asked.from, asked.lookup))?;
        let right = found.records.iter().any(|r| r.number == asked.number);
        right.then_some(found.hops)
    }

    fn outcome(&self, asked: &[Asked]) -> Outcome {
        let mut hops: Vec<u32> = asked.iter().filter_map(|asked| self.hops(asked)).collect();
        hops.sort_unstable();
        let sum: u64 = hops.iter().map(|hops| u64::from(*hops)).sum();
        let rounded = |value: f64| (value * 10_000.0).round() / 10_000.0;
        // Of the searches that were begun then, if there were any.
        let success = |when: &dyn Fn(Duration) -> bool| {
            let begun = || asked.iter().filter(|asked| when(asked.at));
            let found = begun().filter(|asked| self.hops(asked).is_some()).count();
            (begun().count() > 0).then(|| rounded(found as f64 / begun().count() as f64))
        };
        let cut = self.partition.as_ref().map(|partition| &partition.cut);
        Outcome {
            success: success(&|_| true).unwrap_or(0.0),
            mean_hops: rounded(sum as f64 / hops.len().max(1) as f64),
            p99_hops: hops.get(hops.len() * 99 / 100).copied().unwrap_or(0),
            partition_success: cut.and_then(|cut| success(&|at| cut.contains(&at))),
            partition_healed_success: cut.and_then(|cut| success(&|at| at >= cut.end)),
        }
    }
}

//! Whether records are found in the table, over how many hops, while nodes come and go.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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

use crate::world::{Clock, Core, Network, World};

/// What to run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Nodes in the table.
    pub nodes: usize,
    /// Of these, in percent, so many crash during the searches, and as many others join.
    pub churn_percent: f64,
    /// Messages that are lost, in percent.
    pub loss_percent: f64,
    /// Searches.
    pub lookups: usize,
    /// The one source of chance.
    pub seed: u64,
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
}

/// Between two attempts to join: two requests, both unanswered.
const JOIN_PAUSE: Duration = Duration::from_secs(5);
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
}

/// Runs a scenario: the nodes join one after the other, some publish a record each, and then, within one
/// life of a record, the churn happens and records are looked for from nodes at random. Only records whose
/// publisher lives through it are looked for: the others are to vanish.
///
/// # Errors
///
/// There are fewer than two nodes.
pub fn run(scenario: &Scenario) -> Result<Outcome> {
    ensure!(scenario.nodes >= 2, "a search needs two nodes");
    ensure!(scenario.churn_percent < 100.0, "somebody must stay");
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
    let asked = mesh.search(scenario, &mut leaving, order.len());
    Ok(mesh.outcome(&asked))
}

/// A search that was begun: who looks, as what, and for which number.
type Asked = (usize, LookupId, u64);

impl Mesh {
    fn grown(scenario: &Scenario) -> Mesh {
        let network = Network {
            latency_min: Duration::from_millis(5),
            latency_max: Duration::from_millis(60),
            loss_percent: scenario.loss_percent,
            duplicate_percent: 0.0,
        };
        let mut mesh = Mesh {
            world: World::new(network, scenario.seed),
            lonely: BTreeMap::new(),
            found: BTreeMap::new(),
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
            let number = self.world.random.random_range(0..records as u64);
            // One that has just joined, or is about to crash, would be a test of something else.
            let from = self.world.random.random_range(0..scenario.nodes);
            if self.world.is_up(from) && !leaving.contains(&from) {
                let lookup = self
                    .world
                    .with(from, |core, now| core.0.find_value(now, key_of(number)));
                if let Some(Ok(lookup)) = lookup {
                    asked.push((from, lookup, number));
                }
            }
            self.run_for(REGISTRY_TTL / lookups as u32);
        }
        self.run_for(Duration::from_secs(60));
        asked
    }

    fn outcome(&self, asked: &[Asked]) -> Outcome {
        let mut hops: Vec<u32> = asked
            .iter()
            .filter_map(|(from, lookup, number)| {
                let found = self.found.get(&(*from, *lookup))?;
                let right = found.records.iter().any(|r| r.number == *number);
                right.then_some(found.hops)
            })
            .collect();
        hops.sort_unstable();
        let sum: u64 = hops.iter().map(|hops| u64::from(*hops)).sum();
        let rounded = |value: f64| (value * 10_000.0).round() / 10_000.0;
        Outcome {
            success: rounded(hops.len() as f64 / asked.len().max(1) as f64),
            mean_hops: rounded(sum as f64 / hops.len().max(1) as f64),
            p99_hops: hops.get(hops.len() * 99 / 100).copied().unwrap_or(0),
        }
    }
}

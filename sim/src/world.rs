//! Time, the network and the nodes: an event queue over a virtual clock.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use mielin_mesh_core::Instant;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A sans-IO core, in the terms of this world: nodes are numbered.
pub trait Core {
    /// What it reports.
    type Event;

    /// Takes a datagram.
    fn receive(&mut self, now: Instant, from: usize, bytes: &[u8]);
    /// Lets time pass.
    fn handle_timeout(&mut self, now: Instant);
    /// When it wants to be woken.
    fn poll_timeout(&self, now: Instant) -> Option<Instant>;
    /// What it sends, and to whom.
    fn poll_transmit(&mut self) -> Option<(usize, Vec<u8>)>;
    /// What happened.
    fn poll_event(&mut self) -> Option<Self::Event>;
}

/// How every link behaves.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// The shortest way.
    pub latency_min: Duration,
    /// The longest. Each datagram takes its own time between the two, so datagrams overtake each other.
    pub latency_max: Duration,
    /// Datagrams that are lost, in percent.
    pub loss_percent: f64,
    /// Datagrams that arrive twice, in percent.
    pub duplicate_percent: f64,
}

/// Which ways a cut through the whole world severs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Severed {
    /// Nothing crosses it.
    #[default]
    Both,
    /// What those who are cut off say is lost; they hear the others.
    Outward,
    /// What is said to those who are cut off is lost; the others hear them.
    Inward,
}

/// A node's clock: it began with another reading, and runs faster or slower.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// Its reading at the beginning of the world.
    pub skew: Duration,
    /// Microseconds that it gains in a second; negative when it loses them.
    pub drift_ppm: i64,
}

impl Clock {
    fn read(self, at: Duration) -> Instant {
        let rate = i128::from(1_000_000 + self.drift_ppm);
        let nanos = at.as_nanos() as i128 * rate / 1_000_000;
        Instant::from_start(self.skew + Duration::from_nanos(nanos as u64))
    }

    /// The first moment at which the clock shows `reading` or later.
    fn when(self, reading: Instant) -> Duration {
        let rate = i128::from(1_000_000 + self.drift_ppm);
        let since = reading.since_start().saturating_sub(self.skew);
        let nanos = since.as_nanos().min(u128::from(u64::MAX)) as i128 * 1_000_000;
        Duration::from_nanos(((nanos + rate - 1) / rate) as u64)
    }
}

/// A node of the world.
#[derive(Debug)]
struct Node<C> {
    /// `None` once it has crashed.
    core: Option<C>,
    clock: Clock,
    /// So much later does it get to whatever it has to do.
    slow: Duration,
    /// When it is to be woken; an event in the queue with another time is void.
    wake: Option<Duration>,
}

#[derive(Debug)]
enum What {
    Wake,
    Arrive { from: usize, bytes: Vec<u8> },
}

#[derive(Debug)]
struct Due {
    at: Duration,
    sequence: u64,
    node: usize,
    what: What,
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

/// What went over the network, lost or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams.
    pub messages: u64,
    /// Their bytes, without the headers of the layers below.
    pub bytes: u64,
}

/// Nodes, links between each two of them, and what is on its way.
#[derive(Debug)]
pub struct World<C: Core> {
    now: Duration,
    nodes: Vec<Node<C>>,
    network: Network,
    /// Directed links that carry nothing: from, to.
    cuts: BTreeSet<(usize, usize)>,
    /// Nodes that a cut separates from all others.
    island: BTreeSet<usize>,
    /// Which ways that cut severs.
    severed: Severed,
    queue: BinaryHeap<Reverse<Due>>,
    sequence: u64,
    traffic: Traffic,
    events: VecDeque<(usize, C::Event)>,
    /// The one source of chance.
    pub random: StdRng,
}

impl<C: Core> World<C> {
    /// A world without nodes.
    #[must_use]
    pub fn new(network: Network, seed: u64) -> World<C> {
        World {
            now: Duration::ZERO,
            nodes: Vec::new(),
            network,
            cuts: BTreeSet::new(),
            island: BTreeSet::new(),
            severed: Severed::Both,
            queue: BinaryHeap::new(),
            sequence: 0,
            traffic: Traffic::default(),
            events: VecDeque::new(),
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// True time.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.now
    }

    /// What was sent since the beginning.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// The number of nodes, crashed ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether a node has not crashed.
    #[must_use]
    pub fn is_up(&self, node: usize) -> bool {
        self.nodes.get(node).is_some_and(|node| node.core.is_some())
    }

    /// Starts a node and gives its number.
    pub fn start(&mut self, core: C, clock: Clock) -> usize {
        let node = self.nodes.len();
        self.nodes.push(Node {
            core: Some(core),
            clock,
            slow: Duration::ZERO,
            wake: None,
        });
        self.settle(node);
        node
    }

    /// Ends a node without a word; gives what it was, of which what it had on a disk may come back with it.
    pub fn crash(&mut self, node: usize) -> Option<C> {
        self.nodes[node].wake = None;
        self.nodes[node].core.take()
    }

    /// Starts a node again that has crashed, with the clock that it had.
    pub fn restart(&mut self, node: usize, core: impl FnOnce(Instant) -> C) {
        let it = &mut self.nodes[node];
        it.core = Some(core(it.clock.read(self.now)));
        self.settle(node);
    }

    /// A node that is up, to look at.
    #[must_use]
    pub fn core(&self, node: usize) -> Option<&C> {
        self.nodes.get(node)?.core.as_ref()
    }

    /// From now on a node gets to everything so much later.
    pub fn slow_down(&mut self, node: usize, by: Duration) {
        self.nodes[node].slow = by;
    }

    /// From now on nothing gets from one node to the other; the way back stays as it is.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    /// Ends the cut from one node to the other.
    pub fn mend(&mut self, from: usize, to: usize) {
        self.cuts.remove(&(from, to));
    }

    /// Ends all cuts.
    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    /// From now on nothing gets from these nodes to others, or back, or both; nobody is cut off when there are none.
    pub fn cut_off(&mut self, island: BTreeSet<usize>, severed: Severed) {
        self.island = island;
        self.severed = severed;
    }

    /// Whether the cut through the whole world swallows what one node sends to another.
    fn is_severed(&self, from: usize, to: usize) -> bool {
        match (self.island.contains(&from), self.island.contains(&to)) {
            (true, false) => self.severed != Severed::Inward,
            (false, true) => self.severed != Severed::Outward,
            _ => false,
        }
    }

    /// Has a node that is up do something at its own time.
    pub fn with<T>(&mut self, node: usize, action: impl FnOnce(&mut C, Instant) -> T) -> Option<T> {
        let it = &mut self.nodes[node];
        let result = action(it.core.as_mut()?, it.clock.read(self.now));
        self.settle(node);
        Some(result)
    }

    /// The next thing that a node reported.
    pub fn poll_event(&mut self) -> Option<(usize, C::Event)> {
        self.events.pop_front()
    }

    /// Lets the next thing happen that is due by `end`; false, and it is `end`, when there is none.
    pub fn step(&mut self, end: Duration) -> bool {
        let due = match self.queue.peek() {
            Some(Reverse(due)) if due.at <= end => self.queue.pop(),
            _ => None,
        };
        let Some(Reverse(due)) = due else {
            self.now = end;
            return false;
        };
        self.now = due.at;
        let Node {
            core: Some(core),
            clock,
            wake,
            ..
        } = &mut self.nodes[due.node]
        else {
            return true;
        };
        let now = clock.read(self.now);
        match due.what {
            What::Wake if *wake == Some(due.at) => {
                *wake = None;
                core.handle_timeout(now);
            }
            What::Wake => return true,
            What::Arrive { from, bytes } => core.receive(now, from, &bytes),
        }
        self.settle(due.node);
        true
    }

    /// Takes from a node what it sends and reports, and sets its alarm.
    fn settle(&mut self, node: usize) {
        let Some(mut core) = self.nodes[node].core.take() else {
            return;
        };
        while let Some((to, bytes)) = core.poll_transmit() {
            self.send(node, to, bytes);
        }
        while let Some(event) = core.poll_event() {
            self.events.push_back((node, event));
        }
        let Node { clock, slow, .. } = self.nodes[node];
        let timeout = core.poll_timeout(clock.read(self.now));
        self.nodes[node].core = Some(core);
        if let Some(timeout) = timeout {
            let at = clock.when(timeout).max(self.now) + slow;
            // One that is set for an earlier moment stays: the node asks again then.
            if self.nodes[node].wake.is_none_or(|wake| at < wake) {
                self.nodes[node].wake = Some(at);
                self.push(at, node, What::Wake);
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        self.traffic.messages += 1;
        self.traffic.bytes += bytes.len() as u64;
        let carried = !self.cuts.contains(&(from, to)) && !self.is_severed(from, to);
        if !self.is_up(to) || !carried {
            return;
        }
        if self.happens(self.network.duplicate_percent) {
            self.fly(from, to, bytes.clone());
        }
        self.fly(from, to, bytes);
    }

    fn fly(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        if self.happens(self.network.loss_percent) {
            return;
        }
        let Network {
            latency_min,
            latency_max,
            ..
        } = self.network;
        let micros = latency_min.as_micros() as u64..=latency_max.as_micros() as u64;
        let latency = Duration::from_micros(self.random.random_range(micros));
        let at = self.now + latency + self.nodes[to].slow;
        self.push(at, to, What::Arrive { from, bytes });
    }

    fn happens(&mut self, percent: f64) -> bool {
        percent > 0.0 && self.random.random_range(0.0..100.0) < percent
    }

    fn push(&mut self, at: Duration, node: usize, what: What) {
        self.sequence += 1;
        self.queue.push(Reverse(Due {
            at,
            sequence: self.sequence,
            node,
            what,
        }));
    }
}

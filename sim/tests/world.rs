//! Which messages a cut through the world swallows.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use mielin_mesh_core::Instant;
use mielin_sim::world::{Clock, Core, Network, Severed, World};

/// Says what it is told to, and reports from whom it heard.
#[derive(Default)]
struct Speaker {
    to_say: VecDeque<usize>,
    heard: VecDeque<usize>,
}

impl Core for Speaker {
    type Event = usize;

    fn receive(&mut self, _: Instant, from: usize, _: &[u8]) {
        self.heard.push_back(from);
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_timeout(&self, _: Instant) -> Option<Instant> {
        None
    }

    fn poll_transmit(&mut self) -> Option<(usize, Vec<u8>)> {
        self.to_say.pop_front().map(|to| (to, Vec::new()))
    }

    fn poll_event(&mut self) -> Option<usize> {
        self.heard.pop_front()
    }
}

/// From whom to whom something gets when all four speak to all, the first two being cut off.
fn carried(severed: Severed) -> BTreeSet<(usize, usize)> {
    let network = Network {
        latency_min: Duration::from_millis(1),
        latency_max: Duration::from_millis(2),
        loss_percent: 0.0,
        duplicate_percent: 0.0,
    };
    let mut world = World::new(network, 1);
    for _ in 0..4 {
        world.start(Speaker::default(), Clock::default());
    }
    world.cut_off(BTreeSet::from([0, 1]), severed);
    for node in 0..4 {
        world.with(node, |speaker, _| {
            speaker.to_say = (0..4).filter(|other| *other != node).collect();
        });
    }
    while world.step(Duration::from_secs(1)) {}
    std::iter::from_fn(|| world.poll_event().map(|(to, from)| (from, to))).collect()
}

#[test]
fn a_cut_swallows_what_crosses_it_in_the_ways_that_it_severs() {
    let (near, far) = ([(0, 1), (1, 0)], [(2, 3), (3, 2)]);
    let outward = [(0, 2), (0, 3), (1, 2), (1, 3)];
    let inward = outward.map(|(from, to)| (to, from));
    let within = || near.into_iter().chain(far);
    assert_eq!(carried(Severed::Both), within().collect());
    assert_eq!(carried(Severed::Outward), within().chain(inward).collect());
    assert_eq!(carried(Severed::Inward), within().chain(outward).collect());
}

//! Lives of a leaf and its host: whatever goes wrong and whenever, an agent has one owner.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use std::println;

use super::line::{Line, Link, Model};
use super::world::{FAULTS, Faults, ORDINARY, Will, World, sum};

/// More lives, or others: how many, or `first..last`.
fn seeds(usual: u64) -> core::ops::Range<u64> {
    let Ok(text) = std::env::var("HANDOVER_SEEDS") else {
        return 0..usual;
    };
    let number = |text: &str| text.parse().expect("HANDOVER_SEEDS is a number or a range");
    match text.split_once("..") {
        Some((first, last)) => number(first)..number(last),
        None => 0..number(&text),
    }
}

/// Says which seed it was, if one fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the seed was {}", self.0);
        }
    }
}

fn live(seeds: core::ops::Range<u64>, line: impl Fn(u64) -> Box<dyn Line>) {
    let mut seen = BTreeMap::new();
    let lives = seeds.end - seeds.start;
    for seed in seeds {
        let running = Seed(seed);
        let agents = 1 + (seed % 4) as usize;
        let mut world = World::new(seed, agents, line(seed));
        let often = [50, 200, 1_000][(seed % 3) as usize];
        world.live(Will::Any, Faults::OneIn(often), 600);
        world.come_to_rest(Will::Rest);
        sum(&mut seen, world.seen());
        core::mem::forget(running);
    }
    println!("{lives} lives: {seen:#?}");
    if lives >= 40 {
        for what in ORDINARY {
            assert!(seen.contains_key(what), "never: {what}");
        }
    }
}

#[test]
fn an_agent_has_one_owner_in_every_life() {
    live(seeds(1_500), |seed| Box::new(Model::new(seed)));
}

#[test]
fn an_agent_has_one_owner_over_the_leaf_link() {
    live(seeds(60), |seed| Box::new(Link::new(seed)));
}

/// Each fault at each step of a journey there and back.
#[test]
fn an_agent_has_one_owner_whenever_something_goes_wrong() {
    let mut runs = 0;
    for seed in seeds(6) {
        let mut steps = 0;
        let world = || World::new(seed, 1, Box::new(Model::new(seed)));
        let mut check = |faults| {
            let mut world = world();
            let running = Seed(seed);
            world.live(Will::ThereAndBack, faults, 150);
            let lived = world.steps();
            world.come_to_rest(Will::ThereAndBack);
            assert!(world.all_are_back());
            core::mem::forget(running);
            runs += 1;
            lived
        };
        steps = steps.max(check(Faults::Never));
        for fault in FAULTS {
            for step in 1..=steps {
                check(Faults::At(step, fault));
            }
        }
    }
    println!("{runs} journeys");
}

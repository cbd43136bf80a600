#![allow(clippy::unwrap_used, clippy::print_stdout)]

use alloc::format;
use alloc::vec;
use std::println;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::{Identity, NodeRole};

fn node(index: u8) -> NodeId {
    NodeId([index; 32])
}

fn agent(index: u8) -> AgentId {
    AgentId([index; 16])
}

fn at(seconds: u64) -> Instant {
    Instant::from_start(Duration::from_secs(seconds))
}

fn record(who: u8, holder: u8, epoch: u64, revision: u64) -> LocationRecord {
    LocationRecord {
        agent: agent(who),
        name: Name::new(format!("agent-{who}")).unwrap(),
        module: [who; 32],
        owner: node(0),
        started_ms: 0,
        node: node(holder),
        epoch: Epoch(epoch),
        revision,
        state: AgentState::Running,
    }
}

fn member(index: u8, state: MemberState) -> Member {
    Member {
        identity: Identity {
            id: node(index),
            name: Name::new(format!("node-{index}")).unwrap(),
            role: NodeRole::Edge,
            address: ([127, 0, 0, 1], 1).into(),
            generation: 1,
            departed: None,
            revision: 0,
            relays: Vec::new(),
        },
        state,
        since: Instant::START,
    }
}

/// The result of one record from a peer.
fn merged(registry: &mut AgentRegistry, from: u8, record: LocationRecord) -> Merge {
    let bytes = codec::encode(&Message::Records(vec![record]));
    registry.handle_message(at(1), node(from), &bytes).unwrap()[0]
}

#[test]
fn the_higher_epoch_wins_and_within_one_only_the_holder_revises() {
    let mut registry = AgentRegistry::new(node(9));
    let mut check = |from, record, expected| {
        assert_eq!(merged(&mut registry, from, record), expected);
        let location = registry
            .locate(&agent(1))
            .map(|location| location.record.clone());
        location.map(|r| (r.node, r.epoch.0, r.revision))
    };
    let not_holder = Merge::Refused(MergeRefusal::NotHolder);
    let held = Merge::Refused(MergeRefusal::HeldByAnother);
    assert_eq!(check(2, record(1, 1, 3, 1), not_holder), None);
    assert_eq!(
        check(9, record(1, 9, 3, 1), not_holder),
        None,
        "nobody announces for this node"
    );
    let first = Some((node(1), 3, 5));
    assert_eq!(check(1, record(1, 1, 3, 5), Merge::Accepted), first);
    assert_eq!(check(1, record(1, 1, 3, 5), Merge::Refreshed), first);
    assert_eq!(check(1, record(1, 1, 3, 4), Merge::Stale), first);
    assert_eq!(check(1, record(1, 1, 2, 9), Merge::Stale), first);
    assert_eq!(check(2, record(1, 2, 3, 9), held), first);
    assert_eq!(check(2, record(1, 2, 2, 9), Merge::Stale), first);
    assert_eq!(
        check(1, record(1, 1, 3, 6), Merge::Accepted),
        Some((node(1), 3, 6))
    );
    assert_eq!(
        check(2, record(1, 2, 4, 1), Merge::Accepted),
        Some((node(2), 4, 1))
    );
    assert_eq!(
        check(1, record(1, 1, 3, 7), Merge::Stale),
        Some((node(2), 4, 1))
    );
}

#[test]
fn a_stale_holder_is_fenced_and_cannot_announce() {
    let mut registry = AgentRegistry::new(node(1));
    registry.announce(at(0), record(1, 1, 3, 0)).unwrap();
    assert_eq!(
        registry.announce(at(0), record(2, 2, 3, 0)),
        Err(RegistryError::NotHolder)
    );
    while registry.poll_event().is_some() {}
    let newer = record(1, 2, 5, 1);
    assert_eq!(merged(&mut registry, 2, newer.clone()), Merge::Accepted);
    let fenced = RegistryEvent::Fenced {
        agent: agent(1),
        ours: Epoch(3),
        by: newer,
    };
    assert_eq!(registry.poll_event(), Some(fenced));
    for epoch in [3, 4, 5] {
        let refused = registry.announce(at(2), record(1, 1, epoch, 0));
        assert_eq!(
            refused,
            Err(RegistryError::Superseded {
                node: node(2),
                epoch: Epoch(5)
            })
        );
    }
    registry.announce(at(2), record(1, 1, 6, 0)).unwrap();
}

#[test]
fn revisions_rise_and_a_restart_outnumbers_its_former_self() {
    let mut registry = AgentRegistry::new(node(1));
    for expected in [1_000, 1_001, 1_002] {
        registry.announce(at(0), record(1, 1, 0, 1_000)).unwrap();
        assert_eq!(
            registry.locate(&agent(1)).unwrap().record.revision,
            expected
        );
    }
    registry.announce(at(0), record(1, 1, 0, 5_000)).unwrap();
    assert_eq!(registry.locate(&agent(1)).unwrap().record.revision, 5_000);
}

#[test]
fn a_record_lives_ten_minutes_and_the_dead_keep_theirs_as_unreachable() {
    let mut registry = AgentRegistry::new(node(9));
    registry.member_changed(at(0), &member(1, MemberState::Alive));
    assert_eq!(
        merged(&mut registry, 1, record(1, 1, 0, 0)),
        Merge::Accepted
    );
    assert!(registry.locate(&agent(1)).unwrap().reachable);
    registry.member_changed(at(2), &member(1, MemberState::Suspect));
    assert!(registry.locate(&agent(1)).unwrap().reachable);
    while registry.poll_event().is_some() {}
    registry.member_changed(at(3), &member(1, MemberState::Dead));
    let changed = registry.poll_event();
    assert!(matches!(changed, Some(RegistryEvent::LocationChanged(l)) if !l.reachable));
    registry.handle_timeout(at(600));
    assert!(registry.locate(&agent(1)).is_some());
    registry.handle_timeout(at(601));
    let expired = RegistryEvent::LocationExpired(record(1, 1, 0, 0));
    assert_eq!(registry.poll_event(), Some(expired));
    assert!(registry.locate(&agent(1)).is_none());
}

#[test]
fn the_agents_of_a_stopped_node_wait_for_it() {
    let mut registry = AgentRegistry::new(node(9));
    registry.member_changed(at(0), &member(1, MemberState::Alive));
    merged(&mut registry, 1, record(1, 1, 0, 0));
    registry.member_changed(at(3), &member(1, MemberState::Stopped));
    registry.handle_timeout(at(3_600));
    assert!(!registry.locate(&agent(1)).unwrap().reachable);
    registry.handle_timeout(at(3 + DEAD_FORGOTTEN_AFTER.as_secs()));
    assert!(
        registry.locate(&agent(1)).is_none(),
        "membership has forgotten the node too"
    );
}

#[test]
fn names_and_prefixes_find_agents() {
    let mut registry = AgentRegistry::new(node(9));
    for (who, byte) in [(1, 0xab), (2, 0xac), (3, 0xb0)] {
        let mut record = record(who, 1, 0, 0);
        record.agent.0[0] = byte;
        assert_eq!(merged(&mut registry, 1, record), Merge::Accepted);
    }
    let found = |prefix: &str| registry.by_prefix(prefix).len();
    let all = ["", "a", "AB", "ac02", "b", "c", "xy", "abz"].map(found);
    assert_eq!(all, [3, 2, 1, 1, 1, 0, 0, 0]);
    let whole = registry.by_name("agent-2")[0].record.agent.to_string();
    assert_eq!((found(&whole), found(&format!("{whole}0"))), (1, 0));
    assert!(registry.by_name("agent").is_empty());
}

#[test]
fn one_node_cannot_fill_the_registry() {
    let mut registry = AgentRegistry::new(node(9));
    for index in 0..=REGISTRY_RECORDS_PER_NODE_MAX {
        let mut record = record(1, 1, 0, 0);
        record.agent.0[..8].copy_from_slice(&index.to_le_bytes());
        let expected = if index < REGISTRY_RECORDS_PER_NODE_MAX {
            Merge::Accepted
        } else {
            Merge::Refused(MergeRefusal::TooMany)
        };
        assert_eq!(merged(&mut registry, 1, record), expected);
    }
    assert_eq!(
        merged(&mut registry, 2, record(7, 2, 0, 0)),
        Merge::Accepted
    );
}

/// A few nodes that hold and pass on agents over a network that loses messages.
struct Nodes {
    rng: StdRng,
    now: Instant,
    registries: Vec<AgentRegistry>,
    alive: Vec<bool>,
    flying: Vec<(NodeId, RegistryTransmit)>,
    /// The truth: holder and epoch of each agent.
    truth: BTreeMap<AgentId, (u8, u64)>,
    loss_percent: u32,
}

impl Nodes {
    fn new(count: u8, seed: u64) -> Nodes {
        println!("seed {seed}");
        let mut nodes = Nodes {
            rng: StdRng::seed_from_u64(seed),
            now: Instant::START,
            registries: (0..count)
                .map(|index| AgentRegistry::new(node(index)))
                .collect(),
            alive: vec![true; usize::from(count)],
            flying: Vec::new(),
            truth: BTreeMap::new(),
            loss_percent: 20,
        };
        for index in 0..count {
            nodes.tell(index, MemberState::Alive);
        }
        nodes
    }

    fn tell(&mut self, about: u8, state: MemberState) {
        for registry in &mut self.registries {
            registry.member_changed(self.now, &member(about, state));
        }
    }

    fn collect(&mut self) {
        for (index, registry) in self.registries.iter_mut().enumerate() {
            while let Some(transmit) = registry.poll_transmit() {
                assert!(transmit.bytes.len() < 20_000);
                let lost = self.rng.random_range(0..100) < self.loss_percent;
                if !lost && self.alive[index] {
                    self.flying
                        .push((node(u8::try_from(index).unwrap()), transmit));
                }
            }
            while registry.poll_event().is_some() {}
        }
    }

    fn step(&mut self) {
        self.collect();
        if !self.flying.is_empty() && self.rng.random_range(0..4) > 0 {
            let index = self.rng.random_range(0..self.flying.len());
            let (from, transmit) = self.flying.swap_remove(index);
            let to = usize::from(transmit.to.0[0]);
            if self.alive[to] {
                self.registries[to]
                    .handle_message(self.now, from, &transmit.bytes)
                    .unwrap();
            }
            return;
        }
        self.now = self.now + Duration::from_millis(self.rng.random_range(1..2_000));
        for (registry, alive) in self.registries.iter_mut().zip(&self.alive) {
            if *alive && registry.poll_timeout().is_some_and(|at| at <= self.now) {
                registry.handle_timeout(self.now);
            }
        }
    }

    /// Spawns an agent, revises one or hands one over.
    fn act(&mut self) {
        let who = self.rng.random_range(0..10);
        let holders: Vec<u8> = (0..u8::try_from(self.alive.len()).unwrap())
            .filter(|index| self.alive[usize::from(*index)])
            .collect();
        let holder = holders[self.rng.random_range(0..holders.len())];
        let truth = self.truth.entry(agent(who)).or_insert((holder, 0));
        if !self.alive[usize::from(truth.0)] {
            return;
        }
        if self.rng.random() && truth.0 != holder {
            *truth = (holder, truth.1 + 1);
        }
        let (holder, epoch) = *truth;
        let record = record(who, holder, epoch, 0);
        self.registries[usize::from(holder)]
            .announce(self.now, record)
            .unwrap();
    }

    fn agree(&self) -> bool {
        self.registries
            .iter()
            .zip(&self.alive)
            .filter(|(_, alive)| **alive)
            .all(|(registry, _)| {
                self.truth.iter().all(|(agent, (holder, epoch))| {
                    registry.locate(agent).is_some_and(|location| {
                        location.record.node == node(*holder)
                            && location.record.epoch == Epoch(*epoch)
                            && location.reachable == self.alive[usize::from(*holder)]
                            && Some(location.record.revision)
                                == self.registries[usize::from(*holder)]
                                    .locate(agent)
                                    .map(|own| own.record.revision)
                    })
                })
            })
    }
}

#[test]
fn everybody_comes_to_know_the_truth_over_a_lossy_network() {
    for seed in 0..30 {
        let mut nodes = Nodes::new(5, seed);
        for _ in 0..60 {
            nodes.act();
            for _ in 0..nodes.rng.random_range(0..20) {
                nodes.step();
            }
        }
        let began = nodes.now;
        while !nodes.agree() {
            nodes.step();
            let took = nodes.now.since(began);
            // Digests go to one of four peers at a time; some are lost, and so are answers.
            assert!(
                took < REGISTRY_TTL,
                "seed {seed}: no agreement after {took:?}"
            );
        }
        // A node dies; the others keep its records until they expire, and forget them then.
        nodes.alive[0] = false;
        nodes.tell(0, MemberState::Dead);
        assert!(nodes.agree(), "seed {seed}");
        let gone = nodes.now + REGISTRY_TTL + REGISTRY_TTL;
        while nodes.now < gone {
            nodes.step();
        }
        // All refreshes of a record may have been lost; then a digest brings it back. Those of the dead stay away.
        let is_right = |nodes: &Nodes| {
            let knows = |agent| nodes.registries[1].locate(agent).is_some();
            nodes
                .truth
                .iter()
                .all(|(agent, (holder, _))| knows(agent) == (*holder != 0))
        };
        while !is_right(&nodes) {
            nodes.step();
            let took = nodes.now.since(gone);
            assert!(
                took < REGISTRY_TTL,
                "seed {seed}: still not right after {took:?}"
            );
        }
    }
}

#[test]
fn a_new_member_is_told_everything_in_bounded_messages() {
    let mut old = AgentRegistry::new(node(1));
    for who in 0..200 {
        old.announce(at(0), record(who, 1, 0, 0)).unwrap();
    }
    old.withdraw(at(0), &agent(0));
    assert_eq!(old.poll_transmit(), None, "nobody is there");
    let mut new = AgentRegistry::new(node(2));
    old.member_changed(at(1), &member(2, MemberState::Alive));
    let mut count = 0;
    while let Some(transmit) = old.poll_transmit() {
        assert_eq!(transmit.to, node(2));
        new.handle_message(at(1), node(1), &transmit.bytes).unwrap();
        count += 1;
    }
    assert_eq!((count, new.iter().count()), (4, 199));
    // The same member again is no news; a new generation of it is.
    old.member_changed(at(2), &member(2, MemberState::Suspect));
    assert_eq!(old.poll_transmit(), None);
    let mut reborn = member(2, MemberState::Alive);
    reborn.identity.generation = 2;
    old.member_changed(at(3), &reborn);
    assert!(old.poll_transmit().is_some());
}

#[test]
fn a_withdrawn_agent_is_listed_nowhere_and_old_news_do_not_bring_it_back() {
    let mut holder = AgentRegistry::new(node(1));
    let mut peer = AgentRegistry::new(node(2));
    holder.member_changed(at(0), &member(2, MemberState::Alive));
    peer.member_changed(at(0), &member(1, MemberState::Alive));
    let tell = |holder: &mut AgentRegistry, peer: &mut AgentRegistry| {
        let mut told = 0;
        while let Some(transmit) = holder.poll_transmit() {
            told += 1;
            peer.handle_message(at(1), node(1), &transmit.bytes)
                .unwrap();
        }
        told
    };
    holder.announce(at(0), record(7, 1, 3, 0)).unwrap();
    assert_eq!(tell(&mut holder, &mut peer), 1);
    assert!(peer.locate(&agent(7)).is_some());
    holder.withdraw(at(1), &agent(7));
    assert_eq!(tell(&mut holder, &mut peer), 1);
    for registry in [&holder, &peer] {
        assert_eq!(registry.locate(&agent(7)), None);
        assert_eq!(registry.iter().count(), 0);
        assert!(registry.by_name("agent-7").is_empty());
        assert!(registry.by_prefix("0707").is_empty());
        assert_eq!(
            registry.digest_of(&node(1)),
            holder.digest_of(&node(1)),
            "both know of the removal"
        );
    }
    assert_eq!(merged(&mut peer, 1, record(7, 1, 3, 0)), Merge::Stale);
    assert_eq!(
        holder.announce(at(1), record(7, 1, 3, 0)),
        Err(RegistryError::Removed)
    );
    // Nobody can withdraw what another node holds, and a removal is not repeated.
    peer.withdraw(at(1), &agent(7));
    holder.handle_timeout(at(1) + REGISTRY_TTL);
    assert_eq!((holder.locations.len(), peer.locations.len()), (0, 1));
}

#[test]
fn removed_agents_give_way_to_new_ones() {
    let mut registry = AgentRegistry::new(node(1));
    let numbered = |index: usize| {
        let mut who = record(0, 1, 1, 0);
        who.agent.0[..8].copy_from_slice(&index.to_le_bytes());
        who
    };
    for index in 0..REGISTRY_RECORDS_PER_NODE_MAX {
        registry.announce(at(0), numbered(index)).unwrap();
    }
    let next = numbered(REGISTRY_RECORDS_PER_NODE_MAX);
    assert_eq!(
        registry.announce(at(1), next.clone()),
        Err(RegistryError::TooMany)
    );
    registry.withdraw(at(1), &numbered(5).agent);
    registry.announce(at(1), next).unwrap();
    assert_eq!(registry.iter().count(), REGISTRY_RECORDS_PER_NODE_MAX);
}

#[test]
fn a_node_that_comes_back_without_its_agents_leaves_no_ghosts() {
    let mut registry = AgentRegistry::new(node(9));
    registry.member_changed(at(0), &member(1, MemberState::Alive));
    for index in [1, 2] {
        assert_eq!(
            merged(&mut registry, 1, record(index, 1, 0, 0)),
            Merge::Accepted
        );
    }
    while registry.poll_transmit().is_some() {}
    let mut reborn = member(1, MemberState::Alive);
    reborn.identity.generation = 2;
    registry.member_changed(at(1), &reborn);
    assert!(registry.locate(&agent(1)).is_none());
    let asked = registry.poll_transmit().unwrap();
    assert_eq!(asked.to, node(1));
    // It kept one of the two.
    let mut back = AgentRegistry::new(node(1));
    back.announce(at(1), record(1, 1, 1, 0)).unwrap();
    while back.poll_transmit().is_some() {}
    back.handle_message(at(1), node(9), &asked.bytes).unwrap();
    let answer = back.poll_transmit().unwrap();
    registry
        .handle_message(at(1), node(1), &answer.bytes)
        .unwrap();
    assert!(registry.locate(&agent(1)).unwrap().reachable);
    assert!(registry.locate(&agent(2)).is_none());
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut registry = AgentRegistry::new(node(1));
        let _ = registry.handle_message(at(0), node(2), &bytes);
    }
}

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::{format, vec};
use std::println;

use rand::RngExt;

use super::*;
use crate::limits::{LAN_SUSPECT_TO_DEAD, MEMBERS_MAX};

/// A group on a virtual clock over a network that loses, delays and cuts.
struct Group {
    seed: u64,
    rng: StdRng,
    now: Instant,
    nodes: BTreeMap<NodeId, Membership>,
    /// Datagrams on their way, by arrival and a running number.
    flying: BTreeMap<(Instant, u64), (NodeId, Transmit)>,
    sent: u64,
    /// Datagrams sent, by their first byte.
    sent_by_kind: [u64; 3],
    /// Whether everything but comparisons is lost.
    swim_lost: bool,
    loss_percent: u32,
    /// Nodes that neither send nor receive.
    silent: BTreeSet<NodeId>,
    /// A node that gets to everything so much later.
    slow: Option<(NodeId, Duration)>,
    /// When set, only nodes on the same side hear each other.
    side: BTreeSet<NodeId>,
    split: bool,
    events: Vec<(Instant, NodeId, MembershipEvent)>,
    /// A moment at which time stops although nothing is due.
    wake: Option<Instant>,
}

fn identity(index: u32, generation: u64) -> Identity {
    Identity {
        id: NodeId::of_public_key(&index.to_le_bytes()),
        name: Name::new(format!("node-{index}")).unwrap(),
        role: NodeRole::Edge,
        address: ([127, 0, 0, 1], 1000 + u16::try_from(index).unwrap()).into(),
        generation,
        departed: None,
        revision: 0,
        relays: Vec::new(),
    }
}

fn id(index: u32) -> NodeId {
    identity(index, 0).id
}

impl Group {
    /// `count` nodes; all but the first announce themselves to the first.
    fn new(count: u32, preset: Preset, loss_percent: u32, seed: u64) -> Group {
        println!("seed {seed}");
        let mut group = Group {
            seed,
            rng: StdRng::seed_from_u64(seed),
            now: Instant::START,
            nodes: BTreeMap::new(),
            flying: BTreeMap::new(),
            sent: 0,
            sent_by_kind: [0; 3],
            swim_lost: false,
            loss_percent,
            silent: BTreeSet::new(),
            slow: None,
            side: BTreeSet::new(),
            split: false,
            events: Vec::new(),
            wake: None,
        };
        for index in 0..count {
            group.start(index, 1, preset);
        }
        group
    }

    fn start(&mut self, index: u32, generation: u64, preset: Preset) {
        let seed = self.rng.random();
        let node = Membership::new(identity(index, generation), preset, seed).unwrap();
        self.nodes.insert(id(index), node);
    }

    fn join(&mut self, index: u32) {
        let first = identity(0, 0);
        self.nodes
            .get_mut(&id(index))
            .unwrap()
            .announce(self.now, first.id, first.address);
        self.collect();
    }

    fn collect(&mut self) {
        for (from, node) in &mut self.nodes {
            while let Some(event) = node.poll_event() {
                self.events.push((self.now, *from, event));
            }
            while let Some(transmit) = node.poll_transmit() {
                assert!(transmit.bytes.len() <= MEMBERSHIP_DATAGRAM_BYTES_MAX);
                self.sent += 1;
                let kind = transmit.bytes[0];
                self.sent_by_kind[usize::from(kind)] += 1;
                let lost = self.rng.random_range(0..100) < self.loss_percent
                    || self.swim_lost && kind == KIND_SWIM;
                if lost || self.silent.contains(from) {
                    continue;
                }
                let mut delay = Duration::from_micros(self.rng.random_range(200..40_000));
                if let Some((_, late)) = self.slow.filter(|(slow, _)| *slow == transmit.to) {
                    delay += late;
                }
                self.flying
                    .insert((self.now + delay, self.sent), (*from, transmit));
            }
        }
    }

    /// Runs until the condition holds; says how long it took, or fails with the seed.
    fn run_until(
        &mut self,
        limit: Duration,
        what: &str,
        done: impl Fn(&Group) -> bool,
    ) -> Duration {
        let began = self.now;
        loop {
            self.collect();
            if done(self) {
                self.nodes.values().for_each(knows_what_foca_knows);
                return self.now.since(began);
            }
            let timers = self.nodes.values().filter_map(Membership::poll_timeout);
            let arrivals = self.flying.keys().map(|(at, _)| *at);
            let next = timers.chain(arrivals).chain(self.wake).min();
            let seed = self.seed;
            let Some(next) = next.filter(|at| at.since(began) <= limit) else {
                panic!("seed {seed}: {what} did not happen within {limit:?}");
            };
            self.now = self.now.max(next);
            let due: Vec<_> = self
                .flying
                .range(..=(self.now, u64::MAX))
                .map(|(k, _)| *k)
                .collect();
            for key in due {
                let (from, transmit) = self.flying.remove(&key).unwrap();
                let cut =
                    self.split && self.side.contains(&from) != self.side.contains(&transmit.to);
                let deaf = self.silent.contains(&transmit.to);
                if let Some(node) = self.nodes.get_mut(&transmit.to).filter(|_| !cut && !deaf) {
                    node.handle_datagram(self.now, from, &transmit.bytes)
                        .unwrap();
                }
            }
            for node in self.nodes.values_mut() {
                if node.poll_timeout().is_some_and(|at| at <= self.now) {
                    node.handle_timeout(self.now);
                }
            }
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.wake = Some(end);
        self.run_until(time + SECOND, "time", |group| group.now >= end);
        self.wake = None;
    }

    /// Whether everyone but the silent sees `index` in `state`.
    fn agree(&self, index: u32, state: MemberState) -> bool {
        self.nodes
            .iter()
            .filter(|(who, _)| !self.silent.contains(who) && **who != id(index))
            .all(|(_, node)| node.member(&id(index)).is_some_and(|m| m.state == state))
    }

    fn all_alive(&self) -> bool {
        (0..u32::try_from(self.nodes.len()).unwrap()).all(|i| self.agree(i, MemberState::Alive))
    }
}

/// That only those are looked at who may have changed misses nobody.
fn knows_what_foca_knows(node: &Membership) {
    let others = node.foca.iter_membership_state();
    let others = others.filter(|m| m.id().id != node.local().id);
    let of_foca: BTreeMap<NodeId, _> = others.map(|m| (m.id().id, (m.id(), state_of(m)))).collect();
    let known = node.known.iter();
    let known: BTreeMap<NodeId, _> = known.map(|(id, m)| (*id, (&m.identity, m.state))).collect();
    assert_eq!(known, of_foca);
}

const SECOND: Duration = Duration::from_secs(1);

fn seeds(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(|n| n * 0x9e37_79b9 + 17)
}

fn formed(count: u32, loss_percent: u32, seed: u64) -> Group {
    let mut group = Group::new(count, Preset::Lan, loss_percent, seed);
    for index in 1..count {
        group.join(index);
    }
    // An announcement may be lost: the driver's rule is to repeat it until a member is known.
    for _ in 0..20 {
        group.run_for(SECOND / 2);
        for index in 1..count {
            if group.nodes[&id(index)].members().len() == 1 {
                group.join(index);
            }
        }
    }
    group.run_until(60 * SECOND, "everyone knows everyone", Group::all_alive);
    group
}

#[test]
fn three_and_thirty_two_find_each_other() {
    for seed in seeds(8) {
        formed(3, 20, seed);
    }
    for seed in seeds(2) {
        formed(32, 10, seed);
    }
}

#[test]
fn a_silent_member_dies_everywhere_and_nobody_else_does() {
    for (count, seed) in [(3, 1), (3, 2), (3, 3), (32, 4)] {
        let mut group = formed(count, 5, seed);
        group.events.clear();
        group.silent.insert(id(1));
        let took = group.run_until(60 * SECOND, "death", |group| {
            group.agree(1, MemberState::Dead)
        });
        assert!(
            took >= LAN_SUSPECT_TO_DEAD,
            "seed {seed}: dead without time to refute: {took:?}"
        );
        for (_, observer, event) in &group.events {
            // The silent node buries everyone else: from where it is, they are the silent ones.
            if let MembershipEvent::MemberChanged(member) = event
                && member.state == MemberState::Dead
                && *observer != id(1)
            {
                assert_eq!(member.identity.id, id(1), "seed {seed}");
            }
        }
        let suspected = group.events.iter().any(|(_, _, event)| {
            matches!(event, MembershipEvent::MemberChanged(m)
                if m.identity.id == id(1) && m.state == MemberState::Suspect)
        });
        assert!(suspected, "seed {seed}: dead without having been a suspect");
    }
}

#[test]
fn the_presets_keep_their_promise_in_a_group_of_two() {
    for seed in seeds(20) {
        for (preset, suspect_max, dead_max) in [
            (Preset::Lan, 2 * SECOND, 5 * SECOND),
            (Preset::Wan, 15 * SECOND, 30 * SECOND),
        ] {
            let mut group = Group::new(2, preset, 0, seed);
            group.join(1);
            group.run_until(60 * SECOND, "both there", Group::all_alive);
            let silence = Duration::from_millis(group.rng.random_range(0..20_000));
            group.run_for(silence);
            group.silent.insert(id(1));
            let slack = SECOND / 10;
            let suspect = group.run_until(2 * suspect_max, "suspicion", |g| {
                g.agree(1, MemberState::Suspect)
            });
            let more = group.run_until(2 * dead_max, "death", |g| g.agree(1, MemberState::Dead));
            assert!(
                suspect <= suspect_max + slack,
                "{preset}, seed {seed}: {suspect:?}"
            );
            assert!(
                suspect + more <= dead_max + slack,
                "{preset}, seed {seed}: {more:?}"
            );
        }
    }
}

#[test]
fn a_suspect_that_lives_refutes() {
    for (count, seed) in [(3, 5), (3, 6), (32, 7)] {
        let mut group = formed(count, 5, seed);
        group.events.clear();
        // Node 0 loses a connection to node 1, which lives.
        let now = group.now;
        group
            .nodes
            .get_mut(&id(0))
            .unwrap()
            .connection_lost(now, &id(1));
        assert_eq!(
            group.nodes[&id(0)].member(&id(1)).unwrap().state,
            MemberState::Suspect
        );
        group.run_until(10 * SECOND, "refutation", |group| {
            group.agree(1, MemberState::Alive)
        });
        group.run_for(30 * SECOND);
        assert!(group.agree(1, MemberState::Alive), "seed {seed}");
        let buried = group.events.iter().any(|(_, _, event)| {
            matches!(event, MembershipEvent::MemberChanged(m) if m.state == MemberState::Dead)
                || matches!(event, MembershipEvent::Rejoined { .. })
        });
        assert!(!buried, "seed {seed}: suspicion alone must not kill");
    }
}

/// What is on its way to `to` and names itself a ping.
fn pings_to(group: &Group, to: NodeId) -> Vec<(Instant, u64)> {
    let flying = group.flying.iter().filter(|(_, (_, transmit))| {
        transmit.to == to && transmit.bytes[0] == KIND_SWIM && {
            let header = codec::decode_prefix::<WireHeader>(&transmit.bytes[1..]);
            header.is_ok_and(|(header, _)| header.ping().is_some())
        }
    });
    flying.map(|(key, _)| *key).collect()
}

#[test]
fn a_lost_ping_is_repeated_until_the_answer_comes() {
    let mut group = formed(2, 0, 41);
    group.run_for(5 * SECOND);
    group.events.clear();
    for _ in 0..10 {
        // Seven pings of a probe are lost, and the eighth is not; with nobody to help, the others say nothing.
        for _ in 0..7 {
            group.run_until(3 * SECOND, "a ping", |g| !pings_to(g, id(1)).is_empty());
            for key in pings_to(&group, id(1)) {
                group.flying.remove(&key);
            }
        }
        group.run_until(SECOND / 5, "the next", |g| !pings_to(g, id(1)).is_empty());
        group.run_until(SECOND / 5, "its answer", |group| {
            group.nodes[&id(0)].effects.ping.is_none()
        });
    }
    assert!(group.events.is_empty());
    assert_eq!(group.nodes[&id(0)].local_health(), 0);
}

#[test]
fn who_answers_is_pinged_once_a_period_and_the_silent_nine_times() {
    let mut group = formed(2, 0, 42);
    group.run_for(5 * SECOND);
    group.sent_by_kind = [0; 3];
    group.run_for(20 * SECOND);
    let [swim, ..] = group.sent_by_kind;
    // 20 pings and 20 answers of each, and announcements with their answers.
    assert!((80..=88).contains(&swim), "{swim}");
    group.silent.insert(id(1));
    assert!(group.nodes[&id(0)].effects.ping.is_none(), "between probes");
    group.run_until(2 * SECOND, "a ping", |g| !pings_to(g, id(1)).is_empty());
    let mut pings = 0;
    // The next probe begins after a second.
    let end = group.now + SECOND * 19 / 20;
    group.wake = Some(end);
    while group.now < end {
        for key in pings_to(&group, id(1)) {
            group.flying.remove(&key);
            pings += 1;
        }
        group.run_until(SECOND, "a ping", |group| {
            group.now >= end || !pings_to(group, id(1)).is_empty()
        });
    }
    assert_eq!(pings, 9);
}

#[test]
fn a_broken_connection_to_a_dead_peer_shortens_its_dying() {
    let mut group = formed(3, 0, 8);
    group.silent.insert(id(1));
    let now = group.now;
    group
        .nodes
        .get_mut(&id(0))
        .unwrap()
        .connection_lost(now, &id(1));
    let took = group.run_until(10 * SECOND, "death", |group| {
        group.agree(1, MemberState::Dead)
    });
    assert!(took <= LAN_SUSPECT_TO_DEAD + SECOND / 2, "{took:?}");
}

#[test]
fn stopping_and_leaving_are_not_dying() {
    for (count, seed, departure) in [
        (2, 9, Departure::Left),
        (3, 10, Departure::Left),
        (32, 11, Departure::Left),
        (2, 20, Departure::Stopped),
        (3, 21, Departure::Stopped),
        (32, 22, Departure::Stopped),
    ] {
        let gone = MemberState::from(departure);
        let mut group = formed(count, 5, seed);
        let now = group.now;
        group.events.clear();
        group.nodes.get_mut(&id(1)).unwrap().depart(now, departure);
        assert_eq!(group.nodes[&id(1)].poll_timeout(), None);
        group.run_until(10 * SECOND, "departure", |group| group.agree(1, gone));
        let known = group.nodes[&id(0)].member(&id(1)).unwrap();
        assert!(
            known.since >= now && known.since <= group.now,
            "seed {seed}"
        );
        group.run_for(30 * SECOND);
        assert!(group.agree(1, gone), "seed {seed}: the departed came back");
        let since = group.nodes[&id(0)].member(&id(1)).unwrap().since;
        assert_eq!(since, known.since, "seed {seed}: it went once");
        let buried = |(_, _, event): &(_, _, MembershipEvent)| {
            matches!(event, MembershipEvent::MemberChanged(member)
                if member.identity.id == id(1) && member.state == MemberState::Dead)
        };
        assert!(
            !group.events.iter().any(buried),
            "seed {seed}: taken for dead"
        );
        // A restart has a higher generation, and is welcome.
        group.start(1, 1_000, Preset::Lan);
        for _ in 0..4 {
            group.join(1);
            group.run_for(SECOND);
        }
        group.run_until(30 * SECOND, "return", Group::all_alive);
        let known = group.nodes[&id(0)].member(&id(1)).unwrap().identity;
        assert_eq!(known.generation, 1_000);
    }
}

#[test]
fn a_crashed_node_that_restarts_replaces_its_former_self() {
    let mut group = formed(3, 5, 12);
    group.start(1, 7, Preset::Lan);
    for _ in 0..4 {
        group.join(1);
        group.run_for(SECOND);
    }
    let generation = |group: &Group, at: u32| {
        group.nodes[&id(at)]
            .member(&id(1))
            .map(|m| (m.identity.generation, m.state))
    };
    group.run_until(30 * SECOND, "replacement", |group| {
        [0, 2]
            .iter()
            .all(|at| generation(group, *at) == Some((7, MemberState::Alive)))
    });
}

#[test]
fn a_partition_buries_and_its_healing_resurrects() {
    for (count, seed) in [(3, 13), (8, 14), (32, 15)] {
        let mut group = formed(count, 5, seed);
        group.events.clear();
        group.side = (0..count / 3).map(id).collect();
        group.split = true;
        let minority = count / 3;
        group.run_until(120 * SECOND, "burial", |group| {
            (0..minority).all(|lost| {
                (minority..count).all(|at| {
                    group.nodes[&id(at)].member(&id(lost)).unwrap().state == MemberState::Dead
                })
            })
        });
        group.split = false;
        group.run_until(180 * SECOND, "healing", Group::all_alive);
        let rejoined = group
            .events
            .iter()
            .any(|(_, _, event)| matches!(event, MembershipEvent::Rejoined { generation: 2.. }));
        assert!(
            rejoined,
            "seed {seed}: the buried come back with a higher generation"
        );
    }
}

#[test]
fn everyone_learns_the_relays_of_a_node_and_nobody_sees_it_die() {
    for (count, seed) in [(3, 11), (32, 12), (32, 13)] {
        let mut group = formed(count, 10, seed);
        group.events.clear();
        for relays in [vec![id(0)], vec![id(2), id(0)], Vec::new()] {
            let node = group.nodes.get_mut(&id(1)).unwrap();
            node.advertise_relays(group.now, relays.clone());
            group.run_until(60 * SECOND, "the relays are known", |group| {
                let known = |node: &Membership| node.member(&id(1)).unwrap().identity.relays;
                group.nodes.values().all(|node| known(node) == relays)
            });
        }
        group.run_for(30 * SECOND);
        for (_, _, event) in &group.events {
            let MembershipEvent::MemberChanged(member) = event else {
                panic!("seed {seed}: {event:?}")
            };
            // With so much lost some are suspected and refute.
            assert!(member.state.is_active(), "seed {seed}: {member:?}");
            assert_eq!(member.identity.generation, 1, "seed {seed}");
        }
        group.run_until(60 * SECOND, "the suspected refute", Group::all_alive);
    }
}

#[test]
fn everyone_learns_where_a_node_listens_now_and_nobody_sees_it_die() {
    let mut group = formed(8, 10, 14);
    group.events.clear();
    let address = SocketAddr::from(([10, 77, 1, 1], 9000));
    let node = group.nodes.get_mut(&id(1)).unwrap();
    node.advertise_address(group.now, address);
    group.run_until(60 * SECOND, "the address is known", |group| {
        let known = |node: &Membership| node.member(&id(1)).unwrap().identity.address;
        group.nodes.values().all(|node| known(node) == address)
    });
    for (_, _, event) in &group.events {
        let MembershipEvent::MemberChanged(member) = event else {
            panic!("{event:?}")
        };
        assert!(member.state.is_active(), "{member:?}");
        assert_eq!(member.identity.generation, 1);
    }
}

#[test]
fn no_more_relays_than_three_are_told_or_taken() {
    let mut node = Membership::new(identity(0, 1), Preset::Lan, 1).unwrap();
    node.advertise_relays(Instant::START, (1..6).map(id).collect());
    assert_eq!(node.local().relays, [id(1), id(2), id(3)]);
    let greedy = Identity {
        relays: (1..5).map(id).collect(),
        ..identity(0, 1)
    };
    assert!(codec::decode::<Identity>(&codec::encode(&greedy)).is_err());
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut group = formed(8, 15, seed);
        group.run_for(20 * SECOND);
        (group.sent, group.events)
    };
    assert_eq!(run(16), run(16));
}

#[test]
fn a_datagram_in_anothers_name_is_refused() {
    let now = Instant::START;
    let mut node = Membership::new(identity(0, 1), Preset::Lan, 1).unwrap();
    let mut liar = Membership::new(identity(1, 1), Preset::Lan, 2).unwrap();
    liar.announce(now, id(0), identity(0, 1).address);
    let bytes = liar.poll_transmit().unwrap().bytes;
    assert_eq!(
        node.handle_datagram(now, id(2), &bytes),
        Err(MembershipError::Spoofed {
            from: id(2),
            claimed: id(1)
        })
    );
    assert_eq!(node.members().len(), 1);
    assert_eq!(node.handle_datagram(now, id(1), &bytes), Ok(()));
    assert_eq!(node.members().len(), 2);
}

#[test]
fn what_gossip_did_not_bring_is_found_by_comparing() {
    for (count, seed) in [(8, 31), (32, 32)] {
        let mut group = formed(count, 0, seed);
        group.start(count, 1, Preset::Lan);
        // The newcomer is told to node 0 alone, and what node 0 would gossip about it is thrown away.
        group.join(count);
        let key = *group.flying.keys().next_back().unwrap();
        let (from, announcement) = group.flying.remove(&key).unwrap();
        group
            .nodes
            .get_mut(&id(0))
            .unwrap()
            .handle_datagram(group.now, from, &announcement.bytes)
            .unwrap();
        group.swim_lost = true;
        let knows = move |node: &Membership| node.members().len() == count as usize + 1;
        group.run_until(30 * SECOND, "comparison alone brings it", |group| {
            group.nodes.values().filter(|node| knows(node)).count() > count as usize / 2
        });
    }
}

#[test]
fn who_agrees_answers_a_comparison_with_nothing() {
    let mut group = formed(8, 0, 33);
    group.run_for(10 * SECOND);
    group.sent_by_kind = [0; 3];
    group.run_for(20 * SECOND);
    let [swim, digests, entries] = group.sent_by_kind;
    assert!(swim > 0);
    // One from each node and period, and no answer.
    assert!((150..=170).contains(&digests), "{digests}");
    assert_eq!(entries, 0);
}

#[test]
fn an_unknown_dead_member_is_not_taken_from_a_comparison() {
    let now = Instant::START;
    let mut node = Membership::new(identity(0, 1), Preset::Lan, 1).unwrap();
    let mut peer = Membership::new(identity(1, 1), Preset::Lan, 2).unwrap();
    peer.announce(now, id(0), identity(0, 1).address);
    let hello = peer.poll_transmit().unwrap().bytes;
    node.handle_datagram(now, id(1), &hello).unwrap();
    let entries = |member| entries(1, &[member]);
    let dead = entries(foca::Member::down(identity(2, 1)));
    node.handle_datagram(now, id(1), &dead).unwrap();
    assert_eq!(node.member(&id(2)), None);
    let alive = entries(foca::Member::alive(identity(2, 1)));
    // Nor is anything taken from somebody else's mouth, or from somebody who is not there.
    assert!(node.handle_datagram(now, id(3), &alive).is_err());
    let mut alone = Membership::new(identity(0, 1), Preset::Lan, 1).unwrap();
    alone.handle_datagram(now, id(1), &alive).unwrap();
    assert_eq!(alone.members().len(), 1);
    node.handle_datagram(now, id(1), &alive).unwrap();
    assert_eq!(node.member(&id(2)).unwrap().state, MemberState::Alive);
    node.handle_datagram(now, id(1), &dead).unwrap();
    assert_eq!(node.member(&id(2)).unwrap().state, MemberState::Dead);
}

#[test]
fn a_digest_tells_generations_incarnations_and_revisions_apart() {
    let members = |change: fn(&mut Identity), incarnation| {
        let mut changed = identity(2, 1);
        change(&mut changed);
        [
            foca::Member::alive(identity(3, 1)),
            foca::Member::new(changed, incarnation, State::Alive),
        ]
    };
    let digest =
        |members: &[foca::Member<Identity>]| Digest::new(id(0), id(1), false, 7, members.iter());
    let plain = digest(&members(|_| {}, 0));
    assert!(plain.agrees(&digest(&members(|_| {}, 0))));
    for other in [
        members(|identity| identity.generation = 2, 0),
        members(|identity| identity.revision = 1, 0),
        members(|_| {}, 1),
    ] {
        assert!(!plain.agrees(&digest(&other)));
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..1200)) {
        let mut node = Membership::new(identity(0, 1), Preset::Lan, 1).unwrap();
        let _ = node.handle_datagram(Instant::START, id(1), &bytes);
    }

    #[test]
    fn mangled_datagrams_are_survived(at in 0_usize..2000, flip in 1_u8.., cut in 0_usize..1200) {
        let now = Instant::START;
        let mut node = Membership::new(identity(0, 1), Preset::Lan, 1).unwrap();
        let mut peer = Membership::new(identity(1, 1), Preset::Lan, 2).unwrap();
        for index in 2..9 {
            let mut other = Membership::new(identity(index, 1), Preset::Lan, 2).unwrap();
            other.announce(now, id(1), identity(1, 1).address);
            let bytes = other.poll_transmit().unwrap().bytes;
            peer.handle_datagram(now, id(index), &bytes).unwrap();
        }
        node.announce(now, id(1), identity(1, 1).address);
        let bytes = node.poll_transmit().unwrap().bytes;
        peer.handle_datagram(now, id(0), &bytes).unwrap();
        while let Some(transmit) = peer.poll_transmit() {
            let mut bytes = transmit.bytes;
            let at = at % bytes.len();
            bytes[at] ^= flip;
            bytes.truncate(cut.max(at + 1));
            let _ = node.handle_datagram(now, id(1), &bytes);
        }
    }
}

#[test]
fn who_was_buried_stays_so_whatever_those_say_who_have_not_heard() {
    let mut group = formed(5, 0, 3);
    let now = group.now;
    // Each buries it when it hears by itself that it was shut out; node 4 never does, and tells of it.
    for who in [0, 2, 3] {
        group.nodes.get_mut(&id(who)).unwrap().bury(now, &id(1));
    }
    for _ in 0..10 {
        group.join(1);
        group.run_for(SECOND);
        for who in [0, 2, 3] {
            let seen = group.nodes[&id(who)].member(&id(1)).unwrap();
            assert_eq!(seen.state, MemberState::Left);
        }
    }
    let seen = group.nodes[&id(4)].member(&id(1)).unwrap();
    assert_ne!(seen.state, MemberState::Left, "no member's word is enough");
}

/// A comparison's answer from a peer that says this.
fn entries(from: u32, members: &[foca::Member<Identity>]) -> Vec<u8> {
    let mut bytes = vec![KIND_ENTRIES];
    bytes.extend(codec::encode(&EntriesHeader { source: id(from) }));
    for member in members {
        bytes.extend(codec::encode(&WireMember::from(member)));
    }
    bytes
}

impl Group {
    /// Node `from` says this to everyone but `about`.
    fn lie(&mut self, from: u32, about: u32, member: &foca::Member<Identity>) {
        let bytes = entries(from, core::slice::from_ref(member));
        let now = self.now;
        for (who, node) in &mut self.nodes {
            if *who != id(from) && *who != id(about) {
                node.handle_datagram(now, id(from), &bytes).unwrap();
            }
        }
    }
}

#[test]
fn whom_a_liar_says_to_be_gone_in_a_life_made_up_is_back_in_seconds() {
    let step = crate::limits::GENERATION_STEP;
    let made_up = [
        0,
        1,
        2,
        step,
        1 + step,
        2 + step,
        1 << 60,
        u64::MAX - 2,
        u64::MAX - 1,
        u64::MAX,
    ];
    for (seed, generation) in seeds(10).zip(made_up) {
        for (departed, state) in [
            (None, State::Down),
            (Some(Departure::Left), State::Down),
            (None, State::Alive),
        ] {
            let mut group = formed(8, 0, seed);
            let (sent, lived) = (group.sent, group.nodes[&id(2)].local().generation);
            let life = Identity {
                departed,
                ..identity(2, generation)
            };
            group.lie(1, 2, &foca::Member::new(life, 7, state));
            group.run_for(5 * SECOND);
            group.run_until(5 * SECOND, "it is back", Group::all_alive);
            let known = |group: &Group| {
                let local = group.nodes[&id(2)].local();
                let known = |node: &Membership| node.member(&id(2)).unwrap().identity;
                group.nodes.values().all(|node| known(node) == *local)
            };
            group.run_until(30 * SECOND, "all know its present life", known);
            let now = group.nodes[&id(2)].local().generation;
            assert!(now <= lived + step + 2, "{generation}: {now}");
            // 8 nodes say about 40 things a second to each other; nobody hurried.
            assert!(group.sent - sent < 4_000, "{}", group.sent - sent);
        }
    }
}

#[test]
fn whoever_goes_on_lying_cannot_use_up_the_lives_of_another() {
    let step = crate::limits::GENERATION_STEP;
    let mut group = formed(5, 0, 51);
    for _ in 0..100 {
        for _ in 0..20 {
            let known = group.nodes[&id(0)].member(&id(2)).unwrap().identity;
            let generation = known.generation.saturating_add(step);
            let life = Identity {
                generation,
                ..known
            };
            group.lie(1, 2, &foca::Member::down(life));
            group.run_for(SECOND / 20);
        }
    }
    let lived = group.nodes[&id(2)].local().generation;
    assert!(lived < 250 * step, "{}", lived / step);
    group.run_until(10 * SECOND, "it is back", Group::all_alive);
}

#[test]
fn a_node_that_begins_before_its_former_life_passes_it() {
    let mut group = formed(3, 0, 52);
    group.start(1, 1 << 41, Preset::Lan);
    group.join(1);
    group.run_until(30 * SECOND, "it is there", Group::all_alive);
    // Its clock was set back.
    group.start(1, 1 << 40, Preset::Lan);
    for _ in 0..4 {
        group.join(1);
        group.run_for(SECOND);
    }
    group.run_until(30 * SECOND, "it is back", Group::all_alive);
    assert!(group.nodes[&id(1)].local().generation > 1 << 41);
}

#[test]
fn a_node_is_told_of_its_end_once_in_a_period() {
    let now = Instant::START;
    let mut node = Membership::new(identity(0, 1), Preset::Lan, 1).unwrap();
    let mut ends = 0;
    for round in 0..100 {
        let local = node.local().clone();
        let later = Identity {
            generation: local.generation + 9,
            ..local.clone()
        };
        for told in [local, later] {
            let bytes = entries(1, &[foca::Member::down(told)]);
            let _ = node.handle_datagram(now + SECOND * round / 50, id(1), &bytes);
        }
        while let Some(event) = node.poll_event() {
            ends += u32::from(matches!(event, MembershipEvent::Rejoined { .. }));
        }
    }
    // Nobody is there, so only the later life counts: once in each of two periods.
    assert_eq!(ends, 2);
}

#[test]
fn nobody_speaks_in_the_life_that_is_for_those_who_are_shut_out() {
    let now = Instant::START;
    let mut node = Membership::new(identity(0, 1), Preset::Lan, 1).unwrap();
    let mut last = Membership::new(identity(1, u64::MAX), Preset::Lan, 2).unwrap();
    last.announce(now, id(0), identity(0, 1).address);
    let bytes = last.poll_transmit().unwrap().bytes;
    let refused = node.handle_datagram(now, id(1), &bytes);
    assert_eq!(refused, Err(MembershipError::Malformed));
}

/// A stranger that a liar makes up.
fn invention(number: u32) -> Identity {
    Identity {
        id: NodeId::of_public_key(&(number + 1_000_000).to_le_bytes()),
        ..identity(1, 1)
    }
}

#[test]
fn whoever_makes_members_up_fills_no_memory_and_keeps_nobody_out() {
    let mut now = Instant::START;
    let mut node = Membership::new(identity(0, 1), Preset::Lan, 1).unwrap();
    let greet = |node: &mut Membership, now, index| {
        let mut peer = Membership::new(identity(index, 1), Preset::Lan, 2).unwrap();
        peer.announce(now, id(0), identity(0, 1).address);
        let hello = peer.poll_transmit().unwrap().bytes;
        node.handle_datagram(now, id(index), &hello).unwrap();
    };
    greet(&mut node, now, 1);
    let lie = |node: &mut Membership, now, numbers: core::ops::Range<u32>, alive: bool| {
        for number in numbers {
            let life = foca::Member::alive(invention(number));
            let bytes = entries(1, &[life]);
            node.handle_datagram(now, id(1), &bytes).unwrap();
            if !alive {
                let bytes = entries(1, &[foca::Member::down(invention(number))]);
                node.handle_datagram(now, id(1), &bytes).unwrap();
            }
        }
        let _ = core::iter::from_fn(|| node.poll_event()).count();
        let _ = core::iter::from_fn(|| node.poll_transmit()).count();
    };
    let max = u32::try_from(MEMBERS_MAX).unwrap();
    lie(&mut node, now, 0..max / 2, false);
    now = now + SECOND / 2;
    lie(&mut node, now, max / 2..max + 99, false);
    let bounded = |node: &Membership| {
        assert!(node.known.len() <= MEMBERS_MAX);
        assert!(node.effects.timers.len() <= MEMBERS_MAX + 9);
        knows_what_foca_knows(node);
    };
    bounded(&node);
    // Who died first was forgotten, and a newcomer finds a place.
    assert_eq!(node.strangers_refused(), 0);
    let known = |node: &Membership, of: core::ops::Range<u32>| {
        let known = of.filter(|number| node.member(&invention(*number).id).is_some());
        u32::try_from(known.count()).unwrap()
    };
    assert!(known(&node, 0..max / 2) < max / 2);
    assert_eq!(known(&node, max / 2..max + 99), max / 2 + 99);
    greet(&mut node, now, 2);
    assert_eq!(node.member(&id(2)).unwrap().state, MemberState::Alive);
    // The living are not forgotten for others.
    lie(&mut node, now, 2 * max..4 * max, true);
    bounded(&node);
    assert_eq!(node.known.len(), MEMBERS_MAX);
    assert!(node.strangers_refused() > 0);
    assert!(node.member(&id(2)).is_some());
    greet(&mut node, now, 3);
    assert_eq!(node.member(&id(3)), None);
}

#[test]
fn one_dead_member_has_one_timer_however_often_it_dies() {
    let now = Instant::START;
    let mut node = Membership::new(identity(0, 1), Preset::Lan, 1).unwrap();
    let mut peer = Membership::new(identity(1, 1), Preset::Lan, 2).unwrap();
    peer.announce(now, id(0), identity(0, 1).address);
    let hello = peer.poll_transmit().unwrap().bytes;
    node.handle_datagram(now, id(1), &hello).unwrap();
    let before = node.effects.timers.len();
    node.handle_datagram(
        now,
        id(1),
        &entries(1, &[foca::Member::alive(identity(2, 1))]),
    )
    .unwrap();
    for generation in 2..100 {
        let dead = foca::Member::down(identity(2, generation));
        node.handle_datagram(now, id(1), &entries(1, &[dead]))
            .unwrap();
    }
    assert_eq!(node.member(&id(2)).unwrap().identity.generation, 99);
    assert_eq!(node.effects.timers.len(), before + 1);
}

#[test]
fn nobody_buries_itself_or_a_stranger() {
    let mut group = formed(2, 0, 3);
    let now = group.now;
    let first = group.nodes.get_mut(&id(0)).unwrap();
    first.bury(now, &id(0));
    first.bury(now, &id(7));
    assert_eq!(first.members().len(), 2);
    assert!(group.all_alive());
}

/// A node that hears everything 2.5 s late gets its answers after the period of its probes. It comes to know that it is
/// the slow one, and waits.
#[test]
fn a_slow_node_learns_to_wait_instead_of_suspecting_everybody() {
    let mut group = formed(8, 0, 4);
    let slow = id(3);
    group.slow = Some((slow, Duration::from_millis(2_500)));
    group.run_for(30 * SECOND);
    let score = group.nodes[&slow].local_health();
    assert!(score >= 2, "it does badly: {score}");
    group.events.clear();
    group.run_for(60 * SECOND);
    let suspicions = group.events.iter().filter(|(_, who, event)| {
        *who == slow
            && matches!(event, MembershipEvent::MemberChanged(m) if m.state == MemberState::Suspect)
    });
    let suspicions = suspicions.count();
    println!("{suspicions} suspicions in a minute, score {score}");
    assert!(suspicions <= 10, "{suspicions}");
    // When it is quick again it is soon as alert as the others.
    group.slow = None;
    group.run_until(120 * SECOND, "it does well", |group| {
        group.nodes[&slow].local_health() == 0
    });
}

/// A process that gives way to another of its node disturbs nobody, and is back when it does no more.
#[test]
fn who_gives_way_says_nothing_and_comes_back() {
    let mut group = Group::new(4, Preset::Lan, 0, 5);
    (1..4).for_each(|index| group.join(index));
    group.run_until(30 * SECOND, "the group", Group::all_alive);
    let now = group.now;
    let away = group.nodes.get_mut(&id(3)).unwrap();
    away.give_way(now, true);
    away.connection_lost(now, &id(1));
    away.announce(now, id(0), identity(0, 0).address);
    assert_eq!((away.poll_timeout(), away.poll_transmit()), (None, None));
    // Its place is empty here, so the others bury it; it hears nothing of that.
    group.run_until(30 * SECOND, "its death", |group| {
        group.agree(3, MemberState::Dead)
    });
    let away = &group.nodes[&id(3)];
    let alive = |member: &Member| member.state == MemberState::Alive;
    assert!(away.members().iter().all(alive));
    let now = group.now;
    group.nodes.get_mut(&id(3)).unwrap().give_way(now, false);
    group.run_until(30 * SECOND, "its return", Group::all_alive);
}

/// Where members say that another life of this node listens may be another process with its key: the caller can look.
#[test]
fn a_node_says_where_another_life_of_it_is_said_to_be() {
    let mut group = Group::new(3, Preset::Lan, 0, 6);
    (1..3).for_each(|index| group.join(index));
    group.run_until(30 * SECOND, "the group", Group::all_alive);
    let elsewhere = Identity {
        address: ([127, 0, 0, 1], 9).into(),
        ..identity(2, 5)
    };
    let header = EntriesHeader { source: id(1) };
    let life = foca::Member::alive(elsewhere.clone());
    let mut bytes = vec![KIND_ENTRIES];
    bytes.extend(codec::encode(&header));
    bytes.extend(codec::encode(&WireMember::from(&life)));
    let now = group.now;
    let node = group.nodes.get_mut(&id(2)).unwrap();
    node.handle_datagram(now, id(1), &bytes).unwrap();
    let events: Vec<_> = core::iter::from_fn(|| node.poll_event()).collect();
    let said = MembershipEvent::OtherLife {
        address: elsewhere.address,
    };
    assert!(events.contains(&said), "{events:?}");
    assert_eq!(node.local().generation, 6);
}

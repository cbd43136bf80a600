#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::limits::{ROUTED_SEEN_FOR, ROUTED_SEEN_PER_SOURCE, ROUTED_SOURCES_MAX};

/// A signature that whoever knows the key can check and, unlike a real one, make.
enum Keyed {}

fn sign(key: &[u8; 32], message: &[u8]) -> [u8; 64] {
    let mut signature = [0; 64];
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(message).finalize_xof().fill(&mut signature);
    signature
}

impl Verify for Keyed {
    fn verify(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        sign(key, message) == *signature
    }
}

fn key(number: usize) -> [u8; 32] {
    *blake3::hash(&number.to_be_bytes()).as_bytes()
}

fn id(number: usize) -> NodeId {
    NodeId::of_ed25519_key(&key(number))
}

fn at(ms: u64) -> Instant {
    Instant::from_start(Duration::from_millis(ms))
}

const TTL: Duration = Duration::from_secs(10);

fn originate(router: &mut Router<Keyed>, from: usize, to: usize, now: Instant) -> RoutedMessage {
    let sign = |message: &[u8]| Ok::<_, ()>(sign(&key(from), message));
    let request = (100, Bytes::from_static(b"hello"));
    router
        .originate(now, id(to), request, TTL, key(from), sign)
        .unwrap()
}

/// Nodes, who is a neighbour of whom, and what became of the messages.
struct Mesh {
    routers: Vec<Router<Keyed>>,
    links: BTreeSet<(usize, usize)>,
    /// Nodes that take messages and never answer.
    silent: BTreeSet<usize>,
    number: BTreeMap<NodeId, usize>,
    now: u64,
    delivered: BTreeMap<(NodeId, u64), usize>,
    taken_in: usize,
    hops_max: u8,
}

impl Mesh {
    fn new(count: usize, links: impl IntoIterator<Item = (usize, usize)>) -> Mesh {
        let both = links.into_iter().filter(|(a, b)| a != b);
        Mesh {
            routers: (0..count).map(|n| Router::new(id(n), 1)).collect(),
            links: both.flat_map(|(a, b)| [(a, b), (b, a)]).collect(),
            silent: BTreeSet::new(),
            number: (0..count).map(|n| (id(n), n)).collect(),
            now: 0,
            delivered: BTreeMap::new(),
            taken_in: 0,
            hops_max: 0,
        }
    }

    fn neighbours(&self, node: usize) -> Vec<Neighbour> {
        let of = self.links.range((node, 0)..=(node, usize::MAX));
        of.map(|(_, to)| Neighbour {
            node: id(*to),
            rtt: Some(Duration::from_millis(((node * 7 + to * 7) % 50) as u64)),
        })
        .collect()
    }

    fn send(&mut self, from: usize, to: usize) -> RoutedAnswer {
        let now = at(self.now);
        let message = originate(&mut self.routers[from], from, to, now);
        self.pass(from, message, None)
    }

    /// What a driver does with a message that came in.
    fn arrive(&mut self, node: usize, from: usize, message: RoutedMessage) -> RoutedAnswer {
        self.now += 1;
        self.taken_in += 1;
        self.hops_max = self.hops_max.max(message.hops);
        let refused = |refusal| RoutedAnswer::Refused {
            by: id(node),
            refusal,
        };
        match self.routers[node].receive(at(self.now), &message) {
            Ok(Arrival::Here) => {
                *self
                    .delivered
                    .entry((message.source, message.id))
                    .or_default() += 1;
                RoutedAnswer::Answered {
                    key: key(node),
                    signature: sign(&key(node), &message.answer_signed(b"answer")),
                    hops: Vec::new(),
                }
            }
            Ok(Arrival::Onward) => self.pass(node, message, Some(id(from))),
            Err(refusal) => refused(refusal),
        }
    }

    fn pass(&mut self, node: usize, message: RoutedMessage, from: Option<NodeId>) -> RoutedAnswer {
        let neighbours = self.neighbours(node);
        let mut passage = self.routers[node].passage(at(self.now), message, from, neighbours);
        loop {
            match passage.next(at(self.now)) {
                Step::GiveUp { by, refusal } => return RoutedAnswer::Refused { by, refusal },
                Step::Send(to, message) => {
                    let next = self.number[&to];
                    assert!(self.links.contains(&(node, next)), "to a neighbour only");
                    if self.silent.contains(&next) {
                        self.now += u64::from(message.ttl_ms);
                        passage.unanswered(to);
                        continue;
                    }
                    match self.arrive(next, node, message) {
                        RoutedAnswer::Refused { by, refusal } => passage.refused(by, refusal),
                        answered => return answered.over(to, Duration::from_millis(1)),
                    }
                }
            }
        }
    }
}

#[test]
fn a_message_finds_its_way_along_a_line_and_its_answer_names_it() {
    let mut mesh = Mesh::new(5, [(0, 1), (1, 2), (2, 3), (3, 4)]);
    let RoutedAnswer::Answered {
        hops,
        key,
        signature,
    } = mesh.send(0, 4)
    else {
        panic!("not answered")
    };
    let way: Vec<_> = hops.iter().map(|hop| hop.node).collect();
    assert_eq!(way, [1, 2, 3, 4].map(id));

    let message = originate(&mut Router::new(id(0), 1), 0, 4, at(0));
    assert!(Router::<Keyed>::is_answered(
        &message, &key, &signature, b"answer"
    ));
    assert!(!Router::<Keyed>::is_answered(
        &message, &key, &signature, b"forged"
    ));
    let other = originate(&mut Router::new(id(0), 2), 0, 4, at(0));
    assert!(!Router::<Keyed>::is_answered(
        &other, &key, &signature, b"answer"
    ));
}

#[test]
fn sixteen_links_are_crossed_and_a_seventeenth_is_not() {
    for (links, arrives) in [(16, true), (17, false)] {
        let mut mesh = Mesh::new(links + 1, (0..links).map(|n| (n, n + 1)));
        let answer = mesh.send(0, links);
        assert_eq!(
            matches!(answer, RoutedAnswer::Answered { ref hops, .. } if hops.len() == 16),
            arrives,
            "{answer:?}"
        );
        if !arrives {
            let refusal = RouteRefusal::TooManyHops;
            assert!(matches!(answer, RoutedAnswer::Refused { refusal: r, .. } if r == refusal));
        }
        assert!(mesh.hops_max <= ROUTED_HOPS_MAX);
    }
}

#[test]
fn the_destination_comes_first_and_among_equally_near_ones_the_quickest() {
    let router = Router::<Keyed>::new(id(0), 1);
    let target = Key::from(id(1));
    let near = |node: &NodeId| target.distance(&Key::from(*node)).bucket();
    let equal: Vec<NodeId> = (2..100)
        .map(id)
        .filter(|node| near(node) == Some(255))
        .take(2)
        .collect();
    let neighbours = [(equal[0], 9), (equal[1], 3), (id(1), 90)].map(|(node, ms)| Neighbour {
        node,
        rtt: Some(Duration::from_millis(ms)),
    });
    let message = originate(&mut Router::new(id(0), 1), 0, 1, at(0));
    let mut passage = router.passage(at(0), message, None, neighbours);
    for expected in [id(1), equal[1], equal[0]] {
        let Step::Send(to, _) = passage.next(at(0)) else {
            panic!("a way is left")
        };
        assert_eq!(to, expected);
        passage.unanswered(to);
    }
    let last = passage.next(at(0));
    assert!(matches!(
        last,
        Step::GiveUp {
            refusal: RouteRefusal::NoWay,
            ..
        }
    ));
}

#[test]
fn a_silent_neighbour_leaves_time_for_the_next() {
    // 0 - {1, 2, 3} - 4; two of the three are silent.
    let links = [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4)];
    for answering in 1..=3 {
        let mut mesh = Mesh::new(5, links);
        mesh.silent = (1..=3).filter(|n| *n != answering).collect();
        let answer = mesh.send(0, 4);
        assert!(
            matches!(answer, RoutedAnswer::Answered { .. }),
            "{answer:?}"
        );
        assert!(mesh.now < TTL.as_millis() as u64);
    }
}

#[test]
fn nothing_that_was_changed_on_the_way_is_taken() {
    let message = originate(&mut Router::new(id(0), 1), 0, 2, at(0));
    let check = |change: fn(&mut RoutedMessage), expected: Result<Arrival, RouteRefusal>| {
        let mut changed = message.clone();
        change(&mut changed);
        let mut router = Router::<Keyed>::new(id(1), 1);
        assert_eq!(router.receive(at(0), &changed), expected);
        if expected.is_err() {
            // And nothing is remembered against the genuine one.
            assert_eq!(router.receive(at(0), &message), Ok(Arrival::Onward));
        }
    };
    check(|_| {}, Ok(Arrival::Onward));
    check(|m| m.hops = 7, Ok(Arrival::Onward));
    check(|m| m.ttl_ms -= 1, Ok(Arrival::Onward));
    check(|m| m.source = id(3), Err(RouteRefusal::NotGenuine));
    check(|m| m.destination = id(1), Err(RouteRefusal::NotGenuine));
    check(|m| m.id += 1, Err(RouteRefusal::NotGenuine));
    check(|m| m.protocol += 1, Err(RouteRefusal::NotGenuine));
    check(
        |m| m.payload = Bytes::from_static(b"hellO"),
        Err(RouteRefusal::NotGenuine),
    );
    check(|m| m.key = key(3), Err(RouteRefusal::NotGenuine));
    check(|m| m.hops = 17, Err(RouteRefusal::NotGenuine));
    check(|m| m.hops = 16, Err(RouteRefusal::TooManyHops));
    check(|m| m.ttl_ms = 30_001, Err(RouteRefusal::NotGenuine));
    check(|m| m.ttl_ms = 0, Err(RouteRefusal::Expired));
}

#[test]
fn an_old_message_is_refused_when_it_is_forgotten_too() {
    let mut source = Router::new(id(0), 1);
    let mut router = Router::<Keyed>::new(id(1), 1);
    let old = originate(&mut source, 0, 1, at(0));
    assert_eq!(router.receive(at(0), &old), Ok(Arrival::Here));
    assert_eq!(router.receive(at(1), &old), Err(RouteRefusal::Duplicate));
    let later = at(0) + ROUTED_SEEN_FOR;
    let newer = originate(&mut source, 0, 1, later);
    assert_eq!(router.receive(later, &newer), Ok(Arrival::Here));
    assert_eq!(router.remembered(), 1);
    assert_eq!(router.receive(later, &old), Err(RouteRefusal::Duplicate));
}

#[test]
fn what_one_source_fills_is_bounded_and_not_the_others() {
    let mut source = Router::new(id(0), 1);
    let mut router = Router::<Keyed>::new(id(1), 1);
    for _ in 0..ROUTED_SEEN_PER_SOURCE {
        let message = originate(&mut source, 0, 1, at(0));
        assert_eq!(router.receive(at(0), &message), Ok(Arrival::Here));
    }
    let more = originate(&mut source, 0, 1, at(0));
    assert_eq!(router.receive(at(0), &more), Err(RouteRefusal::Busy));
    let other = originate(&mut Router::new(id(2), 1), 2, 1, at(0));
    assert_eq!(router.receive(at(0), &other), Ok(Arrival::Here));
    let later = at(0) + ROUTED_SEEN_FOR;
    assert_eq!(router.receive(later, &more), Ok(Arrival::Here));
}

#[test]
fn sources_are_bounded_too() {
    let mut router = Router::<Keyed>::new(id(0), 1);
    let mut now = at(0);
    for n in 1..=ROUTED_SOURCES_MAX + 10 {
        let message = originate(&mut Router::new(id(n), 1), n, 0, now);
        let taken = router.receive(now, &message);
        let expected = if n <= ROUTED_SOURCES_MAX {
            Ok(Arrival::Here)
        } else {
            // All are remembered still.
            Err(RouteRefusal::Busy)
        };
        assert_eq!(taken, expected, "{n}");
    }
    now = now + ROUTED_SEEN_FOR;
    let message = originate(&mut Router::new(id(9_999), 1), 9_999, 0, now);
    assert_eq!(router.receive(now, &message), Ok(Arrival::Here));
}

#[test]
fn messages_and_answers_come_back_from_their_bytes() {
    let message = originate(&mut Router::new(id(0), u64::MAX - 1), 0, 1, at(0));
    let header = message.header();
    assert!(header.len() <= usize::from(RoutedMessage::HEADER_BYTES_MAX));
    let again = RoutedMessage::decode(&header, message.payload.clone());
    assert_eq!(again.as_ref(), Ok(&message));

    let hop = Hop {
        node: id(3),
        rtt_us: u32::MAX,
    };
    let answer = |count| RoutedAnswer::Answered {
        key: key(1),
        signature: [9; 64],
        hops: alloc::vec![hop; count],
    };
    let longest = codec::encode(&answer(16));
    assert!(longest.len() <= usize::from(RoutedAnswer::BYTES_MAX));
    assert_eq!(RoutedAnswer::decode(&longest), Ok(answer(16)));
    assert!(RoutedAnswer::decode(&codec::encode(&answer(17))).is_err());
    let RoutedAnswer::Answered { hops, .. } = answer(16).over(id(4), TTL) else {
        panic!()
    };
    assert_eq!(hops.len(), 16);
}

proptest! {
    /// Any graph, with silent nodes: delivered once at most, a typed refusal otherwise, within sixteen links; and
    /// each node takes a message in once for each of its neighbours at most.
    #[test]
    fn in_any_graph_a_message_arrives_once_or_is_refused(
        count in 2_usize..40,
        links in proptest::collection::vec((0_usize..40, 0_usize..40), 0..120),
        silent in proptest::collection::btree_set(0_usize..40, 0..4),
        pairs in proptest::collection::vec((0_usize..40, 0_usize..40), 1..8),
    ) {
        let links: Vec<_> = links.into_iter().map(|(a, b)| (a % count, b % count)).collect();
        let mut mesh = Mesh::new(count, links);
        mesh.silent = silent;
        for (from, to) in pairs {
            let (from, to) = (from % count, to % count);
            if from == to {
                continue;
            }
            mesh.taken_in = 0;
            let before = mesh.delivered.values().sum::<usize>();
            let answer = mesh.send(from, to);
            let delivered = mesh.delivered.values().sum::<usize>() - before;
            match answer {
                RoutedAnswer::Answered { hops, .. } => {
                    prop_assert_eq!(delivered, 1);
                    prop_assert!(!hops.is_empty() && hops.len() <= 16);
                    prop_assert_eq!(hops.last().unwrap().node, id(to));
                    let mut before = from;
                    for hop in hops {
                        let next = mesh.number[&hop.node];
                        prop_assert!(mesh.links.contains(&(before, next)));
                        before = next;
                    }
                }
                RoutedAnswer::Refused { .. } => prop_assert_eq!(delivered, 0),
            }
            prop_assert!(mesh.hops_max <= ROUTED_HOPS_MAX);
            prop_assert!(mesh.taken_in <= count * ROUTED_WAYS_MAX);
            prop_assert!(mesh.delivered.values().all(|times| *times == 1));
        }
    }

    /// Where everybody knows a Kademlia table's worth of others, every message arrives.
    #[test]
    fn over_kademlia_tables_every_message_arrives(count in 2_usize..60, seed in 0_usize..1_000) {
        let mut links = Vec::new();
        for a in 0..count {
            let mut per_bucket: BTreeMap<_, usize> = BTreeMap::new();
            for b in (0..count).map(|b| (b + seed) % count).filter(|b| *b != a) {
                let bucket = Key::from(id(a)).distance(&Key::from(id(b))).bucket();
                let known = per_bucket.entry(bucket).or_default();
                if *known < 2 {
                    *known += 1;
                    links.push((a, b));
                }
            }
        }
        let mut mesh = Mesh::new(count, links);
        for to in 1..count {
            let answer = mesh.send(0, to);
            let answered = matches!(answer, RoutedAnswer::Answered { .. });
            prop_assert!(answered, "0 to {}: {:?}", to, answer);
        }
    }
}

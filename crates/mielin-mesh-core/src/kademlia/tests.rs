#![allow(clippy::unwrap_used)]

use alloc::vec;
use core::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;
use rand::seq::{IndexedRandom, SliceRandom};

use super::store::Stored;
use super::*;
use crate::limits::{
    KADEMLIA_FAILURES_MAX, KADEMLIA_JOINS_MAX, KADEMLIA_RECORDS_PER_KEY,
    KADEMLIA_RECORDS_PER_PUBLISHER, KADEMLIA_REPLICAS, REGISTRY_REFRESH,
};

/// A record that is genuine when it says so.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Note {
    about: u32,
    version: u64,
    genuine: bool,
    ended: bool,
    by: Option<u32>,
}

impl Record for Note {
    type Subject = u32;

    fn subject(&self) -> u32 {
        self.about
    }

    fn supersedes(&self, other: &Note) -> bool {
        self.version > other.version
    }

    fn publisher(&self) -> Option<NodeId> {
        self.by.map(|index| id(index as usize))
    }

    fn gives_way(&self) -> bool {
        self.ended
    }

    fn is_genuine(&self, _: &Key) -> bool {
        self.genuine
    }
}

fn note(version: u64) -> Note {
    Note {
        about: 7,
        version,
        genuine: true,
        ended: false,
        by: None,
    }
}

fn id(index: usize) -> NodeId {
    NodeId(*blake3::hash(&index.to_le_bytes()).as_bytes())
}

fn contact(index: usize) -> Contact {
    Contact {
        id: id(index),
        addresses: vec![([10, 0, (index >> 8) as u8, index as u8], 9).into()],
    }
}

fn at(milliseconds: u64) -> Instant {
    Instant::from_start(Duration::from_millis(milliseconds))
}

/// Arrives then; a number that makes the order total; from, to, and what.
type Parcel = (Instant, u64, NodeId, NodeId, Vec<u8>);

/// Nodes, and a network that delays, loses, and knows who is down.
struct World {
    now: Instant,
    nodes: BTreeMap<NodeId, Dht<Note>>,
    silent: BTreeSet<NodeId>,
    liars: BTreeSet<NodeId>,
    flight: BinaryHeap<Reverse<Parcel>>,
    sent: u64,
    loss_percent: u32,
    random: StdRng,
    found: BTreeMap<LookupId, Found<Note>>,
    other_events: Vec<(NodeId, DhtEvent<Note>)>,
}

impl World {
    fn new(seed: u64) -> World {
        World {
            now: Instant::START,
            nodes: BTreeMap::new(),
            silent: BTreeSet::new(),
            liars: BTreeSet::new(),
            flight: BinaryHeap::new(),
            sent: 0,
            loss_percent: 0,
            random: StdRng::seed_from_u64(seed),
            found: BTreeMap::new(),
            other_events: Vec::new(),
        }
    }

    /// Nodes that joined one after the other, each knowing one that was there.
    fn grown(count: usize, seed: u64) -> World {
        let mut world = World::new(seed);
        for index in 0..count {
            world.join(index);
        }
        world.run_for(Duration::from_secs(30));
        world
    }

    fn join(&mut self, index: usize) {
        let mut dht = Dht::new(id(index), Some(contact(index)), index as u64);
        if index > 0 {
            let known = self.random.random_range(0..index);
            dht.join(self.now, contact(known));
        }
        self.nodes.insert(id(index), dht);
        self.collect(id(index));
        self.run_for(Duration::from_millis(300));
    }

    fn with<T>(&mut self, index: usize, action: impl FnOnce(&mut Dht<Note>, Instant) -> T) -> T {
        let result = action(self.nodes.get_mut(&id(index)).unwrap(), self.now);
        self.collect(id(index));
        result
    }

    fn collect(&mut self, from: NodeId) {
        let dht = self.nodes.get_mut(&from).unwrap();
        while let Some(event) = dht.poll_event() {
            match event {
                DhtEvent::Found(found) => {
                    self.found.insert(found.lookup, found);
                }
                other => self.other_events.push((from, other)),
            }
        }
        while let Some(DhtTransmit { to, bytes }) = dht.poll_transmit() {
            self.sent += 1;
            if self.random.random_range(0..100) < self.loss_percent {
                continue;
            }
            let delay = Duration::from_millis(self.random.random_range(5..60));
            let parcel = (self.now + delay, self.sent, from, to.id, bytes);
            self.flight.push(Reverse(parcel));
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let arrival = self.flight.peek().map(|Reverse(parcel)| parcel.0);
            let timeouts = self
                .nodes
                .iter()
                .filter(|(id, _)| !self.silent.contains(id));
            let timeout = timeouts
                .filter_map(|(id, dht)| Some((dht.poll_timeout(self.now)?, *id)))
                .min();
            let next = [arrival, timeout.map(|(at, _)| at)]
                .into_iter()
                .flatten()
                .min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = next.max(self.now);
            if arrival == Some(next) {
                let Reverse((_, _, from, to, bytes)) = self.flight.pop().unwrap();
                self.deliver(from, to, &bytes);
            } else {
                let (_, id) = timeout.unwrap();
                let now = self.now;
                self.nodes.get_mut(&id).unwrap().handle_timeout(now);
                self.collect(id);
            }
        }
        self.now = end;
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, bytes: &[u8]) {
        if self.silent.contains(&to) || !self.nodes.contains_key(&to) {
            return;
        }
        if self.liars.contains(&to)
            && let Ok(Message::Request { rpc, .. }) = codec::decode::<Message<Note>>(bytes)
        {
            self.lie(to, from, rpc);
            return;
        }
        let now = self.now;
        // A late answer is refused, and that is all.
        let _ = self
            .nodes
            .get_mut(&to)
            .unwrap()
            .handle_message(now, from, bytes);
        self.collect(to);
    }

    /// A forged record, and nodes that are not there.
    fn lie(&mut self, liar: NodeId, to: NodeId, rpc: u64) {
        let forged = Note {
            version: 1_000,
            genuine: false,
            ..note(0)
        };
        let nodes = (0..KADEMLIA_K).map(|_| Contact {
            id: NodeId(self.random.random()),
            addresses: contact(0).addresses,
        });
        let body = Response::Found {
            records: vec![Kept {
                record: forged,
                ttl_s: u32::MAX,
            }],
            nodes: nodes.collect(),
        };
        let bytes = codec::encode(&Message::Response { rpc, body });
        self.sent += 1;
        let parcel = (
            self.now + Duration::from_millis(1),
            self.sent,
            liar,
            to,
            bytes,
        );
        self.flight.push(Reverse(parcel));
    }

    fn nearest(&self, key: &Key, count: usize) -> Vec<NodeId> {
        let alive = self.nodes.keys().filter(|id| !self.silent.contains(id));
        let mut ids: Vec<NodeId> = alive
            .filter(|id| !self.liars.contains(id))
            .copied()
            .collect();
        ids.sort_by_key(|id| key.distance(&(*id).into()));
        ids.truncate(count);
        ids
    }

    fn look_up(&mut self, from: usize, key: Key) -> Found<Note> {
        let lookup = self
            .with(from, |dht, now| dht.find_value(now, key))
            .unwrap();
        self.run_for(Duration::from_secs(60));
        self.found.remove(&lookup).expect("every search ends")
    }

    fn keepers(&self, key: &Key) -> Vec<NodeId> {
        let keeps = |(id, dht): (&NodeId, &Dht<Note>)| {
            let keeps = !dht.store.under(self.now, key).is_empty();
            (keeps && !self.silent.contains(id)).then_some(*id)
        };
        self.nodes.iter().filter_map(keeps).collect()
    }
}

fn key(index: u64) -> Key {
    Key(*blake3::hash(&index.to_be_bytes()).as_bytes())
}

#[test]
fn a_search_finds_exactly_the_nearest_nodes() {
    let mut world = World::grown(120, 1);
    for target in 0..20 {
        let target = key(target);
        let lookup = world
            .with(3, |dht, now| dht.find_node(now, target))
            .unwrap();
        world.run_for(Duration::from_secs(10));
        let found = world.found.remove(&lookup).unwrap();
        let ids: Vec<NodeId> = found.closest.iter().map(|c| c.id).collect();
        let mut wanted = world.nearest(&target, KADEMLIA_K + 1);
        wanted.retain(|node| *node != id(3));
        wanted.truncate(KADEMLIA_K);
        assert_eq!(ids, wanted);
        assert!(found.hops <= 5, "{} hops", found.hops);
    }
}

#[test]
fn a_record_lies_at_the_three_nearest_and_survives_two_of_them() {
    let mut world = World::grown(60, 2);
    for round in 0..5 {
        let key = key(round);
        world.with(1, |dht, now| dht.publish(now, key, note(1)));
        world.run_for(Duration::from_secs(10));
        let mut keepers = world.keepers(&key);
        keepers.sort_by_key(|id| key.distance(&(*id).into()));
        assert_eq!(keepers, world.nearest(&key, KADEMLIA_REPLICAS));
        let (dead, _) = keepers.split_at(2);
        world
            .silent
            .extend(dead.iter().filter(|node| **node != id(1)));
        let from = (2..60)
            .find(|index| !world.silent.contains(&id(*index)))
            .unwrap();
        assert_eq!(world.look_up(from, key).records, [note(1)]);
        // The search has repaired what it found lacking.
        assert!(world.keepers(&key).len() >= KADEMLIA_REPLICAS);
        world.silent.clear();
    }
}

#[test]
fn the_newer_record_wins_and_the_publisher_of_the_older_is_told() {
    let mut world = World::grown(40, 3);
    let key = key(1);
    world.with(1, |dht, now| dht.publish(now, key, note(5)));
    world.run_for(Duration::from_secs(10));
    world.with(2, |dht, now| dht.publish(now, key, note(4)));
    world.run_for(Duration::from_secs(10));
    let superseded = (id(2), DhtEvent::Superseded { key, by: note(5) });
    assert!(world.other_events.contains(&superseded));
    world.with(2, |dht, now| dht.publish(now, key, note(6)));
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.look_up(9, key).records, [note(6)]);
    assert_eq!(world.look_up(30, key).records, [note(6)]);
}

#[test]
fn who_published_the_older_record_is_told_at_once_by_those_who_kept_it() {
    let mut world = World::grown(40, 5);
    let key = key(1);
    let by = |index, version| Note {
        by: Some(index),
        ..note(version)
    };
    world.with(1, |dht, now| dht.publish(now, key, by(1, 5)));
    world.run_for(Duration::from_secs(10));
    world.with(2, |dht, now| dht.publish(now, key, by(2, 6)));
    world.run_for(Duration::from_secs(10));
    let superseded = (id(1), DhtEvent::Superseded { key, by: by(2, 6) });
    assert!(world.other_events.contains(&superseded));
    assert_eq!(world.nodes[&id(1)].published_record(&key, &7), None);
    // Whoever says so without proof is not believed.
    let forged = Note {
        genuine: false,
        ..by(3, 7)
    };
    let bytes = codec::encode(&Message::Request {
        rpc: 1,
        sender: None,
        body: Request::Store(
            key,
            Kept {
                record: forged,
                ttl_s: 600,
            },
        ),
    });
    let now = world.now;
    let holder = world.nodes.get_mut(&id(2)).unwrap();
    holder.handle_message(now, id(3), &bytes).unwrap();
    assert_eq!(holder.published_record(&key, &7), Some(&by(2, 6)));
}

#[test]
fn a_publisher_answers_for_itself_when_all_who_keep_its_record_vanish() {
    let mut world = World::grown(16, 7);
    let key = key(1);
    let order = world.nearest(&key, 16);
    let index = |node| (0..16).find(|index| id(*index) == node).unwrap();
    let (publisher, asker) = (index(order[10]), index(order[12]));
    world.with(publisher, |dht, now| dht.publish(now, key, note(1)));
    world.run_for(Duration::from_secs(10));
    world.silent.extend(world.keepers(&key));
    assert!(!world.silent.contains(&id(publisher)));
    assert_eq!(world.look_up(asker, key).records, [note(1)]);
    // To itself too.
    let own = world.nodes[&id(publisher)].known(world.now, &key);
    assert_eq!(own.len(), 1);
}

#[test]
fn what_a_lone_node_publishes_goes_to_whoever_comes() {
    let mut world = World::grown(1, 6);
    let key = key(1);
    world.with(0, |dht, now| dht.publish(now, key, note(1)));
    assert_eq!(world.nodes[&id(0)].replicas(&key, &7), Some(&[id(0)][..]));
    for index in 1..12 {
        world.join(index);
    }
    // Long before the next round.
    world.run_for(Duration::from_secs(20));
    let mut keepers = world.keepers(&key);
    keepers.sort_by_key(|id| key.distance(&(*id).into()));
    keepers.truncate(KADEMLIA_REPLICAS);
    assert_eq!(keepers, world.nearest(&key, KADEMLIA_REPLICAS));
}

/// Each half has forgotten the other, and its buckets are not empty: that its members are there again must bring them
/// together.
#[test]
fn halves_that_forgot_each_other_are_one_table_again_when_they_hear_of_each_other() {
    let mut world = World::grown(80, 7);
    let sides = || (0..80_usize).flat_map(|one| (0..80).map(move |other| (one, other)));
    let beyond: Vec<_> = sides().filter(|(a, b)| a / 40 != b / 40).collect();
    for (node, other) in &beyond {
        world.with(*node, |dht, now| dht.remove(now, &id(*other)));
    }
    let keys: Vec<Key> = (0..20).map(key).collect();
    for (about, key) in keys.iter().enumerate() {
        world.with(about, |dht, now| dht.publish(now, *key, note(1)));
    }
    world.run_for(Duration::from_secs(10));
    let found = |world: &mut World| {
        let found = keys
            .iter()
            .filter(|key| !world.look_up(70, **key).records.is_empty());
        found.count()
    };
    assert_eq!(found(&mut world), 0, "they are not apart");
    let contacts = world.nodes[&id(0)].contacts();
    assert!(contacts >= KADEMLIA_K, "{contacts}");
    for (node, other) in beyond {
        world.with(node, |dht, now| dht.heard_of(now, contact(other)));
    }
    world.run_for(Duration::from_secs(10));
    assert_eq!(found(&mut world), keys.len());
}

#[test]
fn who_knows_nobody_asks_few_of_many_for_the_way_in() {
    let mut dht: Dht<Note> = Dht::new(id(0), Some(contact(0)), 1);
    for other in 1..1_000 {
        dht.heard_of(at(0), contact(other));
    }
    let asked = core::iter::from_fn(|| dht.poll_transmit()).count();
    assert!((1..=KADEMLIA_JOINS_MAX).contains(&asked), "{asked}");
}

#[test]
fn a_revision_without_haste_comes_with_the_next_round() {
    let mut world = World::grown(20, 8);
    let key = key(1);
    world.with(1, |dht, now| dht.publish(now, key, note(1)));
    world.run_for(Duration::from_secs(10));
    world.with(1, |dht, now| dht.revise(now, key, note(2)));
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.look_up(9, key).records, [note(1)]);
    world.run_for(REGISTRY_REFRESH);
    assert_eq!(world.look_up(9, key).records, [note(2)]);
    world.with(3, |dht, now| dht.revise(now, key, note(3)));
    world.run_for(Duration::from_secs(10));
    assert_eq!(
        world.look_up(9, key).records,
        [note(3)],
        "it was not published yet"
    );
}

#[test]
fn a_record_lives_while_it_is_published_and_no_longer() {
    let mut world = World::grown(30, 4);
    let key = key(1);
    world.with(1, |dht, now| dht.publish(now, key, note(5)));
    world.run_for(2 * REGISTRY_TTL);
    assert_eq!(world.look_up(9, key).records, [note(5)]);
    world.with(1, |dht, _| dht.withdraw(&key, &7));
    // Searches repair copies, and must not keep a record alive by it.
    for from in 2..22 {
        world.run_for(REGISTRY_TTL / 20);
        world.look_up(from, key);
    }
    assert!(world.look_up(9, key).records.is_empty());
}

#[test]
fn searches_survive_silent_nodes_and_loss() {
    let mut world = World::grown(120, 5);
    world.with(1, |dht, now| dht.publish(now, key(1), note(5)));
    world.run_for(Duration::from_secs(10));
    let mut others: Vec<usize> = (2..120).collect();
    others.shuffle(&mut world.random);
    let keepers = world.keepers(&key(1));
    let silent = others
        .iter()
        .map(|index| id(*index))
        .filter(|id| !keepers.contains(id));
    world.silent = silent.take(40).collect();
    world.loss_percent = 10;
    for _ in 0..10 {
        let alive: Vec<usize> = (1..120)
            .filter(|i| !world.silent.contains(&id(*i)))
            .collect();
        let from = *alive.choose(&mut world.random).unwrap();
        assert_eq!(world.look_up(from, key(1)).records, [note(5)]);
    }
}

#[test]
fn liars_can_neither_hide_a_record_nor_forge_one() {
    let mut world = World::grown(100, 6);
    world.with(1, |dht, now| dht.publish(now, key(1), note(5)));
    world.run_for(Duration::from_secs(10));
    let keepers = world.keepers(&key(1));
    let others = (2..100).map(id).filter(|id| !keepers.contains(id));
    world.liars = others.step_by(5).collect();
    let honest = |from: &usize| !world.liars.contains(&id(*from));
    let askers: Vec<usize> = (1..100).step_by(9).filter(honest).collect();
    for from in askers {
        assert_eq!(
            world.look_up(from, key(1)).records,
            [note(5)],
            "from {from}"
        );
    }
}

#[test]
fn a_full_bucket_keeps_the_living_and_replaces_the_dead() {
    let local = Key::from(id(0));
    // Half of all ids are in the farthest bucket.
    let far: Vec<usize> = (1..500)
        .filter(|i| local.distance(&id(*i).into()).bucket() == Some(255))
        .collect();
    let mut table = Table::new(local);
    for index in &far[..KADEMLIA_K] {
        assert_eq!(table.seen(at(1), contact(*index), None), None);
    }
    let oldest = contact(far[0]);
    let newcomer = contact(far[KADEMLIA_K]);
    assert_eq!(
        table.seen(at(2), newcomer.clone(), None),
        Some(oldest.clone())
    );
    // It is asked once, however many would like its place.
    assert_eq!(table.seen(at(2), contact(far[KADEMLIA_K + 1]), None), None);
    assert_eq!(table.seen(at(3), oldest.clone(), None), None);
    assert!(table.entry(&newcomer.id).is_none());
    let next = contact(far[1]);
    assert_eq!(
        table.seen(at(4), newcomer.clone(), None),
        Some(next.clone())
    );
    table.failed(&next.id);
    assert!(table.entry(&next.id).is_none());
    assert!(
        table.entry(&newcomer.id).is_some(),
        "who was seen last gets the place"
    );
    assert_eq!(table.len(), KADEMLIA_K);
    table.remove(&newcomer.id);
    assert!(table.entry(&newcomer.id).is_none());
    assert!(table.entry(&contact(far[KADEMLIA_K + 1]).id).is_some());
    // Nobody is forgotten for one lost request when nobody waits.
    let mut table = Table::new(local);
    table.seen(at(1), oldest.clone(), None);
    for _ in 1..KADEMLIA_FAILURES_MAX {
        table.failed(&oldest.id);
        assert!(table.entry(&oldest.id).is_some());
    }
    table.failed(&oldest.id);
    assert_eq!(table.len(), 0);
}

#[test]
fn what_is_not_sound_is_refused() {
    let mut dht: Dht<Note> = Dht::new(id(0), Some(contact(0)), 1);
    assert_eq!(
        dht.handle_message(at(0), id(1), b"?"),
        Err(DhtError::Malformed)
    );
    let mut say =
        |message: Message<Note>| dht.handle_message(at(0), id(1), &codec::encode(&message));
    let request = |sender: Contact| Message::Request {
        rpc: 1,
        sender: Some(sender),
        body: Request::Ping,
    };
    let (from, claimed) = (id(1), id(2));
    assert_eq!(
        say(request(contact(2))),
        Err(DhtError::Spoofed { from, claimed })
    );
    let body = Response::Pong;
    assert_eq!(
        say(Message::Response { rpc: 1, body }),
        Err(DhtError::Unasked)
    );
    let mut many = contact(1);
    many.addresses = vec![many.addresses[0]; 5];
    assert_eq!(say(request(many)), Err(DhtError::Malformed));
    assert_eq!(say(request(contact(1))), Ok(()));
}

#[test]
fn a_store_is_bounded() {
    let mut store: Store<Note> = Store::new();
    let kept = |about| Kept {
        record: Note { about, ..note(1) },
        ttl_s: u32::MAX,
    };
    let refused = |stored: Stored<Note>| match stored {
        Stored::Refused(refusal) => Some(refusal),
        _ => None,
    };
    for about in 0..KADEMLIA_RECORDS_PER_KEY as u32 {
        assert_eq!(refused(store.insert(at(0), key(0), kept(about))), None);
    }
    let full = store.insert(at(0), key(0), kept(1_000));
    assert_eq!(refused(full), Some(StoreRefusal::Full));
    // One that has ended gives its place to another.
    let mut ended = kept(3);
    ended.record.version = 100;
    ended.record.ended = true;
    assert_eq!(refused(store.insert(at(0), key(0), ended)), None);
    assert_eq!(refused(store.insert(at(0), key(0), kept(1_000))), None);
    assert_eq!(store.len(), KADEMLIA_RECORDS_PER_KEY);
    let full = store.insert(at(0), key(0), kept(1_001));
    assert_eq!(refused(full), Some(StoreRefusal::Full));
    // A claimed life is cut to the longest that there is.
    store.expire(Instant::START + REGISTRY_TTL);
    assert_eq!(store.len(), 0);
    assert_eq!(store.timeout(), None);
}

#[test]
fn one_publisher_holds_neither_a_key_nor_a_store() {
    let mut store: Store<Note> = Store::new();
    let insert = |store: &mut Store<Note>, under: u64, about, by, version| {
        let record = Note {
            about,
            by: Some(by),
            ..note(version)
        };
        let key = Key(*blake3::hash(&under.to_le_bytes()).as_bytes());
        let ttl_s = u32::MAX;
        !matches!(
            store.insert(at(0), key, Kept { record, ttl_s }),
            Stored::Refused(_)
        )
    };
    let per_key = KADEMLIA_RECORDS_PER_KEY as u32;
    for about in 0..per_key {
        assert!(insert(&mut store, 0, about, 1, 1));
    }
    assert!(!insert(&mut store, 0, 99, 1, 1), "no place of its own");
    // Two others come to as many as it has left, and not to more.
    for about in 0..12 {
        let by = 2 + about % 2;
        assert_eq!(
            insert(&mut store, 0, 100 + about, by, 1),
            about < 10,
            "{about}"
        );
    }
    // A record that supersedes another takes its place, whoever has published how much.
    assert!(insert(&mut store, 0, 100, 1, 2));
    assert_eq!(store.len(), per_key as usize);
    let mut stored = 0;
    for under in 1..2 * KADEMLIA_RECORDS_PER_PUBLISHER as u64 {
        stored += usize::from(insert(&mut store, under, 7, 9, 1));
    }
    assert_eq!(stored, KADEMLIA_RECORDS_PER_PUBLISHER);
    assert!(!insert(&mut store, 0, 99, 9, 1), "not there either");
    assert!(insert(&mut store, u64::MAX, 7, 1, 1), "others have room");
    // What is dropped or has expired counts no more.
    store.drop_published_by(&id(9));
    assert!(insert(&mut store, 1, 7, 9, 1));
    store.expire(Instant::START + REGISTRY_TTL);
    let mut stored = 0;
    for under in 0..KADEMLIA_RECORDS_PER_PUBLISHER as u64 {
        stored += usize::from(insert(&mut store, under, 7, 9, 1));
    }
    assert_eq!(stored, KADEMLIA_RECORDS_PER_PUBLISHER);
}

proptest! {
    #[test]
    fn a_point_in_a_bucket_is_in_that_bucket(local: [u8; 32], random: [u8; 32], bucket: u8) {
        let local = Key(local);
        let point = local.in_bucket(bucket, random);
        prop_assert_eq!(local.distance(&point).bucket(), Some(bucket));
    }

    #[test]
    fn distances_are_a_metric(a: [u8; 32], b: [u8; 32], c: [u8; 32]) {
        let (a, b, c) = (Key(a), Key(b), Key(c));
        prop_assert_eq!(a.distance(&b), b.distance(&a));
        prop_assert_eq!(a.distance(&a).bucket(), None);
        // XOR: the way round is in no higher bucket than the farther of its two parts.
        let direct = a.distance(&c).bucket();
        prop_assert!(direct <= a.distance(&b).bucket().max(b.distance(&c).bucket()));
    }

    #[test]
    fn hostile_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut dht: Dht<Note> = Dht::new(id(0), Some(contact(0)), 1);
        let _ = dht.handle_message(at(0), id(1), &bytes);
        prop_assert!(dht.contacts() == 0 && dht.records() <= 1);
    }
}

#[test]
fn a_node_keeps_nothing_forged_and_nothing_of_whom_it_has_shut_out() {
    let mut dht: Dht<Note> = Dht::new(id(0), Some(contact(0)), 1);
    let by = |index| Note {
        by: Some(index),
        ..note(1)
    };
    let store = |dht: &mut Dht<Note>, record| {
        let ttl_s = 60;
        dht.keep(at(0), key(0), Kept { record, ttl_s })
    };
    let forged = Note {
        genuine: false,
        ..by(1)
    };
    let refused = Response::Refused(StoreRefusal::NotGenuine);
    assert_eq!(store(&mut dht, forged), refused);
    assert_eq!(store(&mut dht, by(1)), Response::Stored);
    dht.shut_out(at(0), &id(1));
    assert_eq!(dht.records(), 0);
    assert_eq!(dht.store.timeout(), None);
    let newer = Note {
        version: 9,
        ..by(1)
    };
    assert_eq!(store(&mut dht, newer), refused);
    assert_eq!(store(&mut dht, by(2)), Response::Stored);
}

#[test]
fn the_record_of_a_node_that_was_shut_out_is_not_found() {
    let mut world = World::grown(30, 5);
    let theirs = Note {
        by: Some(1),
        version: 9,
        ..note(0)
    };
    world.with(1, |dht, now| dht.publish(now, key(3), theirs));
    world.run_for(Duration::from_secs(10));
    // Only the searcher knows that the node was shut out, not those who keep its record.
    world.with(20, |dht, now| dht.shut_out(now, &id(1)));
    let searcher = world.with(20, |dht, now| dht.find_value(now, key(3)).unwrap());
    let other = world.with(21, |dht, now| dht.find_value(now, key(3)).unwrap());
    world.run_for(Duration::from_secs(10));
    assert!(world.found[&searcher].records.is_empty());
    assert_eq!(world.found[&other].records.len(), 1);
}

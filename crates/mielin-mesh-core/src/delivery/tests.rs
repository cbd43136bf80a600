#![allow(clippy::unwrap_used, clippy::print_stdout)]

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use std::println;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::Instant;
use crate::limits::*;

fn agent(index: u8) -> AgentId {
    AgentId([index; 16])
}

fn node(index: usize) -> NodeId {
    NodeId([u8::try_from(index).unwrap(); 32])
}

fn payload(sender: u8, destination: u8, number: u64) -> Bytes {
    let mut bytes = vec![sender, destination];
    bytes.extend_from_slice(&number.to_le_bytes());
    Bytes::from(bytes)
}

const NODES: usize = 3;

/// Where an agent is in the model: on a node, or in transit to one.
#[derive(Clone, Copy)]
enum Place {
    At(usize),
    Between(usize, usize),
}

struct World {
    rng: StdRng,
    now: Instant,
    /// By receiver: the mailbox, where it is, how often it moved.
    inboxes: BTreeMap<AgentId, (Inbox, Place, u64)>,
    outboxes: BTreeMap<AgentId, Outbox>,
    /// What each node believes about the receivers: node, then receiver.
    beliefs: Vec<BTreeMap<AgentId, (usize, u64)>>,
    envelopes: Vec<(usize, Envelope)>,
    replies: Vec<(AgentId, AgentId, DeliveryReply)>,
    /// Exchanges that are under way: to which node, and with what.
    exchanges: Vec<(usize, Vec<Envelope>)>,
    pushed: BTreeMap<(AgentId, AgentId), u64>,
    read: BTreeMap<(AgentId, AgentId), u64>,
    faulty: bool,
}

impl World {
    fn new(seed: u64) -> World {
        println!("seed {seed}");
        let receivers = [agent(10), agent(11)];
        let start = receivers.map(|id| (id, (0, 0))).into_iter().collect();
        World {
            rng: StdRng::seed_from_u64(seed),
            now: Instant::START,
            inboxes: receivers
                .map(|id| (id, (Inbox::new(id), Place::At(0), 0)))
                .into(),
            outboxes: [agent(1), agent(2)].map(|id| (id, Outbox::new(id))).into(),
            beliefs: vec![start; NODES],
            envelopes: Vec::new(),
            replies: Vec::new(),
            exchanges: Vec::new(),
            pushed: BTreeMap::new(),
            read: BTreeMap::new(),
            faulty: true,
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())]
    }

    /// What the node at `at` answers to an envelope.
    fn arrive(&mut self, at: usize, envelope: Envelope) -> DeliveryReply {
        let id = envelope.destination;
        let (inbox, place, _) = self.inboxes.get_mut(&id).unwrap();
        match *place {
            Place::At(here) if here == at => inbox.accept(envelope).reply(),
            Place::Between(from, to) if from == at || to == at => DeliveryReply::Busy,
            _ => match self.beliefs[at][&id] {
                (elsewhere, epoch) if elsewhere != at => DeliveryReply::Moved {
                    node: node(elsewhere),
                    epoch: Epoch(epoch),
                },
                _ => DeliveryReply::Unknown,
            },
        }
    }

    fn step(&mut self) {
        let senders = [agent(1), agent(2)];
        let receivers = [agent(10), agent(11)];
        match self.rng.random_range(0..12) {
            0 | 1 if self.faulty => {
                let (from, to) = (self.pick(&senders), self.pick(&receivers));
                let number = self.pushed.get(&(from, to)).copied().unwrap_or(0) + 1;
                let body = payload(from.0[0], to.0[0], number);
                let outbox = self.outboxes.get_mut(&from).unwrap();
                if let Ok(sequence) = outbox.push(Epoch(0), to, MessageKind::Send, body) {
                    assert_eq!(sequence, number);
                    self.pushed.insert((from, to), number);
                }
            }
            2 => {
                let (from, to) = (self.pick(&senders), self.pick(&receivers));
                let outbox = self.outboxes.get_mut(&from).unwrap();
                if let Some(envelopes) = outbox.begin_exchange(self.now, &to) {
                    let at = self.beliefs[0][&to].0;
                    self.exchanges.push((at, envelopes));
                }
            }
            3 | 4 => {
                let (from, to) = (self.pick(&senders), self.pick(&receivers));
                let outbox = self.outboxes.get_mut(&from).unwrap();
                if let Some(envelope) = outbox.poll_post(self.now, &to, 1 << 10) {
                    // All senders live on node 0 and use its beliefs.
                    let to = self.beliefs[0][&envelope.destination].0;
                    let copies = match (self.faulty, self.rng.random_range(0..10)) {
                        (true, 0 | 1) => 0,
                        (true, 2) => 2,
                        _ => 1,
                    };
                    for _ in 0..copies {
                        self.envelopes.push((to, envelope.clone()));
                    }
                }
            }
            5 | 6 if !self.envelopes.is_empty() => {
                // Any of them: the network reorders as it likes.
                let index = self.rng.random_range(0..self.envelopes.len());
                let (at, envelope) = self.envelopes.swap_remove(index);
                let (source, destination) = (envelope.source, envelope.destination);
                let bytes = Bytes::from(envelope.encode());
                assert_eq!(Envelope::decode(&bytes).unwrap(), envelope);
                let reply = self.arrive(at, envelope);
                if !(self.faulty && self.chance(20)) {
                    self.replies.push((source, destination, reply));
                }
            }
            5..=8 if !self.exchanges.is_empty() => {
                let index = self.rng.random_range(0..self.exchanges.len());
                let (at, envelopes) = self.exchanges.swap_remove(index);
                self.exchange(at, envelopes);
            }
            7 | 8 if !self.replies.is_empty() => {
                let index = self.rng.random_range(0..self.replies.len());
                let (source, destination, reply) = self.replies.swap_remove(index);
                // What is posted is answered like this where the answer takes time.
                if matches!(reply, DeliveryReply::Busy | DeliveryReply::Unknown) && self.chance(50)
                {
                    self.outboxes
                        .get_mut(&source)
                        .unwrap()
                        .unheard(&destination);
                } else {
                    self.hear(source, destination, reply);
                }
            }
            9 => self.read_some(),
            10 => self.move_something(),
            _ => self.now = self.now + Duration::from_millis(self.rng.random_range(1..400)),
        }
    }

    fn hear(&mut self, source: AgentId, destination: AgentId, reply: DeliveryReply) {
        let outbox = self.outboxes.get_mut(&source).unwrap();
        match outbox.handle_reply(self.now, &destination, reply) {
            Advice::Redirect { node: to, epoch } => {
                let belief = self.beliefs[0].get_mut(&destination).unwrap();
                if epoch.0 > belief.1 {
                    *belief = (usize::from(to.0[0]), epoch.0);
                }
            }
            Advice::Continue | Advice::LookUp => {}
            Advice::Dropped { .. } => panic!("nobody ends here"),
        }
    }

    /// The end of an exchange, which may have come to nothing on the way there or back.
    fn exchange(&mut self, at: usize, envelopes: Vec<Envelope>) {
        let (source, destination) = (envelopes[0].source, envelopes[0].destination);
        let arrives = !(self.faulty && self.chance(20));
        let reply = arrives.then(|| {
            let mut replies = envelopes
                .into_iter()
                .map(|envelope| self.arrive(at, envelope));
            replies.next_back().unwrap()
        });
        match reply {
            Some(reply) if !(self.faulty && self.chance(20)) => {
                self.hear(source, destination, reply)
            }
            _ => {
                let outbox = self.outboxes.get_mut(&source).unwrap();
                outbox.undeliverable(self.now, &destination);
            }
        }
        self.outboxes
            .get_mut(&source)
            .unwrap()
            .end_exchange(&destination);
    }

    fn read_some(&mut self) {
        for (id, (inbox, place, _)) in &mut self.inboxes {
            // An agent in transit reads nothing.
            if matches!(place, Place::Between(..)) {
                continue;
            }
            while let Some(envelope) = inbox.take() {
                let last = self.read.entry((envelope.source, *id)).or_default();
                *last += 1;
                assert_eq!(envelope.sequence, *last, "lost, doubled or reordered");
                assert_eq!(
                    envelope.payload,
                    payload(envelope.source.0[0], id.0[0], *last)
                );
                if self.rng.random_range(0..3) == 0 {
                    break;
                }
            }
        }
    }

    fn move_something(&mut self) {
        if self.chance(30) {
            let from = self.pick(&[agent(1), agent(2)]);
            let bytes = Bytes::from(self.outboxes[&from].encode());
            self.outboxes
                .insert(from, Outbox::decode(from, &bytes).unwrap());
        }
        let id = self.pick(&[agent(10), agent(11)]);
        let (inbox, place, moves) = self.inboxes.get_mut(&id).unwrap();
        match *place {
            Place::At(from) if self.faulty => {
                let to = (from + self.rng.random_range(1..NODES)) % NODES;
                *place = Place::Between(from, to);
            }
            Place::At(_) => {}
            Place::Between(from, to) => {
                let bytes = Bytes::from(inbox.encode());
                *inbox = Inbox::decode(id, &bytes).unwrap();
                *moves += 1;
                *place = Place::At(to);
                // Both ends know; the rest learns by redirection, or by luck.
                let news = (to, *moves);
                self.beliefs[from].insert(id, news);
                self.beliefs[to].insert(id, news);
                let gossip = self.rng.random_range(0..NODES);
                self.beliefs[gossip].insert(id, news);
            }
        }
    }

    fn settle(&mut self, seed: u64) {
        self.faulty = false;
        // Nobody finds an agent through a chain of nodes that all believe wrongly: spread the truth.
        for step in 0..200_000 {
            self.step();
            if step == 1_000 {
                for (id, (_, place, moves)) in &self.inboxes {
                    if let Place::At(at) = *place {
                        for belief in &mut self.beliefs {
                            belief.insert(*id, (at, *moves));
                        }
                    }
                }
            }
            if self.outboxes.values().all(Outbox::is_empty)
                && self.inboxes.values().all(|(inbox, _, _)| inbox.is_empty())
            {
                assert_eq!(self.pushed, self.read, "seed {seed}");
                return;
            }
        }
        panic!("seed {seed}: messages are stuck");
    }
}

#[test]
fn exactly_once_in_order_over_a_faulty_network_while_both_ends_move() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        for _ in 0..1_500 {
            world.step();
        }
        assert!(world.pushed.values().sum::<u64>() > 50);
        world.settle(seed);
    }
}

fn sent(outbox: &mut Outbox, now: Instant) -> Vec<u64> {
    let mut sent = Vec::new();
    for to in outbox.ready(now) {
        sent.extend(core::iter::from_fn(|| {
            outbox.poll_post(now, &to, usize::MAX)
        }));
    }
    sent.iter().map(|e| e.sequence).collect()
}

fn filled(count: usize) -> Outbox {
    let mut outbox = Outbox::new(agent(1));
    for _ in 0..count {
        outbox
            .push(
                Epoch(0),
                agent(2),
                MessageKind::Send,
                Bytes::from_static(b"x"),
            )
            .unwrap();
    }
    outbox
}

fn at(millis: u64) -> Instant {
    Instant::from_start(Duration::from_millis(millis))
}

#[test]
fn the_window_bounds_what_flies_and_acknowledgements_are_cumulative() {
    let mut outbox = filled(DELIVERY_WINDOW_COUNT + 5);
    let window = DELIVERY_WINDOW_COUNT as u64;
    assert_eq!(sent(&mut outbox, at(0)), (1..=window).collect::<Vec<_>>());
    outbox.handle_reply(at(1), &agent(2), DeliveryReply::Acknowledged { through: 3 });
    assert_eq!(
        sent(&mut outbox, at(1)),
        [window + 1, window + 2, window + 3]
    );
    outbox.handle_reply(at(1), &agent(2), DeliveryReply::Acknowledged { through: 2 });
    assert!(sent(&mut outbox, at(1)).is_empty());
    // A number that was never given out acknowledges nothing.
    outbox.handle_reply(
        at(1),
        &agent(2),
        DeliveryReply::Acknowledged { through: 1_000 },
    );
    assert_eq!(outbox.len(), DELIVERY_WINDOW_COUNT + 2);
}

#[test]
fn an_exchange_and_what_is_posted_wait_for_each_other() {
    let (me, to) = (agent(1), agent(2));
    let mut outbox = Outbox::new(me);
    let push = |outbox: &mut Outbox, len| {
        let payload = Bytes::from(vec![0; len]);
        outbox
            .push(Epoch(0), to, MessageKind::Send, payload)
            .unwrap();
    };
    let post = |outbox: &mut Outbox| {
        let posted = core::iter::from_fn(|| outbox.poll_post(at(0), &to, 10));
        posted.map(|e| e.sequence).collect::<Vec<_>>()
    };
    let exchange = |outbox: &mut Outbox| {
        let envelopes = outbox.begin_exchange(at(0), &to)?;
        Some(envelopes.iter().map(|e| e.sequence).collect::<Vec<_>>())
    };
    for len in [10, 10, 11] {
        push(&mut outbox, len);
    }
    assert_eq!(post(&mut outbox), [1, 2], "the third is too large");
    assert_eq!(outbox.ready(at(0)), [to]);
    assert_eq!(exchange(&mut outbox), None, "it might overtake the others");
    outbox.handle_reply(at(0), &to, DeliveryReply::Acknowledged { through: 2 });
    assert_eq!(exchange(&mut outbox).unwrap(), [3]);
    push(&mut outbox, 10);
    assert!(post(&mut outbox).is_empty());
    assert!(outbox.ready(at(0)).is_empty());
    assert_eq!((exchange(&mut outbox), outbox.poll_timeout()), (None, None));
    // It came to nothing.
    outbox.end_exchange(&to);
    assert!(post(&mut outbox).is_empty(), "the third comes first");
    assert_eq!(exchange(&mut outbox).unwrap(), [3, 4]);
    outbox.handle_reply(at(0), &to, DeliveryReply::Acknowledged { through: 3 });
    outbox.end_exchange(&to);
    assert_eq!(post(&mut outbox), [4]);
    // It cannot be taken in at once, or the lane is gone: it comes in an exchange.
    outbox.unheard(&to);
    assert!(post(&mut outbox).is_empty());
    assert_eq!(exchange(&mut outbox).unwrap(), [4]);
    outbox.end_exchange(&to);
    assert_eq!(post(&mut outbox), [4]);
    // Silence is the same.
    let due = outbox.poll_timeout_to(&to).unwrap();
    assert_eq!(outbox.ready(due), [to]);
    assert_eq!(outbox.poll_post(due, &to, 10), None);
    assert!(outbox.begin_exchange(due, &to).is_some());
}

#[test]
fn a_gap_goes_back_once_and_silence_goes_back_ever_later() {
    let mut outbox = filled(4);
    assert_eq!(sent(&mut outbox, at(0)), [1, 2, 3, 4]);
    outbox.handle_reply(at(1), &agent(2), DeliveryReply::Gap { expected: 2 });
    assert_eq!(sent(&mut outbox, at(1)), [2, 3, 4]);
    outbox.handle_reply(at(2), &agent(2), DeliveryReply::Gap { expected: 2 });
    assert!(sent(&mut outbox, at(2)).is_empty());
    let mut now = at(2);
    let mut waits = Vec::new();
    for _ in 0..8 {
        let next = outbox.poll_timeout().unwrap();
        waits.push(next.since(now));
        now = next;
        let again = outbox.begin_exchange(now, &agent(2)).unwrap();
        assert_eq!(
            again.iter().map(|e| e.sequence).collect::<Vec<_>>(),
            [2, 3, 4]
        );
        outbox.undeliverable(now, &agent(2));
        outbox.end_exchange(&agent(2));
    }
    assert!(waits.is_sorted());
    assert_eq!(waits.last(), Some(&DELIVERY_RETRY_MAX));
}

/// The first is refused, and those behind it were posted before that was known.
#[test]
fn a_full_mailbox_is_left_alone_though_gaps_follow() {
    let mut outbox = filled(3);
    assert_eq!(sent(&mut outbox, at(0)), [1, 2, 3]);
    outbox.handle_reply(at(1), &agent(2), DeliveryReply::Full);
    for _ in 0..2 {
        outbox.handle_reply(at(1), &agent(2), DeliveryReply::Gap { expected: 1 });
        assert!(sent(&mut outbox, at(1)).is_empty());
    }
    let due = outbox.poll_timeout().unwrap();
    assert_eq!(due.since(at(1)), DELIVERY_RETRY_MIN);
    assert_eq!(sent(&mut outbox, due), [1, 2, 3]);
}

#[test]
fn redirections_are_followed_at_once_but_not_for_ever() {
    let mut outbox = filled(2);
    let moved = DeliveryReply::Moved {
        node: node(1),
        epoch: Epoch(1),
    };
    for _ in 0..4 {
        assert_eq!(sent(&mut outbox, at(0)), [1, 2]);
        let advice = outbox.handle_reply(at(0), &agent(2), moved);
        assert_eq!(
            advice,
            Advice::Redirect {
                node: node(1),
                epoch: Epoch(1)
            }
        );
    }
    assert_eq!(sent(&mut outbox, at(0)), [1, 2]);
    outbox.handle_reply(at(0), &agent(2), moved);
    assert!(sent(&mut outbox, at(0)).is_empty());
    outbox.relocated(&agent(2));
    assert_eq!(sent(&mut outbox, at(0)), [1, 2]);
}

#[test]
fn both_boxes_are_bounded_and_say_so() {
    let mut outbox = filled(OUTBOX_COUNT_MAX);
    let one = Bytes::from_static(b"x");
    let full = outbox.push(Epoch(0), agent(3), MessageKind::Send, one.clone());
    assert_eq!(full, Err(OutboxError::Full));
    let advice = outbox.handle_reply(at(0), &agent(2), DeliveryReply::Ended);
    assert_eq!(
        advice,
        Advice::Dropped {
            count: OUTBOX_COUNT_MAX
        }
    );
    let large = Bytes::from(vec![0; PAYLOAD_BYTES_MAX + 1]);
    let refused = outbox.push(Epoch(0), agent(3), MessageKind::Send, large.clone());
    assert_eq!(
        refused,
        Err(OutboxError::TooLarge {
            len: PAYLOAD_BYTES_MAX + 1
        })
    );
    let largest = large.slice(..PAYLOAD_BYTES_MAX);
    for _ in 0..2 {
        outbox
            .push(Epoch(0), agent(3), MessageKind::Send, largest.clone())
            .unwrap();
    }
    assert!(!outbox.can_push(1));
    // One message of any size flies, but not two.
    assert_eq!(sent(&mut outbox, at(0)), [1]);

    let mut inbox = Inbox::new(agent(2));
    let envelope = |sequence, payload: &Bytes| Envelope {
        source: agent(1),
        source_epoch: Epoch(0),
        destination: agent(2),
        sequence,
        kind: MessageKind::Request,
        payload: payload.clone(),
    };
    for sequence in 1..=INBOX_COUNT_MAX as u64 {
        assert_eq!(
            inbox.accept(envelope(sequence, &one)),
            Acceptance::New { through: sequence }
        );
    }
    let next = INBOX_COUNT_MAX as u64 + 1;
    assert_eq!(inbox.accept(envelope(next, &one)), Acceptance::Full);
    assert_eq!(
        inbox.accept(envelope(1, &one)),
        Acceptance::Duplicate { through: next - 1 }
    );
    inbox.take();
    assert_eq!(
        inbox.accept(envelope(next, &one)),
        Acceptance::New { through: next }
    );
    let foreign = Envelope {
        destination: agent(9),
        ..envelope(next + 1, &one)
    };
    assert_eq!(inbox.accept(foreign), Acceptance::Misaddressed);
    while inbox.take().is_some() {}
    for sequence in [next + 1, next + 2] {
        assert_eq!(
            inbox.accept(envelope(sequence, &largest)),
            Acceptance::New { through: sequence }
        );
    }
    assert_eq!(inbox.accept(envelope(next + 3, &one)), Acceptance::Full);
}

#[test]
fn stored_boxes_that_contradict_themselves_are_refused() {
    let stored = |peer, sequence, payload_bytes| Stored {
        peer,
        source_epoch: Epoch(0),
        sequence,
        kind: MessageKind::Send,
        payload_bytes,
    };
    let (a, b) = (agent(1), agent(2));
    let cases = [
        (vec![(a, 1), (a, 2)], vec![], 0),
        (vec![(a, 5)], vec![stored(b, 5, 0)], 0),
        (vec![(a, 5)], vec![stored(a, 6, 0)], 0),
        (vec![(a, 5)], vec![stored(a, 4, 0)], 0),
        (vec![(a, 5)], vec![stored(a, 3, 0), stored(a, 5, 0)], 0),
        (vec![(a, 5)], vec![stored(a, 5, 4)], 3),
        (vec![(a, 5)], vec![stored(a, 5, 4)], 5),
        (vec![(a, 5)], vec![stored(a, 5, u64::MAX)], 3),
    ];
    for (counters, messages, payload_bytes) in cases {
        let mut bytes = codec::encode(&StoredMailbox { counters, messages });
        bytes.extend_from_slice(&vec![7; payload_bytes]);
        let bytes = Bytes::from(bytes);
        assert!(Inbox::decode(a, &bytes).is_err());
        assert!(Outbox::decode(a, &bytes).is_err());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let bytes = Bytes::from(bytes);
        let _ = Envelope::decode(&bytes);
        let _ = Inbox::decode(agent(1), &bytes);
        let _ = Outbox::decode(agent(1), &bytes);
    }
}

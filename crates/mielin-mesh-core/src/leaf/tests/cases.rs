//! One behaviour at a time, on a line that loses only what a test takes from it.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::{MESH, key};
use crate::Instant;
use crate::leaf::noise::{MAC_BYTES, mac};
use crate::leaf::packet::{ANSWER_BYTES, HELLO_BYTES, REFUSED_BYTES, UNKNOWN_BYTES, write_refused};
use crate::leaf::{
    Admission, HostEventKind, Leaf, LeafEvent, LeafHost, LeafNumber, LeafState, LinkError,
    MESSAGE_BYTES_MAX, PACKET_BYTES_MAX, PacketError, PublicKey, Refusal,
};
use crate::limits::*;

const NUMBER: LeafNumber = LeafNumber(5);
const SECRET: [u8; 32] = [77; 32];
const HERE: u8 = 1;
const ELSEWHERE: u8 = 2;

/// A packet that crossed the line: whether to the host, and its bytes.
type Crossed = (bool, Vec<u8>);

struct Pair {
    host: LeafHost<u8>,
    leaf: Leaf,
    admission: Admission,
    now: Instant,
    /// Where the leaf is.
    at: u8,
    /// All packets so far.
    crossed: Vec<Crossed>,
    started: u8,
}

impl Pair {
    fn new() -> Pair {
        let mut host = LeafHost::new(key(1), MESH, [2; 32]);
        let admission = host.admit(NUMBER, SECRET, None).unwrap();
        Pair {
            host,
            leaf: Leaf::new(key(3), admission.clone(), [4; 32]),
            admission,
            now: Instant::START,
            at: HERE,
            crossed: Vec::new(),
            started: 4,
        }
    }

    /// A pair that has spoken, and whose events were looked at.
    fn connected() -> Pair {
        let mut pair = Pair::new();
        pair.run(Duration::from_secs(1));
        assert_eq!(pair.leaf_events(), [LeafEvent::Connected]);
        let key = key(3).public();
        assert_eq!(
            pair.host_events(),
            [HostEventKind::Connected { key }, HostEventKind::Awake]
        );
        pair
    }

    fn restart_leaf(&mut self) {
        self.started += 1;
        self.leaf = Leaf::new(key(3), self.admission.clone(), [self.started; 32]);
    }

    fn restart_host(&mut self, key_of_leaf: Option<PublicKey>) {
        self.started += 1;
        self.host = LeafHost::new(key(1), MESH, [self.started; 32]);
        self.host.admit(NUMBER, SECRET, key_of_leaf).unwrap();
    }

    /// Lets time pass on a good line.
    fn run(&mut self, time: Duration) {
        self.run_through(time, |_| true);
    }

    /// Lets time pass; `passes` says which packets arrive.
    fn run_through(&mut self, time: Duration, mut passes: impl FnMut(&Crossed) -> bool) {
        let until = self.now + time;
        let mut buffer = [0; PACKET_BYTES_MAX];
        loop {
            self.leaf.handle_timeout(self.now);
            self.host.handle_timeout(self.now);
            loop {
                let packet =
                    if let Some((to, packet)) = self.host.poll_transmit(self.now, &mut buffer) {
                        assert_eq!(to, self.at);
                        (false, packet.to_vec())
                    } else if let Some(packet) = self.leaf.poll_transmit(self.now, &mut buffer) {
                        (true, packet.to_vec())
                    } else {
                        break;
                    };
                if passes(&packet) {
                    let _ = self.give(&packet);
                }
                self.crossed.push(packet);
            }
            let timeouts = [self.leaf.poll_timeout(), self.host.poll_timeout()];
            match timeouts.into_iter().flatten().min() {
                Some(due) if due <= until => self.now = self.now.max(due),
                _ => break,
            }
        }
        self.now = until;
    }

    fn give(&mut self, (to_host, packet): &Crossed) -> Result<(), PacketError> {
        if *to_host {
            self.host.handle_packet(self.now, self.at, packet)
        } else {
            self.leaf.handle_packet(self.now, packet)
        }
    }

    fn leaf_events(&mut self) -> Vec<LeafEvent> {
        core::iter::from_fn(|| self.leaf.poll_event()).collect()
    }

    fn host_events(&mut self) -> Vec<HostEventKind> {
        let events: Vec<_> = core::iter::from_fn(|| self.host.poll_event()).collect();
        for event in &events {
            assert_eq!(
                (event.leaf, event.node),
                (NUMBER, key(3).public().node_id())
            );
        }
        events.into_iter().map(|event| event.kind).collect()
    }

    fn leaf_takes(&mut self) -> Vec<Vec<u8>> {
        core::iter::from_fn(|| self.leaf.take()).collect()
    }

    fn host_takes(&mut self) -> Vec<Vec<u8>> {
        core::iter::from_fn(|| self.host.take(NUMBER)).collect()
    }

    fn lengths(&self) -> Vec<(bool, usize)> {
        self.crossed
            .iter()
            .map(|(to_host, packet)| (*to_host, packet.len()))
            .collect()
    }

    /// Messages still go both ways.
    fn check_talk(&mut self) {
        self.leaf.send(b"up").unwrap();
        self.host.send(NUMBER, b"down").unwrap();
        self.run(Duration::from_secs(20));
        assert_eq!(self.leaf_takes(), [b"down"]);
        assert_eq!(self.host_takes(), [b"up"]);
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// What a packet without a body has.
const STANDING: usize = 28;

#[test]
fn a_handshake_is_three_packets_and_an_answer() {
    let pair = Pair::connected();
    let expected = [
        (true, HELLO_BYTES),
        (false, ANSWER_BYTES),
        (true, STANDING),
        (false, STANDING),
    ];
    assert_eq!(pair.lengths(), expected);
    assert_eq!(pair.host.state(NUMBER), Some(LeafState::Connected));
    assert!(pair.leaf.is_connected());
}

#[test]
fn a_message_takes_its_acknowledgement_along_or_waits_for_another() {
    let mut pair = Pair::connected();
    pair.crossed.clear();
    pair.leaf.send(&[1; 100]).unwrap();
    pair.run(SECOND);
    assert_eq!(pair.lengths(), [(true, 130), (false, STANDING)]);
    pair.host_takes();
    pair.crossed.clear();
    for _ in 0..4 {
        pair.leaf.send(&[1; MESSAGE_BYTES_MAX]).unwrap();
    }
    pair.run(SECOND);
    let acknowledged = pair.crossed.iter().filter(|(to_host, _)| !to_host).count();
    assert_eq!((pair.crossed.len(), acknowledged), (6, 2));
    assert_eq!(pair.crossed[0].1.len(), PACKET_BYTES_MAX);
    assert_eq!(pair.leaf.unacknowledged(), 0);
}

#[test]
fn silence_is_kept_alive_and_ends() {
    let mut pair = Pair::connected();
    pair.crossed.clear();
    pair.run(10 * MINUTE);
    assert_eq!(pair.crossed.len(), 2 * 24);
    assert_eq!(pair.host_events(), []);
    // The line dies, and lives again.
    pair.run_through(2 * MINUTE, |_| false);
    assert_eq!(pair.host_events(), [HostEventKind::Gone]);
    assert_eq!(pair.leaf_events(), [LeafEvent::Unanswered]);
    assert!(!pair.leaf.is_connected());
    pair.host.send(NUMBER, b"held back").unwrap();
    pair.crossed.clear();
    pair.run_through(SECOND, |_| false);
    assert!(pair.crossed.iter().all(|(to_host, _)| *to_host));
    pair.run(MINUTE);
    assert_eq!(pair.leaf_takes(), [b"held back"]);
    pair.check_talk();
}

#[test]
fn what_was_overheard_is_worth_nothing() {
    let mut pair = Pair::connected();
    for _ in 0..3 {
        pair.check_talk();
    }
    pair.host_events();
    for crossed in pair.crossed.clone() {
        let expected = match crossed.1.len() {
            ANSWER_BYTES => PacketError::Unknown,
            _ => PacketError::Repeated,
        };
        assert_eq!(pair.give(&crossed), Err(expected));
        // And to whom it was not sent.
        let (to_host, packet) = crossed;
        assert!(pair.give(&(!to_host, packet)).is_err());
    }
    assert_eq!((pair.leaf_takes(), pair.host_takes()), (vec![], vec![]));
    pair.run(SECOND);
    assert_eq!((pair.leaf_events(), pair.host_events()), (vec![], vec![]));
    pair.check_talk();
}

#[test]
fn an_old_handshake_replaces_nothing() {
    let mut pair = Pair::connected();
    let old: Vec<Crossed> = pair.crossed.clone();
    pair.restart_leaf();
    pair.run(SECOND);
    pair.check_talk();
    pair.leaf_events();
    pair.host_events();
    // The host cannot know that this hello is old, and answers. Nobody can use that.
    for crossed in &old {
        let _ = pair.give(crossed);
    }
    pair.crossed.clear();
    pair.check_talk();
    assert_eq!(pair.crossed[0].1.len(), ANSWER_BYTES);
    assert!(
        pair.lengths()[1..]
            .iter()
            .all(|(_, len)| *len < ANSWER_BYTES)
    );
    assert_eq!(
        (pair.leaf_events(), pair.host_events()),
        (vec![], vec![HostEventKind::Readable])
    );
    // It is forgotten in the end, and its index with it.
    assert_eq!(pair.host.indices.len(), 2);
    pair.run(2 * MINUTE);
    assert_eq!(pair.host.indices.len(), 1);
}

#[test]
fn a_lost_answer_and_a_doubled_hello_are_answered_by_the_same_bytes() {
    let mut pair = Pair::new();
    pair.run_through(5 * SECOND, |(to_host, _)| *to_host);
    let answers: Vec<_> = pair
        .crossed
        .iter()
        .filter(|(to_host, _)| !to_host)
        .collect();
    assert!(answers.len() > 2 && answers.iter().all(|answer| *answer == answers[0]));
    pair.run(10 * SECOND);
    assert_eq!(
        pair.leaf_events(),
        [LeafEvent::Unanswered, LeafEvent::Connected]
    );
    pair.check_talk();
}

/// A leaf with something wrong: what it is told.
fn refused(
    change: impl FnOnce(&mut Admission),
    leaf_key: u8,
    already: Option<PublicKey>,
) -> Vec<LeafEvent> {
    let mut pair = Pair::new();
    pair.restart_host(already);
    change(&mut pair.admission);
    pair.leaf = Leaf::new(key(leaf_key), pair.admission.clone(), [9; 32]);
    pair.run(10 * SECOND);
    assert_eq!(pair.host.poll_event(), None);
    assert!(!pair.leaf.is_connected());
    assert_eq!(pair.host.state(NUMBER), Some(LeafState::Gone));
    // It goes on trying, once a minute if it was refused.
    let hellos = pair.crossed.len();
    pair.run(5 * MINUTE);
    let hellos = pair.crossed.len() - hellos;
    assert!((2..=20).contains(&hellos), "{hellos}");
    let mut events = pair.leaf_events();
    events.dedup();
    events.truncate(1);
    events
}

#[test]
fn a_leaf_learns_why_it_is_refused() {
    let check = |events: Vec<LeafEvent>, refusal| assert_eq!(events, [LeafEvent::Refused(refusal)]);
    check(
        refused(|admission| admission.mesh = [0; 32], 3, None),
        Refusal::OtherMesh,
    );
    check(
        refused(|admission| admission.number.0 = 6, 3, None),
        Refusal::NotAdmitted,
    );
    check(
        refused(|admission| admission.secret[31] ^= 1, 3, None),
        Refusal::OtherSecret,
    );
    check(refused(|_| {}, 8, Some(key(3).public())), Refusal::OtherKey);
    let silent = refused(|admission| admission.host = key(2).public(), 3, None);
    assert_eq!(silent, [LeafEvent::Unanswered]);
}

#[test]
fn an_admission_is_for_the_key_that_used_it_first() {
    let mut pair = Pair::connected();
    let mut thief = Leaf::new(key(8), pair.admission.clone(), [9; 32]);
    thief.handle_timeout(pair.now);
    let mut buffer = [0; PACKET_BYTES_MAX];
    let hello = thief.poll_transmit(pair.now, &mut buffer).unwrap();
    assert_eq!(
        pair.host.handle_packet(pair.now, ELSEWHERE, hello),
        Err(PacketError::Refused)
    );
    let (to, refusal) = pair.host.poll_transmit(pair.now, &mut buffer).unwrap();
    assert_eq!((to, refusal.len()), (ELSEWHERE, REFUSED_BYTES));
    thief.handle_packet(pair.now, refusal).unwrap();
    assert_eq!(
        thief.poll_event(),
        Some(LeafEvent::Refused(Refusal::OtherKey))
    );
    pair.check_talk();
}

#[test]
fn another_version_is_told() {
    let mut pair = Pair::new();
    pair.leaf.handle_timeout(pair.now);
    let mut buffer = [0; PACKET_BYTES_MAX];
    let hello = pair.leaf.poll_transmit(pair.now, &mut buffer).unwrap();
    let hello = hello.to_vec();
    let hello_mac = *hello.last_chunk::<MAC_BYTES>().unwrap();
    // A bit that is turned over makes no other version.
    let mut damaged = hello.clone();
    damaged[0] = 0x21;
    let handled = pair.host.handle_packet(pair.now, HERE, &damaged);
    assert_eq!(handled, Err(PacketError::NotGenuine));
    // One that is longer, and ends as all do.
    let mut newer = [&damaged[..HELLO_BYTES - MAC_BYTES], &[0; 20]].concat();
    let mac = mac(&key(1).public(), &newer);
    newer.extend_from_slice(&mac);
    let handled = pair.host.handle_packet(pair.now, HERE, &newer);
    assert_eq!(handled, Err(PacketError::OtherVersion));
    let (_, refusal) = pair.host.poll_transmit(pair.now, &mut buffer).unwrap();
    assert_eq!(refusal.len(), REFUSED_BYTES);
    // It is not for the hello of this leaf, and no byte of one that is may differ.
    let handled = pair.leaf.handle_packet(pair.now, refusal);
    assert_eq!(handled, Err(PacketError::NotGenuine));
    let sender = u32::from_le_bytes(*hello[1..].first_chunk().unwrap());
    let mine = write_refused(sender, &hello_mac, 1, &key(1).public());
    for index in 0..REFUSED_BYTES {
        let mut damaged = mine;
        damaged[index] ^= 0x80;
        assert!(pair.leaf.handle_packet(pair.now, &damaged).is_err());
    }
    assert_eq!(pair.leaf_events(), []);
    pair.leaf.handle_packet(pair.now, &mine).unwrap();
    let refusal = Refusal::OtherVersion { version: 1 };
    assert_eq!(pair.leaf_events(), [LeafEvent::Refused(refusal)]);
    assert_eq!(
        pair.leaf.handle_packet(pair.now, &[0x24; 40]),
        Err(PacketError::OtherVersion)
    );
    assert_eq!(
        pair.host.handle_packet(pair.now, HERE, &[0x24; 40]),
        Err(PacketError::OtherVersion)
    );
}

#[test]
fn a_host_stops_a_fast_leaf_and_starts_it_again() {
    let mut pair = Pair::connected();
    for number in 0..4 {
        pair.leaf.send(&[number]).unwrap();
    }
    assert_eq!(
        pair.leaf.send(&[9]),
        Err(LinkError::Full {
            count: LEAF_QUEUE_MAX
        })
    );
    pair.run(SECOND);
    assert_eq!(pair.leaf_events(), [LeafEvent::Writable]);
    for number in 4..8 {
        pair.leaf.send(&[number]).unwrap();
    }
    pair.run(SECOND);
    assert_eq!(
        (pair.leaf.unacknowledged(), pair.leaf_events()),
        (4, vec![])
    );
    // The word that there is room is lost; asking brings it.
    let taken = pair.host_takes();
    assert_eq!(taken, [[0], [1], [2], [3]]);
    pair.run_through(Duration::from_millis(10), |(to_host, _)| *to_host);
    pair.run(20 * SECOND);
    assert_eq!(pair.host_takes(), [[4], [5], [6], [7]]);
    assert_eq!(pair.leaf.unacknowledged(), 0);
    let too_large = pair.leaf.send(&[0; MESSAGE_BYTES_MAX + 1]);
    assert_eq!(
        too_large,
        Err(LinkError::TooLarge {
            size: 483,
            max: 482
        })
    );
    for _ in 0..LEAF_HOST_QUEUE_MAX {
        pair.host.send(NUMBER, &[]).unwrap();
    }
    assert_eq!(
        pair.host.send(NUMBER, &[]),
        Err(LinkError::Full { count: 32 })
    );
}

#[test]
fn a_lost_message_is_brought_back_before_its_time() {
    let mut pair = Pair::connected();
    for number in 0..4 {
        pair.leaf.send(&[number; 9]).unwrap();
    }
    let mut lose = true;
    // The first of four is lost; the others say so.
    pair.run_through(Duration::from_millis(100), |(to_host, _)| {
        !*to_host || !core::mem::take(&mut lose)
    });
    assert_eq!(pair.host_takes().len(), 4);
}

#[test]
fn a_sleeping_leaf_is_left_alone_and_goes_on_with_one_packet() {
    let mut pair = Pair::connected();
    pair.leaf.doze(pair.now, 3 * MINUTE).unwrap();
    pair.run(SECOND);
    assert_eq!(pair.leaf_events(), [LeafEvent::MaySleep { known: true }]);
    let until = pair.now + 3 * MINUTE;
    assert!(matches!(pair.host.state(NUMBER), Some(LeafState::Asleep { until: of }) if of < until));
    assert_eq!(pair.leaf.poll_timeout(), None);
    pair.host.send(NUMBER, b"wake up").unwrap();
    pair.leaf.send(b"in my sleep").unwrap();
    pair.crossed.clear();
    pair.run(4 * MINUTE);
    assert_eq!(pair.crossed, []);
    assert!(matches!(
        pair.host_events()[..],
        [HostEventKind::Asleep { .. }]
    ));
    pair.leaf.wake(pair.now);
    pair.run(SECOND);
    assert_eq!(pair.crossed[0].1.len(), 30 + 11);
    assert_eq!(
        (pair.leaf_takes(), pair.host_takes()),
        (vec![b"wake up".to_vec()], vec![b"in my sleep".to_vec()])
    );
    assert_eq!(
        pair.host_events(),
        [HostEventKind::Awake, HostEventKind::Readable]
    );
    // Nobody hears that it wants to sleep.
    pair.leaf.doze(pair.now, MINUTE).unwrap();
    pair.run_through(10 * SECOND, |_| false);
    assert_eq!(pair.leaf_events(), [LeafEvent::MaySleep { known: false }]);
    // One that stays asleep is gone.
    pair.leaf.wake(pair.now);
    pair.leaf.doze(pair.now, MINUTE).unwrap();
    pair.run(MINUTE + LEAF_GONE_AFTER + SECOND);
    assert!(matches!(
        pair.host_events()[..],
        [HostEventKind::Asleep { .. }, HostEventKind::Gone]
    ));
}

#[test]
fn a_packet_from_before_the_sleep_wakes_nobody() {
    let mut pair = Pair::connected();
    pair.leaf.send(b"late").unwrap();
    let mut buffer = [0; PACKET_BYTES_MAX];
    let late = pair
        .leaf
        .poll_transmit(pair.now, &mut buffer)
        .unwrap()
        .to_vec();
    pair.leaf.doze(pair.now, MINUTE).unwrap();
    pair.run(SECOND);
    pair.give(&(true, late)).unwrap();
    assert_eq!(pair.host_takes(), [b"late"]);
    assert!(matches!(
        pair.host.state(NUMBER),
        Some(LeafState::Asleep { .. })
    ));
}

#[test]
fn a_word_of_sleep_that_comes_after_waking_puts_nobody_to_sleep() {
    let mut pair = Pair::connected();
    pair.leaf.doze(pair.now, MINUTE).unwrap();
    let mut buffer = [0; PACKET_BYTES_MAX];
    let dozes = pair.leaf.poll_transmit(pair.now, &mut buffer).unwrap();
    let dozes = dozes.to_vec();
    pair.give(&(true, dozes)).unwrap();
    let (_, known) = pair.host.poll_transmit(pair.now, &mut buffer).unwrap();
    let known = known.to_vec();
    pair.leaf.wake(pair.now);
    pair.give(&(false, known)).unwrap();
    assert_eq!(pair.leaf_events(), []);
    pair.run(SECOND);
    assert_eq!(pair.host.state(NUMBER), Some(LeafState::Connected));
    pair.check_talk();
}

#[test]
fn a_host_that_has_forgotten_all_says_so() {
    let mut pair = Pair::connected();
    pair.check_talk();
    pair.leaf.send(b"maybe").unwrap();
    pair.run_through(Duration::from_millis(1), |_| false);
    pair.restart_host(Some(key(3).public()));
    pair.crossed.clear();
    pair.run(5 * SECOND);
    assert_eq!(pair.lengths()[1], (false, UNKNOWN_BYTES));
    let unacknowledged = vec![b"maybe".to_vec()];
    assert_eq!(
        pair.leaf_events(),
        [
            LeafEvent::Restarted { unacknowledged },
            LeafEvent::Connected
        ]
    );
    assert_eq!(pair.host_takes(), [b""; 0]);
    pair.check_talk();
}

#[test]
fn a_leaf_that_has_forgotten_all_begins_again() {
    let mut pair = Pair::connected();
    pair.check_talk();
    pair.host_events();
    pair.host.send(NUMBER, b"maybe").unwrap();
    pair.run_through(Duration::from_millis(1), |_| false);
    pair.restart_leaf();
    pair.run(5 * SECOND);
    let key = key(3).public();
    let unacknowledged = vec![b"maybe".to_vec()];
    assert_eq!(
        pair.host_events(),
        [
            HostEventKind::Connected { key },
            HostEventKind::Restarted { unacknowledged }
        ]
    );
    assert_eq!(pair.leaf_takes(), [b""; 0]);
    pair.check_talk();
}

#[test]
fn forged_words_lose_nothing() {
    let mut pair = Pair::connected();
    let sealed = pair.crossed[2].1.clone();
    // Of a packet that was not sent.
    let forged = [&[0x15], &sealed[1..5], &[9, 0, 0, 0]].concat();
    assert_eq!(pair.give(&(false, forged)), Err(PacketError::Unknown));
    pair.leaf.send(b"on its way").unwrap();
    pair.crossed.clear();
    // Somebody overhears everything, and says of each connection that it is unknown.
    for _ in 0..100 {
        let is_sealed = |(to_host, packet): &&Crossed| *to_host && packet[0] == 0x14;
        let last = pair.crossed.iter().rfind(is_sealed);
        let index = last.map_or(&sealed[1..5], |(_, packet)| &packet[1..5]);
        let forged = [&[0x15], index, &[0; 4]].concat();
        let _ = pair.give(&(false, forged));
        pair.run(Duration::from_millis(10));
    }
    assert_eq!(pair.host_takes(), [b"on its way"]);
    assert_eq!(pair.leaf_events(), [LeafEvent::Connected]);
    let is_hello = |(_, len): &(bool, usize)| *len == HELLO_BYTES;
    let hellos = pair.lengths().into_iter().filter(is_hello).count();
    assert_eq!(hellos, 1);
    pair.check_talk();
}

#[test]
fn keys_are_changed_after_hours_awake() {
    let mut pair = Pair::connected();
    pair.leaf.doze(pair.now, 10 * 60 * MINUTE).unwrap();
    pair.run(10 * 60 * MINUTE);
    pair.leaf.wake(pair.now);
    pair.leaf_events();
    pair.run(LEAF_REKEY_AFTER - MINUTE);
    assert_eq!(pair.leaf_events(), []);
    pair.run(2 * MINUTE);
    assert_eq!(pair.leaf_events(), [LeafEvent::Connected]);
    pair.check_talk();
    assert_eq!(pair.host.indices.len(), 1);
}

#[test]
fn a_leaf_is_where_its_newest_packet_comes_from() {
    let mut pair = Pair::connected();
    pair.at = ELSEWHERE;
    pair.leaf.send(b"from elsewhere").unwrap();
    pair.run(SECOND);
    assert_eq!(pair.host_takes(), [b"from elsewhere"]);
    // One that comes late does not bring it back, and neither do old ones and noise.
    let mut buffer = [0; PACKET_BYTES_MAX];
    pair.leaf.send(b"late").unwrap();
    let late = pair
        .leaf
        .poll_transmit(pair.now, &mut buffer)
        .unwrap()
        .to_vec();
    pair.leaf.send(b"another").unwrap();
    pair.run(5 * SECOND);
    assert_eq!(pair.host_takes().len(), 2);
    pair.at = HERE;
    assert_eq!(pair.give(&(true, late)), Ok(()));
    pair.at = ELSEWHERE;
    pair.run(SECOND);
    pair.at = HERE;
    let old = pair.crossed[2].clone();
    assert_eq!(pair.give(&old), Err(PacketError::Repeated));
    let from_leaf = |crossed: &&Crossed| crossed.0;
    let mut noise = pair.crossed.iter().rfind(from_leaf).unwrap().1.clone();
    noise[5] = 200;
    assert!(pair.give(&(true, noise)).is_err());
    pair.at = ELSEWHERE;
    pair.check_talk();
}

#[test]
fn strangers_cost_nothing_and_friends_little() {
    let mut pair = Pair::connected();
    let mut buffer = [0; PACKET_BYTES_MAX];
    let mut stranger = pair.admission.clone();
    stranger.host = key(2).public();
    let mut answered = 0;
    for number in 10..210 {
        for (admission, expected) in [
            (&stranger, Err(PacketError::NotGenuine)),
            (&pair.admission, Ok(())),
        ] {
            let mut leaf = Leaf::new(key(3), admission.clone(), [number; 32]);
            leaf.handle_timeout(pair.now);
            let hello = leaf.poll_transmit(pair.now, &mut buffer).unwrap();
            let handled = pair.host.handle_packet(pair.now, ELSEWHERE, hello);
            if handled != Err(PacketError::Refused) {
                assert_eq!(handled, expected);
                answered += u32::from(handled.is_ok());
            }
        }
    }
    assert!(answered <= LEAF_HANDSHAKES_BURST);
    assert!(pair.host.replies.len() <= LEAF_REPLIES_MAX);
    assert_eq!(pair.host.indices.len(), 2);
    while pair.host.poll_transmit(pair.now, &mut buffer).is_some() {}
    pair.check_talk();
}

#[test]
fn admissions_are_counted_and_taken_back() {
    let mut host = LeafHost::<u8>::new(key(1), MESH, [2; 32]);
    for number in 0..LEAVES_MAX as u32 {
        host.admit(LeafNumber(number), SECRET, None).unwrap();
    }
    let more =
        |host: &mut LeafHost<u8>, number| host.admit(LeafNumber(number), SECRET, None).map(|_| ());
    assert_eq!(more(&mut host, 5000), Err(LinkError::NoRoom));
    host.dismiss(LeafNumber(3)).unwrap();
    assert_eq!(host.dismiss(LeafNumber(3)), Err(LinkError::NotAdmitted));
    assert_eq!(more(&mut host, 4), Err(LinkError::NoRoom));
    assert_eq!(more(&mut host, 3), Ok(()));

    let mut pair = Pair::connected();
    pair.host.send(NUMBER, b"too late").unwrap();
    assert_eq!(pair.host.dismiss(NUMBER).unwrap(), [b"too late"]);
    pair.leaf.send(b"hello?").unwrap();
    pair.run(5 * SECOND);
    assert_eq!(
        pair.leaf_events(),
        [LeafEvent::Refused(Refusal::NotAdmitted)]
    );
    assert_eq!(pair.host.send(NUMBER, b"x"), Err(LinkError::NotAdmitted));
}

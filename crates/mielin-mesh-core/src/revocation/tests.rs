use core::convert::Infallible;
use std::collections::BTreeMap;
use std::vec;

use super::*;
use crate::limits::REVOCATION_REASON_BYTES_MAX;

const ROOT: [u8; 32] = [9; 32];

/// Stands for a signature scheme: the signature is a keyed hash. Real signatures are tested where the cryptography is.
#[derive(Clone, Copy, Debug)]
enum Keyed {}

fn mac(key: &[u8; 32], message: &[u8]) -> [u8; 64] {
    let mut out = [0; 64];
    let mut hash = blake3::Hasher::new_keyed(key);
    hash.update(message).finalize_xof().fill(&mut out);
    out
}

impl Verify for Keyed {
    fn verify(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        mac(key, message) == *signature
    }
}

fn node(number: u16) -> NodeId {
    let mut id = [0; 32];
    id[..2].copy_from_slice(&number.to_be_bytes());
    NodeId(id)
}

fn revoked(number: u16, key: &[u8; 32]) -> SignedRevocation {
    let revocation = Revocation {
        node: node(number),
        revoked_ms: 7,
        reason: Reason::new("stolen").unwrap(),
    };
    let signed =
        SignedRevocation::sign(revocation, |message| Ok::<_, Infallible>(mac(key, message)));
    signed.unwrap()
}

/// Nodes that all know each other, and a network that can be cut.
struct Group {
    nodes: BTreeMap<NodeId, Revocations<Keyed>>,
    now: Instant,
}

impl Group {
    fn of(count: u16) -> Group {
        let ids: Vec<NodeId> = (0..count).map(node).collect();
        let nodes = ids.iter().enumerate().map(|(index, id)| {
            let mut set = Revocations::new(ROOT, [], index as u64);
            for other in ids.iter().filter(|other| *other != id) {
                set.member_joined(Instant::START, *other);
            }
            (*id, set)
        });
        Group {
            nodes: nodes.collect(),
            now: Instant::START,
        }
    }

    /// Carries everything that is sent over links that stand; the number of messages.
    fn carry(&mut self, stands: impl Fn(&NodeId, &NodeId) -> bool) -> usize {
        let mut carried = 0;
        loop {
            let mut sent = Vec::new();
            for (from, set) in &mut self.nodes {
                while let Some(transmit) = set.poll_transmit() {
                    assert!(transmit.bytes.len() <= REVOCATION_MESSAGE_BYTES_MAX);
                    sent.push((*from, transmit));
                }
            }
            sent.retain(|(from, transmit)| stands(from, &transmit.to));
            if sent.is_empty() {
                return carried;
            }
            carried += sent.len();
            for (from, RevocationTransmit { to, bytes }) in sent {
                let set = self.nodes.get_mut(&to).unwrap();
                set.handle_message(from, &bytes).unwrap();
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        for set in self.nodes.values_mut() {
            set.handle_timeout(self.now);
        }
    }

    fn knowing(&self, number: u16) -> usize {
        let known = self
            .nodes
            .values()
            .filter(|set| set.contains(&node(number)));
        known.count()
    }
}

#[test]
fn a_revocation_reaches_everyone_and_then_there_is_silence() {
    let mut group = Group::of(200);
    let root = group.nodes.get_mut(&node(0)).unwrap();
    assert_eq!(root.insert(revoked(1_000, &ROOT)), Ok(true));
    assert_eq!(root.insert(revoked(1_000, &ROOT)), Ok(false), "known");
    let carried = group.carry(|_, _| true);
    assert!(group.knowing(1_000) >= 199, "{}", group.knowing(1_000));
    assert!(carried <= 200 * FANOUT, "each hands it on once: {carried}");
    let mut rounds = 0;
    while group.knowing(1_000) < 200 {
        rounds += 1;
        assert!(rounds < 20);
        group.pass(SUMMARY_PERIOD);
        group.carry(|_, _| true);
    }
    group.pass(SUMMARY_PERIOD);
    assert_eq!(group.carry(|_, _| true), 200, "equal digests: nothing more");
}

#[test]
fn two_sides_of_a_partition_are_one_again() {
    let mut group = Group::of(20);
    let side = |id: &NodeId| *id < node(10);
    for (at, number) in [(0, 100), (15, 200)] {
        let set = group.nodes.get_mut(&node(at)).unwrap();
        set.insert(revoked(number, &ROOT)).unwrap();
    }
    for _ in 0..5 {
        group.carry(|from, to| side(from) == side(to));
        group.pass(SUMMARY_PERIOD);
    }
    assert_eq!((group.knowing(100), group.knowing(200)), (10, 10));
    // One connection across is enough.
    group.nodes.get_mut(&node(3)).unwrap().connected(node(12));
    for _ in 0..20 {
        group.carry(|_, _| true);
        group.pass(SUMMARY_PERIOD);
    }
    assert_eq!((group.knowing(100), group.knowing(200)), (20, 20));
}

#[test]
fn forged_revocations_and_those_of_another_mesh_change_nothing() {
    let mut set = Revocations::<Keyed>::new(ROOT, [revoked(8, &[1; 32]), revoked(9, &ROOT)], 1);
    assert_eq!(set.iter().count(), 1, "a stored forgery is left out");
    let message = Message::News(vec![
        revoked(1, &ROOT),
        revoked(2, &[1; 32]),
        revoked(3, &ROOT),
    ]);
    let outcome = set.handle_message(node(5), &codec::encode(&message));
    assert_eq!(outcome, Err(RevocationError::Forged(node(2))));
    let held: Vec<NodeId> = set.iter().map(|one| one.revocation().node).collect();
    assert_eq!(held, [node(1), node(9)]);
    assert_eq!(set.poll_event(), Some(revoked(1, &ROOT)));
    assert_eq!(set.poll_event(), None);
}

#[test]
fn a_revoked_member_is_told_nothing_and_a_full_set_stays_as_it_is() {
    let mut set = Revocations::<Keyed>::new(ROOT, [], 1);
    set.member_joined(Instant::START, node(1));
    set.insert(revoked(1, &ROOT)).unwrap();
    set.connected(node(1));
    set.member_joined(Instant::START, node(1));
    set.handle_timeout(Instant::START + SUMMARY_PERIOD);
    assert_eq!(set.poll_transmit(), None);

    let all = (0..REVOCATIONS_MAX as u16).map(|number| revoked(number, &ROOT));
    let mut set = Revocations::new(ROOT, all, 1);
    let more = revoked(REVOCATIONS_MAX as u16, &ROOT);
    assert_eq!(set.insert(more), Err(RevocationError::Full));
    // The largest set travels whole.
    let mut empty = Revocations::<Keyed>::new(ROOT, [], 2);
    empty.connected(node(1));
    let (mut sets, mut at) = ([empty, set], 0);
    while sets.iter_mut().any(|set| !set.transmits.is_empty()) {
        while let Some(sent) = sets[at].poll_transmit() {
            assert!(sent.bytes.len() <= REVOCATION_MESSAGE_BYTES_MAX);
            sets[1 - at].handle_message(node(7), &sent.bytes).unwrap();
        }
        at = 1 - at;
    }
    assert_eq!(sets[0].iter().count(), REVOCATIONS_MAX);
}

#[test]
fn a_reason_is_one_short_line() {
    assert_eq!(Reason::new("").unwrap(), Reason::default());
    assert_eq!(Reason::new("a\nb"), Err(ReasonError::Control));
    let long = "x".repeat(REVOCATION_REASON_BYTES_MAX + 1);
    assert_eq!(Reason::new(&long), Err(ReasonError::TooLong));
}

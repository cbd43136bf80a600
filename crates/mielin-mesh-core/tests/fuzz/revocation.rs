//! Messages about revocations: only what the root has signed is taken in, and nothing is taken back.
#![allow(clippy::unwrap_used)]

use core::convert::Infallible;
use core::time::Duration;

use mielin_fuzz::{Seed, Steps, Target};
use mielin_mesh_core::limits::{REVOCATION_MESSAGE_BYTES_MAX, REVOCATIONS_MAX};
use mielin_mesh_core::registry::Verify;
use mielin_mesh_core::revocation::Reason;
use mielin_mesh_core::{Instant, NodeId, Revocation, Revocations, SignedRevocation};

pub(crate) const TARGET: Target = Target {
    name: "revocation",
    mutations: 6_000,
    // What the codec's limit lets a length claim, and the answers to it.
    fixed_bytes: 2 * REVOCATION_MESSAGE_BYTES_MAX + (64 << 10),
    bytes_per_byte: 256,
    run,
    seeds,
};

/// The root's signature is its key, twice, so that mutations of the rest are taken in.
enum Repeats {}

impl Verify for Repeats {
    fn verify(key: &[u8; 32], _: &[u8], signature: &[u8; 64]) -> bool {
        *signature == signature_of(key)
    }
}

fn signature_of(key: &[u8; 32]) -> [u8; 64] {
    core::array::from_fn(|index| key[index % 32])
}

const ROOT: [u8; 32] = [9; 32];
const STEPS_MAX: usize = 64;

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn revoked(number: u8, key: &[u8; 32]) -> SignedRevocation {
    let revocation = Revocation {
        node: node(number),
        revoked_ms: 7,
        reason: Reason::new("stolen").unwrap(),
    };
    SignedRevocation::sign(revocation, |_| Ok::<_, Infallible>(signature_of(key))).unwrap()
}

/// Each step is a message of the node with its number; time passes between them.
fn run(input: &[u8]) -> bool {
    let mut set = Revocations::<Repeats>::new(ROOT, [revoked(1, &ROOT)], 1);
    let (mut now, mut understood) = (Instant::START, false);
    for (from, bytes) in Steps::new(input).take(STEPS_MAX) {
        let before: Vec<NodeId> = set.iter().map(|one| one.revocation().node).collect();
        set.member_joined(now, node(from));
        understood |= set.handle_message(node(from), bytes).is_ok();
        now = now + Duration::from_secs(1);
        set.handle_timeout(now);
        while let Some(transmit) = set.poll_transmit() {
            assert!(transmit.bytes.len() <= REVOCATION_MESSAGE_BYTES_MAX);
        }
        while let Some(new) = set.poll_event() {
            assert!(new.is_genuine::<Repeats>(&ROOT));
            assert!(!before.contains(&new.revocation().node), "known before");
        }
        assert!(before.iter().all(|node| set.contains(node)));
        assert!(set.iter().count() <= REVOCATIONS_MAX);
    }
    understood
}

/// What a node says that has revoked these, when it connects and when it is asked.
fn said(numbers: &[u8], key: [u8; 32]) -> Vec<Vec<u8>> {
    let signed = numbers.iter().map(|number| revoked(*number, &key));
    let mut peer = Revocations::<Repeats>::new(key, signed, 2);
    peer.connected(node(2));
    let mut other = Revocations::<Repeats>::new(key, [], 3);
    let mut messages = Vec::new();
    while let Some(told) = peer.poll_transmit() {
        messages.push(told.bytes.clone());
        let _ = other.handle_message(node(3), &told.bytes);
        while let Some(asked) = other.poll_transmit() {
            peer.handle_message(node(2), &asked.bytes).unwrap();
        }
    }
    messages
}

fn seeds() -> Vec<Seed> {
    let written = |messages: &[Vec<u8>]| {
        let steps: Vec<_> = messages.iter().map(|m| (3, m.as_slice())).collect();
        Steps::write(&steps)
    };
    let genuine = said(&[4, 5], ROOT);
    let forged = said(&[4], [1; 32]);
    vec![
        Seed::good("digest-ids-and-news", written(&genuine)),
        Seed::bad("forged", written(&forged[forged.len() - 1..])),
        Seed::bad(
            "claims-2-to-the-62-nodes",
            Steps::write(&[(3, &[1, 253, 0, 0, 0, 0, 0, 0, 0, 64])]),
        ),
    ]
}

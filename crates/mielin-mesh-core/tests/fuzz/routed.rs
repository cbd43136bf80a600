//! Forwarded messages: a router takes each in once, and only what its source has signed.
#![allow(clippy::unwrap_used)]

use core::time::Duration;

use bytes::Bytes;
use mielin_fuzz::{Seed, Steps, Target};
use mielin_mesh_core::limits::{ROUTED_HOPS_MAX, ROUTED_WAYS_MAX};
use mielin_mesh_core::registry::Verify;
use mielin_mesh_core::routing::{Arrival, Hop, Neighbour, RouteRefusal, RoutedAnswer, Step};
use mielin_mesh_core::{Instant, NodeId, RoutedMessage, Router, codec};

pub(crate) const TARGET: Target = Target {
    name: "routed",
    mutations: 20_000,
    fixed_bytes: 64 << 10,
    bytes_per_byte: 64,
    run,
    seeds,
};

/// A message: the length of its header, the header, the payload.
const MESSAGE: u8 = 0;
/// An answer's header.
const ANSWER: u8 = 1;
/// Time passes: as many tens of seconds as there are bytes.
const TIME: u8 = 2;
const STEPS_MAX: usize = 64;

/// A signature is genuine when it begins with the key, so that mutations get through.
enum BeginsWithKey {}

impl Verify for BeginsWithKey {
    fn verify(key: &[u8; 32], _: &[u8], signature: &[u8; 64]) -> bool {
        signature[..32] == *key
    }
}

fn key(number: u8) -> [u8; 32] {
    [number; 32]
}

fn node(number: u8) -> NodeId {
    NodeId::of_ed25519_key(&key(number))
}

fn run(input: &[u8]) -> bool {
    let mut router = Router::<BeginsWithKey>::new(node(0), 1);
    let (mut now, mut understood) = (Instant::START, false);
    let mut taken = Vec::new();
    for (kind, bytes) in Steps::new(input).take(STEPS_MAX) {
        match kind {
            MESSAGE => {
                let (length, rest) = bytes.split_first().map_or((0, bytes), |(l, r)| (*l, r));
                let (header, payload) = rest.split_at(usize::from(length).min(rest.len()));
                let payload = Bytes::copy_from_slice(payload);
                let Ok(message) = RoutedMessage::decode(header, payload.clone()) else {
                    continue;
                };
                let again = RoutedMessage::decode(&message.header(), payload);
                assert_eq!(again.as_ref(), Ok(&message));
                let Ok(arrival) = router.receive(now, &message) else {
                    continue;
                };
                understood = true;
                assert!(message.hops <= ROUTED_HOPS_MAX);
                assert_eq!(message.source, NodeId::of_ed25519_key(&message.key));
                assert!(
                    !taken.contains(&(message.source, message.id)),
                    "taken in twice"
                );
                taken.push((message.source, message.id));
                if arrival == Arrival::Onward {
                    onward(&router, now, message);
                }
            }
            ANSWER => {
                if let Ok(answer) = RoutedAnswer::decode(bytes) {
                    let again = RoutedAnswer::decode(&codec::encode(&answer));
                    assert_eq!(again.as_ref(), Ok(&answer));
                    if let RoutedAnswer::Answered { hops, .. } = answer.over(node(1), Duration::MAX)
                    {
                        assert!((1..=16).contains(&hops.len()));
                    }
                    understood = true;
                }
            }
            TIME => now = now + Duration::from_secs(10) * bytes.len() as u32,
            _ => {}
        }
    }
    understood
}

fn onward(router: &Router<BeginsWithKey>, now: Instant, message: RoutedMessage) {
    let source = message.source;
    let neighbours = (0..9).map(|number| Neighbour {
        node: node(number),
        rtt: Some(Duration::from_millis(number.into())),
    });
    let mut passage = router.passage(now, message, Some(node(1)), neighbours);
    for sent in 0.. {
        match passage.next(now) {
            Step::Send(to, message) => {
                assert!(sent < ROUTED_WAYS_MAX && message.hops <= ROUTED_HOPS_MAX);
                assert!(to != source && to != node(0) && to != node(1));
                passage.refused(to, RouteRefusal::Duplicate);
            }
            Step::GiveUp { .. } => break,
        }
    }
}

fn message(source: u8, destination: u8, id: u64) -> RoutedMessage {
    let mut signature = [7; 64];
    signature[..32].copy_from_slice(&key(source));
    RoutedMessage {
        source: node(source),
        destination: node(destination),
        id,
        protocol: 100,
        ttl_ms: 30_000,
        hops: 1,
        key: key(source),
        signature,
        payload: Bytes::from_static(b"hello"),
    }
}

fn bytes(message: &RoutedMessage) -> Vec<u8> {
    let header = message.header();
    let mut bytes = vec![u8::try_from(header.len()).unwrap()];
    bytes.extend(header);
    bytes.extend_from_slice(&message.payload);
    bytes
}

fn steps<const N: usize>(steps: [(u8, Vec<u8>); N]) -> Vec<u8> {
    let steps = steps.each_ref().map(|(kind, bytes)| (*kind, &bytes[..]));
    Steps::write(&steps)
}

fn seeds() -> Vec<Seed> {
    let here = bytes(&message(2, 0, 5));
    let onward = bytes(&message(2, 3, 6));
    let mut far = message(2, 3, 6);
    far.hops = 17;
    let mut forged = message(2, 0, 5);
    forged.source = node(4);
    let hop = Hop {
        node: node(3),
        rtt_us: 250,
    };
    let answer = |hops| {
        codec::encode(&RoutedAnswer::Answered {
            key: key(3),
            signature: [3; 64],
            hops: vec![hop; hops],
        })
    };
    let refused = codec::encode(&RoutedAnswer::Refused {
        by: node(3),
        refusal: RouteRefusal::NoWay,
    });
    vec![
        Seed::good("here", steps([(MESSAGE, here.clone())])),
        Seed::good("onward", steps([(MESSAGE, onward.clone())])),
        Seed::good(
            "repeated",
            steps([
                (MESSAGE, here.clone()),
                (MESSAGE, here.clone()),
                (TIME, vec![0; 6]),
                (MESSAGE, onward),
                (MESSAGE, here),
            ]),
        ),
        Seed::good("answer", steps([(ANSWER, answer(16))])),
        Seed::good("refused", steps([(ANSWER, refused)])),
        Seed::bad("too-many-hops", steps([(ANSWER, answer(17))])),
        Seed::bad("too-far", steps([(MESSAGE, bytes(&far))])),
        Seed::bad("forged", steps([(MESSAGE, bytes(&forged))])),
    ]
}

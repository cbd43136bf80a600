#![allow(clippy::unwrap_used)]

use mielin_fuzz::{Seed, Target};
use mielin_mesh_core::delivery::MessageKind;
use mielin_mesh_core::{AgentId, Epoch};

use super::*;

/// Messages that came by way of the members.
const HANDED_ON: Target = Target {
    name: "handed_on",
    mutations: 20_000,
    fixed_bytes: 16 << 10,
    bytes_per_byte: 32,
    run: |bytes| {
        let Some(envelopes) = split(Bytes::copy_from_slice(bytes)) else {
            return false;
        };
        assert!(envelopes.len() <= DELIVERY_WINDOW_COUNT);
        assert_eq!(split(join(&envelopes)), Some(envelopes.clone()));
        !envelopes.is_empty()
    },
    seeds: || {
        let three = [1, 2, 3].map(|sequence| envelope(sequence, 4));
        let mut other = three.to_vec();
        other[1].destination = AgentId([9; 16]);
        let many: Vec<_> = (1..=33).map(|sequence| envelope(sequence, 0)).collect();
        let one = join(&three[..1]);
        vec![
            Seed::good("one", &one[..]),
            Seed::good("three", &join(&three)[..]),
            Seed::bad("cut-off", &one[..one.len() - 1]),
            Seed::bad("two-destinations", &join(&other)[..]),
            Seed::bad("too-many", &join(&many)[..]),
        ]
    },
};

/// The first header of an exchange, and the messages that it begins.
const BATCH: Target = Target {
    name: "batch",
    mutations: 20_000,
    fixed_bytes: 4 << 10,
    bytes_per_byte: 8,
    run: |bytes| {
        let Some((batch, header)) = Batch::decode(&Bytes::copy_from_slice(bytes)) else {
            return false;
        };
        assert!((1..=DELIVERY_WINDOW_COUNT).contains(&usize::from(batch.count)));
        assert!(batch.bytes as usize <= BATCH_BYTES_MAX);
        let mut again = codec::encode(&batch);
        again.extend_from_slice(&header);
        assert_eq!(
            Batch::decode(&again.into()),
            Some((batch, header.clone())),
            "another journey"
        );
        let Ok(message) = Envelope::decode(&header) else {
            return false;
        };
        // The payload comes behind the header, in a frame of its own.
        let again = Envelope::decode(&message.header().into()).unwrap();
        let payload = message.payload.clone();
        assert_eq!(Envelope { payload, ..again }, message);
        Messages::default().add(message).is_some()
    },
    seeds: || {
        let first = |count, bytes| {
            let mut first = codec::encode(&Batch { count, bytes });
            first.extend_from_slice(&envelope(1, 0).header());
            first
        };
        let most = BATCH_BYTES_MAX as u32;
        let one = first(1, 4);
        vec![
            Seed::good("largest", first(DELIVERY_WINDOW_COUNT as u8, most)),
            Seed::bad("none", first(0, 0)),
            Seed::bad("too-many", first(DELIVERY_WINDOW_COUNT as u8 + 1, 0)),
            Seed::bad("too-large", first(1, most + 1)),
            Seed::bad("cut-off", &one[..one.len() - 1]),
            Seed::good("one", one),
        ]
    },
};

fn envelope(sequence: u64, len: usize) -> Envelope {
    Envelope {
        source: AgentId([1; 16]),
        source_epoch: Epoch(2),
        destination: AgentId([3; 16]),
        sequence,
        kind: MessageKind::Send,
        payload: Bytes::from(vec![7; len]),
    }
}

#[test]
fn handed_on() {
    HANDED_ON.replay();
}

#[test]
fn batch() {
    BATCH.replay();
}

#[test]
fn as_many_messages_as_fit_are_joined() {
    let half = PAYLOAD_BYTES_MAX / 2 - 100;
    let large = [1, 2, 3].map(|sequence| envelope(sequence, half));
    let mut joined = join(&large);
    assert!(joined.len() <= PAYLOAD_BYTES_MAX);
    let first = joined.get_u32() as usize;
    let first = Envelope::decode(&joined.split_to(first)).unwrap();
    let second = joined.get_u32() as usize;
    let second = Envelope::decode(&joined.split_to(second)).unwrap();
    assert_eq!(
        ([first, second], joined.len()),
        ([large[0].clone(), large[1].clone()], 0)
    );
}

#[test]
fn nobody_announces_more_than_may_be_in_flight() {
    let accepted = |count, bytes| {
        let mut announced = codec::encode(&Batch { count, bytes });
        announced.extend_from_slice(b"header");
        let decoded = Batch::decode(&announced.into());
        decoded.is_some_and(|decoded| decoded == (Batch { count, bytes }, b"header"[..].into()))
    };
    let most = BATCH_BYTES_MAX as u32;
    assert!(accepted(1, 0) && accepted(DELIVERY_WINDOW_COUNT as u8, most));
    assert!(!accepted(0, 0));
    assert!(!accepted(DELIVERY_WINDOW_COUNT as u8 + 1, 0));
    assert!(!accepted(1, most + 1));
    assert!(Batch::decode(&Bytes::new()).is_none());
    assert!(Batch::of(&[]).is_none());
}

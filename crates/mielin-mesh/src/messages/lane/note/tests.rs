#![allow(clippy::unwrap_used)]

use mielin_fuzz::{Seed, Target};

use super::*;

fn parts(mut rest: &[u8]) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    while !rest.is_empty() {
        parts.push(part(&mut rest)?);
    }
    Some(parts)
}

fn put(note: &mut Vec<u8>, part: &Part) {
    match part {
        Part::Last => put_last(note),
        Part::Message(message) => put_message(note, message),
        Part::Said(said) => put_said(note, said),
    }
}

const NOTE: Target = Target {
    name: "note",
    mutations: 20_000,
    fixed_bytes: 4 << 10,
    bytes_per_byte: 16,
    run: |bytes| {
        let Some(parts) = parts(bytes) else {
            return false;
        };
        let mut again = Vec::new();
        for part in &parts {
            put(&mut again, part);
        }
        assert_eq!(again, bytes, "there is one way to write a note");
        !parts.is_empty()
    },
    seeds: || {
        let note = |parts: &[Part]| {
            let mut note = Vec::new();
            for part in parts {
                put(&mut note, part);
            }
            note
        };
        let said = |reply| {
            Part::Said(Said {
                source: AgentId([1; 16]),
                destination: AgentId([2; 16]),
                reply,
            })
        };
        let message = |kind| {
            Part::Message(Envelope {
                source: AgentId([3; 16]),
                source_epoch: Epoch(4),
                destination: AgentId([5; 16]),
                sequence: 6,
                kind,
                payload: Bytes::new(),
            })
        };
        let node = NodeId([7; 32]);
        let replies = [
            None,
            Some(DeliveryReply::Acknowledged { through: u64::MAX }),
            Some(DeliveryReply::Gap { expected: 1 }),
            Some(DeliveryReply::Full),
            Some(DeliveryReply::Moved {
                node,
                epoch: Epoch(8),
            }),
            Some(DeliveryReply::Ended),
        ];
        let mut all: Vec<Part> = replies.map(said).to_vec();
        all.push(Part::Last);
        all.push(message(MessageKind::Reply { to_sequence: 9 }));
        let send = note(&[message(MessageKind::Send)]);
        vec![
            Seed::good("everything", note(&all)),
            Seed::good("last", note(&[Part::Last])),
            Seed::good("request", note(&[message(MessageKind::Request)])),
            Seed::bad("cut-off", &send[..send.len() - 1]),
            Seed::bad(
                "two-messages",
                note(&[message(MessageKind::Send), message(MessageKind::Send)]),
            ),
            Seed::bad("unknown-part", [9]),
            Seed::bad("unknown-kind", [&send[..send.len() - 1], &[3]].concat()),
            Seed::good("send", send),
        ]
    },
};

#[test]
fn note() {
    NOTE.replay();
}

//! Outboxes and inboxes that came with an agent: what is accepted is written back to a form that is
//! accepted as the same, and working with it goes by the rules of delivery.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use mielin_fuzz::{Seed, Target};
use mielin_mesh_core::delivery::{
    Acceptance, DeliveryReply, Envelope, Inbox, MessageKind, Outbox, OutboxError,
};
use mielin_mesh_core::limits::MAILBOX_HEADERS_BYTES_MAX;
use mielin_mesh_core::{AgentId, Epoch, Instant, codec};

pub(crate) const TARGET: Target = Target {
    name: "mailbox",
    mutations: 20_000,
    // What the limit lets a length claim, before the bytes turn out not to be there.
    fixed_bytes: MAILBOX_HEADERS_BYTES_MAX + 65_536,
    bytes_per_byte: 64,
    run,
    seeds,
};

const AGENT: AgentId = AgentId([9; 16]);
const PEER: AgentId = AgentId([1; 16]);

fn run(bytes: &[u8]) -> bool {
    let bytes = Bytes::copy_from_slice(bytes);
    let (outbox, inbox) = (Outbox::decode(AGENT, &bytes), Inbox::decode(AGENT, &bytes));
    let accepted = outbox.is_ok() || inbox.is_ok();
    if let Ok(outbox) = outbox {
        work_with_outbox(outbox);
    }
    if let Ok(inbox) = inbox {
        work_with_inbox(inbox);
    }
    accepted
}

fn work_with_outbox(mut outbox: Outbox) {
    let written = outbox.encode();
    let again = Outbox::decode(AGENT, &written.clone().into()).unwrap();
    assert_eq!((again.len(), again.encode()), (outbox.len(), written));
    // A new message, transmissions, and answers that are true, false and absurd.
    let (now, mut sent) = (Instant::START, 0);
    let pushed = outbox.push(
        Epoch(1),
        PEER,
        MessageKind::Send,
        Bytes::from_static(b"new"),
    );
    assert!(matches!(pushed, Ok(1..) | Err(OutboxError::Full)));
    for to in outbox.ready(now) {
        let posted = std::iter::from_fn(|| outbox.poll_post(now, &to, 1 << 10)).collect::<Vec<_>>();
        let exchanged = outbox.begin_exchange(now, &to).unwrap_or_default();
        assert!(posted.is_empty() || exchanged.is_empty());
        for envelope in posted.iter().chain(&exchanged) {
            assert_eq!((envelope.source, envelope.destination), (AGENT, to));
            assert!(envelope.sequence > 0);
        }
        sent += posted.len() + exchanged.len();
        assert!(sent <= outbox.len(), "each is transmitted once");
        outbox.end_exchange(&to);
    }
    let destinations: Vec<AgentId> = outbox.destinations().collect();
    for to in destinations {
        for reply in [
            DeliveryReply::Gap { expected: u64::MAX },
            DeliveryReply::Gap { expected: 0 },
            DeliveryReply::Acknowledged {
                through: u64::MAX - 1,
            },
            DeliveryReply::Ended,
        ] {
            let before = outbox.len();
            outbox.handle_reply(now, &to, reply);
            assert!(outbox.len() <= before);
        }
    }
    assert!(outbox.is_empty());
}

fn work_with_inbox(mut inbox: Inbox) {
    let written = inbox.encode();
    let mut again = Inbox::decode(AGENT, &written.clone().into()).unwrap();
    assert_eq!((again.len(), again.encode()), (inbox.len(), written));
    while let Some(envelope) = inbox.take() {
        assert_eq!(envelope.destination, AGENT);
        let acceptance = again.accept(envelope);
        assert!(matches!(acceptance, Acceptance::Duplicate { .. }));
    }
    for sequence in [0, 1, 2, u64::MAX] {
        let before = inbox.len();
        let acceptance = inbox.accept(Envelope {
            source: PEER,
            source_epoch: Epoch(1),
            destination: AGENT,
            sequence,
            kind: MessageKind::Send,
            payload: Bytes::new(),
        });
        let is_new = matches!(acceptance, Acceptance::New { .. });
        assert_eq!(inbox.len(), before + usize::from(is_new));
    }
}

fn seeds() -> Vec<Seed> {
    let other = AgentId([2; 16]);
    let mut outbox = Outbox::new(AGENT);
    for (to, payload) in [(PEER, "one"), (PEER, ""), (other, "three")] {
        let kind = MessageKind::Reply { to_sequence: 7 };
        outbox.push(Epoch(3), to, kind, payload.into()).unwrap();
    }
    let mut inbox = Inbox::new(AGENT);
    for (source, sequence) in [(PEER, 1), (other, 1), (PEER, 2)] {
        let accepted = inbox.accept(Envelope {
            source,
            source_epoch: Epoch(2),
            destination: AGENT,
            sequence,
            kind: MessageKind::Request,
            payload: Bytes::from_static(b"hello"),
        });
        assert!(matches!(accepted, Acceptance::New { .. }));
    }
    // The form of a mailbox with one counter and empty messages, written out: a hostile one counts as
    // it likes.
    let stored = |last: u64, sequences: &[u64]| {
        let message = |sequence: &u64| (PEER, Epoch(1), *sequence, MessageKind::Send, 0_u64);
        let messages: Vec<_> = sequences.iter().map(message).collect();
        codec::encode(&(vec![(PEER, last)], messages))
    };
    vec![
        Seed::good("last-number-there-is", stored(u64::MAX, &[u64::MAX])),
        Seed::bad("number-after-the-last", stored(u64::MAX, &[u64::MAX, 0])),
        Seed::bad("gap", stored(3, &[1, 3])),
        Seed::good("outbox", outbox.encode()),
        Seed::good("inbox", inbox.encode()),
        Seed::good("empty", Inbox::new(AGENT).encode()),
        Seed::bad(
            "claims-2-to-the-62-counters",
            [253, 0, 0, 0, 0, 0, 0, 0, 64],
        ),
    ]
}

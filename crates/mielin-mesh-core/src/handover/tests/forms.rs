//! The forms of messages.

use alloc::vec;
use alloc::vec::Vec;

use super::{A, B, profile};
use crate::codec::CodecError;
use crate::delivery::MessageKind;
use crate::handover::message::{
    Guest, Hello, Letter, Offer, Phase, PostResult, Reading, Reason, Transfer, VERSION,
};
use crate::handover::{
    HostMessage, LOG_BYTES_MAX, LeafMessage, MAIL_PAYLOAD_BYTES_MAX, MessageError,
    POST_PAYLOAD_BYTES_MAX,
};
use crate::leaf::MESSAGE_BYTES_MAX;
use crate::{Epoch, Name};

const LAST: Epoch = Epoch(u64::MAX);
const KIND: MessageKind = MessageKind::Reply {
    to_sequence: u64::MAX,
};

fn hello() -> Hello {
    let mut profile = profile();
    profile.name = Name::new("n".repeat(32)).unwrap();
    profile.status.room_bytes = u32::MAX;
    profile.status.battery.percent = Some(u8::MAX);
    let guest = Guest {
        agent: A,
        stay: LAST,
        taken: u64::MAX,
        posted: u64::MAX,
        phase: Phase::Leaving { offered: LAST },
    };
    Hello {
        version: VERSION,
        nonce: u64::MAX,
        boot: u64::MAX,
        profile,
        guests: vec![guest; 4],
    }
}

/// All kinds, with their longest numbers and tails.
fn transfers() -> Vec<(Transfer, usize)> {
    let (agent, epoch) = (A, LAST);
    let offer = Offer {
        agent,
        epoch,
        bytes: u32::MAX,
        taken: u64::MAX,
        posted: u64::MAX,
    };
    let room_bytes = u32::MAX;
    let reasons = [
        Reason::NoRoom { room_bytes },
        Reason::NotReady,
        Reason::Unsuitable,
        Reason::Damaged,
        Reason::Conflict,
    ];
    let refusals = reasons.map(|reason| Transfer::Refuse {
        agent,
        epoch,
        reason,
    });
    let mut all: Vec<_> = refusals.map(|refusal| (refusal, 0)).into();
    all.extend([
        (Transfer::Offer(offer), 0),
        (Transfer::Chunk { offset: u32::MAX }, 475),
        (Transfer::Run { agent, epoch }, 0),
        (Transfer::Cancel { agent, epoch }, 0),
        (Transfer::Have { agent, epoch }, 0),
    ]);
    all
}

fn leaf_messages() -> Vec<(LeafMessage, usize)> {
    let (agent, epoch) = (A, LAST);
    let reading = Reading {
        number: u64::MAX,
        time_ns: u64::MAX,
        value: i64::MIN,
    };
    let post = LeafMessage::Post {
        agent,
        epoch,
        number: u64::MAX,
        again: true,
        to: B,
        kind: KIND,
    };
    let log = LeafMessage::Log {
        agent,
        epoch,
        stream: u8::MAX,
    };
    let mut all = vec![
        (LeafMessage::Hello(hello()), 0),
        (LeafMessage::Status(hello().profile.status), 0),
        (
            LeafMessage::Want {
                agent,
                epoch,
                next: u64::MAX,
            },
            0,
        ),
        (post, POST_PAYLOAD_BYTES_MAX),
        (log, LOG_BYTES_MAX),
        (
            LeafMessage::Reading {
                sensor: u8::MAX,
                reading,
            },
            0,
        ),
        (
            LeafMessage::Actuated {
                number: u32::MAX,
                result: u8::MAX,
            },
            0,
        ),
    ];
    all.extend(
        transfers()
            .into_iter()
            .map(|(transfer, tail)| (LeafMessage::Transfer(transfer), tail)),
    );
    all
}

fn mail(length: u32) -> HostMessage {
    HostMessage::Mail {
        agent: A,
        epoch: LAST,
        number: u64::MAX,
        letter: Letter {
            from: B,
            sequence: u64::MAX,
            kind: KIND,
        },
        length,
    }
}

fn host_messages() -> Vec<(HostMessage, usize)> {
    let (agent, epoch) = (A, LAST);
    let results = [
        PostResult::Sent { sequence: u64::MAX },
        PostResult::Full,
        PostResult::TooLarge,
        PostResult::Unknown,
        PostResult::Closed,
        PostResult::InDoubt,
    ];
    let posted = results.map(|result| HostMessage::Posted {
        agent,
        epoch,
        number: u64::MAX,
        result,
    });
    let mut all: Vec<_> = posted.map(|posted| (posted, 0)).into();
    all.extend([
        (
            HostMessage::Welcome {
                nonce: u64::MAX,
                real_ns: u64::MAX,
            },
            0,
        ),
        (HostMessage::Come { agent, epoch }, 0),
        (mail(u32::MAX), 0),
        (mail(MAIL_PAYLOAD_BYTES_MAX as u32), MAIL_PAYLOAD_BYTES_MAX),
        (mail(0), 0),
        (
            HostMessage::Sense {
                sensor: u8::MAX,
                after: u64::MAX,
            },
            0,
        ),
        (
            HostMessage::Actuate {
                number: u32::MAX,
                actuator: u8::MAX,
                value: i64::MIN,
            },
            0,
        ),
    ]);
    all.extend(
        transfers()
            .into_iter()
            .map(|(transfer, tail)| (HostMessage::Transfer(transfer), tail)),
    );
    all
}

#[test]
fn messages_come_back_and_fit_the_link() {
    let tail = [7; MESSAGE_BYTES_MAX];
    for (message, len) in leaf_messages() {
        let bytes = message.encode(&tail[..len]);
        assert!(bytes.len() <= MESSAGE_BYTES_MAX, "{message:?}");
        let came = LeafMessage::decode(&bytes);
        assert_eq!(came, Ok((message, &tail[..len])));
    }
    for (message, len) in host_messages() {
        let bytes = message.encode(&tail[..len]);
        assert!(bytes.len() <= MESSAGE_BYTES_MAX, "{message:?}");
        let came = HostMessage::decode(&bytes);
        assert_eq!(came, Ok((message, &tail[..len])));
    }
}

/// Nothing that could travel in a message is kept out of it.
#[test]
fn the_longest_tails_fill_a_message() {
    let tail = [7; MESSAGE_BYTES_MAX];
    let full = |bytes: Vec<u8>| assert_eq!(bytes.len(), MESSAGE_BYTES_MAX - 4);
    // A length or offset that is in one message has three bytes at most, of five; all else is as long as it can be.
    full(mail(MAIL_PAYLOAD_BYTES_MAX as u32).encode(&tail[..MAIL_PAYLOAD_BYTES_MAX - 2]));
    for (message, len) in leaf_messages() {
        if len > 0 {
            let bytes = message.encode(&tail[..len]);
            assert_eq!(bytes.len(), MESSAGE_BYTES_MAX, "{message:?}");
        }
    }
}

#[test]
fn a_message_that_is_cut_off_or_has_something_behind_it_is_refused() {
    let tail = [7; MESSAGE_BYTES_MAX];
    for (message, len) in leaf_messages() {
        let bytes = message.encode(&tail[..len]);
        for end in 0..bytes.len() - len {
            assert!(LeafMessage::decode(&bytes[..end]).is_err(), "{message:?}");
        }
        let mut longer = bytes;
        longer.push(7);
        assert!(LeafMessage::decode(&longer).is_err(), "{message:?}");
    }
    for (message, len) in host_messages() {
        let bytes = message.encode(&tail[..len]);
        for end in 0..bytes.len() - len {
            assert!(HostMessage::decode(&bytes[..end]).is_err(), "{message:?}");
        }
        let mut longer = bytes;
        longer.push(7);
        assert!(HostMessage::decode(&longer).is_err(), "{message:?}");
    }
    let empty = Transfer::Chunk { offset: 0 };
    assert!(LeafMessage::decode(&LeafMessage::Transfer(empty).encode(&[])).is_err());
    assert!(HostMessage::decode(&mail(3).encode(&[7; 2])).is_err());
}

#[test]
fn a_hello_is_held_to_its_limits() {
    let malformed = Err(MessageError::Malformed(CodecError::Malformed));
    let mut many = hello();
    many.guests.push(many.guests[0]);
    assert_eq!(
        LeafMessage::decode(&LeafMessage::Hello(many).encode(&[])),
        malformed
    );
    let mut long = hello();
    long.guests.clear();
    long.profile.name = Name::new("n".repeat(33)).unwrap();
    assert_eq!(
        LeafMessage::decode(&LeafMessage::Hello(long).encode(&[])),
        malformed
    );
    let mut claimed = LeafMessage::Hello(hello()).encode(&[]);
    let guests = claimed.iter().position(|byte| *byte == 4).unwrap();
    // As many guests as would fill gigabytes.
    claimed.splice(guests..=guests, [252, 255, 255, 255, 255]);
    assert!(matches!(
        LeafMessage::decode(&claimed),
        Err(MessageError::Malformed(_))
    ));
}

#[test]
fn a_hello_of_another_version_is_told_from_nonsense() {
    let mut bytes = LeafMessage::Hello(hello()).encode(&[]);
    bytes[1] = 2;
    bytes.truncate(9);
    let other = Err(MessageError::OtherVersion { version: 2 });
    assert_eq!(LeafMessage::decode(&bytes), other);
}

/// The forms as docs/LEAF.md has them, for those who write another implementation.
#[test]
fn forms_are_as_documented() {
    let check = |bytes: Vec<u8>, expected: &[u8]| assert_eq!(bytes, expected);
    let (agent, epoch) = (A, Epoch(3));
    let run = Transfer::Run { agent, epoch };
    let mut expected = vec![7, 2];
    expected.extend([0xa; 16]);
    expected.push(3);
    check(LeafMessage::Transfer(run).encode(&[]), &expected);
    expected[0] = 6;
    check(HostMessage::Transfer(run).encode(&[]), &expected);
    let chunk = Transfer::Chunk { offset: 0x1234 };
    check(
        LeafMessage::Transfer(chunk).encode(&[9, 8]),
        &[7, 1, 251, 0x34, 0x12, 9, 8],
    );
    let reading = Reading {
        number: 250,
        time_ns: 0x0102_0304_0506_0708,
        value: -3,
    };
    check(
        LeafMessage::Reading { sensor: 1, reading }.encode(&[]),
        &[5, 1, 250, 253, 8, 7, 6, 5, 4, 3, 2, 1, 5],
    );
}

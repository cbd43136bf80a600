//! Mail, posts, logs, readings and commands.

use alloc::vec;
use alloc::vec::Vec;

use super::{A, B, C, Pair, concluded};
use crate::Epoch;
use crate::delivery::MessageKind;
use crate::handover::{
    HandoverError, HostEndEvent, HostMessage, LOG_BYTES_MAX, LeafEndEvent, LeafMessage, Letter,
    MAIL_PAYLOAD_BYTES_MAX, MessageError, POST_PAYLOAD_BYTES_MAX, PostResult, Reading, Role,
};

const STAY: Epoch = Epoch(5);
const LETTER: Letter = Letter {
    from: B,
    sequence: 70,
    kind: MessageKind::Request,
};
const SENT: PostResult = PostResult::Sent { sequence: 9 };

fn want(next: u64) -> HostEndEvent {
    HostEndEvent::Want {
        agent: A,
        epoch: STAY,
        next,
    }
}

fn mail(number: u64, payload: &[u8]) -> LeafEndEvent {
    LeafEndEvent::Mail {
        agent: A,
        number,
        letter: LETTER,
        length: payload.len() as u32,
        payload: payload.to_vec(),
    }
}

#[test]
fn mail_comes_when_it_is_wanted() {
    let mut pair = Pair::with_guest(A);
    let not_wanted = Err(HandoverError::NotWanted);
    assert_eq!(pair.host.mail(A, STAY, 0, LETTER, b"early"), not_wanted);
    assert_eq!(pair.leaf.want(A, 1), Err(HandoverError::Number));
    pair.leaf.want(A, 0).unwrap();
    pair.leaf.want(A, 0).unwrap();
    pair.run();
    assert_eq!(pair.host_events(), [want(0)]);
    assert_eq!(pair.host.mail(A, STAY, 1, LETTER, b"later"), not_wanted);
    assert_eq!(
        pair.host.mail(A, Epoch(4), 0, LETTER, b"before"),
        not_wanted
    );
    pair.host.mail(A, STAY, 0, LETTER, b"first").unwrap();
    assert_eq!(pair.host.mail(A, STAY, 0, LETTER, b"first"), not_wanted);
    pair.run();
    assert_eq!(pair.leaf_events(), [mail(0, b"first")]);
    assert_eq!(pair.leaf.want(A, 2), Err(HandoverError::Number));
    pair.leaf.want(A, 1).unwrap();
    pair.run();
    let longest = [1; MAIL_PAYLOAD_BYTES_MAX];
    pair.host.mail(A, STAY, 1, LETTER, &longest).unwrap();
    pair.run();
    assert_eq!(pair.leaf_events(), [mail(1, &longest)]);
    pair.leaf.want(A, 2).unwrap();
    pair.run();
    let longer = [1; MAIL_PAYLOAD_BYTES_MAX + 1];
    pair.host.mail(A, STAY, 2, LETTER, &longer).unwrap();
    pair.run();
    let LeafEndEvent::Mail {
        length, payload, ..
    } = &pair.leaf_events()[0]
    else {
        panic!("no mail");
    };
    assert_eq!((*length as usize, payload.len()), (longer.len(), 0));
}

#[test]
fn mail_that_was_on_its_way_comes_again_and_is_taken_once() {
    let mut pair = Pair::with_guest(A);
    pair.leaf.want(A, 0).unwrap();
    pair.run();
    pair.cut();
    let unheard = pair.host.mail(A, STAY, 0, LETTER, b"first");
    assert_eq!(unheard, Err(HandoverError::NotWanted));
    pair.run();
    pair.host.mail(A, STAY, 0, LETTER, b"first").unwrap();
    pair.say();
    let first = pair.down.pop_front().unwrap();
    pair.cut();
    let not_wanted = Err(HandoverError::NotWanted);
    assert_eq!(pair.host.mail(A, STAY, 0, LETTER, b"first"), not_wanted);
    pair.host_events();
    pair.run();
    assert_eq!(concluded(pair.host_events()), [want(0)]);
    pair.host.mail(A, STAY, 0, LETTER, b"first").unwrap();
    pair.run();
    pair.leaf_events();
    pair.leaf.handle_message(&first).unwrap();
    pair.leaf.want(A, 1).unwrap();
    pair.leaf.handle_message(&first).unwrap();
    assert_eq!(pair.leaf_events(), []);
}

/// What comes to an agent that is frozen is not taken, and comes again if it stays.
#[test]
fn mail_for_an_agent_that_leaves_stays_at_the_host() {
    let mut pair = Pair::with_guest(A);
    pair.leaf.want(A, 0).unwrap();
    pair.run();
    pair.host.mail(A, STAY, 0, LETTER, b"first").unwrap();
    pair.leaf.offer(A, vec![1], 0).unwrap();
    let not_there = Err(HandoverError::State);
    assert_eq!(pair.leaf.want(A, 0), not_there);
    pair.run();
    assert!(pair.leaf_events().is_empty());
    pair.host_events();
    pair.leaf.cancel(A).unwrap();
    pair.run();
    let (agent, stay) = (A, STAY);
    let epoch = Epoch(6);
    let cancelled = HostEndEvent::Cancelled { agent, epoch, stay };
    assert_eq!(pair.host_events(), [cancelled, want(0)]);
    pair.host.mail(A, STAY, 0, LETTER, b"first").unwrap();
    pair.run();
    assert_eq!(pair.leaf_events(), [mail(0, b"first")]);
    // It came: the checkpoint has it or not, and nothing else is possible.
    assert_eq!(pair.leaf.offer(A, vec![1], 2), Err(HandoverError::Number));
    assert_eq!(pair.leaf.offer(A, vec![1], 1), Ok(Epoch(7)));
    pair.run();
    let arrived = pair.host_events().pop();
    assert!(matches!(
        arrived,
        Some(HostEndEvent::Arrived {
            taken: 1,
            posted: 0,
            ..
        })
    ));
    // It runs on with what it has taken.
    pair.leaf.cancel(A).unwrap();
    pair.leaf.want(A, 1).unwrap();
}

#[test]
fn mail_that_came_and_was_not_taken_may_be_wanted_again() {
    let mut pair = Pair::with_guest(A);
    pair.leaf.want(A, 0).unwrap();
    pair.run();
    pair.host.mail(A, STAY, 0, LETTER, b"first").unwrap();
    pair.run();
    pair.events();
    pair.leaf.want(A, 0).unwrap();
    pair.run();
    assert_eq!(pair.host_events(), [want(0)]);
}

fn post(pair: &mut Pair, payload: &[u8]) -> Result<u64, HandoverError> {
    pair.leaf.post(A, B, MessageKind::Send, payload)
}

fn posts(events: Vec<HostEndEvent>) -> Vec<u64> {
    let numbers = events.into_iter().filter_map(|event| match event {
        HostEndEvent::Post { number, .. } => Some(number),
        _ => None,
    });
    numbers.collect()
}

fn posted(number: u64, result: PostResult) -> LeafEndEvent {
    LeafEndEvent::Posted {
        agent: A,
        number,
        result,
    }
}

#[test]
fn a_post_is_answered_before_the_next() {
    let mut pair = Pair::with_guest(A);
    let longest = [1; POST_PAYLOAD_BYTES_MAX];
    assert_eq!(post(&mut pair, &longest), Ok(0));
    let unanswered = HandoverError::Unanswered;
    assert_eq!(post(&mut pair, b"second"), Err(unanswered));
    assert_eq!(pair.leaf.offer(A, vec![1], 0), Err(unanswered));
    pair.run();
    let event = HostEndEvent::Post {
        agent: A,
        epoch: STAY,
        number: 0,
        to: B,
        kind: MessageKind::Send,
        payload: longest.to_vec(),
    };
    assert_eq!(pair.host_events(), [event]);
    let wrong = Err(HandoverError::State);
    assert_eq!(pair.host.posted(A, STAY, 1, SENT), wrong);
    assert_eq!(pair.host.posted(A, Epoch(4), 0, SENT), wrong);
    pair.host.posted(A, STAY, 0, SENT).unwrap();
    assert_eq!(pair.host.posted(A, STAY, 0, SENT), wrong);
    pair.run();
    assert_eq!(pair.leaf_events(), [posted(0, SENT)]);
    assert_eq!(post(&mut pair, b"second"), Ok(1));
    let max = POST_PAYLOAD_BYTES_MAX;
    let too_large = Err(HandoverError::Size { size: max + 1, max });
    assert_eq!(post(&mut pair, &[0; POST_PAYLOAD_BYTES_MAX + 1]), too_large);
}

#[test]
fn a_post_is_performed_once_wherever_the_line_is_cut() {
    // Before it came.
    let mut pair = Pair::with_guest(A);
    post(&mut pair, b"x").unwrap();
    pair.say();
    pair.cut();
    pair.run();
    assert_eq!(posts(pair.host_events()), [0]);
    // While it is performed.
    pair.cut();
    pair.run();
    assert!(posts(pair.host_events()).is_empty());
    pair.host.posted(A, STAY, 0, SENT).unwrap();
    // When it was.
    pair.say();
    pair.cut();
    pair.run();
    assert!(posts(pair.host_events()).is_empty());
    assert_eq!(pair.leaf_events().last(), Some(&posted(0, SENT)));
    // And while nobody listens.
    post(&mut pair, b"y").unwrap();
    pair.run();
    assert_eq!(posts(pair.host_events()), [1]);
    pair.cut();
    pair.host.posted(A, STAY, 1, PostResult::Full).unwrap();
    pair.run();
    let answer = posted(1, PostResult::Full);
    assert_eq!(pair.leaf_events().last(), Some(&answer));
}

#[test]
fn a_post_that_may_have_been_performed_is_in_doubt() {
    let mut pair = Pair::with_guest(A);
    post(&mut pair, b"x").unwrap();
    pair.run();
    assert_eq!(posts(pair.host_events()), [0]);
    pair.host_dies();
    pair.host.restore(A, STAY, Role::Away).unwrap();
    pair.run();
    assert!(posts(pair.host_events()).is_empty());
    let answer = posted(0, PostResult::InDoubt);
    assert_eq!(pair.leaf_events().last(), Some(&answer));
    // The same answer, if it is asked again; and of the next one it is known that it is new.
    let again = |number, again| {
        let message = LeafMessage::Post {
            agent: A,
            epoch: STAY,
            number,
            again,
            to: B,
            kind: MessageKind::Send,
        };
        message.encode(b"x")
    };
    pair.host.handle_message(&again(0, true)).unwrap();
    assert!(posts(pair.host_events()).is_empty());
    pair.host.handle_message(&again(1, true)).unwrap();
    assert_eq!(posts(pair.host_events()), [1]);
    for number in [0, 2, u64::MAX] {
        let answer = pair.host.handle_message(&again(number, false));
        // The one before is answered for good once the next has come.
        if number != 0 {
            assert_eq!(answer, Err(MessageError::Unexpected));
        }
    }
    assert!(posts(pair.host_events()).is_empty());
    // A first one that was not said before is new.
    pair.host_dies();
    pair.host.restore(A, STAY, Role::Away).unwrap();
    pair.run();
    pair.host.handle_message(&again(4, false)).unwrap();
    assert_eq!(posts(pair.host_events()), [4]);
}

/// The first post was sent; the second one was refused, and the third was not answered when the host died.
#[test]
fn a_host_that_has_written_it_down_knows_what_was_performed() {
    let again = |number| {
        let message = LeafMessage::Post {
            agent: A,
            epoch: STAY,
            number,
            again: true,
            to: B,
            kind: MessageKind::Send,
        };
        message.encode(b"x")
    };
    for (number, performed) in [(0, false), (1, true), (2, true)] {
        let mut pair = Pair::with_guest(A);
        pair.host_dies();
        pair.host.restore(A, STAY, Role::Away).unwrap();
        pair.host.remember_posts(A, 1, Some(SENT)).unwrap();
        pair.run();
        pair.events();
        pair.said.clear();
        pair.host.handle_message(&again(number)).unwrap();
        let expected = if performed { vec![number] } else { Vec::new() };
        assert_eq!(posts(pair.host_events()), expected);
        pair.say();
        let answers = pair.said.iter().filter(|(said, _)| {
            matches!(said, Err(HostMessage::Posted { number: 0, result, .. }) if *result == SENT)
        });
        assert_eq!(answers.count(), usize::from(!performed));
    }
    let mut pair = Pair::greeted();
    let unknown = pair.host.remember_posts(A, 1, None);
    assert_eq!(unknown, Err(HandoverError::State));
}

#[test]
fn an_answer_to_what_was_not_posted_is_none() {
    let mut pair = Pair::with_guest(A);
    let answer = HostMessage::Posted {
        agent: A,
        epoch: STAY,
        number: 0,
        result: SENT,
    };
    let answer = answer.encode(&[]);
    let unexpected = Err(MessageError::Unexpected);
    assert_eq!(pair.leaf.handle_message(&answer), unexpected);
    post(&mut pair, b"x").unwrap();
    assert_eq!(pair.leaf.handle_message(&answer), unexpected);
    pair.say();
    pair.leaf.handle_message(&answer).unwrap();
    assert_eq!(pair.leaf.handle_message(&answer), unexpected);
}

/// The agent has come a second time: the numbers begin anew, and a late answer is to none of its posts.
#[test]
fn posts_belong_to_a_stay() {
    let mut pair = Pair::with_guest(A);
    post(&mut pair, b"x").unwrap();
    pair.run();
    pair.leaf_dies();
    pair.run();
    pair.events();
    pair.give(A, Epoch(8));
    assert_eq!(post(&mut pair, b"x"), Ok(0));
    pair.run();
    assert_eq!(posts(pair.host_events()), [0]);
    let late = pair.host.posted(A, STAY, 0, SENT);
    assert_eq!(late, Err(HandoverError::State));
    pair.host.posted(A, Epoch(8), 0, SENT).unwrap();
}

#[test]
fn what_agents_write_comes_in_order() {
    let mut pair = Pair::with_guest(A);
    let longest = [b'x'; LOG_BYTES_MAX];
    pair.leaf.log(A, 1, &longest).unwrap();
    let max = LOG_BYTES_MAX;
    let too_large = Err(HandoverError::Size { size: max + 1, max });
    assert_eq!(pair.leaf.log(A, 1, &[0; LOG_BYTES_MAX + 1]), too_large);
    assert_eq!(pair.leaf.log(C, 1, b"nobody"), Err(HandoverError::State));
    for line in [b"1", b"2", b"3"] {
        pair.leaf.log(A, 2, line).unwrap();
    }
    assert_eq!(pair.leaf.log(A, 2, b"4"), Err(HandoverError::Full));
    // What has not gone out goes out after a cut.
    pair.cut();
    pair.run();
    let line = |stream, bytes: &[u8]| HostEndEvent::Log {
        agent: A,
        epoch: STAY,
        stream,
        bytes: bytes.to_vec(),
    };
    let expected = [
        line(1, &longest),
        line(2, b"1"),
        line(2, b"2"),
        line(2, b"3"),
    ];
    assert_eq!(concluded(pair.host_events()), expected);
}

#[test]
fn what_an_agent_wrote_comes_before_it() {
    let mut pair = Pair::with_guest(A);
    pair.give(B, Epoch(1));
    pair.leaf.offer(A, vec![1], 0).unwrap();
    pair.run();
    pair.host.have(A).unwrap();
    pair.say();
    pair.leaf.log(B, 1, b"another").unwrap();
    pair.leaf.log(A, 1, b"last words").unwrap();
    pair.hear();
    pair.run();
    let kinds = pair
        .host_events()
        .into_iter()
        .filter_map(|event| match event {
            HostEndEvent::Log { bytes, .. } => Some(bytes),
            HostEndEvent::Released { .. } => Some(b"released".to_vec()),
            _ => None,
        });
    let expected: [&[u8]; 3] = [b"last words", b"released", b"another"];
    assert_eq!(kinds.collect::<Vec<_>>(), expected);
    // Of others, and of other stays, nothing is believed.
    for (epoch, agent) in [(STAY, A), (Epoch(2), B)] {
        let stream = 1;
        let forged = LeafMessage::Log {
            agent,
            epoch,
            stream,
        };
        let answer = pair.host.handle_message(&forged.encode(b"forged"));
        assert_eq!(answer, Err(MessageError::Unexpected));
    }
    // After a cut nothing is said of those that have gone.
    pair.leaf.offer(B, vec![1], 0).unwrap();
    pair.run();
    pair.host.have(B).unwrap();
    pair.say();
    pair.leaf.log(B, 1, b"lost").unwrap();
    pair.hear();
    pair.cut();
    pair.run();
    let is_log = |event: &HostEndEvent| matches!(event, HostEndEvent::Log { .. });
    assert!(!pair.host_events().iter().any(is_log));
}

/// A transfer that takes its time does not keep a line of a log from going out, nor the other way round.
#[test]
fn logs_and_pieces_share_the_link() {
    let mut pair = Pair::with_guest(A);
    pair.give(B, Epoch(1));
    pair.leaf.offer(A, vec![1; 3_000], 0).unwrap();
    let mut logs = 0;
    for _ in 0..8 {
        // There is always one that waits.
        let _ = pair.leaf.log(B, 1, b"line");
        let message = pair.leaf.poll_message().unwrap();
        let (message, _) = LeafMessage::decode(&message).unwrap();
        logs += usize::from(matches!(message, LeafMessage::Log { .. }));
    }
    assert_eq!(logs, 4);
}

fn reading(number: u64) -> Reading {
    Reading {
        number,
        time_ns: number * 1_000,
        value: -(number as i64),
    }
}

/// Gives all readings up to `last` that are wanted; which.
fn give_readings(pair: &mut Pair, last: u64) -> Vec<u64> {
    let mut given = Vec::new();
    loop {
        while let Some(after) = pair.leaf.wanted_readings(0)
            && after < last
        {
            pair.leaf.reading(0, reading(after + 1)).unwrap();
            given.push(after + 1);
        }
        if pair.leaf.poll_message().is_none() {
            return given;
        }
    }
}

#[test]
fn readings_are_given_as_they_are_wanted() {
    let mut pair = Pair::greeted();
    assert_eq!(pair.leaf.wanted_readings(0), None);
    let not_wanted = Err(HandoverError::NotWanted);
    assert_eq!(pair.leaf.reading(0, reading(1)), not_wanted);
    pair.host.sense(0, 3);
    pair.run();
    let sense = |after| LeafEndEvent::Sense { sensor: 0, after };
    assert_eq!(pair.leaf_events(), [sense(3)]);
    assert_eq!(pair.leaf.wanted_readings(1), None);
    assert_eq!(pair.leaf.reading(0, reading(3)), not_wanted);
    // A gap in the numbers is none in the readings.
    pair.leaf.reading(0, reading(5)).unwrap();
    assert_eq!(pair.leaf.reading(0, reading(5)), not_wanted);
    pair.run();
    let came = HostEndEvent::Reading {
        sensor: 0,
        reading: reading(5),
    };
    assert_eq!(pair.host_events(), [came]);
    // No more than a few before the host is done with one.
    assert_eq!(give_readings(&mut pair, 100), (6..=20).collect::<Vec<_>>());
    assert_eq!(pair.leaf.reading(0, reading(21)), not_wanted);
    pair.host.sense(0, 6);
    pair.host.sense(0, 5);
    pair.run();
    assert_eq!(pair.leaf_events(), [sense(6)]);
    assert_eq!(give_readings(&mut pair, 100), [21, 22]);
    // What nobody is done with comes again in other streams, and only if somebody asks.
    pair.cut();
    pair.run();
    assert_eq!(pair.leaf.wanted_readings(0), None);
    pair.host.sense(0, 6);
    pair.run();
    assert_eq!(give_readings(&mut pair, 8), [7, 8]);
    let other = HostMessage::Sense {
        sensor: 2,
        after: 0,
    };
    let answer = pair.leaf.handle_message(&other.encode(&[]));
    assert_eq!(answer, Err(MessageError::Unexpected));
}

#[test]
fn readings_wait_until_there_is_room() {
    let mut pair = Pair::with_guest(A);
    pair.host.sense(0, 0);
    pair.run();
    for _ in 0..4 {
        pair.leaf.log(A, 1, b"line").unwrap();
    }
    assert_eq!(pair.leaf.wanted_readings(0), None);
    let full = Err(HandoverError::Full);
    assert_eq!(pair.leaf.reading(0, reading(1)), full);
    pair.run();
    assert_eq!(pair.leaf.wanted_readings(0), Some(0));
}

#[test]
fn commands_are_answered_or_nobody_knows() {
    let mut pair = Pair::greeted();
    let first = pair.host.actuate(0, -7).unwrap();
    let second = pair.host.actuate(0, 8).unwrap();
    pair.run();
    let actuate = |number, value| LeafEndEvent::Actuate {
        number,
        actuator: 0,
        value,
    };
    assert_eq!(pair.leaf_events(), [actuate(first, -7), actuate(second, 8)]);
    pair.leaf.actuated(second, 3).unwrap();
    pair.leaf.actuated(second, 0).unwrap();
    pair.run();
    let actuated = |number, result| HostEndEvent::Actuated { number, result };
    assert_eq!(pair.host_events(), [actuated(second, Some(3))]);
    pair.cut();
    assert_eq!(pair.host_events(), [actuated(first, None)]);
    assert_eq!(pair.host.actuate(0, 1), Err(HandoverError::State));
    pair.run();
    // What is said of it later is not said again.
    pair.leaf.actuated(first, 0).unwrap();
    pair.run();
    assert!(concluded(pair.host_events()).is_empty());
    for _ in 0..16 {
        pair.host.actuate(0, 1).unwrap();
    }
    assert_eq!(pair.host.actuate(0, 1), Err(HandoverError::Full));
}

#[test]
fn a_host_hears_how_its_leaf_is() {
    let mut pair = Pair::greeted();
    let mut status = super::profile().status;
    pair.leaf.set_status(status);
    assert!(pair.leaf.poll_message().is_none());
    status.battery.percent = Some(19);
    pair.leaf.set_status(status);
    status.ready = false;
    pair.leaf.set_status(status);
    pair.run();
    assert_eq!(pair.host_events(), [HostEndEvent::Status(status)]);
}

/// A peer that answers nothing and asks for much does not fill memory.
#[test]
fn what_waits_is_bounded() {
    let mut pair = Pair::with_guest(A);
    let mut full = 0;
    for epoch in 0..1_000 {
        let offer = crate::handover::Offer {
            agent: C,
            epoch: Epoch(epoch),
            bytes: 0,
            taken: 0,
            posted: 0,
        };
        let offer = crate::handover::Transfer::Offer(offer);
        let up = LeafMessage::Transfer(offer).encode(&[]);
        let down = HostMessage::Transfer(offer).encode(&[]);
        full += usize::from(pair.host.handle_message(&up) == Err(MessageError::Full));
        full += usize::from(pair.leaf.handle_message(&down) == Err(MessageError::Full));
    }
    assert_eq!(full, 2_000 - 64 - 16);
}

//! The two ends of a pair of streams, by themselves.

use alloc::vec::Vec;
use core::time::Duration;

use crate::Instant;
use crate::leaf::packet::{Body, Segment};
use crate::leaf::stream::{Progress, Stream};
use crate::limits::*;

const START: Instant = Instant::START;

fn word(acknowledged: u16, window: u8) -> Segment<'static> {
    Segment {
        acknowledged,
        window,
        ask: false,
        asleep: false,
        body: Body::Nothing,
    }
}

fn message(number: u16) -> Segment<'static> {
    let message = b"message";
    let body = Body::Message { number, message };
    Segment { body, ..word(0, 4) }
}

/// The numbers of the messages that leave now.
fn leave(stream: &mut Stream, now: Instant) -> Vec<u16> {
    let mut numbers = Vec::new();
    while let Some(segment) = stream.transmit(now) {
        if let Body::Message { number, .. } = segment.body {
            numbers.push(number);
        }
    }
    numbers
}

fn with_messages(count: usize) -> Stream {
    let mut stream = Stream::new(10);
    for _ in 0..count {
        stream.send(b"message").unwrap();
    }
    stream
}

#[test]
fn only_what_was_sent_can_be_acknowledged() {
    let mut stream = with_messages(6);
    assert_eq!(leave(&mut stream, START), [0, 1, 2, 3]);
    for nonsense in [5, 6, 9, 1000, u16::MAX] {
        stream.handle(START, &word(nonsense, 15), true);
        assert_eq!(stream.unacknowledged(), 6);
        assert!(leave(&mut stream, START).is_empty());
    }
    stream.handle(START, &word(3, 2), true);
    assert_eq!(
        (stream.unacknowledged(), leave(&mut stream, START)),
        (3, [4].into())
    );
}

#[test]
fn a_full_inbox_takes_nothing_and_says_so_and_that_there_is_room() {
    let mut stream = Stream::new(4);
    for number in 0..4 {
        let progress = stream.handle(START, &message(number), true);
        assert_eq!(progress.readable, number == 0);
    }
    assert_eq!(stream.transmit(START), Some(word(4, 0)));
    assert_eq!(stream.handle(START, &message(4), true), Progress::default());
    assert_eq!(stream.transmit(START), Some(word(4, 0)));
    assert!(stream.take().is_some());
    assert_eq!(stream.transmit(START), Some(word(4, 1)));
    assert!(stream.take().is_some());
    assert_eq!(stream.transmit(START), None);
}

#[test]
fn what_was_sent_twice_is_not_measured() {
    let mut stream = with_messages(1);
    assert_eq!(leave(&mut stream, START), [0]);
    let retry = stream.poll_timeout().unwrap();
    assert_eq!(retry, START + LEAF_RETRY_INITIAL);
    stream.handle_timeout(retry);
    assert_eq!(leave(&mut stream, retry), [0]);
    // Which of the two was answered, after a millisecond or more than a second?
    stream.handle(retry + Duration::from_millis(1), &word(1, 4), true);
    stream.send(b"message").unwrap();
    assert_eq!(leave(&mut stream, retry), [1]);
    assert_eq!(stream.poll_timeout(), Some(retry + 2 * LEAF_RETRY_INITIAL));
    // This one is measured, and then the wait is short.
    stream.handle(retry + Duration::from_millis(1), &word(2, 4), true);
    stream.send(b"message").unwrap();
    assert_eq!(leave(&mut stream, retry), [2]);
    assert_eq!(stream.poll_timeout(), Some(retry + LEAF_RETRY_MIN));
}

#[test]
fn waits_double_up_to_the_longest() {
    let mut stream = with_messages(2);
    let (mut now, mut waits) = (START, Vec::new());
    for _ in 0..6 {
        assert_eq!(leave(&mut stream, now), [0, 1]);
        let retry = stream.poll_timeout().unwrap();
        waits.push(retry.since(now).as_secs());
        now = retry;
        stream.handle_timeout(now);
    }
    assert_eq!(waits, [1, 2, 4, 8, 8, 8]);
}

#[test]
fn numbers_go_on_where_their_halves_begin_again() {
    let (mut here, mut there) = (Stream::new(4), Stream::new(4));
    for number in 0..=0x1_0010_u32 {
        here.send(&number.to_le_bytes()).unwrap();
        let segment = here.transmit(START).unwrap();
        there.handle(START, &segment, true);
        assert_eq!(there.take().as_deref(), Some(&number.to_le_bytes()[..]));
        here.handle(START, &there.standing(), true);
        assert_eq!(here.unacknowledged(), 0);
    }
}

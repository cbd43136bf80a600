//! Messages in both directions, exactly once and in order, over packets that may be lost, doubled and reordered.
//!
//! One [`Stream`] is one end. It knows nothing of keys: connections come and go under it, and it goes on where it was.
//! Each message has a number, from 0 on, of which the low half is sent; the receiver takes exactly the next one
//! (go-back-N), and every segment says which that is and for how many there is room. The waiting is that of RFC 6298;
//! two acknowledgements that say the same again while something is in flight bring it back at once, as fast retransmit does
//! (RFC 5681 asks for three, which a window of four seldom gives; RFC 5827 lowers the number for such windows).
//!
//! There is no congestion window: what four packets do to a path is bounded by the backing off.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::packet::{Body, Segment};
use super::timing::RoundTrip;
use super::{LinkError, MESSAGE_BYTES_MAX};
use crate::Instant;
use crate::limits::{LEAF_ACK_DELAY, LEAF_WINDOW};

/// Acknowledgements of nothing new after which what is in flight is sent again.
const DUPLICATES: u8 = 2;
/// Messages that are acknowledged together at most.
const DELAYED_MAX: u8 = 2;
/// `LEAF_WINDOW` as numbers count.
const WINDOW: u64 = LEAF_WINDOW as u64;
const _: () = assert!(LEAF_WINDOW < 16, "a window has four bits on the wire");

/// One end of the two streams of a link.
pub(super) struct Stream {
    outgoing: Outgoing,
    incoming: Incoming,
}

/// The messages to the peer.
struct Outgoing {
    /// What is not acknowledged; the first is number `base`.
    queue: VecDeque<Vec<u8>>,
    queue_max: usize,
    base: u64,
    /// What is sent next; `base <= next <= base + queue.len()`.
    next: u64,
    /// One more than the highest number that was ever sent.
    end: u64,
    /// The peer takes numbers below this.
    allowed: u64,
    round_trip: RoundTrip,
    /// The message whose way is measured, and when it left.
    timed: Option<(u64, Instant)>,
    /// When what is in flight, or a question, is sent again.
    retry: Option<Instant>,
    duplicates: u8,
    /// Fast retransmit waits until this number is acknowledged, so that it brings back nothing twice.
    recovered: u64,
    asking: Asking,
    /// A message was refused, and nothing has been reported since.
    refused: bool,
}

/// A question whether the peer is there and what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asking {
    No,
    Due,
    Asked,
}

/// The messages of the peer.
struct Incoming {
    /// What was received and not taken by the driver.
    inbox: VecDeque<Vec<u8>>,
    expected: u64,
    acknowledgement: Acknowledgement,
    /// Messages that came since one was sent.
    unacknowledged: u8,
}

/// Whether the peer must hear what has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acknowledgement {
    Sent,
    At(Instant),
    Due,
}

/// What a segment has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// There is something to take where nothing was.
    pub(super) readable: bool,
    /// There is room for messages after one was refused.
    pub(super) writable: bool,
}

impl Stream {
    pub(super) fn new(queue_max: usize) -> Stream {
        Stream {
            outgoing: Outgoing::new(queue_max),
            incoming: Incoming {
                inbox: VecDeque::new(),
                expected: 0,
                acknowledgement: Acknowledgement::Sent,
                unacknowledged: 0,
            },
        }
    }

    /// Takes a message to be sent.
    pub(super) fn send(&mut self, message: &[u8]) -> Result<(), LinkError> {
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(LinkError::TooLarge {
                size: message.len(),
                max: MESSAGE_BYTES_MAX,
            });
        }
        let outgoing = &mut self.outgoing;
        if outgoing.queue.len() == outgoing.queue_max {
            outgoing.refused = true;
            return Err(LinkError::Full {
                count: outgoing.queue_max,
            });
        }
        outgoing.queue.push_back(message.to_vec());
        Ok(())
    }

    /// The next message of the peer.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let incoming = &mut self.incoming;
        let was_full = incoming.inbox.len() >= LEAF_WINDOW;
        let message = incoming.inbox.pop_front()?;
        if was_full {
            incoming.acknowledgement = Acknowledgement::Due;
        }
        Some(message)
    }

    /// Messages that the peer has not acknowledged.
    pub(super) fn unacknowledged(&self) -> usize {
        self.outgoing.queue.len()
    }

    /// Has the peer say soon that it is there.
    pub(super) fn ask(&mut self) {
        self.outgoing.asking = Asking::Due;
    }

    /// Whether an answer of the peer is awaited.
    pub(super) fn is_waiting(&self) -> bool {
        self.outgoing.in_flight() || self.outgoing.asking == Asking::Asked
    }

    /// Whether, as far as this end knows, nothing has been taken in at either end.
    pub(super) fn is_untouched(&self) -> bool {
        self.outgoing.base == 0 && self.incoming.expected == 0
    }

    /// Whether surely nothing has been taken in at either end.
    pub(super) fn is_unused(&self) -> bool {
        self.outgoing.end == 0 && self.incoming.expected == 0
    }

    /// The streams begin again, both with number 0, and what was to be sent goes into them.
    pub(super) fn restart(&mut self) {
        let queue = core::mem::take(&mut self.outgoing.queue);
        let refused = self.outgoing.refused;
        self.outgoing = Outgoing {
            queue,
            refused,
            ..Outgoing::new(self.outgoing.queue_max)
        };
        self.incoming.expected = 0;
        self.incoming.unacknowledged = 0;
        self.incoming.acknowledgement = Acknowledgement::Sent;
    }

    /// Takes out what was not acknowledged; the first may have arrived.
    pub(super) fn give_back(&mut self) -> Vec<Vec<u8>> {
        let queue = core::mem::take(&mut self.outgoing.queue);
        self.outgoing.next = self.outgoing.base;
        queue.into()
    }

    /// The peer listens (again): what was in flight is not any more.
    pub(super) fn reconnected(&mut self) {
        let outgoing = &mut self.outgoing;
        outgoing.go_back();
        outgoing.round_trip.settle();
    }

    /// Takes in what the peer has said; `newest` unless a later segment has come before.
    pub(super) fn handle(&mut self, now: Instant, segment: &Segment<'_>, newest: bool) -> Progress {
        let mut progress = Progress::default();
        if let Body::Message { number, message } = segment.body {
            progress.readable = self.incoming.handle(now, number, message);
        }
        if segment.ask {
            self.incoming.acknowledgement = Acknowledgement::Due;
        }
        progress.writable = self.outgoing.handle(now, segment, newest);
        progress
    }

    /// What to send now, if anything.
    pub(super) fn transmit(&mut self, now: Instant) -> Option<Segment<'_>> {
        let acknowledge = match self.incoming.acknowledgement {
            Acknowledgement::Sent => false,
            Acknowledgement::At(due) => due <= now,
            Acknowledgement::Due => true,
        };
        let due = acknowledge || self.outgoing.asking == Asking::Due;
        let number = self.outgoing.next_to_send(now);
        (due || number.is_some()).then_some(())?;
        let mut segment = self.incoming.segment();
        segment.ask = self.outgoing.ask(now);
        if let Some(number) = number {
            segment.body = self.outgoing.body(number);
        }
        Some(segment)
    }

    /// A segment that says how things stand and nothing else.
    pub(super) fn standing(&mut self) -> Segment<'static> {
        self.incoming.segment()
    }

    /// When [`Stream::handle_timeout`] and [`Stream::transmit`] have something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let acknowledge = match self.incoming.acknowledgement {
            Acknowledgement::At(due) => Some(due),
            Acknowledgement::Sent | Acknowledgement::Due => None,
        };
        [acknowledge, self.outgoing.retry]
            .into_iter()
            .flatten()
            .min()
    }

    /// Sends again what has waited for too long.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.outgoing.handle_timeout(now);
    }
}

impl Outgoing {
    fn new(queue_max: usize) -> Outgoing {
        Outgoing {
            queue: VecDeque::new(),
            queue_max,
            base: 0,
            next: 0,
            end: 0,
            allowed: WINDOW,
            round_trip: RoundTrip::new(),
            timed: None,
            retry: None,
            duplicates: 0,
            recovered: 0,
            asking: Asking::No,
            refused: false,
        }
    }

    fn in_flight(&self) -> bool {
        self.base < self.next
    }

    /// Everything that is not acknowledged is sent again; what of it is measured would mislead (Karn's rule).
    fn go_back(&mut self) {
        self.next = self.base;
        self.timed = None;
        self.retry = None;
        self.duplicates = 0;
    }

    /// Takes in an acknowledgement; whether there is room again after a message was refused.
    fn handle(&mut self, now: Instant, segment: &Segment<'_>, newest: bool) -> bool {
        // Numbers from the acknowledged one on; acknowledgements of what was never sent are old ones.
        let step = u64::from(segment.acknowledged.wrapping_sub(self.base as u16));
        let acknowledged = self.base + step;
        if acknowledged > self.end {
            return false;
        }
        let allowed = acknowledged + u64::from(segment.window);
        if step > 0 {
            self.acknowledge(now, acknowledged);
        } else if newest && self.is_duplicate(segment, allowed) {
            self.duplicates += 1;
            if self.duplicates == DUPLICATES && self.base >= self.recovered {
                self.recovered = self.end;
                self.go_back();
            }
        }
        if newest {
            self.allowed = allowed;
            if self.asking == Asking::Asked {
                self.asking = Asking::No;
                if !self.in_flight() {
                    self.retry = None;
                }
            }
        }
        let room = self.refused && self.queue.len() < self.queue_max;
        self.refused &= !room;
        room
    }

    fn acknowledge(&mut self, now: Instant, acknowledged: u64) {
        while self.base < acknowledged && self.queue.pop_front().is_some() {
            self.base += 1;
        }
        self.next = self.next.max(self.base);
        self.duplicates = 0;
        if let Some((number, left)) = self.timed
            && number < self.base
        {
            self.round_trip.measure(now.since(left));
            self.timed = None;
        }
        self.retry = self.in_flight().then(|| now + self.round_trip.timeout());
    }

    fn is_duplicate(&self, segment: &Segment<'_>, allowed: u64) -> bool {
        self.in_flight() && segment.body == Body::Nothing && !segment.ask && allowed == self.allowed
    }

    /// The number of the message to be sent now, which counts as sent.
    fn next_to_send(&mut self, now: Instant) -> Option<u64> {
        let number = self.next;
        let waiting = self.base + self.queue.len() as u64;
        if number >= waiting {
            return None;
        }
        if number >= self.allowed {
            // Nothing brings the word that there is room again but an answer to a question.
            if !self.in_flight() && self.asking == Asking::No && self.retry.is_none() {
                self.retry = Some(now + self.round_trip.timeout());
            }
            return None;
        }
        self.next += 1;
        if number >= self.end {
            self.end = number + 1;
            self.timed.get_or_insert((number, now));
        }
        self.retry.get_or_insert(now + self.round_trip.timeout());
        Some(number)
    }

    fn body(&self, number: u64) -> Body<'_> {
        Body::Message {
            number: number as u16,
            message: &self.queue[(number - self.base) as usize],
        }
    }

    /// Whether the segment that is sent now asks.
    fn ask(&mut self, now: Instant) -> bool {
        if self.asking != Asking::Due {
            return false;
        }
        self.asking = Asking::Asked;
        self.retry.get_or_insert(now + self.round_trip.timeout());
        true
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.retry.is_none_or(|retry| retry > now) {
            return;
        }
        self.retry = None;
        self.round_trip.back_off();
        if self.in_flight() {
            self.go_back();
        } else if self.asking == Asking::Asked || !self.queue.is_empty() {
            self.asking = Asking::Due;
        }
    }
}

impl Incoming {
    /// What is said of the other direction in every segment; with it everything is acknowledged.
    fn segment(&mut self) -> Segment<'static> {
        self.acknowledgement = Acknowledgement::Sent;
        self.unacknowledged = 0;
        Segment {
            acknowledged: self.expected as u16,
            window: LEAF_WINDOW.saturating_sub(self.inbox.len()) as u8,
            ask: false,
            asleep: false,
            body: Body::Nothing,
        }
    }

    /// Takes in a message; whether it is the first that waits to be taken.
    fn handle(&mut self, now: Instant, number: u16, message: &[u8]) -> bool {
        if number != self.expected as u16 || self.inbox.len() >= LEAF_WINDOW {
            // A gap, a repetition, or no room: the peer should know at once where we are.
            self.acknowledgement = Acknowledgement::Due;
            return false;
        }
        let first = self.inbox.is_empty();
        self.inbox.push_back(message.to_vec());
        self.expected += 1;
        self.unacknowledged += 1;
        if self.unacknowledged >= DELAYED_MAX {
            self.acknowledgement = Acknowledgement::Due;
        } else if self.acknowledgement == Acknowledgement::Sent {
            self.acknowledgement = Acknowledgement::At(now + LEAF_ACK_DELAY);
        }
        first
    }
}

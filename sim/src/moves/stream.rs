//! Reliable, ordered streams over the world's datagrams, as far as a move can tell them from QUIC's.
//!
//! What is lost is sent again, what comes early waits, and a stream on which nothing has been heard for [`IDLE`]
//! is broken, as is one whose other end has restarted: then what was under way may have arrived or not. What a sender
//! hands over leaves at the speed of the link.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use mielin_mesh_core::Instant;
use oxicode::{Decode, Encode};

/// A stream of which nothing was heard for so long is broken, as it is on a node with the LAN preset.
pub(super) const IDLE: Duration = Duration::from_secs(4);
/// An end that has nothing to say shows so often that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Segments that are sent again at once.
const RETRY_SEGMENTS: usize = 8;

/// The name of a stream, the same at both ends and in all lives of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub(super) struct Key {
    opener: u32,
    life: u32,
    number: u32,
}

/// A datagram of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Packet {
    /// A piece of what is said; an empty one is the end.
    Segment {
        stream: Key,
        /// The life in which the receiver is known to be.
        to_life: Option<u32>,
        sequence: u64,
        bytes: Vec<u8>,
    },
    /// Everything before this came.
    Received { stream: Key, life: u32, before: u64 },
    /// Is somebody there?
    Ping { stream: Key, to_life: Option<u32> },
    /// There is no such stream.
    Reset { stream: Key },
}

/// What happened to a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StreamEvent {
    /// The other end said this.
    Said {
        stream: Key,
        peer: usize,
        bytes: Vec<u8>,
    },
    /// Nothing more will come.
    Closed { stream: Key },
}

struct Outgoing {
    sequence: u64,
    bytes: Vec<u8>,
    departs: Instant,
    sent: bool,
}

struct Stream {
    peer: usize,
    peer_life: Option<u32>,
    next_sequence: u64,
    /// What is not known to have come.
    outgoing: VecDeque<Outgoing>,
    retry_at: Option<Instant>,
    backoff: Duration,
    expected: u64,
    early: BTreeMap<u64, Vec<u8>>,
    heard_at: Instant,
    ping_at: Instant,
    /// This end says nothing more.
    finished: bool,
    /// The other end says nothing more.
    ended: bool,
}

impl Stream {
    fn new(now: Instant, peer: usize) -> Stream {
        Stream {
            peer,
            peer_life: None,
            next_sequence: 0,
            outgoing: VecDeque::new(),
            retry_at: None,
            backoff: RETRY_MIN,
            expected: 0,
            early: BTreeMap::new(),
            heard_at: now,
            ping_at: now + KEEP_ALIVE,
            finished: false,
            ended: false,
        }
    }

    fn is_over(&self) -> bool {
        self.finished && self.ended && self.outgoing.is_empty()
    }

    /// When the next thing is to be done for it.
    fn due(&self) -> Instant {
        let unsent = self.outgoing.iter().find(|segment| !segment.sent);
        let departs = unsent.map(|segment| segment.departs);
        let quiet = Some(self.heard_at + IDLE).min(Some(self.ping_at));
        let due = [departs, self.retry_at, quiet].into_iter().flatten().min();
        due.unwrap_or(self.ping_at)
    }
}

/// The streams of one node in one of its lives.
pub(super) struct Streams {
    me: u32,
    life: u32,
    opened: u32,
    /// Bytes that a link takes in a second.
    bandwidth: u64,
    streams: BTreeMap<Key, Stream>,
    /// Late segments do not bring these back.
    closed: BTreeSet<Key>,
    /// When the link to each node has taken what it was given.
    free: BTreeMap<usize, Instant>,
    packets: VecDeque<(usize, Packet)>,
    events: VecDeque<StreamEvent>,
}

impl Streams {
    pub(super) fn new(me: usize, life: u32, bandwidth: u64) -> Streams {
        Streams {
            me: me as u32,
            life,
            opened: 0,
            bandwidth,
            streams: BTreeMap::new(),
            closed: BTreeSet::new(),
            free: BTreeMap::new(),
            packets: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    pub(super) fn open(&mut self, now: Instant, peer: usize) -> Key {
        self.opened += 1;
        let key = Key {
            opener: self.me,
            life: self.life,
            number: self.opened,
        };
        self.streams.insert(key, Stream::new(now, peer));
        key
    }

    /// Whether something can still be said on it.
    pub(super) fn is_open(&self, key: Key) -> bool {
        self.streams
            .get(&key)
            .is_some_and(|stream| !stream.finished)
    }

    /// Says something that takes so many bytes on the link; gives when the last of them has left.
    pub(super) fn say(&mut self, now: Instant, key: Key, weight: u64, bytes: Vec<u8>) -> Instant {
        let Some(stream) = self.streams.get_mut(&key).filter(|stream| !stream.finished) else {
            return now;
        };
        let free = self.free.entry(stream.peer).or_insert(now);
        let nanos = weight.saturating_mul(1_000_000_000) / self.bandwidth.max(1);
        *free = (*free).max(now) + Duration::from_nanos(nanos);
        let departs = *free;
        stream.outgoing.push_back(Outgoing {
            sequence: stream.next_sequence,
            bytes,
            departs,
            sent: false,
        });
        stream.next_sequence += 1;
        departs
    }

    /// Says nothing more; what was said still arrives.
    pub(super) fn finish(&mut self, now: Instant, key: Key) {
        self.say(now, key, 1, Vec::new());
        if let Some(stream) = self.streams.get_mut(&key) {
            stream.finished = true;
        }
        self.tidy(key);
    }

    /// Ends it at once, at both ends; what is under way is lost.
    pub(super) fn reset(&mut self, key: Key) {
        if let Some(stream) = self.streams.remove(&key) {
            self.closed.insert(key);
            self.packets
                .push_back((stream.peer, Packet::Reset { stream: key }));
            if !stream.ended {
                self.events.push_back(StreamEvent::Closed { stream: key });
            }
        }
    }

    fn tidy(&mut self, key: Key) {
        if self.streams.get(&key).is_some_and(Stream::is_over) {
            self.streams.remove(&key);
            self.closed.insert(key);
        }
    }

    pub(super) fn receive(&mut self, now: Instant, from: usize, packet: Packet) {
        match packet {
            Packet::Segment {
                stream,
                to_life,
                sequence,
                bytes,
            } => {
                if self.admit(now, from, stream, to_life, true) {
                    self.take(now, stream, sequence, bytes);
                }
            }
            Packet::Ping { stream, to_life } => {
                if self.admit(now, from, stream, to_life, false) {
                    self.acknowledge(stream);
                }
            }
            Packet::Received {
                stream: key,
                life,
                before,
            } => {
                let Some(stream) = self.streams.get_mut(&key) else {
                    return;
                };
                stream.heard_at = now;
                stream.peer_life = Some(life);
                let known = stream.outgoing.len();
                stream.outgoing.retain(|segment| segment.sequence >= before);
                if stream.outgoing.len() < known {
                    stream.backoff = RETRY_MIN;
                    let flies = stream.outgoing.front().is_some_and(|segment| segment.sent);
                    stream.retry_at = flies.then(|| now + stream.backoff);
                }
                self.tidy(key);
            }
            Packet::Reset { stream: key } => {
                if let Some(stream) = self.streams.remove(&key) {
                    self.closed.insert(key);
                    if !stream.ended {
                        self.events.push_back(StreamEvent::Closed { stream: key });
                    }
                }
            }
        }
    }

    /// Whether there is such a stream, or may be from now on; the other end is told if not.
    fn admit(
        &mut self,
        now: Instant,
        from: usize,
        key: Key,
        to_life: Option<u32>,
        opens: bool,
    ) -> bool {
        if let Some(stream) = self.streams.get_mut(&key) {
            stream.heard_at = now;
            return true;
        }
        let is_another = to_life.is_some_and(|life| life != self.life);
        if !opens || key.opener == self.me || is_another || self.closed.contains(&key) {
            let reset = Packet::Reset { stream: key };
            self.packets.push_back((from, reset));
            return false;
        }
        self.streams.insert(key, Stream::new(now, from));
        true
    }

    fn take(&mut self, now: Instant, key: Key, sequence: u64, bytes: Vec<u8>) {
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        stream.heard_at = now;
        if sequence >= stream.expected {
            stream.early.insert(sequence, bytes);
        }
        while let Some(bytes) = stream.early.remove(&stream.expected) {
            stream.expected += 1;
            if bytes.is_empty() {
                stream.ended = true;
                self.events.push_back(StreamEvent::Closed { stream: key });
            } else if !stream.ended {
                let peer = stream.peer;
                self.events.push_back(StreamEvent::Said {
                    stream: key,
                    peer,
                    bytes,
                });
            }
        }
        self.acknowledge(key);
        self.tidy(key);
    }

    fn acknowledge(&mut self, key: Key) {
        if let Some(stream) = self.streams.get(&key) {
            let received = Packet::Received {
                stream: key,
                life: self.life,
                before: stream.expected,
            };
            self.packets.push_back((stream.peer, received));
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let due = |(key, stream): (&Key, &Stream)| (stream.due() <= now).then_some(*key);
        let due: Vec<Key> = self.streams.iter().filter_map(due).collect();
        for key in due {
            let Some(stream) = self.streams.get_mut(&key) else {
                continue;
            };
            if stream.heard_at + IDLE <= now {
                let ended = stream.ended;
                self.streams.remove(&key);
                self.closed.insert(key);
                if !ended {
                    self.events.push_back(StreamEvent::Closed { stream: key });
                }
                continue;
            }
            if stream.ping_at <= now {
                stream.ping_at = now + KEEP_ALIVE;
                let (stream, to_life, peer) = (key, stream.peer_life, stream.peer);
                // A peer that never answered may not know the stream yet, and must not deny it.
                if to_life.is_some() {
                    self.packets
                        .push_back((peer, Packet::Ping { stream, to_life }));
                }
            }
            self.transmit(now, key);
        }
    }

    /// Sends what is due on one stream.
    fn transmit(&mut self, now: Instant, key: Key) {
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        let again = stream.retry_at.is_some_and(|at| at <= now);
        let (to_life, peer) = (stream.peer_life, stream.peer);
        let mut left = RETRY_SEGMENTS;
        for segment in &mut stream.outgoing {
            if segment.departs > now {
                break;
            }
            if segment.sent && (!again || left == 0) {
                continue;
            }
            left = left.saturating_sub(usize::from(segment.sent));
            segment.sent = true;
            let packet = Packet::Segment {
                stream: key,
                to_life,
                sequence: segment.sequence,
                bytes: segment.bytes.clone(),
            };
            self.packets.push_back((peer, packet));
        }
        if again {
            stream.backoff = (stream.backoff * 2).min(RETRY_MAX);
        }
        let flies = stream.outgoing.front().is_some_and(|segment| segment.sent);
        if again || stream.retry_at.is_none() {
            stream.retry_at = flies.then(|| now + stream.backoff);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.streams.values().map(Stream::due).min()
    }

    pub(super) fn poll_packet(&mut self) -> Option<(usize, Packet)> {
        self.packets.pop_front()
    }

    pub(super) fn poll_event(&mut self) -> Option<StreamEvent> {
        self.events.pop_front()
    }
}

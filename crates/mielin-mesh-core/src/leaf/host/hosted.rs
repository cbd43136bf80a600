//! One leaf, as its host sees it.

use alloc::vec::Vec;
use core::time::Duration;

use super::{HostEvent, HostEventKind};
use crate::Instant;
use crate::leaf::connection::{Connection, Opened};
use crate::leaf::noise::MAC_BYTES;
use crate::leaf::packet::{ANSWER_BYTES, Body, Hello, SEGMENT_BYTES_MAX};
use crate::leaf::stream::Stream;
use crate::leaf::{Admission, PACKET_BYTES_MAX, PacketError, PublicKey};
use crate::limits::{LEAF_GONE_AFTER, LEAF_HOST_QUEUE_MAX};

/// How a leaf is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafState {
    /// It speaks.
    Connected,
    /// It sleeps.
    Asleep {
        /// When it wakes at the latest, as it says.
        until: Instant,
    },
    /// It has not spoken yet, or not for long.
    Gone,
}

/// A leaf that is admitted.
pub(super) struct Hosted<A> {
    pub(super) admission: Admission,
    /// Whose admission it is, once a leaf has used it.
    pub(super) key: Option<PublicKey>,
    /// This end of the streams: random for each time that a leaf is admitted.
    pub(super) incarnation: u64,
    pub(super) stream: Stream,
    pub(super) state: LeafState,
    pub(super) address: Option<A>,
    /// The handshake that was answered last, until its leaf speaks.
    pub(super) pending: Option<Pending>,
    current: Option<Current>,
    heard: Instant,
    /// The answer that is due says that the leaf sleeps.
    doze_told: bool,
}

/// A handshake that was answered. Nobody has shown yet that it is not an old one.
pub(super) struct Pending {
    pub(super) connection: Connection,
    pub(super) key: PublicKey,
    pub(super) hello: Hello,
    pub(super) resumed: bool,
    pub(super) answer: [u8; ANSWER_BYTES],
    pub(super) hello_mac: [u8; MAC_BYTES],
    /// When it is forgotten.
    pub(super) until: Instant,
}

/// The connection in use, and the handshake that has made it.
struct Current {
    connection: Connection,
    hello: Hello,
}

/// A packet that was opened.
pub(super) struct Received<'b> {
    opened: Opened<'b>,
    /// It came on the unconfirmed connection, and so confirms it.
    pub(super) confirms: bool,
    pub(super) newest: bool,
}

/// What the confirmation of a connection has changed.
pub(super) struct Confirmed {
    /// The index of the connection before it.
    pub(super) replaced: Option<u32>,
    pub(super) events: Vec<HostEventKind>,
}

impl<A: Copy + Eq> Hosted<A> {
    pub(super) fn new(admission: Admission, key: Option<PublicKey>, incarnation: u64) -> Self {
        Hosted {
            admission,
            key,
            incarnation,
            stream: Stream::new(LEAF_HOST_QUEUE_MAX),
            state: LeafState::Gone,
            address: None,
            pending: None,
            current: None,
            heard: Instant::START,
            doze_told: false,
        }
    }

    /// Whether the hello is one that the leaf said before it made the current connection.
    pub(super) fn is_old(&self, hello: &Hello) -> bool {
        self.current.as_ref().is_some_and(|current| {
            current.hello.incarnation == hello.incarnation
                && hello.handshake <= current.hello.handshake
        })
    }

    /// Whether both ends still have the streams that the hello is about.
    pub(super) fn resumes(&self, hello: &Hello) -> bool {
        self.current.as_ref().is_some_and(|current| {
            current.hello.incarnation == hello.incarnation && hello.known == self.incarnation
        })
    }

    pub(super) fn open<'b>(
        &mut self,
        receiver: u32,
        counter: u32,
        sealed: &[u8],
        plain: &'b mut [u8; SEGMENT_BYTES_MAX],
    ) -> Result<Received<'b>, PacketError> {
        let pending = self.pending.as_mut().map(|of| &mut of.connection);
        let current = self.current.as_mut().map(|of| &mut of.connection);
        let pending = pending.filter(|connection| connection.ours == receiver);
        let confirms = pending.is_some();
        let connection = pending.or(current.filter(|connection| connection.ours == receiver));
        let connection = connection.ok_or(PacketError::Unknown)?;
        let opened = connection.open(counter, sealed, plain)?;
        Ok(Received {
            newest: opened.newest,
            opened,
            confirms,
        })
    }

    /// Makes the unconfirmed connection the current one.
    pub(super) fn confirm(&mut self, now: Instant) -> Confirmed {
        let pending = self.pending.take().expect("a packet of it was opened");
        self.key = Some(pending.key);
        let mut events = Vec::from([HostEventKind::Connected { key: pending.key }]);
        if !pending.resumed && !self.stream.is_unused() {
            let unacknowledged = self.stream.give_back();
            self.stream.restart();
            events.push(HostEventKind::Restarted { unacknowledged });
        }
        self.stream.reconnected();
        self.heard = now;
        let current = Current {
            connection: pending.connection,
            hello: pending.hello,
        };
        let replaced = self.current.replace(current);
        Confirmed {
            replaced: replaced.map(|current| current.connection.ours),
            events,
        }
    }

    /// Takes in what the leaf says.
    pub(super) fn handle(&mut self, now: Instant, received: &Received<'_>) -> Vec<HostEventKind> {
        let segment = &received.opened.segment;
        let mut events = Vec::new();
        if received.newest {
            self.heard = now;
            events.extend(self.place(now, segment.body));
        }
        let progress = self.stream.handle(now, segment, received.newest);
        if progress.readable {
            events.push(HostEventKind::Readable);
        }
        if progress.writable {
            events.push(HostEventKind::Writable);
        }
        events
    }

    /// Notes whether the leaf is awake, as its newest packet says.
    fn place(&mut self, now: Instant, body: Body<'_>) -> Option<HostEventKind> {
        let was = self.state;
        if let Body::Doze { milliseconds } = body {
            let until = now + Duration::from_millis(milliseconds.into());
            self.state = LeafState::Asleep { until };
            self.doze_told = true;
            let woke = matches!(was, LeafState::Asleep { .. });
            return (!woke).then_some(HostEventKind::Asleep { until });
        }
        self.doze_told = false;
        self.state = LeafState::Connected;
        if was == LeafState::Connected {
            return None;
        }
        self.stream.reconnected();
        Some(HostEventKind::Awake)
    }

    /// The next packet for the leaf: where to, and its length.
    pub(super) fn transmit(
        &mut self,
        now: Instant,
        buffer: &mut [u8; PACKET_BYTES_MAX],
    ) -> Option<(A, usize)> {
        let (to, current) = (self.address?, self.current.as_mut()?);
        let segment = match self.state {
            LeafState::Connected => self.stream.transmit(now)?,
            LeafState::Asleep { .. } if self.doze_told => {
                self.doze_told = false;
                let mut segment = self.stream.standing();
                segment.asleep = true;
                segment
            }
            LeafState::Asleep { .. } | LeafState::Gone => return None,
        };
        let packet = current.connection.seal(&segment, buffer)?;
        Some((to, packet.len()))
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let unconfirmed = self.pending.as_ref().map(|pending| pending.until);
        let traffic = match self.state {
            LeafState::Connected => self.stream.poll_timeout(),
            LeafState::Asleep { .. } | LeafState::Gone => None,
        };
        let times = [unconfirmed, traffic, self.gone_at()];
        times.into_iter().flatten().min()
    }

    /// When the leaf is gone, if it says nothing.
    fn gone_at(&self) -> Option<Instant> {
        match self.state {
            LeafState::Connected => Some(self.heard + LEAF_GONE_AFTER),
            LeafState::Asleep { until } => Some(until + LEAF_GONE_AFTER),
            LeafState::Gone => None,
        }
    }

    /// Forgets a handshake that was not confirmed for long; its index.
    pub(super) fn forget_unconfirmed(&mut self, now: Instant) -> Option<u32> {
        let forgotten = self.pending.take_if(|pending| pending.until <= now)?;
        Some(forgotten.connection.ours)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<HostEventKind> {
        if self.gone_at().is_some_and(|at| at <= now) {
            self.state = LeafState::Gone;
            return Some(HostEventKind::Gone);
        }
        if self.state == LeafState::Connected {
            self.stream.handle_timeout(now);
        }
        None
    }

    pub(super) fn event(&self, kind: HostEventKind) -> HostEvent {
        let key = self
            .key
            .expect("nothing happens to a leaf before it has shown its key");
        HostEvent {
            leaf: self.admission.number,
            node: key.node_id(),
            kind,
        }
    }
}

//! The sender's half: what is not acknowledged yet, and when to say it again.

use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use super::{
    DeliveryReply, Envelope, MessageKind, Stored, StoredMailbox, all_consumed, next_payload,
};
use crate::codec::{self, CodecError};
use crate::limits::{
    DELIVERY_RETRY_MAX, DELIVERY_RETRY_MIN, DELIVERY_WINDOW_BYTES, DELIVERY_WINDOW_COUNT,
    OUTBOX_BYTES_MAX, OUTBOX_COUNT_MAX, OUTBOX_DESTINATIONS_MAX, PAYLOAD_BYTES_MAX,
};
use crate::{AgentId, Epoch, Instant, NodeId};

/// Redirections without progress that are followed at once: so often an agent may have gone on before all its former
/// nodes know of it.
const REDIRECTED_AT_ONCE: u32 = 4;

/// What the sender's node should do after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing but asking for the next transmission.
    Continue,
    /// Send the next transmissions there, unless a higher epoch is known.
    Redirect {
        /// The node.
        node: NodeId,
        /// The agent's epoch there.
        epoch: Epoch,
    },
    /// Look the destination up again; the next transmission waits a little.
    LookUp,
    /// The destination has ended; the messages to it were dropped.
    Dropped {
        /// How many.
        count: usize,
    },
}

/// Why a message was not taken for sending. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OutboxError {
    /// Too much is unacknowledged; wait until [`Outbox::can_push`].
    #[error("too many messages are unacknowledged")]
    Full,
    /// Larger than a message may be. The caller is at fault.
    #[error("a payload has at most {PAYLOAD_BYTES_MAX} bytes, this has {len}")]
    TooLarge {
        /// Its length.
        len: usize,
    },
}

/// The unacknowledged messages of one sending agent. It travels with the agent.
#[derive(Clone, Debug)]
pub struct Outbox {
    agent: AgentId,
    /// The last sequence number given out to each destination. There may be many of them, and each is kept for ever.
    last: BTreeMap<AgentId, u64>,
    /// The destinations with which something is going on.
    lanes: BTreeMap<AgentId, Lane>,
    count: usize,
    bytes: usize,
}

/// The messages to one destination.
#[derive(Clone, Debug)]
struct Lane {
    unacknowledged: VecDeque<Envelope>,
    /// How many of them are in flight, and the bytes of their payloads.
    flying: usize,
    flying_bytes: usize,
    /// No transmission before this.
    blocked_until: Option<Instant>,
    /// When what flies is taken for lost.
    retry_at: Option<Instant>,
    backoff: Duration,
    /// The missing number for which the lane last went back: concurrent transmissions report one gap many
    /// times, and each report must not start the whole window again.
    went_back_for: Option<u64>,
    /// Redirections since the last progress.
    redirected: u32,
    /// An exchange with the destination's node is under way, and nothing else is transmitted meanwhile.
    exchanging: bool,
    /// What was posted was not taken in; an exchange comes next.
    unheard: bool,
}

impl Lane {
    const fn new() -> Lane {
        Lane {
            unacknowledged: VecDeque::new(),
            flying: 0,
            flying_bytes: 0,
            blocked_until: None,
            retry_at: None,
            backoff: DELIVERY_RETRY_MIN,
            went_back_for: None,
            redirected: 0,
            exchanging: false,
            unheard: false,
        }
    }

    fn go_back(&mut self) {
        (self.flying, self.flying_bytes) = (0, 0);
        self.retry_at = None;
        self.blocked_until = None;
        self.went_back_for = None;
    }

    fn go_back_and_wait(&mut self, now: Instant) {
        self.go_back();
        self.blocked_until = Some(now + self.backoff);
        self.backoff = (self.backoff * 2).min(DELIVERY_RETRY_MAX);
    }

    /// Whether something may be transmitted; goes back if what flies is taken for lost.
    fn may_transmit(&mut self, now: Instant) -> bool {
        if self.exchanging || self.blocked_until.is_some_and(|at| at > now) {
            return false;
        }
        self.blocked_until = None;
        if self.retry_at.is_some_and(|at| at <= now) {
            self.go_back();
            self.unheard = true;
            self.backoff = (self.backoff * 2).min(DELIVERY_RETRY_MAX);
        }
        true
    }

    /// The next message for which the window has room.
    fn next(&self) -> Option<&Envelope> {
        let next = self.unacknowledged.get(self.flying)?;
        let fits = self.flying < DELIVERY_WINDOW_COUNT
            && self.flying_bytes + next.payload.len() <= DELIVERY_WINDOW_BYTES;
        (self.flying == 0 || fits).then_some(next)
    }

    fn transmit_next(&mut self, now: Instant) -> Option<Envelope> {
        let next = self.next()?.clone();
        self.flying += 1;
        self.flying_bytes += next.payload.len();
        // The timer runs from the oldest transmission that is not acknowledged.
        self.retry_at = self.retry_at.or(Some(now + self.backoff));
        Some(next)
    }

    /// Drops everything up to `through`; gives how many messages and bytes that were.
    fn acknowledge(&mut self, now: Instant, through: u64) -> (usize, usize) {
        let (mut count, mut bytes) = (0, 0);
        while self
            .unacknowledged
            .front()
            .is_some_and(|e| e.sequence <= through)
        {
            if let Some(envelope) = self.unacknowledged.pop_front() {
                bytes += envelope.payload.len();
                if count < self.flying {
                    self.flying_bytes -= envelope.payload.len();
                }
                count += 1;
            }
        }
        if count > 0 {
            self.flying = self.flying.saturating_sub(count);
            self.backoff = DELIVERY_RETRY_MIN;
            self.redirected = 0;
            self.blocked_until = None;
            self.retry_at = (self.flying > 0).then(|| now + self.backoff);
        }
        (count, bytes)
    }

    /// Whether there is nothing to know about it but the last number.
    fn is_idle(&self) -> bool {
        self.unacknowledged.is_empty() && !self.exchanging && !self.unheard
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.unacknowledged.is_empty() || self.exchanging {
            None
        } else {
            self.blocked_until.or(self.retry_at)
        }
    }
}

impl Outbox {
    /// An empty outbox: every sequence starts at 1.
    #[must_use]
    pub const fn new(agent: AgentId) -> Outbox {
        Outbox {
            agent,
            last: BTreeMap::new(),
            lanes: BTreeMap::new(),
            count: 0,
            bytes: 0,
        }
    }

    /// Takes a message; gives its sequence number.
    ///
    /// # Errors
    ///
    /// [`OutboxError::Full`] is back-pressure; [`OutboxError::TooLarge`] is final.
    pub fn push(
        &mut self,
        epoch: Epoch,
        to: AgentId,
        kind: MessageKind,
        payload: Bytes,
    ) -> Result<u64, OutboxError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(OutboxError::TooLarge { len: payload.len() });
        }
        if !self.can_push(payload.len()) {
            return Err(OutboxError::Full);
        }
        let destinations = self.last.len();
        let last = match self.last.entry(to) {
            Entry::Occupied(last) => last.into_mut(),
            Entry::Vacant(_) if destinations >= OUTBOX_DESTINATIONS_MAX => {
                return Err(OutboxError::Full);
            }
            Entry::Vacant(last) => last.insert(0),
        };
        // Only an outbox that a hostile peer sent along can have counted to the end.
        let next = last.checked_add(1).ok_or(OutboxError::Full)?;
        *last = next;
        let lane = self.lanes.entry(to).or_insert_with(Lane::new);
        self.count += 1;
        self.bytes += payload.len();
        lane.unacknowledged.push_back(Envelope {
            source: self.agent,
            source_epoch: epoch,
            destination: to,
            sequence: next,
            kind,
            payload,
        });
        Ok(next)
    }

    /// Whether there is room for a payload of this length.
    #[must_use]
    pub fn can_push(&self, len: usize) -> bool {
        self.count < OUTBOX_COUNT_MAX && self.bytes.saturating_add(len) <= OUTBOX_BYTES_MAX
    }

    /// The destinations to which something may be transmitted, unless it must wait for what is on its way there.
    pub fn ready(&mut self, now: Instant) -> Vec<AgentId> {
        let mut ready = Vec::new();
        for (to, lane) in &mut self.lanes {
            if lane.may_transmit(now) && lane.next().is_some() {
                ready.push(*to);
            }
        }
        ready
    }

    /// The next message to post to one destination, that is, to send without waiting for what is said to it; none if
    /// it has more than `bytes_max`, or has to go in an exchange.
    pub fn poll_post(&mut self, now: Instant, to: &AgentId, bytes_max: usize) -> Option<Envelope> {
        let lane = self.lanes.get_mut(to)?;
        if !lane.may_transmit(now) || lane.unheard || lane.next()?.payload.len() > bytes_max {
            return None;
        }
        lane.transmit_next(now)
    }

    /// The messages for an exchange with the destination's node, which says at the end how far they were accepted:
    /// as many as the window holds. Until [`end_exchange`](Self::end_exchange) nothing else is transmitted there.
    /// `None` while messages that were posted are on their way: the exchange might overtake them.
    pub fn begin_exchange(&mut self, now: Instant, to: &AgentId) -> Option<Vec<Envelope>> {
        let lane = self.lanes.get_mut(to)?;
        if !lane.may_transmit(now) || lane.flying > 0 {
            return None;
        }
        let envelopes: Vec<_> = core::iter::from_fn(|| lane.transmit_next(now)).collect();
        lane.exchanging = !envelopes.is_empty();
        lane.exchanging.then_some(envelopes)
    }

    /// Takes that an exchange is over, after what was said in it: what it did not acknowledge is transmitted again.
    pub fn end_exchange(&mut self, to: &AgentId) {
        if let Some(lane) = self.lanes.get_mut(to) {
            let blocked_until = lane.blocked_until;
            lane.go_back();
            lane.blocked_until = blocked_until;
            (lane.exchanging, lane.unheard) = (false, false);
        }
        self.let_rest(to);
    }

    /// Keeps only the last number of a destination with which nothing is going on.
    fn let_rest(&mut self, to: &AgentId) {
        if self.lanes.get(to).is_some_and(Lane::is_idle) {
            self.lanes.remove(to);
            if self.lanes.is_empty() {
                // An empty map may keep what it has allocated.
                self.lanes = BTreeMap::new();
            }
        }
    }

    /// Takes that messages that were posted were not taken in, or that nobody knows: an exchange will tell.
    pub fn unheard(&mut self, to: &AgentId) {
        if let Some(lane) = self.lanes.get_mut(to)
            && !lane.exchanging
        {
            lane.go_back();
            lane.unheard = true;
        }
    }

    /// Takes what the destination's node said.
    pub fn handle_reply(&mut self, now: Instant, to: &AgentId, reply: DeliveryReply) -> Advice {
        let Some(last) = self.last.get(to).copied() else {
            return Advice::Continue;
        };
        let advice = self.heed(now, to, last, reply);
        self.let_rest(to);
        advice
    }

    fn heed(&mut self, now: Instant, to: &AgentId, last: u64, reply: DeliveryReply) -> Advice {
        let lane = self.lanes.entry(*to).or_insert_with(Lane::new);
        match reply {
            DeliveryReply::Acknowledged { through } => {
                // A number that was never given out acknowledges nothing: the peer is wrong.
                if through <= last {
                    let (count, bytes) = lane.acknowledge(now, through);
                    self.count -= count;
                    self.bytes -= bytes;
                }
                Advice::Continue
            }
            DeliveryReply::Gap { expected } => {
                if expected > 0 && expected <= last {
                    let (count, bytes) = lane.acknowledge(now, expected - 1);
                    self.count -= count;
                    self.bytes -= bytes;
                    // Nothing flies while the lane waits: a gap behind a message that was refused says nothing new.
                    if lane.flying > 0 && lane.went_back_for != Some(expected) {
                        lane.go_back();
                        lane.went_back_for = Some(expected);
                    }
                }
                Advice::Continue
            }
            DeliveryReply::Full | DeliveryReply::Busy => {
                lane.go_back_and_wait(now);
                Advice::Continue
            }
            DeliveryReply::Moved { node, epoch } => {
                // The first redirections are followed at once; nodes that send each other's visitors back and
                // forth while records spread must not be answered at network speed.
                lane.redirected = lane.redirected.saturating_add(1);
                if lane.redirected <= REDIRECTED_AT_ONCE {
                    lane.go_back()
                } else {
                    lane.go_back_and_wait(now)
                }
                Advice::Redirect { node, epoch }
            }
            DeliveryReply::Unknown => {
                lane.go_back_and_wait(now);
                Advice::LookUp
            }
            DeliveryReply::Ended => {
                let (count, bytes) = lane.acknowledge(now, last);
                self.count -= count;
                self.bytes -= bytes;
                Advice::Dropped { count }
            }
        }
    }

    /// Takes that a transmission could not be made (no location, no connection): it is repeated later.
    pub fn undeliverable(&mut self, now: Instant, to: &AgentId) {
        if let Some(lane) = self.lanes.get_mut(to) {
            lane.go_back_and_wait(now);
        }
    }

    /// Takes that the destination has a new location: all that is unacknowledged is transmitted again at once.
    pub fn relocated(&mut self, to: &AgentId) {
        if let Some(lane) = self.lanes.get_mut(to) {
            lane.go_back();
            lane.backoff = DELIVERY_RETRY_MIN;
        }
    }

    /// When to ask [`Outbox::ready`] again although nothing happened.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.lanes.values().filter_map(Lane::poll_timeout).min()
    }

    /// The same for what goes to one destination.
    #[must_use]
    pub fn poll_timeout_to(&self, to: &AgentId) -> Option<Instant> {
        self.lanes.get(to).and_then(Lane::poll_timeout)
    }

    /// Whether there is something for a destination that was not transmitted, and the window has room for it.
    #[must_use]
    pub fn has_next(&self, to: &AgentId) -> bool {
        self.lanes.get(to).is_some_and(|lane| lane.next().is_some())
    }

    /// Messages not acknowledged yet.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether everything is acknowledged.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Destinations with unacknowledged messages.
    pub fn destinations(&self) -> impl Iterator<Item = AgentId> {
        let waiting =
            |(to, lane): (&AgentId, &Lane)| (!lane.unacknowledged.is_empty()).then_some(*to);
        self.lanes.iter().filter_map(waiting)
    }

    /// Counters and unacknowledged messages, to travel with the agent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let envelopes = || self.lanes.values().flat_map(|lane| &lane.unacknowledged);
        let stored = |envelope: &Envelope| Stored {
            peer: envelope.destination,
            source_epoch: envelope.source_epoch,
            sequence: envelope.sequence,
            kind: envelope.kind,
            payload_bytes: envelope.payload.len() as u64,
        };
        let mut bytes = codec::encode(&StoredMailbox {
            counters: self.last.iter().map(|(to, last)| (*to, *last)).collect(),
            messages: envelopes().map(stored).collect(),
        });
        for envelope in envelopes() {
            bytes.extend_from_slice(&envelope.payload);
        }
        bytes
    }

    /// The outbox of `agent` in these bytes; all that is unacknowledged is transmitted again.
    ///
    /// # Errors
    ///
    /// [`CodecError`] if [`Outbox::encode`] cannot have written them.
    pub fn decode(agent: AgentId, bytes: &Bytes) -> Result<Outbox, CodecError> {
        let (stored, mut payloads) = StoredMailbox::decode(bytes)?;
        let mut outbox = Outbox::new(agent);
        let counts = (stored.counters.len(), stored.messages.len());
        outbox.last.extend(stored.counters);
        if outbox.last.len() != counts.0
            || counts.0 > OUTBOX_DESTINATIONS_MAX
            || counts.1 > OUTBOX_COUNT_MAX
        {
            return Err(CodecError::Malformed);
        }
        for Stored {
            peer,
            source_epoch,
            sequence,
            kind,
            payload_bytes,
        } in stored.messages
        {
            let payload = next_payload(&mut payloads, payload_bytes)?;
            let last = *outbox.last.get(&peer).ok_or(CodecError::Malformed)?;
            let lane = outbox.lanes.entry(peer).or_insert_with(Lane::new);
            let follows = lane
                .unacknowledged
                .back()
                .is_none_or(|before| before.sequence.checked_add(1) == Some(sequence));
            if !follows || sequence == 0 || sequence > last {
                return Err(CodecError::Malformed);
            }
            outbox.count += 1;
            outbox.bytes += payload.len();
            let (source, destination) = (agent, peer);
            lane.unacknowledged.push_back(Envelope {
                source,
                source_epoch,
                destination,
                sequence,
                kind,
                payload,
            });
        }
        // What is unacknowledged reaches up to the last number given out.
        let complete = |(to, lane): (&AgentId, &Lane)| {
            let newest = lane.unacknowledged.back().map(|newest| newest.sequence);
            newest == outbox.last.get(to).copied()
        };
        if !outbox.lanes.iter().all(complete) {
            return Err(CodecError::Malformed);
        }
        all_consumed(&payloads)?;
        Ok(outbox)
    }
}

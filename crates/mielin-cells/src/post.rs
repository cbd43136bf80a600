//! An agent's post: the mailbox that senders fill and the outbox that a courier empties.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use bytes::Bytes;
use mielin_mesh::Lane;
use mielin_mesh_core::codec::CodecError;
use mielin_mesh_core::delivery::{
    self, Advice, DeliveryReply, Envelope, Inbox, Outbox, OutboxError,
};
use mielin_mesh_core::limits::PAYLOAD_BYTES_MAX;
use mielin_mesh_core::{AgentId, Epoch, Instant};
use mielin_wasm::{Address, Discarded, MessageKind, Receive, Received, SendError};
use tokio::sync::{Notify, watch};

use crate::lock::lock;
use crate::node::Node;
use crate::watched::Watched;

/// Mailbox and outbox of one agent; both travel with it.
pub(crate) struct Post {
    agent: AgentId,
    state: Mutex<State>,
    /// Wakes the courier that works for the agent: there may be something to transmit, or nothing will be.
    pub(crate) outgoing: Notify,
    /// Counts what destinations said; see [`Post::fate`].
    answers: Watched<u64>,
    /// Where the agent is, as soon as couriers can be sent for it, and this post for them.
    home: OnceLock<(Weak<Node>, Weak<Post>)>,
}

struct State {
    outbox: Outbox,
    inbox: Inbox,
    epoch: Epoch,
    /// The agent is about to leave: what is in the mailbox and the outbox stays as it is.
    frozen: bool,
    /// The agent has arrived, but its source may not have let go yet. Apart from `frozen`, because an agent can be
    /// on its way out again before the end of its arrival is heard of.
    withheld: bool,
    /// The agent is hibernated: nothing comes in, because what is stored would not have it.
    asleep: bool,
    /// The agent is on a leaf: what comes in is acknowledged when it is stored.
    lodged: Option<Lodged>,
    /// The agent is gone from this node: no courier works for it here.
    closed: bool,
    /// The agent has ended: what it sent still goes out, but nothing comes in.
    ended: bool,
    message_bytes: usize,
    /// One works for the agent: as long as something of it is not acknowledged.
    has_courier: bool,
    /// When the courier looks at the outbox by itself.
    courier_wakes: Option<Instant>,
    /// What destinations said last; kept only where somebody asks, which is the command line's own post.
    fates: Option<HashMap<AgentId, Fate>>,
}

/// The post of an agent that is on a leaf, and outlives the process as its program does.
#[derive(Default)]
struct Lodged {
    /// Counts the changes.
    changes: u64,
    /// Those that are stored.
    stored: u64,
}

/// What became of the messages to one destination.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fate {
    /// Everything up to here was accepted.
    pub(crate) through: u64,
    /// The destination has ended.
    pub(crate) ended: bool,
    /// The last answer was that the mailbox is full.
    pub(crate) full: bool,
}

impl Post {
    pub(crate) fn new(agent: AgentId, epoch: Epoch, message_bytes: usize) -> Post {
        let state = State {
            outbox: Outbox::new(agent),
            inbox: Inbox::new(agent),
            epoch,
            frozen: false,
            withheld: false,
            asleep: false,
            lodged: None,
            closed: false,
            ended: false,
            message_bytes: message_bytes.min(PAYLOAD_BYTES_MAX),
            has_courier: false,
            courier_wakes: None,
            fates: None,
        };
        Post {
            agent,
            state: Mutex::new(state),
            outgoing: Notify::new(),
            answers: Watched::new(0),
            home: OnceLock::new(),
        }
    }

    pub(crate) fn agent(&self) -> AgentId {
        self.agent
    }

    /// A post that remembers what became of its messages.
    pub(crate) fn with_fates(agent: AgentId) -> Post {
        let post = Post::new(agent, Epoch(1), PAYLOAD_BYTES_MAX);
        lock(&post.state).fates = Some(HashMap::new());
        post
    }

    /// Takes a message of the agent for sending. `taken` is told of it before anybody can get it.
    pub(crate) fn send(
        &self,
        to: AgentId,
        kind: MessageKind,
        payload: &[u8],
        taken: impl FnOnce(),
    ) -> Result<u64, SendError> {
        let kind = match kind {
            MessageKind::Message => delivery::MessageKind::Send,
            MessageKind::Reply { to } => delivery::MessageKind::Reply { to_sequence: to },
        };
        let mut state = lock(&self.state);
        if payload.len() > state.message_bytes {
            return Err(SendError::TooLarge {
                limit: state.message_bytes,
            });
        }
        if !state.outbox.can_push(payload.len()) {
            return Err(SendError::Full);
        }
        let sequence = state
            .push(to, kind, Bytes::copy_from_slice(payload))
            .map_err(|error| match error {
                OutboxError::Full => SendError::Full,
                OutboxError::TooLarge { .. } => SendError::TooLarge {
                    limit: PAYLOAD_BYTES_MAX,
                },
            })?;
        taken();
        drop(state);
        self.send_off(&to);
        Ok(sequence)
    }

    /// The same for the command line, which has its payload in shared memory.
    pub(crate) fn push(
        &self,
        to: AgentId,
        kind: delivery::MessageKind,
        payload: Bytes,
    ) -> Result<u64, OutboxError> {
        let sequence = lock(&self.state).push(to, kind, payload)?;
        self.send_off(&to);
        Ok(sequence)
    }

    /// Takes the oldest message out of the mailbox, if it is at most `max_len` long.
    pub(crate) fn receive(&self, max_len: usize) -> Receive {
        let mut state = lock(&self.state);
        match state.inbox.peek() {
            None => return Receive::Empty,
            Some(envelope) if envelope.payload.len() > max_len => {
                return Receive::TooLarge {
                    len: envelope.payload.len(),
                };
            }
            Some(_) => {}
        }
        let Some(envelope) = state.inbox.take() else {
            return Receive::Empty;
        };
        Receive::Message(Received {
            from: Address(envelope.source.0),
            sequence: envelope.sequence,
            kind: kind_of(envelope.kind),
            payload: envelope.payload.into(),
        })
    }

    /// Takes the oldest message out of the mailbox, if it is longer than this.
    pub(crate) fn discard(&self, longer_than: usize) -> Option<Discarded> {
        let mut state = lock(&self.state);
        let len = state.inbox.peek()?.payload.len();
        if len <= longer_than {
            return None;
        }
        let envelope = state.inbox.take()?;
        Some(Discarded {
            from: Address(envelope.source.0),
            sequence: envelope.sequence,
            kind: kind_of(envelope.kind),
            len,
        })
    }

    /// Takes the oldest message out of the mailbox.
    pub(crate) fn take(&self) -> Option<Envelope> {
        lock(&self.state).inbox.take()
    }

    pub(crate) fn mailbox_count(&self) -> usize {
        lock(&self.state).inbox.len()
    }

    pub(crate) fn mailbox_is_empty(&self) -> bool {
        lock(&self.state).inbox.is_empty()
    }

    /// Puts messages of one sender into the mailbox; says how far that went.
    ///
    /// Counts the new ones under the same lock, so that a hand-over takes along both the messages and their count.
    pub(crate) fn accept(&self, envelopes: Vec<Envelope>, received: &AtomicU64) -> DeliveryReply {
        let mut state = lock(&self.state);
        if state.ended {
            return DeliveryReply::Ended;
        }
        if state.is_shut() || state.closed || (state.asleep && state.lodged.is_none()) {
            return DeliveryReply::Busy;
        }
        let mut came = false;
        let mut best = DeliveryReply::Busy;
        for envelope in envelopes {
            let acceptance = state.inbox.accept(envelope);
            let new = matches!(acceptance, delivery::Acceptance::New { .. });
            received.fetch_add(u64::from(new), Ordering::Relaxed);
            came |= new;
            let reply = acceptance.reply();
            let stop = !matches!(reply, DeliveryReply::Acknowledged { .. });
            if !(stop && matches!(best, DeliveryReply::Acknowledged { .. })) {
                best = reply;
            }
            if stop {
                break;
            }
        }
        match &mut state.lodged {
            Some(lodged) => {
                lodged.changes += u64::from(came);
                if lodged.changes == lodged.stored {
                    best
                } else {
                    // It comes again, and is acknowledged when it is on the disk.
                    DeliveryReply::Busy
                }
            }
            None => best,
        }
    }

    /// The destinations to which the courier may transmit something; none while the agent is handed over.
    pub(crate) fn ready(&self, now: Instant) -> Vec<AgentId> {
        let mut state = lock(&self.state);
        if state.is_shut() {
            Vec::new()
        } else {
            state.outbox.ready(now)
        }
    }

    /// See [`Outbox::begin_exchange`].
    pub(crate) fn begin_exchange(&self, now: Instant, to: &AgentId) -> Option<Vec<Envelope>> {
        let mut state = lock(&self.state);
        if state.is_shut() {
            None
        } else {
            state.outbox.begin_exchange(now, to)
        }
    }

    /// See [`Outbox::end_exchange`].
    pub(crate) fn end_exchange(&self, to: &AgentId) {
        lock(&self.state).outbox.end_exchange(to);
    }

    /// See [`Outbox::unheard`].
    pub(crate) fn unheard(&self, to: &AgentId) {
        lock(&self.state).outbox.unheard(to);
    }

    /// When the courier has to look at the outbox although nobody wakes it, which it then does.
    pub(crate) fn wakes_courier_at(&self) -> Option<Instant> {
        let mut state = lock(&self.state);
        state.courier_wakes = if state.is_shut() {
            None
        } else {
            state.outbox.poll_timeout()
        };
        state.courier_wakes
    }

    /// Couriers can be sent for the agent from now on.
    pub(crate) fn lives_on(self: &Arc<Self>, node: &Arc<Node>) {
        // An error says that it is there already.
        let _ = self.home.set((Arc::downgrade(node), Arc::downgrade(self)));
        self.rouse();
    }

    /// Has a courier look at the outbox: the one that works for the agent, or a new one if there is something for it.
    fn rouse(&self) {
        let home = self.home.get();
        let home = home.and_then(|(node, post)| Some((node.upgrade()?, post.upgrade()?)));
        let Some((node, post)) = home else {
            return self.outgoing.notify_one();
        };
        {
            let mut state = lock(&self.state);
            if state.has_courier {
                return self.outgoing.notify_one();
            }
            if state.outbox.is_empty() || state.is_done() {
                return;
            }
            state.has_courier = true;
        }
        node.send_courier(post);
    }

    /// Whether the courier has nothing left to do. Then it is gone in the eyes of whoever needs one.
    pub(crate) fn dismiss_courier(&self, is_idle: bool) -> bool {
        let mut state = lock(&self.state);
        let dismissed = state.is_done() || (is_idle && state.outbox.is_empty());
        if dismissed {
            state.has_courier = false;
            state.courier_wakes = None;
        }
        dismissed
    }

    /// Transmits what was just taken, or has the courier do it.
    fn send_off(&self, to: &AgentId) {
        if !self.node().is_some_and(|node| self.transmit(&node, to)) {
            self.rouse();
        }
    }

    /// Posts the messages to one destination on the lane to its node; whether nothing is left that the courier has to
    /// bring over, or to wait for.
    pub(crate) fn transmit(&self, node: &Node, to: &AgentId) -> bool {
        let Some(lane) = node.lane_to(to) else {
            return false;
        };
        let (mut state, now) = (lock(&self.state), node.now());
        if state.is_shut() || state.closed {
            return true;
        }
        let outbox = &mut state.outbox;
        if !lane.post(|| outbox.poll_post(now, to, Lane::POSTED_BYTES_MAX)) || outbox.has_next(to) {
            return false;
        }
        state.is_looked_at_in_time(to)
    }

    /// After an answer: transmits what there is now room for. Wakes the courier if it is done, or would look too late:
    /// the answer may have ended long pauses.
    pub(crate) fn go_on(&self, node: &Node, to: &AgentId) {
        let (more, in_time, done) = {
            let state = lock(&self.state);
            let in_time = state.is_looked_at_in_time(to);
            (state.outbox.has_next(to), in_time, state.is_done())
        };
        let settled = if more {
            self.transmit(node, to)
        } else {
            in_time
        };
        if done || !settled {
            self.rouse();
        }
    }

    /// Takes what the destination's node said.
    pub(crate) fn handle_reply(&self, now: Instant, to: &AgentId, reply: DeliveryReply) -> Advice {
        let mut state = lock(&self.state);
        let advice = state.outbox.handle_reply(now, to, reply);
        if let Some(fates) = &mut state.fates {
            let fate = fates.entry(*to).or_default();
            fate.full = reply == DeliveryReply::Full;
            match reply {
                DeliveryReply::Acknowledged { through } => fate.through = fate.through.max(through),
                DeliveryReply::Ended => fate.ended = true,
                _ => {}
            }
        }
        drop(state);
        self.answers.change(|count| {
            *count += 1;
            true
        });
        advice
    }

    pub(crate) fn undeliverable(&self, now: Instant, to: &AgentId) {
        lock(&self.state).outbox.undeliverable(now, to);
    }

    /// Takes that `to` lives on another node than before.
    pub(crate) fn relocated(&self, to: &AgentId) {
        let mut state = lock(&self.state);
        if state
            .outbox
            .destinations()
            .any(|destination| destination == *to)
        {
            state.outbox.relocated(to);
            drop(state);
            self.rouse();
        }
    }

    /// What became of the messages to `to`, as far as its nodes said.
    pub(crate) fn fate(&self, to: &AgentId) -> Fate {
        let state = lock(&self.state);
        state
            .fates
            .as_ref()
            .and_then(|fates| fates.get(to))
            .copied()
            .unwrap_or_default()
    }

    /// Sees every answer of a destination.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.answers.watch()
    }

    /// Lets nothing in and nothing out while the agent is handed over; messages to it are refused and come again.
    pub(crate) fn freeze(&self) {
        lock(&self.state).frozen = true;
    }

    /// Lets nothing in and nothing out until the source is known to have let go.
    pub(crate) fn withhold(&self) {
        lock(&self.state).withheld = true;
    }

    /// The source has let go.
    pub(crate) fn confirm(&self) {
        lock(&self.state).withheld = false;
        self.rouse();
    }

    /// Whether nothing comes in or goes out because the source may not have let go.
    pub(crate) fn is_withheld(&self) -> bool {
        lock(&self.state).withheld
    }

    /// Lets out what was sent and nothing in, until [`Post::wake`].
    pub(crate) fn sleep(&self) {
        let mut state = lock(&self.state);
        state.frozen = false;
        state.asleep = true;
        drop(state);
        self.rouse();
    }

    /// The agent goes to a leaf, or has come back: in between, what comes in is acknowledged when it is [stored](Post::stored).
    pub(crate) fn lodge(&self, lodged: bool) {
        lock(&self.state).lodged = lodged.then(Lodged::default);
    }

    /// Takes a message of an agent that is on a leaf for sending. It goes out at once: if this process ends before it is stored,
    /// the leaf says the same again, and it gets the same number.
    pub(crate) fn send_of_lodged(
        &self,
        to: AgentId,
        kind: MessageKind,
        payload: &[u8],
        taken: impl FnOnce(),
    ) -> Result<u64, SendError> {
        let sequence = self.send(to, kind, payload, taken)?;
        self.changed();
        Ok(sequence)
    }

    /// Something of an agent's post has changed that is on a leaf.
    pub(crate) fn changed(&self) {
        if let Some(lodged) = &mut lock(&self.state).lodged {
            lodged.changes += 1;
        }
    }

    /// Whether an agent on a leaf has post that is not stored.
    pub(crate) fn is_unstored(&self) -> bool {
        let state = lock(&self.state);
        let lodged = state.lodged.as_ref();
        lodged.is_some_and(|lodged| lodged.changes != lodged.stored)
    }

    /// Outbox and mailbox as bytes, and how many changes are in them, for [`Post::stored`].
    pub(crate) fn encode_lodged(&self) -> (Vec<u8>, Vec<u8>, u64) {
        let state = lock(&self.state);
        let changes = state.lodged.as_ref().map_or(0, |lodged| lodged.changes);
        (state.outbox.encode(), state.inbox.encode(), changes)
    }

    /// So many changes are on the disk.
    pub(crate) fn stored(&self, changes: u64) {
        if let Some(lodged) = &mut lock(&self.state).lodged {
            lodged.stored = lodged.stored.max(changes);
        }
    }

    /// The oldest message in the mailbox, which stays there.
    pub(crate) fn peek(&self) -> Option<Envelope> {
        lock(&self.state).inbox.peek().cloned()
    }

    /// Opens both ways again.
    pub(crate) fn wake(&self, epoch: Epoch) {
        lock(&self.state).asleep = false;
        self.thaw(epoch);
    }

    /// The node where a courier works for the agent.
    pub(crate) fn node(&self) -> Option<Arc<Node>> {
        self.home.get().and_then(|(node, _)| node.upgrade())
    }

    /// Opens both ways again: the agent stays, and in this epoch.
    pub(crate) fn thaw(&self, epoch: Epoch) {
        let mut state = lock(&self.state);
        state.frozen = false;
        state.epoch = epoch;
        drop(state);
        self.rouse();
    }

    /// No courier works here any more.
    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.rouse();
    }

    /// The agent has ended: its mailbox is closed for good, and nobody will take what is in it.
    pub(crate) fn end(&self) {
        {
            let mut state = lock(&self.state);
            state.ended = true;
            state.inbox = Inbox::new(self.agent);
        }
        self.rouse();
    }

    /// Outbox and mailbox as bytes, to travel with the agent.
    pub(crate) fn encode(&self) -> (Vec<u8>, Vec<u8>) {
        let state = lock(&self.state);
        (state.outbox.encode(), state.inbox.encode())
    }

    /// Becomes what travelled.
    pub(crate) fn load(
        &self,
        epoch: Epoch,
        outbox: &Bytes,
        inbox: &Bytes,
    ) -> Result<(), CodecError> {
        let (outbox, inbox) = (
            Outbox::decode(self.agent, outbox)?,
            Inbox::decode(self.agent, inbox)?,
        );
        let mut state = lock(&self.state);
        state.outbox = outbox;
        state.inbox = inbox;
        state.epoch = epoch;
        Ok(())
    }
}

impl State {
    const fn is_shut(&self) -> bool {
        self.frozen || self.withheld
    }

    /// Whether the courier looks by itself at what goes to a destination when that is due.
    fn is_looked_at_in_time(&self, to: &AgentId) -> bool {
        match (self.outbox.poll_timeout_to(to), self.courier_wakes) {
            _ if self.is_shut() => true,
            (Some(due), Some(wakes)) => wakes <= due,
            (due, _) => due.is_none(),
        }
    }

    fn is_done(&self) -> bool {
        self.closed || (self.ended && self.outbox.is_empty())
    }

    fn push(
        &mut self,
        to: AgentId,
        kind: delivery::MessageKind,
        payload: Bytes,
    ) -> Result<u64, OutboxError> {
        self.outbox.push(self.epoch, to, kind, payload)
    }
}

#[cfg(test)]
pub(crate) mod tests;

/// The kind of a message, as programs see it.
pub(crate) const fn kind_of(kind: delivery::MessageKind) -> MessageKind {
    match kind {
        delivery::MessageKind::Send | delivery::MessageKind::Request => MessageKind::Message,
        delivery::MessageKind::Reply { to_sequence } => MessageKind::Reply { to: to_sequence },
    }
}

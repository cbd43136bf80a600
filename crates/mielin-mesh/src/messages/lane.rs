//! Protocol 11: lanes, on which small messages are posted.
//!
//! A message that is posted is on its way at once, behind those before it and without waiting for what is said to
//! them. A lane is one stream between two nodes, open for as long as it is used, and both post on it. What is said to
//! messages goes back in front of a message that goes the other way, if one is posted before the tasks that are ready
//! have run: then both cost one packet. It is not held back for longer, as TCP does with acknowledgements (RFC 9293,
//! section 3.8.6.3): a timer of milliseconds costs a virtual machine more than the packet that it may save.
//!
//! Nothing waits on a lane. A message that a mailbox cannot take in at once, because its agent is being handed over or
//! its sender has to be looked up, is answered with `None`, and its sender brings it in an exchange.
//!
//! A frame is a [note](note) as its header, and the payload of the message if there is one. A lane ends with a note that
//! says so: the other side posts nothing behind it, says what is left to say, and finishes; and then this side does.

mod note;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use mielin_mesh_core::delivery::{DeliveryReply, Envelope};
use mielin_mesh_core::{AgentId, NodeId};
use mielin_mesh_wire::{
    Endpoint, Frame, FrameLimit, MeshStream, Peer, RecvHalf, SendHalf, StreamError,
};
use tokio::sync::OwnedSemaphorePermit;

use note::{Part, Said};

use super::{LANE, Mailboxes, stand_back};
use crate::features;
use crate::state::Shared;

/// Larger messages are not posted: those behind them would wait too long.
const POSTED_BYTES_MAX: usize = 16 * 1024;
/// Replies of one note.
const REPLIES_MAX: usize = 64;
/// Bytes that wait for the transport. Whoever would post more has to wait.
const WAITING_BYTES_MAX: usize = 256 * 1024;
/// Pairs of agents that post to each other on one lane.
const PAIRS_MAX: usize = 4096;
/// A lane on which nothing has gone between so many looks is ended.
const IDLE_LOOKS: u32 = 6;
/// A lane that has not come to its end so many looks after it was ended is reset.
const ENDING_LOOKS: u32 = 6;
/// Lanes of one peer that are served at once. It needs one, and a few more while connections or lanes replace others.
const SERVED_MAX: usize = 8;
/// Who has refused a lane is asked for none for so many looks: its mailboxes may have been coming up.
const REFUSED_LOOKS: u32 = 12;
const FRAME_LIMIT: FrameLimit = FrameLimit {
    header_bytes: 8 * 1024,
    payload_bytes: POSTED_BYTES_MAX,
};

/// A stream on which messages are posted to a node; clones share it.
#[derive(Clone)]
pub struct Lane(Arc<Inner>);

struct Inner {
    connection: Peer,
    /// This node has opened it, and so also ends it.
    opened: bool,
    state: Mutex<State>,
}

struct State {
    send: SendHalf,
    /// Messages may be posted.
    open: bool,
    /// The transport takes no more, and the lane's task waits for it.
    blocked: bool,
    /// The last thing was said.
    finishing: bool,
    /// What went wrong while something was written.
    broken: Option<Broken>,
    /// Wakes the lane's task.
    waker: Option<Waker>,
    /// The note that is being made, which keeps its memory.
    note: Vec<u8>,
    /// What has to be said to the peer's messages.
    owed: Vec<Said>,
    posted: Posts,
    idle_looks: u32,
}

/// The messages from one agent to another.
#[derive(Clone, Copy, Default)]
struct Posted {
    /// The highest sequence number.
    through: u64,
    /// All is said to them.
    answered: bool,
}

/// What was posted, so that a peer says something only about what it was sent, and only once.
#[derive(Default)]
struct Posts(BTreeMap<(AgentId, AgentId), Posted>);

impl Posts {
    /// Whether there is room for one more pair.
    fn has_room(&mut self) -> bool {
        if self.0.len() >= PAIRS_MAX {
            self.0.retain(|_, posted| !posted.answered);
        }
        self.0.len() < PAIRS_MAX
    }

    fn note(&mut self, envelope: &Envelope) {
        let pair = (envelope.source, envelope.destination);
        let posted = self.0.entry(pair).or_default();
        posted.through = posted.through.max(envelope.sequence);
        posted.answered = false;
    }

    /// Takes what the peer has said; whether it could.
    fn hear(&mut self, said: &Said) -> bool {
        let pair = (said.source, said.destination);
        let Some(posted) = self.0.get_mut(&pair).filter(|posted| !posted.answered) else {
            return false;
        };
        posted.answered = match said.reply {
            Some(DeliveryReply::Acknowledged { through }) if through > posted.through => {
                return false;
            }
            Some(DeliveryReply::Acknowledged { through }) => through == posted.through,
            // It may have been said several times before they came again.
            Some(DeliveryReply::Gap { .. }) => false,
            // Those behind it come again, whatever is said to them.
            _ => true,
        };
        true
    }

    /// The pairs with messages to which nothing was said.
    fn unanswered(self) -> impl Iterator<Item = (AgentId, AgentId)> {
        let posts = self.0.into_iter();
        posts.filter_map(|(pair, posted)| (!posted.answered).then_some(pair))
    }
}

/// Why a lane was broken off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("malformed notes")]
    Malformed,
    #[error("the peer posts, and does not read what is said to that")]
    Deaf,
    #[error("the peer lets the lane not come to its end")]
    Endless,
}

impl Lane {
    fn new(connection: Peer, opened: bool, send: SendHalf) -> Lane {
        let state = State {
            send,
            open: true,
            blocked: false,
            finishing: false,
            broken: None,
            waker: None,
            note: Vec::new(),
            owed: Vec::new(),
            posted: Posts::default(),
            idle_looks: 0,
        };
        let state = Mutex::new(state);
        Lane(Arc::new(Inner {
            connection,
            opened,
            state,
        }))
    }

    /// Posts what `next` gives, messages of at most [`POSTED_BYTES_MAX`](Self::POSTED_BYTES_MAX), each of a sender on
    /// this node, until it gives none. `false` if the lane takes no more before that: then the rest waits for what is
    /// said to the others, or goes in an exchange.
    pub fn post(&self, mut next: impl FnMut() -> Option<Envelope>) -> bool {
        let mut state = self.lock();
        let done = loop {
            if !state.has_room() {
                break false;
            }
            match next() {
                Some(envelope) => state.put(&envelope),
                None => break true,
            }
        };
        state.write();
        done
    }

    /// The largest payload that is posted, in bytes.
    pub const POSTED_BYTES_MAX: usize = POSTED_BYTES_MAX;

    /// Takes a frame of the peer in; `false` when it posts nothing more.
    fn take_in(&self, mailboxes: &dyn Mailboxes, frame: Frame) -> Result<bool, Broken> {
        let node = self.node();
        let (mut last, mut payload, mut rest) = (false, frame.payload, &frame.header[..]);
        while !rest.is_empty() {
            match note::part(&mut rest).ok_or(Broken::Malformed)? {
                Part::Last => last = true,
                Part::Said(said) if self.lock().posted.hear(&said) => {
                    mailboxes.replied(node, said.source, said.destination, said.reply);
                }
                Part::Said(_) => {}
                Part::Message(message) => {
                    // A copy: the packet around it may be much larger, and the mailbox counts payloads.
                    let payload = Bytes::copy_from_slice(&std::mem::take(&mut payload));
                    let (source, destination) = (message.source, message.destination);
                    let reply = mailboxes.deliver_now(node, Envelope { payload, ..message });
                    self.lock().owe(Said {
                        source,
                        destination,
                        reply,
                    });
                }
            }
        }
        if payload.is_empty() {
            Ok(!last)
        } else {
            Err(Broken::Malformed)
        }
    }

    /// Whether nothing is to be posted on the lane any more: nobody needs it, or its connection is not the one that is
    /// preferred. The node that has opened it says so to the other, which may learn of a better connection first.
    fn is_useless(&self, preferred: Option<&Peer>) -> bool {
        let connection = &self.0.connection;
        let replaced = preferred.is_none_or(|peer| !peer.is_same_connection(connection));
        let mut state = self.lock();
        state.idle_looks += 1;
        let useless = replaced || (self.0.opened && state.idle_looks > IDLE_LOOKS);
        if useless {
            state.open = false;
            if self.0.opened {
                state.say_last();
                state.write();
            }
        }
        useless
    }

    fn node(&self) -> NodeId {
        self.0.connection.node()
    }

    fn is_same(&self, other: &Lane) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let state = self.0.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room(&mut self) -> bool {
        self.open && self.send.fed() < WAITING_BYTES_MAX && self.posted.has_room()
    }

    fn put(&mut self, envelope: &Envelope) {
        self.posted.note(envelope);
        self.note.clear();
        self.note_owed();
        note::put_message(&mut self.note, envelope);
        self.put_frame(&envelope.payload);
    }

    /// Says what is owed.
    fn say(&mut self) {
        if !self.owed.is_empty() {
            self.note.clear();
            self.note_owed();
            self.put_frame(&[]);
        }
    }

    /// Says what is owed, and that nothing is posted any more.
    fn say_last(&mut self) {
        self.note.clear();
        self.note_owed();
        note::put_last(&mut self.note);
        self.put_frame(&[]);
    }

    fn note_owed(&mut self) {
        for said in self.owed.drain(..) {
            note::put_said(&mut self.note, &said);
        }
    }

    fn put_frame(&mut self, payload: &[u8]) {
        self.idle_looks = 0;
        if let Err(error) = self.send.put_frame(&self.note, payload) {
            self.broke(error.into());
        }
    }

    /// Writes what waits. What the transport does not take now, the lane's task writes later.
    fn write(&mut self) {
        if self.blocked || self.broken.is_some() {
            return;
        }
        if self
            .poll_write(&mut Context::from_waker(Waker::noop()))
            .is_pending()
        {
            self.blocked = true;
            self.wake();
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let written = ready!(self.send.poll_flush_frames(cx));
        self.blocked = false;
        if let Err(error) = written {
            self.broke(error.into());
        } else if self.finishing {
            // An error says that it is finished.
            let _ = self.send.finish();
        }
        Poll::Ready(())
    }

    fn broke(&mut self, error: Broken) {
        self.open = false;
        self.broken.get_or_insert(error);
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.blocked && self.broken.is_none() {
            ready!(self.poll_write(cx));
        }
        Poll::Ready(self.broken.take().map_or(Ok(()), Err))
    }

    /// Wakes that task when something is to be done.
    fn wake_with(&mut self, waker: &Waker) {
        if !self
            .waker
            .as_ref()
            .is_some_and(|other| other.will_wake(waker))
        {
            self.waker = Some(waker.clone());
        }
    }

    fn owe(&mut self, said: Said) {
        self.idle_looks = 0;
        let same =
            |owed: &&mut Said| (owed.source, owed.destination) == (said.source, said.destination);
        let supersedes = |owed: &Said| {
            use DeliveryReply::Acknowledged;
            owed.reply == said.reply
                || matches!(
                    (owed.reply, said.reply),
                    (Some(Acknowledged { .. }), Some(Acknowledged { .. }))
                )
        };
        match self.owed.iter_mut().rev().find(same) {
            Some(owed) if supersedes(owed) => *owed = said,
            _ => self.owed.push(said),
        }
        if self.owed.len() >= REPLIES_MAX {
            self.say();
        }
    }
}

/// The task of a lane: takes in what arrives, and writes what could not be written at once.
struct Running {
    shared: Arc<Shared>,
    lane: Lane,
    recv: RecvHalf,
    mailboxes: Arc<dyn Mailboxes>,
}

impl Running {
    /// Begins with a lane that is open.
    fn begin(
        shared: &Arc<Shared>,
        connection: Peer,
        opened: bool,
        stream: MeshStream,
        mailboxes: Arc<dyn Mailboxes>,
    ) -> Running {
        let (send, recv) = stream.split();
        let preferred = shared.endpoint.peer(&connection.node());
        let lane = Lane::new(connection, opened, send);
        let local = &shared.local.id;
        shared.lanes.insert(lane.clone(), local, preferred.as_ref());
        Running {
            shared: Arc::clone(shared),
            lane,
            recv,
            mailboxes,
        }
    }

    async fn run(mut self) {
        if let Err(error) = self.serve().await {
            let from = self.lane.node();
            let looks_left = match error {
                Broken::Stream(StreamError::UnknownProtocol { .. }) => Some(Some(REFUSED_LOOKS)),
                Broken::Endless => Some(None),
                _ => None,
            };
            if let Some(looks_left) = looks_left {
                self.shared.lanes.note_refusal(&self.lane, looks_left);
            }
            tracing::debug!(?from, %error, "a lane is broken off");
        }
    }

    async fn serve(&mut self) -> Result<(), Broken> {
        while poll_fn(|cx| self.poll_more(cx)).await? {
            while let Some(frame) = self.recv.frame_at_hand(FRAME_LIMIT)? {
                if !self.lane.take_in(&*self.mailboxes, frame)? {
                    self.end();
                }
            }
            if !self.lane.lock().owed.is_empty() {
                // Whoever answers a message at once goes first, so that both leave in one packet.
                stand_back().await;
            }
            let mut state = self.lane.lock();
            state.say();
            state.write();
            if state.send.fed() > 2 * WAITING_BYTES_MAX {
                return Err(Broken::Deaf);
            }
        }
        self.end();
        poll_fn(|cx| {
            let mut state = self.lane.lock();
            state.wake_with(cx.waker());
            state.poll_written(cx)
        })
        .await?;
        Ok(())
    }

    /// Posts nothing more, and finishes when everything is said.
    fn end(&self) {
        self.shared.lanes.ends(&self.lane);
        let mut state = self.lane.lock();
        state.open = false;
        state.finishing = true;
        state.say();
        state.write();
    }

    /// Completes when something has arrived; with `false` when nothing will any more.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Broken>> {
        let mut state = self.lane.lock();
        if let Poll::Ready(Err(error)) = state.poll_written(cx) {
            return Poll::Ready(Err(error));
        }
        state.wake_with(cx.waker());
        drop(state);
        self.recv.poll_more(cx).map_err(Broken::Stream)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.lanes.over(&self.lane);
        let posted = {
            let mut state = self.lane.lock();
            state.open = false;
            std::mem::take(&mut state.posted)
        };
        let node = self.lane.node();
        for (source, destination) in posted.unanswered() {
            self.mailboxes.replied(node, source, destination, None);
        }
    }
}

/// The lanes of this node on which messages are posted, by the node at the other end.
#[derive(Default)]
pub(crate) struct Lanes(Mutex<BTreeMap<NodeId, Slot>>);

#[derive(Default)]
struct Slot {
    /// Messages are posted on the last of them; more than one if both nodes have opened one.
    lanes: Vec<Lane>,
    /// Lanes that were ended and have not come to their end, and how often they were looked at since.
    ending: Vec<(Lane, u32)>,
    opening: bool,
    /// Lanes that the peer has opened and that have not come to their end, whether or not messages are posted on them.
    served: usize,
    refused: Option<Refused>,
}

/// The peer did not want a lane on a connection.
struct Refused {
    connection: Peer,
    /// For so many looks more none is opened there; `None` if none ever is, because the peer let one not come to its end.
    looks_left: Option<u32>,
}

impl Slot {
    fn is_empty(&self) -> bool {
        let none = self.lanes.is_empty() && self.ending.is_empty();
        none && !self.opening && self.served == 0 && self.refused.is_none()
    }

    /// Posts no more on lanes that are useless; those that this node has opened end.
    fn leave_useless(&mut self, preferred: Option<&Peer>) {
        let useless = |lane: &mut Lane| lane.is_useless(preferred);
        let left = self.lanes.extract_if(.., useless);
        let ended = left.filter(|lane| lane.0.opened);
        self.ending.extend(ended.map(|lane| (lane, 0)));
    }

    /// Looks once more at the lanes that were ended, and resets those that do not come to their end: the peer does not
    /// read, and each such lane takes one of the places for streams on the connection.
    fn look_at_ending(&mut self) {
        for (lane, looks) in &mut self.ending {
            *looks += 1;
            if *looks > ENDING_LOOKS {
                lane.lock().broke(Broken::Endless);
            }
        }
    }

    /// Whether it is in vain to open a lane on a connection.
    fn refuses(&self, peer: &Peer) -> bool {
        let refused = self.refused.as_ref();
        refused.is_some_and(|refused| refused.connection.is_same_connection(peer))
    }

    /// Looks at a refusal once more, and forgets it if it is old or was made on another connection than this.
    fn look_at_refusal(&mut self, preferred: Option<&Peer>) {
        self.refused = self.refused.take().filter(|refused| {
            let connection = &refused.connection;
            refused.looks_left != Some(0)
                && preferred.is_some_and(|peer| peer.is_same_connection(connection))
        });
        if let Some(Refused {
            looks_left: Some(left),
            ..
        }) = &mut self.refused
        {
            *left -= 1;
        }
    }
}

impl Lanes {
    /// Of the lanes that both nodes have opened, both use the one of the node with the lower id.
    fn insert(&self, lane: Lane, local: &NodeId, preferred: Option<&Peer>) {
        let node = lane.node();
        let mut slots = self.lock();
        let slot = slots.entry(node).or_default();
        slot.opening &= !lane.0.opened;
        slot.lanes.push(lane);
        slot.leave_useless(preferred);
        let lower_is_here = *local < node;
        slot.lanes
            .sort_by_key(|lane| lane.0.opened == lower_is_here);
    }

    /// Nothing is posted on a lane any more, which waits for its end.
    fn ends(&self, lane: &Lane) {
        self.change(&lane.node(), |slot| {
            slot.lanes.retain(|other| !other.is_same(lane));
            if !slot.ending.iter().any(|(other, _)| other.is_same(lane)) {
                slot.ending.push((lane.clone(), 0));
            }
        });
    }

    fn cannot_open(&self, node: &NodeId) {
        self.change(node, |slot| slot.opening = false);
    }

    /// Whether one more lane of a peer is to be served; then it counts until it is [`over`](Self::over).
    fn serves_one_more(&self, node: NodeId) -> bool {
        let mut slots = self.lock();
        let served = &mut slots.entry(node).or_default().served;
        let fits = *served < SERVED_MAX;
        *served += usize::from(fits);
        fits
    }

    /// A lane has come to its end.
    fn over(&self, lane: &Lane) {
        self.change(&lane.node(), |slot| {
            slot.lanes.retain(|other| !other.is_same(lane));
            slot.ending.retain(|(other, _)| !other.is_same(lane));
            slot.served -= usize::from(!lane.0.opened);
        });
    }

    fn change(&self, node: &NodeId, change: impl FnOnce(&mut Slot)) {
        let mut slots = self.lock();
        if let Entry::Occupied(mut slot) = slots.entry(*node) {
            change(slot.get_mut());
            if slot.get().is_empty() {
                slot.remove();
            }
        }
    }

    /// Remembers that the peer does not want a lane that this node has opened.
    fn note_refusal(&self, lane: &Lane, looks_left: Option<u32>) {
        if !lane.0.opened {
            return;
        }
        let connection = lane.0.connection.clone();
        let mut slots = self.lock();
        let refused = &mut slots.entry(lane.node()).or_default().refused;
        let for_good = refused
            .as_ref()
            .is_some_and(|refused| refused.looks_left.is_none());
        if !for_good {
            *refused = Some(Refused {
                connection,
                looks_left,
            });
        }
    }

    /// Leaves the lanes that nobody needs, and those on a connection to which another is preferred.
    pub(super) fn end_useless(&self, endpoint: &Endpoint) {
        for (node, slot) in self.lock().iter_mut() {
            let preferred = endpoint.peer(node);
            slot.look_at_ending();
            slot.leave_useless(preferred.as_ref());
            slot.look_at_refusal(preferred.as_ref());
        }
        self.lock().retain(|_, slot| !slot.is_empty());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lane to a node. If there is none, one is opened where that takes no new connection.
pub(crate) fn lane(shared: &Arc<Shared>, node: &NodeId) -> Option<Lane> {
    let mut slots = shared.lanes.lock();
    let slot = slots.get(node);
    if let Some(slot) = slot
        && (slot.opening || !slot.lanes.is_empty())
    {
        return slot.lanes.last().cloned();
    }
    let mailboxes = shared.mailboxes()?;
    let peer = shared.endpoint.peer(node)?;
    if slot.is_some_and(|slot| slot.refuses(&peer)) {
        return None;
    }
    if !features::serves(&peer, LANE) || shared.is_closing() {
        return None;
    }
    slots.entry(*node).or_default().opening = true;
    drop(slots);
    let shared = Arc::clone(shared);
    let runtime = shared.runtime.clone();
    runtime.spawn(async move {
        match features::open(&peer, LANE).await {
            Ok(stream) => {
                Running::begin(&shared, peer, true, stream, mailboxes)
                    .run()
                    .await
            }
            Err(error) => {
                tracing::debug!(node = ?peer.node(), %error, "no lane can be opened");
                shared.lanes.cannot_open(&peer.node());
            }
        }
    });
    None
}

/// Serves a lane that a peer has opened, in a task that ends with the lane.
pub(crate) fn serve(
    shared: Arc<Shared>,
    connection: Peer,
    stream: MeshStream,
    place: OwnedSemaphorePermit,
) {
    let Some(mailboxes) = shared.mailboxes() else {
        return stream.refuse_protocol();
    };
    if !shared.lanes.serves_one_more(stream.peer()) {
        return stream.refuse_protocol();
    }
    let running = Running::begin(&shared, connection, false, stream, mailboxes);
    shared.runtime.spawn(async move {
        let _place = place;
        running.run().await;
    });
}

#[cfg(test)]
mod tests;

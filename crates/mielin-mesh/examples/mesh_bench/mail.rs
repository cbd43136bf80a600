//! Messages between two agents' mailboxes: from the edge of the outbox that gives them out, over the mesh, into the
//! mailbox on the other node, which says that it has them. What agents do with them is not in it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use mielin_mesh::{BoxFuture, Lane, Mailboxes, MeshConfig, MeshService, Preset};
use mielin_mesh_core::delivery::{DeliveryReply, Envelope, Inbox, MessageKind, Outbox};
use mielin_mesh_core::{AgentId, Epoch, NodeId};
use mielin_mesh_wire::JoinToken;
use tokio::sync::Notify;

use crate::ours;
use crate::work::{Kind, RoundTrips, SMALL_BYTES, Work};

const CLIENT: AgentId = AgentId([1; 16]);
const SERVER: AgentId = AgentId([2; 16]);
const EPOCH: Epoch = Epoch(1);
/// A pause instead of a sleep for ever, when nothing is due.
const IDLE: Duration = Duration::from_secs(3600);
/// How long the two nodes may take to find each other.
const FIND_LIMIT: Duration = Duration::from_secs(60);

/// The mailbox and the outbox of one agent, and the node that it lives on.
pub(crate) struct Post {
    mesh: MeshService,
    partner: AgentId,
    state: Mutex<State>,
    /// There is something to send.
    outgoing: Notify,
    /// Something that was sent is in the other mailbox.
    acknowledged: Notify,
    begun: Instant,
}

struct State {
    outbox: Outbox,
    inbox: Inbox,
    /// The node of the other agent.
    there: Option<NodeId>,
    /// Wakes who waits for something in the mailbox.
    reader: Option<Waker>,
}

impl Mailboxes for Post {
    fn deliver(
        &self,
        from: NodeId,
        _: AgentId,
        envelopes: Vec<Envelope>,
    ) -> BoxFuture<'_, Option<DeliveryReply>> {
        let replies = envelopes
            .into_iter()
            .map(|envelope| self.deliver_now(from, envelope));
        Box::pin(std::future::ready(replies.last().flatten()))
    }

    fn deliver_now(&self, from: NodeId, envelope: Envelope) -> Option<DeliveryReply> {
        let mut state = self.state();
        state.there = Some(from);
        let reply = state.inbox.accept(envelope).reply();
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Some(reply)
    }

    fn replied(&self, node: NodeId, _: AgentId, to: AgentId, reply: Option<DeliveryReply>) {
        let mut state = self.state();
        match reply {
            Some(reply) => drop(state.outbox.handle_reply(self.now(), &to, reply)),
            None => state.outbox.unheard(&to),
        }
        if state.outbox.has_next(&to) {
            let lane = self.mesh.lane(&node);
            self.transmit(&mut state, lane);
        }
        drop(state);
        self.acknowledged.notify_one();
    }
}

/// Joins the mesh and starts the node of an agent: the client's when it is told where the server's is.
pub(crate) async fn start(
    path: &Path,
    founder: &str,
    token: JoinToken,
    server: Option<SocketAddr>,
) -> Result<Arc<Post>> {
    let credentials = ours::become_member(path, founder, token).await?;
    let mut config = MeshConfig::new("127.0.0.1:0".parse()?);
    config.enable_mdns = false;
    config.enable_registry = false;
    config.preset = Preset::Wan;
    let (me, partner) = match server {
        Some(server) => {
            config = config.bootstrap(server);
            (CLIENT, SERVER)
        }
        None => (SERVER, CLIENT),
    };
    let mesh = MeshService::start(config, credentials).await?;
    let post = Arc::new(Post {
        mesh,
        partner,
        state: Mutex::new(State {
            outbox: Outbox::new(me),
            inbox: Inbox::new(me),
            there: None,
            reader: None,
        }),
        outgoing: Notify::new(),
        acknowledged: Notify::new(),
        begun: Instant::now(),
    });
    post.mesh
        .serve_messages(Arc::clone(&post) as Arc<dyn Mailboxes>);
    tokio::spawn(carry(Arc::clone(&post)));
    Ok(post)
}

/// Brings over what cannot be posted, in one exchange after the other.
async fn carry(post: Arc<Post>) {
    loop {
        let (exchange, due) = {
            let mut state = post.state();
            let (now, to) = (post.now(), post.partner);
            let exchange = state
                .there
                .and_then(|there| Some((there, state.outbox.begin_exchange(now, &to)?)));
            (exchange, state.outbox.poll_timeout())
        };
        if let Some((there, batch)) = exchange {
            let said = post.mesh.deliver(&there, &batch).await;
            let (mut state, now) = (post.state(), post.now());
            match said {
                Ok(reply) => drop(state.outbox.handle_reply(now, &post.partner, reply)),
                Err(_) => state.outbox.undeliverable(now, &post.partner),
            }
            state.outbox.end_exchange(&post.partner);
            drop(state);
            post.acknowledged.notify_one();
        } else {
            let due = due.map_or(IDLE, |at| at.since(post.now()));
            let _ = tokio::time::timeout(due, post.outgoing.notified()).await;
        }
    }
}

/// Answers requests, and throws everything else away.
pub(crate) async fn answer(post: Arc<Post>) {
    loop {
        let envelope = post.receive().await;
        if envelope.kind == MessageKind::Request {
            let to_sequence = envelope.sequence;
            post.push(MessageKind::Reply { to_sequence }, envelope.payload)
                .await;
        }
    }
}

/// The client's part of a piece of work.
pub(crate) async fn run(post: &Post, server: NodeId, work: Work) -> Result<RoundTrips> {
    post.state().there = Some(server);
    let mut times = RoundTrips::new();
    let payload = Bytes::from(vec![7; work.item_bytes()]);
    for _ in 0..work.count {
        if work.kind != Kind::RoundTrip {
            post.push(MessageKind::Send, payload.clone()).await;
            continue;
        }
        let begun = Instant::now();
        post.push(MessageKind::Request, payload.clone()).await;
        let answer = post.receive().await;
        ensure!(answer.payload.len() == SMALL_BYTES, "a wrong length");
        times.push(begun.elapsed());
    }
    while !post.state().outbox.is_empty() {
        post.acknowledged.notified().await;
    }
    Ok(times)
}

impl Post {
    /// The node.
    pub(crate) fn node(&self) -> NodeId {
        self.mesh.local().id
    }

    /// Where the node listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.mesh.local().address
    }

    /// Waits until membership knows a node: before that there is no way to it.
    pub(crate) async fn knows(&self, node: &NodeId) -> Result<()> {
        let mut events = self.mesh.subscribe();
        let known = async {
            while !self.mesh.members().iter().any(|m| m.identity.id == *node) {
                let _ = events.recv().await;
            }
        };
        let known = tokio::time::timeout(FIND_LIMIT, known).await;
        known.context("the two nodes do not find each other")
    }

    fn now(&self) -> mielin_mesh_core::Instant {
        mielin_mesh_core::Instant::from_start(self.begun.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn receive(&self) -> Envelope {
        poll_fn(|cx| {
            let mut state = self.state();
            if let Some(envelope) = state.inbox.take() {
                return Poll::Ready(envelope);
            }
            state.reader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Sends, as soon as there is room in the outbox.
    async fn push(&self, kind: MessageKind, payload: Bytes) {
        while !self.state().outbox.can_push(payload.len()) {
            self.acknowledged.notified().await;
        }
        let mut state = self.state();
        let lane = state.there.and_then(|there| self.mesh.lane(&there));
        let pushed = state.outbox.push(EPOCH, self.partner, kind, payload);
        pushed.expect("there is room");
        self.transmit(&mut state, lane);
    }

    /// Posts what can be posted, and leaves the rest to [`carry`].
    fn transmit(&self, state: &mut State, lane: Option<Lane>) {
        let (now, to) = (self.now(), self.partner);
        let outbox = &mut state.outbox;
        let posted = lane
            .is_some_and(|lane| lane.post(|| outbox.poll_post(now, &to, Lane::POSTED_BYTES_MAX)));
        if !posted || outbox.has_next(&to) {
            self.outgoing.notify_one();
        }
    }
}

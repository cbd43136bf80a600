//! Protocol 8: requests that members hand on, for nodes to which there is no way, not even through a relay.
//!
//! A stream carries one message: a frame with its header and, as payload, the length of what it carries (u32, big
//! endian), then a frame with that. It is answered by one frame, when the message has been answered or given up
//! further on. Nothing is read into memory for which there is no room among what this node holds for others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use mielin_mesh_core::limits::PAYLOAD_BYTES_MAX;
use mielin_mesh_core::routing::{
    Arrival, Hop, Neighbour, Passage, RouteRefusal, RoutedAnswer, Step,
};
use mielin_mesh_core::{NodeId, RoutedMessage, Router, codec};
use mielin_mesh_wire::{Ed25519, FrameLimit, MeshStream, Signer, StreamError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::arrivals::handed_on;
use crate::error::MeshError;
use crate::features;
use crate::service::PING;
use crate::serving::RequestHandler;
use crate::state::Shared;

/// Streams that carry one routed message.
pub(crate) const ROUTED: u16 = 8;

/// Largest answer of a routed request; what is large goes over connections.
pub const ROUTED_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// What this node holds of messages on their way, in units of a kilobyte: two of the largest.
const ROOM_KIB: u32 = 2 * 16 * 1024;
/// From the opening of a stream to its message.
const MESSAGE_LIMIT: Duration = Duration::from_secs(10);
/// A destination with which there is no connection is dialled for so long, before others are tried.
const DIAL_LIMIT: Duration = Duration::from_secs(2);

/// This node's part in handing messages on.
pub(crate) struct Routing {
    router: Mutex<Router<Ed25519>>,
    signer: Signer,
    served: RwLock<HashMap<u16, Arc<dyn RequestHandler>>>,
    room: Arc<Semaphore>,
    pub(crate) sent: AtomicU64,
    pub(crate) forwarded: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) refused: AtomicU64,
}

impl Routing {
    /// Numbers of messages begin at the time, so that they are above those of an earlier run.
    pub(crate) fn new(local: NodeId, signer: Signer) -> Routing {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let first_id = since_1970.map_or(0, |since| since.as_micros() as u64);
        Routing {
            router: Mutex::new(Router::new(local, first_id)),
            signer,
            served: RwLock::default(),
            room: Arc::new(Semaphore::new(ROOM_KIB as usize)),
            sent: AtomicU64::new(0),
            forwarded: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    pub(crate) fn serve(&self, protocol: u16, handler: Arc<dyn RequestHandler>) {
        let served = &self.served;
        let mut served = served.write().unwrap_or_else(PoisonError::into_inner);
        served.insert(protocol, handler);
    }

    fn served(&self, protocol: u16) -> Option<Arc<dyn RequestHandler>> {
        if protocol == PING {
            return Some(crate::service::ping_handler());
        }
        let served = &self.served;
        let served = served.read().unwrap_or_else(PoisonError::into_inner);
        served.get(&protocol).cloned()
    }

    fn router(&self) -> MutexGuard<'_, Router<Ed25519>> {
        self.router.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for a message, until the permit is dropped.
    fn take_room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1024).max(1)).ok()?;
        Arc::clone(&self.room).try_acquire_many_owned(kib).ok()
    }
}

/// Sends a request by way of the members; gives the answer and the way that it took.
pub(crate) async fn request(
    shared: &Arc<Shared>,
    node: &NodeId,
    protocol: u16,
    request: Bytes,
    limit: Duration,
) -> Result<(Bytes, Vec<Hop>), MeshError> {
    if request.len() > PAYLOAD_BYTES_MAX {
        return Err(MeshError::Oversized {
            len: request.len(),
            limit: PAYLOAD_BYTES_MAX,
        });
    }
    let routing = &shared.routing;
    let key = routing.signer.public_key();
    let sign = |message: &[u8]| routing.signer.sign(message);
    let message = routing
        .router()
        .originate(shared.now(), *node, (protocol, request), limit, key, sign)
        .map_err(|_| MeshError::System("a signature"))?;
    routing.sent.fetch_add(1, Ordering::Relaxed);
    let (answer, content) = pass(shared, message.clone(), None).await;
    match answer {
        RoutedAnswer::Answered {
            key,
            signature,
            hops,
        } if Router::<Ed25519>::is_answered(&message, &key, &signature, &content) => {
            Ok((content, hops))
        }
        RoutedAnswer::Answered { .. } => Err(MeshError::MalformedResponse(*node)),
        RoutedAnswer::Refused { by, refusal } => Err(MeshError::NotRouted {
            node: *node,
            by,
            refusal,
        }),
    }
}

/// Takes a message that a peer hands over, and answers when it was answered or given up.
pub(crate) async fn serve(shared: Arc<Shared>, mut stream: MeshStream) {
    let from = stream.peer();
    let outcome = match timeout(MESSAGE_LIMIT, receive(&shared, &mut stream)).await {
        Ok(Ok(Some((message, _room)))) => taken(&shared, from, message).await,
        Ok(Ok(None)) => (refusal(&shared, RouteRefusal::Busy), Bytes::new()),
        Ok(Err(error)) => {
            tracing::debug!(?from, %error, "a routed message was not received");
            return stream.abandon();
        }
        Err(_) => return stream.abandon(),
    };
    let (answer, content) = outcome;
    let header = codec::encode(&answer);
    let sent = stream.send_frame_bytes(&header, content).await;
    if let Err(error) = sent.and_then(|()| stream.finish()) {
        tracing::debug!(?from, %error, "the answer to a routed message was not sent");
    }
}

async fn receive(
    shared: &Shared,
    stream: &mut MeshStream,
) -> Result<Option<(RoutedMessage, OwnedSemaphorePermit)>, StreamError> {
    let head = FrameLimit {
        header_bytes: RoutedMessage::HEADER_BYTES_MAX,
        payload_bytes: size_of::<u32>(),
    };
    let head = stream.recv_frame(head).await?;
    let head = head.ok_or(StreamError::Truncated)?;
    let length = <[u8; 4]>::try_from(&head.payload[..]).map_err(|_| StreamError::Truncated)?;
    let payload_bytes = u32::from_be_bytes(length) as usize;
    if payload_bytes > PAYLOAD_BYTES_MAX {
        return Err(StreamError::Oversized {
            len: payload_bytes,
            limit: PAYLOAD_BYTES_MAX,
        });
    }
    let Some(room) = shared.routing.take_room(payload_bytes) else {
        return Ok(None);
    };
    let body = FrameLimit {
        header_bytes: 0,
        payload_bytes,
    };
    let body = stream.recv_frame(body).await?;
    let body = body.ok_or(StreamError::Truncated)?;
    let message = RoutedMessage::decode(&head.header, body.payload);
    let message = message.map_err(|_| StreamError::Truncated)?;
    Ok(Some((message, room)))
}

/// A message that has come in: answers it, or hands it on.
async fn taken(
    shared: &Arc<Shared>,
    from: NodeId,
    message: RoutedMessage,
) -> (RoutedAnswer, Bytes) {
    let arrival = shared.routing.router().receive(shared.now(), &message);
    match arrival {
        Ok(Arrival::Here) => answer(shared, message).await,
        Ok(Arrival::Onward) => {
            shared.routing.forwarded.fetch_add(1, Ordering::Relaxed);
            pass(shared, message, Some(from)).await
        }
        Err(reason) => {
            tracing::debug!(?from, source = ?message.source, %reason, "a routed message was refused");
            (refusal(shared, reason), Bytes::new())
        }
    }
}

async fn answer(shared: &Arc<Shared>, message: RoutedMessage) -> (RoutedAnswer, Bytes) {
    let refused = |reason| (refusal(shared, reason), Bytes::new());
    // The signature shows who the source is; membership, that it is one of us.
    let member = shared.cores().membership.member(&message.source);
    if !member.is_some_and(|member| member.state.is_active()) {
        return refused(RouteRefusal::NotGenuine);
    }
    if handed_on(shared, message.source, message.protocol, &message.payload) {
        return answered(shared, &message, Bytes::new());
    }
    let Some(handler) = shared.routing.served(message.protocol) else {
        return refused(RouteRefusal::Unserved);
    };
    let (source, ttl) = (message.source, message.ttl());
    let request = message.payload.clone();
    // In a task of its own, so that its panic is contained.
    let handling = tokio::spawn(async move { handler.handle(source, request).await });
    match timeout(ttl, handling).await {
        Ok(Ok(Ok(content))) if content.len() <= ROUTED_ANSWER_BYTES_MAX => {
            answered(shared, &message, content)
        }
        Ok(_) => refused(RouteRefusal::Failed),
        Err(_) => refused(RouteRefusal::Expired),
    }
}

fn answered(shared: &Shared, message: &RoutedMessage, content: Bytes) -> (RoutedAnswer, Bytes) {
    let signer = &shared.routing.signer;
    let Ok(signature) = signer.sign(&message.answer_signed(&content)) else {
        return (refusal(shared, RouteRefusal::Failed), Bytes::new());
    };
    shared.routing.delivered.fetch_add(1, Ordering::Relaxed);
    let answer = RoutedAnswer::Answered {
        key: signer.public_key(),
        signature,
        hops: Vec::new(),
    };
    (answer, content)
}

fn refusal(shared: &Shared, refusal: RouteRefusal) -> RoutedAnswer {
    shared.routing.refused.fetch_add(1, Ordering::Relaxed);
    RoutedAnswer::Refused {
        by: shared.local.id,
        refusal,
    }
}

/// Hands a message to one neighbour after the other, until one has an answer.
async fn pass(
    shared: &Arc<Shared>,
    message: RoutedMessage,
    from: Option<NodeId>,
) -> (RoutedAnswer, Bytes) {
    let mut passage = passage(shared, message, from);
    loop {
        let (to, message) = match passage.next(shared.now()) {
            Step::Send(to, message) => (to, message),
            Step::GiveUp { by, refusal } => {
                return (RoutedAnswer::Refused { by, refusal }, Bytes::new());
            }
        };
        let start = Instant::now();
        match timeout(message.ttl(), hand_over(shared, to, message)).await {
            Ok(Ok((RoutedAnswer::Refused { by, refusal }, _))) => passage.refused(by, refusal),
            Ok(Ok((answered, content))) => return (answered.over(to, start.elapsed()), content),
            Ok(Err(error)) => {
                tracing::debug!(?to, %error, "a neighbour did not take a routed message");
                passage.unanswered(to);
            }
            Err(_) => passage.unanswered(to),
        }
    }
}

/// The connected peers, and the destination: a node on the way may be able to dial it. The source was not.
fn passage(shared: &Shared, message: RoutedMessage, from: Option<NodeId>) -> Passage {
    let peers = shared.endpoint.peers().into_iter();
    let peers = peers.filter(|peer| features::serves(peer, ROUTED));
    let connected = peers.map(|peer| Neighbour {
        node: peer.node(),
        rtt: Some(peer.rtt()),
    });
    let is_source = message.source == shared.local.id;
    let dialled = Some(message.destination).filter(|_| !is_source);
    let dialled = dialled.map(|node| Neighbour { node, rtt: None });
    let neighbours: Vec<_> = connected.chain(dialled).collect();
    let router = shared.routing.router();
    router.passage(shared.now(), message, from, neighbours)
}

async fn hand_over(
    shared: &Arc<Shared>,
    to: NodeId,
    message: RoutedMessage,
) -> Result<(RoutedAnswer, Bytes), MeshError> {
    let peer = match shared.endpoint.peer(&to) {
        Some(peer) => peer,
        None => {
            let address = shared.address_of(&to).ok_or(MeshError::UnknownNode(to))?;
            let dial = shared.endpoint.connect(&to, address);
            let (node, limit) = (to, DIAL_LIMIT);
            let dialled = timeout(limit, dial).await;
            dialled.map_err(|_| MeshError::Timeout { node, limit })??
        }
    };
    let mut stream = features::open(&peer, ROUTED).await?;
    let length = (message.payload.len() as u32).to_be_bytes();
    stream.send_frame(&message.header(), &length).await?;
    stream.send_frame_bytes(&[], message.payload).await?;
    stream.finish()?;
    let limit = FrameLimit {
        header_bytes: RoutedAnswer::BYTES_MAX,
        payload_bytes: ROUTED_ANSWER_BYTES_MAX,
    };
    let frame = stream.recv_frame(limit).await?;
    let frame = frame.ok_or(MeshError::MalformedResponse(to))?;
    let answer =
        RoutedAnswer::decode(&frame.header).map_err(|_| MeshError::MalformedResponse(to))?;
    Ok((answer, frame.payload))
}

//! Protocol 10: messages between agents, from the edge of one mailbox to that of another on a different node.
//!
//! An exchange is a frame for each message, header and raw payload, all of one sender to one destination in ascending
//! order, the first header behind a [`Batch`]; and back comes a frame with a [`DeliveryReply`]. A stream has one
//! exchange after the other and rests in between ([`Resting`]), so that a message costs no opening of a stream, and
//! messages to different agents do not wait for each other.
//!
//! To a node to which no connection can be made the same goes as a request that members hand on: each message behind
//! its length (u32, big endian), and the reply as the answer.

mod lane;
mod resting;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use mielin_mesh_core::delivery::{DeliveryReply, Envelope};
use mielin_mesh_core::limits::{DELIVERY_WINDOW_BYTES, DELIVERY_WINDOW_COUNT, PAYLOAD_BYTES_MAX};
use mielin_mesh_core::{AgentId, NodeId, codec};
use mielin_mesh_wire::{FrameHead, FrameLimit, MeshStream, Peer, StreamError};
use oxicode::{Decode, Encode};
use tokio::time::timeout;

use crate::error::MeshError;
use crate::reach::is_unreached;
use crate::room::ROOM_BYTES;
use crate::routed;
use crate::service::open_on;
use crate::serving::{BoxFuture, Refusal, RequestHandler, request_handler};
use crate::state::Shared;
pub use lane::Lane;
pub(crate) use lane::{Lanes, lane, serve as serve_lane};
pub(crate) use resting::{Resting, rest_no_longer};

/// Streams of messages; also what is handed on by members.
pub(crate) const MESSAGES: u16 = 10;

/// Lanes of messages that are posted.
pub(crate) const LANE: u16 = 11;

/// How long an exchange may take beside the time for its bytes ([`time_for`]).
const EXCHANGE_LIMIT: Duration = Duration::from_secs(10);
/// How long a mailbox may take; less than its sender waits.
const DELIVER_LIMIT: Duration = Duration::from_secs(6);
/// The slowest link over which a message arrives.
const BYTES_PER_SECOND_MIN: usize = 64 * 1024;
/// Tasks through which an answer goes before it is written: its writer's and the courier's.
const ANSWERING_TASKS: usize = 2;
/// Header bytes of one message; it holds ids and numbers.
const HEADER_BYTES_MAX: u16 = 1024;
const LENGTH_BYTES: usize = 4;
/// The code with which malformed messages are refused.
const MALFORMED: u16 = 100;
/// What one exchange carries at most: the window, and one message of any size in it.
const BATCH_BYTES_MAX: usize = DELIVERY_WINDOW_BYTES + PAYLOAD_BYTES_MAX;
/// An exchange of no more than this takes no room: as many as a peer may have served hold 16 MiB.
const SMALL_BYTES: usize = 64 * 1024;
const _: () = assert!(BATCH_BYTES_MAX <= ROOM_BYTES);

/// Where the messages of other nodes go.
pub trait Mailboxes: Send + Sync + 'static {
    /// Puts messages that `from` has sent, all of one sender to `to` and in ascending order, into a mailbox. Their
    /// sender is what `from` says it is. It may wait some seconds for an agent that is just being handed over. `None`
    /// says nothing to the sender, as if this node were not there.
    fn deliver(
        &self,
        from: NodeId,
        to: AgentId,
        envelopes: Vec<Envelope>,
    ) -> BoxFuture<'_, Option<DeliveryReply>>;

    /// Puts a message that `from` has posted into a mailbox, and says at once what its sender is told. `None` if that
    /// takes time: the message then comes again in an exchange.
    fn deliver_now(&self, from: NodeId, envelope: Envelope) -> Option<DeliveryReply>;

    /// Takes what `node` has said to messages that were posted to it; `None` if they have to go in an exchange.
    fn replied(
        &self,
        node: NodeId,
        source: AgentId,
        destination: AgentId,
        reply: Option<DeliveryReply>,
    );
}

/// Announces the messages of an exchange.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
struct Batch {
    count: u8,
    /// Bytes of all payloads.
    bytes: u32,
}

impl Batch {
    fn of(envelopes: &[Envelope]) -> Option<Batch> {
        let bytes = envelopes.iter().map(|envelope| envelope.payload.len());
        let (count, bytes) = (envelopes.len(), bytes.sum::<usize>());
        let fits = (1..=DELIVERY_WINDOW_COUNT).contains(&count) && bytes <= BATCH_BYTES_MAX;
        fits.then_some(Batch {
            count: count as u8,
            bytes: bytes as u32,
        })
    }

    /// What a peer has announced, unless nobody may send so much, and the rest of the header.
    fn decode(header: &Bytes) -> Option<(Batch, Bytes)> {
        let (batch, rest) = codec::decode_prefix::<Batch>(header).ok()?;
        let count = usize::from(batch.count);
        let fits = (1..=DELIVERY_WINDOW_COUNT).contains(&count);
        let fits = fits && batch.bytes as usize <= BATCH_BYTES_MAX;
        fits.then(|| (batch, header.slice_ref(rest)))
    }

    fn limit(&self) -> Duration {
        time_for(self.bytes as usize)
    }
}

/// How long so many bytes may take to arrive.
pub(crate) fn time_for(bytes: usize) -> Duration {
    EXCHANGE_LIMIT + Duration::from_secs((bytes / BYTES_PER_SECOND_MIN) as u64)
}

/// Brings messages of one sender to one destination at `node`, and gives what was said there.
pub(crate) async fn deliver(
    shared: &Arc<Shared>,
    node: &NodeId,
    envelopes: &[Envelope],
) -> Result<DeliveryReply, MeshError> {
    let batch = Batch::of(envelopes).ok_or(MeshError::Oversized {
        len: envelopes.iter().map(|e| e.payload.len()).sum(),
        limit: BATCH_BYTES_MAX,
    })?;
    let rested = shared.resting.take(node);
    if rested.is_none() && is_unreached(shared, node) {
        // Membership goes on looking for a way; messages need not wait for that.
        let (request, limit) = (join(envelopes), batch.limit());
        match routed::request(shared, node, MESSAGES, request, limit).await {
            Ok((answer, _)) => {
                let malformed = |_| MeshError::MalformedResponse(*node);
                return codec::decode(&answer).map_err(malformed);
            }
            Err(error) => tracing::debug!(?node, %error, "messages were not handed on"),
        }
    }
    let limit = batch.limit();
    let exchange = async {
        if let Some(rested) = rested {
            match exchange(shared, rested, &batch, envelopes).await {
                // The other side may have ended it while it rested.
                Err(MeshError::Stream(error)) => {
                    tracing::debug!(?node, %error, "a stream is of no use after its rest");
                }
                said => return said,
            }
        }
        let fresh = open_on(shared, node, MESSAGES).await?;
        exchange(shared, fresh, &batch, envelopes).await
    };
    timeout(limit, exchange)
        .await
        .map_err(|_| MeshError::Timeout { node: *node, limit })?
}

async fn exchange(
    shared: &Shared,
    (peer, mut stream): (Peer, MeshStream),
    batch: &Batch,
    envelopes: &[Envelope],
) -> Result<DeliveryReply, MeshError> {
    let node = peer.node();
    let mut start = codec::encode(batch);
    for envelope in envelopes {
        start.extend_from_slice(&envelope.header());
        let payload = envelope.payload.clone();
        stream.feed_frame_bytes(&start, payload).await?;
        start.clear();
    }
    stream.flush_frames().await?;
    let frame = stream.recv_frame(FrameLimit::payload(0)).await?;
    let frame = frame.ok_or(MeshError::MalformedResponse(node))?;
    let reply = codec::decode(&frame.header).map_err(|_| MeshError::MalformedResponse(node))?;
    shared.resting.put(peer, stream);
    Ok(reply)
}

/// Serves a stream: one exchange after the other, until the peer ends it.
pub(crate) async fn serve(shared: Arc<Shared>, mut stream: MeshStream) {
    let from = stream.peer();
    let Some(mailboxes) = shared.mailboxes() else {
        return stream.refuse_protocol();
    };
    loop {
        match serve_one(&shared, &*mailboxes, &mut stream).await {
            Ok(true) => {}
            Ok(false) => {
                let _ = stream.finish();
                return;
            }
            Err(error) => {
                tracing::debug!(?from, %error, "messages were not received");
                return stream.abandon();
            }
        }
    }
}

/// Why an exchange was broken off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("malformed messages")]
    Malformed,
    #[error("the messages did not arrive in time")]
    Slow,
    #[error("nobody takes messages in here")]
    Silent,
}

/// Serves an exchange; `false` when the peer has ended the stream instead.
async fn serve_one(
    shared: &Shared,
    mailboxes: &dyn Mailboxes,
    stream: &mut MeshStream,
) -> Result<bool, Broken> {
    let from = stream.peer();
    let Some(first) = stream.recv_head(frame_limit(BATCH_BYTES_MAX)).await? else {
        return Ok(false);
    };
    let (batch, header) = Batch::decode(&first.header).ok_or(Broken::Malformed)?;
    let first = FrameHead { header, ..first };
    // For all of them at once: whoever had to wait for more in between could wait for itself.
    let receiving = async {
        let room = match batch.bytes as usize {
            0..=SMALL_BYTES => None,
            bytes => shared.rooms.take(from, bytes).await,
        };
        let envelopes = receive(&batch, first, stream).await?;
        Ok::<_, Broken>((envelopes, room))
    };
    let received = timeout(batch.limit(), receiving).await;
    let (envelopes, _room) = received.map_err(|_| Broken::Slow)??;
    let to = envelopes.first().ok_or(Broken::Malformed)?.destination;
    // The sender waits no longer than for so many bytes; that it should try again is said before.
    let reply = match timeout(DELIVER_LIMIT, mailboxes.deliver(from, to, envelopes)).await {
        Ok(reply) => reply.ok_or(Broken::Silent)?,
        Err(_) => DeliveryReply::Busy,
    };
    // Whoever answers the message at once goes first, so that both leave in one packet.
    for _ in 0..ANSWERING_TASKS {
        stand_back().await;
    }
    stream.send_frame(&codec::encode(&reply), &[]).await?;
    Ok(true)
}

/// Lets the tasks run that are ready, and no others: unlike tokio's `yield_now`, which waits for the network too.
async fn stand_back() {
    let mut stood = false;
    poll_fn(|context| {
        if std::mem::replace(&mut stood, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn receive(
    batch: &Batch,
    first: FrameHead,
    stream: &mut MeshStream,
) -> Result<Vec<Envelope>, Broken> {
    let mut left = batch.bytes as usize;
    let mut messages = Messages::default();
    let mut head = first;
    loop {
        left = left
            .checked_sub(head.payload_len)
            .ok_or(Broken::Malformed)?;
        let payload = stream.recv_payload(&head).await?;
        let message = Envelope::decode(&head.header).map_err(|_| Broken::Malformed)?;
        let taken = messages.add(Envelope { payload, ..message });
        taken.ok_or(Broken::Malformed)?;
        if messages.envelopes.len() == usize::from(batch.count) {
            return Ok(messages.envelopes);
        }
        let next = stream.recv_head(frame_limit(left)).await?;
        head = next.ok_or(Broken::Malformed)?;
    }
}

const fn frame_limit(payload_bytes: usize) -> FrameLimit {
    FrameLimit {
        header_bytes: HEADER_BYTES_MAX,
        payload_bytes,
    }
}

/// As many messages as one request holds, from the first on. The reply says how far it came.
fn join(envelopes: &[Envelope]) -> Bytes {
    let mut request = BytesMut::new();
    for envelope in envelopes {
        let message = envelope.encode();
        if request.len() + LENGTH_BYTES + message.len() > PAYLOAD_BYTES_MAX {
            break;
        }
        request.put_u32(message.len() as u32);
        request.put_slice(&message);
    }
    request.freeze()
}

/// The messages of one request; `None` if they are malformed or more than a sender may have in flight.
fn split(mut request: Bytes) -> Option<Vec<Envelope>> {
    let mut messages = Messages::default();
    while !request.is_empty() {
        let len = request.try_get_u32().ok()? as usize;
        if len > request.len() {
            return None;
        }
        messages.add(Envelope::decode(&request.split_to(len)).ok()?)?;
    }
    Some(messages.envelopes)
}

/// Serves messages that members have handed on.
pub(crate) fn handed_on_handler(mailboxes: Arc<dyn Mailboxes>) -> Arc<dyn RequestHandler> {
    request_handler(move |from, request| {
        let mailboxes = Arc::clone(&mailboxes);
        async move {
            let malformed = || Refusal::new(MALFORMED, "the messages are malformed");
            let received = split(request).ok_or_else(malformed)?;
            let to = received.first().ok_or_else(malformed)?.destination;
            let reply = mailboxes.deliver(from, to, received).await;
            let silent = || Refusal::new(Refusal::NOT_HERE, "the node is stopping");
            let reply = reply.ok_or_else(silent)?;
            Ok(codec::encode(&reply).into())
        }
    })
}

/// Messages of one sender to one destination, no more than may be in flight.
#[derive(Default)]
struct Messages {
    envelopes: Vec<Envelope>,
    bytes: usize,
}

impl Messages {
    fn add(&mut self, envelope: Envelope) -> Option<()> {
        // One message of any size may fly; beyond that the window holds.
        if self.envelopes.len() == DELIVERY_WINDOW_COUNT || self.bytes > DELIVERY_WINDOW_BYTES {
            return None;
        }
        let ends = |envelope: &Envelope| (envelope.source, envelope.destination);
        let first = self.envelopes.first();
        if first.is_some_and(|first| ends(first) != ends(&envelope)) {
            return None;
        }
        self.bytes += envelope.payload.len();
        self.envelopes.push(envelope);
        Some(())
    }
}

#[cfg(test)]
mod tests;

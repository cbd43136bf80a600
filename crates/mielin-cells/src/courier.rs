//! Protocol 100: carries messages from outboxes to mailboxes, on this node and on others.
//!
//! A stream of this protocol has one frame for each message, header and raw payload, all of one sender to one
//! destination in ascending order, and is answered by one frame with a [`DeliveryReply`].
//!
//! To a node to which no connection can be made the same goes as a request that members hand on: each message behind
//! its length (u32, big endian), and the reply as the answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use mielin_mesh::{FrameLimit, MeshStream, Refusal};
use mielin_mesh_core::delivery::{Advice, DeliveryReply, Envelope};
use mielin_mesh_core::limits::{DELIVERY_WINDOW_BYTES, DELIVERY_WINDOW_COUNT, PAYLOAD_BYTES_MAX};
use mielin_mesh_core::{AgentId, NodeId, codec};
use tokio::task::JoinSet;

use crate::node::{Node, Route};
use crate::post::Post;
use crate::wire;

/// How long one stream may take, from its opening to the answer.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long messages wait at a mailbox whose agent is being handed over, before their sender is told to wait itself.
const HAND_OVER: Duration = Duration::from_secs(2);
/// Header bytes of one message; it holds ids and numbers.
const HEADER_BYTES_MAX: u16 = 1024;
const LENGTH_BYTES: usize = 4;
/// The code with which malformed messages are refused.
const MALFORMED: u16 = 100;
/// A pause instead of a sleep for ever, when nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// Empties one outbox until its agent is gone from this node. One stream per destination is under way at a time, so
/// that nothing overtakes.
pub(crate) async fn run(node: Arc<Node>, post: Arc<Post>) {
    // By sequence: what is repeated while a stream is under way takes the place of what it repeats.
    let mut waiting: HashMap<AgentId, BTreeMap<u64, Envelope>> = HashMap::new();
    let mut flights: JoinSet<(AgentId, Option<DeliveryReply>)> = JoinSet::new();
    let mut flying: Vec<AgentId> = Vec::new();
    while !post.is_done() {
        while let Some(envelope) = post.poll_transmit(node.now()) {
            waiting
                .entry(envelope.destination)
                .or_default()
                .insert(envelope.sequence, envelope);
        }
        let ready: Vec<AgentId> = waiting
            .keys()
            .filter(|to| !flying.contains(to))
            .copied()
            .collect();
        for to in ready {
            let Some(envelopes) = waiting.remove(&to) else {
                continue;
            };
            let envelopes = envelopes.into_values().collect();
            flying.push(to);
            let node = Arc::clone(&node);
            flights.spawn(async move { (to, carry(&node, to, envelopes).await) });
        }
        let due = post.poll_timeout().map_or(IDLE, |at| at.since(node.now()));
        tokio::select! {
            () = post.outgoing.notified() => {}
            () = tokio::time::sleep(due) => {}
            Some(landed) = flights.join_next() => {
                let Ok((to, reply)) = landed else {
                    // Only a panic in `carry` comes here; every flight is abandoned and its messages come again.
                    flights.abort_all();
                    flying.clear();
                    continue;
                };
                flying.retain(|flying| *flying != to);
                if let (Some(DeliveryReply::Acknowledged { through }), Some(waiting)) = (reply, waiting.get_mut(&to)) {
                    waiting.retain(|sequence, _| *sequence > through);
                } else {
                    // Whatever else was said, the outbox decides anew what to transmit.
                    waiting.remove(&to);
                }
                waiting.retain(|_, envelopes| !envelopes.is_empty());
                land(&node, &post, &to, reply);
            }
        }
    }
}

fn land(node: &Node, post: &Post, to: &AgentId, reply: Option<DeliveryReply>) {
    let Some(reply) = reply else {
        post.undeliverable(node.now(), to);
        return;
    };
    match post.handle_reply(node.now(), to, reply) {
        Advice::Redirect { node: new, epoch } => {
            if node.hear_of(*to, new, epoch.0) {
                post.relocated(to);
            }
        }
        Advice::Dropped { count } => {
            tracing::info!(agent = %to, count, "messages to an ended agent were dropped")
        }
        Advice::Continue | Advice::LookUp => {}
    }
}

/// Brings messages to wherever the destination is; `None` if nobody answered. Where nobody has it, the mesh is asked
/// for the next attempt.
async fn carry(node: &Arc<Node>, to: AgentId, envelopes: Vec<Envelope>) -> Option<DeliveryReply> {
    let reply = attempt(node, to, envelopes).await;
    if matches!(reply, None | Some(DeliveryReply::Unknown)) {
        node.sought(&to).await;
    }
    reply
}

async fn attempt(node: &Arc<Node>, to: AgentId, envelopes: Vec<Envelope>) -> Option<DeliveryReply> {
    match node.route(&to) {
        Route::Local => Some(deliver(node, to, envelopes).await),
        Route::Remote(peer) => {
            match tokio::time::timeout(DELIVERY_TIMEOUT, transmit(node, &peer, envelopes)).await {
                Ok(Ok(reply)) => Some(reply),
                Ok(Err(error)) => {
                    tracing::debug!(agent = %to, node = %peer, %error, "messages could not be delivered");
                    None
                }
                Err(_) => None,
            }
        }
        Route::None => None,
    }
}

async fn transmit(
    node: &Node,
    peer: &NodeId,
    envelopes: Vec<Envelope>,
) -> Result<DeliveryReply, Box<dyn std::error::Error + Send + Sync>> {
    if node.mesh.is_unreached(peer) {
        // Membership goes on looking for a way; messages need not wait for that.
        let request = join(&envelopes);
        let routed = node
            .mesh
            .request_routed(peer, wire::DELIVERY, request, DELIVERY_TIMEOUT);
        match routed.await {
            Ok((answer, _)) => return Ok(codec::decode(&answer)?),
            Err(error) => tracing::debug!(node = %peer, %error, "messages were not handed on"),
        }
    }
    let mut stream = node.mesh.open_stream(peer, wire::DELIVERY).await?;
    for envelope in envelopes {
        stream
            .feed_frame_bytes(&envelope.header(), envelope.payload)
            .await?;
    }
    stream.flush_frames().await?;
    stream.finish()?;
    let frame = stream
        .recv_frame(FrameLimit::payload(0))
        .await?
        .ok_or("no answer")?;
    Ok(codec::decode(&frame.header)?)
}

/// Serves one stream of messages from another node.
pub(crate) async fn serve(node: Arc<Node>, from: NodeId, mut stream: MeshStream) {
    let received = match tokio::time::timeout(DELIVERY_TIMEOUT, receive(&mut stream)).await {
        Ok(Some(received)) => received,
        Ok(None) => {
            tracing::warn!(node = %from, "messages arrived that are malformed");
            return stream.abandon();
        }
        Err(_) => return,
    };
    let Some(to) = received.first().map(|envelope| envelope.destination) else {
        return;
    };
    let reply = deliver(&node, to, received).await;
    if stream.send_frame(&codec::encode(&reply), &[]).await.is_ok() {
        let (mut send, _recv) = stream.split();
        if send.finish().is_ok() {
            let _ = tokio::time::timeout(DELIVERY_TIMEOUT, send.delivered()).await;
        }
    }
}

/// Puts messages into a mailbox; waits a little for one whose agent is just being handed over.
async fn deliver(node: &Arc<Node>, to: AgentId, envelopes: Vec<Envelope>) -> DeliveryReply {
    let deadline = tokio::time::Instant::now() + HAND_OVER;
    let mut handed_over = node.watch_moves();
    loop {
        handed_over.borrow_and_update();
        let reply = node.deliver(to, envelopes.clone());
        if reply != DeliveryReply::Busy
            || !matches!(
                tokio::time::timeout_at(deadline, handed_over.changed()).await,
                Ok(Ok(()))
            )
        {
            return reply;
        }
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
    let mut batch = Batch::default();
    while !request.is_empty() {
        let len = request.try_get_u32().ok()? as usize;
        if len > request.len() {
            return None;
        }
        batch.add(Envelope::decode(&request.split_to(len)).ok()?)?;
    }
    Some(batch.envelopes)
}

/// Serves messages that members have handed on.
pub(crate) async fn serve_routed(node: Arc<Node>, request: Bytes) -> Result<Bytes, Refusal> {
    let malformed = || Refusal::new(MALFORMED, "the messages are malformed");
    let received = split(request).ok_or_else(malformed)?;
    let first = received.first().ok_or_else(malformed)?;
    let reply = deliver(&node, first.destination, received).await;
    Ok(codec::encode(&reply).into())
}

/// The messages of one stream; `None` if they are malformed or more than a sender may have in flight.
async fn receive(stream: &mut MeshStream) -> Option<Vec<Envelope>> {
    let limit = FrameLimit {
        header_bytes: HEADER_BYTES_MAX,
        payload_bytes: PAYLOAD_BYTES_MAX,
    };
    let mut batch = Batch::default();
    while let Some(frame) = stream.recv_frame(limit).await.ok()? {
        batch.add(Envelope {
            payload: frame.payload,
            ..Envelope::decode(&Bytes::clone(&frame.header)).ok()?
        })?;
    }
    Some(batch.envelopes)
}

/// Messages of one sender to one destination, no more than may be in flight.
#[derive(Default)]
struct Batch {
    envelopes: Vec<Envelope>,
    bytes: usize,
}

impl Batch {
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

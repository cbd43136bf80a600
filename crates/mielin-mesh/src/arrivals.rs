//! What arrives from the peers: connections, datagrams, streams, requests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mielin_mesh_core::kademlia::DhtError;
use mielin_mesh_core::limits::{
    MEMBERSHIP_DATAGRAM_BYTES_MAX, PAYLOAD_BYTES_MAX, REVOCATION_MESSAGE_BYTES_MAX,
};
use mielin_mesh_core::{NodeId, codec};

use mielin_mesh_wire::{
    FrameLimit, Incoming, MeshStream, Peer, StreamError, WireEvent, revocation_said, says_revoked,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::certificates::{RENEWAL, renewal_handler};
use crate::copied;
use crate::courier::{MEMBERSHIP, TABLE};
use crate::directory::{AGENTS, agents_handler};
use crate::error::MeshError;
use crate::event::MeshEvent;
use crate::messages::{self, LANE, MESSAGES, time_for};
use crate::relay::{self, CIRCUIT};
use crate::revoking::{self, REVOCATION};
use crate::routed::{self, ROUTED};
use crate::service::{PING, ping_handler};
use crate::serving::{Refusal, RequestHandler, Response, Served};
use crate::state::Shared;

/// From the opening of one of the mesh's own streams to its frame.
const FRAME_LIMIT: Duration = Duration::from_secs(10);
/// Largest message of the table that is looked at: 20 nodes and 16 records are about 12 KB.
const TABLE_BYTES_MAX: usize = 64 * 1024;

/// Takes the endpoint's events until the service ends.
pub(crate) async fn take(shared: Arc<Shared>, mut arriving: mpsc::Receiver<WireEvent>) {
    while let Some(event) = arriving.recv().await {
        match event {
            WireEvent::Connected(peer) => connected(&shared, &peer),
            WireEvent::Released { node } => {
                tracing::debug!(?node, "a connection that nobody used was closed");
            }
            WireEvent::Lost { node, reason } => {
                tracing::debug!(?node, %reason, "the connection to a peer is gone");
                if let Some(signed) = revocation_said(&reason) {
                    revoking::said_of_this_node(&shared, *signed);
                } else if says_revoked(&reason) {
                    tracing::warn!(node = %node.short(), "a member says that this node was revoked, and does not show it");
                }
                if shared.endpoint.peer(&node).is_some() {
                    // A new one came up in the same moment.
                    continue;
                }
                shared.with_cores(|cores, now| cores.membership.connection_lost(now, &node));
                let _ = shared.events.send(MeshEvent::PeerConnectionLost(node));
            }
            WireEvent::SaidRevoked(signed) => revoking::said_of_this_node(&shared, *signed),
            WireEvent::Copy { address, elder } => copied::found(&shared, address, elder),
            WireEvent::Datagram { from, bytes } => membership(&shared, from, &bytes),
            WireEvent::Stream(incoming) => {
                shared.spawn(serve(Arc::clone(&shared), *incoming));
            }
        }
    }
}

fn connected(shared: &Arc<Shared>, peer: &Peer) {
    tracing::debug!(node = ?peer.node(), "connected");
    shared.with_cores(|cores, _| cores.revocations.connected(peer.node()));
    if !peer.is_issuer() {
        return;
    }
    let mut cores = shared.cores();
    cores.issuer = Some(peer.node());
    let address = cores
        .membership
        .member(&peer.node())
        .map(|member| member.identity.address);
    drop(cores);
    if address.is_some() {
        shared.endpoint.issuer_is_at(address);
    }
    shared.issuer_connected.notify_one();
}

fn membership(shared: &Arc<Shared>, from: NodeId, bytes: &[u8]) {
    if !shared.config.enable_gossip {
        return;
    }
    let taken = shared.with_cores(|cores, now| cores.membership.handle_datagram(now, from, bytes));
    if let Err(error) = taken {
        tracing::warn!(from = %from.short(), %error, "a membership message was refused");
    }
}

async fn serve(shared: Arc<Shared>, incoming: Incoming) {
    let Incoming {
        stream,
        connection,
        place,
    } = incoming;
    match stream.protocol() {
        MEMBERSHIP => {
            take_in(stream, MEMBERSHIP_DATAGRAM_BYTES_MAX, |from, bytes| {
                membership(&shared, from, bytes);
            })
            .await;
        }
        TABLE => {
            take_in(stream, TABLE_BYTES_MAX, |from, bytes| {
                table(&shared, from, bytes);
            })
            .await;
        }
        REVOCATION => {
            take_in(stream, REVOCATION_MESSAGE_BYTES_MAX, |from, bytes| {
                revoking::take_in(&shared, from, bytes);
            })
            .await;
        }
        CIRCUIT => {
            let _place = place;
            relay::serve(shared, stream).await;
        }
        ROUTED => {
            let _place = place;
            routed::serve(shared, stream).await;
        }
        MESSAGES => {
            let _place = place;
            messages::serve(shared, stream).await;
        }
        LANE => messages::serve_lane(shared, connection, stream, place),
        PING => answer(&shared, stream, ping_handler(), place).await,
        AGENTS => {
            answer(
                &shared,
                stream,
                agents_handler(Arc::downgrade(&shared)),
                place,
            )
            .await
        }
        RENEWAL => {
            let issue = renewal_handler(Arc::downgrade(&shared));
            answer(&shared, stream, issue, place).await;
        }
        protocol => match shared.served(protocol) {
            Some(Served::Requests(handler)) => answer(&shared, stream, handler, place).await,
            Some(Served::Streams(handler)) => {
                let from = stream.peer();
                let _place = place;
                let task = run(async move { handler.handle(from, stream).await });
                if let Err(error) = task.ended().await {
                    tracing::error!(from = %from.short(), protocol, %error, "a stream handler panicked");
                }
            }
            None => stream.refuse_protocol(),
        },
    }
}

/// Takes in a parcel that members have handed on; whether it was one.
pub(crate) fn handed_on(shared: &Arc<Shared>, from: NodeId, protocol: u16, bytes: &[u8]) -> bool {
    if protocol != TABLE || bytes.len() > TABLE_BYTES_MAX {
        return false;
    }
    table(shared, from, bytes);
    true
}

fn table(shared: &Arc<Shared>, from: NodeId, bytes: &[u8]) {
    if !shared.config.enable_registry {
        return;
    }
    let taken = shared.with_cores(|cores, now| cores.table.handle_message(now, from, bytes));
    match taken {
        Ok(()) => {}
        // Late answers are ordinary.
        Err(DhtError::Unasked) => tracing::debug!(?from, "an answer that nobody waits for"),
        Err(error) => {
            tracing::warn!(from = %from.short(), %error, "a message of the table was refused")
        }
    }
}

/// Reads a stream that carries one frame. The end of the other direction tells
/// the peer, which may be about to go, that the frame was taken in.
async fn take_in(stream: MeshStream, limit: usize, take: impl FnOnce(NodeId, &[u8])) {
    let from = stream.peer();
    let (mut send, mut recv) = stream.split();
    let limit = FrameLimit {
        header_bytes: 0,
        payload_bytes: limit,
    };
    if let Ok(Ok(Some(frame))) = timeout(FRAME_LIMIT, recv.recv_frame(limit)).await {
        take(from, &frame.payload);
        // An error says that the peer has gone already.
        let _ = send.finish();
    }
}

/// Reads one request, has it handled and sends the response.
async fn answer(
    shared: &Shared,
    stream: MeshStream,
    handler: Arc<dyn RequestHandler>,
    place: OwnedSemaphorePermit,
) {
    let (from, protocol) = (stream.peer(), stream.protocol());
    let (mut send, mut recv) = stream.split();
    let limit = FrameLimit {
        header_bytes: 0,
        payload_bytes: PAYLOAD_BYTES_MAX,
    };
    let request = async {
        let slow = |limit| MeshError::Timeout { node: from, limit };
        let head = timeout(FRAME_LIMIT, recv.recv_head(limit)).await;
        let Some(head) = head.map_err(|_| slow(FRAME_LIMIT))?? else {
            return Ok(None);
        };
        let room = shared.rooms.take(from, head.payload_len).await;
        let limit = time_for(head.payload_len);
        let payload = timeout(limit, recv.recv_payload(&head)).await;
        let payload = payload.map_err(|_| slow(limit))??;
        Ok::<_, MeshError>(Some((payload, room)))
    };
    let (request, _room) = match request.await {
        Ok(Some(request)) => request,
        Ok(None) => return,
        Err(error) => {
            tracing::debug!(?from, protocol, %error, "a request was not received");
            return;
        }
    };
    let task = run(async move { handler.handle(from, request).await });
    let outcome = tokio::select! {
        outcome = task.ended() => outcome,
        // The peer no longer wants the answer; dropping the task ends it.
        _ = send.delivered() => return,
    };
    let outcome = outcome.unwrap_or_else(|error| {
        tracing::error!(from = %from.short(), protocol, %error, "a request handler panicked");
        Err(Refusal::new(Refusal::INTERNAL, "the handler failed"))
    });
    let (header, payload) = match outcome {
        Ok(payload) if payload.len() <= PAYLOAD_BYTES_MAX => (Response::Done, payload),
        Ok(payload) => {
            tracing::error!(protocol, len = payload.len(), "a response is too large");
            let message = "the response is above the limit".to_owned();
            (
                Response::Refused {
                    code: Refusal::INTERNAL,
                    message,
                },
                Bytes::new(),
            )
        }
        Err(Refusal { code, message }) => (Response::Refused { code, message }, Bytes::new()),
    };
    let sent: Result<(), StreamError> = async {
        send.send_frame_bytes(&codec::encode(&header), payload)
            .await?;
        send.finish()
    }
    .await;
    if let Err(error) = sent {
        tracing::debug!(?from, protocol, %error, "a response was not sent");
    }
    drop(place);
}

/// A handler in a task of its own, so that its panic is contained, which ends
/// when this is dropped.
struct Running<T>(JoinHandle<T>);

fn run<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Running<T> {
    Running(tokio::spawn(work))
}

impl<T> Running<T> {
    async fn ended(mut self) -> Result<T, tokio::task::JoinError> {
        (&mut self.0).await
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

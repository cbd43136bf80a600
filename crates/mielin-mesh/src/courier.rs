//! Carries the cores' transmissions to their destinations.
//!
//! A datagram to a connected peer leaves at once. Everything else waits in a
//! short queue per destination, whose courier connects first; when the queue is
//! full, or the peer cannot be reached, transmissions are dropped. The cores
//! expect that of a network.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mielin_mesh_core::NodeId;
use mielin_mesh_wire::{FrameLimit, MeshStream, Peer, StreamError};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::error::MeshError;
use crate::features;
use crate::reach::reach;
use crate::revoking::REVOCATION;
use crate::routed;
use crate::state::Shared;

/// Streams that carry one membership datagram which did not fit the path.
pub(crate) const MEMBERSHIP: u16 = 1;
/// Streams that carry one message of the table.
pub(crate) const TABLE: u16 = 5;

/// Parcels that wait for one destination.
const QUEUE_LEN: usize = 128;
/// A courier without work goes home.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// One parcel over a stream.
const PARCEL_LIMIT: Duration = Duration::from_secs(10);

/// Something to carry.
#[derive(Clone, Debug)]
pub(crate) enum Parcel {
    Membership(Bytes),
    Table(Bytes),
    Revocation(Bytes),
}

impl Parcel {
    /// The protocol that carries it, and its content.
    fn content(&self) -> (u16, &Bytes) {
        match self {
            Parcel::Membership(bytes) => (MEMBERSHIP, bytes),
            Parcel::Table(bytes) => (TABLE, bytes),
            Parcel::Revocation(bytes) => (REVOCATION, bytes),
        }
    }
}

type Queue = mpsc::Sender<(SocketAddr, Parcel)>;

/// The couriers by destination.
#[derive(Default)]
pub(crate) struct Couriers {
    queues: Mutex<HashMap<NodeId, Queue>>,
}

impl Couriers {
    /// Sends a parcel, or drops it. Never blocks.
    pub(crate) fn post(
        &self,
        shared: &Arc<Shared>,
        to: NodeId,
        address: SocketAddr,
        parcel: Parcel,
    ) {
        if shared.endpoint.is_revoked(&to) {
            return;
        }
        if let Parcel::Membership(bytes) = &parcel
            && let Some(peer) = shared.endpoint.peer(&to)
            && (!features::serves(&peer, MEMBERSHIP) || peer.send_datagram(bytes.clone()).is_ok())
        {
            return;
        }
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let parcel = match queues.get(&to) {
            Some(queue) => match queue.try_send((address, parcel)) {
                Ok(()) => return,
                Err(mpsc::error::TrySendError::Closed(parcel)) => parcel,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    tracing::debug!(?to, "too much waits for this node; dropped");
                    return;
                }
            },
            None => (address, parcel),
        };
        // The first parcel, or the last courier is just going home.
        queues.retain(|_, queue| !queue.is_closed());
        let (queue, waiting) = mpsc::channel(QUEUE_LEN);
        let _ = queue.try_send(parcel);
        queues.insert(to, queue);
        shared.spawn(carry(Arc::clone(shared), to, waiting));
    }

    /// Drops what waits for a node that is gone.
    pub(crate) fn forget(&self, node: &NodeId) {
        self.queues
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(node);
    }
}

/// Sends one parcel over a stream of its own and waits until the peer has taken
/// it in.
pub(crate) async fn hand_over(peer: &Peer, parcel: &Parcel) -> Result<(), StreamError> {
    let (protocol, bytes) = parcel.content();
    let stream: MeshStream = features::open(peer, protocol).await?;
    let (mut send, mut recv) = stream.split();
    send.send_frame_bytes(&[], bytes.clone()).await?;
    send.finish()?;
    recv.recv_frame(FrameLimit::payload(0)).await.map(drop)
}

/// Sends a parcel by way of the members; whether it was taken in. Membership is not: it probes ways, and has its own
/// way around, and so have revocations.
async fn hand_on(shared: &Arc<Shared>, to: &NodeId, parcel: Parcel) -> bool {
    let (protocol, bytes) = match parcel {
        Parcel::Membership(_) | Parcel::Revocation(_) => return false,
        Parcel::Table(bytes) => (TABLE, bytes),
    };
    let routed = routed::request(shared, to, protocol, bytes, PARCEL_LIMIT).await;
    if let Err(error) = &routed {
        tracing::debug!(?to, %error, "a parcel was not handed on");
    }
    routed.is_ok()
}

async fn carry(shared: Arc<Shared>, to: NodeId, mut waiting: mpsc::Receiver<(SocketAddr, Parcel)>) {
    while let Ok(Some((address, parcel))) = timeout(IDLE_LIMIT, waiting.recv()).await {
        let peer = match reach(&shared, &to, Some(address)).await {
            Ok(peer) => peer,
            Err(error) => {
                tracing::debug!(?to, %error, "cannot reach a member");
                let mut taken = hand_on(&shared, &to, parcel).await;
                // Probes that waited as long as the attempt took are out of date.
                while let Ok((_, parcel)) = waiting.try_recv() {
                    taken |= hand_on(&shared, &to, parcel).await;
                }
                if !taken {
                    shared.with_cores(|cores, now| cores.table.unreachable(now, &to));
                }
                continue;
            }
        };
        let (protocol, _) = parcel.content();
        if !features::serves(&peer, protocol) {
            tracing::debug!(?to, protocol, "a member does not serve this");
            if matches!(parcel, Parcel::Table(_)) {
                shared.with_cores(|cores, now| cores.table.unreachable(now, &to));
            }
            continue;
        }
        if let Parcel::Membership(bytes) = &parcel
            && peer.send_datagram(bytes.clone()).is_ok()
        {
            continue;
        }
        let handed = async {
            match hand_over(&peer, &parcel).await {
                // It crossed the end of a connection that nobody had used.
                Err(error) if error.was_unheard() => {
                    let peer = reach(&shared, &to, Some(address)).await?;
                    Ok(hand_over(&peer, &parcel).await?)
                }
                outcome => Ok::<_, MeshError>(outcome?),
            }
        };
        match timeout(PARCEL_LIMIT, handed).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(?to, %error, "a parcel was lost"),
            Err(_) => tracing::debug!(?to, "a parcel took too long"),
        }
    }
}

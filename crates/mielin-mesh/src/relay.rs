//! Streams about circuits: what a relay does for others, and what a node does at a circuit's far end.
//!
//! A relay joins a stream of one node with one to another and copies bytes; it cannot read them. It does so for
//! nodes to which it has a connection of its own, and within bounds.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mielin_mesh_core::limits::DIAL_BACK_PERIOD;
use mielin_mesh_core::reach::{
    CircuitAnswer, CircuitRefusal, CircuitRequest, ClaimedAddress, DialBack, is_relay,
};
use mielin_mesh_core::{NodeId, codec};
use mielin_mesh_wire::{
    FrameLimit, MeshStream, Peer, RecvHalf, SendHalf, StreamError, answers_unasked,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::features;
use crate::state::Shared;

/// Streams about circuits.
pub(crate) const CIRCUIT: u16 = 7;

/// From the opening of a stream to its request, and from a request to its answer.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(5);
pub(crate) const HEADER_LIMIT: FrameLimit = FrameLimit {
    header_bytes: 128,
    payload_bytes: 0,
};
/// Circuits that a relay has at once, and how many of them one node may have opened.
const CIRCUITS_MAX: usize = 512;
const CIRCUITS_PER_NODE_MAX: usize = 32;
/// Nodes that may be registered with a relay.
const REGISTRATIONS_MAX: usize = 1024;
/// Nodes that are dialled back at once.
const DIAL_BACKS_MAX: usize = 16;
/// Read from one stream before it is written to the other.
const COPY_BYTES: usize = 16 * 1024;

/// What a relay holds for others, and what it has done.
#[derive(Default)]
pub(crate) struct Relaying {
    open: Mutex<Open>,
    /// Bytes of others that were carried.
    pub(crate) bytes: AtomicU64,
    /// Circuits that were joined since the start.
    pub(crate) joined: AtomicU64,
    /// Circuits that were refused since the start.
    pub(crate) refused: AtomicU64,
}

#[derive(Default)]
struct Open {
    circuits: HashMap<NodeId, usize>,
    registrations: usize,
    dial_backs: HashMap<NodeId, Instant>,
}

impl Relaying {
    /// Circuits that stand.
    pub(crate) fn circuits(&self) -> usize {
        self.open().circuits.values().sum()
    }

    /// Nodes that are registered.
    pub(crate) fn registrations(&self) -> usize {
        self.open().registrations
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_circuit(&self, opener: NodeId) -> bool {
        let mut open = self.open();
        let all: usize = open.circuits.values().sum();
        let own = open.circuits.entry(opener).or_default();
        let free = all < CIRCUITS_MAX && *own < CIRCUITS_PER_NODE_MAX;
        *own += usize::from(free);
        free
    }

    fn give_circuit_back(&self, opener: &NodeId) {
        let mut open = self.open();
        if let Some(own) = open.circuits.get_mut(opener) {
            *own = own.saturating_sub(1);
        }
        open.circuits.retain(|_, own| *own > 0);
    }

    fn take_registration(&self) -> bool {
        let mut open = self.open();
        let free = open.registrations < REGISTRATIONS_MAX;
        open.registrations += usize::from(free);
        free
    }

    /// Whether a node may be dialled back now. Those that asked lately are few enough to be remembered.
    fn take_dial_back(&self, node: NodeId, now: Instant) -> bool {
        let mut open = self.open();
        open.dial_backs
            .retain(|_, at| now.duration_since(*at) < DIAL_BACK_PERIOD);
        let free = open.dial_backs.len() < DIAL_BACKS_MAX && !open.dial_backs.contains_key(&node);
        if free {
            open.dial_backs.insert(node, now);
        }
        free
    }
}

/// Gives a place back, however the stream ends.
enum Place<'a> {
    Circuit(&'a Relaying, NodeId),
    Registration(&'a Relaying),
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        match self {
            Place::Circuit(relaying, opener) => relaying.give_circuit_back(opener),
            Place::Registration(relaying) => relaying.open().registrations -= 1,
        }
    }
}

/// Serves one stream about circuits.
pub(crate) async fn serve(shared: Arc<Shared>, mut stream: MeshStream) {
    let from = stream.peer();
    let request = timeout(ANSWER_LIMIT, stream.recv_frame(HEADER_LIMIT)).await;
    let Ok(Ok(Some(frame))) = request else {
        return;
    };
    let outcome = match codec::decode(&frame.header) {
        Ok(CircuitRequest::Register) => register(&shared, stream).await,
        Ok(CircuitRequest::Connect { destination }) => join(&shared, stream, destination).await,
        Ok(CircuitRequest::Incoming { source }) => accept(&shared, stream, source).await,
        Ok(CircuitRequest::DialBack(claimed)) => dial_back(&shared, stream, claimed).await,
        Err(error) => {
            tracing::warn!(from = %from.short(), %error, "a stream about circuits began with something else");
            return stream.abandon();
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(?from, %error, "a stream about circuits broke");
    }
}

async fn answer(stream: &mut MeshStream, answer: CircuitAnswer) -> Result<(), StreamError> {
    stream.send_frame(&codec::encode(&answer), &[]).await
}

async fn refuse(
    shared: &Shared,
    mut stream: MeshStream,
    refusal: CircuitRefusal,
) -> Result<(), StreamError> {
    shared.relaying.refused.fetch_add(1, Ordering::Relaxed);
    answer(&mut stream, CircuitAnswer::Refused(refusal)).await?;
    stream.finish()
}

/// Keeps the registration for as long as the stream stands.
async fn register(shared: &Shared, mut stream: MeshStream) -> Result<(), StreamError> {
    if !is_relay(shared.local.role) {
        return refuse(shared, stream, CircuitRefusal::NotARelay).await;
    }
    if !shared.relaying.take_registration() {
        return refuse(shared, stream, CircuitRefusal::Full).await;
    }
    let _place = Place::Registration(&shared.relaying);
    answer(&mut stream, CircuitAnswer::Done).await?;
    stream.recv_frame(HEADER_LIMIT).await.map(drop)
}

/// Joins a stream with one to its destination.
async fn join(
    shared: &Shared,
    mut stream: MeshStream,
    destination: NodeId,
) -> Result<(), StreamError> {
    let source = stream.peer();
    if !is_relay(shared.local.role) {
        return refuse(shared, stream, CircuitRefusal::NotARelay).await;
    }
    if !shared.relaying.take_circuit(source) {
        return refuse(shared, stream, CircuitRefusal::Full).await;
    }
    let _place = Place::Circuit(&shared.relaying, source);
    let Some(peer) = direct(shared, &destination).filter(|_| source != destination) else {
        return refuse(shared, stream, CircuitRefusal::NotConnected).await;
    };
    let announced = timeout(ANSWER_LIMIT, announce(&peer, source)).await;
    let onward = match announced {
        Ok(Ok(Ok(onward))) => onward,
        Ok(Ok(Err(refusal))) => return refuse(shared, stream, refusal).await,
        Ok(Err(_)) | Err(_) => return refuse(shared, stream, CircuitRefusal::Unanswered).await,
    };
    answer(&mut stream, CircuitAnswer::Done).await?;
    shared.relaying.joined.fetch_add(1, Ordering::Relaxed);
    let bytes = &shared.relaying.bytes;
    let (there_send, there_recv) = onward.split();
    let (back_send, back_recv) = stream.split();
    // The end of either direction is the end of the circuit.
    tokio::select! {
        () = copy(back_recv, there_send, bytes) => {}
        () = copy(there_recv, back_send, bytes) => {}
    }
    Ok(())
}

/// The connection of this node's own with another; one through a relay does not count.
fn direct(shared: &Shared, node: &NodeId) -> Option<Peer> {
    let peer = shared.endpoint.peer(node);
    peer.filter(|peer| !peer.is_relayed())
}

async fn announce(
    peer: &Peer,
    source: NodeId,
) -> Result<Result<MeshStream, CircuitRefusal>, StreamError> {
    let mut stream = features::open(peer, CIRCUIT).await?;
    let request = CircuitRequest::Incoming { source };
    ask(&mut stream, request).await.map(|answer| match answer {
        Some(CircuitAnswer::Done) => Ok(stream),
        Some(CircuitAnswer::Refused(refusal)) => Err(refusal),
        _ => Err(CircuitRefusal::Unanswered),
    })
}

/// Sends a request and reads its answer.
pub(crate) async fn ask(
    stream: &mut MeshStream,
    request: CircuitRequest,
) -> Result<Option<CircuitAnswer>, StreamError> {
    stream.send_frame(&codec::encode(&request), &[]).await?;
    let frame = stream.recv_frame(HEADER_LIMIT).await?;
    Ok(frame.and_then(|frame| codec::decode(&frame.header).ok()))
}

async fn copy(mut from: RecvHalf, mut to: SendHalf, bytes: &AtomicU64) {
    to.yield_to_others();
    let mut buffer = vec![0; COPY_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        bytes.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Takes a circuit that a relay brings.
async fn accept(
    shared: &Shared,
    mut stream: MeshStream,
    source: NodeId,
) -> Result<(), StreamError> {
    let relay = stream.peer();
    if !direct(shared, &relay).is_some_and(|peer| is_relay(peer.role())) {
        return refuse(shared, stream, CircuitRefusal::NotARelay).await;
    }
    answer(&mut stream, CircuitAnswer::Done).await?;
    match shared
        .endpoint
        .circuits()
        .attach(source, relay, false, stream)
    {
        Ok(circuit) => circuit.await,
        Err(error) => tracing::debug!(?source, ?relay, %error, "a circuit was not taken"),
    }
    Ok(())
}

/// Tries whether the peer's own machine answers at an address that the peer has never heard from us at.
async fn dial_back(
    shared: &Shared,
    mut stream: MeshStream,
    claimed: ClaimedAddress,
) -> Result<(), StreamError> {
    let from = stream.peer();
    let observed: Option<IpAddr> = direct(shared, &from).map(|peer| peer.remote_address().ip());
    let address = observed.map(|observed| claimed.to_dial(observed));
    let found = match address {
        None => DialBack::NotTried,
        Some(None) => DialBack::OtherAddress,
        Some(Some(_)) if !shared.relaying.take_dial_back(from, Instant::now()) => {
            DialBack::NotTried
        }
        Some(Some(address)) => match answers_unasked(address).await {
            Ok(true) => DialBack::Reached,
            Ok(false) => DialBack::NotReached,
            Err(error) => {
                tracing::debug!(%error, "a peer was not dialled back");
                DialBack::NotTried
            }
        },
    };
    answer(&mut stream, CircuitAnswer::DialledBack(found)).await?;
    stream.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circuits_are_bounded_for_each_node_and_in_all() {
        let relaying = Relaying::default();
        let node = |number: usize| NodeId([number as u8; 32]);
        for _ in 0..CIRCUITS_PER_NODE_MAX {
            assert!(relaying.take_circuit(node(0)));
        }
        assert!(!relaying.take_circuit(node(0)));
        let full = CIRCUITS_MAX / CIRCUITS_PER_NODE_MAX;
        for number in 1..full {
            for _ in 0..CIRCUITS_PER_NODE_MAX {
                assert!(relaying.take_circuit(node(number)));
            }
        }
        assert!(!relaying.take_circuit(node(full)));
        drop(Place::Circuit(&relaying, node(0)));
        assert!(relaying.take_circuit(node(full)));
        assert_eq!(relaying.circuits(), CIRCUITS_MAX);
    }

    #[test]
    fn a_node_is_not_dialled_back_again_and_again() {
        let relaying = Relaying::default();
        let start = Instant::now();
        let node = |number: usize| NodeId([number as u8; 32]);
        assert!(relaying.take_dial_back(node(0), start));
        assert!(!relaying.take_dial_back(node(0), start));
        for number in 1..DIAL_BACKS_MAX {
            assert!(relaying.take_dial_back(node(number), start));
        }
        assert!(!relaying.take_dial_back(node(99), start));
        assert!(relaying.take_dial_back(node(99), start + DIAL_BACK_PERIOD));
    }
}

//! Streams of messages between two exchanges.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mielin_mesh_core::NodeId;
use mielin_mesh_wire::{MeshStream, Peer};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::state::Shared;

/// Streams to one node that rest. More may be in use at a time.
const RESTING_MAX: usize = 8;
/// A stream that nobody needed for so long is ended.
const REST_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at how long streams have rested.
const LOOK_PERIOD: Duration = Duration::from_secs(5);

/// The streams that rest, by node; the one used last is at the end.
#[derive(Default)]
pub(crate) struct Resting(Mutex<HashMap<NodeId, Vec<Stream>>>);

struct Stream {
    peer: Peer,
    stream: MeshStream,
    since: Instant,
}

impl Resting {
    /// Takes in a stream after an exchange.
    pub(crate) fn put(&self, peer: Peer, mut stream: MeshStream) {
        let mut streams = self.lock();
        let resting = streams.entry(peer.node()).or_default();
        if resting.len() < RESTING_MAX {
            let since = Instant::now();
            resting.push(Stream {
                peer,
                stream,
                since,
            });
        } else {
            // An error says that it has ended already.
            let _ = stream.finish();
        }
    }

    /// A stream on this connection.
    fn take(&self, peer: &Peer) -> Option<MeshStream> {
        let mut streams = self.lock();
        let resting = streams.get_mut(&peer.node())?;
        // Those on a connection that is gone, or is about to give way, are of no use.
        while let Some(last) = resting.pop() {
            if last.peer.is_same_connection(peer) {
                return Some(last.stream);
            }
        }
        None
    }

    fn end_old(&self, now: Instant) {
        self.lock().retain(|_, resting| {
            for old in resting.extract_if(.., |rests| now - rests.since >= REST_LIMIT) {
                let mut stream = old.stream;
                let _ = stream.finish();
            }
            !resting.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Vec<Stream>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream to a node that has rested, and the connection that it is on.
pub(super) fn take(shared: &Shared, node: &NodeId) -> Option<(Peer, MeshStream)> {
    let peer = shared.endpoint.peer(node)?;
    let stream = shared.resting.take(&peer)?;
    Some((peer, stream))
}

/// Ends streams that have rested for long, so that connections without use can end.
pub(crate) async fn rest_no_longer(shared: Arc<Shared>) {
    let mut look = interval(LOOK_PERIOD);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        shared.resting.end_old(Instant::now());
    }
}

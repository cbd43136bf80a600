//! Streams of messages between two exchanges.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mielin_mesh_core::NodeId;
use mielin_mesh_wire::{Endpoint, MeshStream, Peer};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::state::Shared;

/// Streams to one node that rest. More may be in use at a time.
const RESTING_MAX: usize = 8;
/// A stream that nobody needed for so long is ended.
const REST_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at the streams that rest.
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

    /// A stream to a node that has rested, and the connection that it is on.
    pub(super) fn take(&self, node: &NodeId) -> Option<(Peer, MeshStream)> {
        let mut streams = self.lock();
        let resting = streams.get_mut(node)?;
        while let Some(Stream { peer, stream, .. }) = resting.pop() {
            if peer.is_live() {
                return Some((peer, stream));
            }
        }
        None
    }

    /// Ends the streams that have rested for too long, and those on a connection to which another is preferred.
    fn end_useless(&self, endpoint: &Endpoint) {
        let now = Instant::now();
        let useless = |rests: &mut Stream| {
            let preferred = endpoint.peer(&rests.peer.node());
            now - rests.since >= REST_LIMIT
                || preferred.is_none_or(|peer| !peer.is_same_connection(&rests.peer))
        };
        self.lock().retain(|_, resting| {
            for mut rests in resting.extract_if(.., useless) {
                let _ = rests.stream.finish();
            }
            !resting.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Vec<Stream>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends streams and lanes that nobody needs, so that connections without use can end, and a better one is used instead.
pub(crate) async fn rest_no_longer(shared: Arc<Shared>) {
    let mut look = interval(LOOK_PERIOD);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        shared.resting.end_useless(&shared.endpoint);
        shared.lanes.end_useless(&shared.endpoint);
    }
}

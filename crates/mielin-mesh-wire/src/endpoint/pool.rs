//! Which connections stand, and which of them stays.
//!
//! Two nodes that dial each other in the same moment have two connections. The
//! one that the node with the smaller id has dialled stays, by which both ends
//! choose alike, and of several of one node the last; whoever has dialled the
//! other closes it when nothing is going on over it. A connection over no relay
//! is preferred to one over a relay.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mielin_mesh_core::NodeId;
use tokio::sync::{Mutex, Semaphore};

use super::traffic::Traffic;
use super::{CLOSE_IDLE, CLOSE_REPLACED, CLOSE_SUPERSEDED, CONNECT_LIMIT};
use crate::peer::Peer;

/// Connections to one peer, as long as all but one have not been closed yet.
const CONNECTIONS_PER_PEER: usize = 4;
/// Without a word for so long, a connection that another has replaced is closed if no stream is open on it.
const SETTLE_PERIOD: Duration = Duration::from_secs(1);
/// Without a word for so long on its streams, a connection gives way to a better one though they are open. Longer
/// than a move waits for anything.
const RETIRE_PERIOD: Duration = Duration::from_secs(30);
/// A connection that another has replaced ends after so long, whatever is going on.
const REPLACED_LIMIT: Duration = Duration::from_secs(600);

/// The connections by node.
pub(crate) struct Pool {
    local: NodeId,
    nodes: HashMap<NodeId, Entry>,
    /// What went over the connections that have ended.
    ended: Traffic,
}

#[derive(Default)]
struct Entry {
    /// Oldest first.
    connections: Vec<Standing>,
    /// Shared by all connections of the peer, so that opening more of them does
    /// not give it more places.
    places: Option<Arc<Semaphore>>,
    turn: Arc<Mutex<()>>,
}

/// A connection that stands, or has ended a moment ago.
struct Standing {
    peer: Peer,
    since: Instant,
    /// Frames of streams and datagrams, either way, and since when there have been so many.
    said: u64,
    quiet_since: Instant,
    /// Since when another one is preferred.
    replaced_since: Option<Instant>,
}

impl Standing {
    fn id(&self) -> usize {
        self.peer.connection().stable_id()
    }

    fn look(&mut self, now: Instant) {
        let stats = self.peer.connection().stats();
        let (sent, received) = (stats.frame_tx, stats.frame_rx);
        let said = sent.stream + sent.datagram + received.stream + received.datagram;
        if said != self.said {
            (self.said, self.quiet_since) = (said, now);
        }
    }

    /// Whether it is to be preferred to one that is older.
    fn beats(&self, older: &Standing, local: &NodeId) -> bool {
        // Who dialled had no other connection then. If this one stood too long for both to have been dialled in the
        // same moment, its far end is gone, though nobody here knows yet.
        let later = self.since.duration_since(older.since) > CONNECT_LIMIT;
        let dialled = self.peer.is_dialled();
        later
            || match dialled == older.peer.is_dialled() {
                true => self.peer.dial() > older.peer.dial(),
                false => dialled == (*local < self.peer.node()),
            }
    }
}

impl Entry {
    fn preferred(&self, local: &NodeId) -> Option<&Standing> {
        let best = |relayed| {
            let usable = self.connections.iter().filter(|one| one.peer.is_usable());
            usable
                .filter(|one| one.peer.is_relayed() == relayed)
                .reduce(|best, next| if next.beats(best, local) { next } else { best })
        };
        best(false).or_else(|| best(true))
    }

    /// Closes what is not needed any more.
    fn tend(&mut self, now: Instant, local: &NodeId, unused: Duration) -> Tended {
        let best = self.preferred(local);
        let best = best.map(|best| (best.id(), best.peer.is_relayed()));
        let mut tended = Tended::default();
        let usable = self.connections.iter_mut();
        for one in usable.filter(|one| one.peer.is_usable()) {
            one.look(now);
            let replaced = best.is_some_and(|(id, _)| id != one.id());
            let replaced = replaced.then(|| *one.replaced_since.get_or_insert(now));
            one.replaced_since = replaced;
            let peer = &one.peer;
            let quiet = now.duration_since(one.quiet_since);
            let alike = best.is_some_and(|(_, relayed)| relayed == peer.is_relayed());
            let long = quiet >= RETIRE_PERIOD;
            let (quiet_enough, too_long) = match replaced {
                // Both ends see that a direct connection stands; of two that are alike one end has to decide.
                Some(since) if alike && peer.is_dialled() => {
                    let too_long = now.duration_since(since) >= REPLACED_LIMIT;
                    (quiet >= SETTLE_PERIOD, long || too_long)
                }
                Some(_) if !alike => (long, long),
                _ => (false, false),
            };
            let connection = peer.connection();
            if quiet_enough && peer.usage().give_up() {
                connection.close(CLOSE_SUPERSEDED, b"another connection stands");
            } else if too_long {
                connection.close(CLOSE_REPLACED, b"another connection stands");
            } else if quiet >= unused && peer.usage().give_up() {
                connection.close(CLOSE_IDLE, b"nobody uses it");
                tended.idle += 1;
            } else {
                continue;
            }
            tended.relayed |= peer.is_relayed();
        }
        tended
    }
}

/// What was closed.
#[derive(Default)]
struct Tended {
    /// How many because nobody used the peer.
    idle: u64,
    /// Whether a connection over circuits was among them.
    relayed: bool,
}

impl Pool {
    pub(crate) fn new(local: NodeId) -> Pool {
        Pool {
            local,
            nodes: HashMap::new(),
            ended: Traffic::default(),
        }
    }

    /// The connection to a node that is used for what is new.
    pub(crate) fn preferred(&self, node: &NodeId) -> Option<Peer> {
        let standing = self.nodes.get(node)?.preferred(&self.local)?;
        Some(standing.peer.clone())
    }

    /// Every connection to a node.
    pub(crate) fn of(&self, node: &NodeId) -> Vec<Peer> {
        let entry = self.nodes.get(node).into_iter();
        let connections = entry.flat_map(|entry| &entry.connections);
        connections.map(|one| one.peer.clone()).collect()
    }

    /// The preferred connection to every node that has one.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        let nodes = self.nodes.keys();
        nodes.filter_map(|node| self.preferred(node)).collect()
    }

    /// What went over all connections, those that have ended included.
    pub(crate) fn traffic(&self) -> Traffic {
        let mut traffic = self.ended;
        for entry in self.nodes.values() {
            for one in &entry.connections {
                traffic += Traffic::over(&one.peer);
            }
        }
        traffic
    }

    /// The lock that lets one task at a time dial a node.
    pub(crate) fn turn(&mut self, node: &NodeId) -> Arc<Mutex<()>> {
        // Entries without connection and dialler are of no use any more.
        self.nodes.retain(|_, entry| {
            !entry.connections.is_empty()
                || Arc::strong_count(&entry.turn) > 1
                || entry
                    .places
                    .as_ref()
                    .is_some_and(|places| Arc::strong_count(places) > 1)
        });
        Arc::clone(&self.nodes.entry(*node).or_default().turn)
    }

    /// Adds a connection; says whether it is the first and gives the places for
    /// the streams of this peer. Those of an earlier life of the peer are dead,
    /// and closed.
    pub(crate) fn insert(
        &mut self,
        now: Instant,
        peer: &Peer,
        places: usize,
    ) -> (bool, Arc<Semaphore>) {
        let entry = self.nodes.entry(peer.node()).or_default();
        let first = entry.connections.is_empty();
        for older in &entry.connections {
            if older.peer.instance() != peer.instance() {
                let dead = older.peer.connection();
                dead.close(CLOSE_REPLACED, b"the peer has restarted or moved");
            }
        }
        entry.connections.push(Standing {
            peer: peer.clone(),
            since: now,
            said: 0,
            quiet_since: now,
            replaced_since: None,
        });
        if entry.connections.len() > CONNECTIONS_PER_PEER {
            let oldest = entry.connections[0].peer.connection();
            oldest.close(CLOSE_REPLACED, b"too many connections");
        }
        let places = entry
            .places
            .get_or_insert_with(|| Arc::new(Semaphore::new(places)));
        (first, Arc::clone(places))
    }

    /// Removes a connection that has ended; says whether it was the last.
    pub(crate) fn remove(&mut self, peer: &Peer) -> bool {
        let Some(entry) = self.nodes.get_mut(&peer.node()) else {
            return false;
        };
        let id = peer.connection().stable_id();
        let before = entry.connections.len();
        entry.connections.retain(|other| other.id() != id);
        let after = entry.connections.len();
        if after < before {
            self.ended += Traffic::over(peer);
        }
        before > 0 && after == 0
    }

    /// Closes the connections that are not needed any more: those that another has replaced, and those that nobody
    /// has used for so long. Gives the nodes whose connections over circuits were closed.
    pub(crate) fn tend(&mut self, now: Instant, unused: Duration) -> Vec<NodeId> {
        let mut without_circuits = Vec::new();
        for (node, entry) in &mut self.nodes {
            let tended = entry.tend(now, &self.local, unused);
            self.ended.closed_idle += tended.idle;
            without_circuits.extend(tended.relayed.then_some(*node));
        }
        without_circuits
    }

    /// Counts a connection that the peer has closed because nobody used it.
    pub(crate) fn note_idle(&mut self) {
        self.ended.closed_idle += 1;
    }
}

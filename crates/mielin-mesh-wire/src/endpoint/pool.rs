//! Which connections stand.

use std::collections::HashMap;
use std::sync::Arc;

use mielin_mesh_core::NodeId;
use tokio::sync::{Mutex, Semaphore};

use super::CLOSE_SUPERSEDED;
use super::traffic::Traffic;
use crate::peer::Peer;

/// Connections to one peer; simultaneous dials make two, a peer that has
/// restarted leaves a dead one behind until its time is over.
const CONNECTIONS_PER_PEER: usize = 4;

/// The connections by node.
#[derive(Default)]
pub(crate) struct Pool {
    nodes: HashMap<NodeId, Entry>,
    /// What went over the connections that have ended.
    ended: Traffic,
}

#[derive(Default)]
struct Entry {
    /// Oldest first.
    connections: Vec<Peer>,
    /// Shared by all connections of the peer, so that opening more of them does
    /// not give it more places.
    places: Option<Arc<Semaphore>>,
    turn: Arc<Mutex<()>>,
}

impl Pool {
    /// The newest live connection, one over no relay first: after a restart of the
    /// peer the older one is dead, though nobody here may know it yet.
    pub(crate) fn preferred(&self, node: &NodeId) -> Option<Peer> {
        let entry = self.nodes.get(node)?;
        let newest = || entry.connections.iter().rev().filter(|peer| peer.is_live());
        let direct = newest().find(|peer| !peer.is_relayed());
        direct.or_else(|| newest().next()).cloned()
    }

    /// Every connection to a node.
    pub(crate) fn of(&self, node: &NodeId) -> Vec<Peer> {
        self.nodes
            .get(node)
            .map_or_else(Vec::new, |entry| entry.connections.clone())
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
            for peer in &entry.connections {
                traffic += Traffic::over(peer);
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
    /// the streams of this peer.
    pub(crate) fn insert(&mut self, peer: &Peer, places: usize) -> (bool, Arc<Semaphore>) {
        let entry = self.nodes.entry(peer.node()).or_default();
        let first = entry.connections.is_empty();
        entry.connections.push(peer.clone());
        if entry.connections.len() > CONNECTIONS_PER_PEER {
            let oldest = entry.connections[0].connection();
            oldest.close(CLOSE_SUPERSEDED, b"too many connections");
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
        entry
            .connections
            .retain(|other| other.connection().stable_id() != id);
        let after = entry.connections.len();
        if after < before {
            self.ended += Traffic::over(peer);
        }
        before > 0 && after == 0
    }
}

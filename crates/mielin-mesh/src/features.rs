//! What this node serves, and what its peers serve of the mesh's own protocols.
//!
//! What a peer does not serve is not sent to it. Other protocols than these are refused by the peer.

use mielin_mesh_wire::{Features, MeshStream, Peer, StreamError};

use crate::config::MeshConfig;
use crate::courier::{MEMBERSHIP, TABLE};
use crate::messages::LANE;
use crate::relay::CIRCUIT;
use crate::revoking::REVOCATION;
use crate::routed::ROUTED;

/// A peer's program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerProgram {
    /// Its version.
    pub version: String,
    /// What both it and this node serve.
    pub features: Features,
}

/// What a node with these settings tells its peers.
pub(crate) fn served(config: &MeshConfig) -> Features {
    let switches = [
        (config.enable_gossip, Features::MEMBERSHIP),
        (config.enable_registry, Features::TABLE),
        (config.enable_migration, Features::MIGRATION),
    ];
    let off = switches.into_iter().filter(|(on, _)| !on);
    off.fold(Features::all(), |all, (_, feature)| all.without(feature))
}

/// What a peer must serve to be spoken to in a protocol.
fn needed(protocol: u16) -> Features {
    match protocol {
        MEMBERSHIP => Features::MEMBERSHIP,
        TABLE => Features::TABLE,
        CIRCUIT => Features::CIRCUITS,
        ROUTED => Features::ROUTED,
        REVOCATION => Features::REVOCATIONS,
        LANE => Features::LANES,
        _ => Features::NONE,
    }
}

/// Whether a peer has said that it serves a protocol, or it is none that is said.
pub(crate) fn serves(peer: &Peer, protocol: u16) -> bool {
    peer.features().contains(needed(protocol))
}

/// Opens a stream if the peer serves the protocol.
pub(crate) async fn open(peer: &Peer, protocol: u16) -> Result<MeshStream, StreamError> {
    if !serves(peer, protocol) {
        let peer = peer.node();
        return Err(StreamError::UnknownProtocol { peer, protocol });
    }
    peer.open(protocol).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_switched_off_is_not_offered() {
        let mut config = MeshConfig::new("127.0.0.1:0".parse().unwrap());
        assert_eq!(served(&config), Features::all());
        config.enable_gossip = false;
        config.enable_registry = false;
        config.enable_migration = false;
        let left = Features::CIRCUITS | Features::ROUTED | Features::REVOCATIONS | Features::LANES;
        assert_eq!(served(&config), left);
    }
}

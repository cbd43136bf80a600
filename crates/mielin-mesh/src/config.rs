//! What a node is told about its place in the mesh.

use std::net::SocketAddr;
use std::time::Duration;

use mielin_mesh_core::Preset;
use mielin_mesh_wire::RENEW_BELOW;

use crate::discovery::bootstrap::BootstrapNode;

/// Settings of one [`MeshService`](crate::MeshService). The node's name and
/// role are not here: they belong to its credentials.
#[derive(Clone, Debug)]
pub struct MeshConfig {
    /// Where the endpoint listens; UDP for QUIC and TCP for the introduction
    /// of joiners, on the same port. Port 0 lets the system choose.
    pub bind_address: SocketAddr,
    /// The address that other members are told. By default the bound address,
    /// or, when that is unspecified (`0.0.0.0`), the local address of the route
    /// to the first bootstrap node.
    pub advertise_address: Option<SocketAddr>,
    /// Members to contact first, besides those remembered from earlier runs.
    /// Names are looked up at every attempt, and all their addresses tried.
    pub bootstrap_nodes: Vec<BootstrapNode>,
    /// Whether the node takes part in membership. Without it the node knows
    /// only itself and serves whoever dials it.
    pub enable_gossip: bool,
    /// Whether location records are exchanged with the members.
    pub enable_registry: bool,
    /// Whether members on the same link find this node, and it them, by multicast
    /// DNS. It does nothing without gossip. Nodes that are bound to a loopback address find
    /// those of the same machine that are too, and nothing that they say leaves the machine.
    pub enable_mdns: bool,
    /// Whether agents may move to this node and away from it. The mesh itself moves
    /// nothing: whoever runs agents asks [`MeshService::migrates`](crate::MeshService::migrates).
    pub enable_migration: bool,
    /// How fast silence turns into suspicion and death.
    pub preset: Preset,
    /// Whether others may be able to dial this node.
    pub dialling: Dialling,
    /// Connections that nobody uses are closed after so long, and made again when they are wanted: in a large group
    /// most pairs have little to say to each other.
    pub unused_limit: Duration,
    /// The certificate is renewed when less than this is left of it.
    pub renew_below: Duration,
}

/// Whether others can dial a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialling {
    /// Its peers are asked to try. A node that they cannot dial registers with relays.
    #[default]
    Tried,
    /// It is known that they cannot: the node registers with relays at once.
    Impossible,
}

impl MeshConfig {
    /// Everything enabled, the LAN preset, no bootstrap nodes, and five minutes for
    /// connections that nobody uses.
    #[must_use]
    pub fn new(bind_address: SocketAddr) -> Self {
        MeshConfig {
            bind_address,
            advertise_address: None,
            bootstrap_nodes: Vec::new(),
            enable_gossip: true,
            enable_registry: true,
            enable_mdns: true,
            enable_migration: true,
            preset: Preset::Lan,
            dialling: Dialling::Tried,
            unused_limit: Duration::from_secs(300),
            renew_below: RENEW_BELOW,
        }
    }

    /// The same with one more member to contact first.
    #[must_use]
    pub fn bootstrap(mut self, node: impl Into<BootstrapNode>) -> Self {
        self.bootstrap_nodes.push(node.into());
        self
    }
}

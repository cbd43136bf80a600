//! How a node finds members: it contacts the bootstrap nodes and those that it
//! remembers. Whoever answers proves by its certificate that it is a member,
//! and tells of the others.

pub(crate) mod bootstrap;
pub(crate) mod local;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mielin_mesh_core::NodeId;
use mielin_mesh_wire::{Peer, WireError};
use tokio::time::{sleep, timeout};

use crate::config::MeshConfig;
use crate::discovery::bootstrap::BootstrapNode;
use crate::state::Shared;

/// Between two rounds of looking for members while there are none.
const SEARCH_PAUSE_MIN: Duration = Duration::from_millis(500);
const SEARCH_PAUSE_MAX: Duration = Duration::from_secs(10);
/// An announcement is a datagram: this long it may take to have an effect.
const ANNOUNCE_PAUSE: Duration = Duration::from_millis(200);
/// How long the start of a node waits for names, to choose its own address.
const FIRST_RESOLVE_LIMIT: Duration = Duration::from_secs(2);

/// Contacts the known places whenever no other member is alive.
pub(crate) async fn search(shared: Arc<Shared>, remembered: Vec<(NodeId, SocketAddr)>) {
    let mut pause = SEARCH_PAUSE_MIN;
    let mut complaints = Complaints::default();
    loop {
        if is_alone(&shared) {
            for node in &shared.config.bootstrap_nodes {
                contact(&shared, node, &mut complaints).await;
            }
            for (node, address) in &remembered {
                if is_alone(&shared) && *node != shared.local.id {
                    // The search has pauses of its own.
                    shared.endpoint.hurry(node);
                    let outcome = shared.endpoint.connect(node, *address).await;
                    if let Err(error) = announce(&shared, *address, outcome).await {
                        complaints.hear(address.to_string(), &error);
                    }
                }
            }
        } else {
            pause = SEARCH_PAUSE_MIN;
        }
        // Jitter, so that nodes that start together do not dial each other in
        // the same moment again and again.
        sleep(pause.mul_f64(jitter())).await;
        pause = (pause * 2).min(SEARCH_PAUSE_MAX);
    }
}

/// Contacts a bootstrap node at its addresses, until one of them answers.
async fn contact(shared: &Arc<Shared>, node: &BootstrapNode, complaints: &mut Complaints) {
    let addresses = match node.resolve().await {
        Ok(addresses) => addresses,
        Err(error) => return complaints.hear(node.to_string(), &error),
    };
    for address in addresses {
        let outcome = shared.endpoint.connect_any(address).await;
        match announce(shared, address, outcome).await {
            Ok(()) => return,
            Err(error) => complaints.hear(address.to_string(), &error),
        }
    }
}

/// Announces this node to the member that answered, unless that is this node itself.
async fn announce(
    shared: &Arc<Shared>,
    address: SocketAddr,
    outcome: Result<Peer, WireError>,
) -> Result<(), WireError> {
    match outcome {
        Ok(peer) => {
            shared.with_cores(|cores, now| {
                cores.membership.announce(now, peer.node(), address);
            });
            sleep(ANNOUNCE_PAUSE).await;
            Ok(())
        }
        Err(WireError::Itself { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The places that were complained about: once each, since all are tried on.
#[derive(Default)]
struct Complaints(HashSet<String>);

impl Complaints {
    /// A name may resolve to ever new addresses.
    const MAX: usize = 256;

    fn hear(&mut self, place: String, error: &dyn std::fmt::Display) {
        if self.0.len() < Self::MAX && !self.0.contains(&place) {
            tracing::warn!(place, %error, "cannot reach a known member; trying on");
            self.0.insert(place);
        } else {
            tracing::debug!(place, %error, "cannot reach a known member");
        }
    }
}

/// The addresses of the bootstrap nodes at the start, as far as they are needed
/// to choose the address that members are told.
pub(crate) async fn first_addresses(config: &MeshConfig) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    if config.advertise_address.is_some() || !config.bind_address.ip().is_unspecified() {
        return addresses;
    }
    let resolve = async {
        for node in &config.bootstrap_nodes {
            addresses.extend(node.resolve().await.unwrap_or_default());
        }
    };
    // What is not known by then does not count; `search` asks again.
    let _ = timeout(FIRST_RESOLVE_LIMIT, resolve).await;
    addresses
}

/// A factor between 0.75 and 1.25; 1 when the system gives no randomness.
fn jitter() -> f64 {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    0.75 + 0.5 * f64::from(random) / f64::from(u32::MAX)
}

fn is_alone(shared: &Shared) -> bool {
    let local = shared.local.id;
    let members = shared.cores().membership.members();
    !members
        .iter()
        .any(|member| member.identity.id != local && member.state.is_active())
}

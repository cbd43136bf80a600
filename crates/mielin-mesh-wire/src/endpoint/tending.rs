//! Looks after the connections that stand.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use mielin_mesh_core::NodeId;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{CLOSE_LIMIT, Shared};
use crate::peer::Peer;

/// Longest time between two looks.
const LOOK_PERIOD_MAX: Duration = Duration::from_secs(1);
/// Looks within the time after which an unused connection is closed.
const LOOKS: u32 = 4;

/// Closes connections that are not needed any more, until the endpoint is gone.
pub(super) async fn tend(shared: Weak<Shared>, unused: Duration) {
    let mut look = interval((unused / LOOKS).clamp(Duration::from_millis(1), LOOK_PERIOD_MAX));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let without_circuits = shared.pool().tend(Instant::now(), unused);
        for node in without_circuits {
            tokio::spawn(close_circuits(Arc::downgrade(&shared), node));
        }
    }
}

/// Closes the circuits to a node when the peer has been told over them that the connection is closed.
async fn close_circuits(shared: Weak<Shared>, node: NodeId) {
    sleep(CLOSE_LIMIT).await;
    if let Some(shared) = shared.upgrade() {
        let connections = shared.pool().of(&node);
        if !connections.iter().any(Peer::is_relayed) {
            shared.circuits.close(&node);
        }
    }
}

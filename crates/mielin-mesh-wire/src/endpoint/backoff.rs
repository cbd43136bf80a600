//! Pauses before a node that could not be dialled is dialled again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mielin_mesh_core::NodeId;

use super::WireError;

/// After the first failure, and at most.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A failure so long ago counts no more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Nodes whose failures are remembered.
const NODES_MAX: usize = 1024;

/// The nodes that could not be dialled lately.
#[derive(Default)]
pub(super) struct Backoff {
    nodes: HashMap<NodeId, Failed>,
}

struct Failed {
    address: SocketAddr,
    times: u32,
    next: Instant,
    reason: String,
}

impl Backoff {
    /// Why a node is not dialled there just now, and for how long.
    pub(super) fn pause(
        &self,
        now: Instant,
        node: &NodeId,
        address: SocketAddr,
    ) -> Result<(), WireError> {
        match self.nodes.get(node) {
            Some(failed) if failed.address == address && failed.next > now => {
                Err(WireError::Pausing {
                    reason: failed.reason.clone(),
                    wait: failed.next.duration_since(now),
                })
            }
            _ => Ok(()),
        }
    }

    /// A dial has failed. `jitter` is between 0 and 1.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        node: &NodeId,
        address: SocketAddr,
        reason: &WireError,
        jitter: f64,
    ) {
        self.nodes
            .retain(|_, failed| now.duration_since(failed.next) < FORGOTTEN_AFTER);
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(node) {
            return;
        }
        let before = self.nodes.get(node);
        let before = before.filter(|failed| failed.address == address);
        let times = before.map_or(0, |failed| failed.times).saturating_add(1);
        let pause = PAUSE_MIN
            .saturating_mul(1 << (times - 1).min(16))
            .min(PAUSE_MAX);
        let failed = Failed {
            address,
            times,
            next: now + pause.mul_f64(0.75 + 0.25 * jitter),
            reason: reason.to_string(),
        };
        self.nodes.insert(*node, failed);
    }

    /// The node is there, or somebody wants to know now.
    pub(super) fn forget(&mut self, node: &NodeId) {
        self.nodes.remove(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId([1; 32]);

    fn wait(backoff: &Backoff, now: Instant, address: SocketAddr) -> Option<Duration> {
        match backoff.pause(now, &NODE, address) {
            Ok(()) => None,
            Err(WireError::Pausing { wait, .. }) => Some(wait),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn pauses_double_up_to_a_limit_and_are_for_one_address() {
        let here: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let there: SocketAddr = "127.0.0.1:2".parse().unwrap();
        let silent = WireError::Timeout {
            address: here,
            limit: Duration::from_secs(10),
        };
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..9 {
            assert_eq!(wait(&backoff, now, here), None);
            backoff.failed(now, &NODE, here, &silent, 1.0);
            let pause = wait(&backoff, now, here).unwrap();
            assert_eq!(wait(&backoff, now, there), None);
            waits.push(pause.as_millis());
            now += pause;
        }
        let expected = [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000];
        assert_eq!(waits, expected);
        backoff.failed(now, &NODE, there, &silent, 0.0);
        let other = wait(&backoff, now, there);
        assert_eq!(other, Some(Duration::from_millis(75)), "it begins anew");
        backoff.forget(&NODE);
        assert_eq!(wait(&backoff, now, there), None);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_grows_old() {
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let error = WireError::Itself { address };
        let mut backoff = Backoff::default();
        let now = Instant::now();
        for number in 0..2 * NODES_MAX as u64 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            backoff.failed(now, &NodeId(id), address, &error, 1.0);
        }
        assert_eq!(backoff.nodes.len(), NODES_MAX);
        let later = now + PAUSE_MAX + FORGOTTEN_AFTER;
        backoff.failed(later, &NODE, address, &error, 1.0);
        assert_eq!(backoff.nodes.len(), 1);
    }
}

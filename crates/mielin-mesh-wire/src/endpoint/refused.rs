//! Whom the log has lately called refused: a peer that comes again and again is named now and then.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use mielin_mesh_core::NodeId;

use super::{Shared, WireError};
use crate::buckets::network;

/// Between two lines about one peer.
const PERIOD: Duration = Duration::from_secs(600);
/// Peers that are remembered. While so many were refused lately, nobody else is named.
const PEERS_MAX: usize = 1024;

/// Who was refused: the node where it has proved who it is, else its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Node(NodeId),
    Host(IpAddr),
}

#[derive(Default)]
pub(super) struct Refused(HashMap<Who, Instant>);

impl Refused {
    /// Whether the log is to name this one; notes that it does.
    fn names(&mut self, now: Instant, who: Who) -> bool {
        let is_recent = |at: &Instant| now.duration_since(*at) < PERIOD;
        if self.0.get(&who).is_some_and(is_recent) {
            return false;
        }
        self.0.retain(|_, at| is_recent(at));
        let names = self.0.len() < PEERS_MAX;
        if names {
            self.0.insert(who, now);
        }
        names
    }
}

impl Shared {
    /// Says that a peer was refused, once in a while for each.
    pub(super) fn log_refused(&self, from: SocketAddr, error: &WireError) {
        let who = match error {
            WireError::Revoked { node } => Who::Node(*node),
            _ => Who::Host(network(from.ip())),
        };
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.names(Instant::now(), who) {
            tracing::info!(%from, %error, "a peer was refused; further attempts of it are not logged for a while");
        } else {
            tracing::debug!(%from, %error, "a peer was refused again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_comes_again_and_again_is_named_now_and_then() {
        let (mut refused, start) = (Refused::default(), Instant::now());
        let node = Who::Node(NodeId([1; 32]));
        let named = (0..9 * 1200).filter(|attempt| {
            let now = start + Duration::from_millis(111) * *attempt;
            refused.names(now, node)
        });
        assert_eq!(named.count(), 2, "in 20 minutes");
        let host = Who::Host([127, 0, 0, 1].into());
        assert!(refused.names(start, host), "others are named too");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut refused, start) = (Refused::default(), Instant::now());
        let named = (0..2 * PEERS_MAX as u32)
            .filter(|host| refused.names(start, Who::Host(IpAddr::from(host.to_be_bytes()))));
        assert_eq!(named.count(), PEERS_MAX);
        assert!(refused.names(start + PERIOD, Who::Node(NodeId([1; 32]))));
        assert_eq!(refused.0.len(), 1);
    }
}

//! Reach: who can be dialled, and by which relays the others are reached.
//!
//! What nodes say to each other about circuits, and the decisions that need no socket: whether a node counts as
//! undialable, which relays it registers with, and when a direct way is tried again. The circuits themselves are
//! streams; `mielin-mesh-wire` carries packets over them.
//!
//! A node asks some of its peers to dial it back from a socket that it has never sent to (libp2p's AutoNAT has the
//! idea). One that cannot be dialled keeps registrations with relays and advertises them in its
//! [`Identity`](crate::Identity).

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use oxicode::{Decode, Encode};
use thiserror::Error;

use crate::kademlia::Key;
use crate::limits::{DIRECT_RETRY_MAX, DIRECT_RETRY_MIN};
use crate::{Instant, NodeId, NodeRole};

/// The first frame on a stream about circuits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum CircuitRequest {
    /// To a relay: keep this connection, others may come for me. Lasts as long as the stream.
    Register,
    /// To a relay: join this stream with one to that node. Packets follow the answer.
    Connect {
        /// Who is wanted.
        destination: NodeId,
    },
    /// From a relay: somebody wants to speak with you. Packets follow the answer.
    Incoming {
        /// Who. The connection that is made over the circuit proves it.
        source: NodeId,
    },
    /// To any member: try whether this address of mine answers packets that it did not ask for.
    DialBack(ClaimedAddress),
}

/// An address that a node claims to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ClaimedAddress {
    ip: [u8; 16],
    port: u16,
}

impl From<SocketAddr> for ClaimedAddress {
    fn from(address: SocketAddr) -> ClaimedAddress {
        let ip = match address.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        ClaimedAddress {
            ip: ip.octets(),
            port: address.port(),
        }
    }
}

impl ClaimedAddress {
    /// The address to dial for a peer whose packets come from `observed`: only that machine may be asked for.
    #[must_use]
    pub fn to_dial(self, observed: IpAddr) -> Option<SocketAddr> {
        let ip = Ipv6Addr::from(self.ip).to_canonical();
        (ip == observed.to_canonical() && self.port != 0).then_some(SocketAddr::new(ip, self.port))
    }
}

/// The answer, one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum CircuitAnswer {
    /// It is so.
    Done,
    /// It is not.
    Refused(CircuitRefusal),
    /// What came of a dial-back.
    DialledBack(DialBack),
}

/// Why there is no circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Error)]
pub enum CircuitRefusal {
    /// The node's certificate does not make it a relay, or it came for a node that is none.
    #[error("it is no relay")]
    NotARelay,
    /// The relay has no connection of its own with the destination.
    #[error("it is not connected with that node")]
    NotConnected,
    /// The relay, or the destination, has as many circuits as it allows.
    #[error("it has as many circuits as it allows")]
    Full,
    /// The destination did not answer the relay.
    #[error("that node did not answer it")]
    Unanswered,
}

/// What came of a dial-back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum DialBack {
    /// The address answered.
    Reached,
    /// It did not.
    NotReached,
    /// The packets come from another machine than the address says: there is a translation in between, or the node
    /// has several addresses.
    OtherAddress,
    /// Nothing was tried: it asks too often, or the peer cannot.
    NotTried,
}

/// Whether a node can be dialled, by what its peers found; `None` if they found nothing.
///
/// A node on the same link may reach it where others do not, so the majority decides. Being wrong costs little:
/// direct ways are tried first in either case.
#[must_use]
pub fn is_dialable(found: &[DialBack]) -> Option<bool> {
    let count = |kind| found.iter().filter(|found| **found == kind).count();
    let reached = count(DialBack::Reached);
    let not_reached = count(DialBack::NotReached);
    match reached.cmp(&not_reached) {
        core::cmp::Ordering::Greater => Some(true),
        core::cmp::Ordering::Less => Some(false),
        // Nobody could try, or they disagree.
        core::cmp::Ordering::Equal if reached > 0 || count(DialBack::OtherAddress) > 0 => {
            Some(false)
        }
        core::cmp::Ordering::Equal => None,
    }
}

/// A member with which a node may register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayCandidate {
    /// Who.
    pub node: NodeId,
    /// As its certificate or membership says.
    pub role: NodeRole,
    /// The smoothed round trip time, if there is a connection.
    pub rtt: Option<Duration>,
}

/// Whether nodes of a role join circuits.
#[must_use]
pub const fn is_relay(role: NodeRole) -> bool {
    matches!(role, NodeRole::Relay | NodeRole::Core)
}

/// At most `count` relays for `local`, best first: those of role Relay before those of role Core, the quickest
/// first, and among the unmeasured the nearest by id, so that the nodes of a mesh spread over its relays.
#[must_use]
pub fn choose_relays(
    local: &NodeId,
    candidates: impl IntoIterator<Item = RelayCandidate>,
    count: usize,
) -> Vec<NodeId> {
    let here = Key::from(*local);
    let mut found: Vec<_> = candidates
        .into_iter()
        .filter(|candidate| is_relay(candidate.role) && candidate.node != *local)
        .map(|candidate| {
            let distance = here.distance(&Key::from(candidate.node));
            let latency = candidate.rtt.unwrap_or(Duration::MAX);
            let second = candidate.role != NodeRole::Relay;
            (second, latency, distance, candidate.node)
        })
        .collect();
    found.sort_unstable();
    found.truncate(count);
    found.into_iter().map(|(_, _, _, node)| node).collect()
}

/// When a direct way to a node that is reached through a relay is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectRetry {
    due: Instant,
    wait: Duration,
}

impl DirectRetry {
    /// The first attempt is due soon: the other side tries then too, and when packets of both are on their way, each
    /// firewall takes the other's for answers.
    #[must_use]
    pub fn new(now: Instant) -> DirectRetry {
        DirectRetry {
            due: now + DIRECT_RETRY_MIN,
            wait: DIRECT_RETRY_MIN,
        }
    }

    /// Whether an attempt is due; if so, the next is due after twice as long, up to [`DIRECT_RETRY_MAX`].
    pub fn take_turn(&mut self, now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        self.wait = (self.wait * 2).min(DIRECT_RETRY_MAX);
        self.due = now + self.wait;
        true
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn the_majority_of_those_who_tried_decides() {
        use DialBack::{NotReached, NotTried, OtherAddress, Reached};
        let check = |found: &[DialBack], expected| assert_eq!(is_dialable(found), expected);
        check(&[], None);
        check(&[NotTried, NotTried], None);
        check(&[Reached], Some(true));
        check(&[NotReached], Some(false));
        check(&[Reached, NotReached], Some(false));
        check(&[Reached, NotReached, Reached], Some(true));
        check(&[OtherAddress, NotTried], Some(false));
        check(&[OtherAddress, OtherAddress, Reached], Some(true));
    }

    #[test]
    fn only_the_machine_that_asks_is_dialled_back() {
        let claimed = |text: &str| ClaimedAddress::from(text.parse::<SocketAddr>().unwrap());
        let check = |text: &str, observed: &str, expected: Option<&str>| {
            let dialled = claimed(text).to_dial(observed.parse().unwrap());
            assert_eq!(dialled, expected.map(|e| e.parse().unwrap()), "{text}");
        };
        check("10.0.0.1:9000", "10.0.0.1", Some("10.0.0.1:9000"));
        check("10.0.0.1:9000", "::ffff:10.0.0.1", Some("10.0.0.1:9000"));
        check("10.0.0.1:9000", "10.0.0.2", None);
        check("[fd00::1]:9000", "fd00::1", Some("[fd00::1]:9000"));
        check("10.0.0.1:0", "10.0.0.1", None);
    }

    #[test]
    fn relays_are_chosen_by_role_and_latency() {
        let candidate = |number: u8, role, ms: Option<u64>| RelayCandidate {
            node: NodeId([number; 32]),
            role,
            rtt: ms.map(Duration::from_millis),
        };
        let candidates = vec![
            candidate(1, NodeRole::Edge, Some(1)),
            candidate(2, NodeRole::Core, Some(1)),
            candidate(3, NodeRole::Relay, Some(30)),
            candidate(4, NodeRole::Relay, Some(20)),
            candidate(5, NodeRole::Relay, None),
            candidate(0, NodeRole::Relay, Some(1)),
        ];
        let chosen = choose_relays(&NodeId([0; 32]), candidates.clone(), 2);
        assert_eq!(chosen, [4, 3].map(|n| NodeId([n; 32])));
        let all = choose_relays(&NodeId([0; 32]), candidates, 9);
        assert_eq!(all, [4, 3, 5, 2].map(|n| NodeId([n; 32])));
    }

    #[test]
    fn direct_ways_are_tried_less_and_less_often() {
        let at = |seconds| Instant::from_start(Duration::from_secs(seconds));
        let mut retry = DirectRetry::new(at(0));
        let mut taken = Vec::new();
        for second in 0..600 {
            if retry.take_turn(at(second)) {
                taken.push(second);
            }
        }
        assert_eq!(taken[..7], [1, 3, 7, 15, 31, 63, 123]);
        assert_eq!(taken.last(), Some(&543));
    }
}

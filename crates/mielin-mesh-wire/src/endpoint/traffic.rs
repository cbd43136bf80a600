//! What went over the connections.

use std::ops::AddAssign;

use crate::peer::Peer;

/// Counts since the endpoint was opened; they only rise. Bytes are those of UDP payloads: QUIC's headers,
/// acknowledgements and repetitions count too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections to and from members that stood at some time.
    pub connections: u64,
    /// Of those, the ones that this node or the peer has closed because nobody used them.
    pub closed_idle: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Packets that were taken for lost, and repeated where that mattered.
    pub packets_lost: u64,
}

impl Traffic {
    /// What went over one connection, which may have ended.
    pub(super) fn over(peer: &Peer) -> Traffic {
        let stats = peer.connection().stats();
        Traffic {
            connections: 1,
            closed_idle: 0,
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
            packets_lost: stats.path.lost_packets,
        }
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Traffic) {
        self.connections += other.connections;
        self.closed_idle += other.closed_idle;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.packets_lost += other.packets_lost;
    }
}

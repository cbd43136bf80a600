//! What came on the ways to a host of leaves: who set up a leaf that does not appear looks here.

use std::fmt;
use std::net::SocketAddr;

use mielin_mesh_core::leaf::PacketError;

use super::LineSource;

/// A way on which leaves reach this node, and how it did since the node started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafWay {
    /// This node's end of it.
    pub end: WayEnd,
    /// Why it is closed at the moment. Lines are opened again as soon as they are there.
    pub closed: Option<String>,
    /// The packets that were accepted: those of leaves, and hellos with the number of one, which are answered. That a leaf has another secret than was admitted
    /// only the leaf finds out.
    pub packets: u64,
    /// The packets and frames that were not: noise, repetitions of what was said in a link, and what comes from no leaf that is admitted.
    pub dropped: u64,
    /// Why the last of these was dropped.
    pub last_dropped: Option<PacketError>,
}

/// This node's end of a way to leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WayEnd {
    /// The address where it listens for datagrams.
    Udp(SocketAddr),
    /// A serial line.
    Line(LineSource),
}

impl fmt::Display for WayEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WayEnd::Udp(address) => address.fmt(f),
            WayEnd::Line(line) => line.fmt(f),
        }
    }
}

impl LeafWay {
    pub(super) fn udp(address: SocketAddr) -> LeafWay {
        LeafWay::new(WayEnd::Udp(address), None)
    }

    pub(super) fn line(line: LineSource) -> LeafWay {
        LeafWay::new(WayEnd::Line(line), Some("it is being opened".to_owned()))
    }

    fn new(end: WayEnd, closed: Option<String>) -> LeafWay {
        LeafWay {
            end,
            closed,
            packets: 0,
            dropped: 0,
            last_dropped: None,
        }
    }

    pub(super) fn drop_packets(&mut self, packets: u32, why: PacketError) {
        self.dropped += u64::from(packets);
        self.last_dropped = Some(why);
    }
}

/// What a line has for the driver.
#[derive(Debug)]
pub(super) enum Arrival {
    Opened,
    /// It is closed, for this reason.
    Closed(String),
    Packet(Vec<u8>),
    /// Frames that were cut short, too long, or none.
    Noise(u32),
}

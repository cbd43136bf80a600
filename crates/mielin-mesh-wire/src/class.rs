//! Classes of traffic: which stream goes first, and what went over each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a stream is for. It follows from the number of its protocol, so both
/// ends know it.
///
/// Of the streams of a connection that have something to send, those of the
/// earlier class send first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrafficClass {
    /// What keeps the mesh together: membership, the table, pings. Protocols 0
    /// to 99, but for those named below. Datagrams too.
    Control,
    /// Pages that a running agent waits for. Protocols 300 to 399.
    PageFaults,
    /// Between agents, and commands about them. Protocols 100 to 199 and from
    /// 400, messages between agents (10, 11) and those that members hand on (8).
    Messages,
    /// Whatever takes long: moves of agents. Protocols 200 to 299, and circuits
    /// (7), which yield to the rest of this class.
    Bulk,
}

impl TrafficClass {
    /// All, the most urgent first.
    pub const ALL: [TrafficClass; 4] = [
        TrafficClass::Control,
        TrafficClass::PageFaults,
        TrafficClass::Messages,
        TrafficClass::Bulk,
    ];

    /// The class of a protocol.
    #[must_use]
    pub const fn of(protocol: u16) -> TrafficClass {
        match protocol {
            7 | 200..300 => TrafficClass::Bulk,
            8 | 10 | 11 => TrafficClass::Messages,
            0..100 => TrafficClass::Control,
            300..400 => TrafficClass::PageFaults,
            _ => TrafficClass::Messages,
        }
    }

    /// As it is written in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            TrafficClass::Control => "control",
            TrafficClass::PageFaults => "page_faults",
            TrafficClass::Messages => "messages",
            TrafficClass::Bulk => "bulk",
        }
    }

    /// The transport sends of the highest first; streams begin with 0.
    pub(crate) fn priority(self) -> i32 {
        match self {
            TrafficClass::Control => 3,
            TrafficClass::PageFaults => 2,
            TrafficClass::Messages => 1,
            TrafficClass::Bulk => 0,
        }
    }
}

/// Bytes that went over streams, and in datagrams, without the transport's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassTraffic {
    /// Bytes handed to the transport.
    pub bytes_sent: u64,
    /// Bytes taken from it.
    pub bytes_received: u64,
}

/// Counts of one endpoint; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClassCounters(Arc<[[AtomicU64; 2]; 4]>);

impl ClassCounters {
    pub(crate) fn sent(&self, class: TrafficClass, bytes: usize) {
        self.0[class as usize][0].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, class: TrafficClass, bytes: usize) {
        self.0[class as usize][1].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn of(&self, class: TrafficClass) -> ClassTraffic {
        let [sent, received] = &self.0[class as usize];
        ClassTraffic {
            bytes_sent: sent.load(Ordering::Relaxed),
            bytes_received: received.load(Ordering::Relaxed),
        }
    }
}

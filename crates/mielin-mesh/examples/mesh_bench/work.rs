//! What every contender is asked to do, and the header that says it.

use std::time::Duration;

/// One bulk payload.
pub(crate) const BULK_BYTES: usize = 16 * 1024 * 1024;
/// One small message.
pub(crate) const SMALL_BYTES: usize = 1024;
/// What a buffered sender hands to its transport at once.
pub(crate) const BUFFER_BYTES: usize = 64 * 1024;
/// Length of a written [`Work`].
pub(crate) const HEADER_BYTES: usize = 5;

/// The kinds of traffic.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Payloads of 16 MiB, one after the other.
    Bulk,
    /// Messages of 1 KiB on one stream, buffered.
    Small,
    /// A request of 1 KiB and its answer, one at a time.
    RoundTrip,
}

/// A piece of work: so many items of a kind.
#[derive(Clone, Copy)]
pub(crate) struct Work {
    pub(crate) kind: Kind,
    pub(crate) count: u32,
}

impl Work {
    pub(crate) fn header(self) -> [u8; HEADER_BYTES] {
        let kind = match self.kind {
            Kind::Bulk => 0,
            Kind::Small => 1,
            Kind::RoundTrip => 2,
        };
        let [a, b, c, d] = self.count.to_be_bytes();
        [kind, a, b, c, d]
    }

    pub(crate) fn parse(header: [u8; HEADER_BYTES]) -> Work {
        let [kind, a, b, c, d] = header;
        let kind = match kind {
            0 => Kind::Bulk,
            1 => Kind::Small,
            _ => Kind::RoundTrip,
        };
        let count = u32::from_be_bytes([a, b, c, d]);
        Work { kind, count }
    }

    /// Bytes of one item.
    pub(crate) fn item_bytes(self) -> usize {
        match self.kind {
            Kind::Bulk => BULK_BYTES,
            Kind::Small | Kind::RoundTrip => SMALL_BYTES,
        }
    }

    /// Bytes from the client to the server, without framing.
    pub(crate) fn bytes(self) -> u64 {
        self.item_bytes() as u64 * u64::from(self.count)
    }
}

/// Times of single round trips; empty for the other kinds.
pub(crate) type RoundTrips = Vec<Duration>;

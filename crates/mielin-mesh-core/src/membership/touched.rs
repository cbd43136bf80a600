//! Whom to look at after a call to foca.
//!
//! foca does not say when a member becomes a suspect or refutes, but whatever changes it also writes down to be
//! spread, and the codec notes whom that is about. To compare all members after each datagram would cost a group of a
//! thousand more than the protocol itself.

use core::sync::atomic::{AtomicU32, Ordering};

use super::sync::bucket_of;
use crate::NodeId;

/// The buckets of those who may have changed; most calls touch none, few more than one. In halves, because
/// microcontrollers have no atomics of 64 bits.
#[derive(Debug, Default)]
pub(super) struct Touched {
    low: AtomicU32,
    high: AtomicU32,
}

impl Touched {
    pub(super) fn add(&self, id: &NodeId) {
        let bucket = bucket_of(id);
        let half = if bucket < 32 { &self.low } else { &self.high };
        half.fetch_or(1 << (bucket % 32), Ordering::Relaxed);
    }

    pub(super) fn add_all(&self) {
        self.low.store(u32::MAX, Ordering::Relaxed);
        self.high.store(u32::MAX, Ordering::Relaxed);
    }

    /// What was touched since the last call; `None` if nothing was.
    pub(super) fn take(&self) -> Option<Buckets> {
        let take = |half: &AtomicU32| u64::from(half.swap(0, Ordering::Relaxed));
        let buckets = take(&self.low) | take(&self.high) << 32;
        (buckets != 0).then_some(Buckets(buckets))
    }
}

/// A set of the 64 buckets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buckets(u64);

impl Buckets {
    pub(super) fn contain(self, id: &NodeId) -> bool {
        self.0 >> bucket_of(id) & 1 == 1
    }
}

//! Whom to look at after a call to foca.
//!
//! foca does not say when a member becomes a suspect or refutes, but whatever changes it also writes down to be
//! spread, and the codec notes whom that is about. To compare all members after each datagram would cost a group of a
//! thousand more than the protocol itself.

use core::sync::atomic::{AtomicU64, Ordering};

use super::sync::bucket_of;
use crate::NodeId;

/// The buckets of those who may have changed; most calls touch none, few more than one.
#[derive(Debug, Default)]
pub(super) struct Touched(AtomicU64);

impl Touched {
    pub(super) fn add(&self, id: &NodeId) {
        self.0.fetch_or(1 << bucket_of(id), Ordering::Relaxed);
    }

    pub(super) fn add_all(&self) {
        self.0.store(u64::MAX, Ordering::Relaxed);
    }

    /// What was touched since the last call; `None` if nothing was.
    pub(super) fn take(&self) -> Option<Buckets> {
        let buckets = self.0.swap(0, Ordering::Relaxed);
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

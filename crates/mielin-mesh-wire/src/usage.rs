//! Whether anybody uses a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Set when the connection has been given up.
const GIVEN_UP: usize = 1 << (usize::BITS - 1);

/// Counts those who use a connection; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage(Arc<AtomicUsize>);

/// One who uses a connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct InUse(Usage);

impl Usage {
    /// One more; `None` when the connection has been given up.
    pub(crate) fn begin(&self) -> Option<InUse> {
        let more = |count| (count & GIVEN_UP == 0).then_some(count + 1);
        let (ordering, count) = (Ordering::AcqRel, &self.0);
        count
            .fetch_update(ordering, Ordering::Acquire, more)
            .is_ok()
            .then(|| InUse(self.clone()))
    }

    /// Lets nobody begin any more, unless somebody uses the connection; whether that was so. Whoever is told `true`
    /// may close it: nothing that anybody said on it has been acted upon and not been answered.
    pub(crate) fn give_up(&self) -> bool {
        let (ordering, count) = (Ordering::AcqRel, &self.0);
        count
            .compare_exchange(0, GIVEN_UP, ordering, Ordering::Acquire)
            .is_ok()
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.0.load(Ordering::Acquire) == GIVEN_UP
    }
}

impl Clone for InUse {
    fn clone(&self) -> InUse {
        self.0.0.fetch_add(1, Ordering::AcqRel);
        InUse(self.0.clone())
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_not_given_up_and_what_is_given_up_is_not_used() {
        let usage = Usage::default();
        let one = usage.begin().unwrap();
        let two = one.clone();
        drop(one);
        assert!(!usage.give_up(), "somebody uses it still");
        drop(two);
        assert!(usage.give_up() && usage.is_given_up());
        assert!(usage.begin().is_none());
        assert!(!usage.give_up(), "one closes it");
    }
}

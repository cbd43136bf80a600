//! Memory of the program's image that is used by whoever takes it first: stacks are too small for it.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// A value that can be taken once.
pub(crate) struct Once<T> {
    value: UnsafeCell<T>,
    taken: AtomicBool,
}

// SAFETY: whoever has changed `taken` first has the value, and nobody else ever reaches it; programs have one thread here.
unsafe impl<T> Sync for Once<T> {}

impl<T> Once<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self {
            value: UnsafeCell::new(value),
            taken: AtomicBool::new(false),
        }
    }

    /// The value, for ever.
    ///
    /// # Panics
    /// If it was taken.
    #[allow(clippy::mut_from_ref, reason = "there is one such reference only")]
    pub(crate) fn take(&'static self) -> &'static mut T {
        assert!(
            !self.taken.swap(true, Ordering::Relaxed),
            "it is taken once"
        );
        // SAFETY: there is no other reference to it: this is the first, and the last.
        unsafe { &mut *self.value.get() }
    }
}

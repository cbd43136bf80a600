//! What the main program hands to its interrupt handler.

use core::cell::UnsafeCell;

/// A place for drivers that belong to the handler while interrupts may come, and to the main program otherwise. There is
/// one processor, and the handler is not interrupted itself.
pub(crate) struct Handed<T>(UnsafeCell<Option<T>>);

// SAFETY: one processor runs, and of its two strands, main program and handler, each uses the value only when the other
// cannot: the main program with interrupts masked, the handler when one has come. The functions below ask for that.
unsafe impl<T> Sync for Handed<T> {}

impl<T> Handed<T> {
    pub(crate) const fn nothing() -> Self {
        Self(UnsafeCell::new(None))
    }

    /// Puts a value in, or takes it out.
    ///
    /// # Safety
    /// Called by the main program, with interrupts masked.
    pub(crate) unsafe fn replace(&self, value: Option<T>) -> Option<T> {
        // SAFETY: the caller sees to it that the handler does not run, and the reference ends with this call.
        unsafe { core::mem::replace(&mut *self.0.get(), value) }
    }

    /// Looks at what was handed over, or changes it.
    ///
    /// # Safety
    /// Called by the handler, or by the main program with interrupts masked, and not from within `work`.
    pub(crate) unsafe fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        // SAFETY: the caller sees to it that nobody else is here, and the reference ends with this call.
        unsafe { (*self.0.get()).as_mut().map(work) }
    }
}

//! An allocator that counts what each thread holds.
#![allow(
    unsafe_code,
    reason = "GlobalAlloc is an unsafe trait; every call is handed to System as it came"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes allocated less bytes freed by this thread; below zero where it frees what others made.
    static HELD: Cell<isize> = const { Cell::new(0) };
    /// The most that `HELD` has been.
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counting. Make it the `#[global_allocator]` of a test program.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counting;

// SAFETY: every method passes its arguments to `System`, which keeps the contract of `GlobalAlloc`;
// the counters are plain cells without destructors, so that using them allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's obligations are those of `System::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's obligations are those of `System::alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the pointer came from `System` with this layout, since `alloc` took it there.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: as in `dealloc`; the caller answers for the new size.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn count(change: isize) {
    let held = HELD.get() + change;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

/// The most bytes that `work` held at once on this thread, beyond what was held before. Zero unless
/// [`Counting`] is the program's allocator.
pub(crate) fn peak_of(work: impl FnOnce()) -> usize {
    let before = HELD.get();
    PEAK.set(before);
    work();
    PEAK.get().saturating_sub(before).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    #[test]
    fn the_peak_is_seen_even_if_nothing_remains() {
        let peak = peak_of(|| {
            drop(vec![0_u8; 10_000]);
            drop(vec![1_u8; 3_000]);
        });
        assert_eq!(peak, 10_000);
        let grown = peak_of(|| {
            let mut bytes = Vec::with_capacity(10);
            bytes.resize(5_000, 1_u8);
            bytes.shrink_to(100);
        });
        assert!((5_000..10_000).contains(&grown), "{grown}");
    }
}

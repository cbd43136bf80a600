//! Memory for the kernels, which give back what they take.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

/// The matrix product of bytes copies blocks of both factors.
const BYTES: usize = 2 << 20;

/// Gives memory from the front on; all of it can be had again when all of it was given back.
struct Heap {
    memory: UnsafeCell<[u8; BYTES]>,
    used: AtomicUsize,
    given: AtomicUsize,
}

// SAFETY: a place of the memory is given to one who asks, once; see `alloc`.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap {
    memory: UnsafeCell::new([0; BYTES]),
    used: AtomicUsize::new(0),
    given: AtomicUsize::new(0),
};

// SAFETY: `alloc` gives memory that is in the array, aligned, and behind all that is given; one processor runs, and nothing
// that an interrupt calls allocates, so that nobody else changes the counters meanwhile.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let base = self.memory.get().cast::<u8>();
        let used = self.used.load(Ordering::Relaxed);
        let start = (base.addr() + used).next_multiple_of(layout.align()) - base.addr();
        match start.checked_add(layout.size()) {
            Some(end) if end <= BYTES => {
                self.used.store(end, Ordering::Relaxed);
                let given = self.given.load(Ordering::Relaxed);
                self.given.store(given + 1, Ordering::Relaxed);
                base.wrapping_add(start)
            }
            _ => ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {
        let given = self.given.load(Ordering::Relaxed) - 1;
        self.given.store(given, Ordering::Relaxed);
        if given == 0 {
            self.used.store(0, Ordering::Relaxed);
        }
    }
}

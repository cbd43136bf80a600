//! Memory for `alloc`: what a program gives to it. A crate of its own, because whatever links it must have such memory.
#![no_std]
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicBool, Ordering};

use lock_api::{GuardSend, RawMutex};
use talc::TalcLock;
use talc::source::Manual;

use mielin_user::objects::give_way;
use mielin_user::{Error, Supplies};

/// A lock for threads of one priority: who finds it taken gives way.
#[derive(Debug)]
pub struct YieldLock(AtomicBool);

// SAFETY: only who has changed the word from false to true has the lock, until it unlocks.
unsafe impl RawMutex for YieldLock {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = GuardSend;

    fn lock(&self) {
        while !self.try_lock() {
            give_way();
        }
    }

    fn try_lock(&self) -> bool {
        !self.0.swap(true, Ordering::Acquire)
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The memory of a program's `alloc`; empty at first.
pub type Heap = TalcLock<YieldLock, Manual>;

/// An empty one.
#[must_use]
pub const fn empty() -> Heap {
    TalcLock::new(Manual)
}

/// Makes the program's [`Heap`], by the name `HEAP`.
#[macro_export]
macro_rules! heap {
    () => {
        #[global_allocator]
        static HEAP: $crate::Heap = $crate::empty();
    };
}

/// Gives memory to a heap, for ever. What is too small to be used is not.
///
/// # Safety
/// The bytes are mapped for reading and writing, or are when they are touched, and nobody else uses them.
pub unsafe fn give(heap: &Heap, at: u64, bytes: u64) {
    let first: *mut u8 = core::ptr::with_exposed_provenance_mut(at as usize);
    // SAFETY: by the caller's promise.
    unsafe { heap.lock().claim(first, bytes as usize) };
}

/// Gives a heap new pages.
///
/// # Errors
/// What the kernel says.
pub fn begin(heap: &Heap, supplies: &mut Supplies, pages: u64) -> Result<(), Error> {
    let at = supplies.memory(pages)?;
    // SAFETY: the pages were mapped just now, for this.
    unsafe { give(heap, at, pages << 12) };
    Ok(())
}

/// Gives a heap new pages of 2 MiB.
///
/// # Errors
/// What the kernel says.
pub fn begin_large(heap: &Heap, supplies: &mut Supplies, count: u64) -> Result<(), Error> {
    let at = supplies.large_memory(count)?;
    // SAFETY: as above.
    unsafe { give(heap, at, count << 21) };
    Ok(())
}

//! The floating-point unit of processors that can refuse it to programs: registers stay in it until another thread needs it, since
//! those who may not use it cannot see them. (On x86-64 they are saved at once: see its own module.)

use core::cell::Cell;
use core::ptr;

use mielin_kernel::{FLOATS_AT, FLOATS_BYTES, Ref, Thread};

use crate::arch;
use crate::memory;

/// Who has the unit.
pub(crate) struct Floats {
    /// Whose registers are in it.
    of: Cell<Option<Ref<Thread>>>,
    /// Whether programs may use it now.
    on: Cell<bool>,
}

impl Floats {
    /// Nobody's, and refused.
    pub(crate) const fn new() -> Self {
        Self {
            of: Cell::new(None),
            on: Cell::new(false),
        }
    }

    /// A thread is new: what its memory held before is not for it.
    pub(crate) fn begin_thread(thread: Ref<Thread>) {
        // SAFETY: a thread's memory has these bytes for the port, and no Rust object is there.
        unsafe { ptr::write_bytes(place(thread).cast::<u8>(), 0, FLOATS_BYTES as usize) }
    }

    /// A thread is no more.
    pub(crate) fn forget(&self, thread: Ref<Thread>) {
        if self.of.get() == Some(thread) {
            self.of.set(None);
        }
    }

    /// Gives the unit to a thread that goes on, if it uses it, and refuses it otherwise.
    #[inline(always)]
    pub(crate) fn arrange(&self, thread: Ref<Thread>) {
        if memory::object(thread).uses_floats() {
            if self.of.get() != Some(thread) || !self.on.get() {
                self.exchange(thread);
            }
        } else if self.on.get() {
            self.on.set(false);
            arch::floats_off();
        }
    }

    #[cold]
    fn exchange(&self, thread: Ref<Thread>) {
        if !self.on.replace(true) {
            arch::floats_on();
        }
        if self.of.get() == Some(thread) {
            return;
        }
        if let Some(owner) = self.of.replace(Some(thread)) {
            arch::save_floats(place(owner));
        }
        arch::load_floats(place(thread));
    }
}

/// Where a thread's floating-point registers are kept.
fn place(thread: Ref<Thread>) -> *mut u64 {
    memory::pointer(thread.address() + FLOATS_AT)
}

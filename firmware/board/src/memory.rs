//! Memory that no static has.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::slice;

use critical_section::Mutex;

use crate::devices;

static TAKEN: Mutex<Cell<bool>> = Mutex::new(Cell::new(false));

unsafe extern "C" {
    /// The lowest address that the stack may reach.
    static mut _stack_end: u32;
}

/// The memory between the statics and the stack, once: its address and its length in bytes. `None` the second time.
#[must_use]
pub fn heap() -> Option<(*mut u8, usize)> {
    let taken = critical_section::with(|section| TAKEN.borrow(section).replace(true));
    let begin = cortex_m_rt::heap_start().cast::<u8>();
    let end = &raw mut _stack_end;
    (!taken).then(|| (begin, end.addr().saturating_sub(begin.addr())))
}

/// The page that says who the board is, as far as it was written.
#[must_use]
pub fn page() -> &'static [u8] {
    // SAFETY: the board has memory there, which the linker does not give to anything else and nobody writes while the processor runs.
    unsafe { slice::from_raw_parts(core::ptr::with_exposed_provenance(devices::PAGE), 4096) }
}

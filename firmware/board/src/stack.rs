//! How much of the stack has been used.
#![allow(unsafe_code)]

/// With what `cortex-m-rt` fills the stack before anything runs (feature `paint-stack`).
const PAINT: u32 = 0xcccc_cccc;

unsafe extern "C" {
    /// The end of the statics, and the lowest address that the stack may reach.
    static mut _stack_end: u32;
    /// Where the stack begins, at its top.
    static mut _stack_start: u32;
}

/// From its top to the lowest word that is painted no more.
pub(crate) fn used() -> usize {
    let (end, start) = (&raw const _stack_end, &raw const _stack_start);
    let mut place = end;
    // SAFETY: the linker script has both around the memory of the stack, which is readable; words that the stack has now are
    // only read, and their values not relied on.
    while place < start && unsafe { place.read_volatile() } == PAINT {
        place = place.wrapping_add(1);
    }
    start.addr() - place.addr()
}

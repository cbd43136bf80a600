//! How much of the stack has been used, and by whom.
#![allow(unsafe_code)]

/// With what `cortex-m-rt` fills the stack before anything runs (feature `paint-stack`).
const PAINT: u32 = 0xcccc_cccc;

unsafe extern "C" {
    /// The end of the statics, and the lowest address that the stack may reach.
    static mut _stack_end: u32;
    /// Where the stack begins, at its top.
    static mut _stack_start: u32;
    /// Where the code is.
    #[cfg(not(feature = "messages"))]
    static __stext: u32;
    #[cfg(not(feature = "messages"))]
    static __etext: u32;
}

/// Addresses of code on the stack, the newest first: where calls return to, and what looks like that.
#[cfg(not(feature = "messages"))]
pub(crate) fn returns() -> impl Iterator<Item = u32> {
    let code = (&raw const __stext).addr()..(&raw const __etext).addr();
    let start = &raw const _stack_start;
    let mut place =
        core::ptr::with_exposed_provenance::<u32>(cortex_m::register::msp::read() as usize);
    core::iter::from_fn(move || {
        while place.is_aligned() && place < start {
            // SAFETY: the words between the stack pointer and where the stack begins are the stack's, readable, and only read.
            let word = unsafe { place.read_volatile() };
            place = place.wrapping_add(1);
            // Of Thumb's addresses the lowest bit is set.
            if word & 1 == 1 && code.contains(&(word as usize)) {
                return Some(word);
            }
        }
        None
    })
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

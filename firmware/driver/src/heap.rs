//! Memory for `alloc`: all between the statics and the stack.
#![allow(unsafe_code)]

use alloc::alloc::{Layout, alloc, dealloc};

use embedded_alloc::LlffHeap;

#[global_allocator]
static HEAP: LlffHeap = LlffHeap::empty();

/// Gives the heap its memory, once.
pub(crate) fn begin() {
    if let Some((at, bytes)) = board::heap() {
        // SAFETY: the memory is between the statics and the stack, nobody else's, and given once, as `board::heap` promises.
        unsafe { HEAP.init(at.addr(), bytes) }
    }
}

/// How much is free, in pieces.
#[must_use]
pub fn free_bytes() -> usize {
    HEAP.free()
}

/// Whether pieces of these sizes are free, all at once. Whoever lets a peer decide how much is allocated asks before: what finds no room otherwise is
/// a panic, and resets the board.
#[must_use]
pub fn has_room(sizes: &[usize]) -> bool {
    let Some((first, rest)) = sizes.split_first() else {
        return true;
    };
    let Ok(layout) = Layout::from_size_align((*first).max(1), 8) else {
        return false;
    };
    // SAFETY: the size is not zero.
    let piece = unsafe { alloc(layout) };
    if piece.is_null() {
        return false;
    }
    let fits = has_room(rest);
    // SAFETY: it was allocated above by the same allocator and layout.
    unsafe { dealloc(piece, layout) };
    fits
}

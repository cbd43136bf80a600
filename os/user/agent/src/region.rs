//! The region of the program's memory: its first thread's stack, and behind that what `alloc` has.
#![allow(unsafe_code)]

use mielin_user::Startup;
use mielin_user::agents::{REGION, REGION_BYTES, STACK_BYTES};

use crate::HEAP;

/// What the stack leaves of the region.
pub(crate) fn begin_heap(startup: Startup) {
    let begin = startup.argument(REGION) + STACK_BYTES;
    let bytes = startup.argument(REGION_BYTES).saturating_sub(STACK_BYTES);
    // SAFETY: the page server maps what is touched of the region, and nobody else uses it; the stack ends where this begins.
    unsafe { mielin_heap::give(&HEAP, begin, bytes) };
}

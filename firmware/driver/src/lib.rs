//! What the images with a link have in common: a heap, the page that says who the board is, random bytes, the time, and a line on the board's
//! UART.
#![no_std]

extern crate alloc;

mod heap;
mod line;
mod start;

pub use heap::{free_bytes, has_room};
pub use line::{Port, instant, ns, ticks};
pub use start::{Start, halt};

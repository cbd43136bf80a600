//! A firmware that prints what `mielin-hal` finds out of the machine, and tries its drivers: console, timer, interrupt
//! controller, page tables, and the end. `cargo xtask probe` runs it under QEMU and compares what it prints with what the emulated
//! processor has.
//!
//! What it prints are lines `name: value`; the last one is `probe: passed`, or `probe: ` and what went wrong.

#![no_std]
#![no_main]

mod board;
mod checks;
mod handed;
#[cfg(kernels)]
mod heap;
#[cfg(kernels)]
mod kernels;
#[cfg(not(cortex_m))]
mod translation;

use core::fmt::Write;
use core::panic::PanicInfo;

use mielin_hal::{Outcome, Text};

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut console = board::console();
    // A console takes everything.
    let _ = writeln!(Text(&mut console), "probe: {info}");
    board::end(Outcome::Failure)
}

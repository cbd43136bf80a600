//! The microkernel on a machine: what [`mielin_kernel`] leaves to a port.
//!
//! [`port`] and [`memory`] are the same for all architectures, and [`arch`] is what is different: how the machine starts, how
//! programs enter the kernel, the MMU, the clock, interrupts.

#![no_std]
#![no_main]

mod arch;
mod archive;
#[cfg(not(target_arch = "x86_64"))]
mod floats;
mod image;
mod memory;
mod port;
mod regions;
mod start;
mod tables;

use core::fmt::Write;
use core::panic::PanicInfo;

use mielin_hal::{Outcome, Text};

/// Says where and in which state the kernel has failed, and ends the machine with a failure.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut console = arch::console();
    let mut text = Text(&mut console);
    // A console takes everything.
    let _ = writeln!(text, "kernel: {info}");
    if let Some(kernel) = port::kernel_if_begun() {
        let _ = writeln!(text, "kernel: the current thread is {:?}", kernel.current());
    }
    arch::end(Outcome::Failure)
}

//! Where a program begins, and how it ends after a panic.
#![allow(unsafe_code)]

use core::arch::{asm, global_asm};

use crate::boot::Information;
use crate::startup::Startup;

// The kernel gives a new thread a stack and, in the first argument, an address: of the boot information for the first one.
#[cfg(target_arch = "riscv64")]
global_asm!(
    r#"
    .section .text.entry, "ax"
    .globl _start
_start:
    call program_main
    unimp
"#
);
#[cfg(target_arch = "aarch64")]
global_asm!(
    r#"
    .section .text.entry, "ax"
    .globl _start
_start:
    bl program_main
    udf #0
"#
);
#[cfg(target_arch = "x86_64")]
global_asm!(
    r#"
    .section .text.entry, "ax"
    .globl _start
_start:
    call program_main
    ud2
"#
);

/// What a program finds when it begins.
pub trait Beginning {
    /// What is at this address.
    ///
    /// # Safety
    /// It is the first argument of the program's first thread.
    unsafe fn at(address: *const u64) -> Self;
}

impl Beginning for Information {
    unsafe fn at(address: *const u64) -> Self {
        // SAFETY: the kernel passes the first thread this address, and leaves the page to it.
        unsafe { Self::at(address) }
    }
}

impl Beginning for Startup {
    unsafe fn at(address: *const u64) -> Self {
        // SAFETY: whoever starts a program passes this address to it, and leaves the page to it.
        unsafe { Self::at(address) }
    }
}

/// Makes the function that a program begins with: the first one of all gets [`Information`], others [`Startup`].
///
/// ```ignore
/// fn main(startup: mielin_user::Startup) -> ! { … }
/// mielin_user::program!(main);
/// ```
#[macro_export]
macro_rules! program {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn program_main(beginning: *const u64) -> ! {
            // SAFETY: this is the program's first thread, which begins here.
            $main(unsafe { $crate::start::Beginning::at(beginning) })
        }
    };
}

/// Makes what a panic does in a program that others look after: it says where, if it has a console, and stops by a fault.
#[macro_export]
macro_rules! stop_on_panic {
    ($name:literal) => {
        #[panic_handler]
        fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
            $crate::say!("{}: {}", $name, info);
            $crate::start::fail()
        }
    };
}

/// Stops the thread by a fault, for whoever is told of its faults.
pub fn fail() -> ! {
    loop {
        // SAFETY: an instruction that is none; the kernel does not come back from it unless somebody says so.
        #[cfg(target_arch = "riscv64")]
        unsafe {
            asm!("unimp", options(nomem, nostack));
        }
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        unsafe {
            asm!("udf #0", options(nomem, nostack));
        }
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            asm!("ud2", options(nomem, nostack));
        }
    }
}

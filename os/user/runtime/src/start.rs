//! Where a program begins, and how it ends after a panic.
#![allow(unsafe_code)]

use core::arch::{asm, global_asm};

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

/// Makes the function that a program begins with.
///
/// ```ignore
/// fn main(information: mielin_user::Information) -> ! { … }
/// mielin_user::program!(main);
/// ```
#[macro_export]
macro_rules! program {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn program_main(information: *const u64) -> ! {
            let main: fn($crate::Information) -> ! = $main;
            // SAFETY: the kernel passes the first thread this address, and leaves the page to it.
            main(unsafe { $crate::Information::at(information) })
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

//! Instructions and the System Control Space of Cortex-M.
#![allow(unsafe_code)]

use core::arch::asm;

use crate::drivers::kernel::Kernel;
use crate::drivers::registers::Registers;

const SYSTEM_CONTROL_SPACE: usize = 0xe000_e000;
const SYSTEM_CONTROL_SPACE_BYTES: usize = 0x1000;

/// Its registers; the drivers of its parts share them.
pub(in crate::drivers) fn system_control_space(_: Kernel) -> Registers {
    // SAFETY: every Cortex-M has it there and privileged code may access it (Armv6-M, Armv7-M and Armv8-M ARM, "The
    // System Address Map"). The drivers in this crate that are given it, of the NVIC and of SysTick, use registers of
    // their own in it, and neither can be made to write to memory.
    unsafe { Registers::new(SYSTEM_CONTROL_SPACE, SYSTEM_CONTROL_SPACE_BYTES) }
}

pub(in crate::drivers) fn rest(_: Kernel) {
    // SAFETY: privileged code may do this. WFI ends when an interrupt is pending, also a masked one (Armv7-M ARM, B1.5.19).
    // It has the effects of the handlers that the program has installed, so memory counts as changed.
    unsafe {
        asm!(
            "dsb",
            "wfi",
            "cpsie i",
            "isb",
            "cpsid i",
            options(nostack, preserves_flags)
        );
    }
}

/// Asks the debugger to do something.
pub(in crate::drivers) fn semihosting(_: Kernel, operation: u32, arguments: &[usize; 2]) {
    // SAFETY: the debugger reads what r1 points to, which is borrowed here, and answers in r0 (Semihosting 2.0,
    // "The semihosting interface"). Without one the instruction is a fault, in which the processor goes to the program's handler or stops.
    unsafe {
        asm!(
            "bkpt 0xab",
            inlateout("r0") operation => _,
            in("r1") arguments.as_ptr(),
            options(nostack)
        );
    }
}

//! Control registers and calls of a RISC-V supervisor.
#![allow(unsafe_code)]

use core::arch::asm;

use crate::drivers::kernel::Kernel;

/// `sstatus.SIE`: interrupts may come.
const SSTATUS_SIE: usize = 1 << 1;
/// `sie.STIE` and `sie.SEIE`: those of the timer, and those of an external controller.
const SIE_STIE: usize = 1 << 5;
const SIE_SEIE: usize = 1 << 9;

pub(in crate::drivers) fn rest(_: Kernel) {
    // SAFETY: a supervisor may do this. WFI ends when an enabled interrupt is pending, also a masked one (privileged
    // architecture, 3.3.3). It has the effects of the handlers that the program has installed, so memory counts as changed.
    unsafe {
        asm!(
            "wfi",
            "csrs sstatus, {0}",
            "csrc sstatus, {0}",
            in(reg) SSTATUS_SIE,
            options(nostack)
        );
    }
}

/// Whether the timer's interrupts may come.
pub(in crate::drivers) fn accept_timer_interrupts(_: Kernel, on: bool) {
    accept(SIE_STIE, on);
}

impl Kernel {
    /// Whether interrupts of an external controller, such as a [`Plic`](crate::drivers::Plic), may come.
    pub fn accept_external_interrupts(self, on: bool) {
        accept(SIE_SEIE, on);
    }
}

fn accept(bits: usize, on: bool) {
    // SAFETY: called with a `Kernel` in hand: a supervisor may write `sie`, which lets interrupts come that it enables
    // itself; memory counts as changed.
    unsafe {
        match on {
            true => asm!("csrs sie, {}", in(reg) bits, options(nostack)),
            false => asm!("csrc sie, {}", in(reg) bits, options(nostack)),
        }
    }
}

/// The time counter.
pub(in crate::drivers) fn time(_: Kernel) -> u64 {
    let ticks: u64;
    // SAFETY: firmware lets a supervisor read the counter, or does it for it; reading changes nothing (volume I,
    // "Zicntr").
    unsafe { asm!("csrr {}, time", out(reg) ticks, options(nomem, nostack, preserves_flags)) }
    ticks
}

/// Has the timer interrupt when the counter reaches `at`.
pub(in crate::drivers) fn set_time_compare(_: Kernel, at: u64) {
    // SAFETY: `stimecmp` (CSR 0x14d) is a supervisor's where it has Sstc. Where it has not, the instruction traps, which
    // breaks no memory (volume II, "Sstc").
    unsafe { asm!("csrw 0x14d, {}", in(reg) at, options(nostack, preserves_flags)) }
}

/// Calls the firmware with two arguments, and gives its error code.
pub(in crate::drivers) fn sbi_call(
    _: Kernel,
    extension: usize,
    function: usize,
    arguments: [usize; 2],
) -> isize {
    let error: isize;
    // SAFETY: from supervisor mode, which `Kernel` says this is, ECALL goes to the SBI's firmware. It changes a0 and a1
    // only (SBI 1.0.0, chapter 3), and the functions that this crate calls take no addresses.
    unsafe {
        asm!(
            "ecall",
            in("a7") extension,
            in("a6") function,
            inlateout("a0") arguments[0] => error,
            inlateout("a1") arguments[1] => _,
            options(nostack)
        );
    }
    error
}

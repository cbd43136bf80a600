//! Ports and instructions of x86-64 in ring 0.
#![allow(unsafe_code)]

use core::arch::asm;
use core::arch::x86_64::{_mm_lfence, _rdtsc};

use crate::drivers::kernel::Kernel;

/// Ports that are the registers of one device.
#[derive(Debug)]
pub struct Ports {
    base: u16,
    len: u16,
}

impl Ports {
    /// `len` ports from `base` on.
    ///
    /// # Safety
    /// For as long as the value lives, these ports are the registers of one device. It is given to the driver of this
    /// very device only, and what the device does by that driver's orders changes no memory.
    #[must_use]
    pub const unsafe fn new(_: Kernel, base: u16, len: u16) -> Self {
        Self { base, len }
    }

    /// Reads the byte at this port.
    ///
    /// # Panics
    /// If it is none of these ports; also in the other functions.
    #[must_use]
    pub fn read8(&self, offset: u16) -> u8 {
        let port = self.port(offset);
        let value: u8;
        // SAFETY: a `Kernel` was there when the value was made, so this is ring 0; the port is one of a device that its
        // driver reads.
        unsafe {
            asm!("in al, dx", in("dx") port, out("al") value, options(nostack, preserves_flags))
        }
        value
    }

    /// Writes the byte at this port.
    pub fn write8(&mut self, offset: u16, value: u8) {
        let port = self.port(offset);
        // SAFETY: as for `read8`; by `new` the device changes no memory.
        unsafe {
            asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags))
        }
    }

    fn port(&self, offset: u16) -> u16 {
        assert!(offset < self.len, "no port {offset:#x} of a device");
        self.base + offset
    }
}

/// The time-stamp counter, not read ahead of time (Intel SDM, volume 2B, "RDTSC").
pub(in crate::drivers) fn time_stamp(_: Kernel) -> u64 {
    // SAFETY: every x86-64 processor has the counter, which ring 0 may always read. LFENCE needs SSE2, which is part of
    // x86-64, and no state of it: it orders, and changes nothing.
    unsafe {
        _mm_lfence();
        _rdtsc()
    }
}

/// IA32_TSC_DEADLINE: when the local APIC's timer interrupts.
const DEADLINE: u32 = 0x6e0;

/// Sets that time, on a processor that has the register and an APIC whose timer is in that mode. 0 is never.
pub(in crate::drivers) fn set_deadline(_: Kernel, at: u64) {
    // SAFETY: the caller knows that the register is there, and ring 0 may write it; all it does is to choose when an
    // interrupt comes. The fence orders it behind writes to the APIC (Intel SDM, volume 3A, "TSC-Deadline Mode").
    unsafe {
        asm!(
            "mfence",
            "wrmsr",
            in("ecx") DEADLINE,
            in("eax") at as u32,
            in("edx") (at >> 32) as u32,
            options(nostack, preserves_flags),
        );
    }
}

pub(in crate::drivers) fn rest(_: Kernel) {
    // SAFETY: ring 0 may do this. STI lets interrupts come only after the next instruction, so that one that is pending
    // ends the HLT (Intel SDM, volume 2B, "STI"). It has the effects of the handlers that the program has installed, so
    // memory counts as changed.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) }
}

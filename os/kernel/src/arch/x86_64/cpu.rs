//! Instructions of ring 0.

use core::arch::asm;
use core::arch::x86_64::_rdtsc;

/// CR0: the unit for floating-point numbers is watched for FWAIT, too (MP), is not there for programs (TS), and reports errors
/// as exceptions (NE); the kernel keeps to what page tables say (WP).
pub(super) const CR0_MP: u64 = 1 << 1;
pub(super) const CR0_EM: u64 = 1 << 2;
pub(super) const CR0_TS: u64 = 1 << 3;
pub(super) const CR0_NE: u64 = 1 << 5;
pub(super) const CR0_WP: u64 = 1 << 16;

pub(super) const CR4_PAE: u64 = 1 << 5;
pub(super) const CR4_MCE: u64 = 1 << 6;
pub(super) const CR4_PGE: u64 = 1 << 7;
pub(super) const CR4_OSFXSR: u64 = 1 << 9;
pub(super) const CR4_OSXMMEXCPT: u64 = 1 << 10;
pub(super) const CR4_UMIP: u64 = 1 << 11;
pub(super) const CR4_FSGSBASE: u64 = 1 << 16;
pub(super) const CR4_PCIDE: u64 = 1 << 17;
pub(super) const CR4_OSXSAVE: u64 = 1 << 18;
pub(super) const CR4_SMEP: u64 = 1 << 20;
pub(super) const CR4_SMAP: u64 = 1 << 21;

pub(super) const IA32_APIC_BASE: u32 = 0x1b;
pub(super) const IA32_SYSENTER_CS: u32 = 0x174;
pub(super) const IA32_PAT: u32 = 0x277;
pub(super) const IA32_EFER: u32 = 0xc000_0080;
pub(super) const IA32_STAR: u32 = 0xc000_0081;
pub(super) const IA32_LSTAR: u32 = 0xc000_0082;
pub(super) const IA32_FMASK: u32 = 0xc000_0084;

/// The clock.
#[inline(always)]
pub(super) fn time() -> u64 {
    // SAFETY: every x86-64 processor has the counter, and reading it changes nothing.
    unsafe { _rdtsc() }
}

/// Reads a model-specific register.
///
/// # Safety
/// The processor has it.
pub(super) unsafe fn read_msr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: by the caller's promise it does not fault, and reading changes nothing.
    unsafe {
        asm!(
            "rdmsr",
            in("ecx") register,
            out("eax") low,
            out("edx") high,
            options(nomem, nostack, preserves_flags),
        );
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// The processor has it, takes the value, and what it then does keeps what the kernel relies on.
pub(super) unsafe fn write_msr(register: u32, value: u64) {
    // SAFETY: by the caller's promise.
    unsafe {
        asm!(
            "wrmsr",
            in("ecx") register,
            in("eax") value as u32,
            in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags),
        );
    }
}

/// CR0.
pub(super) fn cr0() -> u64 {
    let value;
    // SAFETY: reading changes nothing.
    unsafe { asm!("mov {}, cr0", out(reg) value, options(nomem, nostack, preserves_flags)) }
    value
}

/// Writes CR0.
///
/// # Safety
/// Paging and protection stay on.
pub(super) unsafe fn set_cr0(value: u64) {
    // SAFETY: by the caller's promise.
    unsafe { asm!("mov cr0, {}", in(reg) value, options(nostack, preserves_flags)) }
}

/// Writes CR4.
///
/// # Safety
/// PAE stays on, and the processor has what the other bits mean.
pub(super) unsafe fn set_cr4(value: u64) {
    // SAFETY: by the caller's promise.
    unsafe { asm!("mov cr4, {}", in(reg) value, options(nostack, preserves_flags)) }
}

/// Says which states programs may have.
///
/// # Safety
/// CR4.OSXSAVE is on, and the processor has these states.
pub(super) unsafe fn set_xcr0(value: u64) {
    // SAFETY: by the caller's promise.
    unsafe {
        asm!(
            "xsetbv",
            in("ecx") 0,
            in("eax") value as u32,
            in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags),
        );
    }
}

/// Which tables the MMU uses.
#[inline(always)]
pub(super) fn cr3() -> u64 {
    let value;
    // SAFETY: reading changes nothing.
    unsafe { asm!("mov {}, cr3", out(reg) value, options(nomem, nostack, preserves_flags)) }
    value
}

/// Has the MMU use tables.
#[inline(always)]
pub(super) fn set_cr3(value: u64) {
    // SAFETY: every root has the kernel's half, so that nothing changes for the kernel; what is kept of an address space is
    // forgotten when it ends.
    unsafe { asm!("mov cr3, {}", in(reg) value, options(nostack, preserves_flags)) }
}

/// Forgets what is remembered of a page, in the address space that is used.
pub(super) fn invalidate_page(at: u64) {
    // SAFETY: what is forgotten is read from the tables again.
    unsafe { asm!("invlpg [{}]", in(reg) at, options(nostack, preserves_flags)) }
}

/// INVPCID: of one page (0), or of all of an address space (1).
///
/// # Safety
/// The processor has the instruction; the identifier has 12 bits, and the address is canonical.
pub(super) unsafe fn invalidate(kind: u64, identifier: u16, at: u64) {
    let descriptor = [u64::from(identifier), at];
    // SAFETY: by the caller's promise it does not fault; what is forgotten is read from the tables again.
    unsafe {
        asm!(
            "invpcid {}, [{}]",
            in(reg) kind,
            in(reg) &raw const descriptor,
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// Reads a port of 1, 2 or 4 bytes, or writes it.
pub(super) fn port(port: u16, width: u8, write: Option<u32>) -> u32 {
    let mut value = write.unwrap_or(0);
    // SAFETY: ring 0 may use all ports. Which of them a program may use, its capability says; the kernel itself uses
    // the console's and the debug exit's at its end only, and the timer's before programs run.
    unsafe {
        match (write.is_some(), width) {
            (true, 1) => {
                asm!("out dx, al", in("dx") port, in("al") value as u8, options(nostack, preserves_flags));
            }
            (true, 2) => {
                asm!("out dx, ax", in("dx") port, in("ax") value as u16, options(nostack, preserves_flags));
            }
            (true, _) => {
                asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags));
            }
            (false, 1) => {
                let byte: u8;
                asm!("in al, dx", in("dx") port, out("al") byte, options(nostack, preserves_flags));
                value = byte.into();
            }
            (false, 2) => {
                let half: u16;
                asm!("in ax, dx", in("dx") port, out("ax") half, options(nostack, preserves_flags));
                value = half.into();
            }
            (false, _) => {
                asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags));
            }
        }
    }
    value
}

/// For ever: nobody interrupts.
pub(super) fn stop() -> ! {
    loop {
        // SAFETY: interrupts are off in the kernel.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
    }
}

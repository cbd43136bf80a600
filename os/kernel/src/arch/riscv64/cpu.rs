//! Instructions of supervisors.

use core::arch::asm;

use mielin_kernel::FLOATS_BYTES;

/// `sie`, `sip`: the timer's interrupt, and those of devices.
pub(super) const TIMER: u64 = 1 << 5;
pub(super) const EXTERNAL: u64 = 1 << 9;
/// `sstatus.FS`: both bits, which together say that registers may have changed.
const FLOATS: u64 = 3 << 13;

/// The clock.
#[inline(always)]
pub(super) fn time() -> u64 {
    let ticks;
    // SAFETY: firmware lets supervisors read the counter; that changes nothing.
    unsafe { asm!("csrr {}, time", out(reg) ticks, options(nomem, nostack, preserves_flags)) }
    ticks
}

/// Sets the alarm of a processor with Sstc.
pub(super) fn set_time_compare(at: u64) {
    // SAFETY: `stimecmp` decides only when the timer's interrupt is pending.
    unsafe { asm!("csrw 0x14d, {}", in(reg) at, options(nomem, nostack, preserves_flags)) }
}

/// Sets the alarm by firmware (SBI 1.0.0, chapter 6).
pub(super) fn sbi_set_timer(at: u64) {
    // SAFETY: the call changes a0 and a1 only, and no memory of ours.
    unsafe {
        asm!(
            "ecall",
            inout("a0") at => _,
            out("a1") _,
            in("a6") 0,
            in("a7") 0x5449_4d45,
            options(nomem, nostack),
        );
    }
}

/// Which of the interrupts that may come are pending.
#[inline(always)]
pub(super) fn pending_interrupts() -> u64 {
    let (pending, enabled): (u64, u64);
    // SAFETY: reading changes nothing.
    unsafe {
        asm!("csrr {}, sip", out(reg) pending, options(nomem, nostack, preserves_flags));
        asm!("csrr {}, sie", out(reg) enabled, options(nomem, nostack, preserves_flags));
    }
    pending & enabled
}

/// Lets the timer and devices interrupt programs. The kernel itself is never interrupted.
pub(super) fn accept_interrupts() {
    // SAFETY: `sstatus.SIE` is off in the kernel, so that they come when a program runs, by the trap's entry.
    unsafe { asm!("csrs sie, {}", in(reg) TIMER | EXTERNAL, options(nostack, preserves_flags)) }
}

/// Rests until an interrupt is pending, which does not come here.
pub(super) fn wait_for_interrupt() {
    // SAFETY: WFI also ends for interrupts that are masked by `sstatus.SIE`.
    unsafe { asm!("wfi", options(nomem, nostack, preserves_flags)) }
}

/// Has the MMU use tables.
#[inline(always)]
pub(super) fn set_satp(value: u64) {
    // SAFETY: every root has the kernel's half, so that nothing changes for the kernel; a new identifier's entries are flushed
    // when an address space ends.
    unsafe { asm!("csrw satp, {}", in(reg) value, options(nostack, preserves_flags)) }
}

/// What is in `satp`.
pub(super) fn satp() -> u64 {
    let value;
    // SAFETY: reading changes nothing.
    unsafe { asm!("csrr {}, satp", out(reg) value, options(nomem, nostack, preserves_flags)) }
    value
}

/// Forgets what is remembered of a page.
pub(super) fn flush_page(identifier: u16, at: u64) {
    // SAFETY: what is forgotten is read from the tables again.
    unsafe {
        asm!(
            "sfence.vma {}, {}",
            in(reg) at,
            in(reg) u64::from(identifier),
            options(nostack, preserves_flags),
        );
    }
}

/// Forgets what is remembered of an address space.
pub(super) fn flush_space(identifier: u16) {
    // SAFETY: what is forgotten is read from the tables again.
    unsafe {
        asm!(
            "sfence.vma zero, {}",
            in(reg) u64::from(identifier),
            options(nostack, preserves_flags),
        );
    }
}

/// Forgets all.
pub(super) fn flush_all() {
    // SAFETY: what is forgotten is read from the tables again.
    unsafe { asm!("sfence.vma", options(nostack, preserves_flags)) }
}

/// Has written instructions be seen.
pub(super) fn fence_instructions() {
    // SAFETY: a fence.
    unsafe { asm!("fence.i", options(nostack, preserves_flags)) }
}

/// Programs may use the floating-point unit.
pub(crate) fn floats_on() {
    // SAFETY: the kernel itself is compiled without floating-point numbers.
    unsafe { asm!("csrs sstatus, {}", in(reg) FLOATS, options(nostack, preserves_flags)) }
}

/// Programs that use the unit fault.
pub(crate) fn floats_off() {
    // SAFETY: as for `floats_on`.
    unsafe { asm!("csrc sstatus, {}", in(reg) FLOATS, options(nostack, preserves_flags)) }
}

const _: () = assert!(33 * 8 <= FLOATS_BYTES);

macro_rules! each_float {
    ($instruction:literal, $base:literal) => {
        concat!(
            each_float!(@ $instruction, $base, "0", "0"),
            each_float!(@ $instruction, $base, "1", "8"),
            each_float!(@ $instruction, $base, "2", "16"),
            each_float!(@ $instruction, $base, "3", "24"),
            each_float!(@ $instruction, $base, "4", "32"),
            each_float!(@ $instruction, $base, "5", "40"),
            each_float!(@ $instruction, $base, "6", "48"),
            each_float!(@ $instruction, $base, "7", "56"),
            each_float!(@ $instruction, $base, "8", "64"),
            each_float!(@ $instruction, $base, "9", "72"),
            each_float!(@ $instruction, $base, "10", "80"),
            each_float!(@ $instruction, $base, "11", "88"),
            each_float!(@ $instruction, $base, "12", "96"),
            each_float!(@ $instruction, $base, "13", "104"),
            each_float!(@ $instruction, $base, "14", "112"),
            each_float!(@ $instruction, $base, "15", "120"),
            each_float!(@ $instruction, $base, "16", "128"),
            each_float!(@ $instruction, $base, "17", "136"),
            each_float!(@ $instruction, $base, "18", "144"),
            each_float!(@ $instruction, $base, "19", "152"),
            each_float!(@ $instruction, $base, "20", "160"),
            each_float!(@ $instruction, $base, "21", "168"),
            each_float!(@ $instruction, $base, "22", "176"),
            each_float!(@ $instruction, $base, "23", "184"),
            each_float!(@ $instruction, $base, "24", "192"),
            each_float!(@ $instruction, $base, "25", "200"),
            each_float!(@ $instruction, $base, "26", "208"),
            each_float!(@ $instruction, $base, "27", "216"),
            each_float!(@ $instruction, $base, "28", "224"),
            each_float!(@ $instruction, $base, "29", "232"),
            each_float!(@ $instruction, $base, "30", "240"),
            each_float!(@ $instruction, $base, "31", "248"),
        )
    };
    (@ $instruction:literal, $base:literal, $n:literal, $at:literal) => {
        concat!($instruction, " f", $n, ", ", $at, "(", $base, ")\n")
    };
}

/// Writes the floating-point registers, which are on, to 33 words.
pub(crate) fn save_floats(to: *mut u64) {
    // SAFETY: callers pass the place of a thread for them.
    unsafe {
        asm!(
            ".option push",
            ".option arch, +d",
            each_float!("fsd", "{to}"),
            "frcsr {t}",
            ".option pop",
            "sd {t}, 256({to})",
            to = in(reg) to,
            t = out(reg) _,
            options(nostack, preserves_flags),
        );
    }
}

/// Reads them.
pub(crate) fn load_floats(from: *mut u64) {
    // SAFETY: as for `save_floats`; the kernel itself uses none of them.
    unsafe {
        asm!(
            "ld {t}, 256({from})",
            ".option push",
            ".option arch, +d",
            "fscsr {t}",
            each_float!("fld", "{from}"),
            ".option pop",
            from = in(reg) from,
            t = out(reg) _,
            options(nostack, preserves_flags),
        );
    }
}

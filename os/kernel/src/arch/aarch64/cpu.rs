//! Instructions of EL1.

use core::arch::{asm, global_asm};

use mielin_kernel::FLOATS_BYTES;

use super::PHYSICAL_MAP;

/// CPACR_EL1.FPEN: the floating-point unit is for EL1, or for programs too.
const FLOATS_FOR_KERNEL: u64 = 0b01 << 20;
const FLOATS_FOR_ALL: u64 = 0b11 << 20;
/// ISR_EL1: an IRQ is pending.
const IRQ: u64 = 1 << 7;
/// CNTKCTL_EL1: programs read the virtual counter, and nothing else of the timers.
const VIRTUAL_COUNTER: u64 = 1 << 1;
/// CNTV_CTL_EL0: the timer is on; its interrupt is not masked.
const TIMER_ON: u64 = 1;
/// MDSCR_EL1: programs do not reach the debugger's channel; nothing of the debugger is on.
const NO_DEBUG_CHANNEL: u64 = 1 << 12;
/// CTR_EL0.
const NO_CLEANING: u64 = 1 << 28;
const NO_INVALIDATION: u64 = 1 << 29;

macro_rules! read {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: EL1 may read the register, which changes nothing. Memory counts as changed, so that the order of reads is that
        // of the program.
        unsafe { asm!(concat!("mrs {}, ", $register), out(reg) value, options(nostack, preserves_flags)) }
        value
    }};
}

macro_rules! write {
    ($register:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: EL1 may write the register. Those written here decide what programs may do and when they are interrupted, and
        // which tables translate their addresses: nothing for the kernel itself.
        unsafe { asm!(concat!("msr ", $register, ", {}"), in(reg) value, options(nostack, preserves_flags)) }
    }};
}

/// `PHYSICAL_MAP`, in a register. A compiler that knows the number makes a new one with each field's offset added, in two or three
/// instructions, where one addition and an offset in the load itself do.
#[inline(always)]
pub(super) fn physical_map() -> u64 {
    let value;
    // SAFETY: this is a constant.
    unsafe {
        asm!(
            "mov {}, {}",
            out(reg) value,
            const PHYSICAL_MAP as i64,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    value
}

/// The clock. It may be read a few instructions early: entering the kernel has already put it behind what a program did.
#[inline(always)]
pub(super) fn counter() -> u64 {
    read!("cntvct_el0")
}

/// The clock's ticks in a second, if firmware has written them down.
pub(super) fn counter_frequency() -> u64 {
    read!("cntfrq_el0")
}

/// Sets the alarm.
#[inline(always)]
pub(super) fn set_compare_value(at: u64) {
    write!("cntv_cval_el0", at);
}

/// Whether an interrupt is pending.
#[inline(always)]
pub(super) fn is_interrupt_pending() -> bool {
    read!("isr_el1") & IRQ != 0
}

/// Rests until an interrupt is pending, which does not come here.
pub(super) fn wait_for_interrupt() {
    // SAFETY: WFI also ends for interrupts that PSTATE masks; the barriers have the alarm and all memory be as they were written.
    unsafe { asm!("isb", "dsb sy", "wfi", options(nostack, preserves_flags)) }
}

/// What programs get to see of the processor: the virtual counter. The alarm is switched on, for no time that comes.
pub(super) fn begin() {
    write!("cntkctl_el1", VIRTUAL_COUNTER);
    write!("cntv_cval_el0", u64::MAX);
    write!("cntv_ctl_el0", TIMER_ON);
    write!("mdscr_el1", NO_DEBUG_CHANNEL);
    write!("tpidrro_el0", 0);
    floats_off();
    // The counters of events, if there are any, and those of activity.
    if !matches!(read!("id_aa64dfr0_el1") >> 8 & 0xf, 0 | 0xf) {
        write!("pmuserenr_el0", 0);
    }
    if read!("id_aa64pfr0_el1") >> 44 & 0xf != 0 {
        write!("s3_3_c13_c2_3", 0);
    }
}

/// Sets PSTATE.PAN, by its encoding, on a processor that has it.
pub(super) fn deny_programs_memory() {
    // SAFETY: the kernel uses no address of programs.
    unsafe { asm!(".inst 0xd500419f", options(nostack, preserves_flags)) }
}

/// Has the MMU use a program's tables. Nothing waits for that here: going back to the program does (ERET synchronises).
#[inline(always)]
pub(super) fn set_program_root(value: u64) {
    write!("ttbr0_el1", value);
}

/// What TLBI takes: a page, and the address space's number.
fn page_argument(identifier: u16, at: u64) -> u64 {
    u64::from(identifier) << 48 | at >> 12 & 0xfff_ffff_ffff
}

/// Forgets what is remembered of a page, and of the tables on the way to it.
pub(super) fn flush_page(identifier: u16, at: u64) {
    // SAFETY: what is forgotten is read from the tables again, as they were written before.
    unsafe {
        asm!(
            "dsb nshst",
            "tlbi vae1, {}",
            "dsb nsh",
            in(reg) page_argument(identifier, at),
            options(nostack, preserves_flags),
        );
    }
}

/// Forgets what is remembered of an address space.
pub(super) fn flush_space(identifier: u16) {
    // SAFETY: as for `flush_page`.
    unsafe {
        asm!(
            "dsb nshst",
            "tlbi aside1, {}",
            "dsb nsh",
            in(reg) page_argument(identifier, 0),
            options(nostack, preserves_flags),
        );
    }
}

/// The size of the blocks that the processor zeroes; a power of two up to 2 KiB. `None` if it may not. (DCZID_EL0)
pub(super) fn zero_block_bytes() -> Option<usize> {
    let kind = read!("dczid_el0");
    (kind & 1 << 4 == 0).then_some(4 << (kind & 0xf))
}

/// Zeroes such a block.
pub(super) fn zero_block(at: *mut u8) {
    // SAFETY: callers pass memory that is to become a program's, as for `memory::clear`.
    unsafe { asm!("dc zva, {}", in(reg) at, options(nostack, preserves_flags)) }
}

/// System registers that were written count from now on.
pub(super) fn synchronise() {
    // SAFETY: a barrier.
    unsafe { asm!("isb", options(nostack, preserves_flags)) }
}

/// What was written until now comes before what is written after, also for the walks of the MMU.
pub(super) fn order_writes() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb nshst", options(nostack, preserves_flags)) }
}

/// Has instructions that were written to this memory be seen: data caches give it away, and instruction caches forget.
/// (DDI 0487, B2.4, "Concurrent modification and execution of instructions", and CTR_EL0.)
pub(super) fn publish_code(at: u64, bytes: u64) {
    let kind = read!("ctr_el0");
    if kind & NO_CLEANING == 0 {
        let line = 4 << (kind >> 16 & 0xf);
        for address in (at..at + bytes).step_by(line) {
            // SAFETY: cleaning changes no memory. The address is in the map of all memory.
            unsafe { asm!("dc cvau, {}", in(reg) address, options(nostack, preserves_flags)) }
        }
    }
    // SAFETY: barriers, and what is forgotten is read again. All of it is forgotten, since programs see the memory at other
    // addresses, by which a cache may remember it.
    unsafe {
        asm!("dsb nsh", options(nostack, preserves_flags));
        if kind & NO_INVALIDATION == 0 {
            asm!("ic iallu", "dsb nsh", options(nostack, preserves_flags));
        }
        asm!("isb", options(nostack, preserves_flags));
    }
}

/// Programs may use the floating-point unit.
pub(crate) fn floats_on() {
    write!("cpacr_el1", FLOATS_FOR_ALL);
}

/// Programs that use the unit fault. The kernel can save its registers still.
pub(crate) fn floats_off() {
    write!("cpacr_el1", FLOATS_FOR_KERNEL);
}

const _: () = assert!(32 * 16 + 16 <= FLOATS_BYTES);

// The kernel is compiled without floating-point registers, and uses none but here.
global_asm!(
    r#"
    .arch_extension fp
    .arch_extension simd
    .section .text, "ax"
save_floats:
    mrs x9, fpcr
    mrs x10, fpsr
    stp q0, q1, [x0, #0]
    stp q2, q3, [x0, #32]
    stp q4, q5, [x0, #64]
    stp q6, q7, [x0, #96]
    stp q8, q9, [x0, #128]
    stp q10, q11, [x0, #160]
    stp q12, q13, [x0, #192]
    stp q14, q15, [x0, #224]
    stp q16, q17, [x0, #256]
    stp q18, q19, [x0, #288]
    stp q20, q21, [x0, #320]
    stp q22, q23, [x0, #352]
    stp q24, q25, [x0, #384]
    stp q26, q27, [x0, #416]
    stp q28, q29, [x0, #448]
    stp q30, q31, [x0, #480]
    add x0, x0, #512
    stp x9, x10, [x0]
    ret
load_floats:
    ldp q0, q1, [x0, #0]
    ldp q2, q3, [x0, #32]
    ldp q4, q5, [x0, #64]
    ldp q6, q7, [x0, #96]
    ldp q8, q9, [x0, #128]
    ldp q10, q11, [x0, #160]
    ldp q12, q13, [x0, #192]
    ldp q14, q15, [x0, #224]
    ldp q16, q17, [x0, #256]
    ldp q18, q19, [x0, #288]
    ldp q20, q21, [x0, #320]
    ldp q22, q23, [x0, #352]
    ldp q24, q25, [x0, #384]
    ldp q26, q27, [x0, #416]
    ldp q28, q29, [x0, #448]
    ldp q30, q31, [x0, #480]
    add x0, x0, #512
    ldp x9, x10, [x0]
    msr fpcr, x9
    msr fpsr, x10
    ret
    .arch_extension nosimd
    .arch_extension nofp
"#
);

mod floats {
    unsafe extern "C" {
        /// Writes 32 registers of 16 bytes, FPCR and FPSR.
        pub(crate) fn save_floats(to: *mut u64);
        /// Reads them.
        pub(crate) fn load_floats(from: *const u64);
    }
}

/// Writes the floating-point registers to 66 words.
pub(crate) fn save_floats(to: *mut u64) {
    // SAFETY: callers pass the place of a thread for them.
    unsafe { floats::save_floats(to) }
}

/// Reads them.
pub(crate) fn load_floats(from: *mut u64) {
    // SAFETY: as for `save_floats`; the kernel itself uses none of them.
    unsafe { floats::load_floats(from) }
}

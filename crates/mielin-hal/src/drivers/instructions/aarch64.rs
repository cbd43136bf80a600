//! System registers and calls of 64-bit Arm at EL1.
#![allow(unsafe_code)]

use core::arch::asm;

use crate::drivers::kernel::Kernel;

/// CNTV_CTL_EL0: the timer is on; its interrupt is not masked.
const TIMER_ON: u64 = 1;
/// ICC_SRE_EL1: the interface is used by system registers.
const SYSTEM_REGISTERS: u64 = 1;
/// ICC_PMR_EL1: every priority above the lowest.
const PRIORITY_MASK_ALL: u64 = 0xff;
/// MPIDR_EL1: Aff3 and Aff2 to Aff0.
const AFFINITY: u64 = 0xff_00ff_ffff;

/// By which instruction the layer below is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// HVC: a hypervisor answers.
    Hvc,
    /// SMC: firmware answers.
    Smc,
}

macro_rules! read {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: with a `Kernel` in hand this runs at EL1 or above, where the register can be read (DDI 0487, D19). What
        // is read changes nothing, but for ICC_IAR1_EL1, whose effect `acknowledge` is there for; memory counts as
        // changed, so that the order of reads is that of the program.
        unsafe { asm!(concat!("mrs {}, ", $register), out(reg) value, options(nostack, preserves_flags)) }
        value
    }};
}

macro_rules! write {
    ($register:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: with a `Kernel` in hand this runs at EL1 or above, where the register can be written. Those written here
        // belong to the timer and to the interface of interrupts: they change which interrupts come, and no memory.
        unsafe { asm!(concat!("msr ", $register, ", {}"), in(reg) value, options(nostack, preserves_flags)) }
    }};
}

/// What follows happens after what came before.
fn synchronize() {
    // SAFETY: a barrier, which changes nothing but order.
    unsafe { asm!("isb", options(nostack, preserves_flags)) }
}

pub(in crate::drivers) fn rest(_: Kernel) {
    // SAFETY: EL1 may do this. WFI ends when an interrupt is pending, also a masked one (DDI 0487, "Wait For
    // Interrupt"); the barrier has it taken before the next instruction. It has the effects of the handlers that the
    // program has installed, so memory counts as changed.
    unsafe {
        asm!(
            "dsb sy",
            "wfi",
            "msr daifclr, #2",
            "isb",
            "msr daifset, #2",
            options(nostack, preserves_flags)
        );
    }
}

/// CNTFRQ_EL0.
pub(in crate::drivers) fn counter_frequency(_: Kernel) -> u64 {
    read!("cntfrq_el0")
}

/// CNTVCT_EL0, not read ahead of time (D11.2.2).
pub(in crate::drivers) fn counter(_: Kernel) -> u64 {
    synchronize();
    read!("cntvct_el0")
}

/// Has the virtual timer ring at a value of the counter, or not at all.
pub(in crate::drivers) fn set_counter_alarm(_: Kernel, at: Option<u64>) {
    if let Some(at) = at {
        write!("cntv_cval_el0", at);
    }
    write!("cntv_ctl_el0", if at.is_some() { TIMER_ON } else { 0 });
    synchronize();
}

/// This processor's place, as MPIDR_EL1 has it.
pub(in crate::drivers) fn affinity(_: Kernel) -> u64 {
    read!("mpidr_el1") & AFFINITY
}

/// Lets a GICv3 interrupt this processor. By their encodings: ICC_SRE_EL1, ICC_PMR_EL1, ICC_IGRPEN1_EL1.
pub(in crate::drivers) fn switch_on_interface(_: Kernel) {
    write!("s3_0_c12_c12_5", read!("s3_0_c12_c12_5") | SYSTEM_REGISTERS);
    synchronize();
    write!("s3_0_c4_c6_0", PRIORITY_MASK_ALL);
    write!("s3_0_c12_c12_7", 1);
    synchronize();
}

/// ICC_IAR1_EL1: the INTID to be served, which is active from now on.
pub(in crate::drivers) fn acknowledge(_: Kernel) -> u32 {
    let intid = read!("s3_0_c12_c12_0");
    // SAFETY: a barrier: the interrupt counts as taken before its device is looked at (IHI 0069, ICC_IAR1_EL1).
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) }
    intid as u32
}

/// ICC_EOIR1_EL1.
pub(in crate::drivers) fn end_of_interrupt(_: Kernel, intid: u32) {
    write!("s3_0_c12_c12_1", intid.into());
    synchronize();
}

/// Calls the layer below without arguments, and gives what it answers.
pub(in crate::drivers) fn psci_call(_: Kernel, conduit: Conduit, function: u32) -> i64 {
    let answer: i64;
    // SAFETY: EL1 may call the layer below, which keeps all but x0 to x17 (SMC Calling Convention, DEN 0028). The
    // functions that this crate calls take no addresses.
    unsafe {
        match conduit {
            Conduit::Hvc => {
                asm!("hvc #0", inlateout("x0") u64::from(function) => answer, clobber_abi("C"))
            }
            Conduit::Smc => {
                asm!("smc #0", inlateout("x0") u64::from(function) => answer, clobber_abi("C"))
            }
        }
    }
    answer
}

/// Asks the debugger to do something.
pub(in crate::drivers) fn semihosting(_: Kernel, operation: u32, arguments: &[usize; 2]) {
    // SAFETY: the debugger reads what x1 points to, which is borrowed here, and answers in x0 (Semihosting 2.0,
    // "The semihosting interface"). Without one the instruction is undefined, and the processor goes to the program's handler.
    unsafe {
        asm!(
            "hlt #0xf000",
            inlateout("x0") u64::from(operation) => _,
            in("x1") arguments.as_ptr(),
            options(nostack)
        );
    }
}

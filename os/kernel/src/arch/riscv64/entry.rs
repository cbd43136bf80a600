//! How programs enter the kernel, and how they go on.
//!
//! While a program runs, `sscratch` holds the address of its registers (`mielin_kernel::Registers`: the program counter, then x1 to
//! x31); in the kernel it is 0, so that a trap of the kernel itself, which is a bug, is told apart.

use core::arch::global_asm;

use mielin_kernel::abi::{FaultKind, MessageInfo};
use mielin_kernel::{Fault, Registers, Request, Thread};

use super::{CPU, cpu, silence_alarm, with_plic};
use crate::memory;
use crate::port::kernel;
use mielin_hal::InterruptController;

global_asm!(
    r#"
    .section .text.entry, "ax"
    .balign 4
    .globl trap_entry
trap_entry:
    csrrw tp, sscratch, tp
    beqz tp, 9f
    sd t0, 5*8(tp)
    csrr t0, scause
    addi t0, t0, -8
    bnez t0, 2f

    // A system call: a callee may change the other registers.
    csrr t0, sepc
    addi t0, t0, 4
    sd t0, 0(tp)
    sd ra, 1*8(tp)
    sd sp, 2*8(tp)
    sd gp, 3*8(tp)
    csrrw t0, sscratch, zero
    sd t0, 4*8(tp)
    sd s0, 8*8(tp)
    sd s1, 9*8(tp)
    sd s2, 18*8(tp)
    sd s3, 19*8(tp)
    sd s4, 20*8(tp)
    sd s5, 21*8(tp)
    sd s6, 22*8(tp)
    sd s7, 23*8(tp)
    sd s8, 24*8(tp)
    sd s9, 25*8(tp)
    sd s10, 26*8(tp)
    sd s11, 27*8(tp)
    la sp, __stack_top
    call system_call_entry

    // The registers of the thread that goes on are at a0.
    .globl go_on
go_on:
    ld t0, 0(a0)
    csrw sscratch, a0
    csrw sepc, t0
    ld ra, 1*8(a0)
    ld sp, 2*8(a0)
    ld gp, 3*8(a0)
    ld tp, 4*8(a0)
    ld t0, 5*8(a0)
    ld t1, 6*8(a0)
    ld t2, 7*8(a0)
    ld s0, 8*8(a0)
    ld s1, 9*8(a0)
    ld a1, 11*8(a0)
    ld a2, 12*8(a0)
    ld a3, 13*8(a0)
    ld a4, 14*8(a0)
    ld a5, 15*8(a0)
    ld a6, 16*8(a0)
    ld a7, 17*8(a0)
    ld s2, 18*8(a0)
    ld s3, 19*8(a0)
    ld s4, 20*8(a0)
    ld s5, 21*8(a0)
    ld s6, 22*8(a0)
    ld s7, 23*8(a0)
    ld s8, 24*8(a0)
    ld s9, 25*8(a0)
    ld s10, 26*8(a0)
    ld s11, 27*8(a0)
    ld t3, 28*8(a0)
    ld t4, 29*8(a0)
    ld t5, 30*8(a0)
    ld t6, 31*8(a0)
    ld a0, 10*8(a0)
    sret

2:  // Anything else: all registers are kept.
    csrr t0, sepc
    sd t0, 0(tp)
    sd ra, 1*8(tp)
    sd sp, 2*8(tp)
    sd gp, 3*8(tp)
    csrrw t0, sscratch, zero
    sd t0, 4*8(tp)
    sd t1, 6*8(tp)
    sd t2, 7*8(tp)
    sd s0, 8*8(tp)
    sd s1, 9*8(tp)
    sd a0, 10*8(tp)
    sd a1, 11*8(tp)
    sd a2, 12*8(tp)
    sd a3, 13*8(tp)
    sd a4, 14*8(tp)
    sd a5, 15*8(tp)
    sd a6, 16*8(tp)
    sd a7, 17*8(tp)
    sd s2, 18*8(tp)
    sd s3, 19*8(tp)
    sd s4, 20*8(tp)
    sd s5, 21*8(tp)
    sd s6, 22*8(tp)
    sd s7, 23*8(tp)
    sd s8, 24*8(tp)
    sd s9, 25*8(tp)
    sd s10, 26*8(tp)
    sd s11, 27*8(tp)
    sd t3, 28*8(tp)
    sd t4, 29*8(tp)
    sd t5, 30*8(tp)
    sd t6, 31*8(tp)
    la sp, __stack_top
    csrr a0, scause
    csrr a1, stval
    call trap
    j go_on

9:  // The kernel itself.
    csrrw tp, sscratch, zero
    la sp, __stack_top
    csrr a0, scause
    csrr a1, stval
    csrr a2, sepc
    call kernel_trap
"#
);

unsafe extern "C" {
    /// Has a thread go on with these registers.
    fn go_on(registers: *const Registers) -> !;
}

/// `scause`: an interrupt of the timer, and of a device.
const TIMER: u64 = 1 << 63 | 5;
const EXTERNAL: u64 = 1 << 63 | 9;

#[unsafe(no_mangle)]
extern "C" fn system_call_entry(
    capability: u64,
    info: u64,
    word0: u64,
    word1: u64,
    word2: u64,
    word3: u64,
    reply: u64,
    number: u64,
) -> *const Registers {
    kernel().system_call(Request {
        number,
        capability,
        info: MessageInfo(info),
        words: [word0, word1, word2, word3],
        reply,
    });
    next()
}

#[unsafe(no_mangle)]
extern "C" fn trap(cause: u64, value: u64) -> *const Registers {
    match cause {
        TIMER => {
            silence_alarm();
            kernel().tick();
        }
        EXTERNAL => serve_devices(),
        cause => kernel().fault(fault(cause, value)),
    }
    next()
}

fn fault(cause: u64, value: u64) -> Fault {
    let (kind, access) = match cause {
        1 | 12 => (FaultKind::Page, 2),
        5 | 13 => (FaultKind::Page, 0),
        7 | 15 => (FaultKind::Page, 1),
        3 => (FaultKind::Breakpoint, 0),
        // Misaligned accesses and all others.
        _ => (FaultKind::Instruction, 0),
    };
    Fault {
        kind,
        address: value,
        access,
    }
}

fn serve_devices() {
    while let Some(line) = with_plic(InterruptController::claim).flatten() {
        // Completed first: the controller ignores that for lines that are off.
        with_plic(|plic| plic.complete(line));
        kernel().interrupt(line);
    }
}

/// The registers of the thread that is to run, when there is one.
#[inline(always)]
fn next() -> *const Registers {
    let thread = match kernel().current() {
        Some(thread) => thread,
        None => rest(),
    };
    CPU.floats.arrange(thread);
    memory::pointer::<Registers>(thread.address())
}

/// Rests until somebody can run.
#[cold]
fn rest() -> mielin_kernel::Ref<Thread> {
    loop {
        if let Some(thread) = kernel().current() {
            return thread;
        }
        cpu::wait_for_interrupt();
        let pending = cpu::pending_interrupts();
        if pending & cpu::TIMER != 0 {
            silence_alarm();
            kernel().tick();
        }
        if pending & cpu::EXTERNAL != 0 {
            serve_devices();
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn kernel_trap(cause: u64, value: u64, at: u64) -> ! {
    panic!("trap {cause:#x} of the kernel at {at:#x}, value {value:#x}");
}

/// Has the first thread run.
pub(super) fn leave() -> ! {
    cpu::accept_interrupts();
    // SAFETY: these are the registers of the current thread.
    unsafe { go_on(next()) }
}

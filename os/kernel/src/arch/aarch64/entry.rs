//! How programs enter the kernel, and how they go on.
//!
//! While a program runs, TPIDR_EL1 holds the address of its registers (`mielin_kernel::Registers`: x0 to x30, SP_EL0, ELR, SPSR,
//! TPIDR_EL0), and SP_EL1 is the top of the kernel's stack. Interrupts are masked in the kernel, so that what comes to the vectors of EL1
//! itself is a bug.

use core::arch::global_asm;
use core::sync::atomic::Ordering;

use mielin_kernel::abi::{FaultKind, MessageInfo};
use mielin_kernel::{Fault, Registers, Request, Thread};

use super::{CPU, TIMER_LINE, claim_line, complete_line, cpu, is_ending, silence_alarm};
use crate::memory;
use crate::port::kernel;

// A system call keeps x18 to x30, SP, PC, PSTATE, TPIDR_EL0 and the deadline in x8; a callee may change the other registers. Of
// PSTATE, which whoever controls a thread can write, only the flags, DIT and TCO come back: all else is 0, which is EL0 with interrupts.
global_asm!(
    r#"
    .section .text.vectors, "ax"
    .macro save_all
    mrs x9, tpidr_el1
    stp x0, x1, [x9, #0]
    stp x2, x3, [x9, #16]
    stp x4, x5, [x9, #32]
    stp x6, x7, [x9, #48]
    ldr x0, [sp, #-16]
    stp x8, x0, [x9, #64]
    stp x10, x11, [x9, #80]
    stp x12, x13, [x9, #96]
    stp x14, x15, [x9, #112]
    stp x16, x17, [x9, #128]
    stp x18, x19, [x9, #144]
    stp x20, x21, [x9, #160]
    stp x22, x23, [x9, #176]
    stp x24, x25, [x9, #192]
    stp x26, x27, [x9, #208]
    stp x28, x29, [x9, #224]
    mrs x10, sp_el0
    stp x30, x10, [x9, #240]
    mrs x10, elr_el1
    mrs x11, spsr_el1
    stp x10, x11, [x9, #256]
    mrs x10, tpidr_el0
    str x10, [x9, #272]
    .endm

    .balign 0x800
    .globl vectors
vectors:
    // The kernel itself, by either stack pointer: synchronous, IRQ, FIQ, SError.
    .rept 8
    b 9f
    .balign 0x80
    .endr

    // A program: synchronous. A system call is 0x15.
    str x9, [sp, #-16]
    mrs x9, esr_el1
    lsr x9, x9, #26
    cmp x9, #0x15
    b.ne 2f
    mrs x9, tpidr_el1
    mrs x10, elr_el1
    mrs x11, spsr_el1
    mrs x12, sp_el0
    mrs x13, tpidr_el0
    str x8, [x9, #64]
    stp x18, x19, [x9, #144]
    stp x20, x21, [x9, #160]
    stp x22, x23, [x9, #176]
    stp x24, x25, [x9, #192]
    stp x26, x27, [x9, #208]
    stp x28, x29, [x9, #224]
    stp x30, x12, [x9, #240]
    stp x10, x11, [x9, #256]
    str x13, [x9, #272]
    bl system_call_entry
    b go_on
    .balign 0x80

    // IRQ.
    b 3f
    .balign 0x80
    // FIQ, which no line is.
    b 9f
    .balign 0x80
    // SError.
    b 4f
    .balign 0x80
    // A program of 32 bits, which there is none.
    .rept 4
    b 9f
    .balign 0x80
    .endr

2:  save_all
    mrs x0, esr_el1
    mrs x1, far_el1
    bl trap
    b go_on

4:  str x9, [sp, #-16]
    save_all
    mrs x0, esr_el1
    bl system_error
    b go_on

3:  str x9, [sp, #-16]
    save_all
    bl interrupt

    // The registers of the thread that goes on are at x0.
go_on:
    ldp x9, x10, [x0, #256]
    ldp x30, x11, [x0, #240]
    ldr x12, [x0, #272]
    and x10, x10, #0xff000000
    msr elr_el1, x9
    msr spsr_el1, x10
    msr sp_el0, x11
    msr tpidr_el0, x12
    msr tpidr_el1, x0
    ldp x28, x29, [x0, #224]
    ldp x26, x27, [x0, #208]
    ldp x24, x25, [x0, #192]
    ldp x22, x23, [x0, #176]
    ldp x20, x21, [x0, #160]
    ldp x18, x19, [x0, #144]
    ldp x16, x17, [x0, #128]
    ldp x14, x15, [x0, #112]
    ldp x12, x13, [x0, #96]
    ldp x10, x11, [x0, #80]
    ldp x8, x9, [x0, #64]
    ldp x6, x7, [x0, #48]
    ldp x4, x5, [x0, #32]
    ldp x2, x3, [x0, #16]
    ldp x0, x1, [x0]
    eret
    // No processor speculates past this.
    dsb nsh
    isb

    // The first thread: the stack is empty from now on.
    .globl go_on_first
go_on_first:
    ldr x1, =__stack_top
    mov sp, x1
    b go_on

9:  ldr x0, =__stack_top
    mov sp, x0
    mrs x0, esr_el1
    mrs x1, far_el1
    mrs x2, elr_el1
    bl kernel_trap
    .pool
"#
);

unsafe extern "C" {
    /// Has a thread go on with these registers.
    fn go_on_first(registers: *const Registers) -> !;
}

/// ESR_EL1.EC: what has happened.
const INSTRUCTION_ABORT: u64 = 0x20;
const DATA_ABORT: u64 = 0x24;
const PROGRAM_COUNTER_ALIGNMENT: u64 = 0x22;
const BREAKPOINT: u64 = 0x3c;
/// ESR_EL1.ISS of a data abort: WnR, and the fault status of an access that is not aligned.
const WRITE: u64 = 1 << 6;
const STATUS: u64 = 0x3f;
const ALIGNMENT: u64 = 0x21;

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
extern "C" fn trap(syndrome: u64, address: u64) -> *const Registers {
    kernel().fault(fault(syndrome, address));
    next()
}

fn fault(syndrome: u64, address: u64) -> Fault {
    let (kind, address, access) = match syndrome >> 26 & 0x3f {
        INSTRUCTION_ABORT => (FaultKind::Page, address, 2),
        DATA_ABORT if syndrome & STATUS == ALIGNMENT => (FaultKind::Instruction, address, 0),
        DATA_ABORT => (FaultKind::Page, address, u8::from(syndrome & WRITE != 0)),
        PROGRAM_COUNTER_ALIGNMENT => (FaultKind::Instruction, address, 0),
        BREAKPOINT => (FaultKind::Breakpoint, syndrome, 0),
        _ => (FaultKind::Instruction, syndrome, 0),
    };
    Fault {
        kind,
        address,
        access,
    }
}

/// A device, or memory, has answered to some access before with an error. It is laid to the program that runs.
#[unsafe(no_mangle)]
extern "C" fn system_error(syndrome: u64) -> *const Registers {
    kernel().fault(Fault {
        kind: FaultKind::Instruction,
        address: syndrome,
        access: 0,
    });
    next()
}

#[unsafe(no_mangle)]
extern "C" fn interrupt() -> *const Registers {
    serve_lines();
    next()
}

fn serve_lines() {
    let timer = TIMER_LINE.load(Ordering::Relaxed);
    while let Some(line) = claim_line() {
        if line == timer {
            silence_alarm();
            kernel().tick();
        } else {
            kernel().interrupt(line);
        }
        // The line is silent now, or off.
        complete_line(line);
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
        serve_lines();
    }
}

#[unsafe(no_mangle)]
extern "C" fn kernel_trap(syndrome: u64, address: u64, at: u64) -> ! {
    if is_ending() {
        super::end(mielin_hal::Outcome::Failure);
    }
    panic!("trap {syndrome:#x} of the kernel at {at:#x}, address {address:#x}");
}

/// Has the first thread run.
pub(super) fn leave() -> ! {
    // SAFETY: these are the registers of the current thread.
    unsafe { go_on_first(next()) }
}

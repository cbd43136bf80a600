//! How programs enter the kernel, and how they go on.
//!
//! There is one processor, and the kernel is at the same addresses in every address space, so that what it needs at an entry, its
//! stack and the place for the program's registers, is found in [`CORE`] by its address. So SWAPGS is nowhere: GS and FS
//! stay the program's own from entry to exit, and there is no entry that could take one for the other. A kernel with
//! several processors would have to find its own `CORE` by GS.
//!
//! A program that made a system call goes on by SYSRET, which loads the program counter from rcx and the flags from r11. That is for those
//! whose program counter is still what SYSCALL left, so that it is one that a program can have, and of whom rcx and r11
//! need not be kept. All others go on by IRETQ. Which it is, is decided by a word beside the thread that no program can write
//! ([`CALLED_AT`]).

use core::arch::{asm, global_asm};
use core::cell::Cell;
use core::mem::offset_of;

use mielin_hal::paging::PageTables;
use mielin_kernel::abi::{FaultKind, MessageInfo};
use mielin_kernel::{FLOATS_AT, FLOATS_BYTES, Fault, Ref, Registers, Request, Thread};

use super::interrupts::{FIRST_VECTOR, SPURIOUS_VECTOR, TIMER_VECTOR};
use super::{CPU, Mmu, cpu, descriptors};
use crate::memory;
use crate::port::kernel;

/// What the entries need. Its fields are what the processor has in hand.
#[repr(C)]
pub(super) struct Core {
    /// Where the registers of the thread are kept that runs.
    registers: Cell<u64>,
    /// The stack pointer of whoever made a system call.
    stack: Cell<u64>,
    /// The vector of the interrupt that ended a rest.
    came: Cell<u64>,
    /// Whether FS and GS are read and written by instructions, by programs, too.
    pub(super) has_bases: Cell<u64>,
}

// SAFETY: there is one processor, and the kernel is not interrupted, but where it rests.
unsafe impl Sync for Core {}

pub(super) static CORE: Core = Core {
    registers: Cell::new(0),
    stack: Cell::new(0),
    came: Cell::new(0),
    has_bases: Cell::new(0),
};

/// A word behind a thread: the program counter that SYSCALL has left. An address that is never mapped if the thread entered otherwise.
const CALLED_AT: u64 = FLOATS_AT + FLOATS_BYTES - 16;
const NOT_CALLED: u64 = (1 << 47) - 1;

/// Flags that are a program's: those of results, direction, single steps, resumption, AC and ID.
const FLAGS: u32 = 0x0025_0dd5;
/// Interrupts come.
const FLAG_INTERRUPTS: u32 = 1 << 9;
/// What SYSCALL clears: all of them, and interrupts, IOPL and NT.
pub(super) const CLEARED_FLAGS: u32 = FLAGS | FLAG_INTERRUPTS | 0x7000;

const VECTOR_PROTECTION: u64 = 13;

global_asm!(
    r#"
    .set REGISTERS, {core} + {registers}
    .set STACK, {core} + {stack}
    .set CAME, {core} + {came}
    .set BASES, {core} + {bases}

    // A system call. All that a callee may change is not kept; r12 and r13 are arguments.
    .macro ENTER_CALL
    mov [rip + STACK], rsp
    mov rsp, [rip + REGISTERS]
    mov [rsp + {called}], rcx
    mov [rsp + 16*8], rcx
    mov [rsp + 17*8], r11
    mov [rsp + 1*8], rbx
    mov [rsp + 6*8], rbp
    mov [rsp + 13*8], r13
    mov [rsp + 14*8], r14
    mov [rsp + 15*8], r15
    mov r11, [rip + STACK]
    mov [rsp + 7*8], r11
    .endm
    .macro SERVE_CALL
    mov rcx, rax
    lea rsp, [rip + __stack_top]
    push r12
    push r10
    call {system_call}
    .endm

    .section .text.entry, "ax"
    .balign 16
    .globl call_entry
call_entry:
    ENTER_CALL
    rdfsbase rcx
    mov [rsp + 18*8], rcx
    rdgsbase rcx
    mov [rsp + 19*8], rcx
    SERVE_CALL

    // Where programs cannot change FS and GS: but for loading selectors, which is undone.
    .balign 16
    .globl call_entry_without_bases
call_entry_without_bases:
    ENTER_CALL
    SERVE_CALL

    // The thread whose registers are at rdi goes on.
    .balign 16
    .globl go_on
go_on:
    mov [rip + REGISTERS], rdi
    cmp qword ptr [rip + BASES], 0
    je 3f
    mov rax, [rdi + 18*8]
1:  wrfsbase rax
    mov rax, [rdi + 19*8]
2:  wrgsbase rax
4:  mov rcx, [rdi + 16*8]
    cmp rcx, [rdi + {called}]
    jne 5f
    mov r11, [rdi + 17*8]
    and r11d, {flags}
    or r11d, {interrupts}
    mov rax, [rdi]
    mov rbx, [rdi + 1*8]
    mov rdx, [rdi + 3*8]
    mov rsi, [rdi + 4*8]
    mov rbp, [rdi + 6*8]
    mov r8, [rdi + 8*8]
    mov r9, [rdi + 9*8]
    mov r10, [rdi + 10*8]
    mov r12, [rdi + 12*8]
    mov r13, [rdi + 13*8]
    mov r14, [rdi + 14*8]
    mov r15, [rdi + 15*8]
    mov rsp, [rdi + 7*8]
    mov rdi, [rdi + 5*8]
    sysretq

3:  mov ecx, 0xc0000100
    mov eax, [rdi + 18*8]
    mov edx, [rdi + 18*8 + 4]
6:  wrmsr
    inc ecx
    mov eax, [rdi + 19*8]
    mov edx, [rdi + 19*8 + 4]
7:  wrmsr
    jmp 4b

    // With all registers. A program counter that a program cannot have, which only another program could write, becomes one that is
    // not mapped: IRETQ would fault, in the kernel.
5:  lea rsp, [rip + __stack_top]
    mov rax, rcx
    shr rax, 47
    jz 8f
    movabs rcx, {not_called}
8:  mov eax, [rdi + 17*8]
    and eax, {flags}
    or eax, {interrupts}
    push {program_data}
    push [rdi + 7*8]
    push rax
    push {program_code}
    push rcx
    mov rax, [rdi]
    mov rbx, [rdi + 1*8]
    mov rcx, [rdi + 2*8]
    mov rdx, [rdi + 3*8]
    mov rsi, [rdi + 4*8]
    mov rbp, [rdi + 6*8]
    mov r8, [rdi + 8*8]
    mov r9, [rdi + 9*8]
    mov r10, [rdi + 10*8]
    mov r11, [rdi + 11*8]
    mov r12, [rdi + 12*8]
    mov r13, [rdi + 13*8]
    mov r14, [rdi + 14*8]
    mov r15, [rdi + 15*8]
    mov rdi, [rdi + 5*8]
    iretq

    // An entry for each exception. Where the processor pushes no error code, 0 stands for it.
    .balign 16
    .globl exception_entries
exception_entries:
    .set vector, 0
    .rept {first_vector}
    .balign 16
    .if (vector != 8) && ((vector < 10) || (vector > 14)) && (vector != 17) && (vector != 21) && (vector != 29) && (vector != 30)
    push 0
    .endif
    .byte 0x6a, vector
    jmp common_entry
    .set vector, vector + 1
    .endr

    // And one for each interrupt: a PUSH of the vector less 128, which a signed byte can hold.
    .balign 8
    .globl interrupt_entries
interrupt_entries:
    .rept 256 - {first_vector}
    .balign 8
    .byte 0x6a, (vector - 128) & 0xff
    jmp interrupt_entry
    .set vector, vector + 1
    .endr
    .balign 16
interrupt_entry:
    add qword ptr [rsp], 128
    push [rsp]

    // The stack: vector, error code, rip, cs, flags, rsp, ss.
common_entry:
    test byte ptr [rsp + 3*8], 3
    jz 9f
    push rax
    mov rax, [rip + REGISTERS]
    mov [rax + 1*8], rbx
    mov [rax + 2*8], rcx
    mov [rax + 3*8], rdx
    mov [rax + 4*8], rsi
    mov [rax + 5*8], rdi
    mov [rax + 6*8], rbp
    mov [rax + 8*8], r8
    mov [rax + 9*8], r9
    mov [rax + 10*8], r10
    mov [rax + 11*8], r11
    mov [rax + 12*8], r12
    mov [rax + 13*8], r13
    mov [rax + 14*8], r14
    mov [rax + 15*8], r15
    pop rcx
    mov [rax], rcx
    pop rdi
    pop rsi
    pop rcx
    mov [rax + 16*8], rcx
    mov rcx, [rsp + 8]
    mov [rax + 17*8], rcx
    mov rcx, [rsp + 16]
    mov [rax + 7*8], rcx
    movabs rcx, {not_called}
    mov [rax + {called}], rcx
    lea rsp, [rip + __stack_top]
    // The program's AC would let the kernel touch its pages.
    push 2
    popfq
    cmp qword ptr [rip + BASES], 0
    je 2f
    rdfsbase rcx
    mov [rax + 18*8], rcx
    rdgsbase rcx
    mov [rax + 19*8], rcx
2:  mov rdx, cr2
    call {trap}

    // The kernel itself. Interrupts come to it only where it rests.
9:  cmp dword ptr [rsp], {first_vector}
    jb 3f
    push rax
    mov rax, [rsp + 8]
    mov [rip + CAME], rax
    pop rax
    and dword ptr [rsp + 4*8], {no_interrupts}
    add rsp, 16
    iretq
3:  // A program has given another one FS or GS that cannot be: it gets 0 instead.
    cmp dword ptr [rsp], {protection}
    jne 5f
    push rcx
    lea rcx, [rip + 1b]
    cmp rcx, [rsp + 3*8]
    je 4f
    lea rcx, [rip + 2b]
    cmp rcx, [rsp + 3*8]
    je 4f
    lea rcx, [rip + 6b]
    cmp rcx, [rsp + 3*8]
    je 4f
    lea rcx, [rip + 7b]
    cmp rcx, [rsp + 3*8]
    je 4f
    pop rcx
5:  mov rdi, [rsp]
    mov rsi, [rsp + 8]
    mov rdx, [rsp + 16]
    mov rcx, cr2
    lea rsp, [rip + __stack_top]
    call {kernel_trap}
4:  pop rcx
    xor eax, eax
    xor edx, edx
    add rsp, 16
    iretq
"#,
    core = sym CORE,
    registers = const offset_of!(Core, registers),
    stack = const offset_of!(Core, stack),
    came = const offset_of!(Core, came),
    bases = const offset_of!(Core, has_bases),
    called = const CALLED_AT,
    not_called = const NOT_CALLED,
    flags = const FLAGS,
    interrupts = const FLAG_INTERRUPTS,
    no_interrupts = const !FLAG_INTERRUPTS as i32,
    program_data = const descriptors::PROGRAM_DATA,
    program_code = const descriptors::PROGRAM_CODE,
    first_vector = const FIRST_VECTOR,
    protection = const VECTOR_PROTECTION,
    system_call = sym system_call,
    trap = sym trap,
    kernel_trap = sym kernel_trap,
);

unsafe extern "C" {
    pub(super) fn call_entry();
    pub(super) fn call_entry_without_bases();
    pub(super) fn exception_entries();
    pub(super) fn interrupt_entries();
    /// Has a thread go on with these registers.
    fn go_on(registers: *const Registers) -> !;
}

extern "C" fn system_call(
    capability: u64,
    info: u64,
    word0: u64,
    number: u64,
    word1: u64,
    word2: u64,
    word3: u64,
    reply: u64,
) -> ! {
    kernel().system_call(Request {
        number,
        capability,
        info: MessageInfo(info),
        words: [word0, word1, word2, word3],
        reply,
    });
    leave()
}

extern "C" fn trap(vector: u64, error: u64, address: u64) -> ! {
    match vector {
        2 | 8 | 18 => panic!("exception {vector}, error code {error:#x}, while a program ran"),
        0x20.. => serve(vector as u8),
        _ => kernel().fault(fault(vector, error, address)),
    }
    leave()
}

fn fault(vector: u64, error: u64, address: u64) -> Fault {
    let (kind, address, access) = match (vector, error) {
        // Fetches have bit 4, writes bit 1.
        (14, error) if error & 1 << 4 != 0 => (FaultKind::Page, address, 2),
        (14, error) => (FaultKind::Page, address, (error >> 1 & 1) as u8),
        (1 | 3, _) => (FaultKind::Breakpoint, 0, 0),
        // Of all others: which exception it is, and its error code.
        (vector, error) => (FaultKind::Instruction, vector << 32 | error, 0),
    };
    Fault {
        kind,
        address,
        access,
    }
}

/// Serves an interrupt.
fn serve(vector: u8) {
    match vector {
        SPURIOUS_VECTOR => {}
        TIMER_VECTOR => {
            CPU.interrupts.complete();
            kernel().tick();
        }
        vector => {
            if let Some(line) = CPU.interrupts.line(vector) {
                kernel().interrupt(line);
            }
            CPU.interrupts.complete();
        }
    }
}

/// Has the current thread go on, when there is one.
#[inline(always)]
pub(super) fn leave() -> ! {
    let thread = match kernel().current() {
        Some(thread) => thread,
        None => rest(),
    };
    CPU.unit.arrange(thread);
    // SAFETY: these are the registers of the current thread, whose address space is used.
    unsafe { go_on(memory::pointer::<Registers>(thread.address())) }
}

/// Rests until somebody can run.
#[cold]
fn rest() -> Ref<Thread> {
    loop {
        if let Some(thread) = kernel().current() {
            return thread;
        }
        // SAFETY: this is the one place where the kernel is interrupted, by an entry that keeps all registers and comes back with
        // interrupts off. STI lets them come only after the next instruction, so that one that is pending ends the HLT.
        unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
        let vector = CORE.came.replace(0);
        if vector != 0 {
            serve(vector as u8);
        }
    }
}

/// A new thread made no system call.
pub(super) fn begin_thread(thread: Ref<Thread>) {
    // SAFETY: the word is in what a thread's memory has for the port, and no Rust object is there.
    unsafe { memory::pointer::<u64>(thread.address() + CALLED_AT).write(NOT_CALLED) };
}

const _: () = assert!(NOT_CALLED >= Mmu::USER_END && NOT_CALLED >> 47 == 0);

extern "C" fn kernel_trap(vector: u64, error: u64, at: u64, address: u64) -> ! {
    panic!(
        "exception {vector} of the kernel at {at:#x}, error code {error:#x}; the last page fault was about {address:#x}, tables {:#x}",
        cpu::cr3(),
    );
}

//! Which register is what, for each architecture: indexes into a thread's [`Registers`](crate::Registers).
//!
//! | argument | RISC-V | 64-bit Arm | x86-64 | result |
//! |---|---|---|---|---|
//! | number of the call | a7 | x7 | rax | |
//! | capability | a0 | x0 | rdi | error: a0, x0, rax |
//! | message info | a1 | x1 | rsi | message info |
//! | words | a2 to a5 | x2 to x5 | rdx, r8, r9, r10 | words |
//! | reply capability | a6 | x6 | r12 | badge |
//! | deadline | t0 | x8 | r13 | |
//!
//! Other registers that the architecture's calling convention lets a callee change may change in a system call, and so may rcx and r11 on
//! x86-64, where the instruction itself does it. On hosts, where there are tests only, it is x86-64's list.

#[cfg(target_arch = "riscv64")]
mod of {
    /// pc, then x1 to x31.
    pub(super) const COUNT: usize = 32;
    pub(super) const CALL_BYTES: u64 = 4;
    pub(super) const PROGRAM_COUNTER: usize = 0;
    pub(super) const STACK_POINTER: usize = 2;
    pub(super) const CAPABILITY: usize = 10;
    pub(super) const ERROR: usize = 10;
    pub(super) const INFO: usize = 11;
    pub(super) const WORDS: [usize; 4] = [12, 13, 14, 15];
    pub(super) const REPLY: usize = 16;
    pub(super) const DEADLINE: usize = 5;
    pub(super) const NUMBER: usize = 17;
    /// What a new thread's first function gets.
    pub(super) const ARGUMENTS: [usize; 2] = [10, 11];
}

#[cfg(target_arch = "aarch64")]
mod of {
    /// x0 to x30, sp, pc, pstate, tpidr.
    pub(super) const COUNT: usize = 35;
    pub(super) const CALL_BYTES: u64 = 4;
    pub(super) const PROGRAM_COUNTER: usize = 32;
    pub(super) const STACK_POINTER: usize = 31;
    pub(super) const CAPABILITY: usize = 0;
    pub(super) const ERROR: usize = 0;
    pub(super) const INFO: usize = 1;
    pub(super) const WORDS: [usize; 4] = [2, 3, 4, 5];
    pub(super) const REPLY: usize = 6;
    pub(super) const DEADLINE: usize = 8;
    pub(super) const NUMBER: usize = 7;
    pub(super) const ARGUMENTS: [usize; 2] = [0, 1];
}

#[cfg(not(any(target_arch = "riscv64", target_arch = "aarch64")))]
mod of {
    /// rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8 to r15, rip, rflags, fs base, gs base.
    pub(super) const COUNT: usize = 20;
    pub(super) const CALL_BYTES: u64 = 2;
    pub(super) const PROGRAM_COUNTER: usize = 16;
    pub(super) const STACK_POINTER: usize = 7;
    pub(super) const CAPABILITY: usize = 5;
    pub(super) const ERROR: usize = 0;
    pub(super) const INFO: usize = 4;
    pub(super) const WORDS: [usize; 4] = [3, 8, 9, 10];
    pub(super) const REPLY: usize = 12;
    pub(super) const DEADLINE: usize = 13;
    pub(super) const NUMBER: usize = 0;
    pub(super) const ARGUMENTS: [usize; 2] = [5, 4];
}

/// How many words a thread's registers are.
pub const COUNT: usize = of::COUNT;
/// The length of the instruction that makes a system call: the program counter is behind it when the kernel begins.
pub const CALL_BYTES: u64 = of::CALL_BYTES;
/// The program counter.
pub const PROGRAM_COUNTER: usize = of::PROGRAM_COUNTER;
/// The stack pointer.
pub const STACK_POINTER: usize = of::STACK_POINTER;
/// In: the address of a capability.
pub const CAPABILITY: usize = of::CAPABILITY;
/// Out: 0, or an error's number.
pub const ERROR: usize = of::ERROR;
/// In and out: what the message is.
pub const INFO: usize = of::INFO;
/// In and out: the first words of the message.
pub const WORDS: [usize; 4] = of::WORDS;
/// In: the address of the reply capability.
pub const REPLY: usize = of::REPLY;
/// Out: the badge.
pub const BADGE: usize = of::REPLY;
/// In: until when to wait.
pub const DEADLINE: usize = of::DEADLINE;
/// In: which call it is.
pub const NUMBER: usize = of::NUMBER;
/// What the first function of a new thread gets as its arguments.
pub const ARGUMENTS: [usize; 2] = of::ARGUMENTS;

//! The loops whose instructions are counted: assembly that can lie anywhere.
//!
//! A loop has the address of its table in one register and the number of rounds in another. In each round it makes none, one or
//! two calls with the arguments that stand in the table, and in the end one more, with the ticks that the rounds have taken as
//! its first word; for that the table has arguments behind the others.

use core::arch::global_asm;

/// Instructions of a program for each call: eight that load its arguments, and the call.
pub(crate) const CALL_INSTRUCTIONS: u64 = 9;
/// And for each round: counting it, and going back.
pub(crate) const LOOP_INSTRUCTIONS: u64 = 2;

#[cfg(target_arch = "riscv64")]
#[macro_use]
mod of {
    /// s0, s1.
    pub(crate) const TABLE_REGISTER: usize = 8;
    pub(crate) const ROUNDS_REGISTER: usize = 9;

    macro_rules! load_and_call {
        ($at:literal) => {
            concat!(
                ".set at, ",
                $at,
                "\n",
                "ld a0, at+0(s0)\n",
                "ld a1, at+8(s0)\n",
                "ld a2, at+16(s0)\n",
                "ld a3, at+24(s0)\n",
                "ld a4, at+32(s0)\n",
                "ld a5, at+40(s0)\n",
                "ld a6, at+48(s0)\n",
                "ld a7, at+56(s0)\n",
                "ecall\n",
            )
        };
    }

    macro_rules! looping {
        ($name:literal, $calls:expr, $last:literal) => {
            concat!(
                ".globl ",
                $name,
                "_begin\n",
                $name,
                "_begin:\n",
                ".option push\n.option norvc\n",
                "rdtime s2\n",
                "1:\n",
                $calls,
                "addi s1, s1, -1\n",
                "bnez s1, 1b\n",
                "rdtime s3\n",
                ".set at, ",
                $last,
                "\n",
                "ld a0, at+0(s0)\n",
                "ld a1, at+8(s0)\n",
                "sub a2, s3, s2\n",
                "ld a7, at+56(s0)\n",
                "ecall\n",
                "2: j 2b\n",
                ".option pop\n",
                ".globl ",
                $name,
                "_end\n",
                $name,
                "_end:\n",
            )
        };
    }
}

#[cfg(target_arch = "aarch64")]
#[macro_use]
mod of {
    /// x19, x20.
    pub(crate) const TABLE_REGISTER: usize = 19;
    pub(crate) const ROUNDS_REGISTER: usize = 20;

    macro_rules! load_and_call {
        ($at:literal) => {
            concat!(
                ".set at, ",
                $at,
                "\n",
                "ldr x0, [x19, at+0]\n",
                "ldr x1, [x19, at+8]\n",
                "ldr x2, [x19, at+16]\n",
                "ldr x3, [x19, at+24]\n",
                "ldr x4, [x19, at+32]\n",
                "ldr x5, [x19, at+40]\n",
                "ldr x6, [x19, at+48]\n",
                "ldr x7, [x19, at+56]\n",
                "svc #0\n",
            )
        };
    }

    macro_rules! looping {
        ($name:literal, $calls:expr, $last:literal) => {
            concat!(
                ".globl ",
                $name,
                "_begin\n",
                $name,
                "_begin:\n",
                "mrs x21, cntvct_el0\n",
                "1:\n",
                $calls,
                "sub x20, x20, #1\n",
                "cbnz x20, 1b\n",
                "mrs x22, cntvct_el0\n",
                ".set at, ",
                $last,
                "\n",
                "ldr x0, [x19, at+0]\n",
                "ldr x1, [x19, at+8]\n",
                "sub x2, x22, x21\n",
                "ldr x7, [x19, at+56]\n",
                "svc #0\n",
                "2: b 2b\n",
                ".globl ",
                $name,
                "_end\n",
                $name,
                "_end:\n",
            )
        };
    }
}

#[cfg(target_arch = "x86_64")]
#[macro_use]
mod of {
    /// rbx, rbp.
    pub(crate) const TABLE_REGISTER: usize = 1;
    pub(crate) const ROUNDS_REGISTER: usize = 6;

    macro_rules! load_and_call {
        ($at:literal) => {
            concat!(
                ".set at, ",
                $at,
                "\n",
                "mov rdi, [rbx + at + 0]\n",
                "mov rsi, [rbx + at + 8]\n",
                "mov rdx, [rbx + at + 16]\n",
                "mov r8, [rbx + at + 24]\n",
                "mov r9, [rbx + at + 32]\n",
                "mov r10, [rbx + at + 40]\n",
                "mov r12, [rbx + at + 48]\n",
                "mov rax, [rbx + at + 56]\n",
                "syscall\n",
            )
        };
    }

    macro_rules! looping {
        ($name:literal, $calls:expr, $last:literal) => {
            concat!(
                ".globl ",
                $name,
                "_begin\n",
                $name,
                "_begin:\n",
                "rdtsc\nshl rdx, 32\nor rax, rdx\nmov r14, rax\n",
                "2:\n",
                $calls,
                "dec rbp\n",
                "jnz 2b\n",
                "rdtsc\nshl rdx, 32\nor rdx, rax\nsub rdx, r14\n",
                ".set at, ",
                $last,
                "\n",
                "mov rdi, [rbx + at + 0]\n",
                "mov rsi, [rbx + at + 8]\n",
                "mov rax, [rbx + at + 56]\n",
                "syscall\n",
                "3: jmp 3b\n",
                ".globl ",
                $name,
                "_end\n",
                $name,
                "_end:\n",
            )
        };
    }
}

pub(crate) use of::{ROUNDS_REGISTER, TABLE_REGISTER};

global_asm!(
    ".text",
    looping!("no_call", "", "0"),
    looping!("one_call", load_and_call!("0"), "64"),
    looping!(
        "two_calls",
        concat!(load_and_call!("0"), load_and_call!("64")),
        "128"
    ),
);

unsafe extern "C" {
    static no_call_begin: u8;
    static no_call_end: u8;
    static one_call_begin: u8;
    static one_call_end: u8;
    static two_calls_begin: u8;
    static two_calls_end: u8;
}

/// Copies the loop with so many calls to a page.
pub(crate) fn copy(calls: usize, to: *mut u64) {
    let (begin, end) = match calls {
        0 => (&raw const no_call_begin, &raw const no_call_end),
        1 => (&raw const one_call_begin, &raw const one_call_end),
        _ => (&raw const two_calls_begin, &raw const two_calls_end),
    };
    let len = end.addr() - begin.addr();
    assert!(len <= 4096);
    // SAFETY: the bytes between these symbols are the loop, and `to` is a page of this program.
    unsafe { core::ptr::copy_nonoverlapping(begin, to.cast::<u8>(), len) };
}

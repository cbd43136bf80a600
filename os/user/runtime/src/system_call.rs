//! System calls, as the kernel takes them.
#![allow(unsafe_code)]

use core::arch::asm;

use mielin_kernel::abi::{Error, MessageInfo, SystemCall};

/// What a call is given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arguments {
    /// The address of a capability.
    pub capability: u64,
    /// What the message is.
    pub info: MessageInfo,
    /// Its first words.
    pub words: [u64; 4],
    /// The address of a reply capability; 0 for none.
    pub reply: u64,
    /// Until when to wait, for the calls that have a deadline.
    pub deadline: u64,
}

/// What a call gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// What the message is.
    pub info: MessageInfo,
    /// Its first words.
    pub words: [u64; 4],
    /// The badge of the capability by which it was sent, or the bits of a notification.
    pub badge: u64,
}

/// Makes a system call.
///
/// # Errors
/// What the kernel says.
#[inline(always)]
pub fn make(call: SystemCall, arguments: &Arguments) -> Result<Received, Error> {
    make_numbered(call as u64, arguments)
}

/// The same with any number, for whoever wants to see it refused.
///
/// # Errors
/// What the kernel says.
#[inline(always)]
pub fn make_numbered(number: u64, arguments: &Arguments) -> Result<Received, Error> {
    let Arguments {
        capability,
        info,
        words: [mut w0, mut w1, mut w2, mut w3],
        reply,
        deadline,
    } = *arguments;
    let (mut error, mut info, mut badge) = (capability, info.0, reply);
    #[cfg(target_arch = "riscv64")]
    // SAFETY: the kernel changes the named registers and those that a callee may change; of memory, what other threads and the
    // kernel may write (message buffers).
    unsafe {
        asm!(
            "ecall",
            inout("a0") error,
            inout("a1") info,
            inout("a2") w0,
            inout("a3") w1,
            inout("a4") w2,
            inout("a5") w3,
            inout("a6") badge,
            inout("a7") number => _,
            inout("t0") deadline => _,
            out("t1") _, out("t2") _, out("t3") _, out("t4") _, out("t5") _, out("t6") _,
            options(nostack),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as on RISC-V.
    unsafe {
        asm!(
            "svc #0",
            inout("x0") error,
            inout("x1") info,
            inout("x2") w0,
            inout("x3") w1,
            inout("x4") w2,
            inout("x5") w3,
            inout("x6") badge,
            inout("x7") number => _,
            inout("x8") deadline => _,
            out("x9") _, out("x10") _, out("x11") _, out("x12") _, out("x13") _,
            out("x14") _, out("x15") _, out("x16") _, out("x17") _,
            options(nostack),
        );
    }
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as on RISC-V; the instruction itself changes rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inout("rax") number => error,
            inout("rdi") error => _,
            inout("rsi") info,
            inout("rdx") w0,
            inout("r8") w1,
            inout("r9") w2,
            inout("r10") w3,
            inout("r12") badge,
            inout("r13") deadline => _,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    match Error::from_result(error) {
        None => Ok(Received {
            info: MessageInfo(info),
            words: [w0, w1, w2, w3],
            badge,
        }),
        Some(error) => Err(error),
    }
}

/// The clock, in ticks; the first thread is told how many there are in a second.
#[inline(always)]
#[must_use]
pub fn now() -> u64 {
    #[cfg(target_arch = "riscv64")]
    // SAFETY: the kernel lets programs read the counter.
    unsafe {
        let ticks;
        asm!("rdtime {}", out(reg) ticks, options(nomem, nostack, preserves_flags));
        ticks
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the kernel lets programs read the counter.
    unsafe {
        let ticks;
        asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack, preserves_flags));
        ticks
    }
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the kernel lets programs read the counter.
    unsafe {
        let (low, high): (u32, u32);
        asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
        u64::from(high) << 32 | u64::from(low)
    }
}

//! The few instructions that the tests need by name.
#![allow(unsafe_code)]

use core::arch::asm;

/// How many floating-point registers [`fill_floats`] fills.
pub(crate) const FLOATS: usize = 16;

/// The length of the instructions of [`undefined`] and of [`store`], to go on behind one.
#[cfg(any(target_arch = "riscv64", target_arch = "aarch64"))]
pub(crate) const INSTRUCTION_BYTES: u64 = 4;
#[cfg(target_arch = "x86_64")]
pub(crate) const INSTRUCTION_BYTES: u64 = 2;

/// A function of one instruction that returns at once, as bytes of machine code.
#[cfg(target_arch = "riscv64")]
pub(crate) const RETURN: &[u8] = &0x0000_8067_u32.to_le_bytes();
#[cfg(target_arch = "aarch64")]
pub(crate) const RETURN: &[u8] = &0xd65f_03c0_u32.to_le_bytes();
#[cfg(target_arch = "x86_64")]
pub(crate) const RETURN: &[u8] = &[0xc3];

/// Has all of [`FLOATS`] registers hold numbers that follow from a seed, has the kernel switch threads by `yield`, and looks
/// whether they do still. `false` if not.
#[inline(never)]
pub(crate) fn floats_survive(seed: u64) -> bool {
    let mut wanted = [0_u64; FLOATS];
    for (word, index) in wanted.iter_mut().zip(1..) {
        *word = seed.wrapping_mul(index);
    }
    let mut found = [0_u64; FLOATS];
    exchange_floats(&wanted, &mut found);
    wanted == found
}

#[cfg(target_arch = "riscv64")]
fn exchange_floats(from: &[u64; FLOATS], to: &mut [u64; FLOATS]) {
    macro_rules! all {
        ($instruction:literal, $base:literal) => {
            concat!(
                $instruction,
                " f0, 0(",
                $base,
                ")\n",
                $instruction,
                " f1, 8(",
                $base,
                ")\n",
                $instruction,
                " f2, 16(",
                $base,
                ")\n",
                $instruction,
                " f3, 24(",
                $base,
                ")\n",
                $instruction,
                " f4, 32(",
                $base,
                ")\n",
                $instruction,
                " f5, 40(",
                $base,
                ")\n",
                $instruction,
                " f6, 48(",
                $base,
                ")\n",
                $instruction,
                " f7, 56(",
                $base,
                ")\n",
                $instruction,
                " f8, 64(",
                $base,
                ")\n",
                $instruction,
                " f9, 72(",
                $base,
                ")\n",
                $instruction,
                " f18, 80(",
                $base,
                ")\n",
                $instruction,
                " f19, 88(",
                $base,
                ")\n",
                $instruction,
                " f28, 96(",
                $base,
                ")\n",
                $instruction,
                " f29, 104(",
                $base,
                ")\n",
                $instruction,
                " f30, 112(",
                $base,
                ")\n",
                $instruction,
                " f31, 120(",
                $base,
                ")\n",
            )
        };
    }
    // SAFETY: the registers that change are named; the system call (yield) changes no memory.
    unsafe {
        asm!(
            all!("fld", "{from}"),
            "li a7, 10",
            "ecall",
            all!("fsd", "{to}"),
            from = in(reg) from.as_ptr(),
            to = in(reg) to.as_mut_ptr(),
            out("a0") _, out("a1") _, out("a2") _, out("a3") _,
            out("a4") _, out("a5") _, out("a6") _, out("a7") _,
            out("t0") _, out("t1") _, out("t2") _, out("t3") _, out("t4") _, out("t5") _, out("t6") _,
            out("f0") _, out("f1") _, out("f2") _, out("f3") _, out("f4") _, out("f5") _,
            out("f6") _, out("f7") _, out("f8") _, out("f9") _, out("f18") _, out("f19") _,
            out("f28") _, out("f29") _, out("f30") _, out("f31") _,
            options(nostack),
        );
    }
}

#[cfg(target_arch = "aarch64")]
fn exchange_floats(from: &[u64; FLOATS], to: &mut [u64; FLOATS]) {
    // The kernel's targets have no floating-point registers for the compiler: it neither uses nor saves them.
    // SAFETY: the registers that change are named, but for those that the compiler does not know; the system call
    // (yield) changes no memory.
    unsafe {
        asm!(
            ".arch_extension fp",
            "ldp d0, d1, [{from}]",
            "ldp d2, d3, [{from}, 16]",
            "ldp d4, d5, [{from}, 32]",
            "ldp d6, d7, [{from}, 48]",
            "ldp d8, d9, [{from}, 64]",
            "ldp d16, d17, [{from}, 80]",
            "ldp d24, d25, [{from}, 96]",
            "ldp d30, d31, [{from}, 112]",
            "mov x7, 10",
            "svc #0",
            "stp d0, d1, [{to}]",
            "stp d2, d3, [{to}, 16]",
            "stp d4, d5, [{to}, 32]",
            "stp d6, d7, [{to}, 48]",
            "stp d8, d9, [{to}, 64]",
            "stp d16, d17, [{to}, 80]",
            "stp d24, d25, [{to}, 96]",
            "stp d30, d31, [{to}, 112]",
            from = in(reg) from.as_ptr(),
            to = in(reg) to.as_mut_ptr(),
            out("x0") _, out("x1") _, out("x2") _, out("x3") _, out("x4") _, out("x5") _,
            out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _, out("x11") _,
            out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _,
            options(nostack),
        );
    }
}

#[cfg(target_arch = "x86_64")]
fn exchange_floats(from: &[u64; FLOATS], to: &mut [u64; FLOATS]) {
    macro_rules! all {
        (load) => { all!(@ "movsd xmm", ", qword ptr [r14 + ", "]") };
        (store) => { all!(# "movsd qword ptr [r15 + ", "], xmm") };
        (@ $a:literal, $b:literal, $c:literal) => {
            concat!(
                $a, "0", $b, "0", $c, "\n", $a, "1", $b, "8", $c, "\n", $a, "2", $b, "16", $c, "\n",
                $a, "3", $b, "24", $c, "\n", $a, "4", $b, "32", $c, "\n", $a, "5", $b, "40", $c, "\n",
                $a, "6", $b, "48", $c, "\n", $a, "7", $b, "56", $c, "\n", $a, "8", $b, "64", $c, "\n",
                $a, "9", $b, "72", $c, "\n", $a, "10", $b, "80", $c, "\n", $a, "11", $b, "88", $c, "\n",
                $a, "12", $b, "96", $c, "\n", $a, "13", $b, "104", $c, "\n", $a, "14", $b, "112", $c, "\n",
                $a, "15", $b, "120", $c, "\n",
            )
        };
        (# $a:literal, $b:literal) => {
            concat!(
                $a, "0", $b, "0\n", $a, "8", $b, "1\n", $a, "16", $b, "2\n", $a, "24", $b, "3\n",
                $a, "32", $b, "4\n", $a, "40", $b, "5\n", $a, "48", $b, "6\n", $a, "56", $b, "7\n",
                $a, "64", $b, "8\n", $a, "72", $b, "9\n", $a, "80", $b, "10\n", $a, "88", $b, "11\n",
                $a, "96", $b, "12\n", $a, "104", $b, "13\n", $a, "112", $b, "14\n", $a, "120", $b, "15\n",
            )
        };
    }
    // SAFETY: the registers that change are named, but for those that the compiler does not know; the system call
    // (yield) changes no memory.
    unsafe {
        asm!(
            all!(load),
            "mov eax, 10",
            "syscall",
            all!(store),
            in("r14") from.as_ptr(),
            in("r15") to.as_mut_ptr(),
            out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _, out("r13") _,
            options(nostack),
        );
    }
}

/// Uses a floating-point register.
pub(crate) fn use_floats() {
    // SAFETY: the register that changes is named, or one that the compiler does not use.
    #[cfg(target_arch = "riscv64")]
    unsafe {
        asm!("fmv.d.x f0, zero", out("f0") _, options(nomem, nostack));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            ".arch_extension fp",
            "fmov d0, xzr",
            options(nomem, nostack)
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("xorps xmm0, xmm0", options(nomem, nostack));
    }
}

/// Executes an instruction that is none, of [`INSTRUCTION_BYTES`].
pub(crate) fn undefined() {
    // SAFETY: whoever is told of the fault decides what comes next.
    #[cfg(target_arch = "riscv64")]
    unsafe {
        asm!(
            ".option push",
            ".option norvc",
            "unimp",
            ".option pop",
            options(nomem, nostack)
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("udf #0", options(nomem, nostack));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("ud2", options(nomem, nostack));
    }
}

/// A breakpoint.
pub(crate) fn breakpoint() {
    // SAFETY: as for `undefined`.
    #[cfg(target_arch = "riscv64")]
    unsafe {
        asm!(
            ".option push",
            ".option norvc",
            "ebreak",
            ".option pop",
            options(nomem, nostack)
        );
    }
    // SAFETY: as for `undefined`.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("brk #0", options(nomem, nostack));
    }
    // SAFETY: as for `undefined`.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("int3", options(nomem, nostack));
    }
}

/// Reads the word at an address, whatever comes of it.
pub(crate) fn load(address: u64) -> u64 {
    let pointer = core::ptr::with_exposed_provenance::<u64>(address as usize);
    // SAFETY: a test's memory, which nobody else uses, or none: then the thread faults.
    unsafe { pointer.read_volatile() }
}

/// Writes a word.
pub(crate) fn store(address: u64, word: u64) {
    let pointer = core::ptr::with_exposed_provenance_mut::<u64>(address as usize);
    // SAFETY: as for `load`.
    unsafe { pointer.write_volatile(word) }
}

/// Calls the function at an address.
pub(crate) fn call(address: u64) {
    let pointer = core::ptr::with_exposed_provenance::<()>(address as usize);
    // SAFETY: the code of `RETURN`, or none: then the thread faults.
    let function = unsafe { core::mem::transmute::<*const (), extern "C" fn()>(pointer) };
    function();
}

/// Tries something that only the kernel may do.
pub(crate) fn privileged() {
    // SAFETY: the instruction is refused.
    #[cfg(target_arch = "riscv64")]
    unsafe {
        asm!(
            ".option push",
            ".option norvc",
            "csrw satp, zero",
            ".option pop",
            options(nostack)
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("msr ttbr0_el1, xzr", options(nostack));
    }
    // SAFETY: as above; its length is INSTRUCTION_BYTES too, with a prefix that means nothing.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(".byte 0x66, 0xf4", options(nostack));
    }
}

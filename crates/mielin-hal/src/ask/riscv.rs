//! `riscv_hwprobe` on Linux; elsewhere only what the compiler was told. On bare metal the device tree knows more.
#![allow(unsafe_code)]

use core::arch::asm;

use super::Answer;
use crate::features::{CpuFeature, FeatureSet};

pub(crate) fn ask() -> Answer {
    let features = features();
    Answer {
        features,
        vector_bits: features.contains(CpuFeature::Vector).then(vector_bits),
    }
}

#[cfg(target_os = "linux")]
fn features() -> FeatureSet {
    use crate::riscv;

    let mut pairs = [
        Probe {
            key: riscv::HWPROBE_BASE_BEHAVIOR,
            value: 0,
        },
        Probe {
            key: riscv::HWPROBE_IMA_EXT_0,
            value: 0,
        },
    ];
    if probe(&mut pairs) {
        // The kernel marks keys that it does not know.
        let value = |probe: &Probe| if probe.key < 0 { 0 } else { probe.value };
        return riscv::from_hwprobe(value(&pairs[0]), value(&pairs[1]));
    }
    #[cfg(feature = "std")]
    if let Some(hwcap) = crate::linux::auxiliary_value(crate::linux::AT_HWCAP) {
        return riscv::from_hwcap(hwcap);
    }
    compiled_in()
}

#[cfg(not(target_os = "linux"))]
fn features() -> FeatureSet {
    compiled_in()
}

fn compiled_in() -> FeatureSet {
    super::compiled_in!(
        Mul = "m",
        Atomic = "a",
        Float = "f",
        Double = "d",
        Compressed = "c",
        Vector = "v",
        Zba = "zba",
        Zbb = "zbb",
        Zbc = "zbc",
        Zbs = "zbs",
        Zbkb = "zbkb",
        Zicond = "zicond",
        Zicboz = "zicboz",
        Zfh = "zfh",
        Zfhmin = "zfhmin",
        Zvfh = "zvfh",
        Zvbb = "zvbb",
        Zvkned = "zvkned",
        Zvknhb = "zvknhb",
    )
}

/// A question and its answer, as the kernel has them.
#[cfg(target_os = "linux")]
#[repr(C)]
struct Probe {
    key: i64,
    value: u64,
}

/// Asks Linux what all processors have; false if it does not know the question.
#[cfg(target_os = "linux")]
fn probe(pairs: &mut [Probe]) -> bool {
    const RISCV_HWPROBE: usize = 258;
    let result: isize;
    // SAFETY: riscv_hwprobe(pairs, count, cpu set size 0, no cpu set, flags 0) reads and writes `count` pairs, which are
    // borrowed mutably here and have its layout, and nothing else (Documentation/arch/riscv/hwprobe.rst). The call
    // clobbers only a0.
    unsafe {
        asm!(
            "ecall",
            in("a7") RISCV_HWPROBE,
            inlateout("a0") pairs.as_mut_ptr() => result,
            in("a1") pairs.len(),
            in("a2") 0,
            in("a3") 0,
            in("a4") 0,
            options(nostack)
        );
    }
    result == 0
}

/// Only where there are vectors that may be used.
pub(crate) fn vector_bits() -> u32 {
    let bytes: usize;
    // SAFETY: vlenb (CSR 0xc22) is read-only and can be read wherever the vector extension is switched on, which the
    // caller knows (The RISC-V Vector Extension 1.0, 3.8).
    unsafe {
        asm!("csrr {}, 0xc22", out(reg) bytes, options(nomem, nostack, preserves_flags, pure));
    }
    u32::try_from(bytes * 8).unwrap_or(0)
}

/// Whether floating point and vectors are switched on, for a supervisor.
#[cfg(all(target_arch = "riscv64", target_os = "none", feature = "privileged"))]
pub(crate) fn switched_on() -> (bool, bool) {
    let sstatus: u64;
    // SAFETY: the feature `privileged` is the promise that this runs in supervisor mode, where the register can be read;
    // reading it changes nothing (privileged architecture, "Supervisor Status Register").
    unsafe {
        asm!("csrr {}, sstatus", out(reg) sstatus, options(nomem, nostack, preserves_flags));
    }
    // FS and VS, which stay 0 where there are no such registers.
    (sstatus >> 13 & 0b11 != 0, sstatus >> 9 & 0b11 != 0)
}

//! The auxiliary vector on Linux, the standard library elsewhere, the identification registers on bare metal.
#![allow(unsafe_code)]

use core::arch::asm;

use super::Answer;
use crate::features::{CpuFeature, FeatureSet};

pub(crate) fn ask() -> Answer {
    let features = features();
    Answer {
        features,
        vector_bits: features.contains(CpuFeature::Sve).then(vector_bits),
    }
}

#[cfg(all(feature = "std", target_os = "linux"))]
fn features() -> FeatureSet {
    use crate::linux::{AT_HWCAP, AT_HWCAP2, auxiliary_value};

    match auxiliary_value(AT_HWCAP) {
        // Older kernels have no second word.
        Some(hwcap) => crate::aarch64::from_hwcaps(hwcap, auxiliary_value(AT_HWCAP2).unwrap_or(0)),
        None => compiled_in(),
    }
}

#[cfg(all(feature = "std", not(target_os = "linux")))]
fn features() -> FeatureSet {
    let mut features = compiled_in();
    macro_rules! detected {
        ($($variant:ident = $name:tt),* $(,)?) => {
            $(features.insert_if(std::arch::is_aarch64_feature_detected!($name), CpuFeature::$variant);)*
        };
    }
    detected!(
        Neon = "neon",
        Fp16 = "fp16",
        Bf16 = "bf16",
        DotProd = "dotprod",
        I8mm = "i8mm",
        Fhm = "fhm",
        Fcma = "fcma",
        Rdm = "rdm",
        Jsconv = "jsconv",
        Aes = "aes",
        Pmull = "pmull",
        Sha2 = "sha2",
        Sha3 = "sha3",
        Crc = "crc",
        Lse = "lse",
        Rcpc = "rcpc",
        Bti = "bti",
        Sve = "sve",
        Sve2 = "sve2",
    );
    features
}

/// The value of an identification register or of CPACR_EL1.
#[cfg(all(not(feature = "std"), feature = "privileged"))]
macro_rules! register {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: the feature `privileged` is the promise that this runs at EL1 or above, where identification
        // registers and CPACR_EL1 can be read; reading them changes nothing (Arm ARM, D19.2).
        unsafe {
            asm!(concat!("mrs {}, ", $name), out(reg) value, options(nomem, nostack, preserves_flags));
        }
        value
    }};
}

#[cfg(all(not(feature = "std"), feature = "privileged"))]
fn features() -> FeatureSet {
    use crate::aarch64::{IdRegisters, from_id_registers};

    let id = IdRegisters {
        pfr0: register!("ID_AA64PFR0_EL1"),
        pfr1: register!("ID_AA64PFR1_EL1"),
        isar0: register!("ID_AA64ISAR0_EL1"),
        isar1: register!("ID_AA64ISAR1_EL1"),
        // ID_AA64ZFR0_EL1 by its encoding; without scalable vectors it reads as zero.
        zfr0: register!("S3_0_C0_C4_4"),
        cpacr: register!("CPACR_EL1"),
    };
    from_id_registers(&id)
}

/// What only a kernel wants to know.
#[cfg(all(not(feature = "std"), feature = "privileged"))]
pub(crate) fn supervisor_registers() -> crate::aarch64::SupervisorRegisters {
    crate::aarch64::SupervisorRegisters {
        pfr0: register!("ID_AA64PFR0_EL1"),
        isar1: register!("ID_AA64ISAR1_EL1"),
        // By their encodings, for assemblers that are older. Where they are not there they read as zero.
        isar2: register!("S3_0_C0_C6_2"),
        mmfr0: register!("ID_AA64MMFR0_EL1"),
        mmfr1: register!("ID_AA64MMFR1_EL1"),
        mmfr2: register!("S3_0_C0_C7_2"),
    }
}

#[cfg(all(not(feature = "std"), not(feature = "privileged")))]
fn features() -> FeatureSet {
    compiled_in()
}

#[cfg(any(feature = "std", not(feature = "privileged")))]
fn compiled_in() -> FeatureSet {
    super::compiled_in!(
        Neon = "neon",
        Fp16 = "fp16",
        Bf16 = "bf16",
        DotProd = "dotprod",
        I8mm = "i8mm",
        Fhm = "fhm",
        Rdm = "rdm",
        Aes = "aes",
        Sha2 = "sha2",
        Sha3 = "sha3",
        Crc = "crc",
        Lse = "lse",
        Rcpc = "rcpc",
    )
}

/// Only where there are scalable vectors that may be used.
fn vector_bits() -> u32 {
    let bytes: u64;
    // SAFETY: RDVL reads the length of a vector register and touches nothing else. It is executed only if the feature
    // SVE was found, which says that the instruction exists and does not trap.
    unsafe {
        asm!(
            ".arch_extension sve",
            "rdvl {}, #1",
            out(reg) bytes,
            options(nomem, nostack, preserves_flags, pure)
        );
    }
    u32::try_from(bytes * 8).unwrap_or(0)
}

/// MIDR_EL1, which says who made the processor and which one it is. Linux lets programs read it if it says so.
#[cfg(all(feature = "std", target_os = "linux"))]
pub(crate) fn midr() -> Option<u32> {
    const HWCAP_CPUID: u64 = 1 << 11;

    crate::linux::auxiliary_value(crate::linux::AT_HWCAP)
        .filter(|hwcap| hwcap & HWCAP_CPUID != 0)?;
    let midr: u64;
    // SAFETY: HWCAP_CPUID says that the kernel gives programs the value of this register when they read it, which
    // changes nothing (Documentation/arch/arm64/cpu-feature-registers.rst).
    unsafe {
        asm!("mrs {}, MIDR_EL1", out(reg) midr, options(nomem, nostack, preserves_flags));
    }
    Some(midr as u32)
}

/// MIDR_EL1.
#[cfg(all(not(feature = "std"), feature = "privileged"))]
pub(crate) fn midr() -> Option<u32> {
    let midr: u64;
    // SAFETY: the feature `privileged` is the promise that this runs at EL1 or above, where the register can be read;
    // reading it changes nothing (Arm ARM, D19.2).
    unsafe {
        asm!("mrs {}, MIDR_EL1", out(reg) midr, options(nomem, nostack, preserves_flags));
    }
    Some(midr as u32)
}

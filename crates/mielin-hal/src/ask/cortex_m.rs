//! The identification registers in the System Control Space.
#![allow(unsafe_code)]

use core::arch::asm;
use core::ptr;

use super::Answer;
use crate::cortex_m::{IdRegisters, features};
use crate::features::{CpuFeature, FeatureSet};

pub(crate) fn ask() -> Answer {
    Answer {
        features: id_registers().map_or_else(compiled_in, |id| features(&id)),
        vector_bits: None,
    }
}

/// The registers; `None` in unprivileged code, which must not read them.
pub(crate) fn id_registers() -> Option<IdRegisters> {
    if !is_privileged() {
        return None;
    }
    let cpuid = read(0xe000_ed00);
    let mpu_type = read(0xe000_ed90);
    let plain = IdRegisters {
        cpuid,
        mpu_type,
        ..IdRegisters::default()
    };
    if !IdRegisters::has_extended_registers(cpuid) {
        return Some(plain);
    }
    Some(IdRegisters {
        pfr1: read(0xe000_ed44),
        isar3: read(0xe000_ed6c),
        cpacr: read(0xe000_ed88),
        mvfr0: read(0xe000_ef40),
        mvfr1: read(0xe000_ef44),
        ..plain
    })
}

fn is_privileged() -> bool {
    let (control, ipsr): (u32, u32);
    // SAFETY: reading CONTROL and IPSR is allowed at any privilege and changes nothing (Armv7-M ARM, B5.2.2).
    unsafe {
        asm!("mrs {}, CONTROL", out(reg) control, options(nomem, nostack, preserves_flags));
        asm!("mrs {}, IPSR", out(reg) ipsr, options(nomem, nostack, preserves_flags));
    }
    // Exception handlers are privileged whatever nPRIV says.
    control & 1 == 0 || ipsr != 0
}

fn read(address: usize) -> u32 {
    // SAFETY: the callers pass addresses of word-sized registers that every Cortex-M of its architecture has in the
    // System Control Space, which privileged code may read and whose reading has no effect (Armv7-M ARM, B3.2, B4.1).
    unsafe { ptr::read_volatile(ptr::with_exposed_provenance::<u32>(address)) }
}

fn compiled_in() -> FeatureSet {
    // Names of the compiler, which tells no floating-point unit apart on stable.
    let mut features = FeatureSet::EMPTY;
    features.insert_if(cfg!(target_feature = "dsp"), CpuFeature::Dsp);
    features
}

//! `CPUID` and `XGETBV`.
#![allow(unsafe_code)]

use core::arch::x86_64::{__cpuid_count, _xgetbv};

use super::Answer;
use crate::x86::{self, Cpuid, Registers};

/// The processor that this runs on.
pub(crate) struct Processor;

impl Cpuid for Processor {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> Registers {
        let found = __cpuid_count(leaf, subleaf);
        Registers {
            eax: found.eax,
            ebx: found.ebx,
            ecx: found.ecx,
            edx: found.edx,
        }
    }

    fn xcr0(&self) -> u64 {
        // SAFETY: `Cpuid` has this called only if CPUID.1:ECX.OSXSAVE is set, which says that XGETBV may be executed at
        // any privilege level and that register 0 exists (Intel SDM, volume 1, 13.3).
        unsafe { _xgetbv(0) }
    }
}

pub(crate) fn ask() -> Answer {
    let features = x86::features(&Processor, cfg!(target_feature = "sse2"));
    #[cfg(all(feature = "std", target_os = "linux"))]
    let features = features.without(crate::linux::switched_off(std::path::Path::new("/")));
    Answer {
        features,
        vector_bits: None,
    }
}

//! Asks the machine that the program runs on. What the answers mean, the modules of the architectures know.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(cortex_m)]
mod cortex_m;
#[cfg(all(feature = "std", target_os = "macos"))]
mod macos;
#[cfg(any(target_arch = "riscv64", target_arch = "riscv32"))]
mod riscv;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub(crate) use self::aarch64::ask;
#[cfg(all(
    target_arch = "aarch64",
    any(
        all(feature = "std", target_os = "linux"),
        all(not(feature = "std"), feature = "privileged")
    )
))]
pub(crate) use self::aarch64::midr;
#[cfg(all(target_arch = "aarch64", not(feature = "std"), feature = "privileged"))]
pub(crate) use self::aarch64::supervisor_registers;
#[cfg(cortex_m)]
pub(crate) use self::cortex_m::ask;
#[cfg(all(feature = "std", target_os = "macos"))]
pub(crate) use self::macos::{power_sources, system_control};
#[cfg(any(target_arch = "riscv64", target_arch = "riscv32"))]
pub(crate) use self::riscv::ask;
#[cfg(all(target_arch = "riscv64", target_os = "none", feature = "privileged"))]
pub(crate) use self::riscv::{switched_on, vector_bits};
#[cfg(target_arch = "x86_64")]
pub(crate) use self::x86::Processor;
#[cfg(target_arch = "x86_64")]
pub(crate) use self::x86::ask;

use crate::features::FeatureSet;

/// The name of the processor, for privileged code.
#[cfg(cortex_m)]
pub(crate) fn cortex_m_name() -> Option<&'static str> {
    crate::cortex_m::name(cortex_m::id_registers()?.cpuid)
}

/// What the processor answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) features: FeatureSet,
    /// Length of a scalable vector register.
    pub(crate) vector_bits: Option<u32>,
}

/// Nobody can be asked: an agent, or an architecture that has no features here.
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64",
    target_arch = "riscv32",
    cortex_m
)))]
pub(crate) fn ask() -> Answer {
    Answer::default()
}

/// The features that the compiler was allowed to use: never too much, but possibly less than the machine can do.
#[cfg(any(
    all(
        target_arch = "aarch64",
        any(feature = "std", not(feature = "privileged"))
    ),
    target_arch = "riscv64",
    target_arch = "riscv32"
))]
macro_rules! compiled_in {
    ($($variant:ident = $name:literal),* $(,)?) => {{
        let mut features = $crate::features::FeatureSet::EMPTY;
        $(features.insert_if(cfg!(target_feature = $name), $crate::features::CpuFeature::$variant);)*
        features
    }};
}
#[cfg(any(
    all(
        target_arch = "aarch64",
        any(feature = "std", not(feature = "privileged"))
    ),
    target_arch = "riscv64",
    target_arch = "riscv32"
))]
use compiled_in;

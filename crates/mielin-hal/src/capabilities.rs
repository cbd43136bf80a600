//! Processor features, found by asking the processor and the operating system.
//!
//! With the `std` feature the answer comes from `CPUID` and `XGETBV` on x86-64, and from the
//! auxiliary vector (`HWCAP`) or its equivalent on Arm and RISC-V, through the standard library's
//! detection. A feature counts only if the operating system also saves its registers. Without
//! `std` the answer is what the compiler was allowed to assume about the target: never too much,
//! but possibly less than the machine can do.

use core::fmt;

use crate::architecture::{Architecture, detect_architecture};

/// What the running processor can do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HardwareCapabilities {
    architecture: Architecture,
    /// Bit `n` stands for the feature whose discriminant is `n`.
    features: u32,
}

impl HardwareCapabilities {
    /// Asks the machine.
    #[must_use]
    pub fn detect() -> Self {
        let mut features = 0;
        detect_features(|feature| features |= feature.bit());
        Self {
            architecture: detect_architecture(),
            features,
        }
    }

    /// The architecture, as [`detect_architecture`] tells it.
    #[must_use]
    pub const fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// Whether code that uses this feature may run here.
    #[must_use]
    pub const fn has(&self, feature: CpuFeature) -> bool {
        self.features & feature.bit() != 0
    }

    /// The features present, in the order of [`CpuFeature::ALL`].
    pub fn features(&self) -> impl Iterator<Item = CpuFeature> + use<'_> {
        CpuFeature::ALL
            .into_iter()
            .filter(|feature| self.has(*feature))
    }

    /// Bits of an address in this program: 32 or 64.
    #[must_use]
    pub const fn pointer_bits(&self) -> u32 {
        usize::BITS
    }
}

impl fmt::Debug for HardwareCapabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Present<'a>(&'a HardwareCapabilities);
        impl fmt::Debug for Present<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_list().entries(self.0.features()).finish()
            }
        }
        f.debug_struct("HardwareCapabilities")
            .field("architecture", &self.architecture)
            .field("features", &Present(self))
            .finish()
    }
}

macro_rules! cpu_features {
    ($($variant:ident = $name:literal, $doc:literal;)*) => {
        /// A processor feature that changes which code is worth running.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum CpuFeature {
            $(#[doc = $doc] $variant,)*
        }

        impl CpuFeature {
            /// Every feature of every architecture.
            pub const ALL: [CpuFeature; [$($name),*].len()] = [$(CpuFeature::$variant),*];

            /// The name that the compiler gives it, such as `avx512f`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(CpuFeature::$variant => $name,)*
                }
            }
        }
    };
}

cpu_features! {
    Sse42 = "sse4.2", "x86-64: SSE 4.2.";
    Avx = "avx", "x86-64: 256-bit floating point.";
    Avx2 = "avx2", "x86-64: 256-bit integers.";
    Fma = "fma", "x86-64: fused multiply and add.";
    F16c = "f16c", "x86-64: half-precision conversions.";
    Avx512f = "avx512f", "x86-64: the 512-bit foundation.";
    Avx512bw = "avx512bw", "x86-64: 512-bit bytes and words.";
    Avx512vnni = "avx512vnni", "x86-64: 512-bit integer dot products.";
    Aes = "aes", "x86-64 and Arm: AES rounds in hardware.";
    Sha = "sha", "x86-64: SHA-1 and SHA-256 rounds in hardware.";
    Popcnt = "popcnt", "x86-64: population count.";
    Bmi2 = "bmi2", "x86-64: bit manipulation, second set.";
    Neon = "neon", "Arm: 128-bit Advanced SIMD.";
    Fp16 = "fp16", "Arm: half-precision arithmetic.";
    DotProd = "dotprod", "Arm: integer dot products.";
    I8mm = "i8mm", "Arm: 8-bit integer matrix products.";
    Sve = "sve", "Arm: scalable vectors.";
    Sve2 = "sve2", "Arm: scalable vectors, second set.";
    Sha2 = "sha2", "Arm: SHA-256 rounds in hardware.";
    Lse = "lse", "Arm: atomic operations in one instruction.";
    Vector = "v", "RISC-V: the vector extension.";
    Zba = "zba", "RISC-V: address generation.";
    Zbb = "zbb", "RISC-V: basic bit manipulation.";
}

impl CpuFeature {
    const fn bit(self) -> u32 {
        1 << self as u8
    }
}

impl fmt::Display for CpuFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reports a feature when the given run-time macro, or without `std` the target, says it is there.
macro_rules! report_present {
    ($report:ident, $detected:path, $($variant:ident = $name:tt),* $(,)?) => {
        $(
            #[cfg(feature = "std")]
            let present = { use $detected as detected; detected!($name) };
            #[cfg(not(feature = "std"))]
            let present = cfg!(target_feature = $name);
            if present {
                $report(CpuFeature::$variant);
            }
        )*
    };
}

#[cfg(target_arch = "x86_64")]
fn detect_features(mut report: impl FnMut(CpuFeature)) {
    report_present!(
        report,
        std::is_x86_feature_detected,
        Sse42 = "sse4.2",
        Avx = "avx",
        Avx2 = "avx2",
        Fma = "fma",
        F16c = "f16c",
        Avx512f = "avx512f",
        Avx512bw = "avx512bw",
        Avx512vnni = "avx512vnni",
        Aes = "aes",
        Sha = "sha",
        Popcnt = "popcnt",
        Bmi2 = "bmi2",
    );
}

#[cfg(target_arch = "aarch64")]
fn detect_features(mut report: impl FnMut(CpuFeature)) {
    report_present!(
        report,
        std::arch::is_aarch64_feature_detected,
        Neon = "neon",
        Fp16 = "fp16",
        DotProd = "dotprod",
        I8mm = "i8mm",
        Sve = "sve",
        Sve2 = "sve2",
        Aes = "aes",
        Sha2 = "sha2",
        Lse = "lse",
    );
}

#[cfg(any(target_arch = "riscv64", target_arch = "riscv32"))]
fn detect_features(mut report: impl FnMut(CpuFeature)) {
    report_present!(
        report,
        std::arch::is_riscv_feature_detected,
        Vector = "v",
        Zba = "zba",
        Zbb = "zbb",
    );
}

#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64",
    target_arch = "riscv32"
)))]
fn detect_features(_report: impl FnMut(CpuFeature)) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_has_its_own_bit() {
        let union = CpuFeature::ALL
            .iter()
            .fold(0, |bits, feature| bits | feature.bit());
        assert_eq!(union.count_ones() as usize, CpuFeature::ALL.len());
    }

    /// The kernel found the same features by its own `CPUID` and `HWCAP` reading.
    #[test]
    #[cfg(all(feature = "std", target_os = "linux", target_arch = "x86_64"))]
    fn agrees_with_the_operating_system() {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").expect("Linux has /proc/cpuinfo");
        let flags: Vec<&str> = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("flags"))
            .expect("x86 lists flags")
            .split_whitespace()
            .collect();
        let machine = HardwareCapabilities::detect();
        for (feature, flag) in [
            (CpuFeature::Sse42, "sse4_2"),
            (CpuFeature::Avx, "avx"),
            (CpuFeature::Avx2, "avx2"),
            (CpuFeature::Fma, "fma"),
            (CpuFeature::Avx512f, "avx512f"),
            (CpuFeature::Avx512vnni, "avx512_vnni"),
            (CpuFeature::Aes, "aes"),
            (CpuFeature::Popcnt, "popcnt"),
            (CpuFeature::Bmi2, "bmi2"),
        ] {
            assert_eq!(machine.has(feature), flags.contains(&flag), "{feature}");
        }
    }

    #[test]
    fn reports_only_features_of_this_architecture() {
        let machine = HardwareCapabilities::detect();
        if machine.architecture() == Architecture::X86_64 {
            assert!(!machine.has(CpuFeature::Neon));
            assert!(!machine.has(CpuFeature::Vector));
        }
    }
}

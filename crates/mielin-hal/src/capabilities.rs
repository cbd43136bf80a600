//! What the running processor can do.

use core::fmt;

use crate::architecture::{Architecture, detect_architecture};
use crate::ask::{self, Answer};
use crate::features::{CpuFeature, FeatureSet};
use crate::riscv::Isa;

/// What the running processor can do, as far as the operating system lets it: a feature whose registers would be lost
/// when another task runs is not there.
///
/// | architecture | who is asked |
/// |---|---|
/// | x86-64 | `CPUID` and `XCR0`; on Linux the kernel's list, too, for instructions that it switches off where they are broken |
/// | 64-bit Arm | `AT_HWCAP` on Linux, the standard library on other systems, with the feature `privileged` and without `std` the identification registers and CPACR_EL1 |
/// | RISC-V | `riscv_hwprobe`, or `AT_HWCAP` of older kernels; on bare metal the device tree, see [`HardwareCapabilities::of_isa`] |
/// | Cortex-M | the identification registers and CPACR, by privileged code |
///
/// Where nobody can be asked the answer is what the compiler was allowed to assume: never too much.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HardwareCapabilities {
    architecture: Architecture,
    features: FeatureSet,
    vector_bits: Option<u32>,
}

impl HardwareCapabilities {
    /// Asks the machine.
    #[must_use]
    pub fn detect() -> Self {
        let Answer {
            features,
            vector_bits,
        } = ask::ask();
        Self {
            architecture: detect_architecture(),
            features,
            vector_bits,
        }
    }

    /// What a RISC-V processor with this ISA can do, of which the kernel has switched floating point or vectors on
    /// (`sstatus.FS` and `VS`). For kernels, which read the ISA in the device tree.
    #[must_use]
    pub fn of_isa(isa: &Isa, float_on: bool, vectors_on: bool) -> Self {
        let usable = |feature: &CpuFeature| match feature {
            CpuFeature::Float | CpuFeature::Double | CpuFeature::Zfh | CpuFeature::Zfhmin => {
                float_on
            }
            CpuFeature::Vector
            | CpuFeature::Zvfh
            | CpuFeature::Zvbb
            | CpuFeature::Zvkned
            | CpuFeature::Zvknhb => vectors_on,
            _ => true,
        };
        let features: FeatureSet = isa.features.iter().filter(usable).collect();
        let vector_bits = isa
            .vector_bits_min
            .filter(|_| features.contains(CpuFeature::Vector));
        Self {
            architecture: detect_architecture(),
            features,
            vector_bits,
        }
    }

    /// The same of the processor that this kernel runs on, which says itself what is switched on and how long its
    /// vectors are.
    #[cfg(all(target_arch = "riscv64", target_os = "none", feature = "privileged"))]
    #[must_use]
    pub fn of_this_processor(isa: &Isa) -> Self {
        let (float_on, vectors_on) = ask::switched_on();
        let mut found = Self::of_isa(isa, float_on, vectors_on);
        if vectors_on && found.has(CpuFeature::Vector) {
            found.vector_bits = Some(ask::vector_bits());
        }
        found
    }

    /// The architecture, as [`detect_architecture`] tells it.
    #[must_use]
    pub const fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// Whether code that uses this feature may run here.
    #[must_use]
    pub const fn has(&self, feature: CpuFeature) -> bool {
        self.features.contains(feature)
    }

    /// The features present.
    #[must_use]
    pub const fn feature_set(&self) -> FeatureSet {
        self.features
    }

    /// The features present, in the order of [`CpuFeature::ALL`].
    pub fn features(&self) -> impl Iterator<Item = CpuFeature> + use<> {
        self.features.iter()
    }

    /// Bits of a vector register whose length the processor chooses (SVE, RISC-V's V); `None` where there are none.
    #[must_use]
    pub const fn vector_bits(&self) -> Option<u32> {
        self.vector_bits
    }

    /// Bits of an address in this program: 32 or 64.
    #[must_use]
    pub const fn pointer_bits(&self) -> u32 {
        usize::BITS
    }
}

impl fmt::Debug for HardwareCapabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HardwareCapabilities")
            .field("architecture", &self.architecture)
            .field("features", &self.features)
            .field("vector_bits", &self.vector_bits)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_only_features_of_this_architecture() {
        let machine = HardwareCapabilities::detect();
        if machine.architecture() == Architecture::X86_64 {
            assert!(machine.has(CpuFeature::Sse2));
            assert!(!machine.has(CpuFeature::Neon));
            assert!(!machine.has(CpuFeature::Vector));
        }
    }

    #[test]
    fn what_the_kernel_has_not_switched_on_is_not_there() {
        let isa = Isa::parse("rv64gcv_zfh_zvbb_zvl256b").expect("an ISA");
        let all = HardwareCapabilities::of_isa(&isa, true, true);
        assert!(all.has(CpuFeature::Double) && all.has(CpuFeature::Zvbb));
        assert_eq!(all.vector_bits(), Some(256));
        let none = HardwareCapabilities::of_isa(&isa, false, false);
        for feature in [
            CpuFeature::Float,
            CpuFeature::Zfh,
            CpuFeature::Vector,
            CpuFeature::Zvbb,
        ] {
            assert!(!none.has(feature), "{feature}");
        }
        assert!(none.has(CpuFeature::Mul));
        assert_eq!(none.vector_bits(), None);
    }
}

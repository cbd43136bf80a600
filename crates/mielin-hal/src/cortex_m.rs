//! Features of Cortex-M processors, from their identification registers.
//!
//! Sources: Armv6-M, Armv7-M and Armv8-M Architecture Reference Manuals, "System Control Block", "CPUID", "MPU_TYPE",
//! "Media and VFP Feature Registers"; the processors' Technical Reference Manuals for part numbers.

use crate::features::CpuFeature::*;
use crate::features::FeatureSet;

/// Registers of the System Control Space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdRegisters {
    /// CPUID, at 0xE000_ED00.
    pub cpuid: u32,
    /// MPU_TYPE, at 0xE000_ED90.
    pub mpu_type: u32,
    /// ID_ISAR3, at 0xE000_ED6C. 0 on Armv6-M and the Armv8-M baseline, which have none.
    pub isar3: u32,
    /// ID_PFR1, at 0xE000_ED44. 0 where there is none.
    pub pfr1: u32,
    /// MVFR0, at 0xE000_EF40. 0 where there is none.
    pub mvfr0: u32,
    /// MVFR1, at 0xE000_EF44. 0 where there is none.
    pub mvfr1: u32,
    /// CPACR, at 0xE000_ED88, in which a program switches the floating-point unit on. 0 where there is none.
    pub cpacr: u32,
}

impl IdRegisters {
    /// Whether the processor has the registers behind CPUID: Armv6-M and the Armv8-M baseline have not.
    #[must_use]
    pub const fn has_extended_registers(cpuid: u32) -> bool {
        // Architecture 0xc is Armv6-M and the Armv8-M baseline, 0xf everything else.
        cpuid >> 16 & 0xf == 0xf
    }
}

/// What the processor has; the floating-point unit only if it has been switched on.
#[must_use]
pub fn features(id: &IdRegisters) -> FeatureSet {
    let field = |register: u32, low: u32| register >> low & 0xf;
    let mut features = FeatureSet::EMPTY;
    features.insert_if(mpu_regions(id) > 0, Mpu);
    if !IdRegisters::has_extended_registers(id.cpuid) {
        return features;
    }
    // SIMD instructions on general registers: 1 is only SSAT and USAT.
    features.insert_if(field(id.isar3, 4) >= 3, Dsp);
    features.insert_if(field(id.pfr1, 4) >= 1, TrustZone);
    // CP10 and CP11: full access.
    if id.cpacr >> 20 & 0xf == 0xf {
        features.insert_if(field(id.mvfr0, 4) >= 1, Fpu);
        features.insert_if(field(id.mvfr0, 8) >= 1, FpuDouble);
        features.insert_if(field(id.mvfr1, 8) >= 1, Mve);
    }
    features
}

/// The number of regions that the memory protection unit has; 0 without one.
#[must_use]
pub const fn mpu_regions(id: &IdRegisters) -> u8 {
    (id.mpu_type >> 8) as u8
}

/// The processor's name, by implementer and part number.
#[must_use]
pub const fn name(cpuid: u32) -> Option<&'static str> {
    const ARM: u32 = 0x41;
    if cpuid >> 24 != ARM {
        return None;
    }
    match cpuid >> 4 & 0xfff {
        0xc20 => Some("Cortex-M0"),
        0xc60 => Some("Cortex-M0+"),
        0xc21 => Some("Cortex-M1"),
        0xc23 => Some("Cortex-M3"),
        0xc24 => Some("Cortex-M4"),
        0xc27 => Some("Cortex-M7"),
        0xd20 => Some("Cortex-M23"),
        0xd21 => Some("Cortex-M33"),
        0xd31 => Some("Cortex-M35P"),
        0xd22 => Some("Cortex-M55"),
        0xd23 => Some("Cortex-M85"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::CpuFeature;

    fn check(id: &IdRegisters, expected_name: &str, expected: &[CpuFeature]) {
        assert_eq!(name(id.cpuid), Some(expected_name));
        let expected: FeatureSet = expected.iter().copied().collect();
        assert_eq!(features(id), expected, "{expected_name}");
    }

    /// Reset values from the Technical Reference Manuals.
    #[test]
    fn known_processors() {
        let m0 = IdRegisters {
            cpuid: 0x410c_c200,
            // What is reserved may read as anything.
            isar3: u32::MAX,
            cpacr: u32::MAX,
            mvfr0: u32::MAX,
            ..IdRegisters::default()
        };
        check(&m0, "Cortex-M0", &[]);
        let m0_plus = IdRegisters {
            cpuid: 0x410c_c601,
            mpu_type: 0x800,
            ..IdRegisters::default()
        };
        check(&m0_plus, "Cortex-M0+", &[Mpu]);
        let m3 = IdRegisters {
            cpuid: 0x412f_c231,
            mpu_type: 0x800,
            isar3: 0x0111_1110,
            ..IdRegisters::default()
        };
        check(&m3, "Cortex-M3", &[Mpu]);
        let m4 = IdRegisters {
            cpuid: 0x410f_c241,
            mpu_type: 0x800,
            isar3: 0x0111_1131,
            mvfr0: 0x1011_0021,
            mvfr1: 0x1100_0011,
            ..IdRegisters::default()
        };
        check(&m4, "Cortex-M4", &[Mpu, Dsp]);
        let switched_on = IdRegisters {
            cpacr: 0xf << 20,
            ..m4
        };
        check(&switched_on, "Cortex-M4", &[Mpu, Dsp, Fpu]);
        // Only for privileged code.
        let half = IdRegisters {
            cpacr: 0x5 << 20,
            ..m4
        };
        check(&half, "Cortex-M4", &[Mpu, Dsp]);
        let m7 = IdRegisters {
            cpuid: 0x411f_c272,
            mpu_type: 0x1000,
            isar3: 0x0111_1131,
            mvfr0: 0x1011_0221,
            cpacr: 0xf << 20,
            ..IdRegisters::default()
        };
        check(&m7, "Cortex-M7", &[Mpu, Dsp, Fpu, FpuDouble]);
        assert_eq!(mpu_regions(&m7), 16);
        let m33 = IdRegisters {
            cpuid: 0x410f_d213,
            mpu_type: 0x800,
            isar3: 0x0111_1131,
            pfr1: 0x210,
            mvfr0: 0x1011_0021,
            cpacr: 0xf << 20,
            ..IdRegisters::default()
        };
        check(&m33, "Cortex-M33", &[Mpu, Dsp, TrustZone, Fpu]);
        assert_eq!(name(0x6900_0000), None);
    }
}

//! Features of 64-bit Arm, from what Linux tells its programs or from the identification registers.
//!
//! Sources: `Documentation/arch/arm64/elf_hwcaps.rst` and `arch/arm64/include/uapi/asm/hwcap.h` of Linux; Arm Architecture
//! Reference Manual for A-profile, D19.2 (ID_AA64*_EL1).

use crate::features::CpuFeature::{self, *};
use crate::features::FeatureSet;

mod supervisor;

pub use supervisor::{Supervisor, SupervisorRegisters};

/// The features that Linux lists in `AT_HWCAP` and `AT_HWCAP2`: those whose registers it saves.
#[must_use]
pub fn from_hwcaps(hwcap: u64, hwcap2: u64) -> FeatureSet {
    let mut features = FeatureSet::EMPTY;
    features.insert_bits(hwcap, &HWCAP);
    features.insert_bits(hwcap2, &HWCAP2);
    features
}

const HWCAP: [(u32, CpuFeature); 18] = [
    (1, Neon),
    (3, Aes),
    (4, Pmull),
    (5, Sha1),
    (6, Sha2),
    (7, Crc),
    (8, Lse),
    (10, Fp16),
    (12, Rdm),
    (13, Jsconv),
    (14, Fcma),
    (15, Rcpc),
    (17, Sha3),
    (19, Sm4),
    (20, DotProd),
    (21, Sha512),
    (22, Sve),
    (23, Fhm),
];
const HWCAP2: [(u32, CpuFeature); 10] = [
    (1, Sve2),
    (9, SveI8mm),
    (12, SveBf16),
    (13, I8mm),
    (14, Bf16),
    (16, Rand),
    (17, Bti),
    (18, Mte),
    (23, Sme),
    (37, Sme2),
];

/// The identification registers, and which vectors may be used at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdRegisters {
    /// ID_AA64PFR0_EL1.
    pub pfr0: u64,
    /// ID_AA64PFR1_EL1.
    pub pfr1: u64,
    /// ID_AA64ISAR0_EL1.
    pub isar0: u64,
    /// ID_AA64ISAR1_EL1.
    pub isar1: u64,
    /// ID_AA64ZFR0_EL1, 0 on processors without scalable vectors.
    pub zfr0: u64,
    /// CPACR_EL1, in which the operating system switches vectors on.
    pub cpacr: u64,
}

/// What the processor has and CPACR_EL1 lets programs use.
#[must_use]
pub fn from_id_registers(id: &IdRegisters) -> FeatureSet {
    let field = |register: u64, low: u32| register >> low & 0xf;
    // FPEN, ZEN and SMEN: both bits mean that neither programs nor the kernel trap.
    let enabled = |low: u32| id.cpacr >> low & 0b11 == 0b11;
    let mut features = FeatureSet::EMPTY;
    let mut add = |condition: bool, feature| features.insert_if(condition, feature);
    add(field(id.isar0, 16) >= 1, Crc);
    add(field(id.isar0, 20) >= 2, Lse);
    add(field(id.isar0, 60) >= 1, Rand);
    add(field(id.isar1, 20) >= 1, Rcpc);
    add(field(id.pfr1, 0) >= 1, Bti);
    add(field(id.pfr1, 8) >= 2, Mte);
    // 0xf says that there is none.
    let neon = enabled(20) && field(id.pfr0, 20) != 0xf;
    if neon {
        add(true, Neon);
        add(field(id.pfr0, 20) >= 1, Fp16);
        add(field(id.isar0, 4) >= 1, Aes);
        add(field(id.isar0, 4) >= 2, Pmull);
        add(field(id.isar0, 8) >= 1, Sha1);
        add(field(id.isar0, 12) >= 1, Sha2);
        add(field(id.isar0, 12) >= 2, Sha512);
        add(field(id.isar0, 28) >= 1, Rdm);
        add(field(id.isar0, 32) >= 1, Sha3);
        add(field(id.isar0, 40) >= 1, Sm4);
        add(field(id.isar0, 44) >= 1, DotProd);
        add(field(id.isar0, 48) >= 1, Fhm);
        add(field(id.isar1, 12) >= 1, Jsconv);
        add(field(id.isar1, 16) >= 1, Fcma);
        add(field(id.isar1, 44) >= 1, Bf16);
        add(field(id.isar1, 52) >= 1, I8mm);
    }
    if neon && enabled(16) && field(id.pfr0, 32) >= 1 {
        add(true, Sve);
        add(field(id.zfr0, 0) >= 1, Sve2);
        add(field(id.zfr0, 20) >= 1, SveBf16);
        add(field(id.zfr0, 44) >= 1, SveI8mm);
    }
    if neon && enabled(24) {
        add(field(id.pfr1, 24) >= 1, Sme);
        add(field(id.pfr1, 24) >= 2, Sme2);
    }
    features
}

/// The processor's name, by the implementer and part number in MIDR_EL1.
#[must_use]
pub const fn name(midr: u32) -> Option<&'static str> {
    match (midr >> 24, midr >> 4 & 0xfff) {
        (0x41, 0xd03) => Some("Cortex-A53"),
        (0x41, 0xd04) => Some("Cortex-A35"),
        (0x41, 0xd05) => Some("Cortex-A55"),
        (0x41, 0xd07) => Some("Cortex-A57"),
        (0x41, 0xd08) => Some("Cortex-A72"),
        (0x41, 0xd09) => Some("Cortex-A73"),
        (0x41, 0xd0a) => Some("Cortex-A75"),
        (0x41, 0xd0b) => Some("Cortex-A76"),
        (0x41, 0xd0c) => Some("Neoverse-N1"),
        (0x41, 0xd40) => Some("Neoverse-V1"),
        (0x41, 0xd41) => Some("Cortex-A78"),
        (0x41, 0xd44) => Some("Cortex-X1"),
        (0x41, 0xd46) => Some("Cortex-A510"),
        (0x41, 0xd47) => Some("Cortex-A710"),
        (0x41, 0xd48) => Some("Cortex-X2"),
        (0x41, 0xd49) => Some("Neoverse-N2"),
        (0x41, 0xd4f) => Some("Neoverse-V2"),
        (0x46, 0x001) => Some("A64FX"),
        (0xc0, 0xac3) => Some("Ampere-1"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    fn check(found: FeatureSet, expected: &[CpuFeature]) {
        let expected: FeatureSet = expected.iter().copied().collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn hwcaps_of_two_processors() {
        // `fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid`, as of a Cortex-A53, and the same with
        // `atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp`, as of a Neoverse N1.
        let old = 0b1000_1111_1011;
        check(from_hwcaps(old, 0), &[Neon, Aes, Pmull, Sha1, Sha2, Crc]);
        let newer = old | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 12 | 1 << 15 | 1 << 16 | 1 << 20;
        check(
            from_hwcaps(newer, 0),
            &[
                Neon, Aes, Pmull, Sha1, Sha2, Crc, Lse, Fp16, Rdm, Rcpc, DotProd,
            ],
        );
        check(
            from_hwcaps(1 << 22, 1 << 1 | 1 << 13 | 1 << 37),
            &[Sve, Sve2, I8mm, Sme2],
        );
        check(from_hwcaps(0, 0), &[]);
    }

    #[test]
    fn nothing_of_vectors_without_their_registers() {
        let everything = IdRegisters {
            pfr0: 0x1111_1111_1111_1111,
            pfr1: 0x2222_2222_2222_2222,
            isar0: 0x2222_2222_2222_2222,
            isar1: 0x2222_2222_2222_2222,
            zfr0: 0x1111_1111_1111_1111,
            cpacr: 0,
        };
        let with = |cpacr| {
            from_id_registers(&IdRegisters {
                cpacr,
                ..everything
            })
        };
        check(with(0), &[Crc, Lse, Rand, Rcpc, Bti, Mte]);
        // Programs may, and the kernel may not, or the other way round.
        check(with(0b10 << 20), &[Crc, Lse, Rand, Rcpc, Bti, Mte]);
        let neon = with(0b11 << 20);
        assert!(neon.contains(Neon) && neon.contains(I8mm) && neon.contains(Sha512));
        assert!(!neon.contains(Sve) && !neon.contains(Sme));
        let all: Vec<_> = with(0b11 << 20 | 0b11 << 16 | 0b11 << 24).iter().collect();
        for feature in [Sve, Sve2, SveI8mm, SveBf16, Sme, Sme2] {
            assert!(all.contains(&feature), "{feature}");
        }
        // Scalable vectors without the others cannot be.
        assert!(!with(0b11 << 16).contains(Sve));
        let without = IdRegisters {
            pfr0: 0x00ff_0000,
            cpacr: u64::MAX,
            ..IdRegisters::default()
        };
        check(from_id_registers(&without), &[]);
    }
}

//! Features of x86-64, from `CPUID` and `XCR0`.
//!
//! Sources: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2A, "CPUID", and volume 1, chapter 13
//! (XSAVE-managed state); AMD64 Architecture Programmer's Manual, volume 3, appendix E.

use crate::features::CpuFeature::{self, *};
use crate::features::FeatureSet;
use crate::few::Few;
use crate::topology::{Cache, CacheKind, Model};

mod supervisor;

pub use supervisor::{Supervisor, Xsave};

/// What `CPUID` leaves in EAX, EBX, ECX and EDX.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// A processor that can be asked who it is.
pub trait Cpuid {
    /// Executes `CPUID` with EAX = `leaf` and ECX = `subleaf`. Of leaves that it does not have it may say anything.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> Registers;

    /// XCR0: the states that the operating system saves. Called only if `CPUID` says that the register is there.
    fn xcr0(&self) -> u64;
}

/// States in XCR0.
const XCR0_SSE: u64 = 1 << 1;
const XCR0_AVX: u64 = XCR0_SSE | 1 << 2;
/// Mask registers, upper halves of the first 16 registers, and the other 16.
const XCR0_AVX512: u64 = XCR0_AVX | 1 << 5 | 1 << 6 | 1 << 7;
/// Configuration and data of tiles.
const XCR0_AMX: u64 = 1 << 17 | 1 << 18;

/// The highest leaf that says anything about features.
const LEAF_FEATURES: u32 = 7;
const LEAF_EXTENDED: u32 = 0x8000_0000;

/// Which registers survive a switch of tasks.
#[derive(Clone, Copy)]
struct Saved {
    sse: bool,
    avx: bool,
    avx512: bool,
    amx: bool,
}

/// The features of a processor whose registers the operating system saves.
///
/// `compiled_with_sse` says whether the program itself was allowed to use SSE, which decides where the operating system
/// does not use `XSAVE`.
#[must_use]
pub fn features(processor: &impl Cpuid, compiled_with_sse: bool) -> FeatureSet {
    let leaf = |number, subleaf| leaf(processor, number, subleaf);
    let one = leaf(1, 0);
    let seven = leaf(LEAF_FEATURES, 0);
    // EAX of the first is the highest subleaf.
    let seven_one = match seven.eax {
        0 => Registers::default(),
        _ => leaf(LEAF_FEATURES, 1),
    };
    let extended = leaf(LEAF_EXTENDED + 1, 0);

    let saves = one.ecx >> 27 & 1 != 0;
    let xcr0 = if saves { processor.xcr0() } else { 0 };
    let has = |state: u64| xcr0 & state == state;
    let saved = Saved {
        sse: has(XCR0_SSE) || !saves && compiled_with_sse,
        avx: has(XCR0_AVX),
        avx512: has(XCR0_AVX512),
        amx: has(XCR0_AMX),
    };

    let mut features = FeatureSet::EMPTY;
    let words = [
        (one.ecx, &LEAF_1_ECX[..]),
        (one.edx, &LEAF_1_EDX),
        (seven.ebx, &LEAF_7_EBX),
        (seven.ecx, &LEAF_7_ECX),
        (seven.edx, &LEAF_7_EDX),
        (seven_one.eax, &LEAF_7_1_EAX),
        (seven_one.edx, &LEAF_7_1_EDX),
        (extended.ecx, &LEAF_EXTENDED_1_ECX),
    ];
    for (word, bits) in words {
        features.insert_bits(word.into(), bits);
    }
    features
        .iter()
        .filter(|feature| saved.serves(*feature))
        .collect()
}

/// A leaf, or zeros if the processor has not got it.
fn leaf(processor: &impl Cpuid, number: u32, subleaf: u32) -> Registers {
    let base = match number {
        LEAF_EXTENDED.. => LEAF_EXTENDED,
        _ => 0,
    };
    match (base..=processor.cpuid(base, 0).eax).contains(&number) {
        true => processor.cpuid(number, subleaf),
        false => Registers::default(),
    }
}

impl Saved {
    /// Whether the registers that a feature's instructions use are saved.
    fn serves(self, feature: CpuFeature) -> bool {
        match feature {
            Popcnt | Lzcnt | Bmi1 | Bmi2 | Adx | Movbe | Rdrand | Rdseed => true,
            Sse | Sse2 | Sse3 | Ssse3 | Sse41 | Sse42 | Sse4a | Pclmulqdq | Aes | Sha | Gfni => {
                self.sse
            }
            Avx | Avx2 | Fma | F16c | Vaes | Vpclmulqdq | AvxVnni | AvxVnniInt8 | AvxIfma => {
                self.avx
            }
            AmxTile | AmxInt8 | AmxBf16 | AmxFp16 => self.amx,
            // All that is left of this architecture is some part of AVX-512.
            _ => self.avx512,
        }
    }
}

const LEAF_1_ECX: [(u32, CpuFeature); 12] = [
    (0, Sse3),
    (1, Pclmulqdq),
    (9, Ssse3),
    (12, Fma),
    (19, Sse41),
    (20, Sse42),
    (22, Movbe),
    (23, Popcnt),
    (25, Aes),
    (28, Avx),
    (29, F16c),
    (30, Rdrand),
];
const LEAF_1_EDX: [(u32, CpuFeature); 2] = [(25, Sse), (26, Sse2)];
const LEAF_7_EBX: [(u32, CpuFeature); 12] = [
    (3, Bmi1),
    (5, Avx2),
    (8, Bmi2),
    (16, Avx512f),
    (17, Avx512dq),
    (18, Rdseed),
    (19, Adx),
    (21, Avx512ifma),
    (28, Avx512cd),
    (29, Sha),
    (30, Avx512bw),
    (31, Avx512vl),
];
const LEAF_7_ECX: [(u32, CpuFeature); 8] = [
    (1, Avx512vbmi),
    (6, Avx512vbmi2),
    (8, Gfni),
    (9, Vaes),
    (10, Vpclmulqdq),
    (11, Avx512vnni),
    (12, Avx512bitalg),
    (14, Avx512vpopcntdq),
];
const LEAF_7_EDX: [(u32, CpuFeature); 4] = [
    (22, AmxBf16),
    (23, Avx512fp16),
    (24, AmxTile),
    (25, AmxInt8),
];
const LEAF_7_1_EAX: [(u32, CpuFeature); 4] =
    [(4, AvxVnni), (5, Avx512bf16), (21, AmxFp16), (23, AvxIfma)];
const LEAF_7_1_EDX: [(u32, CpuFeature); 1] = [(4, AvxVnniInt8)];
const LEAF_EXTENDED_1_ECX: [(u32, CpuFeature); 2] = [(5, Lzcnt), (6, Sse4a)];

/// The processor's name: leaves 0x8000_0002 to 0x8000_0004.
#[must_use]
pub fn model(processor: &impl Cpuid) -> Option<Model> {
    if processor.cpuid(LEAF_EXTENDED, 0).eax < LEAF_EXTENDED + 4 {
        return None;
    }
    let mut bytes = [0; 48];
    for (part, leaf) in bytes.chunks_exact_mut(16).zip(LEAF_EXTENDED + 2..) {
        let found = processor.cpuid(leaf, 0);
        let words = [found.eax, found.ebx, found.ecx, found.edx];
        for (place, word) in part.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
    }
    let end = bytes.iter().position(|byte| *byte == 0);
    let text = &bytes[..end.unwrap_or(bytes.len())];
    Model::new(str::from_utf8(text).ok()?)
}

/// The caches, but not who shares them, which `CPUID` says only roughly. Intel's leaf 4, and AMD's of the same form.
#[must_use]
pub fn caches<const N: usize>(processor: &impl Cpuid) -> Few<Cache, N> {
    /// So many, if a processor never says that there are no more.
    const SUBLEAVES_MAX: u32 = 16;

    let leaf = if processor.cpuid(0, 0).eax >= 4 && processor.cpuid(4, 0).eax & 0x1f != 0 {
        4
    } else if processor.cpuid(LEAF_EXTENDED, 0).eax >= LEAF_EXTENDED + 0x1d {
        LEAF_EXTENDED + 0x1d
    } else {
        return Few::EMPTY;
    };
    let mut caches = Few::EMPTY;
    for subleaf in 0..SUBLEAVES_MAX {
        let found = processor.cpuid(leaf, subleaf);
        let kind = match found.eax & 0x1f {
            0 => break,
            1 => CacheKind::Data,
            2 => CacheKind::Instruction,
            3 => CacheKind::Unified,
            _ => continue,
        };
        let line_bytes = (found.ebx & 0xfff) + 1;
        let partitions = (found.ebx >> 12 & 0x3ff) + 1;
        let ways = (found.ebx >> 22) + 1;
        let sets = u64::from(found.ecx) + 1;
        caches.push(Cache {
            level: (found.eax >> 5 & 0x7) as u8,
            kind,
            size_bytes: sets * u64::from(ways) * u64::from(partitions) * u64::from(line_bytes),
            line_bytes: Some(line_bytes),
            ways: Some(ways),
            shared_by: None,
            instances: None,
        });
    }
    caches
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    /// A processor that has every feature, and saves these states.
    struct Everything {
        xcr0: Option<u64>,
    }

    impl Cpuid for Everything {
        fn cpuid(&self, leaf: u32, _: u32) -> Registers {
            let all = Registers {
                eax: u32::MAX,
                ebx: u32::MAX,
                ecx: u32::MAX,
                edx: u32::MAX,
            };
            match leaf {
                0 => Registers { eax: 0x20, ..all },
                1 if self.xcr0.is_none() => Registers {
                    ecx: !(1 << 27),
                    ..all
                },
                _ => all,
            }
        }

        fn xcr0(&self) -> u64 {
            self.xcr0.expect("asked for only if it is there")
        }
    }

    fn names(xcr0: Option<u64>, compiled_with_sse: bool) -> Vec<CpuFeature> {
        features(&Everything { xcr0 }, compiled_with_sse)
            .iter()
            .collect()
    }

    #[test]
    fn what_is_not_saved_is_not_there() {
        let check = |xcr0, compiled_with_sse, there: &[CpuFeature], absent: &[CpuFeature]| {
            let found = names(xcr0, compiled_with_sse);
            for feature in there {
                assert!(found.contains(feature), "{xcr0:x?}: no {feature}");
            }
            for feature in absent {
                assert!(!found.contains(feature), "{xcr0:x?}: {feature}");
            }
        };
        check(
            None,
            true,
            &[Sse2, Sse42, Aes, Popcnt, Bmi2],
            &[Avx, Fma, Avx512f, AmxTile],
        );
        check(None, false, &[Popcnt, Bmi2], &[Sse, Sse2, Aes, Avx]);
        check(Some(0b001), true, &[Popcnt], &[Sse2, Avx]);
        check(Some(0b011), true, &[Sse42, Sha], &[Avx, Vaes]);
        // Upper halves of registers whose lower halves are lost are of no use.
        check(Some(0b101), true, &[Popcnt], &[Sse2, Avx]);
        check(
            Some(0b111),
            true,
            &[Avx2, Fma, AvxVnni, Vaes],
            &[Avx512f, Avx512vnni, AmxTile],
        );
        check(Some(0x67), true, &[Avx2], &[Avx512f, Avx512bf16]);
        check(
            Some(0xe7),
            true,
            &[Avx512f, Avx512vnni, Avx512fp16, Avx512bf16],
            &[AmxTile],
        );
        check(Some(0x2_00e7), true, &[Avx512f], &[AmxTile, AmxInt8]);
        check(
            Some(0x6_00e7),
            true,
            &[AmxTile, AmxInt8, AmxBf16, AmxFp16],
            &[],
        );
    }

    #[test]
    fn leaves_that_are_not_there_say_nothing() {
        struct Old;
        impl Cpuid for Old {
            fn cpuid(&self, leaf: u32, _: u32) -> Registers {
                match leaf {
                    0 => Registers {
                        eax: 1,
                        ..Registers::default()
                    },
                    // As Intel's do: the data of the highest leaf.
                    _ => Registers {
                        eax: 0x306c3,
                        ebx: u32::MAX,
                        ecx: u32::MAX,
                        edx: u32::MAX,
                    },
                }
            }
            fn xcr0(&self) -> u64 {
                0xe7
            }
        }
        let found = features(&Old, true);
        assert!(found.contains(Avx) && found.contains(Popcnt));
        assert!(!found.contains(Avx2) && !found.contains(Avx512f) && !found.contains(Lzcnt));
    }
}

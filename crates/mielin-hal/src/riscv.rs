//! Extensions of RISC-V, from an ISA string or from what Linux answers to `riscv_hwprobe`.
//!
//! Sources: The RISC-V Instruction Set Manual, volume I, "ISA Extension Naming Conventions"; the device-tree bindings
//! `riscv/cpus.yaml` and `riscv/extensions.yaml`; `Documentation/arch/riscv/hwprobe.rst` of Linux.

use crate::features::CpuFeature::{self, *};
use crate::features::FeatureSet;

/// What an ISA string such as `rv64imafdcv_zba_zbb_zvl256b` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Isa {
    /// Its extensions.
    pub features: FeatureSet,
    /// The least length of a vector register in bits, if it says one.
    pub vector_bits_min: Option<u32>,
}

impl Isa {
    /// Reads an ISA string as a device tree has it in `riscv,isa` and Linux in `/proc/cpuinfo`. Upper case is as good as
    /// lower, versions (`i2p1`) are skipped, unknown extensions too. `None` if it does not begin with `rv32` or `rv64`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Isa> {
        let rest = text
            .get(..4)
            .filter(|base| base.eq_ignore_ascii_case("rv32") || base.eq_ignore_ascii_case("rv64"));
        let rest = &text[rest?.len()..];
        let mut isa = Isa::default();
        let mut words = rest.split('_');
        isa.add_letters(words.next().unwrap_or(""));
        words.for_each(|word| isa.add(word));
        Some(isa)
    }

    /// Adds an extension by its name, as in the list `riscv,isa-extensions` of a device tree.
    pub fn add(&mut self, extension: &str) {
        if !extension.starts_with(['z', 's', 'x', 'Z', 'S', 'X']) {
            return self.add_letters(extension);
        }
        self.vector_bits_min = self.vector_bits_min.max(vector_length(extension));
        let known = BY_NAME
            .iter()
            .find(|(name, _)| is_same_or_versioned(extension, name));
        if let Some(&(_, feature)) = known {
            self.features.insert(feature);
            // Half precision contains its conversions.
            self.features.insert_if(feature == Zfh, Zfhmin);
        }
    }

    /// Single letters: `imafdcv`, also with versions. What begins with `z`, `s` or `x` has a longer name and ends them.
    fn add_letters(&mut self, letters: &str) {
        for (at, char) in letters.char_indices() {
            match char.to_ascii_lowercase() {
                'g' => [Mul, Atomic, Float, Double]
                    .into_iter()
                    .for_each(|feature| self.features.insert(feature)),
                'v' => {
                    self.features.insert(Vector);
                    self.vector_bits_min = self.vector_bits_min.max(Some(V_BITS_MIN));
                }
                'z' | 's' | 'x' => return self.add(&letters[at..]),
                letter => {
                    let found = BY_LETTER.iter().find(|(known, _)| *known == letter);
                    if let Some(&(_, feature)) = found {
                        self.features.insert(feature);
                    }
                }
            }
        }
    }
}

/// Version 1.0 of the vector extension, section 18.3: V implies registers of at least 128 bits.
const V_BITS_MIN: u32 = 128;

const BY_LETTER: [(char, CpuFeature); 6] = [
    ('m', Mul),
    ('a', Atomic),
    ('f', Float),
    ('d', Double),
    ('c', Compressed),
    ('h', Hypervisor),
];

const BY_NAME: [(&str, CpuFeature); 19] = [
    ("sstc", Sstc),
    ("svade", Svade),
    ("svadu", Svadu),
    ("svinval", Svinval),
    ("svnapot", Svnapot),
    ("svpbmt", Svpbmt),
    ("zba", Zba),
    ("zbb", Zbb),
    ("zbc", Zbc),
    ("zbs", Zbs),
    ("zbkb", Zbkb),
    ("zicond", Zicond),
    ("zicboz", Zicboz),
    ("zfh", Zfh),
    ("zfhmin", Zfhmin),
    ("zvfh", Zvfh),
    ("zvbb", Zvbb),
    ("zvkned", Zvkned),
    ("zvknhb", Zvknhb),
];

/// Whether `extension` is `name`, or it with a version such as `1p0` behind.
fn is_same_or_versioned(extension: &str, name: &str) -> bool {
    let Some((begin, version)) = extension.split_at_checked(name.len()) else {
        return false;
    };
    begin.eq_ignore_ascii_case(name) && (version.is_empty() || is_version(version))
}

fn is_version(text: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.split_once(['p', 'P']) {
        Some((major, minor)) => number(major) && number(minor),
        None => number(text),
    }
}

/// `zvl256b` says that a vector register has at least 256 bits.
fn vector_length(extension: &str) -> Option<u32> {
    let (begin, rest) = extension.split_at_checked(3)?;
    let digits = rest.split(['b', 'B']).next()?;
    let bits: u32 = digits.parse().ok()?;
    (begin.eq_ignore_ascii_case("zvl") && bits.is_power_of_two() && (32..=65536).contains(&bits))
        .then_some(bits)
}

/// `RISCV_HWPROBE_KEY_BASE_BEHAVIOR`: value bit 0 stands for IMA.
pub const HWPROBE_BASE_BEHAVIOR: i64 = 3;
/// `RISCV_HWPROBE_KEY_IMA_EXT_0`: one bit for each extension.
pub const HWPROBE_IMA_EXT_0: i64 = 4;

/// The extensions that `riscv_hwprobe` lists under [`HWPROBE_BASE_BEHAVIOR`] and [`HWPROBE_IMA_EXT_0`], which are those
/// whose registers Linux saves.
#[must_use]
pub fn from_hwprobe(base_behavior: u64, ima_ext_0: u64) -> FeatureSet {
    let mut features = FeatureSet::EMPTY;
    features.insert_if(base_behavior & 1 != 0, Mul);
    features.insert_if(base_behavior & 1 != 0, Atomic);
    // One bit stands for both.
    features.insert_if(ima_ext_0 & 1 != 0, Float);
    features.insert_bits(ima_ext_0, &IMA_EXT_0);
    features
}

const IMA_EXT_0: [(u32, CpuFeature); 16] = [
    (0, Double),
    (1, Compressed),
    (2, Vector),
    (3, Zba),
    (4, Zbb),
    (5, Zbs),
    (6, Zicboz),
    (7, Zbc),
    (8, Zbkb),
    (17, Zvbb),
    (21, Zvkned),
    (23, Zvknhb),
    (27, Zfh),
    (28, Zfhmin),
    (30, Zvfh),
    (35, Zicond),
];

/// The extensions in Linux's `AT_HWCAP`, for kernels without `riscv_hwprobe`: bit `n` stands for the letter after `n`
/// others.
#[must_use]
pub fn from_hwcap(hwcap: u64) -> FeatureSet {
    let mut features = FeatureSet::EMPTY;
    for (letter, feature) in BY_LETTER.into_iter().chain([('v', Vector)]) {
        let bit = letter as u32 - 'a' as u32;
        // Programs cannot use the hypervisor extension.
        features.insert_if(hwcap >> bit & 1 != 0 && feature != Hypervisor, feature);
    }
    features
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, features: &[CpuFeature], vector_bits_min: Option<u32>) {
        let features = features.iter().copied().collect();
        let expected = Isa {
            features,
            vector_bits_min,
        };
        assert_eq!(Isa::parse(text), Some(expected), "{text}");
    }

    #[test]
    fn isa_strings() {
        check("rv64i", &[], None);
        check("rv32imac", &[Mul, Atomic, Compressed], None);
        check("rv64gc", &[Mul, Atomic, Float, Double, Compressed], None);
        check(
            "RV64GCV",
            &[Mul, Atomic, Float, Double, Compressed, Vector],
            Some(128),
        );
        check(
            "rv64imafdch_zicsr_zba_zbb_zvl512b_xventanacondops",
            &[Mul, Atomic, Float, Double, Compressed, Hypervisor, Zba, Zbb],
            Some(512),
        );
        check("rv64imv_zvl64b", &[Mul, Vector], Some(128));
        check(
            "rv64i2p1_m2p0_a2p1_zba1p0_zfh1p0",
            &[Mul, Atomic, Zba, Zfh, Zfhmin],
            None,
        );
        check(
            "rv64imac_sscofpmf_sstc_svinval",
            &[Mul, Atomic, Compressed, Sstc, Svinval],
            None,
        );
        // As QEMU's virt says of itself, in part.
        check(
            "rv64ima_zicsr_smstateen_ssaia_sstc_svade_svadu_svnapot1p0_svpbmt_svvptc",
            &[Mul, Atomic, Sstc, Svade, Svadu, Svnapot, Svpbmt],
            None,
        );
        // No underscore before the first long name, as some firmware writes it.
        check(
            "rv64imaczba_zbb",
            &[Mul, Atomic, Compressed, Zba, Zbb],
            None,
        );
        check("rv64__i_", &[], None);
        check(
            "rv64i_zbac_zvl_zvlb_zvl48b_zvl99999999999999999999b",
            &[],
            None,
        );
    }

    #[test]
    fn what_is_no_isa_string_is_none() {
        for text in ["", "rv", "rv128i", "x86_64", "äöü", "rv6ä"] {
            assert_eq!(Isa::parse(text), None, "{text}");
        }
        assert!(Isa::parse("rv64ü_ß").is_some());
    }

    #[test]
    fn what_linux_answers() {
        let all = from_hwprobe(1, u64::MAX);
        for feature in [
            Mul, Atomic, Float, Double, Compressed, Vector, Zba, Zbb, Zicond,
        ] {
            assert!(all.contains(feature), "{feature}");
        }
        assert_eq!(from_hwprobe(0, 0), FeatureSet::EMPTY);
        let scalar: FeatureSet = [Mul, Atomic, Float, Double, Compressed]
            .into_iter()
            .collect();
        assert_eq!(from_hwprobe(1, 0b11), scalar);
        let bits = ['i', 'm', 'a', 'f', 'd', 'c', 'h'];
        let word = bits
            .iter()
            .fold(0, |word, letter| word | 1 << (*letter as u32 - 'a' as u32));
        assert_eq!(from_hwcap(word), scalar);
    }
}

//! The processor features that change which code is worth running, and sets of them.

use core::fmt;

macro_rules! cpu_features {
    ($($variant:ident = $name:literal, $doc:literal;)*) => {
        /// A processor feature that changes which code is worth running.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum CpuFeature {
            $(#[doc = $doc] $variant,)*
        }

        impl CpuFeature {
            /// Every feature of every architecture.
            pub const ALL: [CpuFeature; [$($name),*].len()] = [$(CpuFeature::$variant),*];

            /// The name that the compiler gives it where it has one, such as `avx512f`.
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
    // x86-64.
    Sse = "sse", "x86-64: 128-bit single precision.";
    Sse2 = "sse2", "x86-64: 128-bit double precision and integers.";
    Sse3 = "sse3", "x86-64: SSE 3.";
    Ssse3 = "ssse3", "x86-64: supplemental SSE 3.";
    Sse41 = "sse4.1", "x86-64: SSE 4.1.";
    Sse42 = "sse4.2", "x86-64: SSE 4.2.";
    Sse4a = "sse4a", "x86-64: SSE 4a, of AMD.";
    Popcnt = "popcnt", "x86-64: population count.";
    Lzcnt = "lzcnt", "x86-64: leading zero count.";
    Bmi1 = "bmi1", "x86-64: bit manipulation, first set.";
    Bmi2 = "bmi2", "x86-64: bit manipulation, second set.";
    Adx = "adx", "x86-64: additions with two carries.";
    Movbe = "movbe", "x86-64: loads and stores that swap bytes.";
    Pclmulqdq = "pclmulqdq", "x86-64: carry-less multiplication.";
    Vpclmulqdq = "vpclmulqdq", "x86-64: carry-less multiplication of wider vectors.";
    Vaes = "vaes", "x86-64: AES rounds on wider vectors.";
    Gfni = "gfni", "x86-64: arithmetic in GF(2⁸).";
    Sha = "sha", "x86-64: SHA-1 and SHA-256 rounds in hardware.";
    F16c = "f16c", "x86-64: half-precision conversions.";
    Rdrand = "rdrand", "x86-64: random numbers.";
    Rdseed = "rdseed", "x86-64: seeds for random numbers.";
    Avx = "avx", "x86-64: 256-bit floating point.";
    Avx2 = "avx2", "x86-64: 256-bit integers.";
    Fma = "fma", "x86-64: fused multiply and add.";
    AvxVnni = "avxvnni", "x86-64: 256-bit integer dot products.";
    AvxVnniInt8 = "avxvnniint8", "x86-64: the same with either sign on either side.";
    AvxIfma = "avxifma", "x86-64: 256-bit 52-bit integer multiplication.";
    Avx512f = "avx512f", "x86-64: the 512-bit foundation.";
    Avx512cd = "avx512cd", "x86-64: 512-bit conflict detection.";
    Avx512bw = "avx512bw", "x86-64: 512-bit bytes and words.";
    Avx512dq = "avx512dq", "x86-64: 512-bit double and quad words.";
    Avx512vl = "avx512vl", "x86-64: the 512-bit instructions on shorter vectors.";
    Avx512ifma = "avx512ifma", "x86-64: 512-bit 52-bit integer multiplication.";
    Avx512vbmi = "avx512vbmi", "x86-64: 512-bit byte permutations.";
    Avx512vbmi2 = "avx512vbmi2", "x86-64: 512-bit byte compression and shifts.";
    Avx512vnni = "avx512vnni", "x86-64: 512-bit integer dot products.";
    Avx512bitalg = "avx512bitalg", "x86-64: 512-bit population counts of bytes and words.";
    Avx512vpopcntdq = "avx512vpopcntdq", "x86-64: 512-bit population counts of double and quad words.";
    Avx512bf16 = "avx512bf16", "x86-64: 512-bit brain-float dot products.";
    Avx512fp16 = "avx512fp16", "x86-64: 512-bit half precision.";
    AmxTile = "amx-tile", "x86-64: tile registers. On Linux a process asks for them first (`arch_prctl`).";
    AmxInt8 = "amx-int8", "x86-64: integer products of tiles.";
    AmxBf16 = "amx-bf16", "x86-64: brain-float products of tiles.";
    AmxFp16 = "amx-fp16", "x86-64: half-precision products of tiles.";
    // x86-64 and 64-bit Arm.
    Aes = "aes", "x86-64 and Arm: AES rounds in hardware.";
    // 64-bit Arm.
    Neon = "neon", "Arm: 128-bit Advanced SIMD.";
    Fp16 = "fp16", "Arm: half-precision arithmetic.";
    Bf16 = "bf16", "Arm: brain-float dot and matrix products.";
    DotProd = "dotprod", "Arm: integer dot products.";
    I8mm = "i8mm", "Arm: 8-bit integer matrix products.";
    Fhm = "fhm", "Arm: half-precision products added in single precision.";
    Fcma = "fcma", "Arm: complex numbers.";
    Rdm = "rdm", "Arm: rounding doubling multiplication.";
    Jsconv = "jsconv", "Arm: JavaScript's conversion to integers.";
    Pmull = "pmull", "Arm: polynomial multiplication of 64 bits.";
    Sha1 = "sha1", "Arm: SHA-1 rounds in hardware.";
    Sha2 = "sha2", "Arm: SHA-256 rounds in hardware.";
    Sha3 = "sha3", "Arm: SHA-3 rounds in hardware.";
    Sha512 = "sha512", "Arm: SHA-512 rounds in hardware.";
    Sm4 = "sm4", "Arm: SM4 rounds in hardware.";
    Crc = "crc", "Arm: CRC-32.";
    Lse = "lse", "Arm: atomic operations in one instruction.";
    Rcpc = "rcpc", "Arm: loads that acquire in the processor-consistent model.";
    Rand = "rand", "Arm: random numbers.";
    Bti = "bti", "Arm: marked targets of branches.";
    Mte = "mte", "Arm: memory tags.";
    Sve = "sve", "Arm: scalable vectors.";
    Sve2 = "sve2", "Arm: scalable vectors, second set.";
    SveI8mm = "sve-i8mm", "Arm: 8-bit integer matrix products of scalable vectors.";
    SveBf16 = "sve-bf16", "Arm: brain-float products of scalable vectors.";
    Sme = "sme", "Arm: scalable matrices.";
    Sme2 = "sme2", "Arm: scalable matrices, second set.";
    // RISC-V.
    Mul = "m", "RISC-V: integer multiplication and division.";
    Atomic = "a", "RISC-V: atomic operations.";
    Float = "f", "RISC-V: single precision.";
    Double = "d", "RISC-V: double precision.";
    Compressed = "c", "RISC-V: instructions of 16 bits.";
    Vector = "v", "RISC-V: the vector extension.";
    Hypervisor = "h", "RISC-V: the hypervisor extension.";
    Zba = "zba", "RISC-V: address generation.";
    Zbb = "zbb", "RISC-V: basic bit manipulation.";
    Zbc = "zbc", "RISC-V: carry-less multiplication.";
    Zbs = "zbs", "RISC-V: single bits.";
    Zbkb = "zbkb", "RISC-V: bit manipulation for cryptography.";
    Zicond = "zicond", "RISC-V: conditional zero.";
    Zicboz = "zicboz", "RISC-V: zeroing of cache blocks.";
    Zfh = "zfh", "RISC-V: half precision.";
    Zfhmin = "zfhmin", "RISC-V: conversions of half precision.";
    Zvfh = "zvfh", "RISC-V: vectors of half precision.";
    Zvbb = "zvbb", "RISC-V: bit manipulation of vectors.";
    Zvkned = "zvkned", "RISC-V: AES rounds on vectors.";
    Zvknhb = "zvknhb", "RISC-V: SHA-2 rounds on vectors.";
    Sstc = "sstc", "RISC-V: a comparator for the timer of a supervisor.";
    Svade = "svade", "RISC-V: pages that were not yet used, or written, fault: the kernel marks them.";
    Svadu = "svadu", "RISC-V: the processor can mark pages as used and written, if firmware lets it.";
    Svinval = "svinval", "RISC-V: many translations made invalid at once.";
    Svnapot = "svnapot", "RISC-V: pages of 64 KiB.";
    Svpbmt = "svpbmt", "RISC-V: entries of page tables say how memory is cached, if firmware lets them.";
    // Cortex-M.
    Fpu = "fpu", "Cortex-M: single-precision floating point, switched on.";
    FpuDouble = "fpu-double", "Cortex-M: double-precision floating point, switched on.";
    Dsp = "dsp", "Cortex-M: the DSP extension.";
    Mve = "mve", "Cortex-M: the M-profile vector extension (Helium).";
    Mpu = "mpu", "Cortex-M: a memory protection unit.";
    TrustZone = "trustzone", "Cortex-M: the security extension.";
}

impl CpuFeature {
    /// The feature of that name, as [`CpuFeature::name`] gives it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<CpuFeature> {
        Self::ALL.into_iter().find(|feature| feature.name() == name)
    }
}

impl fmt::Display for CpuFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Some features.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct FeatureSet {
    /// Bit `n` stands for the feature whose discriminant is `n`.
    bits: u128,
}

impl FeatureSet {
    /// No features.
    pub const EMPTY: FeatureSet = FeatureSet { bits: 0 };

    /// Whether the feature is among them.
    #[must_use]
    pub const fn contains(self, feature: CpuFeature) -> bool {
        self.bits & (1 << feature as u8) != 0
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// Adds a feature.
    pub const fn insert(&mut self, feature: CpuFeature) {
        self.bits |= 1 << feature as u8;
    }

    /// Adds a feature if the condition holds.
    pub(crate) const fn insert_if(&mut self, condition: bool, feature: CpuFeature) {
        if condition {
            self.insert(feature);
        }
    }

    /// Adds the features whose bits are set in a word of a register.
    pub(crate) fn insert_bits(&mut self, word: u64, bits: &[(u32, CpuFeature)]) {
        for &(bit, feature) in bits {
            self.insert_if(word >> bit & 1 != 0, feature);
        }
    }

    /// Those of these features that are not among the others.
    #[must_use]
    pub const fn without(self, others: FeatureSet) -> FeatureSet {
        FeatureSet {
            bits: self.bits & !others.bits,
        }
    }

    /// The features, in the order of [`CpuFeature::ALL`].
    pub fn iter(self) -> impl Iterator<Item = CpuFeature> {
        CpuFeature::ALL
            .into_iter()
            .filter(move |feature| self.contains(*feature))
    }
}

impl FromIterator<CpuFeature> for FeatureSet {
    fn from_iter<I: IntoIterator<Item = CpuFeature>>(features: I) -> Self {
        let mut set = Self::EMPTY;
        features.into_iter().for_each(|feature| set.insert(feature));
        set
    }
}

impl fmt::Debug for FeatureSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_has_its_own_bit_and_name() {
        let all: FeatureSet = CpuFeature::ALL.into_iter().collect();
        assert_eq!(all.bits.count_ones() as usize, CpuFeature::ALL.len());
        for feature in CpuFeature::ALL {
            assert_eq!(CpuFeature::from_name(feature.name()), Some(feature));
        }
        assert_eq!(CpuFeature::from_name("avx1024"), None);
    }
}

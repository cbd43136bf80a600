//! Which instructions the kernels use.

use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};

use mielin_hal::{CpuFeature, HardwareCapabilities};

/// A set of kernels, written for the vector instructions of a processor.
///
/// Nobody chooses one for a processor that cannot run it: [`Backend::active`] finds out what this one can do, and the
/// kernels ask it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// Plain Rust, for every processor.
    Scalar,
    /// Vectors of 128 bits of WebAssembly, if the crate is compiled for a target that has them.
    Simd128,
    /// Vectors of 128 bits of 64-bit Arm, with products of bytes where the processor has them (FEAT_DotProd, FEAT_I8MM).
    Neon,
    /// Vectors of 128 bits of x86-64, without fused multiply-add.
    Sse41,
    /// Vectors of 256 bits and fused multiply-add of x86-64.
    Avx2,
    /// Vectors of 512 bits of x86-64 (AVX-512F, BW, DQ and VL), with products of bytes where the processor has them (VNNI).
    Avx512,
}

impl Backend {
    /// From the simplest to the fastest.
    pub const ALL: [Backend; 6] = [
        Self::Scalar,
        Self::Simd128,
        Self::Neon,
        Self::Sse41,
        Self::Avx2,
        Self::Avx512,
    ];

    /// What the kernels of this process use: the fastest that the processor and its operating system support, or, with
    /// the feature `std`, the one that the environment variable `MIELIN_TENSOR_BACKEND` names (in small letters or capitals), if they
    /// support that; any other name is as if there were none. It is found out once.
    #[must_use]
    pub fn active() -> Backend {
        /// One more than the index in `ALL`; 0 before it is known.
        static ACTIVE: AtomicU8 = AtomicU8::new(0);
        let index = match ACTIVE.load(Ordering::Relaxed) {
            0 => {
                let chosen = chosen().unwrap_or_else(fastest);
                let index = Self::ALL.iter().position(|backend| *backend == chosen);
                let known = index.map_or(1, |index| index as u8 + 1);
                ACTIVE.store(known, Ordering::Relaxed);
                known
            }
            known => known,
        };
        Self::ALL[usize::from(index) - 1]
    }

    /// Whether this processor can run its kernels.
    #[must_use]
    pub fn is_supported(self) -> bool {
        let machine = HardwareCapabilities::detect();
        let has = |features: &[CpuFeature]| features.iter().all(|feature| machine.has(*feature));
        match self {
            Self::Scalar => true,
            Self::Simd128 => cfg!(all(target_arch = "wasm32", target_feature = "simd128")),
            Self::Neon => {
                cfg!(all(target_arch = "aarch64", target_feature = "neon"))
                    && has(&[CpuFeature::Neon])
            }
            Self::Sse41 => {
                let needed = [CpuFeature::Sse41, CpuFeature::Ssse3, CpuFeature::Sse3];
                cfg!(all(target_arch = "x86_64", target_feature = "sse2")) && has(&needed)
            }
            Self::Avx2 => {
                cfg!(all(target_arch = "x86_64", target_feature = "sse2"))
                    && has(&[CpuFeature::Avx2, CpuFeature::Fma])
            }
            Self::Avx512 => {
                let needed = [
                    CpuFeature::Avx512f,
                    CpuFeature::Avx512bw,
                    CpuFeature::Avx512dq,
                    CpuFeature::Avx512vl,
                    CpuFeature::Avx2,
                    CpuFeature::Fma,
                    CpuFeature::F16c,
                ];
                cfg!(all(target_arch = "x86_64", target_feature = "sse2")) && has(&needed)
            }
        }
    }

    /// As `MIELIN_TENSOR_BACKEND` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Simd128 => "simd128",
            Self::Neon => "neon",
            Self::Sse41 => "sse4.1",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn fastest() -> Backend {
    let mut supported = Backend::ALL.into_iter().rev();
    let fastest = supported.find(|backend| backend.is_supported());
    fastest.unwrap_or(Backend::Scalar)
}

#[cfg(feature = "std")]
fn chosen() -> Option<Backend> {
    let name = std::env::var("MIELIN_TENSOR_BACKEND").ok()?;
    let named = Backend::ALL
        .into_iter()
        .find(|it| it.name().eq_ignore_ascii_case(&name))?;
    named.is_supported().then_some(named)
}

#[cfg(not(feature = "std"))]
fn chosen() -> Option<Backend> {
    None
}

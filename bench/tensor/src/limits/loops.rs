//! Loops in the instructions of a backend that do one thing as fast as the processor can.

#![allow(
    unsafe_code,
    reason = "a function for instructions that not every processor has is called where they are known to be there"
)]

use std::hint::black_box;

use mielin_tensor::Backend;

/// Sums in registers, none of which waits for another one: more than a processor's latency times what it begins in a cycle,
/// and few enough for the sixteen registers of AVX2.
const CHAINS: usize = 12;

/// From how many places memory is read at the same time. Which number is best is the processor's affair.
pub(super) const STREAMS: [usize; 3] = [1, 4, 16];

/// A loop of fused multiply-adds. That there is one shows that the processor has them.
#[derive(Clone, Copy)]
pub(super) struct Fma(Backend);

impl Fma {
    /// None for a backend whose multiplication and addition are two instructions.
    pub(super) fn of(backend: Backend) -> Option<Fma> {
        let fuses = matches!(backend, Backend::Avx512 | Backend::Avx2 | Backend::Neon);
        (fuses && backend.is_supported()).then_some(Fma(backend))
    }

    /// Does so many steps.
    pub(super) fn run(self, steps: usize) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the backend is supported, and it needs AVX-512F.
            Backend::Avx512 => unsafe { x86::fma_512(steps) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the backend is supported, and it needs AVX2 and FMA.
            Backend::Avx2 => unsafe { x86::fma_256(steps) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: the backend is supported, and it needs Neon.
            Backend::Neon => unsafe { arm::fma_128(steps) },
            _ => {}
        }
    }

    /// Operations of so many steps.
    pub(super) fn operations(self, steps: usize) -> f64 {
        let width = match self.0 {
            Backend::Avx512 => 16,
            Backend::Avx2 => 8,
            Backend::Neon => 4,
            _ => 1,
        };
        2.0 * (width * CHAINS * steps) as f64
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps, _mm512_fmadd_ps, _mm512_set1_ps};

    use super::{CHAINS, black_box};

    #[target_feature(enable = "avx512f")]
    pub(super) fn fma_512(steps: usize) {
        let factor = _mm512_set1_ps(black_box(0.5));
        let mut sums = [_mm512_set1_ps(black_box(1.0)); CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, factor, factor);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn fma_256(steps: usize) {
        let factor = _mm256_set1_ps(black_box(0.5));
        let mut sums = [_mm256_set1_ps(black_box(1.0)); CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, factor, factor);
            }
        }
        black_box(sums);
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::{vdupq_n_f32, vfmaq_f32};

    use super::{CHAINS, black_box};

    #[target_feature(enable = "neon")]
    pub(super) fn fma_128(steps: usize) {
        let factor = vdupq_n_f32(black_box(0.5));
        let mut sums = [vdupq_n_f32(black_box(1.0)); CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = vfmaq_f32(factor, *sum, factor);
            }
        }
        black_box(sums);
    }
}

/// Reads all of it, from as many places as there are streams.
pub(super) fn read(memory: &[f32], streams: usize) {
    match Backend::active() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the backend is active, so that the processor has AVX-512F.
        Backend::Avx512 => unsafe { read_512(memory, streams) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the backend is active, so that the processor has AVX2.
        Backend::Avx2 => unsafe { read_256(memory, streams) },
        _ => read_by(memory, streams),
    }
}

/// Reads and writes all of it. What is written is what was read.
pub(super) fn read_write(memory: &mut [f32]) {
    match Backend::active() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the backend is active, so that the processor has AVX-512F.
        Backend::Avx512 => unsafe { read_write_512(memory) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the backend is active, so that the processor has AVX2.
        Backend::Avx2 => unsafe { read_write_256(memory) },
        _ => read_write_by(memory),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn read_512(memory: &[f32], streams: usize) {
    read_by(memory, streams);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn read_256(memory: &[f32], streams: usize) {
    read_by(memory, streams);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn read_write_512(memory: &mut [f32]) {
    read_write_by(memory);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn read_write_256(memory: &mut [f32]) {
    read_write_by(memory);
}

/// Elements of a piece, which is read from one stream before the next one's turn: four lines of a cache.
const PIECE: usize = 64;

/// In the functions above the compiler makes it of their vectors.
#[inline(always)]
fn read_by(memory: &[f32], streams: usize) {
    let (pieces, _) = memory.as_chunks::<PIECE>();
    let each = pieces.len() / streams;
    let mut sums = [0.0; PIECE];
    for at in 0..each {
        for stream in 0..streams {
            let piece = &pieces[stream * each + at];
            for (sum, element) in sums.iter_mut().zip(piece) {
                *sum += element;
            }
        }
    }
    black_box(sums);
}

#[inline(always)]
fn read_write_by(memory: &mut [f32]) {
    let factor = black_box(1.0);
    for element in memory {
        *element *= factor;
    }
}

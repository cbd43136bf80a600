//! Vectors of 512 bits of x86-64.

use core::arch::x86_64::*;
use core::sync::atomic::{AtomicU8, Ordering};

use mielin_hal::{CpuFeature, HardwareCapabilities};

use super::{Kernel, Simd};
use crate::backend::Backend;

/// With the instructions that multiply bytes, or without.
#[derive(Clone, Copy)]
pub(super) struct Avx512<const BYTES: bool>(());

impl<const BYTES: bool> Avx512<BYTES> {
    /// The vectors, if this processor has them.
    pub(super) fn new() -> Option<Avx512<BYTES>> {
        let has = !BYTES || multiplies_bytes();
        (has && super::proved(Backend::Avx512)).then_some(Avx512(()))
    }
}

/// Whether the processor has VNNI. It is asked once: where a hypervisor answers, that takes longer than most kernels.
fn multiplies_bytes() -> bool {
    /// 0 before it is known, 1 for no, 2 for yes.
    static KNOWN: AtomicU8 = AtomicU8::new(0);
    let known = match KNOWN.load(Ordering::Relaxed) {
        0 => {
            let has = HardwareCapabilities::detect().has(CpuFeature::Avx512vnni);
            let known = 1 + u8::from(has);
            KNOWN.store(known, Ordering::Relaxed);
            known
        }
        known => known,
    };
    known == 2
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn run<K: Kernel>(simd: Avx512<false>, kernel: K) -> K::Output {
    kernel.run(simd)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
fn run_bytes<K: Kernel>(simd: Avx512<true>, kernel: K) -> K::Output {
    kernel.run(simd)
}

const LANES: usize = 16;

#[inline(always)]
fn first(count: usize) -> __mmask16 {
    ((1_u32 << count) - 1) as u16
}

// SAFETY (for all blocks below): there is an `Avx512`, so the processor has the instructions. What is read and written is what
// the caller promised; a mask leaves the rest alone.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason holds for all of them, and stands above"
)]
impl<const BYTES: bool> Simd for Avx512<BYTES> {
    const LANES: usize = LANES;
    // 24 sums, 3 vectors of the right factor and an element of the left one, of 32 registers.
    const PRODUCT: [usize; 2] = [8, 3];
    const DOTS: [usize; 2] = [4, 4];

    const TERMS: usize = if BYTES { 4 } else { 2 };
    const LEFT_IS_UNSIGNED: bool = BYTES;

    type Floats = __m512;
    type Integers = __m512i;
    type Mask = __mmask16;
    type Sums = [__m512d; 2];

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        match BYTES {
            true => unsafe { run_bytes(Avx512(()), kernel) },
            false => unsafe { run(Avx512(()), kernel) },
        }
    }

    #[inline(always)]
    fn splat(self, element: f32) -> __m512 {
        unsafe { _mm512_set1_ps(element) }
    }

    #[inline(always)]
    unsafe fn read(self, from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn read_some(self, from: *const f32, count: usize, rest: f32) -> __m512 {
        unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(rest), first(count), from) }
    }

    #[inline(always)]
    unsafe fn write(self, to: *mut f32, floats: __m512) {
        unsafe { _mm512_storeu_ps(to, floats) }
    }

    #[inline(always)]
    unsafe fn write_some(self, to: *mut f32, count: usize, floats: __m512) {
        unsafe { _mm512_mask_storeu_ps(to, first(count), floats) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn lost(self, a: __m512, b: __m512, product: __m512) -> __m512 {
        unsafe { _mm512_fmsub_ps(a, b, product) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        unsafe { _mm512_sqrt_ps(a) }
    }

    #[inline(always)]
    fn scale(self, x: __m512, exponents: __m512) -> __m512 {
        unsafe { _mm512_scalef_ps(x, exponents) }
    }

    /// A division takes as long as thirty multiplications. The first guess of 1 / b is the line through the bits of a float as an
    /// integer that is closest to those of its reciprocal, and off by a twentieth; each step raises the error to the power of three
    /// (Schulz's iteration of third order). What the quotient is off by then corrects it.
    #[inline(always)]
    fn quotient(self, a: __m512, b: __m512) -> __m512 {
        let mut guess = unsafe {
            let bits = _mm512_sub_epi32(_mm512_set1_epi32(0x7ef3_11c3), _mm512_castps_si512(b));
            _mm512_castsi512_ps(bits)
        };
        for _ in 0..2 {
            let off = unsafe { _mm512_fnmadd_ps(b, guess, self.splat(1.0)) };
            guess = self.mul_add(guess, self.mul_add(off, off, off), guess);
        }
        let quotient = self.mul(a, guess);
        let off = unsafe { _mm512_fnmadd_ps(b, quotient, a) };
        self.mul_add(off, guess, quotient)
    }

    #[inline(always)]
    fn power_of_two(self, exponents: __m512) -> __m512 {
        unsafe {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(exponents), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
    }

    #[inline(always)]
    fn less(self, a: __m512, b: __m512) -> __mmask16 {
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
    }

    #[inline(always)]
    fn is_equal(self, a: __m512, b: __m512) -> __mmask16 {
        unsafe { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b) }
    }

    #[inline(always)]
    fn is_nan(self, a: __m512) -> __mmask16 {
        unsafe { _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a) }
    }

    #[inline(always)]
    fn any(self, mask: __mmask16) -> bool {
        mask != 0
    }

    #[inline(always)]
    fn select(self, mask: __mmask16, yes: __m512, no: __m512) -> __m512 {
        unsafe { _mm512_mask_blend_ps(mask, no, yes) }
    }

    #[inline(always)]
    fn sum(self, floats: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(floats) }
    }

    #[inline(always)]
    fn largest(self, floats: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(floats) }
    }

    #[inline(always)]
    fn no_sums(self) -> [__m512d; 2] {
        unsafe { [_mm512_setzero_pd(); 2] }
    }

    #[inline(always)]
    fn add_to_sums(self, [low, high]: [__m512d; 2], floats: __m512) -> [__m512d; 2] {
        unsafe {
            let upper = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(floats));
            [
                _mm512_add_pd(low, _mm512_cvtps_pd(_mm512_castps512_ps256(floats))),
                _mm512_add_pd(high, _mm512_cvtps_pd(_mm256_castpd_ps(upper))),
            ]
        }
    }

    #[inline(always)]
    fn total(self, [low, high]: [__m512d; 2]) -> f64 {
        unsafe { _mm512_reduce_add_pd(_mm512_add_pd(low, high)) }
    }

    #[inline(always)]
    fn splat_integer(self, element: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(element) }
    }

    #[inline(always)]
    unsafe fn read_integers(self, from: *const i32) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn write_integers(self, to: *mut i32, integers: __m512i) {
        unsafe { _mm512_storeu_si512(to.cast(), integers) }
    }

    #[inline(always)]
    fn add_products(self, sums: __m512i, left: __m512i, right: __m512i) -> __m512i {
        unsafe {
            match BYTES {
                true => _mm512_dpbusd_epi32(sums, left, right),
                false => _mm512_add_epi32(sums, _mm512_madd_epi16(left, right)),
            }
        }
    }

    #[inline(always)]
    unsafe fn read_bytes(self, from: *const i8) -> __m512i {
        unsafe {
            match BYTES {
                true => _mm512_loadu_si512(from.cast()),
                false => _mm512_cvtepi8_epi16(_mm256_loadu_si256(from.cast())),
            }
        }
    }

    #[inline(always)]
    fn to_left(self, right: __m512i) -> __m512i {
        unsafe {
            match BYTES {
                true => _mm512_xor_si512(right, _mm512_set1_epi8(i8::MIN)),
                false => right,
            }
        }
    }

    #[inline(always)]
    unsafe fn write_past_caches(self, to: *mut f32, floats: Self::Floats) {
        unsafe { _mm512_stream_ps(to, floats) }
    }

    #[inline(always)]
    fn fence(self) {
        unsafe { _mm_sfence() }
    }

    #[inline(always)]
    fn prefetch(self, from: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    #[inline(always)]
    fn prefetch_far(self, from: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn read_small(self, from: *const u8) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn read_nibbles(self, from: *const u8) -> [__m512; 2] {
        unsafe {
            let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()));
            let floats = _mm512_setr_ps(
                -8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0,
                7.0,
            );
            // Of an index only the lower four bits count. The upper ones of a byte become digits of 2¹⁹ + q where they are,
            // by instructions for which other execution units have time.
            let (mask, base) = (_mm512_set1_epi32(0xF0), (1 << 19) as f32);
            let exponent = _mm512_castps_si512(_mm512_set1_ps(base));
            let high = _mm512_ternarylogic_epi32::<0xF8>(exponent, bytes, mask);
            [
                _mm512_permutexvar_ps(bytes, floats),
                _mm512_sub_ps(_mm512_castsi512_ps(high), _mm512_set1_ps(base + 8.0)),
            ]
        }
    }

    #[inline(always)]
    fn to_floats(self, integers: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(integers) }
    }
}

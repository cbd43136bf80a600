//! Vectors of 256 bits of x86-64, with products that are added in one rounding.

use core::arch::x86_64::*;

use super::{Kernel, Simd};
use crate::backend::Backend;

#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    /// The vectors, if this processor has them.
    pub(super) fn new() -> Option<Avx2> {
        super::proved(Backend::Avx2).then_some(Avx2(()))
    }
}

#[target_feature(enable = "avx2,fma")]
fn run<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
    kernel.run(simd)
}

const LANES: usize = 8;

/// From the ninth on the first elements of a vector are masked in, from the one before on one more.
static MASKS: [i32; 2 * LANES] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// # Safety
/// The processor has AVX2; `count` is at most 8.
#[inline(always)]
unsafe fn first(count: usize) -> __m256i {
    // SAFETY: eight masks follow there.
    unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(LANES - count).cast()) }
}

#[inline(always)]
fn halves(floats: __m256) -> (__m128, __m128) {
    // SAFETY: whoever has a vector has the instructions.
    unsafe {
        (
            _mm256_castps256_ps128(floats),
            _mm256_extractf128_ps::<1>(floats),
        )
    }
}

// SAFETY (for all blocks below): there is an `Avx2`, so the processor has the instructions. What is read and written is what
// the caller promised; a mask leaves the rest alone.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason holds for all of them, and stands above"
)]
impl Simd for Avx2 {
    const LANES: usize = LANES;
    // 12 sums, 2 vectors of the right factor and an element of the left one, of 16 registers.
    const PRODUCT: [usize; 2] = [6, 2];
    const DOTS: [usize; 2] = [2, 4];

    const TERMS: usize = 2;
    const LEFT_IS_UNSIGNED: bool = false;

    type Floats = __m256;
    type Integers = __m256i;
    type Mask = __m256;
    type Sums = [__m256d; 2];

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        unsafe { run(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, element: f32) -> __m256 {
        unsafe { _mm256_set1_ps(element) }
    }

    #[inline(always)]
    unsafe fn read(self, from: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn read_some(self, from: *const f32, count: usize, rest: f32) -> __m256 {
        unsafe {
            let mask = first(count);
            let there = _mm256_maskload_ps(from, mask);
            _mm256_blendv_ps(_mm256_set1_ps(rest), there, _mm256_castsi256_ps(mask))
        }
    }

    #[inline(always)]
    unsafe fn write(self, to: *mut f32, floats: __m256) {
        unsafe { _mm256_storeu_ps(to, floats) }
    }

    #[inline(always)]
    unsafe fn write_some(self, to: *mut f32, count: usize, floats: __m256) {
        unsafe { _mm256_maskstore_ps(to, first(count), floats) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn lost(self, a: __m256, b: __m256, product: __m256) -> __m256 {
        unsafe { _mm256_fmsub_ps(a, b, product) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_min_ps(a, b) }
    }

    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn sqrt(self, a: __m256) -> __m256 {
        unsafe { _mm256_sqrt_ps(a) }
    }

    #[inline(always)]
    fn power_of_two(self, exponents: __m256) -> __m256 {
        unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(exponents), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        }
    }

    #[inline(always)]
    fn less(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(a, b) }
    }

    #[inline(always)]
    fn is_equal(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b) }
    }

    #[inline(always)]
    fn is_nan(self, a: __m256) -> __m256 {
        unsafe { _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a) }
    }

    #[inline(always)]
    fn any(self, mask: __m256) -> bool {
        unsafe { _mm256_movemask_ps(mask) != 0 }
    }

    #[inline(always)]
    fn select(self, mask: __m256, yes: __m256, no: __m256) -> __m256 {
        unsafe { _mm256_blendv_ps(no, yes, mask) }
    }

    #[inline(always)]
    fn sum(self, floats: __m256) -> f32 {
        unsafe {
            let (low, high) = halves(floats);
            let four = _mm_add_ps(low, high);
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn largest(self, floats: __m256) -> f32 {
        unsafe {
            let (low, high) = halves(floats);
            let four = _mm_max_ps(low, high);
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn no_sums(self) -> [__m256d; 2] {
        unsafe { [_mm256_setzero_pd(); 2] }
    }

    #[inline(always)]
    fn add_to_sums(self, sums: [__m256d; 2], floats: __m256) -> [__m256d; 2] {
        let (low, high) = halves(floats);
        unsafe {
            [
                _mm256_add_pd(sums[0], _mm256_cvtps_pd(low)),
                _mm256_add_pd(sums[1], _mm256_cvtps_pd(high)),
            ]
        }
    }

    #[inline(always)]
    fn total(self, [low, high]: [__m256d; 2]) -> f64 {
        unsafe {
            let four = _mm256_add_pd(low, high);
            let two = _mm_add_pd(
                _mm256_castpd256_pd128(four),
                _mm256_extractf128_pd::<1>(four),
            );
            _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
        }
    }

    #[inline(always)]
    fn splat_integer(self, element: i32) -> __m256i {
        unsafe { _mm256_set1_epi32(element) }
    }

    #[inline(always)]
    unsafe fn read_integers(self, from: *const i32) -> __m256i {
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn write_integers(self, to: *mut i32, integers: __m256i) {
        unsafe { _mm256_storeu_si256(to.cast(), integers) }
    }

    #[inline(always)]
    fn add_products(self, sums: __m256i, left: __m256i, right: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(left, right)) }
    }

    #[inline(always)]
    unsafe fn read_bytes(self, from: *const i8) -> __m256i {
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    fn to_left(self, right: __m256i) -> __m256i {
        right
    }

    #[inline(always)]
    unsafe fn write_past_caches(self, to: *mut f32, floats: Self::Floats) {
        unsafe { _mm256_stream_ps(to, floats) }
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
    unsafe fn read_small(self, from: *const u8) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn read_nibbles(self, from: *const u8) -> [__m256; 2] {
        unsafe {
            let bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()));
            let low = _mm256_and_si256(bytes, _mm256_set1_epi32(15));
            let high = _mm256_srli_epi32::<4>(bytes);
            let eight = _mm256_set1_epi32(8);
            [
                _mm256_cvtepi32_ps(_mm256_sub_epi32(low, eight)),
                _mm256_cvtepi32_ps(_mm256_sub_epi32(high, eight)),
            ]
        }
    }

    #[inline(always)]
    fn to_floats(self, integers: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(integers) }
    }
}

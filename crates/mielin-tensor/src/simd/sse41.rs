//! Vectors of 128 bits of x86-64, for processors without AVX2 or fused multiply-add: products that are added are rounded twice.

use core::arch::x86_64::*;

use super::{Kernel, Simd};
use crate::backend::Backend;

#[derive(Clone, Copy)]
pub(super) struct Sse41(());

impl Sse41 {
    /// The vectors, if this processor has them.
    pub(super) fn new() -> Option<Sse41> {
        super::proved(Backend::Sse41).then_some(Sse41(()))
    }
}

#[target_feature(enable = "sse4.1")]
fn run<K: Kernel>(simd: Sse41, kernel: K) -> K::Output {
    kernel.run(simd)
}

const LANES: usize = 4;

// SAFETY (for all blocks below): there is an `Sse41`, so the processor has the instructions. What is read and written is what
// the caller promised.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason holds for all of them, and stands above"
)]
impl Simd for Sse41 {
    const LANES: usize = LANES;
    // 12 sums, 2 vectors of the right factor and an element of the left one, of 16 registers.
    const PRODUCT: [usize; 2] = [6, 2];
    const DOTS: [usize; 2] = [2, 4];

    const TERMS: usize = 2;
    const LEFT_IS_UNSIGNED: bool = false;

    type Floats = __m128;
    type Integers = __m128i;
    type Mask = __m128;
    type Sums = [__m128d; 2];

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        unsafe { run(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, element: f32) -> __m128 {
        unsafe { _mm_set1_ps(element) }
    }

    #[inline(always)]
    unsafe fn read(self, from: *const f32) -> __m128 {
        unsafe { _mm_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn read_some(self, from: *const f32, count: usize, rest: f32) -> __m128 {
        unsafe {
            let rest = _mm_set1_ps(rest);
            match count {
                0 => rest,
                1 => _mm_move_ss(rest, _mm_load_ss(from)),
                2 => lower(from, rest),
                // To the third lane, from the first.
                3 => _mm_insert_ps::<0b0010_0000>(lower(from, rest), _mm_load_ss(from.add(2))),
                _ => _mm_loadu_ps(from),
            }
        }
    }

    #[inline(always)]
    unsafe fn write(self, to: *mut f32, floats: __m128) {
        unsafe { _mm_storeu_ps(to, floats) }
    }

    #[inline(always)]
    unsafe fn write_some(self, to: *mut f32, count: usize, floats: __m128) {
        unsafe {
            match count {
                0 => {}
                1 => _mm_store_ss(to, floats),
                2 => _mm_storel_pd(to.cast(), _mm_castps_pd(floats)),
                3 => {
                    _mm_storel_pd(to.cast(), _mm_castps_pd(floats));
                    _mm_store_ss(to.add(2), upper(floats));
                }
                _ => _mm_storeu_ps(to, floats),
            }
        }
    }

    #[inline(always)]
    unsafe fn write_past_caches(self, to: *mut f32, floats: __m128) {
        unsafe { _mm_stream_ps(to, floats) }
    }

    #[inline(always)]
    fn fence(self) {
        unsafe { _mm_sfence() }
    }

    #[inline(always)]
    fn add(self, a: __m128, b: __m128) -> __m128 {
        unsafe { _mm_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m128, b: __m128) -> __m128 {
        unsafe { _mm_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m128, b: __m128) -> __m128 {
        unsafe { _mm_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m128, b: __m128) -> __m128 {
        unsafe { _mm_div_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m128, b: __m128, c: __m128) -> __m128 {
        unsafe { _mm_add_ps(_mm_mul_ps(a, b), c) }
    }

    #[inline(always)]
    fn lost(self, a: __m128, b: __m128, product: __m128) -> __m128 {
        // A product of two floats is exact in twice the precision.
        let half = |a, b, product| unsafe {
            let exact = _mm_mul_pd(_mm_cvtps_pd(a), _mm_cvtps_pd(b));
            _mm_cvtpd_ps(_mm_sub_pd(exact, _mm_cvtps_pd(product)))
        };
        let low = half(a, b, product);
        let high = half(upper(a), upper(b), upper(product));
        unsafe { _mm_movelh_ps(low, high) }
    }

    #[inline(always)]
    fn max(self, a: __m128, b: __m128) -> __m128 {
        unsafe { _mm_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m128, b: __m128) -> __m128 {
        unsafe { _mm_min_ps(a, b) }
    }

    #[inline(always)]
    fn round(self, a: __m128) -> __m128 {
        unsafe { _mm_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn sqrt(self, a: __m128) -> __m128 {
        unsafe { _mm_sqrt_ps(a) }
    }

    #[inline(always)]
    fn power_of_two(self, exponents: __m128) -> __m128 {
        unsafe {
            let biased = _mm_add_epi32(_mm_cvtps_epi32(exponents), _mm_set1_epi32(127));
            _mm_castsi128_ps(_mm_slli_epi32::<23>(biased))
        }
    }

    #[inline(always)]
    fn less(self, a: __m128, b: __m128) -> __m128 {
        unsafe { _mm_cmplt_ps(a, b) }
    }

    #[inline(always)]
    fn is_equal(self, a: __m128, b: __m128) -> __m128 {
        unsafe { _mm_cmpeq_ps(a, b) }
    }

    #[inline(always)]
    fn is_nan(self, a: __m128) -> __m128 {
        unsafe { _mm_cmpunord_ps(a, a) }
    }

    #[inline(always)]
    fn any(self, mask: __m128) -> bool {
        unsafe { _mm_movemask_ps(mask) != 0 }
    }

    #[inline(always)]
    fn select(self, mask: __m128, yes: __m128, no: __m128) -> __m128 {
        unsafe { _mm_blendv_ps(no, yes, mask) }
    }

    #[inline(always)]
    fn sum(self, floats: __m128) -> f32 {
        unsafe {
            let two = _mm_add_ps(floats, upper(floats));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn largest(self, floats: __m128) -> f32 {
        unsafe {
            let two = _mm_max_ps(floats, upper(floats));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn no_sums(self) -> [__m128d; 2] {
        unsafe { [_mm_setzero_pd(); 2] }
    }

    #[inline(always)]
    fn add_to_sums(self, [low, high]: [__m128d; 2], floats: __m128) -> [__m128d; 2] {
        unsafe {
            [
                _mm_add_pd(low, _mm_cvtps_pd(floats)),
                _mm_add_pd(high, _mm_cvtps_pd(upper(floats))),
            ]
        }
    }

    #[inline(always)]
    fn total(self, [low, high]: [__m128d; 2]) -> f64 {
        unsafe {
            let two = _mm_add_pd(low, high);
            _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
        }
    }

    #[inline(always)]
    fn splat_integer(self, element: i32) -> __m128i {
        unsafe { _mm_set1_epi32(element) }
    }

    #[inline(always)]
    unsafe fn read_integers(self, from: *const i32) -> __m128i {
        unsafe { _mm_loadu_si128(from.cast()) }
    }

    #[inline(always)]
    unsafe fn write_integers(self, to: *mut i32, integers: __m128i) {
        unsafe { _mm_storeu_si128(to.cast(), integers) }
    }

    #[inline(always)]
    fn add_products(self, sums: __m128i, left: __m128i, right: __m128i) -> __m128i {
        unsafe { _mm_add_epi32(sums, _mm_madd_epi16(left, right)) }
    }

    #[inline(always)]
    unsafe fn read_bytes(self, from: *const i8) -> __m128i {
        unsafe { _mm_cvtepi8_epi16(_mm_loadl_epi64(from.cast())) }
    }

    #[inline(always)]
    fn to_left(self, right: __m128i) -> __m128i {
        right
    }

    #[inline(always)]
    fn prefetch(self, from: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn read_small(self, from: *const u8) -> __m128 {
        unsafe { _mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_loadu_si32(from))) }
    }

    #[inline(always)]
    unsafe fn read_nibbles(self, from: *const u8) -> [__m128; 2] {
        unsafe {
            let bytes = _mm_cvtepu8_epi32(_mm_loadu_si32(from));
            let low = _mm_and_si128(bytes, _mm_set1_epi32(15));
            let high = _mm_srli_epi32::<4>(bytes);
            let eight = _mm_set1_epi32(8);
            [
                _mm_cvtepi32_ps(_mm_sub_epi32(low, eight)),
                _mm_cvtepi32_ps(_mm_sub_epi32(high, eight)),
            ]
        }
    }

    #[inline(always)]
    fn to_floats(self, integers: __m128i) -> __m128 {
        unsafe { _mm_cvtepi32_ps(integers) }
    }
}

/// The upper half, twice.
#[inline(always)]
fn upper(floats: __m128) -> __m128 {
    // SAFETY: whoever has a vector has the instructions.
    unsafe { _mm_movehl_ps(floats, floats) }
}

/// Two elements from there, and the upper half of `rest`.
///
/// # Safety
/// Two elements may be read from there.
#[inline(always)]
unsafe fn lower(from: *const f32, rest: __m128) -> __m128 {
    // SAFETY: the caller's promise, for any address; whoever has a vector has the instructions.
    unsafe { _mm_castpd_ps(_mm_loadl_pd(_mm_castps_pd(rest), from.cast())) }
}

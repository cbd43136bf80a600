//! Vectors of 128 bits of 64-bit Arm.

use core::arch::aarch64::*;
use core::arch::asm;
use core::sync::atomic::{AtomicU8, Ordering};

use mielin_hal::{CpuFeature, HardwareCapabilities};

use super::{Kernel, Simd};
use crate::backend::Backend;

/// Bytes are widened to 16 bits before they are multiplied.
pub(super) const WIDENED: u8 = 0;
/// Each lane adds up the products of four bytes (FEAT_DotProd).
pub(super) const DOTS: u8 = 1;
/// Four lanes have two rows and two columns, and each adds up the products of eight bytes, too (FEAT_I8MM).
pub(super) const SQUARES: u8 = 2;

/// With one of these ways to multiply bytes.
#[derive(Clone, Copy)]
pub(super) struct Neon<const BYTES: u8>(());

impl<const BYTES: u8> Neon<BYTES> {
    /// The vectors, if this processor has them.
    pub(super) fn new() -> Option<Neon<BYTES>> {
        let has = BYTES == WIDENED || BYTES <= best_for_bytes();
        (has && super::proved(Backend::Neon)).then_some(Neon(()))
    }
}

/// The best way that the processor has. It is asked once.
fn best_for_bytes() -> u8 {
    /// One more than it; 0 before it is known.
    static KNOWN: AtomicU8 = AtomicU8::new(0);
    match KNOWN.load(Ordering::Relaxed) {
        0 => {
            let machine = HardwareCapabilities::detect();
            let best = match [CpuFeature::DotProd, CpuFeature::I8mm].map(|it| machine.has(it)) {
                [true, true] => SQUARES,
                [true, false] => DOTS,
                [false, _] => WIDENED,
            };
            KNOWN.store(best + 1, Ordering::Relaxed);
            best
        }
        known => known - 1,
    }
}

#[target_feature(enable = "neon")]
fn run<K: Kernel>(simd: Neon<WIDENED>, kernel: K) -> K::Output {
    kernel.run(simd)
}

#[target_feature(enable = "neon,dotprod")]
fn run_dots<K: Kernel>(simd: Neon<DOTS>, kernel: K) -> K::Output {
    kernel.run(simd)
}

#[target_feature(enable = "neon,dotprod,i8mm")]
fn run_squares<K: Kernel>(simd: Neon<SQUARES>, kernel: K) -> K::Output {
    kernel.run(simd)
}

/// Adds to each lane the products of its four signed bytes, as `vdotq_s32` does, which is not stable.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sums: int32x4_t, left: int32x4_t, right: int32x4_t) -> int32x4_t {
    // SAFETY: SDOT changes nothing but the register of the sums, and its feature is enabled.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {left:v}.16b, {right:v}.16b",
            sums = inout(vreg) sums,
            left = in(vreg) left,
            right = in(vreg) right,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// Adds to two rows of two sums the products of two rows of eight signed bytes with two columns of as many, as `vmmlaq_s32` does, which
/// is not stable.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut sums: int32x4_t, rows: int32x4_t, columns: int32x4_t) -> int32x4_t {
    // SAFETY: SMMLA changes nothing but the register of the sums, and its feature is enabled.
    unsafe {
        asm!(
            "smmla {sums:v}.4s, {rows:v}.16b, {columns:v}.16b",
            sums = inout(vreg) sums,
            rows = in(vreg) rows,
            columns = in(vreg) columns,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

const LANES: usize = 4;

// SAFETY (for all blocks below): there is a `Neon`, so the processor has the instructions, those for bytes too. What is read and written
// is what the caller promised.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason holds for all of them, and stands above"
)]
impl<const BYTES: u8> Simd for Neon<BYTES> {
    const LANES: usize = LANES;
    // 24 sums, 3 vectors of the right factor and an element of the left one, of 32 registers. By pairs there are 6 vectors of the
    // right factor and two halves of one of the left: then 24 sums are moved about, and 18 are not.
    const PRODUCT: [usize; 2] = if BYTES == SQUARES { [6, 3] } else { [8, 3] };
    const DOTS: [usize; 2] = [4, 4];

    const TERMS: usize = if BYTES == WIDENED { 2 } else { 4 };
    const LEFT_IS_UNSIGNED: bool = false;
    const PAIRS: bool = BYTES == SQUARES;

    type Floats = float32x4_t;
    type Integers = int32x4_t;
    type Mask = uint32x4_t;
    type Sums = [float64x2_t; 2];

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        match BYTES {
            WIDENED => unsafe { run(Neon(()), kernel) },
            DOTS => unsafe { run_dots(Neon(()), kernel) },
            _ => unsafe { run_squares(Neon(()), kernel) },
        }
    }

    #[inline(always)]
    fn splat(self, element: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(element) }
    }

    #[inline(always)]
    unsafe fn read(self, from: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(from) }
    }

    #[inline(always)]
    unsafe fn read_some(self, from: *const f32, count: usize, rest: f32) -> float32x4_t {
        let mut floats = [rest; LANES];
        unsafe {
            core::ptr::copy_nonoverlapping(from, floats.as_mut_ptr(), count);
            vld1q_f32(floats.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn write(self, to: *mut f32, floats: float32x4_t) {
        unsafe { vst1q_f32(to, floats) }
    }

    #[inline(always)]
    unsafe fn write_some(self, to: *mut f32, count: usize, floats: float32x4_t) {
        let mut all = [0.0; LANES];
        unsafe {
            vst1q_f32(all.as_mut_ptr(), floats);
            core::ptr::copy_nonoverlapping(all.as_ptr(), to, count);
        }
    }

    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vaddq_f32(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vsubq_f32(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmulq_f32(a, b) }
    }

    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vdivq_f32(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(c, a, b) }
    }

    #[inline(always)]
    fn lost(self, a: float32x4_t, b: float32x4_t, product: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(vnegq_f32(product), a, b) }
    }

    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmaxq_f32(a, b) }
    }

    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vminq_f32(a, b) }
    }

    #[inline(always)]
    fn round(self, a: float32x4_t) -> float32x4_t {
        unsafe { vrndnq_f32(a) }
    }

    #[inline(always)]
    fn sqrt(self, a: float32x4_t) -> float32x4_t {
        unsafe { vsqrtq_f32(a) }
    }

    #[inline(always)]
    fn power_of_two(self, exponents: float32x4_t) -> float32x4_t {
        unsafe {
            let biased = vaddq_s32(vcvtq_s32_f32(exponents), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
        }
    }

    #[inline(always)]
    fn less(self, a: float32x4_t, b: float32x4_t) -> uint32x4_t {
        unsafe { vcltq_f32(a, b) }
    }

    #[inline(always)]
    fn is_equal(self, a: float32x4_t, b: float32x4_t) -> uint32x4_t {
        unsafe { vceqq_f32(a, b) }
    }

    #[inline(always)]
    fn is_nan(self, a: float32x4_t) -> uint32x4_t {
        unsafe { vmvnq_u32(vceqq_f32(a, a)) }
    }

    #[inline(always)]
    fn any(self, mask: uint32x4_t) -> bool {
        unsafe { vmaxvq_u32(mask) != 0 }
    }

    #[inline(always)]
    fn select(self, mask: uint32x4_t, yes: float32x4_t, no: float32x4_t) -> float32x4_t {
        unsafe { vbslq_f32(mask, yes, no) }
    }

    #[inline(always)]
    fn sum(self, floats: float32x4_t) -> f32 {
        unsafe {
            let two = vadd_f32(vget_low_f32(floats), vget_high_f32(floats));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }

    #[inline(always)]
    fn largest(self, floats: float32x4_t) -> f32 {
        unsafe { vmaxvq_f32(floats) }
    }

    #[inline(always)]
    fn no_sums(self) -> [float64x2_t; 2] {
        unsafe { [vdupq_n_f64(0.0); 2] }
    }

    #[inline(always)]
    fn add_to_sums(self, [low, high]: [float64x2_t; 2], floats: float32x4_t) -> [float64x2_t; 2] {
        unsafe {
            [
                vaddq_f64(low, vcvt_f64_f32(vget_low_f32(floats))),
                vaddq_f64(high, vcvt_high_f64_f32(floats)),
            ]
        }
    }

    #[inline(always)]
    fn total(self, [low, high]: [float64x2_t; 2]) -> f64 {
        unsafe { vaddvq_f64(vaddq_f64(low, high)) }
    }

    #[inline(always)]
    fn splat_integer(self, element: i32) -> int32x4_t {
        unsafe { vdupq_n_s32(element) }
    }

    #[inline(always)]
    unsafe fn read_integers(self, from: *const i32) -> int32x4_t {
        unsafe { vld1q_s32(from) }
    }

    #[inline(always)]
    unsafe fn write_integers(self, to: *mut i32, integers: int32x4_t) {
        unsafe { vst1q_s32(to, integers) }
    }

    #[inline(always)]
    fn add_products(self, sums: int32x4_t, left: int32x4_t, right: int32x4_t) -> int32x4_t {
        unsafe {
            if BYTES != WIDENED {
                return sdot(sums, left, right);
            }
            let (left, right) = (vreinterpretq_s16_s32(left), vreinterpretq_s16_s32(right));
            let low = vmull_s16(vget_low_s16(left), vget_low_s16(right));
            vaddq_s32(sums, vpaddq_s32(low, vmull_high_s16(left, right)))
        }
    }

    /// The sums of the first two columns, those of the first row before those of the second, and of the other two.
    #[inline(always)]
    unsafe fn add_pairs(
        self,
        sums: [int32x4_t; 2],
        left: [*const i32; 2],
        right: [int32x4_t; 2],
    ) -> [int32x4_t; 2] {
        unsafe {
            if BYTES != SQUARES {
                return super::add_pairs_by_rows(self, sums, left, right);
            }
            let rows = vcombine_s32(vld1_s32(left[0]), vld1_s32(left[1]));
            // The words of a column come together. The compiler does this once for all rows.
            let [first, second] = right;
            [
                smmla(sums[0], rows, vzip1q_s32(first, second)),
                smmla(sums[1], rows, vzip2q_s32(first, second)),
            ]
        }
    }

    #[inline(always)]
    fn rows_of_pairs(self, sums: [int32x4_t; 2]) -> [int32x4_t; 2] {
        unsafe {
            if BYTES != SQUARES {
                return sums;
            }
            let [first, second] = sums.map(|sums| vreinterpretq_s64_s32(sums));
            [vzip1q_s64(first, second), vzip2q_s64(first, second)]
                .map(|sums| vreinterpretq_s32_s64(sums))
        }
    }

    #[inline(always)]
    unsafe fn read_bytes(self, from: *const i8) -> int32x4_t {
        unsafe {
            match BYTES {
                WIDENED => vreinterpretq_s32_s16(vmovl_s8(vld1_s8(from))),
                _ => vreinterpretq_s32_s8(vld1q_s8(from)),
            }
        }
    }

    #[inline(always)]
    fn to_left(self, right: int32x4_t) -> int32x4_t {
        right
    }

    #[inline(always)]
    unsafe fn read_small(self, from: *const u8) -> float32x4_t {
        unsafe {
            let bytes = vcreate_s8(u64::from(from.cast::<u32>().read_unaligned()));
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
        }
    }

    #[inline(always)]
    unsafe fn read_nibbles(self, from: *const u8) -> [float32x4_t; 2] {
        unsafe {
            let bytes = vcreate_u8(u64::from(from.cast::<u32>().read_unaligned()));
            let bytes = vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))));
            let (low, high) = (vandq_s32(bytes, vdupq_n_s32(15)), vshrq_n_s32::<4>(bytes));
            let eight = vdupq_n_s32(8);
            [
                vcvtq_f32_s32(vsubq_s32(low, eight)),
                vcvtq_f32_s32(vsubq_s32(high, eight)),
            ]
        }
    }

    #[inline(always)]
    fn to_floats(self, integers: int32x4_t) -> float32x4_t {
        unsafe { vcvtq_f32_s32(integers) }
    }
}

//! Vectors of 128 bits of WebAssembly. There are no products that are added in one rounding whose bits are the same everywhere.

use core::arch::wasm32::*;

use super::{Kernel, Simd};

#[derive(Clone, Copy)]
pub(super) struct Simd128;

const LANES: usize = 4;

// SAFETY (for all blocks below): what is read and written is what the caller promised.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason holds for all of them, and stands above"
)]
impl Simd for Simd128 {
    const LANES: usize = LANES;
    // 12 sums, 3 vectors of the right factor and an element of the left one, of 16 registers. Elements of the left one are what engines
    // take long for: there is one for every three sums.
    const PRODUCT: [usize; 2] = [4, 3];
    const DOTS: [usize; 2] = [2, 4];

    const TERMS: usize = 2;
    const LEFT_IS_UNSIGNED: bool = false;

    type Floats = v128;
    type Integers = v128;
    type Mask = v128;
    type Sums = [v128; 2];

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, element: f32) -> v128 {
        f32x4_splat(element)
    }

    #[inline(always)]
    unsafe fn read(self, from: *const f32) -> v128 {
        unsafe { v128_load(from.cast()) }
    }

    #[inline(always)]
    unsafe fn read_some(self, from: *const f32, count: usize, rest: f32) -> v128 {
        let rest = f32x4_splat(rest);
        // By lanes: a copy of so many bytes would be a call, around which engines keep no vector in a register.
        unsafe {
            match count {
                0 => rest,
                1 => v128_load32_lane::<0>(rest, from.cast()),
                2 => v128_load64_lane::<0>(rest, from.cast()),
                3 => {
                    let two = v128_load64_lane::<0>(rest, from.cast());
                    v128_load32_lane::<2>(two, from.add(2).cast())
                }
                _ => v128_load(from.cast()),
            }
        }
    }

    #[inline(always)]
    unsafe fn write(self, to: *mut f32, floats: v128) {
        unsafe { v128_store(to.cast(), floats) }
    }

    #[inline(always)]
    unsafe fn write_some(self, to: *mut f32, count: usize, floats: v128) {
        unsafe {
            match count {
                0 => {}
                1 => v128_store32_lane::<0>(floats, to.cast()),
                2 => v128_store64_lane::<0>(floats, to.cast()),
                3 => {
                    v128_store64_lane::<0>(floats, to.cast());
                    v128_store32_lane::<2>(floats, to.add(2).cast());
                }
                _ => v128_store(to.cast(), floats),
            }
        }
    }

    #[inline(always)]
    fn add(self, a: v128, b: v128) -> v128 {
        f32x4_add(a, b)
    }

    #[inline(always)]
    fn sub(self, a: v128, b: v128) -> v128 {
        f32x4_sub(a, b)
    }

    #[inline(always)]
    fn mul(self, a: v128, b: v128) -> v128 {
        f32x4_mul(a, b)
    }

    #[inline(always)]
    fn div(self, a: v128, b: v128) -> v128 {
        f32x4_div(a, b)
    }

    #[inline(always)]
    fn mul_add(self, a: v128, b: v128, c: v128) -> v128 {
        f32x4_add(f32x4_mul(a, b), c)
    }

    #[inline(always)]
    fn lost(self, a: v128, b: v128, product: v128) -> v128 {
        // A product of two floats is exact in twice the precision.
        let half = |a, b, product| {
            let exact = f64x2_mul(f64x2_promote_low_f32x4(a), f64x2_promote_low_f32x4(b));
            f32x4_demote_f64x2_zero(f64x2_sub(exact, f64x2_promote_low_f32x4(product)))
        };
        let low = half(a, b, product);
        let high = half(upper(a), upper(b), upper(product));
        i64x2_shuffle::<0, 2>(low, high)
    }

    #[inline(always)]
    fn max(self, a: v128, b: v128) -> v128 {
        f32x4_pmax(b, a)
    }

    #[inline(always)]
    fn min(self, a: v128, b: v128) -> v128 {
        f32x4_pmin(b, a)
    }

    #[inline(always)]
    fn round(self, a: v128) -> v128 {
        f32x4_nearest(a)
    }

    #[inline(always)]
    fn sqrt(self, a: v128) -> v128 {
        f32x4_sqrt(a)
    }

    #[inline(always)]
    fn power_of_two(self, exponents: v128) -> v128 {
        i32x4_shl(
            i32x4_add(i32x4_trunc_sat_f32x4(exponents), i32x4_splat(127)),
            23,
        )
    }

    #[inline(always)]
    fn less(self, a: v128, b: v128) -> v128 {
        f32x4_lt(a, b)
    }

    #[inline(always)]
    fn is_equal(self, a: v128, b: v128) -> v128 {
        f32x4_eq(a, b)
    }

    #[inline(always)]
    fn is_nan(self, a: v128) -> v128 {
        f32x4_ne(a, a)
    }

    #[inline(always)]
    fn any(self, mask: v128) -> bool {
        v128_any_true(mask)
    }

    #[inline(always)]
    fn select(self, mask: v128, yes: v128, no: v128) -> v128 {
        v128_bitselect(yes, no, mask)
    }

    #[inline(always)]
    fn sum(self, floats: v128) -> f32 {
        let two = f32x4_add(floats, upper(floats));
        f32x4_extract_lane::<0>(two) + f32x4_extract_lane::<1>(two)
    }

    #[inline(always)]
    fn largest(self, floats: v128) -> f32 {
        let two = f32x4_pmax(floats, upper(floats));
        f32x4_extract_lane::<0>(two).max(f32x4_extract_lane::<1>(two))
    }

    #[inline(always)]
    fn no_sums(self) -> [v128; 2] {
        [f64x2_splat(0.0); 2]
    }

    #[inline(always)]
    fn add_to_sums(self, [low, high]: [v128; 2], floats: v128) -> [v128; 2] {
        [
            f64x2_add(low, f64x2_promote_low_f32x4(floats)),
            f64x2_add(high, f64x2_promote_low_f32x4(upper(floats))),
        ]
    }

    #[inline(always)]
    fn total(self, [low, high]: [v128; 2]) -> f64 {
        let two = f64x2_add(low, high);
        f64x2_extract_lane::<0>(two) + f64x2_extract_lane::<1>(two)
    }

    #[inline(always)]
    fn splat_integer(self, element: i32) -> v128 {
        i32x4_splat(element)
    }

    #[inline(always)]
    unsafe fn read_integers(self, from: *const i32) -> v128 {
        unsafe { v128_load(from.cast()) }
    }

    #[inline(always)]
    unsafe fn write_integers(self, to: *mut i32, integers: v128) {
        unsafe { v128_store(to.cast(), integers) }
    }

    #[inline(always)]
    fn add_products(self, sums: v128, left: v128, right: v128) -> v128 {
        i32x4_add(sums, i32x4_dot_i16x8(left, right))
    }

    #[inline(always)]
    unsafe fn read_bytes(self, from: *const i8) -> v128 {
        unsafe { i16x8_load_extend_i8x8(from) }
    }

    #[inline(always)]
    fn to_left(self, right: v128) -> v128 {
        right
    }

    #[inline(always)]
    unsafe fn read_small(self, from: *const u8) -> v128 {
        let bytes = unsafe { v128_load32_zero(from.cast()) };
        f32x4_convert_i32x4(i32x4_extend_low_i16x8(i16x8_extend_low_i8x16(bytes)))
    }

    #[inline(always)]
    unsafe fn read_nibbles(self, from: *const u8) -> [v128; 2] {
        let bytes = unsafe { v128_load32_zero(from.cast()) };
        let bytes = i32x4_extend_low_u16x8(i16x8_extend_low_u8x16(bytes));
        let (low, high) = (v128_and(bytes, i32x4_splat(15)), u32x4_shr(bytes, 4));
        let eight = i32x4_splat(8);
        [
            f32x4_convert_i32x4(i32x4_sub(low, eight)),
            f32x4_convert_i32x4(i32x4_sub(high, eight)),
        ]
    }

    #[inline(always)]
    fn to_floats(self, integers: v128) -> v128 {
        f32x4_convert_i32x4(integers)
    }
}

/// The upper half, twice.
#[inline(always)]
fn upper(vector: v128) -> v128 {
    i64x2_shuffle::<1, 1>(vector, vector)
}

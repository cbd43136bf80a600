//! Plain Rust: vectors are arrays, for which the compiler may use what every processor of the target has.

use core::array;

use super::{Kernel, Simd};

#[derive(Clone, Copy)]
pub(super) struct Portable;

const LANES: usize = 4;

/// Adding and subtracting it leaves no room for digits after the point.
const ROUNDER: f32 = (3 << 22) as f32;

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    array::from_fn(f)
}

#[inline(always)]
fn test(f: impl Fn(usize) -> bool) -> [bool; LANES] {
    array::from_fn(f)
}

impl Simd for Portable {
    const LANES: usize = LANES;
    const PRODUCT: [usize; 2] = [4, 2];
    const DOTS: [usize; 2] = [2, 4];

    const TERMS: usize = 2;
    const LEFT_IS_UNSIGNED: bool = false;

    type Floats = [f32; LANES];
    type Integers = [i32; LANES];
    type Mask = [bool; LANES];
    type Sums = [f64; LANES];

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, element: f32) -> [f32; LANES] {
        [element; LANES]
    }

    #[inline(always)]
    unsafe fn read(self, from: *const f32) -> [f32; LANES] {
        // SAFETY: the caller's promise; floats may lie at any address that is a multiple of theirs.
        unsafe { from.cast::<[f32; LANES]>().read() }
    }

    #[inline(always)]
    unsafe fn read_some(self, from: *const f32, count: usize, rest: f32) -> [f32; LANES] {
        let mut floats = [rest; LANES];
        for (lane, float) in floats.iter_mut().enumerate().take(count) {
            // SAFETY: the caller's promise.
            *float = unsafe { *from.add(lane) };
        }
        floats
    }

    #[inline(always)]
    unsafe fn write(self, to: *mut f32, floats: [f32; LANES]) {
        // SAFETY: as for reading.
        unsafe { to.cast::<[f32; LANES]>().write(floats) }
    }

    #[inline(always)]
    unsafe fn write_some(self, to: *mut f32, count: usize, floats: [f32; LANES]) {
        for (lane, float) in floats.iter().enumerate().take(count) {
            // SAFETY: the caller's promise.
            unsafe { *to.add(lane) = *float };
        }
    }

    #[inline(always)]
    fn add(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        each(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn sub(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        each(|lane| a[lane] - b[lane])
    }

    #[inline(always)]
    fn mul(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        each(|lane| a[lane] * b[lane])
    }

    #[inline(always)]
    fn div(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        each(|lane| a[lane] / b[lane])
    }

    #[inline(always)]
    fn mul_add(self, a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        each(|lane| a[lane] * b[lane] + c[lane])
    }

    #[inline(always)]
    fn lost(self, a: [f32; LANES], b: [f32; LANES], product: [f32; LANES]) -> [f32; LANES] {
        // A product of two floats is exact in twice the precision.
        each(|lane| (f64::from(a[lane]) * f64::from(b[lane]) - f64::from(product[lane])) as f32)
    }

    #[inline(always)]
    fn max(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        each(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn min(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        each(|lane| if a[lane] < b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn round(self, a: [f32; LANES]) -> [f32; LANES] {
        each(|lane| (a[lane] + ROUNDER) - ROUNDER)
    }

    #[inline(always)]
    fn sqrt(self, a: [f32; LANES]) -> [f32; LANES] {
        each(|lane| libm::sqrtf(a[lane]))
    }

    #[inline(always)]
    fn power_of_two(self, exponents: [f32; LANES]) -> [f32; LANES] {
        each(|lane| f32::from_bits(((exponents[lane] as i32 + 127) as u32) << 23))
    }

    #[inline(always)]
    fn less(self, a: [f32; LANES], b: [f32; LANES]) -> [bool; LANES] {
        test(|lane| a[lane] < b[lane])
    }

    #[inline(always)]
    fn is_equal(self, a: [f32; LANES], b: [f32; LANES]) -> [bool; LANES] {
        test(|lane| a[lane] == b[lane])
    }

    #[inline(always)]
    fn is_nan(self, a: [f32; LANES]) -> [bool; LANES] {
        test(|lane| a[lane].is_nan())
    }

    #[inline(always)]
    fn any(self, mask: [bool; LANES]) -> bool {
        mask.contains(&true)
    }

    #[inline(always)]
    fn select(self, mask: [bool; LANES], yes: [f32; LANES], no: [f32; LANES]) -> [f32; LANES] {
        each(|lane| if mask[lane] { yes[lane] } else { no[lane] })
    }

    #[inline(always)]
    fn sum(self, [a, b, c, d]: [f32; LANES]) -> f32 {
        (a + c) + (b + d)
    }

    #[inline(always)]
    fn largest(self, floats: [f32; LANES]) -> f32 {
        floats.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    fn no_sums(self) -> [f64; LANES] {
        [0.0; LANES]
    }

    #[inline(always)]
    fn add_to_sums(self, sums: [f64; LANES], floats: [f32; LANES]) -> [f64; LANES] {
        array::from_fn(|lane| sums[lane] + f64::from(floats[lane]))
    }

    #[inline(always)]
    fn total(self, [a, b, c, d]: [f64; LANES]) -> f64 {
        (a + c) + (b + d)
    }

    #[inline(always)]
    fn splat_integer(self, element: i32) -> [i32; LANES] {
        [element; LANES]
    }

    #[inline(always)]
    unsafe fn read_integers(self, from: *const i32) -> [i32; LANES] {
        // SAFETY: as for floats.
        unsafe { from.cast::<[i32; LANES]>().read() }
    }

    #[inline(always)]
    unsafe fn write_integers(self, to: *mut i32, integers: [i32; LANES]) {
        // SAFETY: as for floats.
        unsafe { to.cast::<[i32; LANES]>().write(integers) }
    }

    #[inline(always)]
    fn add_products(
        self,
        sums: [i32; LANES],
        left: [i32; LANES],
        right: [i32; LANES],
    ) -> [i32; LANES] {
        array::from_fn(|lane| {
            let first = i32::from(left[lane] as i16) * i32::from(right[lane] as i16);
            let second = (left[lane] >> 16) * (right[lane] >> 16);
            sums[lane].wrapping_add(first).wrapping_add(second)
        })
    }

    #[inline(always)]
    unsafe fn read_bytes(self, from: *const i8) -> [i32; LANES] {
        // SAFETY: the caller's promise.
        let bytes = unsafe { from.cast::<[i8; 2 * LANES]>().read() };
        array::from_fn(|lane| {
            let (first, second) = (i32::from(bytes[2 * lane]), i32::from(bytes[2 * lane + 1]));
            first & 0xFFFF | second << 16
        })
    }

    #[inline(always)]
    fn to_left(self, right: [i32; LANES]) -> [i32; LANES] {
        right
    }

    #[inline(always)]
    unsafe fn read_small(self, from: *const u8) -> [f32; LANES] {
        // SAFETY: the caller's promise.
        let bytes = unsafe { from.cast::<[i8; LANES]>().read() };
        bytes.map(f32::from)
    }

    #[inline(always)]
    unsafe fn read_nibbles(self, from: *const u8) -> [[f32; LANES]; 2] {
        // SAFETY: the caller's promise.
        let bytes = unsafe { from.cast::<[u8; LANES]>().read() };
        [
            each(|lane| f32::from(bytes[lane] & 15) - 8.0),
            each(|lane| f32::from(bytes[lane] >> 4) - 8.0),
        ]
    }

    #[inline(always)]
    fn to_floats(self, integers: [i32; LANES]) -> [f32; LANES] {
        each(|lane| integers[lane] as f32)
    }
}

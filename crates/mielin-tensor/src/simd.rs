//! Vectors of 32-bit floats, as each backend has them, and kernels that are written once for all of them.
//!
//! A kernel is a value with a function [`Kernel::run`] that is generic over [`Simd`]. [`Simd::call`] compiles it inside of a
//! function for which the compiler may use the instructions of that backend; so what a kernel calls must be
//! `#[inline(always)]`, or it would be compiled without them. [`run`] calls it for the backend that is asked for.
//!
//! Whoever holds a value of a type that is [`Simd`] has a processor with its instructions: making one finds that out. That is
//! why their functions are safe to call.

#![allow(
    unsafe_code,
    reason = "instructions of a processor, which are called where it was found to have them"
)]

#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
mod avx2;
#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
mod avx512;
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
mod neon;
mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128;
#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
mod sse41;
#[cfg(test)]
pub(crate) mod tests;

use crate::backend::Backend;

/// A vector unit. That there is a value shows that the processor has it.
pub(crate) trait Simd: Copy {
    /// Elements of a vector.
    const LANES: usize;
    /// Rows and vectors of a block of a matrix product that fit the registers, with what is multiplied.
    const PRODUCT: [usize; 2];
    /// Rows and columns of a block of sums of products along both that fit the registers.
    const DOTS: [usize; 2];

    /// How many products of bytes a lane adds up in one step: 4, or 2 where they are widened first.
    const TERMS: usize;
    /// Whether bytes of the left factor are taken as if 128 were added to each.
    const LEFT_IS_UNSIGNED: bool;
    /// Whether [`add_pairs`](Self::add_pairs) is faster than [`add_products`](Self::add_products) where there are two rows.
    const PAIRS: bool = false;

    /// [`LANES`](Self::LANES) floats.
    type Floats: Copy;
    /// As many integers of 32 bits.
    type Integers: Copy;
    /// A truth value for each of as many floats.
    type Mask: Copy;
    /// As many sums in twice the precision.
    type Sums: Copy;

    /// Runs a kernel where the compiler may use the instructions of this backend.
    fn call<K: Kernel>(self, kernel: K) -> K::Output;

    /// The same element everywhere.
    fn splat(self, element: f32) -> Self::Floats;

    /// Reads a vector.
    ///
    /// # Safety
    /// [`LANES`](Self::LANES) elements may be read from there.
    unsafe fn read(self, from: *const f32) -> Self::Floats;
    /// Reads the first `count` elements of a vector, of which there are at most [`LANES`](Self::LANES); the others are `rest`.
    ///
    /// # Safety
    /// `count` elements may be read from there.
    unsafe fn read_some(self, from: *const f32, count: usize, rest: f32) -> Self::Floats;
    /// Writes a vector.
    ///
    /// # Safety
    /// [`LANES`](Self::LANES) elements may be written there.
    unsafe fn write(self, to: *mut f32, floats: Self::Floats);
    /// Writes the first `count` elements, of which there are at most [`LANES`](Self::LANES).
    ///
    /// # Safety
    /// `count` elements may be written there.
    unsafe fn write_some(self, to: *mut f32, count: usize, floats: Self::Floats);

    /// Writes a vector that is not kept in the caches where the backend can help it. [`fence`](Self::fence) orders it with what is
    /// written after.
    ///
    /// # Safety
    /// [`LANES`](Self::LANES) elements may be written there, and it is aligned like all of them together.
    #[inline(always)]
    unsafe fn write_past_caches(self, to: *mut f32, floats: Self::Floats) {
        // SAFETY: the caller's promise.
        unsafe { self.write(to, floats) }
    }
    /// Orders what was written past the caches with what is written after.
    #[inline(always)]
    fn fence(self) {}

    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn sub(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn div(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a · b + c`, rounded once, or twice where the backend has no such instruction.
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// What `product`, which is the rounded `a · b`, lacks of it, as long as neither is subnormal or too large.
    fn lost(self, a: Self::Floats, b: Self::Floats, product: Self::Floats) -> Self::Floats;
    /// The larger one of each two. It is not a number if `b` is not; if only `a` is not, it is either of them.
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The smaller one of each two. It is not a number if `b` is not; if only `a` is not, it is either of them.
    fn min(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// Rounds to whole numbers, halves to even ones; for magnitudes below 2²².
    fn round(self, a: Self::Floats) -> Self::Floats;
    fn sqrt(self, a: Self::Floats) -> Self::Floats;
    /// Two to the power of each, which are whole numbers from -126 to 127.
    fn power_of_two(self, exponents: Self::Floats) -> Self::Floats;
    /// Times two to the power of whole numbers from -252 to 254, rounded once, also where the result is subnormal.
    #[inline(always)]
    fn scale(self, x: Self::Floats, exponents: Self::Floats) -> Self::Floats {
        let half = self.round(self.mul(exponents, self.splat(0.5)));
        let rest = self.sub(exponents, half);
        self.mul(
            self.mul(x, self.power_of_two(half)),
            self.power_of_two(rest),
        )
    }
    /// a / b, within one unit in the last place, for a from 1 to 4 and b from 1 to 2¹⁰⁰.
    #[inline(always)]
    fn quotient(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        self.div(a, b)
    }

    fn less(self, a: Self::Floats, b: Self::Floats) -> Self::Mask;
    fn is_equal(self, a: Self::Floats, b: Self::Floats) -> Self::Mask;
    fn is_nan(self, a: Self::Floats) -> Self::Mask;
    fn any(self, mask: Self::Mask) -> bool;
    /// `yes` where the mask is set, else `no`.
    fn select(self, mask: Self::Mask, yes: Self::Floats, no: Self::Floats) -> Self::Floats;

    /// The sum of the elements: of the first and the second half, one by one, until one is left.
    fn sum(self, floats: Self::Floats) -> f32;
    /// The largest element. If one is not a number, any of them.
    fn largest(self, floats: Self::Floats) -> f32;

    fn no_sums(self) -> Self::Sums;
    /// Adds elements to sums of twice the precision.
    fn add_to_sums(self, sums: Self::Sums, floats: Self::Floats) -> Self::Sums;
    fn total(self, sums: Self::Sums) -> f64;

    fn splat_integer(self, element: i32) -> Self::Integers;
    /// Reads a vector.
    ///
    /// # Safety
    /// [`LANES`](Self::LANES) elements may be read from there.
    unsafe fn read_integers(self, from: *const i32) -> Self::Integers;
    /// Writes a vector.
    ///
    /// # Safety
    /// [`LANES`](Self::LANES) elements may be written there.
    unsafe fn write_integers(self, to: *mut i32, integers: Self::Integers);
    /// Adds, modulo 2³², to each sum the products of [`TERMS`](Self::TERMS) bytes of a lane on the left with as many on the right: four signed
    /// bytes, of which those on the left are unsigned with [`LEFT_IS_UNSIGNED`](Self::LEFT_IS_UNSIGNED), or two bytes that were widened to 16
    /// bits each.
    fn add_products(
        self,
        sums: Self::Integers,
        left: Self::Integers,
        right: Self::Integers,
    ) -> Self::Integers;
    /// Adds, modulo 2³², to the sums of two rows the products of two words of each with two words of each column, of which there are
    /// [`LANES`](Self::LANES). [`rows_of_pairs`](Self::rows_of_pairs) says which sum is where; first all are 0.
    ///
    /// # Safety
    /// Two words may be read from each place on the left.
    #[inline(always)]
    unsafe fn add_pairs(
        self,
        sums: [Self::Integers; 2],
        left: [*const i32; 2],
        right: [Self::Integers; 2],
    ) -> [Self::Integers; 2] {
        // SAFETY: as for this function.
        unsafe { add_pairs_by_rows(self, sums, left, right) }
    }
    /// The sums of the first row, and of the second one.
    #[inline(always)]
    fn rows_of_pairs(self, sums: [Self::Integers; 2]) -> [Self::Integers; 2] {
        sums
    }
    /// Reads [`TERMS`](Self::TERMS) bytes for each lane, as they are on the right.
    ///
    /// # Safety
    /// As many bytes may be read from there.
    unsafe fn read_bytes(self, from: *const i8) -> Self::Integers;
    /// Bytes as they are on the right, as they are on the left.
    fn to_left(self, right: Self::Integers) -> Self::Integers;
    /// Asks for the line of the cache that an address is in, which may be any.
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}
    /// The same for the second-level cache.
    #[inline(always)]
    fn prefetch_far(self, _: *const u8) {}
    /// Reads [`LANES`](Self::LANES) signed bytes, as floats.
    ///
    /// # Safety
    /// As many bytes may be read from there.
    unsafe fn read_small(self, from: *const u8) -> Self::Floats;
    /// Reads [`LANES`](Self::LANES) bytes, as floats from -8 to 7: the lower four bits of each less 8, and the upper four less 8.
    ///
    /// # Safety
    /// As many bytes may be read from there.
    unsafe fn read_nibbles(self, from: *const u8) -> [Self::Floats; 2];
    /// Rounded to the nearest float.
    fn to_floats(self, integers: Self::Integers) -> Self::Floats;

    /// Reads a vector from the beginning of a slice.
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::Floats {
        assert!(from.len() >= Self::LANES);
        // SAFETY: there are as many.
        unsafe { self.read(from.as_ptr()) }
    }

    /// Reads a vector from the beginning of a slice; what it lacks is `rest`.
    #[inline(always)]
    fn load_some(self, from: &[f32], rest: f32) -> Self::Floats {
        match from.len() >= Self::LANES {
            true => self.load(from),
            // SAFETY: there are so many.
            false => unsafe { self.read_some(from.as_ptr(), from.len(), rest) },
        }
    }

    /// Reads integers from the beginning of a slice, as floats; what it lacks is 0.
    #[inline(always)]
    fn load_integers(self, from: &[i32]) -> Self::Floats {
        if from.len() >= Self::LANES {
            // SAFETY: there are as many.
            return self.to_floats(unsafe { self.read_integers(from.as_ptr()) });
        }
        let mut padded = [0; 16];
        padded[..from.len()].copy_from_slice(from);
        const { assert!(Self::LANES <= 16) };
        // SAFETY: there are as many.
        self.to_floats(unsafe { self.read_integers(padded.as_ptr()) })
    }

    /// Reads signed bytes from the beginning of a slice, as floats.
    #[inline(always)]
    fn load_small(self, from: &[u8]) -> Self::Floats {
        assert!(from.len() >= Self::LANES);
        // SAFETY: there are as many.
        unsafe { self.read_small(from.as_ptr()) }
    }

    /// Reads bytes from the beginning of a slice: the lower four bits of each less 8, and the upper four less 8.
    #[inline(always)]
    fn load_nibbles(self, from: &[u8]) -> [Self::Floats; 2] {
        assert!(from.len() >= Self::LANES);
        // SAFETY: there are as many.
        unsafe { self.read_nibbles(from.as_ptr()) }
    }

    /// Writes a vector to the beginning of a slice.
    #[inline(always)]
    fn store(self, to: &mut [f32], floats: Self::Floats) {
        assert!(to.len() >= Self::LANES);
        // SAFETY: there are as many.
        unsafe { self.write(to.as_mut_ptr(), floats) }
    }

    /// Writes a vector to the beginning of a slice which is aligned like a vector, or panics. It is not kept in the caches where the
    /// backend can help it.
    #[inline(always)]
    fn store_past_caches(self, to: &mut [f32], floats: Self::Floats) {
        let to = &mut to[..Self::LANES];
        assert!(to.as_ptr().addr().is_multiple_of(size_of_val(to)));
        // SAFETY: there are as many, and they are aligned.
        unsafe { self.write_past_caches(to.as_mut_ptr(), floats) }
    }

    /// Writes as much of a vector as a slice has room for.
    #[inline(always)]
    fn store_some(self, to: &mut [f32], floats: Self::Floats) {
        match to.len() >= Self::LANES {
            true => self.store(to, floats),
            // SAFETY: there are so many.
            false => unsafe { self.write_some(to.as_mut_ptr(), to.len(), floats) },
        }
    }

    #[inline(always)]
    fn abs(self, a: Self::Floats) -> Self::Floats {
        self.max(a, self.sub(self.splat(0.0), a))
    }
}

/// A computation that is written once for all backends.
pub(crate) trait Kernel {
    type Output;

    /// Implementations are `#[inline(always)]`, as is what they call.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs a kernel by a backend, or by [`Backend::Scalar`] if the processor has not got that one.
pub(crate) fn run<K: Kernel>(backend: Backend, kernel: K) -> K::Output {
    match backend {
        #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
        Backend::Avx512 => match avx512::Avx512::<false>::new() {
            Some(simd) => simd.call(kernel),
            None => portable::Portable.call(kernel),
        },
        #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
        Backend::Avx2 => match avx2::Avx2::new() {
            Some(simd) => simd.call(kernel),
            None => portable::Portable.call(kernel),
        },
        #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
        Backend::Sse41 => match sse41::Sse41::new() {
            Some(simd) => simd.call(kernel),
            None => portable::Portable.call(kernel),
        },
        #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
        Backend::Neon => match neon::Neon::<{ neon::WIDENED }>::new() {
            Some(simd) => simd.call(kernel),
            None => portable::Portable.call(kernel),
        },
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        Backend::Simd128 => simd128::Simd128.call(kernel),
        _ => portable::Portable.call(kernel),
    }
}

/// As [`run`], for a kernel that multiplies bytes, by the best instructions for that which the processor has. Other kernels are not
/// compiled for each of them.
pub(crate) fn run_on_bytes<K: Kernel>(backend: Backend, kernel: K) -> K::Output {
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
    if backend == Backend::Avx512
        && let Some(simd) = avx512::Avx512::<true>::new()
    {
        return simd.call(kernel);
    }
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    if backend == Backend::Neon {
        if let Some(simd) = neon::Neon::<{ neon::SQUARES }>::new() {
            return simd.call(kernel);
        }
        if let Some(simd) = neon::Neon::<{ neon::DOTS }>::new() {
            return simd.call(kernel);
        }
    }
    run(backend, kernel)
}

/// What [`Simd::add_pairs`] does, one row after the other.
///
/// # Safety
/// As for that.
#[inline(always)]
unsafe fn add_pairs_by_rows<S: Simd>(
    simd: S,
    mut sums: [S::Integers; 2],
    left: [*const i32; 2],
    right: [S::Integers; 2],
) -> [S::Integers; 2] {
    for (sum, left) in sums.iter_mut().zip(left) {
        for (word, columns) in right.into_iter().enumerate() {
            // SAFETY: two words may be read from there.
            let row = simd.splat_integer(unsafe { *left.add(word) });
            *sum = simd.add_products(*sum, row, columns);
        }
    }
    sums
}

/// Whether the processor and its operating system have what a backend needs.
#[cfg(any(
    all(target_arch = "x86_64", target_feature = "sse2"),
    all(target_arch = "aarch64", target_feature = "neon")
))]
fn proved(backend: Backend) -> bool {
    backend == Backend::active() || backend.is_supported()
}

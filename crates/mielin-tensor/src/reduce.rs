//! Many elements to one.

use crate::backend::Backend;
use crate::elementwise::{LengthError, expect_length, or_nan};
use crate::simd::{self, Kernel, Simd};

/// Vectors that are worked on side by side, so that none waits for the one before.
const STREAMS: usize = 8;

/// The sum, in sums of twice the precision, one for each of eight vectors' elements, rounded once at the end. 0 if there are none.
#[must_use]
pub fn sum(elements: &[f32]) -> f32 {
    sum_in_double(elements) as f32
}

/// The same, not rounded.
pub(crate) fn sum_in_double(elements: &[f32]) -> f64 {
    simd::run(Backend::active(), Sum(elements))
}

/// The sum divided by how many there are; `None` if there are none.
#[must_use]
pub fn mean(elements: &[f32]) -> Option<f32> {
    if elements.is_empty() {
        return None;
    }
    Some((sum_in_double(elements) / elements.len() as f64) as f32)
}

/// `Σ a[i] · b[i]`, in sums of single precision, one for each of eight vectors' elements, which are added pairwise at the end.
///
/// # Errors
/// The slices have different lengths.
pub fn dot(a: &[f32], b: &[f32]) -> Result<f32, LengthError> {
    expect_length("the second factor", b.len(), a.len())?;
    Ok(simd::run(Backend::active(), Dot(a, b)))
}

/// The largest element, or a NaN if there is one; `None` if there are no elements.
#[must_use]
pub fn max(elements: &[f32]) -> Option<f32> {
    match elements.is_empty() {
        true => None,
        false => Some(simd::run(Backend::active(), Max(elements))),
    }
}

/// Where the first of the largest elements is, or the first NaN; `None` if there are no elements.
#[must_use]
pub fn argmax(elements: &[f32]) -> Option<usize> {
    let max = max(elements)?;
    simd::run(Backend::active(), Position(elements, max))
}

struct Sum<'a>(&'a [f32]);

impl Kernel for Sum<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        let mut sums = [simd.no_sums(); STREAMS];
        let mut blocks = self.0.chunks_exact(STREAMS * S::LANES);
        for block in &mut blocks {
            for (sums, floats) in sums.iter_mut().zip(block.chunks_exact(S::LANES)) {
                *sums = simd.add_to_sums(*sums, simd.load(floats));
            }
        }
        for (sums, floats) in sums.iter_mut().zip(blocks.remainder().chunks(S::LANES)) {
            *sums = simd.add_to_sums(*sums, simd.load_some(floats, 0.0));
        }
        let totals: [f64; STREAMS] = core::array::from_fn(|i| simd.total(sums[i]));
        totals.iter().sum()
    }
}

struct Dot<'a>(&'a [f32], &'a [f32]);

impl Kernel for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let mut sums = [simd.splat(0.0); STREAMS];
        let block = STREAMS * S::LANES;
        let (mut left, mut right) = (self.0.chunks_exact(block), self.1.chunks_exact(block));
        for (a, b) in (&mut left).zip(&mut right) {
            let vectors = a.chunks_exact(S::LANES).zip(b.chunks_exact(S::LANES));
            for (sum, (a, b)) in sums.iter_mut().zip(vectors) {
                *sum = simd.mul_add(simd.load(a), simd.load(b), *sum);
            }
        }
        let (left, right) = (left.remainder(), right.remainder());
        let vectors = left.chunks(S::LANES).zip(right.chunks(S::LANES));
        for (sum, (a, b)) in sums.iter_mut().zip(vectors) {
            *sum = simd.mul_add(simd.load_some(a, 0.0), simd.load_some(b, 0.0), *sum);
        }
        let mut width = STREAMS;
        while width > 1 {
            width /= 2;
            for i in 0..width {
                sums[i] = simd.add(sums[i], sums[i + width]);
            }
        }
        simd.sum(sums[0])
    }
}

struct Max<'a>(&'a [f32]);

impl Kernel for Max<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        largest(simd, self.0)
    }
}

/// The largest element, or a NaN; -∞ of none.
#[inline(always)]
pub(crate) fn largest<S: Simd>(simd: S, elements: &[f32]) -> f32 {
    let mut found = [simd.splat(f32::NEG_INFINITY); STREAMS];
    let mut blocks = elements.chunks_exact(STREAMS * S::LANES);
    let larger = |a, b| or_nan(simd, a, simd.max(a, b));
    for block in &mut blocks {
        for (found, floats) in found.iter_mut().zip(block.chunks_exact(S::LANES)) {
            *found = larger(*found, simd.load(floats));
        }
    }
    for (found, floats) in found.iter_mut().zip(blocks.remainder().chunks(S::LANES)) {
        *found = larger(*found, simd.load_some(floats, f32::NEG_INFINITY));
    }
    let mut all = found[0];
    for found in &found[1..] {
        all = larger(all, *found);
    }
    match simd.any(simd.is_nan(all)) {
        true => f32::NAN,
        false => simd.largest(all),
    }
}

/// Where an element is that is equal, or not a number if this is not.
struct Position<'a>(&'a [f32], f32);

impl Kernel for Position<'_> {
    type Output = Option<usize>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Option<usize> {
        let Position(elements, wanted) = self;
        let fits = |element: &f32| *element == wanted || (wanted.is_nan() && element.is_nan());
        let vector = simd.splat(wanted);
        let mut vectors = elements.chunks_exact(S::LANES);
        let first = vectors.position(|floats| {
            let floats = simd.load(floats);
            match wanted.is_nan() {
                true => simd.any(simd.is_nan(floats)),
                false => simd.any(simd.is_equal(floats, vector)),
            }
        });
        let whole = elements.len() / S::LANES;
        let from = first.unwrap_or(whole) * S::LANES;
        let offset = elements[from..].iter().position(fits)?;
        Some(from + offset)
    }
}

#[cfg(test)]
mod tests;

//! Rows brought to a common measure.

use crate::backend::Backend;
use crate::elementary::exp;
use crate::elementwise::{LengthError, expect_length};
use crate::reduce::largest;
use crate::simd::{self, Kernel, Simd};

/// Vectors that are worked on side by side.
const STREAMS: usize = 4;

/// Each row of `width` elements becomes `e^(x[i] - max) / Σ e^(x[j] - max)`.
///
/// A row with a NaN, with +∞ or of nothing but -∞ becomes NaN in all of its elements. The sum is one for each element of a vector, which are
/// added pairwise.
///
/// # Errors
/// The elements are not so many whole rows.
pub fn softmax(elements: &mut [f32], width: usize) -> Result<(), LengthError> {
    expect_rows(elements, width)?;
    simd::run(Backend::active(), Softmax { elements, width });
    Ok(())
}

/// Each row of as many elements as `gain` has becomes `(x[i] - mean) / √(variance + epsilon) · gain[i] + offset[i]` (Ba, Kiros and
/// Hinton, *Layer Normalization*, arXiv:1607.06450). The variance is that of all elements, not an estimate from a sample.
///
/// Sums are of single precision, one for each element of four vectors, which are added pairwise: of elements that are large beside their
/// differences the mean is as inexact as that makes it, and a row whose squares add up to more than 3 · 10³⁸ becomes `offset`.
///
/// # Errors
/// The elements are not so many whole rows, or `offset` is not as long as `gain`.
pub fn layer_norm(
    elements: &mut [f32],
    gain: &[f32],
    offset: &[f32],
    epsilon: f32,
) -> Result<(), LengthError> {
    expect_rows(elements, gain.len())?;
    expect_length("the offset", offset.len(), gain.len())?;
    let kernel = LayerNorm {
        elements,
        gain,
        offset,
        epsilon,
    };
    simd::run(Backend::active(), kernel);
    Ok(())
}

/// Each row of as many elements as `gain` has becomes `x[i] / √(mean of x² + epsilon) · gain[i]` (Zhang and Sennrich, *Root Mean Square
/// Layer Normalization*, arXiv:1910.07467).
///
/// # Errors
/// The elements are not so many whole rows.
pub fn rms_norm(elements: &mut [f32], gain: &[f32], epsilon: f32) -> Result<(), LengthError> {
    expect_rows(elements, gain.len())?;
    let kernel = RmsNorm {
        elements,
        gain,
        epsilon,
    };
    simd::run(Backend::active(), kernel);
    Ok(())
}

fn expect_rows(elements: &[f32], width: usize) -> Result<(), LengthError> {
    let whole = match width {
        0 => 0,
        width => elements.len() / width * width,
    };
    expect_length("the matrix", elements.len(), whole)
}

struct Softmax<'a> {
    elements: &'a mut [f32],
    width: usize,
}

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for row in self.elements.chunks_exact_mut(self.width.max(1)) {
            let max = simd.splat(largest(simd, row));
            let mut sums = simd.splat(0.0);
            for floats in row.chunks_mut(S::LANES) {
                let below = simd.sub(simd.load_some(floats, f32::NEG_INFINITY), max);
                let power = exp(simd, below);
                sums = simd.add(sums, power);
                simd.store_some(floats, power);
            }
            let share = simd.splat(1.0 / simd.sum(sums));
            for floats in row.chunks_mut(S::LANES) {
                simd.store_some(floats, simd.mul(simd.load_some(floats, 0.0), share));
            }
        }
    }
}

struct LayerNorm<'a> {
    elements: &'a mut [f32],
    gain: &'a [f32],
    offset: &'a [f32],
    epsilon: f32,
}

impl Kernel for LayerNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let width = self.gain.len();
        for row in self.elements.chunks_exact_mut(width.max(1)) {
            let mean = sum(simd, row) / width as f32;
            let variance = sum_of_squares(simd, row, mean) / width as f32;
            let scale = 1.0 / root(simd, variance + self.epsilon);
            let (mean, scale) = (simd.splat(mean), simd.splat(scale));
            let gains = self.gain.chunks(S::LANES);
            let factors = gains.zip(self.offset.chunks(S::LANES));
            for (floats, (gain, offset)) in row.chunks_mut(S::LANES).zip(factors) {
                let centred = simd.sub(simd.load_some(floats, 0.0), mean);
                let (gain, offset) = (simd.load_some(gain, 0.0), simd.load_some(offset, 0.0));
                let normal = simd.mul_add(simd.mul(centred, scale), gain, offset);
                simd.store_some(floats, normal);
            }
        }
    }
}

struct RmsNorm<'a> {
    elements: &'a mut [f32],
    gain: &'a [f32],
    epsilon: f32,
}

impl Kernel for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let width = self.gain.len();
        for row in self.elements.chunks_exact_mut(width.max(1)) {
            let mean_square = sum_of_squares(simd, row, 0.0) / width as f32;
            let scale = simd.splat(1.0 / root(simd, mean_square + self.epsilon));
            let gains = self.gain.chunks(S::LANES);
            for (floats, gain) in row.chunks_mut(S::LANES).zip(gains) {
                let scaled = simd.mul(simd.load_some(floats, 0.0), scale);
                simd.store_some(floats, simd.mul(scaled, simd.load_some(gain, 0.0)));
            }
        }
    }
}

/// In sums of single precision, one for each element of four vectors.
#[inline(always)]
fn sum<S: Simd>(simd: S, row: &[f32]) -> f32 {
    let mut sums = [simd.splat(0.0); STREAMS];
    let mut blocks = row.chunks_exact(STREAMS * S::LANES);
    for block in &mut blocks {
        for (sum, floats) in sums.iter_mut().zip(block.chunks_exact(S::LANES)) {
            *sum = simd.add(*sum, simd.load(floats));
        }
    }
    for (sum, floats) in sums.iter_mut().zip(blocks.remainder().chunks(S::LANES)) {
        *sum = simd.add(*sum, simd.load_some(floats, 0.0));
    }
    pairwise(simd, sums)
}

/// Of the differences to `centre`, as [`sum`].
#[inline(always)]
fn sum_of_squares<S: Simd>(simd: S, row: &[f32], centre: f32) -> f32 {
    let middle = simd.splat(centre);
    let mut sums = [simd.splat(0.0); STREAMS];
    let mut blocks = row.chunks_exact(STREAMS * S::LANES);
    for block in &mut blocks {
        for (sum, floats) in sums.iter_mut().zip(block.chunks_exact(S::LANES)) {
            let difference = simd.sub(simd.load(floats), middle);
            *sum = simd.mul_add(difference, difference, *sum);
        }
    }
    for (sum, floats) in sums.iter_mut().zip(blocks.remainder().chunks(S::LANES)) {
        let difference = simd.sub(simd.load_some(floats, centre), middle);
        *sum = simd.mul_add(difference, difference, *sum);
    }
    pairwise(simd, sums)
}

#[inline(always)]
fn pairwise<S: Simd>(simd: S, [a, b, c, d]: [S::Floats; STREAMS]) -> f32 {
    simd.sum(simd.add(simd.add(a, c), simd.add(b, d)))
}

#[inline(always)]
fn root<S: Simd>(simd: S, x: f32) -> f32 {
    simd.largest(simd.sqrt(simd.splat(x)))
}

#[cfg(test)]
mod tests;

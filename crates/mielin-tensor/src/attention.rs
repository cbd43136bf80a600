//! Attention: softmax(scale · Q · Kᵀ) · V, without the matrix in between.
//!
//! Keys are taken some at a time. What was summed up for a query with a smaller maximum is brought to the new one, so that the
//! weights of all keys are never held (Milakov and Gimelshein, *Online normalizer calculation for softmax*, arXiv:1805.02867; Rabe and
//! Staats, *Self-attention Does Not Need O(n²) Memory*, arXiv:2112.05682).

use alloc::vec;

use crate::backend::Backend;
use crate::elementary::exp;
use crate::matmul::{Fused, matmul_by, part};
use crate::matrix::{MatMut, MatRef, MatrixError};
use crate::parallel::{Parallel, share_rows};
use crate::reduce::largest;
use crate::simd::{self, Kernel, Simd};

/// Queries that are worked on together.
const QUERIES: usize = 64;
/// Keys that are taken at a time.
const KEYS: usize = 256;
/// Products of two elements that are worth a thread.
const PRODUCTS_MIN: usize = 1 << 20;

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mask {
    /// All of them.
    None,
    /// Query `i` sees the keys from 0 to `i + past`: those of its own and of earlier positions.
    Causal {
        /// How many keys come before the first query's.
        past: usize,
    },
}

impl Mask {
    /// How many keys query `row` sees of so many.
    fn seen(self, row: usize, keys: usize) -> usize {
        match self {
            Self::None => keys,
            Self::Causal { past } => keys.min(row.saturating_add(past).saturating_add(1)),
        }
    }
}

/// Factors of attention for one head.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    /// `[queries, width]`.
    pub queries: MatRef<'a, f32>,
    /// `[keys, width]`.
    pub keys: MatRef<'a, f32>,
    /// `[keys, value width]`.
    pub values: MatRef<'a, f32>,
    /// What products are multiplied with; `1 / √width` as a rule.
    pub scale: f32,
    /// Which keys a query sees.
    pub mask: Mask,
}

/// Row `i` of `to`, of shape `[queries, value width]`, becomes the mean of the values, weighted by the softmax of the products of
/// query `i` with their keys. A query that sees no keys gives 0. A value that is not a finite number makes NaN also of rows whose queries
/// weigh it with 0.
///
/// The memory that it takes besides is some 100 KB for each thread, and what the products of a block copy of their factors, however many keys
/// there are. The bits of a row are the same on any number of threads.
///
/// # Errors
/// [`MatrixError::Product`] if the shapes do not fit together.
pub fn attention(
    parallel: &dyn Parallel,
    factors: Attention<'_>,
    to: &mut MatMut<'_, f32>,
) -> Result<(), MatrixError> {
    attention_by(Backend::active(), parallel, factors, to)
}

fn attention_by(
    backend: Backend,
    parallel: &dyn Parallel,
    factors: Attention<'_>,
    to: &mut MatMut<'_, f32>,
) -> Result<(), MatrixError> {
    let ([queries, width], [keys, value_width]) = (factors.queries.shape(), factors.values.shape());
    let product = |left, right, product| MatrixError::Product {
        left,
        right,
        product,
    };
    if factors.keys.shape() != [keys, width] {
        let [other, depth] = factors.keys.shape();
        return Err(product([queries, width], [depth, other], [queries, keys]));
    }
    if to.shape() != [queries, value_width] {
        return Err(product([queries, keys], [keys, value_width], to.shape()));
    }
    if queries == 0 || value_width == 0 {
        return Ok(());
    }
    let products = queries
        .saturating_mul(keys)
        .saturating_mul(width.saturating_add(value_width));
    let blocks = queries.div_ceil(QUERIES);
    let parts = parallel.threads().min(blocks).min(products / PRODUCTS_MIN);
    share_rows(parallel, parts, QUERIES, to, |first, to| {
        attend(backend, factors, first, to).expect("the shapes were compared");
    });
    Ok(())
}

/// The rows from query `first` on.
fn attend(
    backend: Backend,
    factors: Attention<'_>,
    first: usize,
    to: &mut MatMut<'_, f32>,
) -> Result<(), MatrixError> {
    let [rows, value_width] = to.shape();
    let ([_, width], [keys, _]) = (factors.queries.shape(), factors.keys.shape());
    let row_stride = to.row_stride();
    let mut weights = vec![0.0; QUERIES.min(rows) * KEYS.min(keys)];
    for block in (0..rows).step_by(QUERIES) {
        let count = QUERIES.min(rows - block);
        let queries = part(factors.queries, [first + block, 0], [count, width]);
        let mut states = [State::default(); QUERIES];
        for row in block..block + count {
            let row = to.row(row);
            to.elements_mut()[row].fill(0.0);
        }
        let out = &mut to.elements_mut()[block * row_stride..];
        let seen = factors.mask.seen(first + block + count - 1, keys);
        for from in (0..seen).step_by(KEYS) {
            let taken = KEYS.min(seen - from);
            let weights = &mut weights[..count * taken];
            let taken_keys = part(factors.keys, [from, 0], [taken, width]).transposed();
            let mut products = MatMut::row_major(weights, count, taken)?;
            matmul_by(
                backend,
                queries,
                taken_keys,
                Fused::default(),
                &mut products,
            )?;
            let weigh = Weigh {
                scale: factors.scale,
                mask: factors.mask,
                first_row: first + block,
                first_key: from,
                keys: taken,
                weights,
                states: &mut states[..count],
                width: value_width,
                row_stride,
                sums: out,
            };
            simd::run(backend, weigh);
            let weights = MatRef::row_major(weights, count, taken)?;
            let values = part(factors.values, [from, 0], [taken, value_width]);
            let fused = Fused {
                accumulate: true,
                ..Fused::default()
            };
            let mut sums = MatMut::new(out, [count, value_width], row_stride)?;
            matmul_by(backend, weights, values, fused, &mut sums)?;
        }
        for (row, state) in states.iter().enumerate().take(count) {
            let row = &mut out[row * row_stride..][..value_width];
            if state.sum != 0.0 {
                simd::run(backend, Divide(row, state.sum));
            }
        }
    }
    Ok(())
}

/// What is known of a query after some keys.
#[derive(Clone, Copy)]
struct State {
    /// The largest product.
    max: f32,
    /// The sum of the weights, which are relative to that.
    sum: f32,
}

impl Default for State {
    fn default() -> State {
        State {
            max: f32::NEG_INFINITY,
            sum: 0.0,
        }
    }
}

/// Makes products of some queries with some keys to weights, and brings the sums of the keys before to the same measure.
struct Weigh<'a> {
    scale: f32,
    mask: Mask,
    first_row: usize,
    first_key: usize,
    keys: usize,
    /// Products at first, `[queries, keys]`.
    weights: &'a mut [f32],
    states: &'a mut [State],
    width: usize,
    row_stride: usize,
    sums: &'a mut [f32],
}

impl Kernel for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let rows = self.weights.chunks_exact_mut(self.keys);
        for (row, (weights, state)) in rows.zip(self.states).enumerate() {
            let seen = self
                .mask
                .seen(self.first_row + row, self.first_key + self.keys);
            let (weights, unseen) = weights.split_at_mut(seen.saturating_sub(self.first_key));
            unseen.fill(0.0);
            let scale = simd.splat(self.scale);
            for floats in weights.chunks_mut(S::LANES) {
                simd.store_some(floats, simd.mul(simd.load_some(floats, 0.0), scale));
            }
            let max = match largest(simd, weights) {
                here if here.is_nan() || state.max.is_nan() => f32::NAN,
                here => here.max(state.max),
            };
            if max == f32::NEG_INFINITY {
                // Nothing is seen yet, or only what weighs nothing.
                weights.fill(0.0);
                continue;
            }
            let middle = simd.splat(max);
            let mut sums = simd.splat(0.0);
            for floats in weights.chunks_mut(S::LANES) {
                let below = simd.sub(simd.load_some(floats, f32::NEG_INFINITY), middle);
                let power = exp(simd, below);
                sums = simd.add(sums, power);
                simd.store_some(floats, power);
            }
            let before = exp(simd, simd.splat(state.max - max));
            let sums_before = &mut self.sums[row * self.row_stride..][..self.width];
            for floats in sums_before.chunks_mut(S::LANES) {
                simd.store_some(floats, simd.mul(simd.load_some(floats, 0.0), before));
            }
            *state = State {
                max,
                sum: state.sum * simd.largest(before) + simd.sum(sums),
            };
        }
    }
}

struct Divide<'a>(&'a mut [f32], f32);

impl Kernel for Divide<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let share = simd.splat(1.0 / self.1);
        for floats in self.0.chunks_mut(S::LANES) {
            simd.store_some(floats, simd.mul(simd.load_some(floats, 0.0), share));
        }
    }
}

#[cfg(test)]
mod tests;

//! Products with weights in blocks.
//!
//! With few rows they take as long as reading the weights: so a block is made floats in registers, for all rows, and its scale is
//! multiplied with the sum of its products.

use alloc::vec;
use alloc::vec::Vec;

use super::{BLOCK, Block, BlockFormat, BlockWeights, Blocks, Q4, Q8, Unpack, widen};
use crate::backend::Backend;
use crate::matmul::{Fused, expect_product, matmul_by, part};
use crate::matrix::{MatMut, MatRef, MatrixError};
use crate::parallel::{Parallel, share_columns};
use crate::simd::{self, Kernel, Simd};

/// So many rows that are multiplied with weights as they are read stay in the second-level cache.
const READ_ROWS: usize = 48;
/// Of these rows so many are multiplied at a time, or as few as [`Simd::DOTS`] says.
const ROWS: usize = 4;
/// Rows of weights that are multiplied at a time: each vector of the left factor is read for all of them, and they lie so far
/// apart that each is read as a stream of its own.
const STREAMS: usize = 4;
/// Blocks of a row whose scales are made floats at a time.
const SCALES: usize = 16;
/// Bytes of a line of a cache.
const LINE: usize = 64;
/// How many bytes before they are multiplied weights are asked for.
const AHEAD: usize = 2_048;
/// Rows and columns of weights that are made floats at a time. A product with so many reads them where they are; the rows are a
/// multiple of the columns that each backend's product takes.
const PANEL: [usize; 2] = [96, 160];
/// Rows of the left factor that are multiplied with them.
const PANEL_FACTORS: usize = 256;
/// Products of two elements that are worth a thread.
const PRODUCTS_MIN: usize = 1 << 20;

/// `out = function(x · weightsᵀ + bias)`, or with `out + `, as [`Fused`] says: `x` is `[m, k]`, the weights are `[n, k]`, as layers store
/// them, and `out` is `[m, n]`. Nothing is rounded but sums and products of 32-bit floats.
///
/// Up to 16 rows of `x`, or 256 with AVX-512, are multiplied with weights as they are read. There the sum of a block is multiplied with its
/// scale, and must not exceed the largest float without it. For more rows, 96 × 160 weights at a time are made floats, by each thread.
/// Columns of `out` are shared out among threads; each element has the same bits on any number of them.
///
/// Takes, beyond `out`, 32 bytes for each row of it and thread, and a copy of as many rows of `x` if the elements of a row are not
/// contiguous, or 160 KiB for each thread.
///
/// # Errors
/// [`MatrixError::Product`] or [`MatrixError::Bias`] if the shapes do not fit together.
pub fn matmul_blocks(
    parallel: &dyn Parallel,
    x: MatRef<'_, f32>,
    weights: BlockWeights<'_>,
    fused: Fused<'_>,
    out: &mut MatMut<'_, f32>,
) -> Result<(), MatrixError> {
    matmul_blocks_by(Backend::active(), parallel, x, weights, fused, out)
}

pub(super) fn matmul_blocks_by(
    backend: Backend,
    parallel: &dyn Parallel,
    x: MatRef<'_, f32>,
    weights: BlockWeights<'_>,
    fused: Fused<'_>,
    out: &mut MatMut<'_, f32>,
) -> Result<(), MatrixError> {
    let ([rows, depth], [columns, width]) = (x.shape(), weights.shape());
    expect_product([rows, depth], [width, columns], out.shape(), fused)?;
    if rows == 0 || columns == 0 {
        return Ok(());
    }
    let copy;
    let x = match rows <= read_rows_max(backend) && x.strides()[1] != 1 {
        true => {
            copy = contiguous(x);
            MatRef::row_major(&copy, rows, depth).expect("all of its elements were copied")
        }
        false => x,
    };
    let products = rows.saturating_mul(depth).saturating_mul(columns);
    let parts = parallel
        .threads()
        .min(columns.div_ceil(PANEL[0]))
        .min(products / PRODUCTS_MIN);
    share_columns(parallel, parts, PANEL[0], out, |first, out| {
        match weights.format {
            BlockFormat::Q8 => multiply(backend, x, weights.blocks::<Q8>(), fused, first, out),
            BlockFormat::Q4 => multiply(backend, x, weights.blocks::<Q4>(), fused, first, out),
        }
    });
    Ok(())
}

fn contiguous(matrix: MatRef<'_, f32>) -> Vec<f32> {
    let ([rows, columns], [row_stride, stride]) = (matrix.shape(), matrix.strides());
    let places = (0..rows).flat_map(|row| (0..columns).map(move |column| [row, column]));
    let element = |[row, column]: [usize; 2]| matrix.elements()[row * row_stride + column * stride];
    places.map(element).collect()
}

/// Up to so many rows are multiplied with weights as they are read; for more of them making the weights floats first was measured to be
/// faster.
const fn read_rows_max(backend: Backend) -> usize {
    match backend {
        Backend::Avx512 => 256,
        _ => 16,
    }
}

/// The columns from `first` on of all rows of the product.
fn multiply<B: Block>(
    backend: Backend,
    x: MatRef<'_, f32>,
    weights: Blocks<'_, B>,
    fused: Fused<'_>,
    first: usize,
    out: &mut [&mut [f32]],
) {
    match out.len() <= read_rows_max(backend) {
        true => multiply_read(backend, x, weights, fused, first, out),
        false => multiply_unpacked(backend, x, weights, fused, first, out),
    }
}

/// Multiplies weights as they are read.
fn multiply_read<B: Block>(
    backend: Backend,
    x: MatRef<'_, f32>,
    weights: Blocks<'_, B>,
    fused: Fused<'_>,
    first: usize,
    out: &mut [&mut [f32]],
) {
    let (depth, row_stride) = (x.shape()[1], x.strides()[0]);
    let row = |row: usize| {
        let elements = x
            .elements()
            .get(row.wrapping_mul(row_stride)..)
            .unwrap_or_default();
        elements[..depth].as_chunks::<BLOCK>().0
    };
    let rows: Vec<_> = (0..out.len()).map(row).collect();
    for (rows, out) in rows.chunks(READ_ROWS).zip(out.chunks_mut(READ_ROWS)) {
        let read = Read {
            rows,
            weights,
            first,
            adds: fused.accumulate,
            out,
        };
        simd::run(backend, read);
    }
    for to in out {
        simd::run(backend, Finish { fused, first, to });
    }
}

/// Makes some weights floats, and multiplies these.
fn multiply_unpacked<B: Block>(
    backend: Backend,
    x: MatRef<'_, f32>,
    weights: Blocks<'_, B>,
    fused: Fused<'_>,
    first: usize,
    out: &mut [&mut [f32]],
) {
    let (depth, columns) = (x.shape()[1], out[0].len());
    let widest = PANEL[0].min(columns);
    let mut panel = vec![0.0; widest * PANEL[1].min(depth)];
    let mut sums = vec![0.0; widest * PANEL_FACTORS.min(out.len())];
    for (number, out) in out.chunks_mut(PANEL_FACTORS).enumerate() {
        for column in (0..columns).step_by(PANEL[0]) {
            let taken = PANEL[0].min(columns - column);
            let sums = &mut sums[..out.len() * taken];
            sums.fill(0.0);
            for term in (0..depth).step_by(PANEL[1]) {
                let terms = PANEL[1].min(depth - term);
                let panel = &mut panel[..terms * taken];
                for row in 0..taken {
                    let blocks = &weights.row(first + column + row)[term / BLOCK..];
                    let mut elements = [0.0; PANEL[1]];
                    let unpack = Unpack {
                        blocks: &blocks[..terms / BLOCK],
                        to: &mut elements,
                    };
                    simd::run(backend, unpack);
                    let places = panel[row..].iter_mut().step_by(taken);
                    for (place, element) in places.zip(elements) {
                        *place = element;
                    }
                }
                let left = part(x, [number * PANEL_FACTORS, term], [out.len(), terms]);
                let accumulate = Fused {
                    accumulate: term > 0,
                    ..Fused::default()
                };
                let right = MatRef::row_major(panel, terms, taken);
                let multiplied = MatMut::row_major(sums, out.len(), taken)
                    .and_then(|mut sums| matmul_by(backend, left, right?, accumulate, &mut sums));
                multiplied.expect("there is room for the weights and the sums");
            }
            for (to, sums) in out.iter_mut().zip(sums.chunks_exact(taken)) {
                let to = &mut to[column..column + taken];
                for (to, sum) in to.iter_mut().zip(sums) {
                    *to = if fused.accumulate { *to + sum } else { *sum };
                }
                let first = first + column;
                simd::run(backend, Finish { fused, first, to });
            }
        }
    }
}

/// What remains to be done when the sums are in their place.
struct Finish<'a> {
    fused: Fused<'a>,
    /// The column of the first one.
    first: usize,
    to: &'a mut [f32],
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let fused = Fused {
            accumulate: false,
            ..self.fused
        };
        for (at, to) in self.to.chunks_mut(S::LANES).enumerate() {
            let sum = simd.load_some(to, 0.0);
            let sum = fused.of(simd, sum, self.first + at * S::LANES, to);
            simd.store_some(to, sum);
        }
    }
}

/// Rows of floats times rows of weights.
struct Read<'a, 'b, B> {
    rows: &'a [&'a [[f32; BLOCK]]],
    weights: Blocks<'a, B>,
    /// The row of weights that is the first column of the product.
    first: usize,
    /// Whether the product is added to what is there.
    adds: bool,
    out: &'a mut [&'b mut [f32]],
}

impl<B: Block> Kernel for Read<'_, '_, B> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let columns = self.out[0].len();
        let apart = columns.div_ceil(STREAMS);
        for offset in 0..apart {
            let mut places = [0; STREAMS];
            let mut weights = [self.weights.row(self.first); STREAMS];
            for (stream, (place, weights)) in places.iter_mut().zip(&mut weights).enumerate() {
                // Where there are no more, the last one is computed again.
                *place = (stream * apart + offset).min(columns - 1);
                *weights = self.weights.row(self.first + *place);
            }
            let rows = self.rows.chunks(S::DOTS[0]);
            for (rows, out) in rows.zip(self.out.chunks_mut(S::DOTS[0])) {
                let sums = simd.call(Dots { rows, weights });
                for (to, sums) in out.iter_mut().zip(sums) {
                    for (stream, sum) in sums.into_iter().enumerate() {
                        let place = places[stream];
                        let is_new = place == stream * apart + offset;
                        if is_new && self.adds {
                            to[place] += sum;
                        } else if is_new {
                            to[place] = sum;
                        }
                    }
                }
            }
        }
    }
}

/// Some rows of floats times some rows of weights, as many blocks in each.
struct Dots<'a, B> {
    /// At most as many as [`Simd::DOTS`] says, and not none.
    rows: &'a [&'a [[f32; BLOCK]]],
    weights: [&'a [B]; STREAMS],
}

impl<B: Block> Kernel for Dots<'_, B> {
    type Output = [[f32; STREAMS]; ROWS];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        const { assert!(S::DOTS[0] <= ROWS) };
        match *self.rows {
            [a] => dots(simd, [a], self.weights),
            [a, b] => dots(simd, [a, b], self.weights),
            [a, b, c] if S::DOTS[0] >= 3 => dots(simd, [a, b, c], self.weights),
            [a, b, c, d] if S::DOTS[0] >= 4 => dots(simd, [a, b, c, d], self.weights),
            _ => unreachable!("there are no more rows"),
        }
    }
}

#[inline(always)]
fn dots<S: Simd, B: Block, const R: usize>(
    simd: S,
    rows: [&[[f32; BLOCK]]; R],
    weights: [&[B]; STREAMS],
) -> [[f32; STREAMS]; ROWS] {
    let count = rows[0].len();
    assert!(rows.iter().all(|row| row.len() == count));
    assert!(weights.iter().all(|weights| weights.len() == count));
    let mut sums = [[simd.splat(0.0); STREAMS]; R];
    let whole = count / SCALES * SCALES;
    for first in (0..whole).step_by(SCALES) {
        let mut scales = [[0.0; SCALES]; STREAMS];
        for (scales, weights) in scales.iter_mut().zip(&weights) {
            let blocks = &weights[first..first + SCALES];
            for line in (0..size_of_val(blocks)).step_by(LINE) {
                // The next rows of a stream lie behind this one.
                simd.prefetch(blocks.as_ptr().cast::<u8>().wrapping_add(AHEAD + line));
            }
            *scales = scales_of(blocks.try_into().expect("there are as many"));
        }
        for at in 0..SCALES {
            for (stream, weights) in weights.iter().enumerate() {
                let (block, scale) = (&weights[first + at], scales[stream][at]);
                add_block(simd, &mut sums, stream, block, scale, &rows, first + at);
            }
        }
    }
    for at in whole..count {
        for (stream, weights) in weights.iter().enumerate() {
            let scale = widen(weights[at].scale());
            add_block(simd, &mut sums, stream, &weights[at], scale, &rows, at);
        }
    }
    let mut totals = [[0.0; STREAMS]; ROWS];
    for (totals, sums) in totals.iter_mut().zip(&sums) {
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total = simd.sum(*sum);
        }
    }
    totals
}

/// Adds the products of a block to the sums of its row of weights.
#[inline(always)]
fn add_block<S: Simd, B: Block, const R: usize>(
    simd: S,
    sums: &mut [[S::Floats; STREAMS]; R],
    stream: usize,
    block: &B,
    scale: f32,
    rows: &[&[[f32; BLOCK]]; R],
    at: usize,
) {
    let mut products = [simd.splat(0.0); R];
    for place in (0..BLOCK / 2).step_by(S::LANES) {
        let [low, high] = block.pair(simd, place);
        for (product, row) in products.iter_mut().zip(rows) {
            *product = simd.mul_add(low, simd.load(&row[at][place..]), *product);
            let upper = &row[at][BLOCK / 2 + place..];
            *product = simd.mul_add(high, simd.load(upper), *product);
        }
    }
    let scale = simd.splat(scale);
    for (sums, product) in sums.iter_mut().zip(products) {
        sums[stream] = simd.mul_add(scale, product, sums[stream]);
    }
}

/// The scales of some blocks. Four of them are put together as an integer, which has them all read before the first is made a float: a third
/// faster with AVX-512 than one by one.
#[inline(always)]
fn scales_of<B: Block>(blocks: &[B; SCALES]) -> [f32; SCALES] {
    let mut bits = [0_u16; SCALES];
    let fours = bits.as_chunks_mut::<4>().0;
    for (bits, [a, b, c, d]) in fours.iter_mut().zip(blocks.as_chunks::<4>().0) {
        let [a, b, c, d] = [a, b, c, d].map(|block| u64::from(block.scale()));
        let four = a | b << 16 | c << 32 | d << 48;
        for (place, bits) in bits.iter_mut().enumerate() {
            *bits = (four >> (16 * place)) as u16;
        }
    }
    let mut scales = [0.0; SCALES];
    for (scale, bits) in scales.iter_mut().zip(bits) {
        *scale = widen(bits);
    }
    scales
}

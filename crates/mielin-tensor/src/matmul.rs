//! Matrix × matrix.
//!
//! A kernel computes a block of the product in registers: some rows of the left factor, element by element, times a few
//! vectors of the right one. Around it the loops of Goto and van de Geijn (*Anatomy of High-Performance Matrix
//! Multiplication*, ACM TOMS 34, 2008) keep what is used again in the caches: a block of the right factor, brought into
//! the order in which the kernel reads it when it is first multiplied, and a block of the left one, which is read where it is unless its
//! rows are pages apart.
//!
//! The order in which the terms of an element are added depends on shapes, layouts and the backend, and on nothing else: so results of
//! one backend are the same from run to run, on any number of threads, and those of different ones differ in the last bits. It
//! is that of ascending indices, with a sum of its own for each [`DEPTH`], [`STREAMS`] or [`TERMS`] of them; where few rows are multiplied with
//! contiguous columns, there are as many sums as a vector has elements, which are added in the end. AVX-512, AVX2 and Neon
//! multiply and add with one rounding, the other backends with two.

#![allow(
    unsafe_code,
    reason = "kernels read and write through pointers; the bounds are checked once, here"
)]

mod blocks;
mod bytes;
mod scratch;
mod shared;
#[cfg(test)]
mod tests;

pub use bytes::matmul_i8;
pub(crate) use bytes::matmul_i8_by;
pub use shared::matmul_with;

use core::ops::Range;

use blocks::{Combination, DotTile, Dots, Finish, Product, Tile};

use crate::backend::Backend;
use crate::elementwise::Unary;
use crate::matrix::{MatMut, MatRef, MatrixError};
use crate::simd::{self, Kernel, Simd};

/// Rows of the right factor in a block: with a kernel's columns, and a block of the left factor, they stay in the second-level cache. With more
/// of them sums in memory are visited less often.
const DEPTH: usize = 512;
/// Rows of the left factor in a block, which stays in the second-level cache.
const BLOCK_ROWS: usize = 256;
/// Columns of the right factor in a block, which stays in the last-level cache.
const BLOCK_COLUMNS: usize = 3_072;
/// From a row to the next in a copied block of the left factor: not a power of two, so that rows are in different lines of
/// a cache.
const LEFT_STRIDE: usize = DEPTH + 16;
/// A factor of so many elements is read where it is: it is in the caches anyway.
const DIRECT_ELEMENTS: usize = 128 * 128;
/// Rows of a large right factor that are read at a time when it is read only once: as many streams as a processor reads
/// ahead of.
const STREAMS: usize = 16;
/// The same where the product has so few rows that they are computed one after the other.
const TERMS: usize = 8;
const COMBINED_ROWS: usize = 2;
/// A block of the left factor is copied if that many columns are multiplied with it, and each of its rows, or columns, is in
/// another page.
const COPY_COLUMNS: usize = 256;
/// Elements of a page of 4 KiB.
const PAGE: usize = 1024;

/// What is done with each element of a product while it is at hand. The default is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fused<'a> {
    /// Whether the product is added to what is there, which is lost otherwise.
    pub accumulate: bool,
    /// What is added to each column: one element for each.
    pub bias: Option<&'a [f32]>,
    /// What is applied to the sum of these.
    pub function: Option<Unary>,
}

impl Fused<'_> {
    fn is_more_than_sums(&self) -> bool {
        self.bias.is_some() || self.function.is_some()
    }

    /// What takes the place of the first elements of `to`, from column `column` on, when their sums are complete. Those beyond its
    /// end mean nothing.
    #[inline(always)]
    pub(crate) fn of<S: Simd>(
        &self,
        simd: S,
        mut sum: S::Floats,
        column: usize,
        to: &[f32],
    ) -> S::Floats {
        if self.accumulate {
            sum = simd.add(simd.load_some(to, 0.0), sum);
        }
        if let Some(bias) = self.bias {
            sum = simd.add(sum, simd.load_some(&bias[column..], 0.0));
        }
        match self.function {
            Some(function) => function.of(simd, sum),
            None => sum,
        }
    }
}

/// `c = a · b`.
///
/// With the feature `std` each thread that multiplies keeps what it copied blocks of the factors to, at most 7 MB; without it, that is
/// allocated for each product.
///
/// # Errors
/// [`MatrixError::Product`] if the shapes do not fit together.
pub fn matmul(
    a: MatRef<'_, f32>,
    b: MatRef<'_, f32>,
    c: &mut MatMut<'_, f32>,
) -> Result<(), MatrixError> {
    matmul_by(Backend::active(), a, b, Fused::default(), c)
}

pub(crate) fn matmul_by(
    backend: Backend,
    a: MatRef<'_, f32>,
    b: MatRef<'_, f32>,
    fused: Fused<'_>,
    c: &mut MatMut<'_, f32>,
) -> Result<(), MatrixError> {
    expect_product(a.shape(), b.shape(), c.shape(), fused)?;
    let ([rows, depth], [_, columns]) = (a.shape(), b.shape());
    if rows == 0 || columns == 0 {
        return Ok(());
    }
    if depth == 0 && !fused.accumulate {
        for row in 0..rows {
            let row = c.row(row);
            c.elements_mut()[row].fill(0.0);
        }
    }
    simd::run(backend, Multiply { a, b, fused, c });
    Ok(())
}

/// # Errors
/// [`MatrixError::Product`], [`MatrixError::Bias`].
pub(crate) fn expect_product(
    left: [usize; 2],
    right: [usize; 2],
    product: [usize; 2],
    fused: Fused<'_>,
) -> Result<(), MatrixError> {
    if left[1] != right[0] || product != [left[0], right[1]] {
        return Err(MatrixError::Product {
            left,
            right,
            product,
        });
    }
    match fused.bias {
        Some(bias) if bias.len() != right[1] => Err(MatrixError::Bias {
            given: bias.len(),
            columns: right[1],
        }),
        _ => Ok(()),
    }
}

struct Multiply<'a, 'b, 'c> {
    a: MatRef<'a, f32>,
    b: MatRef<'b, f32>,
    fused: Fused<'a>,
    c: &'a mut MatMut<'c, f32>,
}

impl Kernel for Multiply<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let ([rows, depth], [_, columns]) = (self.a.shape(), self.b.shape());
        let few = rows <= 2 * S::PRODUCT[0];
        let ([_, a_column], [b_row, b_column]) = (self.a.strides(), self.b.strides());
        if depth == 0 {
            finish(simd, self.fused, [0, 0], [rows, columns], self.c);
        } else if few && b_row == 1 && b_column != 1 && a_column == 1 {
            multiply_columns(simd, self);
        } else if b_column == 1 && (few || !is_large(depth, columns)) {
            multiply_in_place(simd, self);
        } else {
            multiply_packed(simd, self);
        }
    }
}

/// Reads the right factor as it lies: it is in the caches, or is read once.
fn multiply_in_place<S: Simd>(simd: S, product: Multiply<'_, '_, '_>) {
    let Multiply { a, b, fused, c } = product;
    let ([rows, depth], [_, columns]) = (a.shape(), b.shape());
    let right_is_large = is_large(depth, columns);
    let combines = right_is_large && rows <= COMBINED_ROWS;
    let terms_max = match right_is_large {
        true if combines => TERMS,
        true => STREAMS,
        false => depth,
    };
    for first_term in (0..depth).step_by(terms_max) {
        let terms = terms_max.min(depth - first_term);
        let right = At::of(part(b, [first_term, 0], [terms, columns]));
        let block = Block {
            first_row: 0,
            rows,
            terms,
            first_column: 0,
            columns,
            adds: fused.accumulate || first_term > 0,
            is_last: first_term + terms == depth,
        };
        let left = At::of(part(a, [0, first_term], [rows, terms]));
        // SAFETY: `left`, `right` and `c` hold all of the elements of their shapes, as they were made, and the shapes fit
        // together.
        unsafe {
            match combines {
                true => combine_block(simd, left, right, fused, c, block),
                false => multiply_block(simd, left, Right::InPlace(right), fused, c, block),
            }
        }
    }
}

/// Copies blocks of the right factor into panels, and of the left one if it is used often enough.
fn multiply_packed<S: Simd>(simd: S, product: Multiply<'_, '_, '_>) {
    let Multiply { a, b, fused, c } = product;
    let ([rows, depth], [_, columns]) = (a.shape(), b.shape());
    let width = BLOCK_COLUMNS.min(columns.next_multiple_of(S::LANES));
    let copies = columns >= COPY_COLUMNS && a.strides().iter().any(|&stride| stride >= PAGE);
    let copies_at_work = b.strides()[1] == 1 && rows >= S::PRODUCT[0];
    let left_elements = if copies { BLOCK_ROWS * LEFT_STRIDE } else { 0 };
    scratch::with(
        left_elements + DEPTH.min(depth) * width,
        |scratch: &mut [f32]| {
            let (copied, packed) = scratch.split_at_mut(left_elements);
            for first_column in (0..columns).step_by(BLOCK_COLUMNS) {
                let taken = BLOCK_COLUMNS.min(columns - first_column);
                for first_term in (0..depth).step_by(DEPTH) {
                    let terms = DEPTH.min(depth - first_term);
                    let right = part(b, [first_term, first_column], [terms, taken]);
                    let mut right = match copies_at_work {
                        true => Right::ToCopy(At::of(right), packed.as_mut_ptr()),
                        false => simd.call(Pack {
                            matrix: right,
                            packed,
                        }),
                    };
                    for first_row in (0..rows).step_by(BLOCK_ROWS) {
                        let block = Block {
                            first_row,
                            rows: BLOCK_ROWS.min(rows - first_row),
                            terms,
                            first_column,
                            columns: taken,
                            adds: fused.accumulate || first_term > 0,
                            is_last: first_term + terms == depth,
                        };
                        let left = part(a, [first_row, first_term], [block.rows, terms]);
                        let left = match copies {
                            true => copy(left, copied),
                            false => At::of(left),
                        };
                        // SAFETY: the block is a part of the product, `left` and `right` have all of its terms. `packed` is as
                        // wide as the vectors of the block; the first block has all rows or `BLOCK_ROWS`, of which
                        // there are enough if it is to be copied.
                        unsafe { multiply_block(simd, left, right, fused, c, block) };
                        right = right.once_used();
                    }
                }
            }
        },
    );
}

/// Does what remains to be done with some rows and columns of the product.
fn finish<S: Simd>(
    simd: S,
    fused: Fused<'_>,
    [row, column]: [usize; 2],
    [rows, columns]: [usize; 2],
    c: &mut MatMut<'_, f32>,
) {
    if fused.is_more_than_sums() {
        let row_stride = c.row_stride();
        simd.call(Finish {
            fused,
            column,
            rows,
            columns,
            row_stride,
            elements: &mut c.elements_mut()[row * row_stride + column..],
        });
    }
}

/// Whether a factor is not in the caches anyway. It can have any number of rows or columns that are the same elements again.
const fn is_large(rows: usize, columns: usize) -> bool {
    rows.saturating_mul(columns) > DIRECT_ELEMENTS
}

/// A few rows times columns that are contiguous: each sum of products is computed along both.
fn multiply_columns<S: Simd>(simd: S, product: Multiply<'_, '_, '_>) {
    let Multiply { a, b, fused, c } = product;
    let ([rows, depth], [_, columns]) = (a.shape(), b.shape());
    let ([a_row, _], [_, b_column]) = (a.strides(), b.strides());
    let c_row = c.row_stride();
    let (left, right) = (a.elements().as_ptr(), b.elements().as_ptr());
    let product = c.elements_mut().as_mut_ptr();
    for column in (0..columns).step_by(S::DOTS[1]) {
        for row in (0..rows).step_by(S::DOTS[0]) {
            // SAFETY: row and column are inside of what `a`, `b` and `c` hold, as they were made, and their shapes fit
            // together. `c` is borrowed for writing.
            unsafe {
                simd.call(Dots::new(DotTile {
                    rows: S::DOTS[0].min(rows - row),
                    columns: S::DOTS[1].min(columns - column),
                    depth,
                    a: left.add(row * a_row),
                    a_row,
                    b: right.add(column * b_column),
                    b_column,
                    c: product.add(row * c_row + column),
                    c_row,
                    adds: fused.accumulate,
                }));
            }
        }
    }
    finish(simd, fused, [0, 0], [rows, columns], c);
}

/// Some rows and columns of a matrix that has these.
pub(crate) fn part<T>(
    matrix: MatRef<'_, T>,
    first: [usize; 2],
    shape: [usize; 2],
) -> MatRef<'_, T> {
    let strides = matrix.strides();
    let (row, column) = (
        first[0].wrapping_mul(strides[0]),
        first[1].wrapping_mul(strides[1]),
    );
    let from = row.wrapping_add(column);
    // Without elements it may begin behind the last one, or its strides mean nothing.
    let elements = matrix.elements().get(from..).unwrap_or_default();
    MatRef::new(elements, shape, strides).expect("it is inside of the matrix")
}

/// A part of the product, and the terms of its sums that are computed.
#[derive(Clone, Copy)]
struct Block {
    first_row: usize,
    rows: usize,
    terms: usize,
    first_column: usize,
    columns: usize,
    /// Whether there are sums already, to which these are added.
    adds: bool,
    /// Whether the sums are complete with these.
    is_last: bool,
}

/// Where a block of a factor lies.
#[derive(Clone, Copy)]
struct At {
    elements: *const f32,
    /// From a row to the next.
    row: usize,
    /// From a column to the next.
    column: usize,
}

impl At {
    fn of(matrix: MatRef<'_, f32>) -> At {
        let [row, column] = matrix.strides();
        At {
            elements: matrix.elements().as_ptr(),
            row,
            column,
        }
    }
}

/// A block of the right factor, the elements of whose rows are neighbours.
#[derive(Clone, Copy)]
enum Right {
    InPlace(At),
    /// Each panel is copied, to where it would be in [`panels`], when it is first used.
    ToCopy(At, *mut f32),
    /// In [`panels`], one after the other.
    Packed(*const f32),
}

impl Right {
    fn once_used(self) -> Right {
        match self {
            Right::ToCopy(_, packed) => Right::Packed(packed),
            other => other,
        }
    }

    /// Where a panel begins, of so many terms, how far it is there from a term to the next, and where it is to be copied.
    fn panel<S: Simd>(
        self,
        panel: &Range<usize>,
        terms: usize,
    ) -> (*const f32, usize, Option<*mut f32>) {
        let place = panel.start * terms;
        match self {
            Right::InPlace(at) => (at.elements.wrapping_add(panel.start), at.row, None),
            Right::ToCopy(at, packed) => (
                at.elements.wrapping_add(panel.start),
                at.row,
                Some(packed.wrapping_add(place)),
            ),
            Right::Packed(packed) => (packed.wrapping_add(place), width::<S>(panel), None),
        }
    }
}

/// Elements of a row of a panel where it was copied: whole vectors.
fn width<S: Simd>(panel: &Range<usize>) -> usize {
    panel.len().next_multiple_of(S::LANES)
}

/// The columns of the panels of a block: as many as are multiplied at a time. Where a single vector would be left for the last
/// one, which is too little to keep the multipliers busy, the last two share theirs.
fn panels<S: Simd>(columns: usize) -> impl Iterator<Item = Range<usize>> {
    let most = S::PRODUCT[1];
    let mut from = 0;
    core::iter::from_fn(move || {
        let vectors = match (columns - from).div_ceil(S::LANES) {
            0 => return None,
            left if left == most + 1 => left.div_ceil(2),
            _ => most,
        };
        let panel = from..columns.min(from + vectors * S::LANES);
        from = panel.end;
        Some(panel)
    })
}

/// # Safety
/// The block is a part of `c`; `left` has its rows and terms, `right` its terms and columns. What is to be copied has room for all of
/// its [`panels`], in whole vectors, and the block as many rows as [`Simd::PRODUCT`] says.
unsafe fn multiply_block<S: Simd>(
    simd: S,
    left: At,
    right: Right,
    fused: Fused<'_>,
    c: &mut MatMut<'_, f32>,
    block: Block,
) {
    let c_row = c.row_stride();
    let mut panels = panels::<S>(block.columns).peekable();
    while let Some(panel) = panels.next() {
        let (b, b_step, copy) = right.panel::<S>(&panel, block.terms);
        let next = panels.peek().map(|next| {
            let (b, b_step, _) = right.panel::<S>(next, block.terms);
            (b, b_step)
        });
        let (i, j) = (block.first_row, block.first_column + panel.start);
        // SAFETY: the row, the term and the column are inside of the block, and so inside of what the pointers belong to.
        // `c` is borrowed for writing.
        unsafe {
            simd.call(Product::new(Tile {
                rows: block.rows,
                columns: panel.len(),
                depth: block.terms,
                a: left.elements,
                a_row: left.row,
                a_step: left.column,
                b,
                b_step,
                copy,
                next,
                c: c.elements_mut().as_mut_ptr().add(i * c_row + j),
                c_row,
                adds: block.adds,
                last: (block.is_last && fused.is_more_than_sums()).then_some((fused, j)),
            }));
        }
    }
}

/// The same row by row, of at most [`TERMS`] terms, where the right factor is not in panels and the block has all columns.
///
/// # Safety
/// As for [`multiply_block`].
unsafe fn combine_block<S: Simd>(
    simd: S,
    left: At,
    right: At,
    fused: Fused<'_>,
    c: &mut MatMut<'_, f32>,
    block: Block,
) {
    let c_row = c.row_stride();
    for row in 0..block.rows {
        // SAFETY: the row is inside of the block. `c` is borrowed for writing.
        unsafe {
            simd.call(Combination::new(Tile {
                rows: 1,
                columns: block.columns,
                depth: block.terms,
                a: left.elements.add(row * left.row),
                a_row: left.row,
                a_step: left.column,
                b: right.elements,
                b_step: right.row,
                copy: None,
                next: None,
                c: c.elements_mut().as_mut_ptr().add(row * c_row),
                c_row,
                adds: block.adds,
                last: None,
            }));
        }
        if block.is_last {
            finish(simd, fused, [row, 0], [1, block.columns], c);
        }
    }
}

/// Copies a block of the left factor, so that its rows lie close together: in a large matrix each is in a page of its own, and
/// all may want the same few lines of a cache.
fn copy(a: MatRef<'_, f32>, copied: &mut [f32]) -> At {
    let ([rows, terms], [row_stride, column_stride]) = (a.shape(), a.strides());
    if row_stride == 1 && column_stride != 1 {
        for (term, out) in copied.chunks_exact_mut(BLOCK_ROWS).enumerate().take(terms) {
            let from = term * column_stride;
            out[..rows].copy_from_slice(&a.elements()[from..from + rows]);
        }
        return At {
            elements: copied.as_ptr(),
            row: 1,
            column: BLOCK_ROWS,
        };
    }
    for (row, out) in copied.chunks_exact_mut(LEFT_STRIDE).enumerate().take(rows) {
        let from = &a.elements()[row * row_stride..];
        if column_stride == 1 {
            out[..terms].copy_from_slice(&from[..terms]);
        } else {
            for (term, out) in out.iter_mut().enumerate().take(terms) {
                *out = from[term * column_stride];
            }
        }
    }
    At {
        elements: copied.as_ptr(),
        row: LEFT_STRIDE,
        column: 1,
    }
}

/// Copies a block of the right factor into panels, in which the elements of a row lie together.
struct Pack<'a> {
    matrix: MatRef<'a, f32>,
    packed: &'a mut [f32],
}

impl Kernel for Pack<'_> {
    type Output = Right;

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) -> Right {
        let Pack { matrix, packed } = self;
        let ([terms, columns], [row_stride, column_stride]) = (matrix.shape(), matrix.strides());
        let elements = matrix.elements();
        for panel in panels::<S>(columns) {
            let width = width::<S>(&panel);
            let out = &mut packed[panel.start * terms..][..width * terms];
            let from = &elements[panel.start * column_stride..];
            if column_stride == 1 {
                for (row, out) in out.chunks_exact_mut(width).enumerate() {
                    let from = &from[row * row_stride..][..panel.len()];
                    out[..panel.len()].copy_from_slice(from);
                }
            } else if row_stride == 1 {
                transpose(from, column_stride, [panel.len(), terms], out, width);
            } else {
                for (row, out) in out.chunks_exact_mut(width).enumerate() {
                    for (offset, out) in out.iter_mut().enumerate().take(panel.len()) {
                        *out = from[row * row_stride + offset * column_stride];
                    }
                }
            }
        }
        Right::Packed(packed.as_ptr())
    }
}

/// Copies lines of `count` elements, which begin `stride` elements apart, into columns of rows that begin `width` elements apart.
#[inline(always)]
fn transpose<T: Copy + Default>(
    from: &[T],
    stride: usize,
    [lines, count]: [usize; 2],
    to: &mut [T],
    width: usize,
) {
    /// Elements of a line, and lines, that are turned at a time.
    const BLOCK: usize = 8;
    let (whole_lines, whole) = (lines / BLOCK * BLOCK, count / BLOCK * BLOCK);
    for line in (0..whole_lines).step_by(BLOCK) {
        for at in (0..whole).step_by(BLOCK) {
            let mut block = [[T::default(); BLOCK]; BLOCK];
            for (offset, block) in block.iter_mut().enumerate() {
                block.copy_from_slice(&from[(line + offset) * stride + at..][..BLOCK]);
            }
            for offset in 0..BLOCK {
                let mut row = [T::default(); BLOCK];
                for (element, block) in row.iter_mut().zip(&block) {
                    *element = block[offset];
                }
                to[(at + offset) * width + line..][..BLOCK].copy_from_slice(&row);
            }
        }
    }
    let mut one_by_one = |lines: Range<usize>, at: Range<usize>| {
        for line in lines {
            for at in at.clone() {
                to[at * width + line] = from[line * stride + at];
            }
        }
    };
    one_by_one(whole_lines..lines, 0..count);
    one_by_one(0..whole_lines, whole..count);
}

//! Products of matrices of signed bytes, in integers of 32 bits: they are exact, and the same by every backend.
//!
//! Some bytes that are next to each other in depth, as many as a lane multiplies in one step, are a word of 32 bits, and words
//! take the places that floats have in the product of floats. Where a processor multiplies unsigned bytes with signed ones, 128 is
//! added to each byte of the left factor, and 128 times the sum of a column taken from the column of the product.

use super::{BLOCK_COLUMNS, BLOCK_ROWS, DEPTH, Fused, LEFT_STRIDE, expect_product, part, scratch};
use crate::backend::Backend;
use crate::matrix::{MatMut, MatRef, MatrixError};
use crate::simd::{self, Kernel, Simd};

/// Most rows and columns of a block in registers, of all backends.
const TILE: [usize; 2] = [8, 48];
/// Columns that are multiplied with a row at a time where both are contiguous.
const DOT_COLUMNS: usize = 4;
/// Up to so many rows are multiplied one by one with columns that are contiguous.
const DOT_ROWS_MAX: usize = 4;

/// `c = a · b`, modulo 2³²: up to 2¹⁷ - 8 terms nothing is lost.
///
/// # Errors
/// [`MatrixError::Product`] if the shapes do not fit together.
pub fn matmul_i8(
    a: MatRef<'_, i8>,
    b: MatRef<'_, i8>,
    c: &mut MatMut<'_, i32>,
) -> Result<(), MatrixError> {
    matmul_i8_by(Backend::active(), a, b, c)
}

pub(crate) fn matmul_i8_by(
    backend: Backend,
    a: MatRef<'_, i8>,
    b: MatRef<'_, i8>,
    c: &mut MatMut<'_, i32>,
) -> Result<(), MatrixError> {
    expect_product(a.shape(), b.shape(), c.shape(), Fused::default())?;
    let ([rows, depth], [_, columns]) = (a.shape(), b.shape());
    for row in 0..rows {
        let row = c.row(row);
        c.elements_mut()[row].fill(0);
    }
    if rows > 0 && columns > 0 && depth > 0 {
        simd::run(backend, Multiply { a, b, c });
    }
    Ok(())
}

struct Multiply<'a, 'b, 'c> {
    a: MatRef<'a, i8>,
    b: MatRef<'b, i8>,
    c: &'a mut MatMut<'c, i32>,
}

impl Kernel for Multiply<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let contiguous = self.a.strides()[1] == 1 && self.b.strides()[0] == 1;
        match contiguous && self.a.shape()[0] <= DOT_ROWS_MAX {
            true => multiply_columns(simd, self),
            false => multiply_packed(simd, self),
        }
    }
}

fn multiply_columns<S: Simd>(simd: S, product: Multiply<'_, '_, '_>) {
    let Multiply { a, b, c } = product;
    let ([rows, depth], [_, columns]) = (a.shape(), b.shape());
    let (row_stride, column_stride) = (a.strides()[0], b.strides()[1]);
    for column in (0..columns).step_by(DOT_COLUMNS) {
        let taken = DOT_COLUMNS.min(columns - column);
        let right = core::array::from_fn(|offset| {
            let from = (column + offset.min(taken - 1)) * column_stride;
            &b.elements()[from..from + depth]
        });
        for row in 0..rows {
            let from = row * row_stride;
            let left = &a.elements()[from..from + depth];
            let sums = simd.call(Dots { left, right });
            let to = c.row(row).start + column;
            c.elements_mut()[to..to + taken].copy_from_slice(&sums[..taken]);
        }
    }
}

/// A row times some columns, of as many elements each.
struct Dots<'a> {
    left: &'a [i8],
    right: [&'a [i8]; DOT_COLUMNS],
}

impl Kernel for Dots<'_> {
    type Output = [i32; DOT_COLUMNS];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [i32; DOT_COLUMNS] {
        let bytes = S::TERMS * S::LANES;
        let depth = self.left.len();
        assert!(self.right.iter().all(|right| right.len() == depth));
        let mut sums = [[simd.splat_integer(0); DOT_COLUMNS]; 2];
        let whole = depth / bytes * bytes;
        for at in (0..whole).step_by(bytes) {
            let mut right = [self.left.as_ptr(); DOT_COLUMNS];
            for (place, right) in right.iter_mut().zip(&self.right) {
                *place = right[at..at + bytes].as_ptr();
            }
            // SAFETY: so many bytes are there.
            unsafe { add_dots(simd, &mut sums, self.left[at..at + bytes].as_ptr(), right) };
        }
        if whole < depth {
            let mut padded = [[0_i8; 64]; 1 + DOT_COLUMNS];
            padded[0][..depth - whole].copy_from_slice(&self.left[whole..]);
            for (padded, right) in padded[1..].iter_mut().zip(&self.right) {
                padded[..depth - whole].copy_from_slice(&right[whole..]);
            }
            let [left, right @ ..] = &padded;
            let right = [
                right[0].as_ptr(),
                right[1].as_ptr(),
                right[2].as_ptr(),
                right[3].as_ptr(),
            ];
            // SAFETY: no backend takes more than 64 bytes.
            unsafe { add_dots(simd, &mut sums, left.as_ptr(), right) };
        }
        let [sums, excess] = sums;
        core::array::from_fn(|i| {
            let mut lanes = [[0_i32; 16]; 2];
            // SAFETY: no backend has more lanes.
            unsafe {
                simd.write_integers(lanes[0].as_mut_ptr(), sums[i]);
                simd.write_integers(lanes[1].as_mut_ptr(), excess[i]);
            }
            let total = |lanes: &[i32]| {
                lanes
                    .iter()
                    .fold(0_i32, |sum, lane| sum.wrapping_add(*lane))
            };
            total(&lanes[0]).wrapping_sub(total(&lanes[1]))
        })
    }
}

/// Adds the products of some bytes to the first sums, and, where 128 was added to the bytes on the left, what comes of that
/// to the second ones.
///
/// # Safety
/// Bytes for a vector may be read from all of these places.
#[inline(always)]
unsafe fn add_dots<S: Simd>(
    simd: S,
    [sums, excess]: &mut [[S::Integers; DOT_COLUMNS]; 2],
    left: *const i8,
    right: [*const i8; DOT_COLUMNS],
) {
    // SAFETY: as for this function.
    unsafe {
        let left = simd.to_left(simd.read_bytes(left));
        for (i, right) in right.into_iter().enumerate() {
            let right = simd.read_bytes(right);
            sums[i] = simd.add_products(sums[i], left, right);
            if S::LEFT_IS_UNSIGNED {
                // 128 in each byte.
                let added = simd.to_left(simd.splat_integer(0));
                excess[i] = simd.add_products(excess[i], added, right);
            }
        }
    }
}

fn multiply_packed<S: Simd>(simd: S, product: Multiply<'_, '_, '_>) {
    let Multiply { a, b, c } = product;
    let ([rows, depth], [_, columns]) = (a.shape(), b.shape());
    let width = S::PRODUCT[1] * S::LANES;
    let panels = BLOCK_COLUMNS.min(columns.next_multiple_of(width));
    let left_words = BLOCK_ROWS * LEFT_STRIDE;
    scratch::with(left_words + DEPTH * panels + panels, |scratch| {
        let (left, scratch) = scratch.split_at_mut(left_words);
        let (offsets, right) = scratch.split_at_mut(panels);
        for first_column in (0..columns).step_by(BLOCK_COLUMNS) {
            let taken = BLOCK_COLUMNS.min(columns - first_column);
            for first_term in (0..depth).step_by(DEPTH * S::TERMS) {
                let terms = (DEPTH * S::TERMS).min(depth - first_term);
                let words = terms.div_ceil(S::TERMS);
                let block = part(b, [first_term, first_column], [terms, taken]);
                pack_right::<S>(block, width, right, offsets);
                for first_row in (0..rows).step_by(BLOCK_ROWS) {
                    let block_rows = BLOCK_ROWS.min(rows - first_row);
                    let block = part(a, [first_row, first_term], [block_rows, terms]);
                    pack_left::<S>(block, left);
                    for (panel, column) in (0..taken).step_by(width).enumerate() {
                        for row in (0..block_rows).step_by(S::PRODUCT[0]) {
                            let tile = Tile {
                                rows: S::PRODUCT[0].min(block_rows - row),
                                words,
                                left: &left[row * LEFT_STRIDE..],
                                right: &right[panel * words * width..][..words * width],
                                offsets: &offsets[column..column + width],
                            };
                            let at = [first_row + row, first_column + column];
                            let columns = width.min(taken - column);
                            add_tile(simd, tile, at, columns, c);
                        }
                    }
                }
            }
        }
    });
}

/// Adds a block to the product.
fn add_tile<S: Simd>(
    simd: S,
    tile: Tile<'_>,
    [row, column]: [usize; 2],
    columns: usize,
    c: &mut MatMut<'_, i32>,
) {
    let rows = tile.rows;
    let mut sums = [[0; TILE[1]]; TILE[0]];
    simd.call(Sums {
        tile,
        sums: &mut sums,
    });
    for (offset, sums) in sums.iter().enumerate().take(rows) {
        let to = c.row(row + offset).start + column;
        let to = &mut c.elements_mut()[to..to + columns];
        for (to, sum) in to.iter_mut().zip(sums) {
            *to = to.wrapping_add(*sum);
        }
    }
}

/// Bytes as they are multiplied in a lane; 0 for those that are missing.
#[inline(always)]
fn word<S: Simd>(bytes: [i8; 4]) -> i32 {
    match S::TERMS {
        4 => i32::from_le_bytes(bytes.map(|byte| byte as u8)),
        _ => i32::from(bytes[0]) & 0xFFFF | i32::from(bytes[1]) << 16,
    }
}

/// The terms from `first` on of a line of elements that are so far apart.
#[inline(always)]
fn terms<S: Simd>(line: &[i8], stride: usize, first: usize, count: usize) -> [i8; 4] {
    core::array::from_fn(|i| match i < S::TERMS && first + i < count {
        true => line[(first + i) * stride],
        false => 0,
    })
}

/// Rows of words, [`LEFT_STRIDE`] apart.
fn pack_left<S: Simd>(a: MatRef<'_, i8>, packed: &mut [i32]) {
    let ([rows, count], [row_stride, stride]) = (a.shape(), a.strides());
    let flip = match S::LEFT_IS_UNSIGNED {
        true => i32::from_le_bytes([0x80; 4]),
        false => 0,
    };
    for (row, out) in packed.chunks_exact_mut(LEFT_STRIDE).enumerate().take(rows) {
        let line = &a.elements()[row * row_stride..];
        if stride == 1 && S::TERMS == 4 {
            let (words, rest) = line[..count].as_chunks::<4>();
            for (out, bytes) in out.iter_mut().zip(words) {
                *out = word::<S>(*bytes) ^ flip;
            }
            if !rest.is_empty() {
                out[words.len()] = word::<S>(terms::<S>(line, 1, words.len() * 4, count)) ^ flip;
            }
        } else {
            for (first, out) in (0..count).step_by(S::TERMS).zip(out) {
                *out = word::<S>(terms::<S>(line, stride, first, count)) ^ flip;
            }
        }
    }
}

/// Panels of `width` columns, in which the words of a row lie together, and what each column of the product begins with.
fn pack_right<S: Simd>(b: MatRef<'_, i8>, width: usize, packed: &mut [i32], offsets: &mut [i32]) {
    let ([count, columns], [stride, column_stride]) = (b.shape(), b.strides());
    let words = count.div_ceil(S::TERMS);
    let panels = packed.chunks_exact_mut(words * width);
    let offsets = offsets.chunks_exact_mut(width);
    for ((first, panel), offsets) in (0..columns).step_by(width).zip(panels).zip(offsets) {
        let taken = width.min(columns - first);
        offsets.fill(0);
        for (offset, excess) in offsets.iter_mut().enumerate().take(taken) {
            let line = &b.elements()[(first + offset) * column_stride..];
            let places = panel[offset..].iter_mut().step_by(width);
            let mut sum = 0_i32;
            let mut put = |place: &mut i32, bytes: [i8; 4]| {
                *place = word::<S>(bytes);
                sum += bytes.iter().map(|byte| i32::from(*byte)).sum::<i32>();
            };
            if stride == 1 && S::TERMS == 4 {
                let (whole, rest) = line[..count].as_chunks::<4>();
                let mut places = places;
                for (bytes, place) in whole.iter().zip(&mut places) {
                    put(place, *bytes);
                }
                if let (false, Some(place)) = (rest.is_empty(), places.next()) {
                    put(place, terms::<S>(line, 1, whole.len() * 4, count));
                }
            } else {
                for (first, place) in (0..count).step_by(S::TERMS).zip(places) {
                    put(place, terms::<S>(line, stride, first, count));
                }
            }
            if S::LEFT_IS_UNSIGNED {
                *excess = -128 * sum;
            }
        }
        for row in panel.chunks_exact_mut(width) {
            row[taken..].fill(0);
        }
    }
}

/// The factors of a block in registers.
struct Tile<'a> {
    /// At most as many as [`Simd::PRODUCT`] says, and not 0.
    rows: usize,
    words: usize,
    /// [`LEFT_STRIDE`] from a row to the next.
    left: &'a [i32],
    /// As many words as the block has columns, one row after the other.
    right: &'a [i32],
    offsets: &'a [i32],
}

struct Sums<'a> {
    tile: Tile<'a>,
    sums: &'a mut [[i32; TILE[1]]; TILE[0]],
}

impl Kernel for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        const { assert!(S::PRODUCT[0] <= TILE[0] && S::PRODUCT[1] * S::LANES <= TILE[1]) };
        match S::PRODUCT[1] {
            2 => of_rows::<S, 2>(simd, self),
            _ => of_rows::<S, 3>(simd, self),
        }
    }
}

#[inline(always)]
fn of_rows<S: Simd, const V: usize>(simd: S, product: Sums<'_>) {
    match product.tile.rows {
        1 => sums::<S, 1, V>(simd, product),
        2 => sums::<S, 2, V>(simd, product),
        3 => sums::<S, 3, V>(simd, product),
        4 => sums::<S, 4, V>(simd, product),
        5 if S::PRODUCT[0] >= 5 => sums::<S, 5, V>(simd, product),
        6 if S::PRODUCT[0] >= 6 => sums::<S, 6, V>(simd, product),
        7 if S::PRODUCT[0] >= 7 => sums::<S, 7, V>(simd, product),
        _ if S::PRODUCT[0] >= 8 => sums::<S, 8, V>(simd, product),
        _ => unreachable!("a block has no more rows"),
    }
}

#[inline(always)]
fn sums<S: Simd, const R: usize, const V: usize>(simd: S, product: Sums<'_>) {
    let Sums { tile, sums: out } = product;
    let width = V * S::LANES;
    assert!(tile.left.len() >= (R - 1) * LEFT_STRIDE + tile.words);
    assert!(tile.right.len() >= tile.words * width && tile.offsets.len() >= width);
    let (mut left, mut right) = (tile.left.as_ptr(), tile.right.as_ptr());
    // SAFETY: it was asserted that there are so many words; rows of `out` are as long as the widest block.
    unsafe {
        let mut sums = [[simd.splat_integer(0); V]; R];
        for sums in &mut sums {
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = simd.read_integers(tile.offsets.as_ptr().add(v * S::LANES));
            }
        }
        for _ in 0..tile.words {
            let mut columns = [simd.splat_integer(0); V];
            for (v, columns) in columns.iter_mut().enumerate() {
                *columns = simd.read_integers(right.add(v * S::LANES));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let row = simd.splat_integer(*left.add(i * LEFT_STRIDE));
                for (sum, columns) in sums.iter_mut().zip(&columns) {
                    *sum = simd.add_products(*sum, row, *columns);
                }
            }
            (left, right) = (left.wrapping_add(1), right.wrapping_add(width));
        }
        for (out, sums) in out.iter_mut().zip(&sums) {
            for (v, sum) in sums.iter().enumerate() {
                simd.write_integers(out.as_mut_ptr().add(v * S::LANES), *sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;
    use crate::simd::tests::supported;

    fn bytes(count: usize, mut seed: u32) -> Vec<i8> {
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as i8
        };
        (0..count).map(|_| next()).collect()
    }

    fn check(backend: Backend, a: MatRef<'_, i8>, b: MatRef<'_, i8>) {
        let ([rows, depth], [_, columns]) = (a.shape(), b.shape());
        let row_stride = columns + 1;
        let mut out = vec![7; rows * row_stride];
        let mut c = MatMut::new(&mut out, [rows, columns], row_stride).unwrap();
        matmul_i8_by(backend, a, b, &mut c).unwrap();
        let at = |matrix: MatRef<'_, i8>, i: usize, j: usize| {
            let [row, column] = matrix.strides();
            i32::from(matrix.elements()[i * row + j * column])
        };
        for i in 0..rows {
            for j in 0..columns {
                let exact: i32 = (0..depth).map(|p| at(a, i, p) * at(b, p, j)).sum();
                let found = out[i * row_stride + j];
                assert_eq!(
                    found, exact,
                    "{backend} [{rows}, {depth}, {columns}] at [{i}, {j}]"
                );
            }
            assert_eq!(out[i * row_stride + columns], 7);
        }
    }

    #[test]
    fn exact_in_all_layouts() {
        let small = (1..=9).flat_map(|rows| {
            [0, 1, 2, 3, 4, 5, 31, 64, 65, 129]
                .into_iter()
                .flat_map(move |depth| {
                    [1, 2, 3, 5, 16, 47, 49].map(|columns| [rows, depth, columns])
                })
        });
        let large = [
            [3, 2_100, 70],
            [300, 1_030, 50],
            [5, 40, 3_100],
            [17, 1_025, 97],
        ];
        for backend in supported() {
            for [rows, depth, columns] in small.clone().chain(large) {
                let (left, right) = (bytes(rows * depth, 1), bytes(depth * columns, 2));
                let a = MatRef::row_major(&left, rows, depth).unwrap();
                let a_turned = MatRef::row_major(&left, depth, rows).unwrap().transposed();
                let b = MatRef::row_major(&right, depth, columns).unwrap();
                let b_turned = MatRef::row_major(&right, columns, depth)
                    .unwrap()
                    .transposed();
                check(backend, a, b);
                check(backend, a, b_turned);
                check(backend, a_turned, b_turned);
            }
        }
    }

    #[test]
    fn the_extremes_are_exact() {
        for backend in supported() {
            for byte in [i8::MIN, i8::MAX] {
                for other in [i8::MIN, i8::MAX] {
                    let (left, right) = (vec![byte; 9 * 4_000], vec![other; 9 * 4_000]);
                    let a = MatRef::row_major(&left, 9, 4_000).unwrap();
                    let b = MatRef::row_major(&right, 9, 4_000).unwrap().transposed();
                    check(backend, a, b);
                    check(backend, part(a, [0, 0], [1, 4_000]), b);
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let a = MatRef::row_major(&[1; 6], 2, 3).unwrap();
        let mut out = [0; 6];
        let mut c = MatMut::row_major(&mut out, 2, 2).unwrap();
        matmul_i8(a, a, &mut c).unwrap_err();
        matmul_i8(a, a.transposed(), &mut c).unwrap();
        assert_eq!(out, [3, 3, 3, 3, 0, 0]);
        let none = MatRef::new(&[], [3, 0], [2, 1]).unwrap();
        matmul_i8(a, none, &mut MatMut::new(&mut [], [2, 0], 2).unwrap()).unwrap();
    }
}

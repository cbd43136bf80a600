//! Products of matrices of signed bytes, in integers of 32 bits: they are exact, and the same by every backend.
//!
//! Some bytes that are next to each other in depth, as many as a lane multiplies in one step, are a word of 32 bits, and words
//! take the places that floats have in the product of floats. Where a processor multiplies unsigned bytes with signed ones, 128 is
//! added to each byte of the left factor, and 128 times the sum of a column taken from the column of the product.
//!
//! Where an instruction multiplies two rows with two columns ([`Simd::PAIRS`]), blocks in registers are made of such squares, two
//! words deep, of the same words. Rows times columns as they lie are not: bringing those together takes as many instructions as it
//! saves.

use core::ops::Range;

use super::{
    BLOCK_COLUMNS, BLOCK_ROWS, DEPTH, Fused, LEFT_STRIDE, expect_product, panels, part, scratch,
};
use crate::backend::Backend;
use crate::matrix::{MatMut, MatRef, MatrixError};
use crate::simd::{self, Kernel, Simd};

/// Most rows and columns of a block in registers, of all backends.
const TILE: [usize; 2] = [8, 48];
/// Most rows and columns of a block of sums along both, of all backends.
const DOTS: [usize; 2] = [4, 4];
/// Up to so many rows are multiplied with columns that are contiguous as they lie: each column is read from memory once.
const DOT_ROWS_MAX: usize = 16;

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
    if columns == 0 {
        return Ok(());
    }
    for row in 0..rows {
        let row = c.row(row);
        c.elements_mut()[row].fill(0);
    }
    if rows > 0 && depth > 0 {
        simd::run_on_bytes(backend, Multiply { a, b, c });
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
    for column in (0..columns).step_by(DOTS[1]) {
        let taken = DOTS[1].min(columns - column);
        let right = core::array::from_fn(|offset| {
            let from = (column + offset.min(taken - 1)) * column_stride;
            &b.elements()[from..from + depth]
        });
        for row in (0..rows).step_by(S::DOTS[0]) {
            let count = S::DOTS[0].min(rows - row);
            let left = core::array::from_fn(|offset| {
                let from = (row + offset.min(count - 1)) * row_stride;
                &a.elements()[from..from + depth]
            });
            let sums = simd.call(Dots { count, left, right });
            for (offset, sums) in sums.iter().enumerate().take(count) {
                let to = c.row(row + offset).start + column;
                c.elements_mut()[to..to + taken].copy_from_slice(&sums[..taken]);
            }
        }
    }
}

/// Some rows times some columns, of as many elements each.
struct Dots<'a> {
    /// How many of the rows are wanted: at most as many as [`Simd::DOTS`] says, and not 0.
    count: usize,
    left: [&'a [i8]; DOTS[0]],
    right: [&'a [i8]; DOTS[1]],
}

impl Kernel for Dots<'_> {
    type Output = [[i32; DOTS[1]]; DOTS[0]];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        const { assert!(S::DOTS[0] <= DOTS[0]) };
        match self.count {
            1 => dots::<S, 1>(simd, &self),
            2 => dots::<S, 2>(simd, &self),
            3 if S::DOTS[0] >= 3 => dots::<S, 3>(simd, &self),
            _ if S::DOTS[0] >= 4 => dots::<S, 4>(simd, &self),
            _ => unreachable!("a block has no more rows"),
        }
    }
}

#[inline(always)]
fn dots<S: Simd, const R: usize>(simd: S, factors: &Dots<'_>) -> [[i32; DOTS[1]]; DOTS[0]] {
    let bytes = S::TERMS * S::LANES;
    let depth = factors.left[0].len();
    assert!(factors.left.iter().all(|left| left.len() == depth));
    assert!(factors.right.iter().all(|right| right.len() == depth));
    let mut sums = [[simd.splat_integer(0); DOTS[1]]; R];
    let mut excess = [simd.splat_integer(0); DOTS[1]];
    let whole = depth / bytes * bytes;
    for at in (0..whole).step_by(bytes) {
        let mut left = [factors.left[0].as_ptr(); R];
        for (place, left) in left.iter_mut().zip(&factors.left) {
            *place = left[at..at + bytes].as_ptr();
        }
        let mut right = [factors.right[0].as_ptr(); DOTS[1]];
        for (place, right) in right.iter_mut().zip(&factors.right) {
            *place = right[at..at + bytes].as_ptr();
        }
        // SAFETY: so many bytes are there.
        unsafe { add_dots(simd, &mut sums, &mut excess, left, right) };
    }
    if whole < depth {
        let mut padded = [[0_i8; 64]; DOTS[0] + DOTS[1]];
        for (padded, line) in padded
            .iter_mut()
            .zip(factors.left.iter().chain(&factors.right))
        {
            padded[..depth - whole].copy_from_slice(&line[whole..]);
        }
        let (rows, columns) = padded.split_at(DOTS[0]);
        let mut left = [rows[0].as_ptr(); R];
        for (place, row) in left.iter_mut().zip(rows) {
            *place = row.as_ptr();
        }
        let right = core::array::from_fn(|i| columns[i].as_ptr());
        // SAFETY: no backend takes more than 64 bytes.
        unsafe { add_dots(simd, &mut sums, &mut excess, left, right) };
    }
    let mut out = [[0; DOTS[1]]; DOTS[0]];
    for (column, excess) in excess.into_iter().enumerate() {
        let excess = total(simd, excess);
        for (out, sums) in out.iter_mut().zip(&sums) {
            out[column] = total(simd, sums[column]).wrapping_sub(excess);
        }
    }
    out
}

/// The sum of the lanes, modulo 2³².
#[inline(always)]
fn total<S: Simd>(simd: S, integers: S::Integers) -> i32 {
    const { assert!(S::LANES <= 16) };
    let mut lanes = [0_i32; 16];
    // SAFETY: there is room for them.
    unsafe { simd.write_integers(lanes.as_mut_ptr(), integers) };
    lanes
        .iter()
        .fold(0, |sum: i32, lane| sum.wrapping_add(*lane))
}

/// Adds the products of some bytes to the sums, and, where 128 was added to the bytes on the left, what comes of that to the
/// excess.
///
/// # Safety
/// Bytes for a vector may be read from all of these places.
#[inline(always)]
unsafe fn add_dots<S: Simd, const R: usize>(
    simd: S,
    sums: &mut [[S::Integers; DOTS[1]]; R],
    excess: &mut [S::Integers; DOTS[1]],
    left: [*const i8; R],
    right: [*const i8; DOTS[1]],
) {
    // SAFETY: as for this function.
    unsafe {
        let mut columns = [simd.splat_integer(0); DOTS[1]];
        for (column, right) in columns.iter_mut().zip(right) {
            *column = simd.read_bytes(right);
        }
        if S::LEFT_IS_UNSIGNED {
            // 128 in each byte.
            let added = simd.to_left(simd.splat_integer(0));
            for (excess, column) in excess.iter_mut().zip(&columns) {
                *excess = simd.add_products(*excess, added, *column);
            }
        }
        for (sums, left) in sums.iter_mut().zip(left) {
            let row = simd.to_left(simd.read_bytes(left));
            for (sum, column) in sums.iter_mut().zip(&columns) {
                *sum = simd.add_products(*sum, row, *column);
            }
        }
    }
}

fn multiply_packed<S: Simd>(simd: S, product: Multiply<'_, '_, '_>) {
    let Multiply { a, b, c } = product;
    let ([rows, depth], [_, columns]) = (a.shape(), b.shape());
    let width = BLOCK_COLUMNS.min(columns.next_multiple_of(S::LANES));
    let words_max = DEPTH.min(depth.div_ceil(S::TERMS));
    let left_words = BLOCK_ROWS.min(rows) * LEFT_STRIDE;
    scratch::with(left_words + (words_max + 1) * width, |scratch| {
        let (left, scratch) = scratch.split_at_mut(left_words);
        let (offsets, right) = scratch.split_at_mut(width);
        for first_column in (0..columns).step_by(BLOCK_COLUMNS) {
            let taken = BLOCK_COLUMNS.min(columns - first_column);
            for first_term in (0..depth).step_by(DEPTH * S::TERMS) {
                let terms = (DEPTH * S::TERMS).min(depth - first_term);
                let words = terms.div_ceil(S::TERMS);
                let block = part(b, [first_term, first_column], [terms, taken]);
                simd.call(PackRight {
                    matrix: block,
                    packed: right,
                    offsets,
                });
                for first_row in (0..rows).step_by(BLOCK_ROWS) {
                    let block_rows = BLOCK_ROWS.min(rows - first_row);
                    let block = part(a, [first_row, first_term], [block_rows, terms]);
                    pack_left::<S>(block, left);
                    for panel in panels::<S>(taken) {
                        let width = panel.len().next_multiple_of(S::LANES);
                        for row in (0..block_rows).step_by(S::PRODUCT[0]) {
                            let tile = Tile {
                                rows: S::PRODUCT[0].min(block_rows - row),
                                words,
                                left: &left[row * LEFT_STRIDE..],
                                right: &right[panel.start * words..][..words * width],
                                offsets: &offsets[panel.start..][..width],
                            };
                            let at = [first_row + row, first_column + panel.start];
                            add_tile(simd, tile, at, panel.len(), c);
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

/// Copies a block of the right factor into [`panels`], in which the words of a row lie together, and finds out what each column of
/// the product begins with.
struct PackRight<'a> {
    matrix: MatRef<'a, i8>,
    packed: &'a mut [i32],
    offsets: &'a mut [i32],
}

impl Kernel for PackRight<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let (shape, strides) = (self.matrix.shape(), self.matrix.strides());
        let [count, columns] = shape;
        let (words, whole) = (count.div_ceil(S::TERMS), count / S::TERMS);
        for panel in panels::<S>(columns) {
            let width = panel.len().next_multiple_of(S::LANES);
            let out = &mut self.packed[panel.start * words..][..words * width];
            let from = &self.matrix.elements()[panel.start * strides[1]..];
            let done = match strides {
                // Words lie in the columns as they are.
                [1, stride] if S::TERMS == 4 => {
                    transpose_words(from, stride, [panel.len(), whole], out, width);
                    whole
                }
                [stride, 1] => {
                    for (word, out) in out.chunks_exact_mut(width).enumerate().take(whole) {
                        interleave::<S>(
                            &from[word * S::TERMS * stride..],
                            stride,
                            &mut out[..panel.len()],
                        );
                    }
                    whole
                }
                _ => 0,
            };
            for (column, word) in
                (0..panel.len()).flat_map(|column| (done..words).map(move |word| (column, word)))
            {
                let line = &from[column * strides[1]..];
                let bytes = terms::<S>(line, strides[0], word * S::TERMS, count);
                out[word * width + column] = self::word::<S>(bytes);
            }
            let offsets = &mut self.offsets[panel.start..][..width];
            offsets.fill(0);
            for row in out.chunks_exact_mut(width) {
                row[panel.len()..].fill(0);
                if S::LEFT_IS_UNSIGNED {
                    for (offset, word) in offsets.iter_mut().zip(row) {
                        let sum: i32 = word
                            .to_le_bytes()
                            .map(|byte| i32::from(byte as i8))
                            .iter()
                            .sum();
                        *offset -= 128 * sum;
                    }
                }
            }
        }
    }
}

/// Makes words of as many rows as a word has bytes, which begin `stride` elements apart.
#[inline(always)]
fn interleave<S: Simd>(from: &[i8], stride: usize, out: &mut [i32]) {
    let len = out.len();
    let row = |index: usize| &from[index * stride..][..len];
    match S::TERMS {
        4 => {
            let rows = row(0).iter().zip(row(1)).zip(row(2).iter().zip(row(3)));
            for (out, ((a, b), (c, d))) in out.iter_mut().zip(rows) {
                *out = word::<S>([*a, *b, *c, *d]);
            }
        }
        _ => {
            for (out, (a, b)) in out.iter_mut().zip(row(0).iter().zip(row(1))) {
                *out = word::<S>([*a, *b, 0, 0]);
            }
        }
    }
}

/// As [`transpose`](super::transpose), of lines of bytes of which four are a word.
#[inline(always)]
fn transpose_words(
    from: &[i8],
    stride: usize,
    [lines, count]: [usize; 2],
    to: &mut [i32],
    width: usize,
) {
    /// Words of a line, and lines, that are turned at a time.
    const BLOCK: usize = 8;
    let mut turn = |lines: Range<usize>, at: Range<usize>| {
        let mut block = [[0_i32; BLOCK]; BLOCK];
        for (line, block) in lines.clone().zip(&mut block) {
            let (words, _) = from[line * stride + 4 * at.start..].as_chunks::<4>();
            for (bytes, word) in words[..at.len()].iter().zip(block) {
                *word = i32::from_le_bytes(bytes.map(|byte| byte as u8));
            }
        }
        for (offset, at) in at.enumerate() {
            let out = &mut to[at * width + lines.start..][..lines.len()];
            for (out, block) in out.iter_mut().zip(&block) {
                *out = block[offset];
            }
        }
    };
    for line in (0..lines).step_by(BLOCK) {
        for at in (0..count).step_by(BLOCK) {
            turn(line..lines.min(line + BLOCK), at..count.min(at + BLOCK));
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
    /// As many as the block has columns.
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
        match self.tile.offsets.len() / S::LANES {
            1 => of_rows::<S, 1>(simd, self),
            2 => of_rows::<S, 2>(simd, self),
            _ if S::PRODUCT[1] == 3 => of_rows::<S, 3>(simd, self),
            _ => unreachable!("a block has no more columns"),
        }
    }
}

#[inline(always)]
fn of_rows<S: Simd, const V: usize>(simd: S, product: Sums<'_>) {
    match product.tile.rows {
        1 => by_rows::<S, 1, V>(simd, product),
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
    match S::PAIRS {
        true => by_pairs::<S, R, V>(simd, product),
        false => by_rows::<S, R, V>(simd, product),
    }
}

#[inline(always)]
fn by_rows<S: Simd, const R: usize, const V: usize>(simd: S, product: Sums<'_>) {
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
        // By constant places, as in the product of floats.
        let mut i = 0;
        while i < R {
            let (row, out) = (sums[i], out[i].as_mut_ptr());
            let mut v = 0;
            while v < V {
                simd.write_integers(out.add(v * S::LANES), row[v]);
                v += 1;
            }
            i += 1;
        }
    }
}

/// Two rows and two words at a time.
#[inline(always)]
fn by_pairs<S: Simd, const R: usize, const V: usize>(simd: S, product: Sums<'_>) {
    // Sums begin at 0, not at the offsets.
    const { assert!(!(S::PAIRS && S::LEFT_IS_UNSIGNED)) };
    let Sums { tile, sums: out } = product;
    let width = V * S::LANES;
    assert!(tile.left.len() >= (R - 1) * LEFT_STRIDE + tile.words);
    assert!(tile.right.len() >= tile.words * width);
    let mut sums = [[[simd.splat_integer(0); 2]; V]; TILE[0] / 2];
    let mut rows = [tile.left.as_ptr(); R];
    for (i, row) in rows.iter_mut().enumerate() {
        *row = row.wrapping_add(i * LEFT_STRIDE);
    }
    let mut right = tile.right.as_ptr();
    // SAFETY: it was asserted that there are so many words; rows of `out` are as long as the widest block.
    unsafe {
        for _ in 0..tile.words / 2 {
            let mut columns = [[simd.splat_integer(0); 2]; V];
            for (v, [first, second]) in columns.iter_mut().enumerate() {
                *first = simd.read_integers(right.add(v * S::LANES));
                *second = simd.read_integers(right.add(width + v * S::LANES));
            }
            add_words(simd, &mut sums, rows, &columns);
            for row in &mut rows {
                *row = row.wrapping_add(2);
            }
            right = right.wrapping_add(2 * width);
        }
        if tile.words % 2 == 1 {
            let mut columns = [[simd.splat_integer(0); 2]; V];
            for (v, [first, _]) in columns.iter_mut().enumerate() {
                *first = simd.read_integers(right.add(v * S::LANES));
            }
            let last = rows.map(|row| [*row, 0]);
            let mut rows = [last[0].as_ptr(); R];
            for (row, words) in rows.iter_mut().zip(&last) {
                *row = words.as_ptr();
            }
            add_words(simd, &mut sums, rows, &columns);
        }
        let mut i = 0;
        while i < R {
            let mut v = 0;
            while v < V {
                let row = simd.rows_of_pairs(sums[i / 2][v])[i % 2];
                simd.write_integers(out[i].as_mut_ptr().add(v * S::LANES), row);
                v += 1;
            }
            i += 1;
        }
    }
}

/// Adds the products of two words of each row with two of each column. If the number of rows is odd, the last one is its own partner.
///
/// # Safety
/// Two words may be read from each row.
#[inline(always)]
unsafe fn add_words<S: Simd, const R: usize, const V: usize>(
    simd: S,
    sums: &mut [[[S::Integers; 2]; V]; TILE[0] / 2],
    rows: [*const i32; R],
    columns: &[[S::Integers; 2]; V],
) {
    for (pair, sums) in sums.iter_mut().enumerate().take(R.div_ceil(2)) {
        let rows = [rows[2 * pair], rows[(2 * pair + 1).min(R - 1)]];
        for (sums, columns) in sums.iter_mut().zip(columns) {
            // SAFETY: as for this function.
            *sums = unsafe { simd.add_pairs(*sums, rows, *columns) };
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
                    // The same by copied blocks.
                    check(
                        backend,
                        MatRef::row_major(&left, 4_000, 9).unwrap().transposed(),
                        b,
                    );
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

//! Blocks of a product in registers.

use super::{Fused, TERMS};
use crate::simd::{Kernel, Simd};

/// With fewer terms the sums that are added to are wanted at once, and in the caches since the last terms.
const PREFETCH_DEPTH: usize = 64;
/// So many terms before its turn a row of the right factor is asked for.
const AHEAD: usize = 8;
/// Terms between two requests for what is wanted after this panel.
const CHUNK: usize = 4;

/// Some rows of the product, and their factors.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Terms of each sum.
    pub(super) depth: usize,
    /// The element of the left factor in row `i` and column `p` is at `i * a_row + p * a_step`.
    pub(super) a: *const f32,
    pub(super) a_row: usize,
    pub(super) a_step: usize,
    /// The element of the right factor in row `p` and column `j` is at `p * b_step + j`.
    pub(super) b: *const f32,
    pub(super) b_step: usize,
    /// Where the right factor is copied on the way, in whole vectors, one row after the other. Then there are at least as many
    /// rows as [`Simd::PRODUCT`] says.
    pub(super) copy: Option<*mut f32>,
    /// The right factor of the columns after these, as far apart from row to row, which is fetched meanwhile.
    pub(super) next: Option<(*const f32, usize)>,
    /// The element of the product in row `i` and column `j` is at `i * c_row + j`.
    pub(super) c: *mut f32,
    pub(super) c_row: usize,
    /// Whether the sums are added to what is there, or take its place.
    pub(super) adds: bool,
    /// What is done with the sums when they are complete, of which the first is in this column.
    pub(super) last: Option<(Fused<'a>, usize)>,
}

/// A block of the product of a few rows and columns that are contiguous.
#[derive(Clone, Copy)]
pub(super) struct DotTile {
    /// At most as many as [`Simd::DOTS`] says, and not 0.
    pub(super) rows: usize,
    /// At most as many as [`Simd::DOTS`] says, and not 0.
    pub(super) columns: usize,
    /// Terms of each sum.
    pub(super) depth: usize,
    /// The element of the left factor in row `i` and column `p` is at `i * a_row + p`.
    pub(super) a: *const f32,
    pub(super) a_row: usize,
    /// The element of the right factor in row `p` and column `j` is at `p + j * b_column`.
    pub(super) b: *const f32,
    pub(super) b_column: usize,
    /// The element of the product in row `i` and column `j` is at `i * c_row + j`.
    pub(super) c: *mut f32,
    pub(super) c_row: usize,
    /// Whether the sums are added to what is there, or take its place.
    pub(super) adds: bool,
}

/// Computes a block of at most as many vectors as [`Simd::PRODUCT`] says, not of none, and of any number of rows.
pub(super) struct Product<'a>(Tile<'a>);

/// Computes a block of one row and any number of columns, of at most [`TERMS`] terms: along the rows of the right factor, for which
/// it is read just once.
pub(super) struct Combination<'a>(Tile<'a>);

/// Computes a block whose right factor has its columns contiguous, as its left one has its rows.
pub(super) struct Dots(DotTile);

impl<'a> Product<'a> {
    /// # Safety
    /// Every element that the tile names may be read, those of the product and of the copy written, and nobody else accesses
    /// the latter. With a copy there are at least as many rows as [`Simd::PRODUCT`] says.
    pub(super) unsafe fn new(tile: Tile<'a>) -> Product<'a> {
        Product(tile)
    }
}

impl<'a> Combination<'a> {
    /// # Safety
    /// As for [`Product::new`].
    pub(super) unsafe fn new(tile: Tile<'a>) -> Combination<'a> {
        Combination(tile)
    }
}

impl Dots {
    /// # Safety
    /// As for [`Product::new`].
    pub(super) unsafe fn new(tile: DotTile) -> Dots {
        Dots(tile)
    }
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        const { assert!(S::PRODUCT[0] <= 8 && S::PRODUCT[1] <= 3) };
        let tile = self.0;
        // SAFETY: the promise when this was made.
        unsafe {
            match tile.columns.div_ceil(S::LANES) {
                1 => of_vectors::<S, 1>(simd, tile),
                2 => of_vectors::<S, 2>(simd, tile),
                _ if S::PRODUCT[1] == 3 => of_vectors::<S, 3>(simd, tile),
                _ => unreachable!("a block has no more columns"),
            }
        }
    }
}

#[inline(always)]
unsafe fn of_vectors<S: Simd, const V: usize>(simd: S, tile: Tile<'_>) {
    // SAFETY: as for this function.
    unsafe {
        match S::PRODUCT[0] {
            4 => of_rows::<S, 4, V>(simd, tile),
            6 => of_rows::<S, 6, V>(simd, tile),
            8 => of_rows::<S, 8, V>(simd, tile),
            _ => unreachable!("no backend has other blocks"),
        }
    }
}

/// `R` rows at a time, and the rest.
#[inline(always)]
unsafe fn of_rows<S: Simd, const R: usize, const V: usize>(simd: S, mut tile: Tile<'_>) {
    let mut next = Ahead::new(&tile);
    // SAFETY: as for this function.
    unsafe {
        if let Some(copy) = tile.copy {
            product::<S, R, V, true>(simd, tile, &mut next);
            tile.skip(R);
            (tile.b, tile.b_step) = (copy, V * S::LANES);
        }
        while tile.rows >= R {
            product::<S, R, V, false>(simd, tile, &mut next);
            tile.skip(R);
        }
        match tile.rows {
            1 => product::<S, 1, V, false>(simd, tile, &mut next),
            2 => product::<S, 2, V, false>(simd, tile, &mut next),
            3 => product::<S, 3, V, false>(simd, tile, &mut next),
            4 if R > 4 => product::<S, 4, V, false>(simd, tile, &mut next),
            5 if R > 5 => product::<S, 5, V, false>(simd, tile, &mut next),
            6 if R > 6 => product::<S, 6, V, false>(simd, tile, &mut next),
            7 if R > 7 => product::<S, 7, V, false>(simd, tile, &mut next),
            _ => (),
        }
    }
}

impl Tile<'_> {
    /// Leaves rows out, of which it has so many.
    #[inline(always)]
    fn skip(&mut self, rows: usize) {
        self.rows -= rows;
        self.a = self.a.wrapping_add(rows * self.a_row);
        self.c = self.c.wrapping_add(rows * self.c_row);
    }
}

/// Lines of the cache that are asked for one by one: of a few neighbouring elements in each of many rows.
struct Ahead {
    row: *const f32,
    step: usize,
    /// Rows that are left for this line.
    rows: usize,
    first: *const f32,
    rows_all: usize,
    /// Lines that are left, with this one.
    lines: usize,
}

impl Ahead {
    /// Elements of a line.
    const LINE: usize = 16;

    #[inline(always)]
    fn new(tile: &Tile<'_>) -> Ahead {
        let (first, step, lines) = match tile.next {
            // One more, as a row can begin anywhere in a line.
            Some((first, step)) => (first, step, tile.columns.div_ceil(Ahead::LINE) + 1),
            None => (tile.b, 0, 0),
        };
        Ahead {
            row: first,
            step,
            rows: tile.depth,
            first,
            rows_all: tile.depth,
            lines,
        }
    }

    #[inline(always)]
    fn request<S: Simd>(&mut self, simd: S) {
        if self.lines == 0 {
            return;
        }
        simd.prefetch_far(self.row.cast());
        self.row = self.row.wrapping_add(self.step);
        self.rows -= 1;
        if self.rows == 0 {
            self.first = self.first.wrapping_add(Ahead::LINE);
            (self.row, self.rows) = (self.first, self.rows_all);
            self.lines -= 1;
        }
    }
}

/// `R` rows times `V` vectors, the last of which may have fewer elements.
#[inline(always)]
unsafe fn product<S: Simd, const R: usize, const V: usize, const COPIES: bool>(
    simd: S,
    tile: Tile<'_>,
    ahead: &mut Ahead,
) {
    if tile.adds && tile.depth >= PREFETCH_DEPTH {
        // They are wanted at the end, and may have to come from far.
        for i in 0..R {
            for v in 0..V {
                let sums = tile.c.wrapping_add(i * tile.c_row + v * S::LANES);
                simd.prefetch(sums.cast());
            }
        }
    }
    let last = tile.columns - (V - 1) * S::LANES;
    // SAFETY: as for this function; rows, terms and columns are inside of the tile.
    unsafe {
        let sums = match last == S::LANES {
            true => sums_of_products::<S, R, V, COPIES, true>(simd, tile, ahead),
            false => sums_of_products::<S, R, V, COPIES, false>(simd, tile, ahead),
        };
        // By constant places: taken by reference in a loop, the sums would be kept in memory all the while.
        let mut i = 0;
        while i < R {
            let c = tile.c.add(i * tile.c_row);
            let row = sums[i];
            let mut v = 0;
            while v < V {
                let c = c.add(v * S::LANES);
                let sum = row[v];
                if v < V - 1 || last == S::LANES {
                    let sum = match tile.adds {
                        true => simd.add(simd.read(c), sum),
                        false => sum,
                    };
                    simd.write(c, sum);
                } else {
                    let sum = match tile.adds {
                        true => simd.add(simd.read_some(c, last, 0.0), sum),
                        false => sum,
                    };
                    simd.write_some(c, last, sum);
                }
                v += 1;
            }
            i += 1;
        }
        if let Some((fused, column)) = tile.last {
            let length = (R - 1) * tile.c_row + tile.columns;
            simd.call(Finish {
                fused,
                column,
                rows: R,
                columns: tile.columns,
                row_stride: tile.c_row,
                elements: core::slice::from_raw_parts_mut(tile.c, length),
            });
        }
    }
}

/// The sums of a block, of whose rows the last vector is `WHOLE` or not.
#[inline(always)]
unsafe fn sums_of_products<
    S: Simd,
    const R: usize,
    const V: usize,
    const COPIES: bool,
    const WHOLE: bool,
>(
    simd: S,
    tile: Tile<'_>,
    ahead: &mut Ahead,
) -> [[S::Floats; V]; R] {
    let last = tile.columns - (V - 1) * S::LANES;
    let mut sums = [[simd.splat(0.0); V]; R];
    let mut at = Step {
        a: tile.a,
        b: tile.b,
        copy: tile.copy.unwrap_or(core::ptr::null_mut()),
    };
    let mut left = tile.depth;
    // SAFETY: as for this function.
    unsafe {
        // The other blocks are the last of their panel, and of no weight beside the rest.
        if R == S::PRODUCT[0] {
            while left >= CHUNK {
                ahead.request(simd);
                for _ in 0..CHUNK {
                    at.next::<S, R, V, COPIES, WHOLE>(simd, &tile, last, &mut sums);
                }
                left -= CHUNK;
            }
        }
        for _ in 0..left {
            at.next::<S, R, V, COPIES, WHOLE>(simd, &tile, last, &mut sums);
        }
    }
    sums
}

/// Where the factors of a term are.
struct Step {
    a: *const f32,
    b: *const f32,
    copy: *mut f32,
}

impl Step {
    /// Adds the products of a term.
    #[inline(always)]
    unsafe fn next<
        S: Simd,
        const R: usize,
        const V: usize,
        const COPIES: bool,
        const WHOLE: bool,
    >(
        &mut self,
        simd: S,
        tile: &Tile<'_>,
        last: usize,
        sums: &mut [[S::Floats; V]; R],
    ) {
        let mut right = [simd.splat(0.0); V];
        // SAFETY: the caller's promise.
        unsafe {
            for (v, right) in right.iter_mut().enumerate().take(V - 1) {
                *right = simd.read(self.b.add(v * S::LANES));
            }
            let from = self.b.add((V - 1) * S::LANES);
            right[V - 1] = match WHOLE {
                true => simd.read(from),
                false => simd.read_some(from, last, 0.0),
            };
            if V == S::PRODUCT[1] {
                let ahead = self.b.wrapping_add(tile.b_step.wrapping_mul(AHEAD));
                for line in (0..V * S::LANES).step_by(Ahead::LINE) {
                    simd.prefetch(ahead.wrapping_add(line).cast());
                }
            }
            if COPIES {
                for (v, right) in right.iter().enumerate() {
                    simd.write(self.copy.add(v * S::LANES), *right);
                }
                self.copy = self.copy.add(V * S::LANES);
            }
            add_products(simd, sums, &right, self.a, tile.a_row);
        }
        self.a = self.a.wrapping_add(tile.a_step);
        self.b = self.b.wrapping_add(tile.b_step);
    }
}

#[inline(always)]
unsafe fn add_products<S: Simd, const R: usize, const V: usize>(
    simd: S,
    sums: &mut [[S::Floats; V]; R],
    right: &[S::Floats; V],
    a: *const f32,
    a_row: usize,
) {
    for (i, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller has so many rows.
        let left = simd.splat(unsafe { *a.add(i * a_row) });
        for (sum, right) in sums.iter_mut().zip(right) {
            *sum = simd.mul_add(left, *right, *sum);
        }
    }
}

impl Kernel for Combination<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let tile = self.0;
        let whole = tile.columns / S::LANES * S::LANES;
        let last = tile.columns - whole;
        // SAFETY: terms and columns are inside of the tile, as was promised when this was made.
        unsafe {
            let mut left = [simd.splat(0.0); TERMS];
            for (p, left) in left.iter_mut().enumerate().take(tile.depth) {
                *left = simd.splat(*tile.a.add(p * tile.a_step));
            }
            for column in (0..whole).step_by(S::LANES) {
                let (b, c) = (tile.b.add(column), tile.c.add(column));
                let mut sum = match tile.adds {
                    true => simd.read(c),
                    false => simd.splat(0.0),
                };
                if tile.depth == TERMS {
                    for (p, left) in left.iter().enumerate() {
                        sum = simd.mul_add(*left, simd.read(b.add(p * tile.b_step)), sum);
                    }
                } else {
                    for (p, left) in left.iter().enumerate().take(tile.depth) {
                        sum = simd.mul_add(*left, simd.read(b.add(p * tile.b_step)), sum);
                    }
                }
                simd.write(c, sum);
            }
            if last > 0 {
                let (b, c) = (tile.b.add(whole), tile.c.add(whole));
                let mut sum = match tile.adds {
                    true => simd.read_some(c, last, 0.0),
                    false => simd.splat(0.0),
                };
                for (p, left) in left.iter().enumerate().take(tile.depth) {
                    let right = simd.read_some(b.add(p * tile.b_step), last, 0.0);
                    sum = simd.mul_add(*left, right, sum);
                }
                simd.write_some(c, last, sum);
            }
        }
    }
}

impl Kernel for Dots {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        const { assert!(S::DOTS[0] <= 4 && S::DOTS[1] == 4) };
        let tile = self.0;
        // SAFETY: the promise when this was made.
        unsafe {
            match tile.rows {
                1 => dots_of_columns::<S, 1>(simd, tile),
                2 => dots_of_columns::<S, 2>(simd, tile),
                3 if S::DOTS[0] >= 3 => dots_of_columns::<S, 3>(simd, tile),
                _ if S::DOTS[0] >= 4 => dots_of_columns::<S, 4>(simd, tile),
                _ => unreachable!("a block has no more rows"),
            }
        }
    }
}

#[inline(always)]
unsafe fn dots_of_columns<S: Simd, const R: usize>(simd: S, tile: DotTile) {
    // SAFETY: as for this function.
    unsafe {
        match tile.columns {
            1 => dots::<S, R, 1>(simd, tile),
            2 => dots::<S, R, 2>(simd, tile),
            3 => dots::<S, R, 3>(simd, tile),
            _ => dots::<S, R, 4>(simd, tile),
        }
    }
}

/// Sums of products along `R` rows and `C` columns.
#[inline(always)]
unsafe fn dots<S: Simd, const R: usize, const C: usize>(simd: S, tile: DotTile) {
    let mut sums = [[simd.splat(0.0); C]; R];
    let whole = tile.depth / S::LANES * S::LANES;
    let last = tile.depth - whole;
    // SAFETY: rows, terms and columns are inside of the tile.
    unsafe {
        for p in (0..whole).step_by(S::LANES) {
            let mut right = [simd.splat(0.0); C];
            for (j, right) in right.iter_mut().enumerate() {
                *right = simd.read(tile.b.add(j * tile.b_column + p));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let left = simd.read(tile.a.add(i * tile.a_row + p));
                for (sum, right) in sums.iter_mut().zip(&right) {
                    *sum = simd.mul_add(left, *right, *sum);
                }
            }
        }
        if last > 0 {
            for (i, sums) in sums.iter_mut().enumerate() {
                let left = simd.read_some(tile.a.add(i * tile.a_row + whole), last, 0.0);
                for (j, sum) in sums.iter_mut().enumerate() {
                    let right = tile.b.add(j * tile.b_column + whole);
                    *sum = simd.mul_add(left, simd.read_some(right, last, 0.0), *sum);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                let (c, sum) = (tile.c.add(i * tile.c_row + j), simd.sum(*sum));
                *c = if tile.adds { *c + sum } else { sum };
            }
        }
    }
}

/// What remains to be done with elements of the product when their sums are complete.
pub(super) struct Finish<'a> {
    pub(super) fused: Fused<'a>,
    /// Of the first element.
    pub(super) column: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// From a row to the next.
    pub(super) row_stride: usize,
    /// From the first element on.
    pub(super) elements: &'a mut [f32],
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // The sums have been added to what was there.
        let fused = Fused {
            accumulate: false,
            ..self.fused
        };
        for row in 0..self.rows {
            let row = row * self.row_stride;
            let row = &mut self.elements[row..row + self.columns];
            for (at, floats) in row.chunks_mut(S::LANES).enumerate() {
                let sum = simd.load_some(floats, 0.0);
                let sum = fused.of(simd, sum, self.column + at * S::LANES, floats);
                simd.store_some(floats, sum);
            }
        }
    }
}

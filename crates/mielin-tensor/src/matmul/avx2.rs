//! Vectors of 256 bits: 6 rows times 2 vectors are 12 sums in registers, with 2 vectors of the right factor and one
//! element of the left, of 16 registers.

use core::arch::x86_64::{
    __m256, __m256i, _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_maskload_ps, _mm256_maskstore_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};

use super::{DotTile, Kernel, TERMS, Tile};
use crate::backend::Backend;

#[derive(Clone, Copy)]
pub(super) struct Avx2(());

const LANES: usize = 8;

/// From the ninth on the first elements of a vector are masked in, from the one before on one more.
static MASKS: [i32; 2 * LANES] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

impl Avx2 {
    /// The kernel, if this processor has its instructions.
    pub(super) fn new() -> Option<Avx2> {
        super::proved(Backend::Avx2).then_some(Avx2(()))
    }
}

impl Kernel for Avx2 {
    const ROWS: usize = 6;
    const COLUMNS: usize = 2 * LANES;
    const DOT_ROWS: usize = 2;
    const DOT_COLUMNS: usize = 4;

    unsafe fn multiply(self, tile: Tile) {
        let vectors = tile.columns.div_ceil(LANES);
        let last = tile.columns - (vectors - 1) * LANES;
        // SAFETY: there is an `Avx2`, so the processor has the instructions; the rest is the caller's promise.
        unsafe {
            match vectors {
                1 => of_rows::<1>(tile, last),
                _ => of_rows::<2>(tile, last),
            }
        }
    }

    unsafe fn combine(self, tile: Tile) {
        // SAFETY: as above.
        unsafe { combine(tile) }
    }

    unsafe fn dot(self, tile: DotTile) {
        // SAFETY: there is an `Avx2`, so the processor has the instructions; the rest is the caller's promise.
        unsafe {
            match (tile.rows, tile.columns) {
                (1, 1) => dots::<1, 1>(tile),
                (1, 2) => dots::<1, 2>(tile),
                (1, 3) => dots::<1, 3>(tile),
                (1, _) => dots::<1, 4>(tile),
                (_, 1) => dots::<2, 1>(tile),
                (_, 2) => dots::<2, 2>(tile),
                (_, 3) => dots::<2, 3>(tile),
                (_, _) => dots::<2, 4>(tile),
            }
        }
    }
}

/// A row of the product from at most [`TERMS`] terms.
#[target_feature(enable = "avx2,fma")]
unsafe fn combine(tile: Tile) {
    // SAFETY: `rest` is less than 8, so 8 masks are there; terms and columns are inside of the tile; what a mask leaves
    // out is not read or written.
    unsafe {
        let left: [__m256; TERMS] = core::array::from_fn(|p| match p < tile.depth {
            true => _mm256_set1_ps(*tile.a.add(p * tile.a_step)),
            false => _mm256_setzero_ps(),
        });
        let whole = tile.columns / LANES * LANES;
        for column in (0..whole).step_by(LANES) {
            let (b, c) = (tile.b.add(column), tile.c.add(column));
            let mut sum = match tile.adds {
                true => _mm256_loadu_ps(c),
                false => _mm256_setzero_ps(),
            };
            if tile.depth == TERMS {
                for (p, left) in left.iter().enumerate() {
                    sum = _mm256_fmadd_ps(*left, _mm256_loadu_ps(b.add(p * tile.b_step)), sum);
                }
            } else {
                for (p, left) in left.iter().enumerate().take(tile.depth) {
                    sum = _mm256_fmadd_ps(*left, _mm256_loadu_ps(b.add(p * tile.b_step)), sum);
                }
            }
            _mm256_storeu_ps(c, sum);
        }
        let rest = tile.columns - whole;
        if rest > 0 {
            let mask: __m256i = _mm256_loadu_si256(MASKS.as_ptr().add(LANES - rest).cast());
            let (b, c) = (tile.b.add(whole), tile.c.add(whole));
            let mut sum = match tile.adds {
                true => _mm256_maskload_ps(c, mask),
                false => _mm256_setzero_ps(),
            };
            for (p, left) in left.iter().enumerate().take(tile.depth) {
                sum = _mm256_fmadd_ps(*left, _mm256_maskload_ps(b.add(p * tile.b_step), mask), sum);
            }
            _mm256_maskstore_ps(c, mask, sum);
        }
    }
}

/// Sums of products along `R` rows and `C` columns.
#[target_feature(enable = "avx2,fma")]
unsafe fn dots<const R: usize, const C: usize>(tile: DotTile) {
    let mut sums = [[_mm256_setzero_ps(); C]; R];
    // SAFETY: `rest` is less than 8, so 8 masks are there; rows, terms and columns are inside of the tile; what a mask
    // leaves out is not read.
    unsafe {
        let whole = tile.depth / LANES * LANES;
        let rest = tile.depth - whole;
        for p in (0..whole).step_by(LANES) {
            let right: [__m256; C] =
                core::array::from_fn(|j| _mm256_loadu_ps(tile.b.add(j * tile.b_column + p)));
            for (i, sums) in sums.iter_mut().enumerate() {
                let left = _mm256_loadu_ps(tile.a.add(i * tile.a_row + p));
                for (sum, right) in sums.iter_mut().zip(&right) {
                    *sum = _mm256_fmadd_ps(left, *right, *sum);
                }
            }
        }
        if rest > 0 {
            let mask: __m256i = _mm256_loadu_si256(MASKS.as_ptr().add(LANES - rest).cast());
            for (i, sums) in sums.iter_mut().enumerate() {
                let left = _mm256_maskload_ps(tile.a.add(i * tile.a_row + whole), mask);
                for (j, sum) in sums.iter_mut().enumerate() {
                    let right = tile.b.add(j * tile.b_column + whole);
                    *sum = _mm256_fmadd_ps(left, _mm256_maskload_ps(right, mask), *sum);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                let mut lanes = [0.0; LANES];
                _mm256_storeu_ps(lanes.as_mut_ptr(), *sum);
                let halves: [f32; LANES / 2] =
                    core::array::from_fn(|lane| lanes[lane] + lanes[lane + 4]);
                *tile.c.add(i * tile.c_row + j) = (halves[0] + halves[2]) + (halves[1] + halves[3]);
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn of_rows<const V: usize>(tile: Tile, last: usize) {
    // SAFETY: as for this function.
    unsafe {
        match tile.rows {
            1 => block::<1, V>(tile, last),
            2 => block::<2, V>(tile, last),
            3 => block::<3, V>(tile, last),
            4 => block::<4, V>(tile, last),
            5 => block::<5, V>(tile, last),
            _ => block::<6, V>(tile, last),
        }
    }
}

/// `R` rows times `V` vectors, of which the last has `last` elements.
#[target_feature(enable = "avx2,fma")]
unsafe fn block<const R: usize, const V: usize>(tile: Tile, last: usize) {
    let mut sums = [[_mm256_setzero_ps(); V]; R];
    let (mut a, mut b) = (tile.a, tile.b);
    // SAFETY: `last` is 1 to 8, so 8 masks are there; rows, terms and columns are inside of the tile.
    unsafe {
        let mask: __m256i = _mm256_loadu_si256(MASKS.as_ptr().add(LANES - last).cast());
        if last == LANES {
            for _ in 0..tile.depth {
                let right: [__m256; V] =
                    core::array::from_fn(|v| _mm256_loadu_ps(b.add(v * LANES)));
                add_products(&mut sums, &right, a, tile.a_row);
                (a, b) = (a.wrapping_add(tile.a_step), b.wrapping_add(tile.b_step));
            }
        } else {
            for _ in 0..tile.depth {
                let mut right = [_mm256_setzero_ps(); V];
                for (v, right) in right.iter_mut().enumerate().take(V - 1) {
                    *right = _mm256_loadu_ps(b.add(v * LANES));
                }
                right[V - 1] = _mm256_maskload_ps(b.add((V - 1) * LANES), mask);
                add_products(&mut sums, &right, a, tile.a_row);
                (a, b) = (a.wrapping_add(tile.a_step), b.wrapping_add(tile.b_step));
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            let c = tile.c.add(i * tile.c_row);
            for (v, sum) in sums.iter().enumerate() {
                let c = c.add(v * LANES);
                let is_whole = v < V - 1 || last == LANES;
                let sum = match (tile.adds, is_whole) {
                    (false, _) => *sum,
                    (true, true) => _mm256_add_ps(_mm256_loadu_ps(c), *sum),
                    (true, false) => _mm256_add_ps(_mm256_maskload_ps(c, mask), *sum),
                };
                if is_whole {
                    _mm256_storeu_ps(c, sum);
                } else {
                    _mm256_maskstore_ps(c, mask, sum);
                }
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn add_products<const R: usize, const V: usize>(
    sums: &mut [[__m256; V]; R],
    right: &[__m256; V],
    a: *const f32,
    a_row: usize,
) {
    for (i, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller has so many rows.
        let left = _mm256_set1_ps(unsafe { *a.add(i * a_row) });
        for (sum, right) in sums.iter_mut().zip(right) {
            *sum = _mm256_fmadd_ps(left, *right, *sum);
        }
    }
}

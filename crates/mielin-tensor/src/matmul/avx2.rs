//! Vectors of 256 bits: 6 rows times 2 vectors are 12 sums in registers, with 2 vectors of the right factor and one
//! element of the left, of 16 registers.

use core::arch::x86_64::{
    __m256, __m256i, _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_maskload_ps, _mm256_maskstore_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};

use super::{Kernel, Tile};
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

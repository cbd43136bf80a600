//! Vectors of 512 bits: 8 rows times 3 vectors are 24 sums in registers, with 3 vectors of the right factor and one
//! element of the left, of 32 registers.

use core::arch::x86_64::{
    __m512, __mmask16, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_ps, _mm512_reduce_add_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_storeu_ps,
};

use super::{DotTile, Kernel, TERMS, Tile};
use crate::backend::Backend;

#[derive(Clone, Copy)]
pub(super) struct Avx512(());

const LANES: usize = 16;

impl Avx512 {
    /// The kernel, if this processor has its instructions.
    pub(super) fn new() -> Option<Avx512> {
        super::proved(Backend::Avx512).then_some(Avx512(()))
    }
}

impl Kernel for Avx512 {
    const ROWS: usize = 8;
    const COLUMNS: usize = 3 * LANES;
    const DOT_ROWS: usize = 4;
    const DOT_COLUMNS: usize = 4;

    unsafe fn multiply(self, tile: Tile) {
        let vectors = tile.columns.div_ceil(LANES);
        let last = tile.columns - (vectors - 1) * LANES;
        let mask = u16::MAX >> (LANES - last);
        // SAFETY: there is an `Avx512`, so the processor has the instructions; the rest is the caller's promise.
        unsafe {
            match vectors {
                1 => of_rows::<1>(tile, mask),
                2 => of_rows::<2>(tile, mask),
                _ => of_rows::<3>(tile, mask),
            }
        }
    }

    unsafe fn combine(self, tile: Tile) {
        // SAFETY: as above.
        unsafe { combine(tile) }
    }

    unsafe fn dot(self, tile: DotTile) {
        // SAFETY: there is an `Avx512`, so the processor has the instructions; the rest is the caller's promise.
        unsafe {
            match tile.columns {
                1 => dots_of_rows::<1>(tile),
                2 => dots_of_rows::<2>(tile),
                3 => dots_of_rows::<3>(tile),
                _ => dots_of_rows::<4>(tile),
            }
        }
    }
}

/// A row of the product from at most [`TERMS`] terms.
#[target_feature(enable = "avx512f,fma")]
unsafe fn combine(tile: Tile) {
    // SAFETY: terms and columns are inside of the tile; what a mask leaves out is not read or written.
    unsafe {
        let left: [__m512; TERMS] = core::array::from_fn(|p| match p < tile.depth {
            true => _mm512_set1_ps(*tile.a.add(p * tile.a_step)),
            false => _mm512_setzero_ps(),
        });
        for column in (0..tile.columns).step_by(LANES) {
            let mask = match tile.columns - column {
                rest @ 1..LANES => u16::MAX >> (LANES - rest),
                _ => u16::MAX,
            };
            let (b, c) = (tile.b.add(column), tile.c.add(column));
            let mut sum = match tile.adds {
                true => _mm512_maskz_loadu_ps(mask, c),
                false => _mm512_setzero_ps(),
            };
            if tile.depth == TERMS && mask == u16::MAX {
                for (p, left) in left.iter().enumerate() {
                    sum = _mm512_fmadd_ps(*left, _mm512_loadu_ps(b.add(p * tile.b_step)), sum);
                }
            } else {
                for (p, left) in left.iter().enumerate().take(tile.depth) {
                    let right = _mm512_maskz_loadu_ps(mask, b.add(p * tile.b_step));
                    sum = _mm512_fmadd_ps(*left, right, sum);
                }
            }
            _mm512_mask_storeu_ps(c, mask, sum);
        }
    }
}

/// Sums of products along `R` rows and `C` columns.
#[target_feature(enable = "avx512f,fma")]
unsafe fn dots<const R: usize, const C: usize>(tile: DotTile) {
    let mut sums = [[_mm512_setzero_ps(); C]; R];
    // SAFETY: rows, terms and columns are inside of the tile; what a mask leaves out is not read.
    unsafe {
        let whole = tile.depth / LANES * LANES;
        for p in (0..whole).step_by(LANES) {
            let right: [__m512; C] =
                core::array::from_fn(|j| _mm512_loadu_ps(tile.b.add(j * tile.b_column + p)));
            for (i, sums) in sums.iter_mut().enumerate() {
                let left = _mm512_loadu_ps(tile.a.add(i * tile.a_row + p));
                for (sum, right) in sums.iter_mut().zip(&right) {
                    *sum = _mm512_fmadd_ps(left, *right, *sum);
                }
            }
        }
        if whole < tile.depth {
            let mask = u16::MAX >> (LANES - (tile.depth - whole));
            for (i, sums) in sums.iter_mut().enumerate() {
                let left = _mm512_maskz_loadu_ps(mask, tile.a.add(i * tile.a_row + whole));
                for (j, sum) in sums.iter_mut().enumerate() {
                    let right = tile.b.add(j * tile.b_column + whole);
                    *sum = _mm512_fmadd_ps(left, _mm512_maskz_loadu_ps(mask, right), *sum);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                *tile.c.add(i * tile.c_row + j) = _mm512_reduce_add_ps(*sum);
            }
        }
    }
}

#[target_feature(enable = "avx512f,fma")]
unsafe fn dots_of_rows<const C: usize>(tile: DotTile) {
    // SAFETY: as for this function.
    unsafe {
        match tile.rows {
            1 => dots::<1, C>(tile),
            2 => dots::<2, C>(tile),
            3 => dots::<3, C>(tile),
            _ => dots::<4, C>(tile),
        }
    }
}

#[target_feature(enable = "avx512f,fma")]
unsafe fn of_rows<const V: usize>(tile: Tile, mask: __mmask16) {
    // SAFETY: as for this function.
    unsafe {
        match tile.rows {
            1 => block::<1, V>(tile, mask),
            2 => block::<2, V>(tile, mask),
            3 => block::<3, V>(tile, mask),
            4 => block::<4, V>(tile, mask),
            5 => block::<5, V>(tile, mask),
            6 => block::<6, V>(tile, mask),
            7 => block::<7, V>(tile, mask),
            _ => block::<8, V>(tile, mask),
        }
    }
}

/// `R` rows times `V` vectors, of the last of which `mask` has the elements.
#[target_feature(enable = "avx512f,fma")]
unsafe fn block<const R: usize, const V: usize>(tile: Tile, mask: __mmask16) {
    let mut sums = [[_mm512_setzero_ps(); V]; R];
    let (mut a, mut b) = (tile.a, tile.b);
    // SAFETY: rows, terms and columns are inside of the tile.
    unsafe {
        if mask == u16::MAX {
            for _ in 0..tile.depth {
                let right: [__m512; V] =
                    core::array::from_fn(|v| _mm512_loadu_ps(b.add(v * LANES)));
                add_products(&mut sums, &right, a, tile.a_row);
                (a, b) = (a.wrapping_add(tile.a_step), b.wrapping_add(tile.b_step));
            }
        } else {
            for _ in 0..tile.depth {
                let mut right = [_mm512_setzero_ps(); V];
                for (v, right) in right.iter_mut().enumerate().take(V - 1) {
                    *right = _mm512_loadu_ps(b.add(v * LANES));
                }
                right[V - 1] = _mm512_maskz_loadu_ps(mask, b.add((V - 1) * LANES));
                add_products(&mut sums, &right, a, tile.a_row);
                (a, b) = (a.wrapping_add(tile.a_step), b.wrapping_add(tile.b_step));
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            let c = tile.c.add(i * tile.c_row);
            for (v, sum) in sums.iter().enumerate() {
                let c = c.add(v * LANES);
                let mask = if v == V - 1 { mask } else { u16::MAX };
                let there = match tile.adds {
                    true => _mm512_maskz_loadu_ps(mask, c),
                    false => _mm512_setzero_ps(),
                };
                let sum = if tile.adds {
                    _mm512_add_ps(there, *sum)
                } else {
                    *sum
                };
                if mask == u16::MAX {
                    _mm512_storeu_ps(c, sum);
                } else {
                    _mm512_mask_storeu_ps(c, mask, sum);
                }
            }
        }
    }
}

#[target_feature(enable = "avx512f,fma")]
#[inline]
unsafe fn add_products<const R: usize, const V: usize>(
    sums: &mut [[__m512; V]; R],
    right: &[__m512; V],
    a: *const f32,
    a_row: usize,
) {
    for (i, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller has so many rows.
        let left = _mm512_set1_ps(unsafe { *a.add(i * a_row) });
        for (sum, right) in sums.iter_mut().zip(right) {
            *sum = _mm512_fmadd_ps(left, *right, *sum);
        }
    }
}

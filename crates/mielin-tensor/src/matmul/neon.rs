//! Vectors of 128 bits of 64-bit Arm: 8 rows times 2 vectors are 16 sums in registers, with 2 vectors of the right factor
//! and one element of the left, of 32 registers.

use core::arch::aarch64::{
    float32x4_t, vaddq_f32, vaddvq_f32, vdupq_n_f32, vfmaq_f32, vfmaq_n_f32, vld1q_f32, vst1q_f32,
};

use super::{DotTile, Kernel, Tile};
use crate::backend::Backend;

#[derive(Clone, Copy)]
pub(super) struct Neon(());

const LANES: usize = 4;
const VECTORS: usize = 2;

impl Neon {
    /// The kernel, if this processor has its instructions.
    pub(super) fn new() -> Option<Neon> {
        super::proved(Backend::Neon).then_some(Neon(()))
    }
}

impl Kernel for Neon {
    const ROWS: usize = 8;
    const COLUMNS: usize = VECTORS * LANES;
    const DOT_ROWS: usize = 1;
    const DOT_COLUMNS: usize = 4;

    unsafe fn multiply(self, tile: Tile) {
        // SAFETY: there is a `Neon`, so the processor has the instructions; the rest is the caller's promise.
        unsafe {
            match (tile.rows, tile.columns == Self::COLUMNS) {
                (1, true) => block::<1>(tile),
                (2, true) => block::<2>(tile),
                (3, true) => block::<3>(tile),
                (4, true) => block::<4>(tile),
                (5, true) => block::<5>(tile),
                (6, true) => block::<6>(tile),
                (7, true) => block::<7>(tile),
                (8, true) => block::<8>(tile),
                _ => narrow(tile),
            }
        }
    }

    unsafe fn dot(self, tile: DotTile) {
        // SAFETY: there is a `Neon`, so the processor has the instructions; the rest is the caller's promise.
        unsafe {
            match tile.columns {
                1 => dots::<1>(tile),
                2 => dots::<2>(tile),
                3 => dots::<3>(tile),
                _ => dots::<4>(tile),
            }
        }
    }
}

/// Sums of products along a row and `C` columns.
#[target_feature(enable = "neon")]
unsafe fn dots<const C: usize>(tile: DotTile) {
    let mut sums = [vdupq_n_f32(0.0); C];
    // SAFETY: terms and columns are inside of the tile.
    unsafe {
        let whole = tile.depth / LANES * LANES;
        for p in (0..whole).step_by(LANES) {
            let left = vld1q_f32(tile.a.add(p));
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = vfmaq_f32(*sum, left, vld1q_f32(tile.b.add(j * tile.b_column + p)));
            }
        }
        for (j, sum) in sums.iter().enumerate() {
            let mut total = vaddvq_f32(*sum);
            for p in whole..tile.depth {
                total += *tile.a.add(p) * *tile.b.add(j * tile.b_column + p);
            }
            *tile.c.add(j) = total;
        }
    }
}

/// `R` rows of whole vectors.
#[target_feature(enable = "neon")]
unsafe fn block<const R: usize>(tile: Tile) {
    let mut sums = [[vdupq_n_f32(0.0); VECTORS]; R];
    let (mut a, mut b) = (tile.a, tile.b);
    // SAFETY: rows, terms and columns are inside of the tile.
    unsafe {
        for _ in 0..tile.depth {
            let right: [float32x4_t; VECTORS] =
                core::array::from_fn(|v| vld1q_f32(b.add(v * LANES)));
            for (i, sums) in sums.iter_mut().enumerate() {
                let left = *a.add(i * tile.a_row);
                for (sum, right) in sums.iter_mut().zip(&right) {
                    *sum = vfmaq_n_f32(*sum, *right, left);
                }
            }
            (a, b) = (a.wrapping_add(tile.a_step), b.wrapping_add(tile.b_step));
        }
        for (i, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let c = tile.c.add(i * tile.c_row + v * LANES);
                let sum = if tile.adds {
                    vaddq_f32(vld1q_f32(c), *sum)
                } else {
                    *sum
                };
                vst1q_f32(c, sum);
            }
        }
    }
}

/// Fewer columns than two vectors have, one by one, rounded as the vectors are.
#[target_feature(enable = "neon")]
unsafe fn narrow(tile: Tile) {
    for i in 0..tile.rows {
        for j in 0..tile.columns {
            let mut sum = vdupq_n_f32(0.0);
            // SAFETY: row, term and column are inside of the tile.
            unsafe {
                for p in 0..tile.depth {
                    let left = *tile.a.add(i * tile.a_row + p * tile.a_step);
                    let right = vdupq_n_f32(*tile.b.add(p * tile.b_step + j));
                    sum = vfmaq_n_f32(sum, right, left);
                }
                let c = tile.c.add(i * tile.c_row + j);
                let sum = core::arch::aarch64::vgetq_lane_f32::<0>(sum);
                *c = if tile.adds { *c + sum } else { sum };
            }
        }
    }
}

//! Plain Rust. The compiler may use what the target has in every processor.

use super::{DotTile, Kernel, Tile};

#[derive(Clone, Copy)]
pub(super) struct Scalar;

const ROWS: usize = 4;
const COLUMNS: usize = 8;

impl Kernel for Scalar {
    const ROWS: usize = ROWS;
    const COLUMNS: usize = COLUMNS;
    const DOT_ROWS: usize = 1;
    const DOT_COLUMNS: usize = COLUMNS;

    unsafe fn multiply(self, tile: Tile) {
        let mut sums = [[0.0_f32; COLUMNS]; ROWS];
        for p in 0..tile.depth {
            for (i, sums) in sums.iter_mut().enumerate().take(tile.rows) {
                // SAFETY: row and term are inside of the tile.
                let a = unsafe { *tile.a.add(i * tile.a_row + p * tile.a_step) };
                for (j, sum) in sums.iter_mut().enumerate().take(tile.columns) {
                    // SAFETY: term and column are inside of the tile.
                    *sum += a * unsafe { *tile.b.add(p * tile.b_step + j) };
                }
            }
        }
        for (i, sums) in sums.iter().enumerate().take(tile.rows) {
            for (j, sum) in sums.iter().enumerate().take(tile.columns) {
                // SAFETY: row and column are inside of the tile.
                let c = unsafe { &mut *tile.c.add(i * tile.c_row + j) };
                *c = if tile.adds { *c + sum } else { *sum };
            }
        }
    }

    unsafe fn dot(self, tile: DotTile) {
        for i in 0..tile.rows {
            for j in 0..tile.columns {
                let mut sum = 0.0;
                // SAFETY: row, term and column are inside of the tile.
                unsafe {
                    for p in 0..tile.depth {
                        let left = *tile.a.add(i * tile.a_row + p);
                        sum += left * *tile.b.add(j * tile.b_column + p);
                    }
                    *tile.c.add(i * tile.c_row + j) = sum;
                }
            }
        }
    }
}

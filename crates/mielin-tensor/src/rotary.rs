//! Rotary position embedding (Su et al., *RoFormer*, arXiv:2104.09864).

use alloc::vec::Vec;
use core::fmt;

use crate::backend::Backend;
use crate::elementwise::{LengthError, expect_length};
use crate::simd::{self, Kernel, Simd};

/// Which two elements of a row are turned together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RotaryPairs {
    /// The first with the second, the third with the fourth, as in the paper.
    Neighbours,
    /// Each of the first half with the one as far in the second, as GPT-NeoX and Llama have it.
    Halves,
}

/// Cosines and sines of some positions for rows of some width: half as many of each as the rows have elements.
///
/// The angle of pair `i` at position `p` is `p · base^(-2i / width)`, computed in twice the precision.
#[derive(Clone, Debug, PartialEq)]
pub struct RotaryTable {
    width: usize,
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

/// There is no such table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RotaryError {
    /// Rows have no whole number of pairs.
    OddWidth {
        /// Elements of a row.
        width: usize,
    },
    /// There is no memory for the cosines and sines.
    Memory {
        /// Positions.
        positions: usize,
        /// Elements of a row.
        width: usize,
    },
}

impl fmt::Display for RotaryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OddWidth { width } => {
                write!(f, "a row has an odd number of elements, {width}")
            }
            Self::Memory { positions, width } => {
                write!(
                    f,
                    "there is no memory for {positions} positions of {width} elements"
                )
            }
        }
    }
}

impl core::error::Error for RotaryError {}

impl RotaryTable {
    /// For `positions` positions from 0 on. `base` is 10,000 in the paper.
    ///
    /// # Errors
    /// See [`RotaryError`].
    pub fn new(positions: usize, width: usize, base: f64) -> Result<RotaryTable, RotaryError> {
        if !width.is_multiple_of(2) {
            return Err(RotaryError::OddWidth { width });
        }
        let half = width / 2;
        let count = positions.saturating_mul(half);
        let room = || {
            let mut room = Vec::new();
            match room.try_reserve_exact(count) {
                Ok(()) => Ok(room),
                Err(_) => Err(RotaryError::Memory { positions, width }),
            }
        };
        let (mut cosines, mut sines) = (room()?, room()?);
        let angles = |position: usize| {
            (0..half).map(move |pair| {
                let exponent = -2.0 * pair as f64 / width as f64;
                position as f64 * libm::pow(base, exponent)
            })
        };
        if half > 0 {
            for angle in (0..positions).flat_map(angles) {
                cosines.push(libm::cos(angle) as f32);
                sines.push(libm::sin(angle) as f32);
            }
        }
        Ok(RotaryTable {
            width,
            cosines,
            sines,
        })
    }

    /// For how many positions it is.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.cosines.len().checked_div(self.width / 2).unwrap_or(0)
    }

    /// Turns the pairs of each row of `elements`, the first of which is at position `first`.
    ///
    /// # Errors
    /// The elements are not so many whole rows as the table has positions from `first` on, or fewer.
    pub fn apply(
        &self,
        pairs: RotaryPairs,
        first: usize,
        elements: &mut [f32],
    ) -> Result<(), LengthError> {
        let positions = self.positions().saturating_sub(first);
        let rows = elements.len().checked_div(self.width).unwrap_or(0);
        expect_length(
            "the matrix",
            elements.len(),
            rows.min(positions) * self.width,
        )?;
        if rows == 0 {
            return Ok(());
        }
        let half = self.width / 2;
        let range = first * half..(first + rows) * half;
        let turn = Turn {
            pairs,
            width: self.width,
            cosines: &self.cosines[range.clone()],
            sines: &self.sines[range],
            elements,
        };
        simd::run(Backend::active(), turn);
        Ok(())
    }
}

struct Turn<'a> {
    pairs: RotaryPairs,
    width: usize,
    cosines: &'a [f32],
    sines: &'a [f32],
    elements: &'a mut [f32],
}

impl Kernel for Turn<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let half = self.width / 2;
        let angles = self
            .cosines
            .chunks_exact(half)
            .zip(self.sines.chunks_exact(half));
        for (row, (cosines, sines)) in self.elements.chunks_exact_mut(self.width).zip(angles) {
            match self.pairs {
                RotaryPairs::Neighbours => {
                    let angles = cosines.iter().zip(sines);
                    for (pair, (cosine, sine)) in row.chunks_exact_mut(2).zip(angles) {
                        let (x, y) = (pair[0], pair[1]);
                        pair[0] = x * cosine - y * sine;
                        pair[1] = x * sine + y * cosine;
                    }
                }
                RotaryPairs::Halves => {
                    let (xs, ys) = row.split_at_mut(half);
                    let angles = cosines.chunks(S::LANES).zip(sines.chunks(S::LANES));
                    let pairs = xs.chunks_mut(S::LANES).zip(ys.chunks_mut(S::LANES));
                    for ((xs, ys), (cosines, sines)) in pairs.zip(angles) {
                        let (x, y) = (simd.load_some(xs, 0.0), simd.load_some(ys, 0.0));
                        let cosine = simd.load_some(cosines, 0.0);
                        let sine = simd.load_some(sines, 0.0);
                        let turned = simd.sub(simd.mul(x, cosine), simd.mul(y, sine));
                        simd.store_some(xs, turned);
                        let turned = simd.add(simd.mul(x, sine), simd.mul(y, cosine));
                        simd.store_some(ys, turned);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::simd::tests::{numbers, supported};

    #[test]
    fn pairs_are_turned_by_their_angles() {
        for width in [2, 6, 32, 34, 64] {
            let (rows, first) = (5, 3);
            let table = RotaryTable::new(first + rows, width, 10_000.0).unwrap();
            assert_eq!(table.positions(), first + rows);
            for pairs in [RotaryPairs::Neighbours, RotaryPairs::Halves] {
                for backend in supported() {
                    let before = numbers(rows * width, 1);
                    let mut after = before.clone();
                    let turn = Turn {
                        pairs,
                        width,
                        cosines: &table.cosines[first * width / 2..],
                        sines: &table.sines[first * width / 2..],
                        elements: &mut after,
                    };
                    simd::run(backend, turn);
                    for row in 0..rows {
                        for pair in 0..width / 2 {
                            let (i, j) = match pairs {
                                RotaryPairs::Neighbours => (2 * pair, 2 * pair + 1),
                                RotaryPairs::Halves => (pair, pair + width / 2),
                            };
                            let (i, j) = (row * width + i, row * width + j);
                            let slower = 10_000_f64.powf(-2.0 * pair as f64 / width as f64);
                            let (sine, cosine) = ((first + row) as f64 * slower).sin_cos();
                            let (x, y) = (f64::from(before[i]), f64::from(before[j]));
                            let near = |found: f32, exact: f64| {
                                assert!((f64::from(found) - exact).abs() < 3e-7, "{backend}");
                            };
                            near(after[i], x * cosine - y * sine);
                            near(after[j], x * sine + y * cosine);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn positions_that_the_table_lacks_are_refused() {
        RotaryTable::new(4, 3, 10_000.0).unwrap_err();
        let table = RotaryTable::new(4, 2, 10_000.0).unwrap();
        let mut rows = [1.0; 8];
        table.apply(RotaryPairs::Halves, 0, &mut rows).unwrap();
        let turned = rows;
        table.apply(RotaryPairs::Halves, 1, &mut rows).unwrap_err();
        table
            .apply(RotaryPairs::Halves, usize::MAX, &mut rows)
            .unwrap_err();
        table
            .apply(RotaryPairs::Halves, 0, &mut rows[..3])
            .unwrap_err();
        assert_eq!(rows, turned);
        table
            .apply(RotaryPairs::Halves, usize::MAX, &mut [])
            .unwrap();
        let none = RotaryTable::new(4, 0, 10_000.0).unwrap();
        none.apply(RotaryPairs::Neighbours, 0, &mut []).unwrap();
        none.apply(RotaryPairs::Neighbours, 0, &mut rows)
            .unwrap_err();
    }
}

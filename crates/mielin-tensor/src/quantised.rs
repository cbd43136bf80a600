//! Matrices of signed bytes with a scale for each row.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::backend::Backend;
use crate::elementwise::{LengthError, expect_length};
use crate::matmul::{Fused, expect_product, matmul_i8_by, part};
use crate::matrix::{MatMut, MatRef, MatrixError};
use crate::parallel::{Parallel, share_rows};
use crate::simd::{self, Kernel, Simd};

/// The largest magnitude of a byte, so that there is a negative of each.
const BYTE_MAX: f32 = 127.0;
/// Rows whose sums are held as integers.
const BLOCK_ROWS: usize = 64;
/// Products of two bytes that are worth a thread.
const PRODUCTS_MIN: usize = 1 << 21;

/// Rows of bytes, each with a scale: the element in row `i` and column `j` is `values[i, j] · scales[i]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantised {
    values: Vec<i8>,
    scales: Vec<f32>,
    width: usize,
}

/// An element that no scale makes a byte of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuantiseError {
    /// An element is infinite or not a number.
    NotFinite {
        /// Its row.
        row: usize,
    },
    /// There is no memory for the bytes.
    Memory {
        /// Rows and columns.
        shape: [usize; 2],
    },
}

impl fmt::Display for QuantiseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite { row } => {
                write!(f, "row {row} has an element that is not finite")
            }
            Self::Memory {
                shape: [rows, width],
            } => write!(f, "there is no memory for {rows} × {width} bytes"),
        }
    }
}

impl core::error::Error for QuantiseError {}

impl Quantised {
    /// The nearest bytes from -127 to 127, with the scale by which the largest magnitude of a row becomes 127.
    ///
    /// # Errors
    /// See [`QuantiseError`].
    pub fn of(matrix: MatRef<'_, f32>) -> Result<Quantised, QuantiseError> {
        let ([rows, width], [row_stride, stride]) = (matrix.shape(), matrix.strides());
        let (mut values, mut scales) = (Vec::new(), Vec::new());
        let room = values.try_reserve_exact(rows.saturating_mul(width));
        room.and_then(|()| scales.try_reserve_exact(rows))
            .map_err(|_| QuantiseError::Memory {
                shape: [rows, width],
            })?;
        for row in 0..rows {
            let element = |column: usize| matrix.elements()[row * row_stride + column * stride];
            let mut max = 0.0_f32;
            for column in 0..width {
                let magnitude = element(column).abs();
                if !magnitude.is_finite() {
                    return Err(QuantiseError::NotFinite { row });
                }
                max = max.max(magnitude);
            }
            // As 1 / max may be infinite.
            let scale = max / BYTE_MAX;
            scales.push(scale);
            values.extend((0..width).map(|column| match scale > 0.0 {
                true => libm::rintf(element(column) / scale).clamp(-BYTE_MAX, BYTE_MAX) as i8,
                false => 0,
            }));
        }
        Ok(Quantised {
            values,
            scales,
            width,
        })
    }

    /// Takes values, one row after the other, and their scales, as somebody else made them.
    ///
    /// # Errors
    /// There are not as many values as the rows have.
    pub fn from_parts(
        values: Vec<i8>,
        scales: Vec<f32>,
        width: usize,
    ) -> Result<Quantised, LengthError> {
        let expected = scales.len().saturating_mul(width);
        expect_length("the matrix", values.len(), expected)?;
        Ok(Quantised {
            values,
            scales,
            width,
        })
    }

    /// Rows and columns.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        [self.scales.len(), self.width]
    }

    /// The bytes.
    #[must_use]
    pub fn values(&self) -> &[i8] {
        &self.values
    }

    /// The scale of each row.
    #[must_use]
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    fn matrix(&self) -> MatRef<'_, i8> {
        let [rows, width] = self.shape();
        MatRef::row_major(&self.values, rows, width).expect("it has the values of its rows")
    }
}

/// `c = function(a · bᵀ + bias)`, or with `c + `, as [`Fused`] says: the rows of `b` are what the columns of the right factor are elsewhere, as
/// weights are stored. `a` is `[m, k]`, `b` is `[n, k]`, `c` is `[m, n]`.
///
/// Sums are exact integers up to 2¹⁷ - 8 terms; each is multiplied with the product of both scales.
///
/// # Errors
/// [`MatrixError::Product`] or [`MatrixError::Bias`] if the shapes do not fit together.
pub fn matmul_quantised(
    parallel: &dyn Parallel,
    a: &Quantised,
    b: &Quantised,
    fused: Fused<'_>,
    c: &mut MatMut<'_, f32>,
) -> Result<(), MatrixError> {
    matmul_quantised_by(Backend::active(), parallel, a, b, fused, c)
}

fn matmul_quantised_by(
    backend: Backend,
    parallel: &dyn Parallel,
    a: &Quantised,
    b: &Quantised,
    fused: Fused<'_>,
    c: &mut MatMut<'_, f32>,
) -> Result<(), MatrixError> {
    let ([rows, depth], [columns, _]) = (a.shape(), b.shape());
    let (left, right) = (a.matrix(), b.matrix().transposed());
    expect_product(left.shape(), right.shape(), c.shape(), fused)?;
    let products = rows.saturating_mul(depth).saturating_mul(columns);
    let parts = parallel
        .threads()
        .min(rows.div_ceil(BLOCK_ROWS))
        .min(products / PRODUCTS_MIN);
    share_rows(parallel, parts, BLOCK_ROWS, c, |first, c| {
        let rows = c.shape()[0];
        let mut sums = vec![0_i32; BLOCK_ROWS.min(rows) * columns];
        for block in (0..rows).step_by(BLOCK_ROWS) {
            let count = BLOCK_ROWS.min(rows - block);
            let left = part(left, [first + block, 0], [count, depth]);
            let product = MatMut::row_major(&mut sums, count, columns);
            let multiplied = product.and_then(|mut c| matmul_i8_by(backend, left, right, &mut c));
            multiplied.expect("the shapes were compared, and there is room for the sums");
            for row in 0..count {
                let range = c.row(block + row);
                let scale = Scale {
                    sums: &sums[row * columns..][..columns],
                    scale: a.scales[first + block + row],
                    scales: &b.scales,
                    fused,
                    to: &mut c.elements_mut()[range],
                };
                simd::run(backend, scale);
            }
        }
    });
    Ok(())
}

struct Scale<'a> {
    sums: &'a [i32],
    scale: f32,
    scales: &'a [f32],
    fused: Fused<'a>,
    to: &'a mut [f32],
}

impl Kernel for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let scale = simd.splat(self.scale);
        let parts = self.sums.chunks(S::LANES).zip(self.scales.chunks(S::LANES));
        for (at, (to, (sums, scales))) in self.to.chunks_mut(S::LANES).zip(parts).enumerate() {
            let scales = simd.mul(scale, simd.load_some(scales, 0.0));
            let sum = simd.mul(simd.load_integers(sums), scales);
            let sum = self.fused.of(simd, sum, at * S::LANES, to);
            simd.store_some(to, sum);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::elementwise::Unary;
    use crate::parallel::Alone;
    use crate::simd::tests::{numbers, supported};

    #[test]
    fn bytes_are_the_nearest() {
        let elements = [
            1.0, -0.5, 0.25, 0.0, 0.0, 0.0, 1e-45, -3e38, 254.0, 1.0, 3.0, -5.0,
        ];
        let matrix = MatRef::row_major(&elements, 4, 3).unwrap();
        let quantised = Quantised::of(matrix).unwrap();
        assert_eq!(quantised.values()[..6], [127, -64, 32, 0, 0, 0]);
        assert_eq!(quantised.values()[6..9], [0, -127, 0]);
        // Halves go to even ones.
        let matrix = MatRef::row_major(&elements, 6, 2).unwrap();
        assert_eq!(Quantised::of(matrix).unwrap().values()[8..10], [127, 0]);
        assert_eq!(quantised.scales()[1], 0.0);
        for bad in [f32::NAN, f32::INFINITY] {
            let elements = [1.0, 1.0, bad, 1.0];
            let error = Quantised::of(MatRef::row_major(&elements, 2, 2).unwrap()).unwrap_err();
            assert_eq!(error, QuantiseError::NotFinite { row: 1 });
        }
        Quantised::from_parts(vec![0; 5], vec![1.0; 2], 3).unwrap_err();
        Quantised::from_parts(vec![0; 5], vec![1.0; 2], usize::MAX).unwrap_err();
    }

    #[test]
    fn products_are_those_of_what_the_bytes_mean() {
        for backend in supported() {
            for [rows, depth, columns] in [[1, 40, 33], [5, 70, 50], [130, 100, 20], [3, 0, 2]] {
                let (left, right) = (numbers(rows * depth, 1), numbers(columns * depth, 2));
                let bias = numbers(columns, 3);
                let a = Quantised::of(MatRef::row_major(&left, rows, depth).unwrap()).unwrap();
                let b = Quantised::of(MatRef::row_major(&right, columns, depth).unwrap()).unwrap();
                let mut out = vec![0.5; rows * columns];
                let mut c = MatMut::row_major(&mut out, rows, columns).unwrap();
                let fused = Fused {
                    accumulate: true,
                    bias: Some(&bias),
                    function: Some(Unary::Relu),
                };
                matmul_quantised_by(backend, &Alone, &a, &b, fused, &mut c).unwrap();
                for (at, found) in out.iter().enumerate() {
                    let (i, j) = (at / columns, at % columns);
                    let term = |p: usize| {
                        let (a, b) = (a.values[i * depth + p], b.values[j * depth + p]);
                        f64::from(a) * f64::from(b)
                    };
                    let sum = (0..depth).map(term).sum::<f64>()
                        * f64::from(a.scales[i])
                        * f64::from(b.scales[j]);
                    let exact = (0.5 + sum + f64::from(bias[j])).max(0.0);
                    assert!(
                        (f64::from(*found) - exact).abs() < 1e-5,
                        "{backend} {found} {exact}"
                    );
                }
            }
        }
        let a = Quantised::of(MatRef::row_major(&[1.0; 6], 2, 3).unwrap()).unwrap();
        let mut out = [0.0; 9];
        let mut c = MatMut::row_major(&mut out, 3, 3).unwrap();
        matmul_quantised(&Alone, &a, &a, Fused::default(), &mut c).unwrap_err();
    }
}

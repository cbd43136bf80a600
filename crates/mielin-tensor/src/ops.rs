//! Arithmetic on tensors: the matrix product by its kernels, the rest in loops that the compiler can vectorize.

use crate::matmul::matmul;
use crate::matrix::{MatMut, MatRef};
use crate::tensor::{ShapeError, Tensor};

/// Arithmetic whose operands must have fitting shapes. There is no broadcasting.
///
/// Every operation follows IEEE 754 for infinities and NaN: nothing is skipped because a factor
/// is zero.
pub trait TensorOps: Sized {
    /// `c[i] = a[i] + b[i]`.
    ///
    /// # Errors
    /// [`ShapeError::Mismatch`] if the shapes differ.
    fn add(&self, other: &Self) -> Result<Self, ShapeError>;

    /// `c[i] = a[i] · b[i]`, element by element. The matrix product is [`TensorOps::matmul`].
    ///
    /// # Errors
    /// [`ShapeError::Mismatch`] if the shapes differ.
    fn mul(&self, other: &Self) -> Result<Self, ShapeError>;

    /// `c[i] = factor · a[i]`.
    #[must_use]
    fn scale(&self, factor: f32) -> Self;

    /// `c[i, j] = Σ a[i, p] · b[p, j]` for `a` of shape `[m, k]` and `b` of shape `[k, n]`.
    /// It is computed by [`matmul`](crate::matmul()), with what that says of the order of sums.
    ///
    /// # Errors
    /// [`ShapeError::MatMul`] if an operand is not a matrix or the inner lengths differ.
    ///
    /// # Panics
    /// If the number of elements of the product overflows the address space.
    fn matmul(&self, other: &Self) -> Result<Self, ShapeError>;

    /// The sum of all elements, accumulated in `f64` and rounded once. 0 if there are none.
    #[must_use]
    fn sum(&self) -> f32;
}

impl TensorOps for Tensor {
    fn add(&self, other: &Self) -> Result<Self, ShapeError> {
        zip_with(self, other, |a, b| a + b)
    }

    fn mul(&self, other: &Self) -> Result<Self, ShapeError> {
        zip_with(self, other, |a, b| a * b)
    }

    fn scale(&self, factor: f32) -> Self {
        let elements = self.as_slice().iter().map(|a| factor * a).collect();
        Self::from_vec(elements, self.shape()).expect("the element count is unchanged")
    }

    fn matmul(&self, other: &Self) -> Result<Self, ShapeError> {
        let (&[rows, inner], &[other_inner, columns]) = (self.shape(), other.shape()) else {
            return Err(matmul_error(self, other));
        };
        if inner != other_inner {
            return Err(matmul_error(self, other));
        }
        let mut product = Self::zeros(&[rows, columns]).into_vec();
        let a = MatRef::row_major(self.as_slice(), rows, inner);
        let b = MatRef::row_major(other.as_slice(), inner, columns);
        let c = MatMut::row_major(&mut product, rows, columns);
        let multiplied = a.and_then(|a| matmul(a, b?, &mut c?));
        multiplied.expect("tensors have the elements of their shapes, and these fit together");
        Self::from_vec(product, &[rows, columns])
    }

    fn sum(&self) -> f32 {
        self.as_slice().iter().map(|&a| f64::from(a)).sum::<f64>() as f32
    }
}

fn zip_with(a: &Tensor, b: &Tensor, f: impl Fn(f32, f32) -> f32) -> Result<Tensor, ShapeError> {
    if a.shape() != b.shape() {
        return Err(ShapeError::Mismatch {
            left: a.shape().to_vec(),
            right: b.shape().to_vec(),
        });
    }
    let elements = a
        .as_slice()
        .iter()
        .zip(b.as_slice())
        .map(|(&a, &b)| f(a, b))
        .collect();
    Tensor::from_vec(elements, a.shape())
}

fn matmul_error(a: &Tensor, b: &Tensor) -> ShapeError {
    ShapeError::MatMul {
        left: a.shape().to_vec(),
        right: b.shape().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn counting(shape: &[usize]) -> Tensor {
        let count = shape.iter().product::<usize>();
        let elements = (0..count).map(|i| (i * 7 % 11) as f32 - 4.0).collect();
        Tensor::from_vec(elements, shape).expect("fits")
    }

    #[test]
    fn elementwise() {
        let a = Tensor::from_vec(vec![1., 2., 3.], &[3]).expect("fits");
        let b = Tensor::from_vec(vec![10., 20., 30.], &[3]).expect("fits");
        assert_eq!(a.add(&b).expect("same shape").as_slice(), [11., 22., 33.]);
        assert_eq!(a.mul(&b).expect("same shape").as_slice(), [10., 40., 90.]);
        assert_eq!(a.scale(2.0).as_slice(), [2., 4., 6.]);
    }

    #[test]
    fn equal_size_is_not_equal_shape() {
        let (a, b) = (Tensor::ones(&[2, 3]), Tensor::ones(&[3, 2]));
        let error = a.add(&b).expect_err("shapes differ");
        assert_eq!(
            error,
            ShapeError::Mismatch {
                left: vec![2, 3],
                right: vec![3, 2]
            }
        );
    }

    /// Against the definition, with `get`, over odd and empty shapes.
    #[test]
    fn matmul_matches_its_definition() {
        for (m, k, n) in [
            (1, 1, 1),
            (2, 3, 4),
            (5, 7, 3),
            (1, 9, 2),
            (0, 3, 2),
            (2, 0, 3),
            (2, 3, 0),
        ] {
            let (a, b) = (counting(&[m, k]), counting(&[k, n]));
            let product = a.matmul(&b).expect("fits");
            assert_eq!(product.shape(), [m, n]);
            let expected: Vec<f32> = (0..m * n)
                .map(|at| {
                    let (i, j) = (at / n, at % n);
                    (0..k)
                        .map(|p| a.get(&[i, p]).expect("inside") * b.get(&[p, j]).expect("inside"))
                        .sum()
                })
                .collect();
            assert_eq!(product.as_slice(), expected, "{m} {k} {n}");
        }
    }

    #[test]
    fn matmul_refuses_what_does_not_fit() {
        for (a, b) in [
            (&[2, 3][..], &[2, 3][..]),
            (&[3], &[3, 1]),
            (&[2, 2, 2], &[2, 2]),
        ] {
            assert!(
                Tensor::ones(a).matmul(&Tensor::ones(b)).is_err(),
                "{a:?} {b:?}"
            );
        }
    }

    #[test]
    fn a_zero_does_not_hide_nan() {
        let a = Tensor::zeros(&[1, 1]);
        let b = Tensor::from_vec(vec![f32::NAN], &[1, 1]).expect("fits");
        assert!(a.matmul(&b).expect("fits").as_slice()[0].is_nan());
    }

    #[test]
    fn sum_keeps_small_terms() {
        let mut elements = vec![1.0; 1000];
        elements[0] = 16_777_216.0;
        // In f32 each single 1 added to 2²⁴ would vanish.
        assert_eq!(
            Tensor::from_vec(elements, &[10, 100]).expect("fits").sum(),
            16_778_215.0
        );
        assert_eq!(Tensor::zeros(&[0]).sum(), 0.0);
    }
}

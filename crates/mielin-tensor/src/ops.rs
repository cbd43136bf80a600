//! Arithmetic on arrays.

mod elementwise;
mod product;
mod reduction;

use crate::element::Element;
use crate::error::ShapeError;
use crate::tensor::Tensor;
use crate::view::TensorView;

/// Arithmetic of [`Tensor`]s and [`TensorView`]s.
///
/// Operands of element-wise operations are broadcast as NumPy does it ([`broadcast_shapes`](crate::broadcast_shapes)). Floats
/// follow IEEE 754 for infinities and NaN: nothing is skipped because a factor is zero. Those of 16 bits are rounded once in each
/// operation. Integers wrap around.
///
/// # Errors
/// Each operation that makes a tensor fails with [`ShapeError::Memory`] if there is no memory, and element-wise ones with
/// [`ShapeError::Mismatch`], [`ShapeError::Rank`] or [`ShapeError::Overflow`] if the shapes cannot be brought to one.
pub trait TensorOps: Sized {
    /// What the operands are made of.
    type Element: Element;

    /// The operand itself.
    fn operand(&self) -> TensorView<'_, Self::Element>;

    /// `c[i] = a[i] + b[i]`.
    ///
    /// # Errors
    /// As for [element-wise operations](TensorOps#errors).
    fn add(
        &self,
        other: &impl TensorOps<Element = Self::Element>,
    ) -> Result<Tensor<Self::Element>, ShapeError> {
        elementwise::add(self.operand(), other.operand())
    }

    /// `c[i] = a[i] - b[i]`.
    ///
    /// # Errors
    /// As for [element-wise operations](TensorOps#errors).
    fn sub(
        &self,
        other: &impl TensorOps<Element = Self::Element>,
    ) -> Result<Tensor<Self::Element>, ShapeError> {
        elementwise::sub(self.operand(), other.operand())
    }

    /// `c[i] = a[i] · b[i]`, element by element. The matrix product is [`TensorOps::matmul`].
    ///
    /// # Errors
    /// As for [element-wise operations](TensorOps#errors).
    fn mul(
        &self,
        other: &impl TensorOps<Element = Self::Element>,
    ) -> Result<Tensor<Self::Element>, ShapeError> {
        elementwise::mul(self.operand(), other.operand())
    }

    /// `c[i] = a[i] / b[i]`. Integers are rounded down, and divided by 0 give 0, as in NumPy's `//`.
    ///
    /// # Errors
    /// As for [element-wise operations](TensorOps#errors).
    fn div(
        &self,
        other: &impl TensorOps<Element = Self::Element>,
    ) -> Result<Tensor<Self::Element>, ShapeError> {
        elementwise::div(self.operand(), other.operand())
    }

    /// The greater one of `a[i]` and `b[i]`; a NaN if one of them is; `a[i]` if they are equal, as 0 and -0 are.
    ///
    /// # Errors
    /// As for [element-wise operations](TensorOps#errors).
    fn maximum(
        &self,
        other: &impl TensorOps<Element = Self::Element>,
    ) -> Result<Tensor<Self::Element>, ShapeError> {
        elementwise::maximum(self.operand(), other.operand())
    }

    /// The lesser one of `a[i]` and `b[i]`; a NaN if one of them is; `a[i]` if they are equal, as 0 and -0 are.
    ///
    /// # Errors
    /// As for [element-wise operations](TensorOps#errors).
    fn minimum(
        &self,
        other: &impl TensorOps<Element = Self::Element>,
    ) -> Result<Tensor<Self::Element>, ShapeError> {
        elementwise::minimum(self.operand(), other.operand())
    }

    /// `c[i] = factor · a[i]`.
    ///
    /// # Panics
    /// If there is no memory. `mul` with a tensor of shape `[]` gives an error instead.
    #[must_use]
    fn scale(&self, factor: Self::Element) -> Tensor<Self::Element> {
        elementwise::scale(self.operand(), factor).expect("there is memory for the result")
    }

    /// `c[…, i, j] = Σ a[…, i, p] · b[…, p, j]` for `a` of shape `[…, m, k]` and `b` of shape `[…, k, n]`.
    ///
    /// The axes before the last two count matrices, and are broadcast. Each product is computed by
    /// [`matmul`](crate::matmul()), with what that says of the order of sums. Factors with negative strides are copied.
    ///
    /// # Errors
    /// [`ShapeError::MatMul`] if an operand has fewer than two axes or the inner lengths differ, [`ShapeError::Mismatch`] if the
    /// other axes cannot be brought to one shape, [`ShapeError::Overflow`], [`ShapeError::Memory`].
    fn matmul<O>(&self, other: &O) -> Result<Tensor, ShapeError>
    where
        Self: TensorOps<Element = f32>,
        O: TensorOps<Element = f32>,
    {
        product::matmul(self.operand(), other.operand())
    }

    /// The sum of all elements. 0 if there are none.
    ///
    /// Floats are added as `f64`, in row-major order or, floats of 32 bits that lie one after the other, in that of [`sum`](crate::sum()), and
    /// rounded once. Integers are added as `i32`, and wrap around.
    #[must_use]
    fn sum(&self) -> <Self::Element as Element>::Sum {
        reduction::sum(self.operand())
    }

    /// The greatest element; NaN if there is one. `None` if there are no elements.
    #[must_use]
    fn max(&self) -> Option<Self::Element> {
        reduction::max(self.operand())
    }

    /// Which element is the first of the greatest ones, counted in row-major order; the first NaN if there is one. `None` if
    /// there are no elements.
    #[must_use]
    fn argmax(&self) -> Option<usize> {
        reduction::argmax(self.operand())
    }

    /// The [sum](TensorOps::sum) of all elements, before it is rounded, divided by their number and rounded once. NaN if there are
    /// none.
    #[must_use]
    fn mean(&self) -> <Self::Element as Element>::Mean {
        reduction::mean(self.operand())
    }

    /// The [sum](TensorOps::sum) of the elements that differ only in their index along an axis.
    ///
    /// # Errors
    /// [`ShapeError::Axis`], [`ShapeError::Memory`].
    fn sum_along(
        &self,
        axis: usize,
        reduced: Reduced,
    ) -> Result<Tensor<<Self::Element as Element>::Sum>, ShapeError> {
        reduction::along(self.operand(), axis, reduced, reduction::sum)
    }

    /// The [greatest](TensorOps::max) of the elements that differ only in their index along an axis.
    ///
    /// # Errors
    /// [`ShapeError::NoElements`] if the axis has the length 0; [`ShapeError::Axis`], [`ShapeError::Memory`].
    fn max_along(
        &self,
        axis: usize,
        reduced: Reduced,
    ) -> Result<Tensor<Self::Element>, ShapeError> {
        reduction::max_along(self.operand(), axis, reduced)
    }

    /// The index along an axis of the [first greatest](TensorOps::argmax) of the elements that differ only in it.
    ///
    /// # Errors
    /// [`ShapeError::Overflow`] if the axis has more indices than `i32` counts; as for [`max_along`](TensorOps::max_along).
    fn argmax_along(&self, axis: usize, reduced: Reduced) -> Result<Tensor<i32>, ShapeError> {
        reduction::argmax_along(self.operand(), axis, reduced)
    }

    /// The [mean](TensorOps::mean) of the elements that differ only in their index along an axis.
    ///
    /// # Errors
    /// [`ShapeError::Axis`], [`ShapeError::Memory`].
    fn mean_along(
        &self,
        axis: usize,
        reduced: Reduced,
    ) -> Result<Tensor<<Self::Element as Element>::Mean>, ShapeError> {
        reduction::along(self.operand(), axis, reduced, reduction::mean)
    }
}

/// What becomes of an axis along which elements are brought to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduced {
    /// It is left out.
    Dropped,
    /// It has the length 1, so that the result can be broadcast to what it was made of.
    Kept,
}

impl<T: Element> TensorOps for Tensor<T> {
    type Element = T;

    fn operand(&self) -> TensorView<'_, T> {
        self.view()
    }
}

impl<T: Element> TensorOps for TensorView<'_, T> {
    type Element = T;

    fn operand(&self) -> TensorView<'_, T> {
        *self
    }
}

#[cfg(test)]
mod tests;

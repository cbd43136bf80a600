//! The shaped array itself: construction, shape and element access.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

/// A dense array of `f32` in row-major order: the last index varies fastest.
///
/// A tensor with an empty shape is a scalar and has one element. A dimension may be zero; the
/// tensor then has no elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    elements: Vec<f32>,
}

impl Tensor {
    /// A tensor of this shape in which every element is 0.
    ///
    /// # Panics
    /// If the number of elements overflows the address space.
    #[must_use]
    pub fn zeros(shape: &[usize]) -> Self {
        Self::filled(shape, 0.0)
    }

    /// A tensor of this shape in which every element is 1.
    ///
    /// # Panics
    /// If the number of elements overflows the address space.
    #[must_use]
    pub fn ones(shape: &[usize]) -> Self {
        Self::filled(shape, 1.0)
    }

    /// Gives a shape to elements that lie in row-major order. Copies nothing.
    ///
    /// # Errors
    /// [`ShapeError::ElementCount`] if the shape asks for another number of elements.
    pub fn from_vec(elements: Vec<f32>, shape: &[usize]) -> Result<Self, ShapeError> {
        if element_count(shape) != Some(elements.len()) {
            return Err(ShapeError::ElementCount {
                shape: shape.to_vec(),
                given: elements.len(),
            });
        }
        Ok(Self {
            shape: shape.to_vec(),
            elements,
        })
    }

    /// The length of each dimension, slowest first.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether some dimension is zero.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// The element at this index, or `None` if the index has another rank or lies outside.
    #[must_use]
    pub fn get(&self, index: &[usize]) -> Option<f32> {
        self.offset(index).map(|offset| self.elements[offset])
    }

    /// The place of the element at this index, for writing.
    #[must_use]
    pub fn get_mut(&mut self, index: &[usize]) -> Option<&mut f32> {
        self.offset(index).map(|offset| &mut self.elements[offset])
    }

    /// All elements in row-major order.
    #[must_use]
    pub fn as_slice(&self) -> &[f32] {
        &self.elements
    }

    /// Gives up the shape and hands out the elements in row-major order.
    #[must_use]
    pub fn into_vec(self) -> Vec<f32> {
        self.elements
    }

    /// The same elements under another shape of equal size. Copies nothing.
    ///
    /// # Errors
    /// [`ShapeError::ElementCount`] if the new shape asks for another number of elements.
    pub fn reshape(self, shape: &[usize]) -> Result<Self, ShapeError> {
        Self::from_vec(self.elements, shape)
    }

    fn filled(shape: &[usize], value: f32) -> Self {
        let count = element_count(shape).expect("the number of elements fits the address space");
        Self {
            shape: shape.to_vec(),
            elements: vec![value; count],
        }
    }

    fn offset(&self, index: &[usize]) -> Option<usize> {
        if index.len() != self.shape.len() {
            return None;
        }
        let mut offset = 0;
        for (&i, &length) in index.iter().zip(&self.shape) {
            if i >= length {
                return None;
            }
            // Cannot overflow: the result is below the element count, which was checked.
            offset = offset * length + i;
        }
        Some(offset)
    }
}

/// Two shapes do not fit each other, or a shape does not fit its elements. No tensor was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShapeError {
    /// The shape asks for another number of elements than were given.
    ElementCount {
        /// The shape that was asked for.
        shape: Vec<usize>,
        /// How many elements there were.
        given: usize,
    },
    /// An element-wise operation was asked of tensors of different shapes.
    Mismatch {
        /// The shape of the left operand.
        left: Vec<usize>,
        /// The shape of the right operand.
        right: Vec<usize>,
    },
    /// A matrix product needs shapes `[m, k]` and `[k, n]`.
    MatMul {
        /// The shape of the left operand.
        left: Vec<usize>,
        /// The shape of the right operand.
        right: Vec<usize>,
    },
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ElementCount { shape, given } => {
                write!(f, "{given} elements do not fill the shape {shape:?}")
            }
            Self::Mismatch { left, right } => {
                write!(f, "the shapes {left:?} and {right:?} differ")
            }
            Self::MatMul { left, right } => write!(
                f,
                "a matrix product needs [m, k] and [k, n], not {left:?} and {right:?}"
            ),
        }
    }
}

impl core::error::Error for ShapeError {}

/// The product of the dimensions, unless it (or a part of it, which matters when another
/// dimension is zero) overflows.
fn element_count(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1_usize, |count, &length| count.checked_mul(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn index_is_row_major() {
        let mut tensor = Tensor::from_vec(vec![0., 1., 2., 3., 4., 5.], &[2, 3]).expect("fits");
        assert_eq!(tensor.get(&[0, 2]), Some(2.0));
        assert_eq!(tensor.get(&[1, 0]), Some(3.0));
        *tensor.get_mut(&[1, 2]).expect("inside") = 9.0;
        assert_eq!(tensor.as_slice(), [0., 1., 2., 3., 4., 9.]);
    }

    #[test]
    fn an_index_outside_is_none() {
        let tensor = Tensor::zeros(&[2, 3]);
        for index in [
            &[2, 0][..],
            &[0, 3],
            &[0],
            &[0, 0, 0],
            &[],
            &[usize::MAX, usize::MAX],
        ] {
            assert_eq!(tensor.get(index), None, "{index:?}");
        }
    }

    #[test]
    fn scalars_and_empty_tensors() {
        assert_eq!(Tensor::ones(&[]).get(&[]), Some(1.0));
        let empty = Tensor::zeros(&[3, 0]);
        assert!(empty.is_empty());
        assert_eq!(empty.get(&[0, 0]), None);
    }

    #[test]
    fn a_shape_must_fit_its_elements() {
        let error = Tensor::from_vec(vec![1.0; 5], &[2, 3]).expect_err("5 is not 6");
        assert_eq!(
            error,
            ShapeError::ElementCount {
                shape: vec![2, 3],
                given: 5
            }
        );
        // The product wraps to 0 if it is not checked.
        assert!(Tensor::from_vec(vec![], &[1 << 32, 1 << 32]).is_err());
    }
}

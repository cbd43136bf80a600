//! Arrays that own their elements.

#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::fmt;

use crate::display::write_elements;
use crate::element::{Element, convert};
use crate::error::ShapeError;
use crate::layout::Layout;
use crate::shape::Shape;
use crate::view::TensorView;
use crate::view_mut::TensorViewMut;

/// An array of up to eight axes that owns its elements, in row-major order: the last index varies fastest.
///
/// A tensor with an empty shape is a scalar and has one element. A length may be 0; the tensor then has no elements.
///
/// Two tensors are equal if their shapes are, and their elements, of which a NaN is equal to nothing.
///
/// [`Display`](fmt::Display) writes what NumPy prints: columns are aligned, lines have at most 75 characters, and of a tensor
/// with more than 1000 elements each axis is cut down to its first and last three indices.
#[derive(Clone, PartialEq)]
pub struct Tensor<T = f32> {
    shape: Shape,
    elements: Vec<T>,
}

impl Tensor<f32> {
    /// A tensor of this shape in which every element is 0. [`Tensor::try_zeros`] makes one of any type, and does not panic.
    ///
    /// # Panics
    /// If [`Shape::new`] refuses the shape, or there is no memory for the elements.
    #[must_use]
    pub fn zeros(shape: &[usize]) -> Self {
        Self::try_zeros(shape).expect("there is memory for the elements of a tensor")
    }

    /// A tensor of this shape in which every element is 1. [`Tensor::filled`] makes one of any type, and does not panic.
    ///
    /// # Panics
    /// If [`Shape::new`] refuses the shape, or there is no memory for the elements.
    #[must_use]
    pub fn ones(shape: &[usize]) -> Self {
        Self::filled(shape, 1.0).expect("there is memory for the elements of a tensor")
    }
}

impl<T: Element> Tensor<T> {
    /// Gives a shape to elements that lie in row-major order. Copies nothing.
    ///
    /// # Errors
    /// [`ShapeError::ElementCount`] if the shape asks for another number of elements; what [`Shape::new`] refuses.
    pub fn from_vec(elements: Vec<T>, shape: &[usize]) -> Result<Self, ShapeError> {
        let shape = Shape::new(shape)?;
        if shape.element_count() != elements.len() {
            return Err(ShapeError::ElementCount {
                shape: shape.lengths().to_vec(),
                given: elements.len(),
            });
        }
        Ok(Self { shape, elements })
    }

    /// A tensor of this shape in which every element is 0.
    ///
    /// # Errors
    /// As for [`filled`](Self::filled).
    pub fn try_zeros(shape: &[usize]) -> Result<Self, ShapeError> {
        Self::filled(shape, T::ZERO)
    }

    /// A tensor of this shape in which every element is the same.
    ///
    /// # Errors
    /// What [`Shape::new`] refuses; [`ShapeError::Memory`] if there is no memory.
    pub fn filled(shape: &[usize], value: T) -> Result<Self, ShapeError> {
        let shape = Shape::new(shape)?;
        let mut elements = reserved(shape)?;
        elements.resize(shape.element_count(), value);
        Ok(Self { shape, elements })
    }

    /// A tensor of this shape with these elements in row-major order, of which there must be enough.
    ///
    /// # Errors
    /// [`ShapeError::Memory`] if there is no memory.
    pub(crate) fn collect(
        shape: Shape,
        elements: impl Iterator<Item = T>,
    ) -> Result<Self, ShapeError> {
        let mut collected = reserved(shape)?;
        collected.extend(elements.take(shape.element_count()));
        assert_eq!(collected.len(), shape.element_count(), "there are enough");
        Ok(Self {
            shape,
            elements: collected,
        })
    }

    /// The length of each axis, slowest first.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        self.shape.lengths()
    }

    /// The number of axes.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.shape.rank()
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether some length is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// The element at this index, or `None` if the index has another rank or lies outside.
    #[must_use]
    pub fn get(&self, index: &[usize]) -> Option<T> {
        self.view().get(index)
    }

    /// The place of the element at this index, for writing.
    #[must_use]
    pub fn get_mut(&mut self, index: &[usize]) -> Option<&mut T> {
        let offset = Layout::row_major(self.shape).offset_of(index)?;
        self.elements.get_mut(offset)
    }

    /// All elements in row-major order.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        &self.elements
    }

    /// All elements in row-major order, for writing.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.elements
    }

    /// Gives up the shape and hands out the elements in row-major order.
    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        self.elements
    }

    /// All elements, to read.
    #[must_use]
    pub fn view(&self) -> TensorView<'_, T> {
        TensorView::of_layout(&self.elements, Layout::row_major(self.shape))
    }

    /// All elements, to write.
    #[must_use]
    pub fn view_mut(&mut self) -> TensorViewMut<'_, T> {
        TensorViewMut::of_layout(&mut self.elements, Layout::row_major(self.shape))
    }

    /// The same elements under another shape of equal size. Copies nothing.
    ///
    /// # Errors
    /// [`ShapeError::ElementCount`] if the new shape asks for another number of elements; what [`Shape::new`] refuses.
    pub fn reshape(self, shape: &[usize]) -> Result<Self, ShapeError> {
        Self::from_vec(self.elements, shape)
    }

    /// The same shape with elements of another type.
    ///
    /// To a float: the nearest one, of two the one whose last bit is 0; what is beyond the largest is infinite. To an integer:
    /// without what stands behind the point; what is beyond the least or the largest becomes these, and NaN becomes 0.
    ///
    /// # Errors
    /// [`ShapeError::Memory`] if there is no memory.
    pub fn to<U: Element>(&self) -> Result<Tensor<U>, ShapeError> {
        Tensor::collect(self.shape, self.elements.iter().map(|it| convert(*it)))
    }
}

/// An empty vector with room for the elements of a shape.
pub(crate) fn reserved<T: Element>(shape: Shape) -> Result<Vec<T>, ShapeError> {
    let mut elements = Vec::new();
    match elements.try_reserve_exact(shape.element_count()) {
        Ok(()) => Ok(elements),
        Err(_) => Err(ShapeError::Memory {
            elements: shape.element_count(),
            element_type: T::TYPE,
        }),
    }
}

impl<T: Element> fmt::Display for Tensor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_elements(f, self.view())
    }
}

impl<T: Element> fmt::Debug for Tensor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.view())
    }
}

//! Arrays whose elements are in a slice of somebody else.

#[cfg(test)]
mod tests;

use core::fmt;
use core::iter::FusedIterator;
use core::ops::Range;

use crate::display::write_elements;
use crate::element::Element;
use crate::error::ShapeError;
use crate::layout::{Layout, Offsets};
use crate::matrix::MatRef;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// An array to read: the element at an index is `elements[offset + Σ index[axis] · strides[axis]]`.
///
/// Copying one copies shape and strides, and no elements; so do the functions that give the elements another shape.
#[derive(Clone, Copy)]
pub struct TensorView<'a, T = f32> {
    elements: &'a [T],
    layout: Layout,
}

impl<'a, T: Element> TensorView<'a, T> {
    /// A slice that holds the elements in row-major order and nothing else.
    ///
    /// # Errors
    /// [`ShapeError::ElementCount`] if the shape asks for another number of elements; what [`Shape::new`] refuses.
    pub fn row_major(elements: &'a [T], shape: &[usize]) -> Result<Self, ShapeError> {
        let shape = Shape::new(shape)?;
        if shape.element_count() != elements.len() {
            return Err(ShapeError::ElementCount {
                shape: shape.lengths().to_vec(),
                given: elements.len(),
            });
        }
        Ok(Self::of_layout(elements, Layout::row_major(shape)))
    }

    /// A slice in which the element with all indices 0 is at `offset`, and a step along an axis is as many elements as its
    /// stride says. Strides may be 0 or negative, and elements be named by more than one index.
    ///
    /// # Errors
    /// [`ShapeError::Strides`] if there is not one stride for each axis, or an element lies outside of the slice; what
    /// [`Shape::new`] refuses.
    pub fn new(
        elements: &'a [T],
        shape: &[usize],
        strides: &[isize],
        offset: usize,
    ) -> Result<Self, ShapeError> {
        let layout = Layout::new(Shape::new(shape)?, strides, offset, elements.len())?;
        Ok(Self::of_layout(elements, layout))
    }

    /// Of a layout that was made for this slice.
    pub(crate) fn of_layout(elements: &'a [T], layout: Layout) -> Self {
        Self { elements, layout }
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The length of each axis, slowest first.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        self.layout.shape().lengths()
    }

    /// Elements from one index of each axis to the next.
    #[must_use]
    pub fn strides(&self) -> &[isize] {
        self.layout.strides()
    }

    /// The number of axes.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.layout.shape().rank()
    }

    /// The number of elements; one that is repeated counts as often as it is.
    #[must_use]
    pub fn len(&self) -> usize {
        self.layout.element_count()
    }

    /// Whether some length is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element at this index, or `None` if the index has another rank or lies outside.
    #[must_use]
    pub fn get(&self, index: &[usize]) -> Option<T> {
        let offset = self.layout.offset_of(index)?;
        self.elements.get(offset).copied()
    }

    /// Axis `i` of the result is axis `axes[i]` of this view.
    ///
    /// # Errors
    /// [`ShapeError::Permutation`] if not each axis is named exactly once.
    pub fn permute(self, axes: &[usize]) -> Result<Self, ShapeError> {
        Ok(Self::of_layout(self.elements, self.layout.permute(axes)?))
    }

    /// The last two axes exchanged: `[…, m, n]` becomes `[…, n, m]`.
    ///
    /// # Errors
    /// [`ShapeError::Axis`] if there are fewer than two.
    pub fn transpose(self) -> Result<Self, ShapeError> {
        Ok(Self::of_layout(self.elements, self.layout.transpose()?))
    }

    /// Of one axis only the indices of a range. It may be empty.
    ///
    /// # Errors
    /// [`ShapeError::Axis`] if there is no such axis, [`ShapeError::Range`] if it has not all these indices.
    pub fn slice(self, axis: usize, range: Range<usize>) -> Result<Self, ShapeError> {
        Ok(Self::of_layout(
            self.elements,
            self.layout.slice(axis, range)?,
        ))
    }

    /// Of one axis only one index, and the axis left out.
    ///
    /// # Errors
    /// [`ShapeError::Axis`] if there is no such axis, [`ShapeError::Range`] if it has no such index.
    pub fn index(self, axis: usize, index: usize) -> Result<Self, ShapeError> {
        Ok(Self::of_layout(
            self.elements,
            self.layout.index(axis, index)?,
        ))
    }

    /// One axis backwards.
    ///
    /// # Errors
    /// [`ShapeError::Axis`] if there is no such axis.
    pub fn flip(self, axis: usize) -> Result<Self, ShapeError> {
        Ok(Self::of_layout(self.elements, self.layout.flip(axis)?))
    }

    /// The same elements in the same row-major order under another shape of equal size. Copies nothing.
    ///
    /// # Errors
    /// [`ShapeError::ElementCount`] if the shape asks for another number of elements, [`ShapeError::NeedsCopy`] if there are
    /// no strides for it: [`to_tensor`](Self::to_tensor) and [`Tensor::reshape`] then do it; what [`Shape::new`] refuses.
    pub fn reshape(self, shape: &[usize]) -> Result<Self, ShapeError> {
        let layout = self.layout.reshape(Shape::new(shape)?)?;
        Ok(Self::of_layout(self.elements, layout))
    }

    /// NumPy's broadcasting: the shapes are aligned at their last axes; axes of length 1, and those that are not there, are
    /// repeated, with the stride 0.
    ///
    /// # Errors
    /// [`ShapeError::Broadcast`] if another axis would have to change, or there are more axes than in the new shape; what
    /// [`Shape::new`] refuses.
    pub fn broadcast_to(self, shape: &[usize]) -> Result<Self, ShapeError> {
        self.repeated(Shape::new(shape)?)
    }

    pub(crate) fn repeated(self, shape: Shape) -> Result<Self, ShapeError> {
        let layout = self.layout.broadcast_to(shape)?;
        Ok(Self::of_layout(self.elements, layout))
    }

    /// The parts that have some of the axes, one for each index of the others, in row-major order of these.
    pub(crate) fn parts(self, axes: &[usize]) -> impl Iterator<Item = Self> + use<'a, T> {
        let layouts = self.layout.parts(axes);
        layouts.map(move |layout| Self::of_layout(self.elements, layout))
    }

    /// Whether the elements lie in row-major order with nothing between them. If there are none, they do.
    #[must_use]
    pub fn is_contiguous(&self) -> bool {
        self.layout.contiguous().is_some()
    }

    /// All elements in row-major order, if they lie so with nothing between them.
    #[must_use]
    pub fn as_slice(&self) -> Option<&'a [T]> {
        let elements = self.elements;
        self.layout.contiguous().map(|range| &elements[range])
    }

    /// All elements in row-major order of their indices.
    #[must_use]
    pub fn iter(&self) -> Iter<'a, T> {
        Iter {
            elements: self.elements,
            offsets: self.layout.offsets(),
        }
    }

    /// A copy of the elements.
    ///
    /// # Errors
    /// [`ShapeError::Memory`] if there is no memory.
    pub fn to_tensor(&self) -> Result<Tensor<T>, ShapeError> {
        let shape = *self.layout.shape();
        match self.as_slice() {
            Some(elements) => Tensor::collect(shape, elements.iter().copied()),
            None => Tensor::collect(shape, self.iter()),
        }
    }

    /// A view of two axes as a matrix.
    ///
    /// # Errors
    /// [`ShapeError::Matrix`] if there are not two axes, or a stride is negative.
    pub fn as_matrix(&self) -> Result<MatRef<'a, T>, ShapeError> {
        let matrix = || {
            let (&[rows, columns], &[row, column]) = (self.shape(), self.strides()) else {
                return None;
            };
            let strides = [usize::try_from(row).ok()?, usize::try_from(column).ok()?];
            let elements = match self.is_empty() {
                true => &[],
                false => &self.elements[self.layout.offset()..],
            };
            MatRef::new(elements, [rows, columns], strides).ok()
        };
        matrix().ok_or_else(|| ShapeError::Matrix {
            shape: self.shape().to_vec(),
            strides: self.strides().to_vec(),
        })
    }
}

/// As for [`Tensor`]: shapes and elements, whatever the strides are.
impl<T: Element> PartialEq for TensorView<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.shape() == other.shape() && self.iter().eq(other.iter())
    }
}

/// As [`Tensor`] is written.
impl<T: Element> fmt::Display for TensorView<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_elements(f, *self)
    }
}

impl<T: Element> fmt::Debug for TensorView<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?} {self}", T::TYPE, self.shape())
    }
}

impl<'a, T: Element> IntoIterator for TensorView<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

/// The elements of a [`TensorView`] in row-major order of their indices.
#[derive(Clone, Debug)]
pub struct Iter<'a, T> {
    elements: &'a [T],
    offsets: Offsets,
}

impl<T: Element> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.offsets.next().map(|offset| self.elements[offset])
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.offsets.size_hint()
    }
}

impl<T: Element> ExactSizeIterator for Iter<'_, T> {}

impl<T: Element> FusedIterator for Iter<'_, T> {}

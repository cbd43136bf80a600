//! The same, to write.

use core::fmt;
use core::ops::Range;

use crate::element::Element;
use crate::error::ShapeError;
use crate::layout::Layout;
use crate::matrix::MatMut;
use crate::shape::Shape;
use crate::view::TensorView;

/// An array to write: the element at an index is `elements[offset + Σ index[axis] · strides[axis]]`, and no two indices name
/// the same one.
pub struct TensorViewMut<'a, T = f32> {
    elements: &'a mut [T],
    layout: Layout,
}

impl<'a, T: Element> TensorViewMut<'a, T> {
    /// A slice that holds the elements in row-major order and nothing else.
    ///
    /// # Errors
    /// [`ShapeError::ElementCount`] if the shape asks for another number of elements; what [`Shape::new`] refuses.
    pub fn row_major(elements: &'a mut [T], shape: &[usize]) -> Result<Self, ShapeError> {
        let layout = *TensorView::row_major(elements, shape)?.layout();
        Ok(Self::of_layout(elements, layout))
    }

    /// A slice in which the element with all indices 0 is at `offset`, and a step along an axis is as many elements as its
    /// stride says, backwards if it is negative.
    ///
    /// Each step must be longer than all shorter ones together reach. Some strides that interlock without meeting are
    /// refused by that, such as `[3, 2]` for the shape `[2, 3]`.
    ///
    /// # Errors
    /// [`ShapeError::Overlap`] if two indices could name the same element; as for [`TensorView::new`].
    pub fn new(
        elements: &'a mut [T],
        shape: &[usize],
        strides: &[isize],
        offset: usize,
    ) -> Result<Self, ShapeError> {
        let layout = Layout::new(Shape::new(shape)?, strides, offset, elements.len())?;
        if layout.may_overlap() {
            return Err(ShapeError::Overlap {
                shape: shape.to_vec(),
                strides: strides.to_vec(),
            });
        }
        Ok(Self::of_layout(elements, layout))
    }

    /// Of a layout that was made for this slice, and does not overlap itself.
    pub(crate) fn of_layout(elements: &'a mut [T], layout: Layout) -> Self {
        Self { elements, layout }
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

    /// The same elements, to read.
    #[must_use]
    pub fn view(&self) -> TensorView<'_, T> {
        TensorView::of_layout(self.elements, self.layout)
    }

    /// The same elements, to write, while this view waits.
    #[must_use]
    pub fn view_mut(&mut self) -> TensorViewMut<'_, T> {
        TensorViewMut::of_layout(self.elements, self.layout)
    }

    /// The place of the element at this index, or `None` if the index has another rank or lies outside.
    #[must_use]
    pub fn get_mut(&mut self, index: &[usize]) -> Option<&mut T> {
        let offset = self.layout.offset_of(index)?;
        self.elements.get_mut(offset)
    }

    /// Axis `i` of the result is axis `axes[i]` of this view.
    ///
    /// # Errors
    /// [`ShapeError::Permutation`] if not each axis is named exactly once.
    pub fn permute(self, axes: &[usize]) -> Result<Self, ShapeError> {
        let layout = self.layout.permute(axes)?;
        Ok(Self::of_layout(self.elements, layout))
    }

    /// The last two axes exchanged: `[…, m, n]` becomes `[…, n, m]`.
    ///
    /// # Errors
    /// [`ShapeError::Axis`] if there are fewer than two.
    pub fn transpose(self) -> Result<Self, ShapeError> {
        let layout = self.layout.transpose()?;
        Ok(Self::of_layout(self.elements, layout))
    }

    /// Of one axis only the indices of a range. It may be empty.
    ///
    /// # Errors
    /// [`ShapeError::Axis`] if there is no such axis, [`ShapeError::Range`] if it has not all these indices.
    pub fn slice(self, axis: usize, range: Range<usize>) -> Result<Self, ShapeError> {
        let layout = self.layout.slice(axis, range)?;
        Ok(Self::of_layout(self.elements, layout))
    }

    /// Of one axis only one index, and the axis left out.
    ///
    /// # Errors
    /// [`ShapeError::Axis`] if there is no such axis, [`ShapeError::Range`] if it has no such index.
    pub fn index(self, axis: usize, index: usize) -> Result<Self, ShapeError> {
        let layout = self.layout.index(axis, index)?;
        Ok(Self::of_layout(self.elements, layout))
    }

    /// One axis backwards.
    ///
    /// # Errors
    /// [`ShapeError::Axis`] if there is no such axis.
    pub fn flip(self, axis: usize) -> Result<Self, ShapeError> {
        let layout = self.layout.flip(axis)?;
        Ok(Self::of_layout(self.elements, layout))
    }

    /// The same elements in the same row-major order under another shape of equal size. Copies nothing.
    ///
    /// # Errors
    /// As for [`TensorView::reshape`].
    pub fn reshape(self, shape: &[usize]) -> Result<Self, ShapeError> {
        let layout = self.layout.reshape(Shape::new(shape)?)?;
        Ok(Self::of_layout(self.elements, layout))
    }

    /// All elements in row-major order, for writing, if they lie so with nothing between them.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> Option<&mut [T]> {
        let range = self.layout.contiguous()?;
        self.elements.get_mut(range)
    }

    /// A view of two axes as a matrix to write.
    ///
    /// # Errors
    /// [`ShapeError::Matrix`] if there are not two axes, the elements of a row do not lie one after the other, or rows do not
    /// follow each other forwards.
    pub fn as_matrix_mut(&mut self) -> Result<MatMut<'_, T>, ShapeError> {
        let error = ShapeError::Matrix {
            shape: self.shape().to_vec(),
            strides: self.strides().to_vec(),
        };
        let (&[rows, columns], &[row, column]) = (self.shape(), self.strides()) else {
            return Err(error);
        };
        let start = if self.view().is_empty() {
            0
        } else {
            self.layout.offset()
        };
        match usize::try_from(row) {
            Ok(row) if column == 1 || columns <= 1 => {
                MatMut::new(&mut self.elements[start..], [rows, columns], row).map_err(|_| error)
            }
            _ => Err(error),
        }
    }

    /// Puts in the place of each element what `f` makes of it, in row-major order of the indices.
    pub fn update(&mut self, mut f: impl FnMut(T) -> T) {
        for offset in self.layout.offsets() {
            self.elements[offset] = f(self.elements[offset]);
        }
    }

    /// Makes every element the same.
    pub fn fill(&mut self, value: T) {
        self.update(|_| value);
    }

    /// Takes over the elements of another array, which is broadcast to the shape of this one.
    ///
    /// # Errors
    /// [`ShapeError::Broadcast`] if that is not possible. Nothing was written then.
    pub fn assign(&mut self, from: TensorView<'_, T>) -> Result<(), ShapeError> {
        let from = from.repeated(*self.layout.shape())?;
        for (offset, element) in self.layout.offsets().zip(from) {
            self.elements[offset] = element;
        }
        Ok(())
    }
}

impl<T: Element> fmt::Debug for TensorViewMut<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

//! Matrices that somebody else owns.

use core::fmt;
use core::ops::Range;

/// A matrix to read: `rows` × `columns` elements of a slice, of which the neighbours in a column lie `row_stride` elements apart
/// and those in a row `column_stride`.
#[derive(Clone, Copy)]
pub struct MatRef<'a, T> {
    elements: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

/// A matrix to write: each row is contiguous, and `row_stride` elements lie between the beginnings of rows.
pub struct MatMut<'a, T> {
    elements: &'a mut [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

/// A matrix does not fit what holds it, or another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MatrixError {
    /// The matrix needs more elements than there are, or more than can be counted.
    TooFewElements {
        /// Rows.
        rows: usize,
        /// Columns.
        columns: usize,
        /// Elements there are.
        given: usize,
    },
    /// Rows to be written that overlap.
    Overlap {
        /// Elements of a row.
        columns: usize,
        /// Elements from one row to the next.
        row_stride: usize,
    },
    /// There must be an element for each column of the product.
    Bias {
        /// Elements there are.
        given: usize,
        /// Columns of the product.
        columns: usize,
    },
    /// The factors and the product do not fit together: `[m, k]` × `[k, n]` gives `[m, n]`.
    Product {
        /// The left factor.
        left: [usize; 2],
        /// The right factor.
        right: [usize; 2],
        /// The product.
        product: [usize; 2],
    },
}

impl fmt::Display for MatrixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFewElements {
                rows,
                columns,
                given,
            } => write!(
                f,
                "a matrix of {rows} × {columns} with these strides needs more than {given} elements"
            ),
            Self::Overlap {
                columns,
                row_stride,
            } => write!(
                f,
                "rows of {columns} elements overlap that begin {row_stride} elements apart"
            ),
            Self::Bias { given, columns } => write!(
                f,
                "a bias of {given} elements does not fit a product of {columns} columns"
            ),
            Self::Product {
                left,
                right,
                product,
            } => write!(
                f,
                "the product of {left:?} and {right:?} is not a matrix of {product:?}"
            ),
        }
    }
}

impl core::error::Error for MatrixError {}

/// Whether all elements of such a matrix are among the first `len`. One without elements needs none.
fn fits(shape: [usize; 2], strides: [usize; 2], len: usize) -> bool {
    if shape.contains(&0) {
        return true;
    }
    let last = |axis: usize| (shape[axis] - 1).checked_mul(strides[axis]);
    let last = last(0).and_then(|row| row.checked_add(last(1)?));
    last.is_some_and(|last| last < len)
}

impl<'a, T> MatRef<'a, T> {
    /// The matrix whose element in row `i` and column `j` is `elements[i * row_stride + j * column_stride]`.
    ///
    /// # Errors
    /// [`MatrixError::TooFewElements`].
    pub fn new(
        elements: &'a [T],
        [rows, columns]: [usize; 2],
        [row_stride, column_stride]: [usize; 2],
    ) -> Result<Self, MatrixError> {
        if !fits([rows, columns], [row_stride, column_stride], elements.len()) {
            return Err(MatrixError::TooFewElements {
                rows,
                columns,
                given: elements.len(),
            });
        }
        Ok(Self {
            elements,
            rows,
            columns,
            row_stride,
            column_stride,
        })
    }

    /// The matrix whose rows lie one after the other.
    ///
    /// # Errors
    /// [`MatrixError::TooFewElements`].
    pub fn row_major(elements: &'a [T], rows: usize, columns: usize) -> Result<Self, MatrixError> {
        Self::new(elements, [rows, columns], [columns, 1])
    }

    /// The same elements with rows and columns exchanged. Copies nothing.
    #[must_use]
    pub const fn transposed(self) -> Self {
        Self {
            elements: self.elements,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    /// Some of its rows; `None` if it has not got all of them.
    #[must_use]
    pub fn rows(&self, rows: Range<usize>) -> Option<Self> {
        if rows.start > rows.end || rows.end > self.rows {
            return None;
        }
        let from = rows.start.saturating_mul(self.row_stride);
        Some(Self {
            elements: self.elements.get(from..).unwrap_or_default(),
            rows: rows.len(),
            ..*self
        })
    }

    /// Rows and columns.
    #[must_use]
    pub const fn shape(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    /// Elements from a row to the next, and from a column to the next.
    #[must_use]
    pub const fn strides(&self) -> [usize; 2] {
        [self.row_stride, self.column_stride]
    }

    /// The slice of which the matrix is made.
    #[must_use]
    pub const fn elements(&self) -> &'a [T] {
        self.elements
    }
}

impl<'a, T> MatMut<'a, T> {
    /// The matrix whose element in row `i` and column `j` is `elements[i * row_stride + j]`.
    ///
    /// # Errors
    /// [`MatrixError::TooFewElements`], [`MatrixError::Overlap`].
    pub fn new(
        elements: &'a mut [T],
        [rows, columns]: [usize; 2],
        row_stride: usize,
    ) -> Result<Self, MatrixError> {
        if rows > 1 && row_stride < columns {
            return Err(MatrixError::Overlap {
                columns,
                row_stride,
            });
        }
        if !fits([rows, columns], [row_stride, 1], elements.len()) {
            return Err(MatrixError::TooFewElements {
                rows,
                columns,
                given: elements.len(),
            });
        }
        Ok(Self {
            elements,
            rows,
            columns,
            row_stride,
        })
    }

    /// The matrix whose rows lie one after the other.
    ///
    /// # Errors
    /// [`MatrixError::TooFewElements`].
    pub fn row_major(
        elements: &'a mut [T],
        rows: usize,
        columns: usize,
    ) -> Result<Self, MatrixError> {
        Self::new(elements, [rows, columns], columns)
    }

    /// Rows and columns.
    #[must_use]
    pub const fn shape(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    /// Elements from a row to the next.
    #[must_use]
    pub const fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// The slice of which the matrix is made.
    pub fn elements_mut(&mut self) -> &mut [T] {
        self.elements
    }

    /// Where the elements of a row are in the slice.
    pub(crate) fn row(&self, row: usize) -> Range<usize> {
        match self.columns {
            // Rows without elements may begin behind the last one.
            0 => 0..0,
            columns => row * self.row_stride..row * self.row_stride + columns,
        }
    }
}

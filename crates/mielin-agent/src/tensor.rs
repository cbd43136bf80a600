//! The node's kernels for matrices: they work in place on the agent's memory, with whatever vectors the machine has.
//!
//! All of them need the capability `tensor`. Results may differ in the last bits from machine to machine. An agent may be frozen in
//! the middle of a call, and goes on there.
//!
//! ```no_run
//! use mielin_agent::tensor::{self, Fused, Matrix, MatrixMut};
//!
//! let (a, b) = (vec![1.0; 6], vec![2.0; 6]);
//! let mut c = vec![0.0; 4];
//! let a = Matrix::new(&a, 2, 3);
//! let b = Matrix::new(&b, 2, 3).transposed();
//! tensor::matmul(a, b, Fused::default(), &mut MatrixMut::new(&mut c, 2, 2))?;
//! # Ok::<(), mielin_agent::Error>(())
//! ```

use core::marker::PhantomData;

use crate::{Error, ffi};

/// How the node is told of a matrix (docs/AGENT_ABI.md).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Description {
    elements: *const u8,
    ty: u32,
    rows: u32,
    columns: u32,
    row_stride: u32,
    column_stride: u32,
}

/// A type of elements that the node knows.
pub trait Element: sealed::Sealed + Copy {}

impl Element for f32 {}
impl Element for i8 {}
impl Element for i32 {}

mod sealed {
    pub trait Sealed {
        const NUMBER: u32;
    }

    impl Sealed for f32 {
        const NUMBER: u32 = 0;
    }
    impl Sealed for i8 {
        const NUMBER: u32 = 1;
    }
    impl Sealed for i32 {
        const NUMBER: u32 = 2;
    }
}

/// A matrix to read.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, T> {
    description: Description,
    elements: PhantomData<&'a [T]>,
}

/// A matrix to write, whose rows lie one after the other.
#[derive(Debug)]
pub struct MatrixMut<'a, T> {
    description: Description,
    elements: PhantomData<&'a mut [T]>,
}

/// A number that the node reads as one of 32 bits; one that is larger fits no memory of an agent, and is refused there.
fn word(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl<'a, T: Element> Matrix<'a, T> {
    /// The matrix whose rows lie one after the other.
    ///
    /// # Panics
    /// If there are fewer elements.
    #[must_use]
    pub fn new(elements: &'a [T], rows: usize, columns: usize) -> Matrix<'a, T> {
        Self::with_strides(elements, [rows, columns], [columns, 1])
    }

    /// The matrix whose element in row `i` and column `j` is `elements[i * strides[0] + j * strides[1]]`.
    ///
    /// # Panics
    /// If there are fewer elements.
    #[must_use]
    pub fn with_strides(
        elements: &'a [T],
        shape: [usize; 2],
        strides: [usize; 2],
    ) -> Matrix<'a, T> {
        assert!(
            fits(shape, strides, elements.len()),
            "a matrix of {shape:?} with strides {strides:?} needs more than {} elements",
            elements.len()
        );
        Matrix {
            description: Description::of(elements.as_ptr(), shape, strides),
            elements: PhantomData,
        }
    }

    /// Rows and columns exchanged.
    #[must_use]
    pub fn transposed(self) -> Matrix<'a, T> {
        let of = self.description;
        Matrix {
            description: Description {
                rows: of.columns,
                columns: of.rows,
                row_stride: of.column_stride,
                column_stride: of.row_stride,
                ..of
            },
            elements: PhantomData,
        }
    }
}

impl<'a, T: Element> MatrixMut<'a, T> {
    /// The matrix whose rows lie one after the other.
    ///
    /// # Panics
    /// If there are fewer elements.
    #[must_use]
    pub fn new(elements: &'a mut [T], rows: usize, columns: usize) -> MatrixMut<'a, T> {
        Self::with_stride(elements, [rows, columns], columns)
    }

    /// The matrix whose rows begin `stride` elements apart.
    ///
    /// # Panics
    /// If there are fewer elements, or rows overlap.
    #[must_use]
    pub fn with_stride(
        elements: &'a mut [T],
        shape: [usize; 2],
        stride: usize,
    ) -> MatrixMut<'a, T> {
        assert!(
            fits(shape, [stride, 1], elements.len()),
            "a matrix of {shape:?} with stride {stride} needs more than {} elements",
            elements.len()
        );
        assert!(shape[0] <= 1 || stride >= shape[1], "rows overlap");
        MatrixMut {
            description: Description::of(elements.as_mut_ptr(), shape, [stride, 1]),
            elements: PhantomData,
        }
    }
}

impl Description {
    fn of<T: Element>(elements: *const T, shape: [usize; 2], strides: [usize; 2]) -> Description {
        // A slice without elements need not be anywhere in the memory.
        let elements = match shape.contains(&0) {
            true => core::ptr::null(),
            false => elements.cast(),
        };
        Description {
            elements,
            ty: T::NUMBER,
            rows: word(shape[0]),
            columns: word(shape[1]),
            row_stride: word(strides[0]),
            column_stride: word(strides[1]),
        }
    }
}

fn fits(shape: [usize; 2], strides: [usize; 2], len: usize) -> bool {
    if shape.contains(&0) {
        return true;
    }
    let last = |axis: usize| (shape[axis] - 1).checked_mul(strides[axis]);
    let last = last(0).and_then(|row| row.checked_add(last(1)?));
    last.is_some_and(|last| last < len)
}

/// A function of each element; what each is off by stands in the node's crate `mielin-tensor`, at `Unary`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum Function {
    /// eˣ.
    Exp = 1,
    /// The hyperbolic tangent.
    Tanh = 2,
    /// 1 / (1 + e⁻ˣ).
    Sigmoid = 3,
    /// x · sigmoid(x).
    Silu = 4,
    /// x · Φ(x), where Φ is the normal distribution.
    Gelu = 5,
    /// Its approximation by a hyperbolic tangent.
    GeluTanh = 6,
    /// The larger one of x and 0.
    Relu = 7,
}

/// An operation on two elements at the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum Operation {
    /// `a + b`.
    Add = 0,
    /// `a - b`.
    Sub = 1,
    /// `a · b`.
    Mul = 2,
    /// `a / b`.
    Div = 3,
    /// The larger one.
    Max = 4,
    /// The smaller one.
    Min = 5,
}

/// What is made of each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum Reduction {
    /// The sum.
    Sum = 0,
    /// The mean.
    Mean = 1,
    /// The largest element.
    Max = 2,
}

/// What is done with each element of a product besides. The default is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fused<'a> {
    /// Whether the product is added to what is there, which is lost otherwise.
    pub accumulate: bool,
    /// What is added to each column.
    pub bias: Option<&'a [f32]>,
    /// What is applied to the sum of these.
    pub function: Option<Function>,
}

/// `c = function(a · b + bias)`, or with `c + `.
///
/// # Errors
/// [`Error::Denied`]; [`Error::Other`] if the shapes do not fit together; [`Error::TooLarge`] if a matrix has more elements than the
/// memory, because its strides repeat some.
pub fn matmul(
    a: Matrix<'_, f32>,
    b: Matrix<'_, f32>,
    fused: Fused<'_>,
    c: &mut MatrixMut<'_, f32>,
) -> Result<(), Error> {
    let bias = fused
        .bias
        .map(|bias| Matrix::new(bias, 1, bias.len()).description);
    let function = fused.function.map_or(0, |function| function as u32);
    Error::check(ffi::tensor_matmul(
        [&a.description, &b.description, &c.description],
        bias.as_ref(),
        function,
        u32::from(fused.accumulate),
    ))
}

/// `c = a · b`, exactly, modulo 2³².
///
/// # Errors
/// As for [`matmul`].
pub fn matmul_i8(
    a: Matrix<'_, i8>,
    b: Matrix<'_, i8>,
    c: &mut MatrixMut<'_, i32>,
) -> Result<(), Error> {
    let matrices = [&a.description, &b.description, &c.description];
    Error::check(ffi::tensor_matmul_i8(matrices))
}

/// Applies a function to each element of `x`.
///
/// # Errors
/// As for [`matmul`].
pub fn map(function: Function, x: &mut MatrixMut<'_, f32>) -> Result<(), Error> {
    let x = &x.description;
    Error::check(ffi::tensor_map(function as u32, x, x))
}

/// `a = operation(a, b)`, element by element. A stride of 0 between the rows of `b` gives each row of `a` the same one.
///
/// # Errors
/// As for [`matmul`].
pub fn zip(
    operation: Operation,
    a: &mut MatrixMut<'_, f32>,
    b: Matrix<'_, f32>,
) -> Result<(), Error> {
    let a = &a.description;
    Error::check(ffi::tensor_zip(operation as u32, [a, &b.description, a]))
}

/// Makes one element of each row of `x`.
///
/// # Errors
/// As for [`matmul`]; also if there are as many results as there are not rows, or rows without elements have no such thing.
pub fn reduce(reduction: Reduction, x: Matrix<'_, f32>, to: &mut [f32]) -> Result<(), Error> {
    let rows = to.len();
    let to = MatrixMut::new(to, rows, 1).description;
    Error::check(ffi::tensor_reduce(reduction as u32, &x.description, &to))
}

/// Where the first of the largest elements of each row of `x` is.
///
/// # Errors
/// As for [`reduce`].
pub fn argmax(x: Matrix<'_, f32>, to: &mut [i32]) -> Result<(), Error> {
    const ARGMAX: u32 = 3;
    let rows = to.len();
    let to = MatrixMut::new(to, rows, 1).description;
    Error::check(ffi::tensor_reduce(ARGMAX, &x.description, &to))
}

/// Each row of `x` becomes `e^(x[i] - max) / Σ e^(x[j] - max)`.
///
/// # Errors
/// As for [`matmul`].
pub fn softmax(x: &mut MatrixMut<'_, f32>) -> Result<(), Error> {
    Error::check(ffi::tensor_softmax(&x.description))
}

/// Each row of `x` becomes `(x[i] - mean) / √(variance + epsilon) · gain[i] + offset[i]`.
///
/// # Errors
/// As for [`matmul`].
pub fn layer_norm(
    x: &mut MatrixMut<'_, f32>,
    gain: &[f32],
    offset: &[f32],
    epsilon: f32,
) -> Result<(), Error> {
    let gain = Matrix::new(gain, 1, gain.len()).description;
    let offset = Matrix::new(offset, 1, offset.len()).description;
    Error::check(ffi::tensor_norm(
        &x.description,
        &gain,
        Some(&offset),
        epsilon,
    ))
}

/// Each row of `x` becomes `x[i] / √(mean of x² + epsilon) · gain[i]`.
///
/// # Errors
/// As for [`matmul`].
pub fn rms_norm(x: &mut MatrixMut<'_, f32>, gain: &[f32], epsilon: f32) -> Result<(), Error> {
    let gain = Matrix::new(gain, 1, gain.len()).description;
    Error::check(ffi::tensor_norm(&x.description, &gain, None, epsilon))
}

/// The means of values, weighted by the softmax of the products of queries with their keys, times `scale`. With `past`, query `i`
/// sees the keys up to `i + past`, else all.
///
/// # Errors
/// As for [`matmul`].
pub fn attention(
    [queries, keys, values]: [Matrix<'_, f32>; 3],
    scale: f32,
    past: Option<usize>,
    to: &mut MatrixMut<'_, f32>,
) -> Result<(), Error> {
    let past = past.map_or(-1, |past| i32::try_from(past).unwrap_or(i32::MAX));
    let matrices = [
        &queries.description,
        &keys.description,
        &values.description,
        &to.description,
    ];
    Error::check(ffi::tensor_attention(matrices, scale, past))
}

/// Row `i` of `to` becomes row `numbers[i]` of `table`.
///
/// # Errors
/// As for [`matmul`]; also if the table has no such row.
pub fn embedding(
    table: Matrix<'_, f32>,
    numbers: &[i32],
    to: &mut MatrixMut<'_, f32>,
) -> Result<(), Error> {
    let numbers = Matrix::new(numbers, 1, numbers.len()).description;
    let matrices = [&table.description, &numbers, &to.description];
    Error::check(ffi::tensor_embedding(matrices))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_has_its_elements() {
        let elements = [0.0_f32; 6];
        let fits = |shape, strides| {
            std::panic::catch_unwind(|| {
                let _ = Matrix::with_strides(&elements, shape, strides);
            })
            .is_ok()
        };
        assert!(fits([2, 3], [3, 1]) && fits([3, 2], [1, 3]) && fits([9, 0], [9, 9]));
        assert!(!fits([2, 4], [4, 1]) && !fits([2, 3], [4, 1]));
        assert!(!fits([usize::MAX, 2], [usize::MAX, 1]));
        let overlap = || {
            let mut out = [0.0; 6];
            drop(MatrixMut::with_stride(&mut out, [2, 3], 2));
        };
        assert!(std::panic::catch_unwind(overlap).is_err());
        let turned = Matrix::new(&elements, 2, 3).transposed().description;
        assert_eq!((turned.rows, turned.columns), (3, 2));
        assert_eq!((turned.row_stride, turned.column_stride), (1, 3));
    }

    #[test]
    fn without_a_node_there_are_no_kernels() {
        let x = [0.0_f32; 4];
        let mut out = [0.0_f32; 4];
        let x = Matrix::new(&x, 2, 2);
        let mut c = MatrixMut::new(&mut out, 2, 2);
        let refused = Err(Error::NotAnAgent);
        assert_eq!(matmul(x, x, Fused::default(), &mut c), refused);
        assert_eq!(softmax(&mut c), refused);
        assert_eq!(attention([x; 3], 1.0, None, &mut c), refused);
    }
}

//! Numeric kernels over shaped arrays.
//!
//! This floor is `no_std` with `alloc`. It does no I/O and starts no threads. A [`Tensor`] owns its elements, floats of 32 or 16 bits
//! or integers ([`Element`]), in row-major order. [`TensorView`] and [`TensorViewMut`] are parts of a tensor, or of any slice, with
//! any strides. [`TensorOps`] holds the arithmetic, with the broadcasting of NumPy.
//!
//! The matrix product, [`matmul`](matmul()), works on matrices that somebody else owns, [`MatRef`] and [`MatMut`], with any strides, by
//! the kernels of the fastest [`Backend`] that the processor supports.
//!
//! ```
//! use mielin_tensor::{Tensor, TensorOps};
//!
//! let a = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], &[2, 2])?;
//! let b = Tensor::ones(&[2, 1]);
//! assert_eq!(a.matmul(&b)?.as_slice(), [3.0, 7.0]);
//!
//! let first_column = a.view().slice(1, 0..1)?;
//! assert_eq!(a.sub(&first_column)?.as_slice(), [0.0, 1.0, 0.0, 1.0]);
//! # Ok::<(), mielin_tensor::ShapeError>(())
//! ```

#![no_std]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod backend;
mod convolution;
mod matrix;
mod parallel;
mod simd;

mod attention;
mod elementary;
mod elementwise;
mod embedding;
mod matmul;
mod normalise;
mod quantised;
mod reduce;
mod rotary;
mod weights;

mod display;
mod element;
mod error;
mod layout;
mod ops;
mod shape;
mod tensor;
mod view;
mod view_mut;

pub use backend::Backend;
pub use convolution::{Convolution, ConvolutionError, convolve_1d, convolve_2d};
pub use matrix::{MatMut, MatRef, MatrixError};
#[cfg(feature = "rayon")]
pub use parallel::Rayon;
#[cfg(feature = "std")]
pub use parallel::Threads;
pub use parallel::{Alone, Parallel};

pub use attention::{Attention, Mask, attention};
pub use elementwise::{Binary, LengthError, Unary, axpy, scale};
pub use embedding::{LookupError, embedding};
pub use matmul::{Fused, matmul, matmul_i8, matmul_with};
pub use normalise::{layer_norm, rms_norm, softmax};
pub use quantised::{QuantiseError, Quantised, matmul_quantised};
pub use reduce::{argmax, dot, max, mean, sum};
pub use rotary::{RotaryError, RotaryPairs, RotaryTable};
pub use weights::{BlockError, BlockFormat, BlockWeights, matmul_blocks, quantise_q4, quantise_q8};

pub use element::{Element, ElementType};
pub use error::ShapeError;
pub use half::{bf16, f16};
pub use ops::{Reduced, TensorOps};
pub use shape::{RANK_MAX, Shape, broadcast_shapes};
pub use tensor::Tensor;
pub use view::{Iter, TensorView};
pub use view_mut::TensorViewMut;

//! Numeric kernels over shaped arrays.
//!
//! This floor is `no_std` with `alloc`. It does no I/O and starts no threads. A [`Tensor`] owns
//! its elements: 32-bit floats, row-major, without strides. [`TensorOps`] holds the arithmetic.
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
//! # Ok::<(), mielin_tensor::ShapeError>(())
//! ```

#![no_std]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod attention;
mod backend;
mod elementary;
mod elementwise;
mod embedding;
mod matmul;
mod matrix;
mod normalise;
mod ops;
mod parallel;
mod quantised;
mod reduce;
mod rotary;
mod simd;
mod tensor;

pub use attention::{Attention, Mask, attention};
pub use backend::Backend;
pub use elementwise::{Binary, LengthError, Unary, axpy, scale};
pub use embedding::{LookupError, embedding};
pub use matmul::{Fused, matmul, matmul_i8, matmul_with};
pub use matrix::{MatMut, MatRef, MatrixError};
pub use normalise::{layer_norm, rms_norm, softmax};
pub use ops::TensorOps;
#[cfg(feature = "rayon")]
pub use parallel::Rayon;
#[cfg(feature = "std")]
pub use parallel::Threads;
pub use parallel::{Alone, Parallel};
pub use quantised::{NotFinite, Quantised, matmul_quantised};
pub use reduce::{argmax, dot, max, mean, sum};
pub use rotary::{RotaryPairs, RotaryTable};
pub use tensor::{ShapeError, Tensor};

//! Numeric kernels over shaped arrays.
//!
//! This floor is `no_std` with `alloc`. It does no I/O and starts no threads. A [`Tensor`] owns
//! its elements: 32-bit floats, row-major, without strides. [`TensorOps`] holds the arithmetic,
//! written as plain scalar loops; kernels for particular processors are not part of this crate yet.
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

mod ops;
mod tensor;

pub use ops::TensorOps;
pub use tensor::{ShapeError, Tensor};

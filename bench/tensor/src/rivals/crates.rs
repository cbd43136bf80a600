//! Rivals in Rust.

#![allow(unsafe_code, reason = "two of them take pointers")]

use std::num::NonZeroUsize;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use gemm::Parallelism;

use super::Floats;

/// `c = a · b` by the crate `gemm`, with its threads in rayon's pool.
pub(crate) fn gemm(mut product: Floats<'_>, threads: NonZeroUsize) {
    let [rows, columns, depth] = product.shape();
    let [b_row, b_column] = product.b_strides();
    let parallelism = match threads.get() {
        1 => Parallelism::None,
        threads => Parallelism::Rayon(threads),
    };
    // SAFETY: the slices have the elements of the shape ([`super::Product::new`]), and `c` is borrowed for writing.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            depth,
            product.c().as_mut_ptr(),
            1,
            columns as isize,
            false,
            product.a().as_ptr(),
            1,
            depth as isize,
            product.b().as_ptr(),
            b_column,
            b_row,
            0.0_f32,
            1.0_f32,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// The same by `matrixmultiply`, with as many threads as `MATMUL_NUM_THREADS` says.
pub(crate) fn matrixmultiply(mut product: Floats<'_>) {
    let [rows, columns, depth] = product.shape();
    let [b_row, b_column] = product.b_strides();
    // SAFETY: as for `gemm`.
    unsafe {
        matrixmultiply::sgemm(
            rows,
            depth,
            columns,
            1.0,
            product.a().as_ptr(),
            depth as isize,
            1,
            product.b().as_ptr(),
            b_row,
            b_column,
            0.0,
            product.c().as_mut_ptr(),
            columns as isize,
            1,
        );
    }
}

/// The same by `faer`.
pub(crate) fn faer(mut product: Floats<'_>, threads: NonZeroUsize) {
    let [rows, columns, depth] = product.shape();
    let a = MatRef::from_row_major_slice(product.a(), rows, depth);
    let b = match product.is_transposed() {
        true => MatRef::from_column_major_slice(product.b(), depth, columns),
        false => MatRef::from_row_major_slice(product.b(), depth, columns),
    };
    let c = MatMut::from_row_major_slice_mut(product.c(), rows, columns);
    let parallel = match threads.get() {
        1 => Par::Seq,
        _ => Par::Rayon(threads),
    };
    matmul(c, Accum::Replace, a, b, 1.0_f32, parallel);
}

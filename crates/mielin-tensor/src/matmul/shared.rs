//! Products whose rows are shared out among threads.

use super::{Fused, expect_product, matmul_by, part};
use crate::backend::Backend;
use crate::matrix::{MatMut, MatRef, MatrixError};
use crate::parallel::{Parallel, share_rows};

/// Rows that a thread gets at least: with fewer, starting it takes longer than the rows.
const ROWS_MIN: usize = 72;
/// A multiple of the rows of each backend's blocks.
const ROWS_STEP: usize = 24;
/// Products of two elements that are worth a thread.
const PRODUCTS_MIN: usize = 1 << 20;

/// `c = function(a · b + bias)`, or `c = function(c + a · b + bias)`, as [`Fused`] says, with the rows of `c` shared out among threads.
///
/// Each element has the same bits on any number of threads. A product of few rows is computed by the thread that calls.
///
/// # Errors
/// [`MatrixError::Product`] or [`MatrixError::Bias`] if the shapes do not fit together.
pub fn matmul_with(
    parallel: &dyn Parallel,
    a: MatRef<'_, f32>,
    b: MatRef<'_, f32>,
    fused: Fused<'_>,
    c: &mut MatMut<'_, f32>,
) -> Result<(), MatrixError> {
    expect_product(a.shape(), b.shape(), c.shape(), fused)?;
    let backend = Backend::active();
    let ([rows, depth], [_, columns]) = (a.shape(), b.shape());
    let products = rows.saturating_mul(depth).saturating_mul(columns);
    let parts = parallel
        .threads()
        .min(rows / ROWS_MIN)
        .min(products / PRODUCTS_MIN);
    share_rows(parallel, parts, ROWS_STEP, c, |first, c| {
        let rows = part(a, [first, 0], [c.shape()[0], depth]);
        matmul_by(backend, rows, b, fused, c).expect("the shapes were compared");
    });
    Ok(())
}

#[cfg(all(test, feature = "std", not(target_family = "wasm")))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use core::num::NonZeroUsize;
    use core::sync::atomic::{AtomicUsize, Ordering};

    use alloc::boxed::Box;
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;
    use crate::parallel::Threads;

    /// Does one after the other, and counts.
    struct Counting(usize, AtomicUsize);

    impl Parallel for Counting {
        fn threads(&self) -> usize {
            self.0
        }

        fn run<'work>(&self, works: Vec<Box<dyn FnOnce() + Send + 'work>>) {
            assert!(works.len() <= self.0);
            self.1.fetch_add(works.len(), Ordering::Relaxed);
            works.into_iter().for_each(|work| work());
        }
    }

    fn numbers(count: usize) -> Vec<f32> {
        (0..count)
            .map(|n| ((n * 7_919) % 1_009) as f32 / 1_009.0 - 0.5)
            .collect()
    }

    #[test]
    fn the_bits_are_those_of_one_thread() {
        let threads = |count| Threads(NonZeroUsize::new(count).unwrap());
        for [rows, depth, columns] in [
            [300, 257, 70],
            [145, 300, 129],
            [1_000, 40, 33],
            [150, 300, 300],
        ] {
            let (left, right) = (numbers(rows * depth), numbers(depth * columns));
            let a = MatRef::row_major(&left, rows, depth).unwrap();
            let b = MatRef::row_major(&right, depth, columns).unwrap();
            let stride = columns + 5;
            let product = |parallel: &dyn Parallel| {
                let mut out = vec![9.0_f32; rows * stride - 5];
                let mut c = MatMut::new(&mut out, [rows, columns], stride).unwrap();
                matmul_with(parallel, a, b, Fused::default(), &mut c).unwrap();
                out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let one = product(&threads(1));
            for count in [2, 3, 7] {
                assert!(product(&threads(count)) == one, "{count} threads");
            }
            let counting = Counting(3, AtomicUsize::new(0));
            assert!(product(&counting) == one);
            let expected = 3
                .min(rows / ROWS_MIN)
                .min(rows * depth * columns / PRODUCTS_MIN);
            assert_eq!(
                counting.1.into_inner(),
                if expected > 1 { expected } else { 0 }
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let numbers = numbers(200 * 200);
        let a = MatRef::row_major(&numbers, 200, 200).unwrap();
        let b = MatRef::row_major(&numbers, 100, 200).unwrap();
        let mut out = vec![0.0; 200 * 200];
        let mut c = MatMut::row_major(&mut out, 200, 200).unwrap();
        let two = Threads(NonZeroUsize::new(2).unwrap());
        matmul_with(&two, a, b, Fused::default(), &mut c).unwrap_err();
        let mut c = MatMut::row_major(&mut out, 100, 200).unwrap();
        matmul_with(&two, a, a, Fused::default(), &mut c).unwrap_err();
    }
}

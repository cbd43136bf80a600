#![allow(clippy::unwrap_used)]

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::simd::tests::{numbers, supported};

/// Compares with sums in `f64`. An error is at most that of as many additions as there are terms, each rounded, of
/// products that are each rounded (Higham, *Accuracy and Stability of Numerical Algorithms*, section 3.1).
fn check(backend: Backend, a: MatRef<'_, f32>, b: MatRef<'_, f32>) {
    let ([rows, depth], [_, columns]) = (a.shape(), b.shape());
    let row_stride = columns + 3;
    let mut out = vec![f32::NAN; rows * row_stride + 1];
    let mut c = MatMut::new(&mut out, [rows, columns], row_stride).unwrap();
    matmul_by(backend, a, b, Fused::default(), &mut c).unwrap();
    let element = |matrix: MatRef<'_, f32>, i: usize, j: usize| {
        let [row, column] = matrix.strides();
        f64::from(matrix.elements()[i * row + j * column])
    };
    for i in 0..rows {
        for j in 0..row_stride {
            let found = out[i * row_stride + j];
            if j >= columns {
                assert!(found.is_nan(), "{backend}: wrote beside the matrix");
                continue;
            }
            let terms = (0..depth).map(|p| element(a, i, p) * element(b, p, j));
            let (sum, absolute) = terms.fold((0.0, 0.0), |(sum, absolute), term| {
                (sum + term, absolute + term.abs())
            });
            let bound = (depth as f64 + 1.0) * f64::from(f32::EPSILON) * absolute;
            let error = (f64::from(found) - sum).abs();
            assert!(
                error <= bound,
                "{backend} [{rows}, {depth}, {columns}] at [{i}, {j}]: {found} for {sum}"
            );
        }
    }
}

#[test]
fn all_small_shapes_and_layouts() {
    for backend in supported() {
        for rows in (1..=17).chain([24, 25]) {
            for depth in [1, 2, 3, 7, 16, 17] {
                for columns in (1..=17).chain([31, 47, 48, 49, 100]) {
                    let left = numbers(rows * depth, 1);
                    let right = numbers(depth * columns, 2);
                    let a = MatRef::row_major(&left, rows, depth).unwrap();
                    let b = MatRef::row_major(&right, depth, columns).unwrap();
                    let a_columns = MatRef::row_major(&left, depth, rows).unwrap().transposed();
                    let b_columns = MatRef::row_major(&right, columns, depth)
                        .unwrap()
                        .transposed();
                    check(backend, a, b);
                    check(backend, a_columns, b_columns);
                }
            }
        }
    }
}

#[test]
fn shapes_of_several_blocks() {
    let shapes = [
        [1, 700, 300],
        [2, 513, 260],
        [9, 513, 260],
        [300, 257, 129],
        [257, 300, 50],
        [17, 600, 3_100],
    ];
    for backend in supported() {
        for [rows, depth, columns] in shapes {
            let left = numbers(rows * depth, 3);
            let right = numbers(depth * columns, 4);
            let a = MatRef::row_major(&left, rows, depth).unwrap();
            check(
                backend,
                a,
                MatRef::row_major(&right, depth, columns).unwrap(),
            );
            check(
                backend,
                a,
                MatRef::row_major(&right, columns, depth)
                    .unwrap()
                    .transposed(),
            );
        }
    }
}

#[test]
fn strides_may_repeat_elements() {
    let (left, right) = (numbers(5, 5), numbers(40, 6));
    for backend in supported() {
        let a = MatRef::new(&left, [20, 5], [0, 1]).unwrap();
        check(backend, a, MatRef::new(&right, [5, 30], [0, 1]).unwrap());
        check(backend, a, MatRef::new(&right, [5, 30], [1, 0]).unwrap());
        check(backend, a, MatRef::new(&right, [5, 3], [7, 4]).unwrap());
        check(
            backend,
            MatRef::new(&left, [40, 5], [0, 0]).unwrap(),
            MatRef::new(&right, [5, 3], [7, 4]).unwrap(),
        );
    }
}

/// Elements that are there again and again take no memory, and their number is not multiplied with another one.
#[test]
fn a_product_of_rows_without_end_is_told_by_its_shape() {
    let endless = MatRef::new(&[1.0], [1, usize::MAX], [0, 0]).unwrap();
    let other = MatRef::new(&[1.0], [usize::MAX, 3], [0, 0]).unwrap();
    let left = MatRef::new(&[2.0], [1, 0], [0, 0]).unwrap();
    let mut out = [0.0; 3];
    let mut c = MatMut::row_major(&mut out, 1, 3).unwrap();
    assert!(matmul(left, other, &mut c).is_err());
    assert!(matmul(endless, endless, &mut c).is_err());
    assert!(is_large(usize::MAX, 3) && !is_large(128, 128));
}

#[test]
fn nothing_and_what_is_not_a_number() {
    for backend in supported() {
        let mut out = [7.0; 6];
        let mut c = MatMut::row_major(&mut out, 2, 3).unwrap();
        let a = MatRef::row_major(&[], 2, 0).unwrap();
        matmul_by(
            backend,
            a,
            MatRef::row_major(&[], 0, 3).unwrap(),
            Fused::default(),
            &mut c,
        )
        .unwrap();
        assert_eq!(out, [0.0; 6], "an empty sum is 0");
        let mut none = MatMut::row_major(&mut out, 0, 3).unwrap();
        let a = MatRef::row_major(&[], 0, 2).unwrap();
        matmul_by(
            backend,
            a,
            MatRef::row_major(&[1.0; 6], 2, 3).unwrap(),
            Fused::default(),
            &mut none,
        )
        .unwrap();
        // Zero times infinity is not left out.
        let mut out = [0.0; 2];
        let mut c = MatMut::row_major(&mut out, 1, 2).unwrap();
        let a = MatRef::row_major(&[0.0, 1.0], 1, 2).unwrap();
        let b = [f32::INFINITY, 1.0, 1.0, f32::MIN_POSITIVE / 4.0];
        matmul_by(
            backend,
            a,
            MatRef::row_major(&b, 2, 2).unwrap(),
            Fused::default(),
            &mut c,
        )
        .unwrap();
        assert!(out[0].is_nan(), "{backend}");
        assert_eq!(out[1], f32::MIN_POSITIVE / 4.0, "{backend}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let few = [0.0; 6];
    let error = |shape, strides| MatRef::new(&few, shape, strides).err();
    assert!(error([2, 3], [3, 1]).is_none());
    for (shape, strides) in [
        ([2, 4], [4, 1]),
        ([2, 3], [4, 1]),
        ([1_000_000, 1_000_000], [1_000_000, 1]),
        ([usize::MAX, 2], [usize::MAX, 1]),
        ([usize::MAX, usize::MAX], [1, usize::MAX]),
    ] {
        assert!(matches!(
            error(shape, strides),
            Some(MatrixError::TooFewElements { given: 6, .. })
        ));
    }
    let mut out = [0.0; 6];
    assert!(matches!(
        MatMut::new(&mut out, [3, 3], 1).err(),
        Some(MatrixError::Overlap {
            columns: 3,
            row_stride: 1
        })
    ));
    let a = MatRef::row_major(&few, 2, 3).unwrap();
    let mut c = MatMut::row_major(&mut out, 2, 2).unwrap();
    let error = matmul(a, a, &mut c).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the product of [2, 3] and [2, 3] is not a matrix of [2, 2]"
    );
    let mut c = MatMut::row_major(&mut out, 3, 2).unwrap();
    assert!(matmul(a, a.transposed(), &mut c).is_err());
}

#[test]
fn a_backend_gives_the_same_bits_again() {
    let (left, right) = (numbers(70 * 300, 7), numbers(300 * 90, 8));
    for backend in supported() {
        let product = || {
            let mut out = vec![0.0; 70 * 90];
            let mut c = MatMut::row_major(&mut out, 70, 90).unwrap();
            let a = MatRef::row_major(&left, 70, 300).unwrap();
            matmul_by(
                backend,
                a,
                MatRef::row_major(&right, 300, 90).unwrap(),
                Fused::default(),
                &mut c,
            )
            .unwrap();
            out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        assert_eq!(product(), product());
    }
}

/// In every path: few rows, columns that are contiguous, factors that are packed, and no terms at all.
#[test]
fn what_is_fused_is_what_comes_after() {
    let shapes = [
        [1, 300, 100],
        [3, 7, 5],
        [20, 40, 60],
        [3, 600, 300],
        [70, 300, 200],
        [2, 0, 5],
    ];
    for backend in supported() {
        for [rows, depth, columns] in shapes {
            let (left, right) = (numbers(rows * depth, 1), numbers(depth * columns, 2));
            let (bias, before) = (numbers(columns, 3), numbers(rows * columns, 4));
            let a = MatRef::row_major(&left, rows, depth).unwrap();
            let plain = MatRef::row_major(&right, depth, columns).unwrap();
            let transposed = MatRef::row_major(&right, columns, depth)
                .unwrap()
                .transposed();
            for b in [plain, transposed] {
                let product = |fused: Fused<'_>| {
                    let mut out = before.clone();
                    let mut c = MatMut::row_major(&mut out, rows, columns).unwrap();
                    matmul_by(backend, a, b, fused, &mut c).unwrap();
                    out
                };
                let alone = product(Fused::default());
                let sums = product(Fused {
                    accumulate: true,
                    ..Fused::default()
                });
                for ((sum, before), alone) in sums.iter().zip(&before).zip(&alone) {
                    assert!((sum - (before + alone)).abs() <= 1e-5, "{backend} {sum}");
                }
                let function = Some(Unary::Gelu);
                let fused = product(Fused {
                    accumulate: true,
                    bias: Some(&bias),
                    function,
                });
                let mut expected = sums;
                for row in expected.chunks_mut(columns) {
                    row.iter_mut()
                        .zip(&bias)
                        .for_each(|(sum, bias)| *sum += bias);
                }
                Unary::Gelu.apply_by(backend, None, &mut expected);
                assert_eq!(fused, expected, "{backend} {rows} {depth} {columns}");
            }
        }
    }
    let mut out = [0.0; 4];
    let mut c = MatMut::row_major(&mut out, 2, 2).unwrap();
    let a = MatRef::row_major(&[1.0; 4], 2, 2).unwrap();
    let fused = Fused {
        bias: Some(&[1.0; 3]),
        ..Fused::default()
    };
    let error = matmul_by(Backend::Scalar, a, a, fused, &mut c).unwrap_err();
    assert_eq!(
        error,
        MatrixError::Bias {
            given: 3,
            columns: 2
        }
    );
}

#![allow(clippy::unwrap_used)]

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::simd::tests::{numbers, supported};

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

fn exactly(operation: Binary, a: f32, b: f32) -> f32 {
    match operation {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Max | Binary::Min if a.is_nan() || b.is_nan() => f32::NAN,
        Binary::Max => a.max(b),
        Binary::Min => a.min(b),
    }
}

/// Every length around those of the vectors; what lies behind the slices stays as it is.
#[test]
fn pairs_of_any_number() {
    for backend in supported() {
        for operation in Binary::ALL {
            for len in 0..70 {
                let (mut a, b) = (numbers(len + 3, 1), numbers(len, 2));
                if let [first, .., last] = &mut a[..len] {
                    (*first, *last) = (f32::NAN, f32::INFINITY);
                }
                let expected: Vec<f32> = a
                    .iter()
                    .zip(&b)
                    .map(|(a, b)| exactly(operation, *a, *b))
                    .collect();
                let mut to = vec![7.0; len + 1];
                operation.apply_by(backend, Some(&a[..len]), &b, &mut to[..len]);
                assert!(
                    to.iter().zip(&expected).all(|(a, b)| same(*a, *b)),
                    "{backend} {operation:?} {len}"
                );
                assert_eq!(to[len], 7.0);
                let behind = a[len];
                operation.apply_by(backend, None, &b, &mut a[..len]);
                assert!(
                    a.iter().zip(&expected).all(|(a, b)| same(*a, *b)),
                    "{backend} {operation:?} {len}"
                );
                assert_eq!(a[len], behind);
            }
        }
    }
}

/// In place and not, in a vector and at the end of a slice: the same bits.
#[test]
fn a_place_has_no_influence() {
    for backend in supported() {
        for function in Unary::ALL {
            for len in 0..70 {
                let mut from = numbers(len, 3);
                from.iter_mut().for_each(|x| *x *= 20.0);
                if let [first, second, ..] = &mut from[..] {
                    (*first, *second) = (f32::NAN, f32::NEG_INFINITY);
                }
                let mut to = vec![7.0; len + 1];
                function.apply_by(backend, Some(&from), &mut to[..len]);
                assert_eq!(to[len], 7.0);
                for (at, x) in from.iter().enumerate() {
                    let mut alone = [*x];
                    function.apply_by(backend, None, &mut alone);
                    assert!(same(alone[0], to[at]), "{backend} {function:?} of {x}");
                    assert_eq!(x.is_nan(), to[at].is_nan(), "{backend} {function:?} of {x}");
                }
                function.apply_by(backend, None, &mut from);
                assert!(from.iter().zip(&to).all(|(a, b)| same(*a, *b)));
            }
        }
    }
}

/// Wherever a long result begins and ends, all of it is written and nothing else.
#[test]
fn results_past_the_caches() {
    let len = LONG + 37;
    let (a, b) = (numbers(len, 6), numbers(len, 7));
    let mut to = vec![7.0; len + 2];
    for backend in supported() {
        for (before, operation) in [Binary::Add, Binary::Sub].into_iter().enumerate() {
            to.fill(7.0);
            let out = &mut to[before..][..len];
            operation.apply_by(backend, Some(&a), &b, out);
            let expected = a.iter().zip(&b).map(|(a, b)| exactly(operation, *a, *b));
            assert!(out.iter().copied().eq(expected), "{backend} {operation:?}");
            assert_eq!(to.iter().filter(|it| **it == 7.0).count(), 2);
            let out = &mut to[before..][..len];
            Unary::Relu.apply_by(backend, Some(&a), out);
            assert!(
                out.iter().copied().eq(a.iter().map(|a| a.max(0.0))),
                "{backend}"
            );
            assert_eq!(to.iter().filter(|it| **it == 7.0).count(), 2);
        }
    }
}

#[test]
fn zeros_keep_their_sign() {
    for backend in supported() {
        for function in [Unary::Tanh, Unary::Silu, Unary::Gelu, Unary::GeluTanh] {
            let mut zeros = [-0.0, 0.0];
            function.apply_by(backend, None, &mut zeros);
            assert!(
                same(zeros[0], -0.0) && same(zeros[1], 0.0),
                "{backend} {function:?}"
            );
        }
    }
}

#[test]
fn products_that_are_added() {
    let x = numbers(37, 4);
    let mut y = numbers(37, 5);
    let before = y.clone();
    axpy(0.5, &x, &mut y).unwrap();
    for ((x, before), y) in x.iter().zip(&before).zip(&y) {
        assert_eq!(*y, before + 0.5 * x, "halving rounds nothing");
    }
    scale(2.0, &mut y);
    assert_eq!(y[36], 2.0 * (before[36] + 0.5 * x[36]));
}

#[test]
fn other_lengths_are_refused_and_nothing_is_changed() {
    let mut to = [7.0; 3];
    let error = Unary::Exp.apply(&[1.0; 4], &mut to).unwrap_err();
    assert_eq!(error.to_string(), "the result has 3 elements instead of 4");
    Binary::Add
        .apply(&[1.0; 3], &[1.0; 2], &mut to)
        .unwrap_err();
    Binary::Add
        .apply(&[1.0; 2], &[1.0; 2], &mut to)
        .unwrap_err();
    Binary::Add.apply_in_place(&mut to, &[1.0; 4]).unwrap_err();
    axpy(1.0, &[1.0; 4], &mut to).unwrap_err();
    assert_eq!(to, [7.0; 3]);
}

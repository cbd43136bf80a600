#![allow(clippy::unwrap_used)]

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::simd::tests::{numbers, supported};

#[test]
fn against_sums_one_by_one() {
    for backend in supported() {
        for len in (0..300).chain([1_000, 4_097]) {
            let (a, b) = (numbers(len, 1), numbers(len, 2));
            let exact: f64 = a.iter().map(|a| f64::from(*a)).sum();
            let found = simd::run(backend, Sum(&a));
            assert!(
                (found - exact).abs() <= 1e-12 * len as f64,
                "{backend} {len}"
            );
            let terms = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b));
            let (exact, absolute) = terms.fold((0.0, 0.0), |(sum, absolute), term| {
                (sum + term, absolute + term.abs())
            });
            let found = f64::from(simd::run(backend, Dot(&a, &b)));
            let bound = (len as f64 + 1.0) * f64::from(f32::EPSILON) * absolute;
            assert!((found - exact).abs() <= bound, "{backend} {len}");
        }
    }
}

#[test]
fn the_largest_is_found_wherever_it_is() {
    for backend in supported() {
        for len in [1, 2, 15, 16, 17, 127, 128, 129, 300] {
            let mut elements = numbers(len, 3);
            for at in 0..len {
                let before = elements[at];
                for largest in [3.0, f32::INFINITY] {
                    elements[at] = largest;
                    assert_eq!(simd::run(backend, Max(&elements)), largest);
                    assert_eq!(simd::run(backend, Position(&elements, largest)), Some(at));
                }
                elements[at] = f32::NAN;
                assert!(
                    simd::run(backend, Max(&elements)).is_nan(),
                    "{backend} {len} {at}"
                );
                assert_eq!(simd::run(backend, Position(&elements, f32::NAN)), Some(at));
                elements[at] = before;
            }
        }
        assert_eq!(
            simd::run(backend, Max(&[f32::NEG_INFINITY; 3])),
            f32::NEG_INFINITY
        );
    }
}

#[test]
fn of_several_the_first() {
    assert_eq!(argmax(&[1.0, 5.0, 5.0]), Some(1));
    let mut elements = vec![0.0; 100];
    (elements[40], elements[20], elements[30]) = (9.0, 9.0, 9.0);
    assert_eq!(argmax(&elements), Some(20));
    (elements[90], elements[95]) = (f32::NAN, f32::NAN);
    assert_eq!(argmax(&elements), Some(90));
    assert_eq!(argmax(&[0.0, -0.0]), Some(0));
}

#[test]
fn nothing() {
    assert_eq!((sum(&[]), dot(&[], &[])), (0.0, Ok(0.0)));
    assert_eq!((mean(&[]), max(&[]), argmax(&[])), (None, None, None));
    assert_eq!(mean(&[1.0, 2.0, 6.0]), Some(3.0));
    dot(&[1.0], &[]).unwrap_err();
}

/// In single precision each 1 added to 2²⁴ would vanish.
#[test]
fn a_sum_keeps_small_terms() {
    let elements: Vec<f32> = core::iter::once(16_777_216.0)
        .chain(core::iter::repeat_n(1.0, 999))
        .collect();
    assert_eq!(sum(&elements), 16_778_215.0);
}

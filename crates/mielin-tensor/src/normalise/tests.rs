#![allow(clippy::unwrap_used)]

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::simd::tests::{numbers, supported};

const EPSILON: f32 = 1e-5;

fn rows(count: usize, width: usize, seed: u32) -> Vec<f32> {
    let mut elements = numbers(count * width, seed);
    elements.iter_mut().for_each(|x| *x = *x * 10.0 + 3.0);
    elements
}

fn close(found: &[f32], exact: impl Iterator<Item = f64>, what: &str) {
    for (found, exact) in found.iter().zip(exact) {
        let error = (f64::from(*found) - exact).abs();
        assert!(
            error <= 2e-6 * exact.abs().max(0.1),
            "{what}: {found} for {exact}"
        );
    }
}

#[test]
fn against_the_definitions() {
    for backend in supported() {
        for width in (1..70).chain([384, 1_000]) {
            let what = alloc::format!("{backend} {width}");
            let elements = rows(3, width, 1);
            let (gain, offset) = (numbers(width, 2), numbers(width, 3));
            let wide = |row: &[f32]| row.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
            let norm = |f: &dyn Fn(&[f64]) -> Vec<f64>| {
                elements
                    .chunks(width)
                    .flat_map(|row| f(&wide(row)))
                    .collect::<Vec<_>>()
            };

            let mut found = elements.clone();
            simd::run(
                backend,
                Softmax {
                    elements: &mut found,
                    width,
                },
            );
            let exact = norm(&|row| {
                let max = row.iter().copied().fold(f64::MIN, f64::max);
                let powers: Vec<f64> = row.iter().map(|x| (x - max).exp()).collect();
                let sum: f64 = powers.iter().sum();
                powers.iter().map(|power| power / sum).collect()
            });
            close(&found, exact.into_iter(), &what);

            let mut found = elements.clone();
            let kernel = LayerNorm {
                elements: &mut found,
                gain: &gain,
                offset: &offset,
                epsilon: EPSILON,
            };
            simd::run(backend, kernel);
            let exact = norm(&|row| {
                let mean = row.iter().sum::<f64>() / width as f64;
                let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
                let root = (variance + f64::from(EPSILON)).sqrt();
                let factors = gain.iter().zip(&offset);
                row.iter()
                    .zip(factors)
                    .map(|(x, (gain, offset))| {
                        (x - mean) / root * f64::from(*gain) + f64::from(*offset)
                    })
                    .collect()
            });
            close(&found, exact.into_iter(), &what);

            let mut found = elements.clone();
            let kernel = RmsNorm {
                elements: &mut found,
                gain: &gain,
                epsilon: EPSILON,
            };
            simd::run(backend, kernel);
            let exact = norm(&|row| {
                let square = row.iter().map(|x| x * x).sum::<f64>() / width as f64;
                let root = (square + f64::from(EPSILON)).sqrt();
                row.iter()
                    .zip(&gain)
                    .map(|(x, gain)| x / root * f64::from(*gain))
                    .collect()
            });
            close(&found, exact.into_iter(), &what);
        }
    }
}

#[test]
fn softmax_of_the_extremes() {
    for backend in supported() {
        let softmax = |mut row: Vec<f32>| {
            let width = row.len();
            let kernel = Softmax {
                elements: &mut row,
                width,
            };
            simd::run(backend, kernel);
            row
        };
        assert_eq!(softmax(vec![f32::MAX, f32::MIN, 0.0]), [1.0, 0.0, 0.0]);
        assert_eq!(softmax(vec![f32::NEG_INFINITY, 5.0]), [0.0, 1.0]);
        for row in [
            [f32::NEG_INFINITY; 2],
            [f32::INFINITY, 0.0],
            [f32::NAN, 0.0],
        ] {
            assert!(
                softmax(row.to_vec()).iter().all(|x| x.is_nan()),
                "{backend} {row:?}"
            );
        }
    }
}

#[test]
fn what_is_not_whole_rows_is_refused() {
    let mut elements = [1.0; 6];
    softmax(&mut elements, 4).unwrap_err();
    softmax(&mut elements, 0).unwrap_err();
    layer_norm(&mut elements, &[1.0; 4], &[0.0; 4], EPSILON).unwrap_err();
    layer_norm(&mut elements, &[1.0; 3], &[0.0; 4], EPSILON).unwrap_err();
    rms_norm(&mut elements, &[], EPSILON).unwrap_err();
    assert_eq!(elements, [1.0; 6]);
    softmax(&mut [], 0).unwrap();
    softmax(&mut elements, 3).unwrap();
    assert_eq!(elements, [1.0 / 3.0; 6]);
}

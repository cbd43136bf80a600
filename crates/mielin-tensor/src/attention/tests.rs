#![allow(clippy::unwrap_used)]

use alloc::vec::Vec;

use super::*;
use crate::parallel::Alone;
use crate::simd::tests::{numbers, supported};

fn exact(factors: Attention<'_>) -> Vec<f64> {
    let at = |matrix: MatRef<'_, f32>, i: usize, j: usize| {
        let [row, column] = matrix.strides();
        f64::from(matrix.elements()[i * row + j * column])
    };
    let ([queries, width], [keys, value_width]) = (factors.queries.shape(), factors.values.shape());
    let mut out = Vec::new();
    for i in 0..queries {
        let products: Vec<f64> = (0..factors.mask.seen(i, keys))
            .map(|j| {
                let terms = (0..width).map(|p| at(factors.queries, i, p) * at(factors.keys, j, p));
                terms.sum::<f64>() * f64::from(factors.scale)
            })
            .collect();
        let max = products.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = products
            .iter()
            .map(|product| (product - max).exp())
            .collect();
        let sum: f64 = weights.iter().sum();
        for p in 0..value_width {
            let terms = weights
                .iter()
                .enumerate()
                .map(|(j, weight)| weight * at(factors.values, j, p));
            out.push(if weights.is_empty() {
                0.0
            } else {
                terms.sum::<f64>() / sum
            });
        }
    }
    out
}

#[test]
fn against_the_matrix_in_between() {
    let shapes = [
        [1, 1, 1, 1],
        [5, 9, 7, 3],
        [17, 40, 32, 32],
        [70, 300, 16, 24],
        [130, 600, 8, 5],
        [3, 0, 4, 4],
        [3, 5, 0, 4],
        [3, 5, 4, 0],
        [0, 5, 4, 4],
    ];
    for backend in supported() {
        for [queries, keys, width, value_width] in shapes {
            for mask in [
                Mask::None,
                Mask::Causal { past: 0 },
                Mask::Causal { past: keys / 2 },
            ] {
                let mut q = numbers(queries * width, 1);
                q.iter_mut().for_each(|x| *x *= 5.0);
                let (k, v) = (numbers(keys * width, 2), numbers(keys * value_width, 3));
                let factors = Attention {
                    queries: MatRef::row_major(&q, queries, width).unwrap(),
                    keys: MatRef::row_major(&k, keys, width).unwrap(),
                    values: MatRef::row_major(&v, keys, value_width).unwrap(),
                    scale: 0.5,
                    mask,
                };
                let row_stride = value_width + 2;
                let mut out = vec![7.0; queries * row_stride];
                let mut to = MatMut::new(&mut out, [queries, value_width], row_stride).unwrap();
                attention_by(backend, &Alone, factors, &mut to).unwrap();
                let exact = exact(factors);
                for (row, exact) in out.chunks(row_stride).zip(exact.chunks(value_width.max(1))) {
                    for (found, exact) in row.iter().zip(exact) {
                        let error = (f64::from(*found) - exact).abs();
                        assert!(
                            error < 3e-6,
                            "{backend} {queries} {keys} {mask:?}: {found} {exact}"
                        );
                    }
                    assert_eq!(row[value_width..], [7.0; 2]);
                }
            }
        }
    }
}

#[cfg(all(feature = "std", not(target_family = "wasm")))]
#[test]
fn threads_have_the_bits_of_one() {
    let (queries, keys, width) = (333, 500, 24);
    let [q, k, v] = [1, 2, 3].map(|seed| numbers(500 * width, seed));
    let factors = Attention {
        queries: MatRef::row_major(&q, queries, width).unwrap(),
        keys: MatRef::row_major(&k, keys, width).unwrap(),
        values: MatRef::row_major(&v, keys, width).unwrap(),
        scale: 0.2,
        mask: Mask::Causal { past: 100 },
    };
    let with = |parallel: &dyn Parallel| {
        let mut out = vec![0.0; queries * width];
        let mut to = MatMut::row_major(&mut out, queries, width).unwrap();
        attention(parallel, factors, &mut to).unwrap();
        out
    };
    let threads = crate::parallel::Threads(core::num::NonZeroUsize::new(3).unwrap());
    assert_eq!(with(&Alone), with(&threads));
}

#[test]
fn what_is_not_a_number_and_what_weighs_nothing() {
    let ones = [1.0; 4];
    let attend = |keys: &[f32], values: &[f32]| {
        let factors = Attention {
            queries: MatRef::row_major(&ones, 1, 1).unwrap(),
            keys: MatRef::row_major(keys, keys.len(), 1).unwrap(),
            values: MatRef::row_major(values, keys.len(), 1).unwrap(),
            scale: 1.0,
            mask: Mask::None,
        };
        let mut out = [7.0];
        attention(
            &Alone,
            factors,
            &mut MatMut::row_major(&mut out, 1, 1).unwrap(),
        )
        .unwrap();
        out[0]
    };
    assert_eq!(attend(&[f32::NEG_INFINITY, 3.0], &[5.0, 9.0]), 9.0);
    assert!(attend(&[f32::NAN, 3.0], &[5.0, 9.0]).is_nan());
    assert_eq!(attend(&[1e30, 3.0], &[5.0, 9.0]), 5.0);
    // The largest product comes only with the second block of keys.
    let mut keys = vec![0.0; KEYS + 1];
    keys[KEYS] = 100.0;
    let mut values = vec![1.0; KEYS + 1];
    values[KEYS] = 2.0;
    assert_eq!(attend(&keys, &values), 2.0);
}

#[test]
fn what_does_not_fit_is_refused() {
    let ones = [1.0; 24];
    let matrix = |rows, columns| MatRef::row_major(&ones, rows, columns).unwrap();
    let attend = |keys, values, to: [usize; 2]| {
        let factors = Attention {
            queries: matrix(2, 3),
            keys,
            values,
            scale: 1.0,
            mask: Mask::None,
        };
        let mut out = [0.0; 24];
        let mut to = MatMut::row_major(&mut out, to[0], to[1]).unwrap();
        attention(&Alone, factors, &mut to)
    };
    attend(matrix(4, 3), matrix(4, 5), [2, 5]).unwrap();
    attend(matrix(4, 2), matrix(4, 5), [2, 5]).unwrap_err();
    attend(matrix(3, 3), matrix(4, 5), [2, 5]).unwrap_err();
    attend(matrix(4, 3), matrix(4, 5), [3, 5]).unwrap_err();
    attend(matrix(4, 3), matrix(4, 5), [2, 4]).unwrap_err();
}

#![allow(clippy::unwrap_used)]

use alloc::string::ToString;
use alloc::vec;

use super::product::matmul_blocks_by;
use super::*;
use crate::elementwise::Unary;
use crate::matmul::Fused;
use crate::parallel::{Alone, Parallel};
use crate::simd::tests::{numbers, supported};

/// Blocks of any bytes, with scales from 2⁻⁸ to 2⁻⁶.
fn any_blocks(format: BlockFormat, rows: usize, width: usize) -> Vec<u8> {
    let len = format.matrix_bytes(rows, width).unwrap();
    let mut bytes: Vec<u8> = numbers(len, 9)
        .into_iter()
        .map(|number| (number * 128.0) as i8 as u8)
        .collect();
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        let sign = u16::from(block[0] & 1) << 15;
        let bits = (0x1C00 + u16::from(block[1]) * 8) | sign;
        block[..2].copy_from_slice(&bits.to_le_bytes());
    }
    bytes
}

/// What blocks mean, as the layouts have it.
fn meaning(format: BlockFormat, bytes: &[u8]) -> Vec<f64> {
    let blocks = bytes.chunks_exact(format.block_bytes());
    let elements = blocks.flat_map(|block| {
        let (scale, values) = block.split_at(2);
        let scale = f16::from_le_bytes([scale[0], scale[1]]).to_f64();
        (0..32).map(move |i| match format {
            BlockFormat::Q8 => f64::from(values[i] as i8) * scale,
            BlockFormat::Q4 if i < 16 => (f64::from(values[i] % 16) - 8.0) * scale,
            BlockFormat::Q4 => (f64::from(values[i - 16] / 16) - 8.0) * scale,
        })
    });
    elements.collect()
}

const FORMATS: [BlockFormat; 2] = [BlockFormat::Q8, BlockFormat::Q4];

#[test]
fn every_float_of_16_bits_is_widened() {
    for bits in 0..=u16::MAX {
        let (wide, expected) = (widen(bits), f16::from_bits(bits).to_f32());
        let same = wide.to_bits() == expected.to_bits() || wide.is_nan() && expected.is_nan();
        assert!(same, "{bits:x}: {wide} {expected}");
    }
}

/// Bytes that were written down by hand from the layouts.
#[test]
fn layouts_are_those_of_files() {
    let mut q8 = vec![0x00, 0x38]; // 0.5
    q8.extend((0..32).map(|i| (i - 16) as i8 as u8));
    let mut q4 = vec![0x00, 0xC0]; // -2
    q4.extend((0..16).map(|i| i | (15 - i) << 4));
    for backend in supported() {
        let read = |format, bytes: &[u8]| {
            let mut elements = [0.0; 32];
            let weights = BlockWeights::new(format, bytes, 1, 32).unwrap();
            let mut to = MatMut::row_major(&mut elements, 1, 32).unwrap();
            weights.dequantise_by(backend, &mut to).unwrap();
            elements
        };
        let expected = core::array::from_fn(|i| (i as f32 - 16.0) * 0.5);
        assert_eq!(read(BlockFormat::Q8, &q8), expected);
        let expected = core::array::from_fn(|i| match i {
            0..16 => (i as f32 - 8.0) * -2.0,
            _ => ((31 - i) as f32 - 8.0) * -2.0,
        });
        assert_eq!(read(BlockFormat::Q4, &q4), expected);
    }
}

#[test]
fn what_is_quantised_is_near() {
    let mut elements = numbers(4 * 96, 1);
    elements[32..64].fill(0.0);
    elements[64] = 60_000.0;
    elements[100] = -4.0;
    let matrix = MatRef::row_major(&elements, 4, 96).unwrap();
    for (format, bytes) in FORMATS
        .into_iter()
        .zip([quantise_q8(matrix).unwrap(), quantise_q4(matrix).unwrap()])
    {
        let blocks = bytes.chunks_exact(format.block_bytes());
        let found = meaning(format, &bytes);
        for ((block, found), elements) in blocks.zip(found.chunks(32)).zip(elements.chunks(32)) {
            let scale = f16::from_le_bytes([block[0], block[1]]).to_f64();
            let largest =
                elements.iter().fold(
                    0.0_f32,
                    |max: f32, it| {
                        if it.abs() > max.abs() { *it } else { max }
                    },
                );
            for (found, element) in found.iter().zip(elements) {
                let element = f64::from(*element);
                let share = match format {
                    BlockFormat::Q4 if element / scale > 7.0 => 1.002,
                    _ => 0.501,
                };
                assert!(
                    (found - element).abs() <= share * scale.abs(),
                    "{format:?} {found} {element}"
                );
            }
            let kept = found[elements.iter().position(|it| *it == largest).unwrap()];
            assert!((kept - f64::from(largest)).abs() <= 0.001 * f64::from(largest.abs()));
        }
        // What blocks mean becomes the same blocks.
        let again: Vec<f32> = found.iter().map(|element| *element as f32).collect();
        let matrix = MatRef::row_major(&again, 4, 96).unwrap();
        let again = match format {
            BlockFormat::Q8 => quantise_q8(matrix).unwrap(),
            BlockFormat::Q4 => quantise_q4(matrix).unwrap(),
        };
        assert_eq!(meaning(format, &again), found);
    }
    // Along columns, the same as of the transposed matrix.
    let square = numbers(32 * 32, 2);
    let transposed: Vec<f32> = (0..1_024)
        .map(|at| square[at % 32 * 32 + at / 32])
        .collect();
    let (square, transposed) = (
        MatRef::row_major(&square, 32, 32).unwrap(),
        MatRef::row_major(&transposed, 32, 32).unwrap(),
    );
    assert_eq!(quantise_q8(square.transposed()), quantise_q8(transposed));
}

#[test]
fn tiny_and_large_blocks() {
    for (largest, fits) in [(1e-40, true), (1e-7, true), (500_000.0, true), (9e6, false)] {
        let mut elements = vec![0.0; 64];
        elements[40] = largest;
        let matrix = MatRef::row_major(&elements, 2, 32).unwrap();
        let outside = Err(BlockError::OutOfRange { row: 1, column: 0 });
        for blocks in [quantise_q8(matrix), quantise_q4(matrix)] {
            match fits {
                true => drop(blocks.unwrap()),
                false => assert_eq!(blocks, outside),
            }
        }
    }
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut elements = vec![0.0; 128];
        elements[127] = bad;
        let matrix = MatRef::row_major(&elements, 2, 64).unwrap();
        let outside = Err(BlockError::OutOfRange { row: 1, column: 32 });
        assert_eq!(quantise_q8(matrix), outside);
        assert_eq!(quantise_q4(matrix), outside);
    }
}

fn product(
    backend: Backend,
    parallel: &dyn Parallel,
    x: MatRef<'_, f32>,
    weights: BlockWeights<'_>,
    fused: Fused<'_>,
) -> Vec<f32> {
    let ([rows, _], [columns, _]) = (x.shape(), weights.shape());
    let stride = columns + 3;
    let mut out = vec![0.5; rows * stride];
    let mut to = MatMut::new(&mut out, [rows, columns], stride).unwrap();
    matmul_blocks_by(backend, parallel, x, weights, fused, &mut to).unwrap();
    let beside = out.chunks(stride).flat_map(|row| &row[columns..]);
    assert!(
        beside.copied().all(|it| it == 0.5),
        "wrote beside the matrix"
    );
    out.chunks(stride)
        .flat_map(|row| &row[..columns])
        .copied()
        .collect()
}

/// Against sums in `f64`, with the error that sums of rounded products may have (as in the tests of the product of floats).
#[test]
fn products_are_those_of_what_the_blocks_mean() {
    let depths = [0, 32, 64, 96, 544, 1_056];
    let shapes = (1..=6)
        .flat_map(|rows| (1..=9).map(move |columns| [rows, columns]))
        .chain([[1, 97], [4, 200], [17, 101], [49, 97], [270, 13]]);
    for [rows, columns] in shapes {
        let depth = depths[(rows + columns) % depths.len()];
        let (x, bias) = (numbers(rows * depth, 1), numbers(columns, 2));
        let across: Vec<f32> = (0..rows * depth)
            .map(|at| x[at % rows * depth + at / rows])
            .collect();
        let plain = MatRef::row_major(&x, rows, depth).unwrap();
        let across = MatRef::row_major(&across, depth, rows)
            .unwrap()
            .transposed();
        for format in FORMATS {
            let bytes = any_blocks(format, columns, depth);
            let elements = meaning(format, &bytes);
            let weights = BlockWeights::new(format, &bytes, columns, depth).unwrap();
            for backend in supported() {
                let fused = Fused {
                    accumulate: true,
                    bias: Some(&bias),
                    function: Some(Unary::Relu),
                };
                let alone = product(backend, &Alone, plain, weights, Fused::default());
                let fused = product(backend, &Alone, across, weights, fused);
                for (at, (alone, fused)) in alone.iter().zip(&fused).enumerate() {
                    let (i, j) = (at / columns, at % columns);
                    let terms =
                        (0..depth).map(|p| f64::from(x[i * depth + p]) * elements[j * depth + p]);
                    let (sum, absolute) = terms.fold((0.0, 0.0), |(sum, absolute), term| {
                        (sum + term, absolute + term.abs())
                    });
                    let bound = (depth as f64 + 4.0) * f64::from(f32::EPSILON) * (absolute + 2.0);
                    assert!(
                        (f64::from(*alone) - sum).abs() <= bound,
                        "{backend} {format:?} [{rows}, {depth}, {columns}] at {at}: {alone} {sum}"
                    );
                    let sum = (0.5 + sum + f64::from(bias[j])).max(0.0);
                    assert!(
                        (f64::from(*fused) - sum).abs() <= bound,
                        "{backend} {format:?} [{rows}, {depth}, {columns}] at {at}: {fused} {sum}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_is_not_finite_goes_on() {
    for format in FORMATS {
        for rows in [1, 6, 50] {
            for backend in supported() {
                let mut x = vec![1.0; rows * 64];
                let mut bytes = any_blocks(format, 2, 64);
                bytes[..2].copy_from_slice(&f16::INFINITY.to_le_bytes());
                bytes[format.block_bytes() - 1] = 1;
                let run = |x: &[f32], bytes: &[u8]| {
                    let x = MatRef::row_major(x, rows, 64).unwrap();
                    let weights = BlockWeights::new(format, bytes, 2, 64).unwrap();
                    product(backend, &Alone, x, weights, Fused::default())
                };
                let found = run(&x, &bytes);
                assert!(
                    found
                        .chunks(2)
                        .all(|row| !row[0].is_finite() && row[1].is_finite())
                );
                // A weight of 0 does not hide what it is multiplied with.
                let zeros = match format {
                    BlockFormat::Q8 => 0,
                    BlockFormat::Q4 => 0x88,
                };
                for block in bytes.chunks_exact_mut(format.block_bytes()) {
                    block.fill(zeros);
                    block[..2].copy_from_slice(&[0, 0]);
                }
                assert!(run(&x, &bytes).iter().all(|it| *it == 0.0));
                x[40] = f32::INFINITY;
                let found = run(&x, &bytes);
                assert!(
                    found[..2].iter().all(|it| it.is_nan()),
                    "{backend} {format:?}"
                );
                assert!(found[2..].iter().all(|it| *it == 0.0));
            }
        }
    }
}

#[cfg(all(feature = "std", not(target_family = "wasm")))]
#[test]
fn the_bits_are_those_of_one_thread() {
    use core::num::NonZeroUsize;

    use crate::parallel::Threads;

    for format in FORMATS {
        for [rows, columns, depth] in [
            [1, 1_200, 1_792],
            [3, 500, 2_048],
            [40, 333, 416],
            [70, 333, 352],
        ] {
            let x = numbers(rows * depth, 1);
            let x = MatRef::row_major(&x, rows, depth).unwrap();
            let bytes = any_blocks(format, columns, depth);
            let weights = BlockWeights::new(format, &bytes, columns, depth).unwrap();
            let bias = numbers(columns, 2);
            let fused = Fused {
                bias: Some(&bias),
                ..Fused::default()
            };
            for backend in supported() {
                let one = product(backend, &Alone, x, weights, fused);
                for count in [2, 3, 7] {
                    let threads = Threads(NonZeroUsize::new(count).unwrap());
                    let found = product(backend, &threads, x, weights, fused);
                    assert!(found == one, "{backend} {format:?} {rows} {count}");
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let bytes = [0; 68];
    let new = |rows, width| BlockWeights::new(BlockFormat::Q8, &bytes, rows, width).map(drop);
    new(2, 32).unwrap();
    new(1, 64).unwrap();
    assert_eq!(new(2, 33), Err(BlockError::Width { width: 33 }));
    for (rows, width, expected) in [(3, 32, 102), (1, 32, 34), (0, 32, 0), (9, 0, 0)] {
        let error = Err(BlockError::Length {
            given: 68,
            expected,
        });
        assert_eq!(new(rows, width), error);
    }
    let (rows, width) = (usize::MAX, usize::MAX - 31);
    assert_eq!(new(rows, width), Err(BlockError::TooLarge { rows, width }));
    assert_eq!(
        new(usize::MAX / 30, 32),
        Err(BlockError::TooLarge {
            rows: usize::MAX / 30,
            width: 32
        })
    );
    let endless = MatRef::new(&[1.0], [usize::MAX, 32], [0, 0]).unwrap();
    assert!(matches!(
        quantise_q4(endless),
        Err(BlockError::TooLarge { .. })
    ));
    let odd = MatRef::new(&[1.0], [1, 31], [0, 0]).unwrap();
    assert_eq!(quantise_q8(odd), Err(BlockError::Width { width: 31 }));

    let weights = BlockWeights::new(BlockFormat::Q8, &bytes, 2, 32).unwrap();
    let mut out = [0.0; 64];
    let mut to = MatMut::row_major(&mut out, 1, 64).unwrap();
    let error = weights.dequantise(&mut to).unwrap_err();
    assert_eq!(
        error.to_string(),
        "weights of [2, 32] do not fit a matrix of [1, 64]"
    );
    let x = [1.0; 64];
    let multiply = |x: &[f32], shape: [usize; 2], out: [usize; 2], bias: Option<&[f32]>| {
        let mut elements = [0.0; 64];
        let mut to = MatMut::row_major(&mut elements, out[0], out[1]).unwrap();
        let x = MatRef::row_major(x, shape[0], shape[1]).unwrap();
        let fused = Fused {
            bias,
            ..Fused::default()
        };
        matmul_blocks(&Alone, x, weights, fused, &mut to)
    };
    multiply(&x, [2, 32], [2, 2], Some(&[1.0; 2])).unwrap();
    multiply(&x, [1, 64], [1, 2], None).unwrap_err();
    multiply(&x, [2, 32], [2, 1], None).unwrap_err();
    multiply(&x, [2, 32], [1, 2], None).unwrap_err();
    multiply(&x, [2, 32], [2, 2], Some(&[1.0; 3])).unwrap_err();
    multiply(&x, [0, 32], [0, 2], None).unwrap();
}

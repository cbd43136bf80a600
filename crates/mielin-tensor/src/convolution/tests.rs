#![allow(clippy::unwrap_used)]

use alloc::string::ToString;
use alloc::vec::Vec;

use super::*;
use crate::elementwise::Unary;
use crate::parallel::Alone;
use crate::simd::tests::{numbers, supported};

/// The definition, in twice the precision: each sum, and that of the magnitudes of its terms.
fn defined(it: &Convolution<2>, input: &[f32], weights: &[f32]) -> Vec<(f64, f64)> {
    let [height, width] = it.output_size().unwrap();
    let [inputs, outputs] = it.channels.map(|count| count / it.groups);
    let mut sums = Vec::new();
    for channel in 0..it.channels[1] {
        for at in 0..height * width {
            let place = [at / width, at % width];
            let (mut sum, mut absolute) = (0.0, 0.0);
            for term in 0..inputs * it.kernel[0] * it.kernel[1] {
                let (i, k) = (term / it.kernel[1], term % it.kernel[1]);
                let (i, taps) = (i / it.kernel[0], [i % it.kernel[0], k]);
                let seen = |axis: usize| {
                    let padded = place[axis] * it.stride[axis] + taps[axis] * it.dilation[axis];
                    let at = padded.checked_sub(it.padding[axis][0]);
                    at.filter(|at| *at < it.size[axis])
                };
                let element = match (seen(0), seen(1)) {
                    (Some(y), Some(x)) => {
                        let plane = channel / outputs * inputs + i;
                        f64::from(input[(plane * it.size[0] + y) * it.size[1] + x])
                    }
                    _ => 0.0,
                };
                let terms = inputs * it.kernel[0] * it.kernel[1];
                let product = element * f64::from(weights[channel * terms + term]);
                sum += product;
                absolute += product.abs();
            }
            sums.push((sum, absolute));
        }
    }
    sums
}

fn operands(it: &Convolution<2>) -> (Vec<f32>, Vec<f32>) {
    let inputs = it.channels[0] * it.size[0] * it.size[1];
    let terms = it.channels[0] / it.groups * it.kernel[0] * it.kernel[1];
    (numbers(inputs, 1), numbers(it.channels[1] * terms, 2))
}

fn convolved(
    backend: Backend,
    parallel: &dyn Parallel,
    it: &Convolution<2>,
    (input, weights): (&[f32], &[f32]),
    fused: Fused<'_>,
) -> Vec<f32> {
    let [height, width] = it.output_size().unwrap();
    let mut out = vec![0.5; it.channels[1] * height * width];
    let plan = it.plan::<0>().unwrap();
    convolve(backend, parallel, &plan, input, weights, fused, &mut out).unwrap();
    out
}

/// An error is at most that of as many additions and products as there are terms.
fn check(it: &Convolution<2>) {
    let (input, weights) = operands(it);
    let expected = defined(it, &input, &weights);
    let bias = numbers(it.channels[1], 3);
    let fused = Fused {
        accumulate: true,
        bias: Some(&bias),
        function: Some(Unary::Relu),
    };
    let terms = weights.len().checked_div(it.channels[1]).unwrap_or(0);
    for backend in supported() {
        let operands = (&input[..], &weights[..]);
        let alone = convolved(backend, &Alone, it, operands, Fused::default());
        let fused = convolved(backend, &Alone, it, operands, fused);
        assert_eq!(alone.len(), expected.len());
        let found = alone.iter().zip(&fused).zip(&expected).enumerate();
        for (at, ((alone, fused), (sum, absolute))) in found {
            let bound = (terms as f64 + 4.0) * f64::from(f32::EPSILON) * (absolute + 2.0);
            let error = (f64::from(*alone) - sum).abs();
            assert!(
                error <= bound,
                "{backend} {it:?} at {at}: {alone} for {sum}"
            );
            let bias = bias[at * it.channels[1] / expected.len()];
            let sum = (0.5 + sum + f64::from(bias)).max(0.0);
            let error = (f64::from(*fused) - sum).abs();
            assert!(
                error <= bound,
                "{backend} {it:?} at {at}: {fused} for {sum}"
            );
        }
    }
}

#[test]
fn all_small_convolutions() {
    let groups = [
        ([1, 1], 1),
        ([2, 3], 1),
        ([4, 6], 2),
        ([3, 3], 3),
        ([2, 4], 2),
        ([2, 8], 2),
        ([1, 2], 1),
        ([0, 2], 1),
        ([2, 0], 1),
        ([0, 0], 5),
    ];
    let padding = [[[0, 0]; 2], [[1, 1]; 2], [[2, 0], [0, 3]], [[0, 1], [5, 2]]];
    for size in [[1, 1], [1, 7], [5, 4], [6, 9], [0, 3]] {
        for kernel in [[1, 1], [1, 3], [3, 3], [2, 1], [3, 4]] {
            for padding in padding {
                for stride in [[1, 1], [2, 3]] {
                    for dilation in [[1, 1], [2, 1], [1, 3]] {
                        for (channels, groups) in groups {
                            let it = Convolution {
                                stride,
                                padding,
                                dilation,
                                groups,
                                ..Convolution::new(channels, size, kernel)
                            };
                            if it.output_size().is_ok() {
                                check(&it);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Of several blocks of positions, terms and channels, and without a copy.
#[test]
fn large_convolutions() {
    let padded = Convolution {
        padding: [[1, 1]; 2],
        ..Convolution::new([13, 20], [19, 23], [3, 3])
    };
    check(&padded);
    check(&Convolution {
        stride: [2, 2],
        ..padded
    });
    check(&Convolution::new([130, 5], [13, 14], [1, 1]));
    check(&Convolution {
        groups: 2,
        ..Convolution::new([6, 600], [3, 4], [2, 2])
    });
    check(&Convolution {
        groups: 3,
        padding: [[3, 3], [300, 1]],
        ..Convolution::new([3, 3], [4, 270], [7, 3])
    });
    check(&Convolution {
        padding: [[0, 1], [0, 0]],
        ..Convolution::new([4, 4], [3, 5], [1, 1])
    });
}

#[test]
fn along_one_axis_as_along_two() {
    let line = Convolution {
        stride: [2],
        padding: [[4, 1]],
        dilation: [3],
        groups: 2,
        ..Convolution::new([4, 6], [50], [3])
    };
    let plane = Convolution {
        stride: [1, 2],
        padding: [[0, 0], [4, 1]],
        dilation: [1, 3],
        groups: 2,
        ..Convolution::new([4, 6], [1, 50], [1, 3])
    };
    let (input, weights) = operands(&plane);
    let [length] = line.output_size().unwrap();
    let (mut one, mut two) = (vec![0.0; 6 * length], vec![0.0; 6 * length]);
    let fused = Fused::default();
    convolve_1d(&Alone, &line, &input, &weights, fused, &mut one).unwrap();
    convolve_2d(&Alone, &plane, &input, &weights, fused, &mut two).unwrap();
    assert_eq!(one, two);
}

#[test]
fn what_is_not_finite_goes_where_it_is_seen() {
    for backend in supported() {
        for (channels, groups) in [([1, 1], 1), ([2, 3], 1)] {
            let it = Convolution {
                padding: [[1, 1]; 2],
                groups,
                ..Convolution::new(channels, [5, 6], [3, 3])
            };
            let (mut input, mut weights) = operands(&it);
            input[2 * 6 + 2] = f32::INFINITY;
            weights[4] = 0.0;
            let run = |input: &[f32], weights: &[f32]| {
                convolved(backend, &Alone, &it, (input, weights), Fused::default())
            };
            let found = run(&input, &weights);
            for (at, found) in found.iter().enumerate() {
                let (y, x) = (at % 30 / 6, at % 6);
                let sees = y.abs_diff(2) <= 1 && x.abs_diff(2) <= 1;
                assert_eq!(!found.is_finite(), sees, "{backend} {at}");
                // Zero times infinity is not left out.
                assert_eq!(found.is_nan(), at == 2 * 6 + 2, "{backend} {at}");
            }
            // The zeros of the padding are factors, too.
            input[2 * 6 + 2] = 1.0;
            weights[0] = f32::INFINITY;
            let found = run(&input, &weights);
            for (at, found) in found[..30].iter().enumerate() {
                let at_edge = at / 6 == 0 || at % 6 == 0;
                assert!(!found.is_finite(), "{backend} {at}");
                assert_eq!(found.is_nan(), at_edge, "{backend} {at}");
            }
        }
    }
}

#[cfg(all(feature = "std", not(target_family = "wasm")))]
#[test]
fn the_bits_are_those_of_one_thread() {
    use core::num::NonZeroUsize;

    use crate::parallel::Threads;

    let padded = Convolution {
        padding: [[1, 1]; 2],
        ..Convolution::new([20, 30], [33, 31], [3, 3])
    };
    let each = Convolution {
        groups: 300,
        ..Convolution::new([300, 300], [33, 31], [3, 3])
    };
    let pointwise = Convolution::new([64, 50], [33, 31], [1, 1]);
    for it in [padded, each, pointwise] {
        let (input, weights) = operands(&it);
        let bias = numbers(it.channels[1], 3);
        let fused = Fused {
            bias: Some(&bias),
            ..Fused::default()
        };
        let run = |parallel: &dyn Parallel| {
            let operands = (&input[..], &weights[..]);
            convolved(Backend::active(), parallel, &it, operands, fused)
        };
        let one = run(&Alone);
        for count in [2, 3, 7] {
            let threads = Threads(NonZeroUsize::new(count).unwrap());
            assert!(run(&threads) == one, "{it:?} {count}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let plain = Convolution::new([2, 4], [5, 6], [3, 2]);
    let run = |it: Convolution<2>, lengths: [usize; 3], bias: Option<&[f32]>| {
        let [input, weights, out] = lengths.map(|len| vec![1.0; len]);
        let mut out = out;
        let fused = Fused {
            bias,
            ..Fused::default()
        };
        convolve_2d(&Alone, &it, &input, &weights, fused, &mut out)
    };
    run(plain, [60, 48, 60], Some(&[0.0; 4])).unwrap();
    let length = |what, expected, given| {
        Err(ConvolutionError::Length(LengthError {
            what,
            expected,
            given,
        }))
    };
    assert_eq!(run(plain, [59, 48, 60], None), length("the input", 60, 59));
    assert_eq!(
        run(plain, [60, 49, 60], None),
        length("the weights", 48, 49)
    );
    assert_eq!(run(plain, [60, 48, 61], None), length("the output", 60, 61));
    let bias = Some(&[0.0; 3][..]);
    assert_eq!(run(plain, [60, 48, 60], bias), length("the bias", 4, 3));

    let error = |change: &dyn Fn(&mut Convolution<2>)| {
        let mut it = plain;
        change(&mut it);
        run(it, [60, 48, 60], None).unwrap_err()
    };
    let zero = |what, axis| ConvolutionError::Zero { what, axis };
    assert_eq!(error(&|it| it.stride[1] = 0), zero("stride", 1));
    assert_eq!(error(&|it| it.dilation[0] = 0), zero("dilation", 0));
    assert_eq!(error(&|it| it.kernel = [0; 2]), zero("kernel", 0));
    for (groups, channels) in [(0, [2, 4]), (3, [2, 4]), (2, [2, 3]), (2, [3, 2])] {
        let found = error(&|it| (it.groups, it.channels) = (groups, channels));
        assert_eq!(found, ConvolutionError::Groups { groups, channels });
    }
    let found = error(&|it| it.dilation[0] = 3);
    let expected = ConvolutionError::Kernel {
        axis: 0,
        extent: 7,
        padded: 5,
    };
    assert_eq!(found, expected);
    assert_eq!(
        found.to_string(),
        "a kernel that extends over 7 elements does not fit the 5 of axis 0"
    );

    const MAX: usize = usize::MAX;
    let large = ConvolutionError::TooLarge;
    assert_eq!(error(&|it| it.padding[0] = [MAX, 1]), large);
    assert_eq!(error(&|it| it.padding[1] = [1, MAX]), large);
    assert_eq!(error(&|it| it.dilation[0] = MAX), large);
    assert_eq!(error(&|it| it.size = [MAX, MAX]), large);
    assert_eq!(error(&|it| it.padding = [[MAX / 2, 0]; 2]), large);
    assert_eq!(error(&|it| it.channels = [MAX, MAX]), large);
    let found = error(&|it| (it.padding[0], it.kernel) = ([MAX - 5, 0], [MAX, 6]));
    assert_eq!(found, large);
    // The input is far inside of its padding, and most outputs do not see it.
    let far = Convolution {
        padding: [[MAX / 2, 0], [0, MAX / 2]],
        stride: [MAX / 4, MAX / 4],
        dilation: [MAX / 4, 1],
        ..Convolution::new([2, 4], [5, 6], [3, 2])
    };
    let [height, width] = far.output_size().unwrap();
    run(far, [60, 48, 4 * height * width], None).unwrap();
    let each = Convolution { groups: 2, ..far };
    run(each, [60, 24, 4 * height * width], None).unwrap();
}

//! Exponentials and what is made of them, on vectors.
//!
//! The polynomials are minimax ones, found by Remez's algorithm for the relative error of the result, with coefficients
//! rounded to floats. What each function is off by was measured on every float; `unary` states it. What is not a number stays
//! so on the way: where it meets a bound, it is the second operand.

use crate::simd::Simd;

const LOG2_E: f32 = core::f32::consts::LOG2_E;
/// The first bits of ln 2: times a whole number below 2¹⁵ there is nothing to round.
const LN_2_FIRST: f32 = 355.0 / 512.0;
/// What it lacks.
const LN_2_REST: f32 = -2.121_944_4e-4;

/// (eʳ - 1 - r) / r² for |r| ≤ ln 2 / 2; off by less than 3.1e-9 of eʳ.
const EXP: [f32; 5] = [
    0.499_999_93,
    0.166_665_2,
    0.041_668_396,
    0.008_368_797,
    0.001_381_443_3,
];

/// (tanh √u - √u) / √u³ for u ≤ 0.625²; off by less than 4.4e-9 of tanh √u.
const TANH: [f32; 5] = [
    -0.333_332_8,
    0.133_314_42,
    -0.053_739_715,
    0.020_639_086,
    -0.005_704_986_4,
];
/// Up to here it is used.
const TANH_SMALL: f32 = 0.625;

/// exp(t² / 2) · Φ(-t) in w = 3 / (3 + t) for t up to 14, where Φ is the normal distribution; off by less than 7.8e-9 of it. Beyond,
/// up to [`TAIL_END`], the result is less than the smallest normal float, and has fewer digits than the polynomial.
const TAIL: [f32; 10] = [
    5.667_451_7e-6,
    0.132_825_84,
    0.134_819_98,
    0.105_741_58,
    0.141_875_6,
    -0.099_389_784,
    0.280_544_7,
    -0.322_182_77,
    0.153_239_22,
    -0.027_480_002,
];
/// From here on Φ(-t) is less than the smallest float, also times t.
const TAIL_END: f32 = 15.0;

#[inline(always)]
fn polynomial<S: Simd>(simd: S, coefficients: &[f32], x: S::Floats) -> S::Floats {
    let (last, others) = coefficients.split_last().expect("it has coefficients");
    let highest = simd.splat(*last);
    others.iter().rev().fold(highest, |value, coefficient| {
        simd.mul_add(value, x, simd.splat(*coefficient))
    })
}

/// eˣ as a factor near 1 and a power of two. The factor of what is not a number is not one.
#[inline(always)]
fn exp_parts<S: Simd>(simd: S, x: S::Floats) -> (S::Floats, S::Floats) {
    // Beyond these it is 0 or infinity whatever it is.
    let x = simd.max(simd.splat(-120.0), simd.min(simd.splat(100.0), x));
    let exponent = simd.round(simd.mul(x, simd.splat(LOG2_E)));
    let r = simd.mul_add(exponent, simd.splat(-LN_2_FIRST), x);
    let r = simd.mul_add(exponent, simd.splat(-LN_2_REST), r);
    let rest = simd.mul_add(polynomial(simd, &EXP, r), simd.mul(r, r), r);
    (simd.add(rest, simd.splat(1.0)), exponent)
}

#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::Floats) -> S::Floats {
    let (factor, exponent) = exp_parts(simd, x);
    simd.scale(factor, exponent)
}

#[inline(always)]
pub(crate) fn tanh<S: Simd>(simd: S, x: S::Floats) -> S::Floats {
    // From here on it is 1.
    let magnitude = simd.min(simd.splat(10.0), simd.abs(x));
    let squared = simd.mul(x, x);
    let one = simd.splat(1.0);
    // A product, so that -0 stays what it is.
    let small = simd.mul_add(polynomial(simd, &TANH, squared), squared, one);
    let small = simd.mul(x, small);
    let doubled = exp(simd, simd.add(magnitude, magnitude));
    let share = simd.quotient(one, simd.add(doubled, one));
    let large = simd.sub(one, simd.add(share, share));
    let is_negative = simd.less(x, simd.splat(0.0));
    let large = simd.select(is_negative, simd.sub(simd.splat(0.0), large), large);
    let is_small = simd.less(magnitude, simd.splat(TANH_SMALL));
    simd.select(is_small, small, large)
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(simd: S, x: S::Floats) -> S::Floats {
    let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
    let power = exp(simd, simd.sub(zero, simd.abs(x)));
    let above = simd.quotient(one, simd.add(one, power));
    simd.select(simd.less(x, zero), simd.mul(power, above), above)
}

/// x · sigmoid(x), which is -0 where that is less than the smallest float.
#[inline(always)]
pub(crate) fn silu<S: Simd>(simd: S, x: S::Floats) -> S::Floats {
    let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
    let (factor, exponent) = exp_parts(simd, simd.sub(zero, simd.abs(x)));
    let power = simd.scale(factor, exponent);
    let above = simd.quotient(one, simd.add(one, power));
    // Infinity times zero is not wanted, and the power alone is subnormal before the product is.
    let finite = simd.max(simd.splat(-200.0), x);
    let below = simd.mul(simd.mul(finite, factor), above);
    let below = simd.scale(below, exponent);
    simd.select(simd.less(x, zero), below, simd.mul(x, above))
}

/// x · Φ(x).
#[inline(always)]
pub(crate) fn gelu<S: Simd>(simd: S, x: S::Floats) -> S::Floats {
    let (one, three) = (simd.splat(1.0), simd.splat(3.0));
    let t = simd.min(simd.splat(TAIL_END), simd.abs(x));
    let w = simd.quotient(three, simd.add(three, t));
    let shape = polynomial(simd, &TAIL, w);
    // What the square loses when it is rounded is not small beside 1 when it is exponentiated.
    let squared = simd.mul(t, t);
    let lost = simd.lost(t, t, squared);
    let (factor, exponent) = exp_parts(simd, simd.mul(squared, simd.splat(-0.5)));
    let factor = simd.mul_add(simd.mul(lost, simd.splat(-0.5)), factor, factor);
    let tail = simd.mul(shape, factor);
    let below = simd.mul(simd.max(simd.splat(-TAIL_END), x), tail);
    let below = simd.scale(below, exponent);
    let above = simd.mul(x, simd.sub(one, simd.scale(tail, exponent)));
    simd.select(simd.less(x, simd.splat(0.0)), below, above)
}

/// x · sigmoid(√(8/π) · (x + 0.044715 · x³)).
#[inline(always)]
pub(crate) fn gelu_tanh<S: Simd>(simd: S, x: S::Floats) -> S::Floats {
    const FIRST: f32 = 1.595_769;
    const THIRD: f32 = FIRST * 0.044_715;
    // Beyond it the result is 0 or x; the cube must not become infinite.
    const END: f32 = 30.0;
    let finite = simd.max(simd.splat(-END), x);
    let near = simd.min(simd.splat(END), finite);
    let squared = simd.mul(near, near);
    let slope = simd.mul_add(squared, simd.splat(THIRD), simd.splat(FIRST));
    simd.mul(finite, sigmoid(simd, simd.mul(near, slope)))
}

/// The larger one of x and 0.
#[inline(always)]
pub(crate) fn relu<S: Simd>(simd: S, x: S::Floats) -> S::Floats {
    simd.max(simd.splat(0.0), x)
}

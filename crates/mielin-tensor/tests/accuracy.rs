//! What each function of [`Unary`] is off by, against references in `f64` by the crate `libm`, whose own errors are nothing beside
//! those of a float.
//!
//! A process has one backend, so each backend is a process of its own. The test looks at a sample of the floats; with
//! `MIELIN_TENSOR_EVERY_FLOAT=1 cargo test --release -p mielin-tensor --test accuracy -- --nocapture` at all, in some minutes, and
//! prints the largest errors.

#![allow(
    clippy::print_stdout,
    reason = "the figures are for whoever asks for them"
)]

use std::env;
use std::process::Command;

use mielin_tensor::{Backend, Unary};

/// Floats that are computed at a time.
const BLOCK: u32 = 1 << 16;
/// Of so many blocks the sample has one: an odd number, so that it has all exponents and the bits after them.
const SAMPLE: usize = 253;
/// Among floats near these some function was off by most of all, or had been before it was mended: they are always looked at.
const HARD: [f32; 4] = [2.995_455_3e-2, 6.310_442e-1, -1.954_244_5, -3.241_111_8];
const EVERY_FLOAT: &str = "MIELIN_TENSOR_EVERY_FLOAT";
const CHILD: &str = "MIELIN_TENSOR_TEST_CHILD";

/// As the documentation of [`Unary`] states it.
fn bound(function: Unary) -> f64 {
    match function {
        Unary::Exp => 1.1,
        Unary::Tanh => 2.0,
        Unary::Sigmoid => 3.0,
        Unary::Silu => 4.0,
        Unary::Gelu => 8.0,
        Unary::GeluTanh => 320.0,
        _ => 0.0,
    }
}

#[test]
fn errors_are_as_stated() {
    if env::var(CHILD).is_ok() {
        return look();
    }
    for backend in Backend::ALL.into_iter().filter(|it| it.is_supported()) {
        let itself = env::current_exe().expect("it has a path");
        let status = Command::new(itself)
            .args(["--exact", "errors_are_as_stated", "--nocapture"])
            .env(CHILD, "1")
            .env("MIELIN_TENSOR_BACKEND", backend.name())
            .status();
        assert!(status.expect("it starts").success(), "{backend}");
    }
}

fn look() {
    let step = if env::var(EVERY_FLOAT).is_ok() {
        1
    } else {
        SAMPLE
    };
    for function in Unary::ALL {
        let (mut worst, mut worst_at) = (0.0, 0.0);
        let hard = HARD.map(|x| x.to_bits() / BLOCK);
        for block in (0..=u32::MAX / BLOCK).step_by(step).chain(hard) {
            let from: Vec<f32> = (0..BLOCK)
                .map(|offset| f32::from_bits(block * BLOCK + offset))
                .collect();
            let mut to = vec![0.0; from.len()];
            function.apply(&from, &mut to).expect("as many");
            for (x, y) in from.iter().zip(&to) {
                let off = off_by(*y, reference(function, *x));
                if off > worst {
                    (worst, worst_at) = (off, *x);
                }
            }
        }
        let backend = Backend::active();
        println!("{backend} {function:?}: at most {worst:.2} ulp, at {worst_at:e}");
        assert!(worst <= bound(function));
    }
}

fn reference(function: Unary, x: f32) -> f64 {
    let x = f64::from(x);
    match function {
        Unary::Exp => libm::exp(x),
        Unary::Tanh => libm::tanh(x),
        Unary::Sigmoid => 1.0 / (1.0 + libm::exp(-x)),
        Unary::Silu if x == f64::NEG_INFINITY => 0.0,
        Unary::Silu => x / (1.0 + libm::exp(-x)),
        Unary::Gelu if x == f64::NEG_INFINITY => 0.0,
        Unary::Gelu => x * 0.5 * libm::erfc(-x * core::f64::consts::FRAC_1_SQRT_2),
        Unary::GeluTanh if x.abs() > 1e9 => x.max(0.0),
        Unary::GeluTanh => {
            let inner = (8.0 / core::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            x / (1.0 + libm::exp(-inner))
        }
        _ if x.is_nan() => x,
        _ => x.max(0.0),
    }
}

/// How far a float is from the exact result, in distances of the floats around that.
fn off_by(found: f32, exact: f64) -> f64 {
    if found.is_nan() || exact.is_nan() {
        return if found.is_nan() && exact.is_nan() {
            0.0
        } else {
            f64::INFINITY
        };
    }
    let rounded = exact as f32;
    if found == rounded {
        // Also both infinite.
        return if rounded.is_infinite() {
            0.0
        } else {
            (f64::from(found) - exact).abs() / spacing(rounded)
        };
    }
    if found.is_infinite() || rounded.is_infinite() {
        // One over the end counts as its last step.
        return if found.abs() == f32::MAX || rounded.abs() == f32::MAX {
            1.0
        } else {
            f64::INFINITY
        };
    }
    (f64::from(found) - exact).abs() / spacing(rounded)
}

fn spacing(x: f32) -> f64 {
    let magnitude = x.abs().max(f32::MIN_POSITIVE);
    let next = f32::from_bits(magnitude.to_bits() + 1);
    match next.is_infinite() {
        true => f64::from(magnitude) - f64::from(f32::from_bits(magnitude.to_bits() - 1)),
        false => f64::from(next) - f64::from(magnitude),
    }
}

//! Functions of the elements of slices, and sums over them.

use std::rc::Rc;

use mielin_tensor::{Binary, Unary, axpy, dot, scale, sum};

use super::{Bench, Plan};
use crate::case::{Case, Load, numbers};
use crate::rivals::onednn::primitive::{
    ADD, EXP, GELU, GELU_TANH, MUL, Operation, RELU, SILU, TANH,
};

/// Why a kernel takes its slices.
const SAME: &str = "they have the same length";

/// Elements that the first or the second cache holds.
const FEW: usize = 4_096;

/// How many elements there are.
#[derive(Clone, Copy)]
enum Length {
    Few,
    /// More than the caches hold.
    Many,
}

impl Length {
    fn elements(self, bench: &Bench) -> usize {
        match self {
            Self::Few => FEW,
            Self::Many => bench.beyond_caches as usize / size_of::<f32>(),
        }
    }

    /// What a call has to do that does `operations` for each element, reads so many slices, and writes one of them or none.
    fn load(self, elements: usize, operations: f64, read: f64, written: f64) -> Load {
        let bytes = match self {
            Self::Few => 0.0,
            Self::Many => (elements * size_of::<f32>()) as f64,
        };
        Load {
            operations: operations * elements as f64,
            is_fused: false,
            read_bytes: read * bytes,
            written_bytes: written * bytes,
        }
    }
}

const UNARY: [(&str, Unary, Operation); 6] = [
    ("relu", Unary::Relu, RELU),
    ("exp", Unary::Exp, EXP),
    ("tanh", Unary::Tanh, TANH),
    ("silu", Unary::Silu, SILU),
    ("gelu", Unary::Gelu, GELU),
    ("gelu tanh", Unary::GeluTanh, GELU_TANH),
];
const BINARY: [(&str, Binary, Operation); 2] =
    [("add", Binary::Add, ADD), ("mul", Binary::Mul, MUL)];

pub(super) fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    for length in [Length::Few, Length::Many] {
        let mut plan = |kernel, make: fn(&Bench, Length) -> Case| {
            plans.push(Plan::new(kernel, 0.0, move |bench| make(bench, length)));
        };
        plan("dot", dots);
        plan("sum", sums);
        plan("axpy", axpys);
        plan("scale", scales);
        for (name, ours, theirs) in BINARY {
            let make = move |bench: &Bench| binary(bench, length, name, ours, theirs);
            plans.push(Plan::new(name, 0.0, make));
        }
        for (name, ours, theirs) in UNARY {
            // Out of the caches all of them wait for the memory alike.
            if matches!(length, Length::Many) && !matches!(ours, Unary::Relu | Unary::Gelu) {
                continue;
            }
            let make = move |bench: &Bench| unary(bench, length, name, ours, theirs);
            plans.push(Plan::new(name, 0.0, make));
        }
    }
    plans
}

/// How far sums of so many numbers between -0.5 and 0.5 may be apart in single precision, for which rounding errors add up
/// like steps of a random walk.
fn sum_tolerance(elements: usize) -> f32 {
    (elements as f32).sqrt() * 1e-6
}

/// Numbers that are others than [`numbers`].
fn other_numbers(count: usize) -> Vec<f32> {
    let mut numbers = numbers(count);
    numbers.reverse();
    numbers
}

fn dots(bench: &Bench, length: Length) -> Case {
    let len = length.elements(bench);
    let factors = Rc::new((numbers(len), other_numbers(len)));
    let both = factors.clone();
    let ours = move |out: &mut [f32]| out[0] = dot(&both.0, &both.1).expect(SAME);
    let mut case = Case::new("dot", len.to_string(), 1, ours);
    case.load = length.load(len, 2.0, 2.0, 0.0);
    case.tolerance = sum_tolerance(len);
    if let Some(blas) = bench.libraries.openblas {
        case = case.with("openblas", move |out| {
            out[0] = blas.sdot(&factors.0, &factors.1);
        });
    }
    case
}

fn sums(bench: &Bench, length: Length) -> Case {
    let len = length.elements(bench);
    let terms = Rc::new(numbers(len));
    let all = terms.clone();
    let ours = move |out: &mut [f32]| out[0] = sum(&all);
    let mut case = Case::new("sum", len.to_string(), 1, ours);
    case.load = length.load(len, 1.0, 1.0, 0.0);
    case.tolerance = sum_tolerance(len);
    if let Some(blas) = bench.libraries.openblas {
        case = case.with("openblas", move |out| out[0] = blas.ssum(&terms));
    }
    case
}

fn axpys(bench: &Bench, length: Length) -> Case {
    let factor = 1e-3;
    let len = length.elements(bench);
    let x = Rc::new(numbers(len));
    let own = x.clone();
    let ours = move |y: &mut [f32]| axpy(factor, &own, y).expect(SAME);
    let mut case = Case::in_place("axpy", len.to_string(), other_numbers(len), ours);
    case.load = length.load(len, 2.0, 2.0, 1.0);
    case.tolerance = f32::EPSILON;
    if let Some(blas) = bench.libraries.openblas {
        case = case.with("openblas", move |y| blas.saxpy(factor, &x, y));
    }
    case
}

fn scales(bench: &Bench, length: Length) -> Case {
    // By one, somebody might have nothing to do; by any other number, nothing would be left in the end.
    let factor = -1.0;
    let len = length.elements(bench);
    let ours = move |x: &mut [f32]| scale(factor, x);
    let mut case = Case::in_place("scale", len.to_string(), numbers(len), ours);
    case.load = length.load(len, 1.0, 1.0, 1.0);
    if let Some(blas) = bench.libraries.openblas {
        case = case.with("openblas", move |x| blas.sscal(factor, x));
    }
    case
}

fn binary(
    bench: &Bench,
    length: Length,
    name: &'static str,
    kind: Binary,
    theirs: Operation,
) -> Case {
    let len = length.elements(bench);
    let operands = Rc::new((numbers(len), other_numbers(len)));
    let both = operands.clone();
    let ours = move |out: &mut [f32]| kind.apply(&both.0, &both.1, out).expect(SAME);
    let mut case = Case::new(name, len.to_string(), len, ours);
    case.load = length.load(len, 1.0, 2.0, 1.0);
    case.tolerance = f32::EPSILON;
    let onednn = bench.libraries.onednn;
    if let Some(primitive) = onednn.and_then(|it| it.primitive(theirs, [1, len])) {
        case = case.with("onednn", move |out| {
            primitive.run(Some(&operands.0), &[&operands.1], out);
        });
    }
    case
}

fn unary(
    bench: &Bench,
    length: Length,
    name: &'static str,
    kind: Unary,
    theirs: Operation,
) -> Case {
    let len = length.elements(bench);
    // From -8 to 8, where the functions are neither 0 nor 1.
    let arguments = Rc::new(numbers(len).iter().map(|x| x * 16.0).collect::<Vec<_>>());
    let own = arguments.clone();
    let ours = move |out: &mut [f32]| kind.apply(&own, out).expect(SAME);
    let mut case = Case::new(name, len.to_string(), len, ours);
    case.load = length.load(len, 1.0, 1.0, 1.0);
    // oneDNN's are polynomials of its own.
    case.tolerance = 1e-5;
    let onednn = bench.libraries.onednn;
    if let Some(primitive) = onednn.and_then(|it| it.primitive(theirs, [1, len])) {
        case = case.with("onednn", move |out| {
            primitive.run(Some(&arguments), &[], out);
        });
    }
    case
}

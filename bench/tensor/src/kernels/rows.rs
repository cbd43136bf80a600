//! Functions of the rows of a matrix.

use std::rc::Rc;

use mielin_tensor::{layer_norm, rms_norm, softmax};

use super::{Bench, Plan};
use crate::case::{Case, Load, numbers};
use crate::rivals::onednn::primitive::Operation;

/// Rows and their widths: an attention head's scores, a layer's activations.
const SHAPES: [[usize; 2]; 2] = [[128, 256], [128, 4_096]];
const EPSILON: f32 = 1e-5;
/// Why a kernel takes its slices.
const WHOLE: &str = "the rows are whole";

pub(super) fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    for shape in SHAPES {
        plans.push(Plan::new("softmax", 0.0, move |bench| {
            softmaxes(bench, shape)
        }));
        plans.push(Plan::new("layer norm", 0.0, move |bench| {
            layer_norms(bench, shape)
        }));
        plans.push(Plan::new("rms norm", 0.0, move |_| rms_norms(shape)));
    }
    plans
}

/// A case that changes the rows in place; one operation for each element.
fn case(
    kernel: &'static str,
    [rows, width]: [usize; 2],
    ours: impl FnMut(&mut [f32]) + 'static,
) -> Case {
    let label = format!("{rows}x{width}");
    let mut case = Case::in_place(kernel, label, numbers(rows * width), ours);
    case.load = Load {
        operations: (rows * width) as f64,
        ..Load::default()
    };
    case.tolerance = 1e-5;
    case
}

fn softmaxes(bench: &Bench, shape: [usize; 2]) -> Case {
    let width = shape[1];
    let case = case("softmax", shape, move |rows| {
        softmax(rows, width).expect(WHOLE)
    });
    let onednn = bench.libraries.onednn;
    match onednn.and_then(|it| it.primitive(Operation::Softmax, shape)) {
        Some(primitive) => case.with("onednn", move |rows| primitive.run(None, &[], rows)),
        None => case,
    }
}

/// A gain and an offset for each column.
fn factors(width: usize) -> Rc<(Vec<f32>, Vec<f32>)> {
    let gain = numbers(width).iter().map(|it| it + 1.0).collect();
    Rc::new((gain, numbers(width)))
}

fn layer_norms(bench: &Bench, shape: [usize; 2]) -> Case {
    let factors = factors(shape[1]);
    let own = factors.clone();
    let case = case("layer norm", shape, move |rows| {
        layer_norm(rows, &own.0, &own.1, EPSILON).expect(WHOLE);
    });
    let onednn = bench.libraries.onednn;
    match onednn.and_then(|it| it.primitive(Operation::LayerNorm(EPSILON), shape)) {
        Some(primitive) => case.with("onednn", move |rows| {
            primitive.run(None, &[&factors.0, &factors.1], rows);
        }),
        None => case,
    }
}

fn rms_norms(shape: [usize; 2]) -> Case {
    // Applied again and again, smaller ones would lead to subnormal numbers, which some processors are slow with.
    let gain = vec![1.0; shape[1]];
    case("rms norm", shape, move |rows| {
        rms_norm(rows, &gain, EPSILON).expect(WHOLE);
    })
}

//! What NumPy makes of shapes, views, operations and printing, from a table that `data/broadcasting.py` has written.

use std::collections::BTreeMap;
use std::fmt::Display;

use mielin_tensor::{
    Element, ElementType, Reduced, Shape, ShapeError, Tensor, TensorOps, TensorView,
    broadcast_shapes, f16,
};

const TABLE: &str = include_str!("data/broadcasting.txt");

#[test]
fn results_are_those_of_numpy() {
    let mut counts = BTreeMap::new();
    let mut failures = Vec::new();
    for line in TABLE.lines() {
        let mut fields: Vec<&str> = line.split(" | ").collect();
        let expected = fields.pop().expect("a line has a result");
        let kind = fields.remove(0);
        let found = replay(kind, &fields);
        *counts.entry(kind).or_insert(0) += 1;
        if found != expected {
            failures.push(format!("{line}\n    found {found}"));
        }
    }
    let shown = failures.iter().take(10).map(String::as_str);
    let shown = shown.collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} cases:\n{shown}", failures.len());
    // Nothing of the table was lost.
    assert_eq!(counts.len(), 17, "{counts:?}");
    assert!(counts.values().sum::<usize>() > 1_500, "{counts:?}");
}

fn replay(kind: &str, fields: &[&str]) -> String {
    match (kind, fields) {
        ("broadcast", [a, b]) => {
            let broadcast = broadcast_shapes(&lengths(a), &lengths(b));
            broadcast.map_or_else(refused, |shape| shape_text(shape.lengths()))
        }
        ("view", [shape, steps]) => counting(shape)
            .and_then(|tensor| changed(tensor.view(), steps)?.to_tensor())
            .map_or_else(refused, |tensor| array_text(&tensor)),
        ("reshape", [shape, steps, to]) => counting(shape)
            .and_then(|tensor| {
                let reshaped = changed(tensor.view(), steps)?.reshape(&lengths(to))?;
                reshaped.to_tensor()
            })
            .map_or_else(refused, |tensor| array_text(&tensor)),
        ("matmul", [a, b]) => {
            let product = array::<f32>(a).matmul(&array::<f32>(b));
            product.map_or_else(refused, |tensor| array_text(&tensor))
        }
        ("to", ["f32", to, from]) => converted(&array::<f32>(from), to),
        ("to", ["i32", to, from]) => converted(&array::<i32>(from), to),
        ("to", ["f16", to, from]) => converted(&array::<f16>(from), to),
        (_, ["f32", fields @ ..]) => of_type::<f32>(kind, fields),
        (_, ["f16", fields @ ..]) => of_type::<f16>(kind, fields),
        (_, ["i8", fields @ ..]) => of_type::<i8>(kind, fields),
        (_, ["i32", fields @ ..]) => of_type::<i32>(kind, fields),
        _ => panic!("{kind} of {fields:?}"),
    }
}

fn of_type<T: Number>(kind: &str, fields: &[&str]) -> String {
    match (kind, fields) {
        ("print", [shape, start, step]) => {
            let [start, step]: [f64; 2] = [start, step].map(|it| it.parse().expect("a number"));
            let shape = lengths(shape);
            let count = shape.iter().product::<usize>();
            let elements = (0..count).map(|i| (start + step * i as f64) as f32);
            let tensor = Tensor::from_vec(elements.collect(), &shape).expect("as many");
            printed(&tensor.to::<T>().expect("there is memory"))
        }
        ("print-of", [a]) => printed(&array::<T>(a)),
        (_, [a, "all", _]) => reduced(kind, &array::<T>(a)),
        (_, [a, axis, kept]) => {
            let kept = match *kept {
                "True" => Reduced::Kept,
                _ => Reduced::Dropped,
            };
            let axis = axis.parse().expect("an axis");
            reduced_along(kind, &array::<T>(a), axis, kept).unwrap_or_else(refused)
        }
        (_, [a, b]) => combined(kind, &array::<T>(a), &array::<T>(b)).unwrap_or_else(refused),
        _ => panic!("{kind} of {fields:?}"),
    }
}

fn combined<T: Number>(kind: &str, a: &Tensor<T>, b: &Tensor<T>) -> Result<String, ShapeError> {
    let tensor = match kind {
        "add" => a.add(b),
        "sub" => a.sub(b),
        "mul" => a.mul(b),
        "div" => a.div(b),
        "maximum" => a.maximum(b),
        "minimum" => a.minimum(b),
        _ => panic!("{kind}"),
    };
    Ok(array_text(&tensor?))
}

fn reduced<T: Number>(kind: &str, a: &Tensor<T>) -> String {
    match kind {
        "sum" => scalar_text(Some(a.sum())),
        "mean" => scalar_text(Some(a.mean())),
        "max" => scalar_text(a.max()),
        "argmax" => scalar_text(a.argmax().map(|index| index as i32)),
        _ => panic!("{kind}"),
    }
}

fn reduced_along<T: Number>(
    kind: &str,
    a: &Tensor<T>,
    axis: usize,
    reduced: Reduced,
) -> Result<String, ShapeError> {
    Ok(match kind {
        "sum" => array_text(&a.sum_along(axis, reduced)?),
        "mean" => array_text(&a.mean_along(axis, reduced)?),
        "max" => array_text(&a.max_along(axis, reduced)?),
        "argmax" => array_text(&a.argmax_along(axis, reduced)?),
        _ => panic!("{kind}"),
    })
}

fn converted<T: Number>(from: &Tensor<T>, to: &str) -> String {
    let text = match to {
        "f32" => from.to::<f32>().map(|tensor| array_text(&tensor)),
        "f16" => from.to::<f16>().map(|tensor| array_text(&tensor)),
        "i8" => from.to::<i8>().map(|tensor| array_text(&tensor)),
        "i32" => from.to::<i32>().map(|tensor| array_text(&tensor)),
        _ => panic!("{to}"),
    };
    text.expect("there is memory")
}

/// A view after steps as `index 0 1; transpose`.
fn changed<'a>(
    mut view: TensorView<'a, i32>,
    steps: &str,
) -> Result<TensorView<'a, i32>, ShapeError> {
    for step in steps.split("; ") {
        let words: Vec<&str> = step.split(' ').collect();
        let number = |at: usize| words[at].parse::<usize>().expect("a number");
        view = match words[0] {
            "permute" => view.permute(&lengths(words[1])),
            "transpose" => view.transpose(),
            "slice" => view.slice(number(1), number(2)..number(3)),
            "index" => view.index(number(1), number(2)),
            "flip" => view.flip(number(1)),
            "broadcast" => view.broadcast_to(&lengths(words[1])),
            _ => panic!("{step}"),
        }?;
    }
    Ok(view)
}

fn counting(shape: &str) -> Result<Tensor<i32>, ShapeError> {
    let shape = Shape::new(&lengths(shape))?;
    let elements = (0..shape.element_count()).map(|i| i as i32).collect();
    Tensor::from_vec(elements, shape.lengths())
}

fn lengths(text: &str) -> Vec<usize> {
    match text {
        "scalar" => Vec::new(),
        _ => text
            .split(',')
            .map(|length| length.parse().expect("a length"))
            .collect(),
    }
}

fn array<T: Number>(text: &str) -> Tensor<T> {
    let (shape, elements) = text.split_once(':').expect("a shape and elements");
    let elements = elements.split(',').filter(|it| !it.is_empty());
    Tensor::from_vec(elements.map(T::read).collect(), &lengths(shape)).expect("as many")
}

/// An element as Python writes it.
trait Number: Element {
    fn read(text: &str) -> Self;
}

impl Number for f32 {
    fn read(text: &str) -> Self {
        // The table has each number exactly, as a double.
        text.parse::<f64>().expect("a number") as f32
    }
}

impl Number for f16 {
    fn read(text: &str) -> Self {
        f16::from_f32(f32::read(text))
    }
}

impl Number for i8 {
    fn read(text: &str) -> Self {
        text.parse().expect("an integer")
    }
}

impl Number for i32 {
    fn read(text: &str) -> Self {
        text.parse().expect("an integer")
    }
}

/// As Python's `repr`.
fn double_text(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() || value == 0.0 || (1e-4..1e16).contains(&value.abs()) {
        return format!("{value:?}");
    }
    let text = format!("{value:e}");
    let (digits, power) = text.split_once('e').expect("an exponent");
    let power: i32 = power.parse().expect("a number");
    let sign = if power < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", power.abs())
}

fn array_text<T: Element>(tensor: &Tensor<T>) -> String {
    let elements: Vec<String> = match T::TYPE {
        ElementType::I8 | ElementType::I32 => {
            let elements = tensor.as_slice().iter();
            elements.map(|it| format!("{it:?}")).collect()
        }
        _ => {
            let floats = tensor.to::<f32>().expect("there is memory").into_vec();
            let floats = floats.into_iter().map(f64::from);
            floats.map(double_text).collect()
        }
    };
    format!("{}:{}", shape_text(tensor.shape()), elements.join(","))
}

fn scalar_text<T: Element>(scalar: Option<T>) -> String {
    scalar.map_or_else(
        || "error".to_owned(),
        |it| array_text(&Tensor::filled(&[], it).expect("there is memory")),
    )
}

fn shape_text(shape: &[usize]) -> String {
    let lengths: Vec<String> = shape.iter().map(usize::to_string).collect();
    match lengths.is_empty() {
        true => "scalar".to_owned(),
        false => lengths.join(","),
    }
}

fn printed(tensor: &impl Display) -> String {
    tensor.to_string().replace('\n', "\\n") + "."
}

fn refused(error: ShapeError) -> String {
    assert!(!error.to_string().is_empty());
    "error".to_owned()
}

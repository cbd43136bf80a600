//! Many elements to one. What goes over the elements of one lane is a function of its own.

use crate::element::Element;
use crate::element::arithmetic::Arithmetic;
use crate::error::ShapeError;
use crate::ops::Reduced;
use crate::tensor::Tensor;
use crate::view::TensorView;

pub(super) fn sum<T: Element>(view: TensorView<'_, T>) -> T::Sum {
    let sum = match view.as_slice() {
        Some(elements) => T::sum_of(elements),
        None => T::sum(view.iter()),
    };
    T::Sum::from_f64(sum)
}

pub(super) fn mean<T: Element>(view: TensorView<'_, T>) -> T::Mean {
    let sum = match view.as_slice() {
        // Those of integers must not wrap around.
        Some(elements) if T::DECIMALS > 0 => T::sum_of(elements),
        _ => view.iter().fold(0.0, |sum, element| sum + element.to_f64()),
    };
    T::Mean::from_f64(sum / view.len() as f64)
}

pub(super) fn max<T: Element>(view: TensorView<'_, T>) -> Option<T> {
    match view.as_slice() {
        Some(elements) => T::place_of_max(elements).map(|place| elements[place]),
        None => view.iter().reduce(|a, b| if b.exceeds(a) { b } else { a }),
    }
}

pub(super) fn argmax<T: Element>(view: TensorView<'_, T>) -> Option<usize> {
    if let Some(elements) = view.as_slice() {
        return T::place_of_max(elements);
    }
    let mut greatest: Option<(usize, T)> = None;
    for (index, element) in view.iter().enumerate() {
        if greatest.is_none_or(|(_, greatest)| element.exceeds(greatest)) {
            greatest = Some((index, element));
        }
    }
    greatest.map(|(index, _)| index)
}

/// What `f` makes of the elements that differ only in their index along an axis.
pub(super) fn along<T: Element, U: Element>(
    view: TensorView<'_, T>,
    axis: usize,
    reduced: Reduced,
    f: impl Fn(TensorView<'_, T>) -> U,
) -> Result<Tensor<U>, ShapeError> {
    let shape = view.layout().shape();
    shape.length(axis)?;
    let result = match reduced {
        Reduced::Dropped => shape.without(axis),
        Reduced::Kept => shape.shortened(axis, 1),
    };
    Tensor::collect(result, view.parts(&[axis]).map(f))
}

pub(super) fn max_along<T: Element>(
    view: TensorView<'_, T>,
    axis: usize,
    reduced: Reduced,
) -> Result<Tensor<T>, ShapeError> {
    nonzero_length(&view, axis)?;
    along(view, axis, reduced, |lane| {
        max(lane).expect("the axis has elements")
    })
}

pub(super) fn argmax_along<T: Element>(
    view: TensorView<'_, T>,
    axis: usize,
    reduced: Reduced,
) -> Result<Tensor<i32>, ShapeError> {
    if i32::try_from(nonzero_length(&view, axis)?).is_err() {
        return Err(ShapeError::Overflow {
            shape: view.shape().to_vec(),
        });
    }
    along(view, axis, reduced, |lane| {
        argmax(lane).expect("the axis has elements") as i32
    })
}

fn nonzero_length<T: Element>(view: &TensorView<'_, T>, axis: usize) -> Result<usize, ShapeError> {
    match view.layout().shape().length(axis)? {
        0 => Err(ShapeError::NoElements {
            axis,
            shape: view.shape().to_vec(),
        }),
        length => Ok(length),
    }
}

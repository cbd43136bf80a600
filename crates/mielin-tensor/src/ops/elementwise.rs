//! Element by element. Each operation is one loop over two slices where both operands lie in one piece, and one for each row
//! where rows do.

use alloc::vec::Vec;

use crate::element::Element;
use crate::error::ShapeError;
use crate::shape::broadcast_shapes;
use crate::tensor::{Tensor, reserved};
use crate::view::TensorView;

/// From how many elements on it is worth while to look at how a row lies.
const ROW: usize = 16;

type View<'a, T> = TensorView<'a, T>;

pub(super) fn add<T: Element>(a: View<'_, T>, b: View<'_, T>) -> Result<Tensor<T>, ShapeError> {
    zip_with(a, b, T::add)
}

pub(super) fn sub<T: Element>(a: View<'_, T>, b: View<'_, T>) -> Result<Tensor<T>, ShapeError> {
    zip_with(a, b, T::sub)
}

pub(super) fn mul<T: Element>(a: View<'_, T>, b: View<'_, T>) -> Result<Tensor<T>, ShapeError> {
    zip_with(a, b, T::mul)
}

pub(super) fn div<T: Element>(a: View<'_, T>, b: View<'_, T>) -> Result<Tensor<T>, ShapeError> {
    zip_with(a, b, T::div)
}

pub(super) fn maximum<T: Element>(a: View<'_, T>, b: View<'_, T>) -> Result<Tensor<T>, ShapeError> {
    zip_with(a, b, |a, b| if b.exceeds(a) { b } else { a })
}

pub(super) fn minimum<T: Element>(a: View<'_, T>, b: View<'_, T>) -> Result<Tensor<T>, ShapeError> {
    zip_with(a, b, |a, b| if b.undercuts(a) { b } else { a })
}

pub(super) fn scale<T: Element>(a: View<'_, T>, factor: T) -> Result<Tensor<T>, ShapeError> {
    let shape = *a.layout().shape();
    match a.as_slice() {
        Some(a) => Tensor::collect(shape, a.iter().map(|a| factor.mul(*a))),
        None => Tensor::collect(shape, a.iter().map(|a| factor.mul(a))),
    }
}

fn zip_with<T: Element>(
    a: View<'_, T>,
    b: View<'_, T>,
    f: impl Fn(T, T) -> T,
) -> Result<Tensor<T>, ShapeError> {
    let shape = broadcast_shapes(a.shape(), b.shape())?;
    let (a, b) = (a.repeated(shape)?, b.repeated(shape)?);
    if let (Some(a), Some(b)) = (a.as_slice(), b.as_slice()) {
        return Tensor::collect(shape, a.iter().zip(b).map(|(a, b)| f(*a, *b)));
    }
    match *shape.lengths() {
        [.., columns] if columns >= ROW => {
            let mut elements = reserved(shape)?;
            let last = [shape.rank() - 1];
            for (a, b) in a.parts(&last).zip(b.parts(&last)) {
                zip_row(a, b, &f, &mut elements);
            }
            Tensor::from_vec(elements, shape.lengths())
        }
        _ => Tensor::collect(shape, a.iter().zip(b).map(|(a, b)| f(a, b))),
    }
}

/// One row, of which an operand is often in one piece or the same element again and again.
fn zip_row<T: Element>(a: View<'_, T>, b: View<'_, T>, f: impl Fn(T, T) -> T, out: &mut Vec<T>) {
    match (a.as_slice(), b.as_slice(), repeated(a), repeated(b)) {
        (Some(a), Some(b), ..) => out.extend(a.iter().zip(b).map(|(a, b)| f(*a, *b))),
        (Some(a), _, _, Some(b)) => out.extend(a.iter().map(|a| f(*a, b))),
        (_, Some(b), Some(a), _) => out.extend(b.iter().map(|b| f(a, *b))),
        _ => out.extend(a.iter().zip(b).map(|(a, b)| f(a, b))),
    }
}

/// The element of which a row is made alone.
fn repeated<T: Element>(row: View<'_, T>) -> Option<T> {
    if row.strides() == [0] {
        row.get(&[0])
    } else {
        None
    }
}

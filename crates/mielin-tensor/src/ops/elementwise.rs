//! Element by element. Each operation is one loop over two slices where both operands lie in one piece.

use crate::element::Element;
use crate::error::ShapeError;
use crate::shape::broadcast_shapes;
use crate::tensor::Tensor;
use crate::view::TensorView;

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
    match (a.as_slice(), b.as_slice()) {
        (Some(a), Some(b)) => Tensor::collect(shape, a.iter().zip(b).map(|(a, b)| f(*a, *b))),
        _ => Tensor::collect(shape, a.iter().zip(b.iter()).map(|(a, b)| f(a, b))),
    }
}

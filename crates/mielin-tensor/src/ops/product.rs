//! Products of many matrices.

use crate::error::ShapeError;
use crate::matmul::matmul as multiply;
use crate::matrix::MatMut;
use crate::shape::{RANK_MAX, Shape, broadcast_shapes};
use crate::tensor::Tensor;
use crate::view::TensorView;

pub(super) fn matmul(a: TensorView<'_, f32>, b: TensorView<'_, f32>) -> Result<Tensor, ShapeError> {
    let (counts, [rows, inner, columns]) = product_shape(&a, &b)?;
    let shape = with_matrix(&counts, [rows, columns])?;
    let mut product = Tensor::try_zeros(shape.lengths())?;
    if product.is_empty() {
        return Ok(product);
    }
    let (copy_a, copy_b) = (copy_if_backwards(&a)?, copy_if_backwards(&b)?);
    let a = copy_a.as_ref().map_or(a, Tensor::view);
    let b = copy_b.as_ref().map_or(b, Tensor::view);
    let matrices =
        matrices(a, &counts, [rows, inner])?.zip(matrices(b, &counts, [inner, columns])?);
    let products = product.as_mut_slice().chunks_exact_mut(rows * columns);
    for (product, (a, b)) in products.zip(matrices) {
        let c = MatMut::row_major(product, rows, columns);
        let (a, b) = (a.as_matrix()?, b.as_matrix()?);
        let multiplied = c.and_then(|mut c| multiply(a, b, &mut c));
        multiplied.expect("the shapes were compared");
    }
    Ok(product)
}

/// The axes that count matrices, and the rows, inner length and columns of each.
fn product_shape(
    a: &TensorView<'_, f32>,
    b: &TensorView<'_, f32>,
) -> Result<(Shape, [usize; 3]), ShapeError> {
    match (a.shape(), b.shape()) {
        ([a_counts @ .., rows, inner], [b_counts @ .., other_inner, columns])
            if inner == other_inner =>
        {
            let counts = broadcast_shapes(a_counts, b_counts)?;
            Ok((counts, [*rows, *inner, *columns]))
        }
        (left, right) => Err(ShapeError::MatMul {
            left: left.to_vec(),
            right: right.to_vec(),
        }),
    }
}

fn with_matrix(counts: &Shape, matrix: [usize; 2]) -> Result<Shape, ShapeError> {
    let rank = counts.rank() + 2;
    let mut lengths = [0; RANK_MAX + 2];
    lengths[..rank - 2].copy_from_slice(counts.lengths());
    lengths[rank - 2..rank].copy_from_slice(&matrix);
    Shape::new(&lengths[..rank])
}

/// A copy of an array if some stride of its matrices is negative, which no matrix has.
fn copy_if_backwards(view: &TensorView<'_, f32>) -> Result<Option<Tensor>, ShapeError> {
    let [.., row, column] = *view.strides() else {
        return Ok(None);
    };
    let is_backwards = row < 0 || column < 0;
    is_backwards.then(|| view.to_tensor()).transpose()
}

/// The matrices of an array whose other axes are broadcast to `counts`, in row-major order.
fn matrices<'a>(
    view: TensorView<'a, f32>,
    counts: &Shape,
    matrix: [usize; 2],
) -> Result<impl Iterator<Item = TensorView<'a, f32>>, ShapeError> {
    let all = view.repeated(with_matrix(counts, matrix)?)?;
    Ok(all.parts(&[counts.rank(), counts.rank() + 1]))
}

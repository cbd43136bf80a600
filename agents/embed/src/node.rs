//! The kernels of the node.

use embed::Kernels;
use mielin_agent::tensor::{self, Function, Fused, Matrix, MatrixMut};
use mielin_tensor::{Attention, LookupError, Mask, MatMut, MatRef, Unary};

/// Computes on whichever node the agent is.
pub(crate) struct Node(());

/// Why no call can fail.
const FITS: &str = "the node granted its kernels, and the shapes fit together";

impl Node {
    /// Asks the node for nothing, to find out whether the agent may ask it.
    pub(crate) fn new() -> Result<Node, mielin_agent::Error> {
        tensor::softmax(&mut MatrixMut::new(&mut [], 0, 0))?;
        Ok(Node(()))
    }
}

fn read<'a>(matrix: MatRef<'a, f32>) -> Matrix<'a, f32> {
    Matrix::with_strides(matrix.elements(), matrix.shape(), matrix.strides())
}

fn write<'a>(matrix: &'a mut MatMut<'_, f32>) -> MatrixMut<'a, f32> {
    let (shape, stride) = (matrix.shape(), matrix.row_stride());
    MatrixMut::with_stride(matrix.elements_mut(), shape, stride)
}

impl Kernels for Node {
    fn multiply(
        &self,
        a: MatRef<'_, f32>,
        b: MatRef<'_, f32>,
        fused: mielin_tensor::Fused<'_>,
        c: &mut MatMut<'_, f32>,
    ) {
        let fused = Fused {
            accumulate: fused.accumulate,
            bias: fused.bias,
            function: fused.function.map(|function| match function {
                Unary::Gelu => Function::Gelu,
                other => unreachable!("the model has no {other:?}"),
            }),
        };
        tensor::matmul(read(a), read(b), fused, &mut write(c)).expect(FITS);
    }

    fn attend(&self, factors: Attention<'_>, to: &mut MatMut<'_, f32>) {
        let past = match factors.mask {
            Mask::None => None,
            Mask::Causal { past } => Some(past),
        };
        let matrices = [factors.queries, factors.keys, factors.values].map(read);
        tensor::attention(matrices, factors.scale, past, &mut write(to)).expect(FITS);
    }

    fn layer_norm(&self, rows: &mut [f32], gain: &[f32], offset: &[f32], epsilon: f32) {
        let count = rows.len() / gain.len();
        let mut rows = MatrixMut::new(rows, count, gain.len());
        tensor::layer_norm(&mut rows, gain, offset, epsilon).expect(FITS);
    }

    fn look_up(
        &self,
        table: MatRef<'_, f32>,
        numbers: &[u32],
        to: &mut MatMut<'_, f32>,
    ) -> Result<(), LookupError> {
        let [rows, _] = table.shape();
        let missing = numbers.iter().position(|number| *number as usize >= rows);
        if let Some(at) = missing {
            return Err(LookupError::NoSuchRow {
                at,
                row: numbers[at],
                rows,
            });
        }
        let numbers: Vec<i32> = numbers.iter().map(|number| number.cast_signed()).collect();
        tensor::embedding(read(table), &numbers, &mut write(to)).expect(FITS);
        Ok(())
    }
}

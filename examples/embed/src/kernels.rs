//! What computes.

use mielin_tensor::{
    Alone, Attention, BlockWeights, Fused, LookupError, MatMut, MatRef, attention, embedding,
    layer_norm, matmul_blocks, matmul_with,
};

/// Kernels for what takes long. What little there is besides is computed by those of this program.
///
/// The shapes that an [`Encoder`](crate::Encoder) gives fit together.
pub trait Kernels {
    /// As [`matmul_with`].
    fn multiply(
        &self,
        a: MatRef<'_, f32>,
        b: MatRef<'_, f32>,
        fused: Fused<'_>,
        c: &mut MatMut<'_, f32>,
    );

    /// As [`attention`].
    fn attend(&self, factors: Attention<'_>, to: &mut MatMut<'_, f32>);

    /// As [`layer_norm`].
    fn layer_norm(&self, rows: &mut [f32], gain: &[f32], offset: &[f32], epsilon: f32);

    /// As [`embedding`].
    ///
    /// # Errors
    /// The table has no such row.
    fn look_up(
        &self,
        table: MatRef<'_, f32>,
        numbers: &[u32],
        to: &mut MatMut<'_, f32>,
    ) -> Result<(), LookupError>;

    /// As [`matmul_blocks`], which it is unless there is a better one.
    fn multiply_blocks(
        &self,
        x: MatRef<'_, f32>,
        weights: BlockWeights<'_>,
        fused: Fused<'_>,
        to: &mut MatMut<'_, f32>,
    ) {
        matmul_blocks(&Alone, x, weights, fused, to).expect("the shapes fit together");
    }
}

/// Those of this program, on one thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Own;

impl Kernels for Own {
    fn multiply(
        &self,
        a: MatRef<'_, f32>,
        b: MatRef<'_, f32>,
        fused: Fused<'_>,
        c: &mut MatMut<'_, f32>,
    ) {
        matmul_with(&Alone, a, b, fused, c).expect("the shapes fit together");
    }

    fn attend(&self, factors: Attention<'_>, to: &mut MatMut<'_, f32>) {
        attention(&Alone, factors, to).expect("the shapes fit together");
    }

    fn layer_norm(&self, rows: &mut [f32], gain: &[f32], offset: &[f32], epsilon: f32) {
        layer_norm(rows, gain, offset, epsilon).expect("the shapes fit together");
    }

    fn look_up(
        &self,
        table: MatRef<'_, f32>,
        numbers: &[u32],
        to: &mut MatMut<'_, f32>,
    ) -> Result<(), LookupError> {
        embedding(table, numbers, to)
    }
}

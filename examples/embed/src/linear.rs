//! A product with weights that stay the same: `function(x · Wᵀ + b)`.

use alloc::vec::Vec;

use mielin_tensor::{
    BlockError, BlockFormat, BlockWeights, Fused, MatMut, MatRef, MatrixError, Unary, quantise_q8,
};

use crate::kernels::Kernels;

/// Columns of the product that are computed together.
const COLUMNS: usize = 32;
/// Terms of a sum that are added together: so many rows of a block are as much as `matmul_with` does not copy.
const TERMS: usize = 512;

/// Weights of a product, and what is added to its columns.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    weights: Weights,
    bias: Vec<f32>,
    /// Of its input and its output.
    shape: [usize; 2],
}

#[derive(Clone, Debug)]
enum Weights {
    /// Blocks of up to [`TERMS`] rows and [`COLUMNS`] columns of the right factor, one row after the other: those of the first columns, then
    /// those of the next ones. `matmul_with` reads a block of that size where it is. The whole factor it reads with jumps if the rows of the
    /// product are few, and copies it in every call otherwise.
    Blocks(Vec<f32>),
    /// [`BlockWeights`] of eight bits, in rows as they are stored.
    Bytes(Vec<u8>),
}

/// Whether the result takes the place of what is there or is added to it, and what is applied to the result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Then {
    Store,
    StoreGelu,
    Add,
}

impl Linear {
    /// Of 32-bit floats. `rows` are the weights as they are stored: one row for each element of the output.
    pub(crate) fn floats(rows: &[f32], bias: Vec<f32>, input: usize) -> Linear {
        let output = bias.len();
        assert_eq!(rows.len(), input * output, "the loader compared the shapes");
        let mut blocks = Vec::with_capacity(rows.len());
        for column in (0..output).step_by(COLUMNS) {
            let columns = column..output.min(column + COLUMNS);
            for term in 0..input {
                blocks.extend(columns.clone().map(|column| rows[column * input + term]));
            }
        }
        Linear {
            weights: Weights::Blocks(blocks),
            bias,
            shape: [input, output],
        }
    }

    /// Of bytes, with a scale for 32 of them.
    ///
    /// # Errors
    /// The rows are no multiple of 32 long, or a weight is not finite.
    pub(crate) fn bytes(rows: &[f32], bias: Vec<f32>, input: usize) -> Result<Linear, BlockError> {
        let output = bias.len();
        let rows = MatRef::row_major(rows, output, input).expect("the loader compared the shapes");
        Ok(Linear {
            weights: Weights::Bytes(quantise_q8(rows)?),
            bias,
            shape: [input, output],
        })
    }

    /// `to` has a row for each one of `from`.
    pub(crate) fn apply(&self, kernels: &impl Kernels, from: &[f32], then: Then, to: &mut [f32]) {
        let done = match &self.weights {
            Weights::Blocks(blocks) => self.multiply_blocks(kernels, blocks, from, then, to),
            Weights::Bytes(bytes) => self.multiply_bytes(kernels, bytes, from, then, to),
        };
        done.expect("the caller's matrices are of these shapes");
    }

    fn multiply_bytes(
        &self,
        kernels: &impl Kernels,
        bytes: &[u8],
        from: &[f32],
        then: Then,
        to: &mut [f32],
    ) -> Result<(), MatrixError> {
        let [input, output] = self.shape;
        let rows = from.len() / input;
        let weights = BlockWeights::new(BlockFormat::Q8, bytes, output, input);
        let weights = weights.expect("they were made for this shape");
        let from = MatRef::row_major(from, rows, input)?;
        let mut to = MatMut::row_major(to, rows, output)?;
        kernels.multiply_blocks(from, weights, then.fused(&self.bias), &mut to);
        Ok(())
    }

    fn multiply_blocks(
        &self,
        kernels: &impl Kernels,
        mut blocks: &[f32],
        from: &[f32],
        then: Then,
        to: &mut [f32],
    ) -> Result<(), MatrixError> {
        let [input, output] = self.shape;
        let rows = from.len() / input;
        for column in (0..output).step_by(COLUMNS) {
            let columns = COLUMNS.min(output - column);
            for term in (0..input).step_by(TERMS) {
                let terms = TERMS.min(input - term);
                let (block, others) = blocks.split_at(terms * columns);
                blocks = others;
                let whole = then.fused(&self.bias[column..column + columns]);
                // What follows the sums waits for the last of them.
                let after = match term + terms == input {
                    true => whole,
                    false => Fused::default(),
                };
                let fused = Fused {
                    accumulate: whole.accumulate || term > 0,
                    ..after
                };
                let left = MatRef::new(&from[term..], [rows, terms], [input, 1])?;
                let right = MatRef::row_major(block, terms, columns)?;
                let mut product = MatMut::new(&mut to[column..], [rows, columns], output)?;
                kernels.multiply(left, right, fused, &mut product);
            }
        }
        Ok(())
    }
}

impl Then {
    fn fused(self, bias: &[f32]) -> Fused<'_> {
        Fused {
            accumulate: self == Self::Add,
            bias: Some(bias),
            function: (self == Self::StoreGelu).then_some(Unary::Gelu),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::kernels::Own;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        let number = |n: usize| ((n * 7_919 + seed * 31) % 1_009) as f32 / 1_009.0 - 0.5;
        (0..count).map(number).collect()
    }

    /// With an input of more than one block in depth, and outputs that do not fill their blocks.
    #[test]
    fn products_are_those_of_the_formula() {
        for ([rows, input, output], then) in [
            ([3, 2 * TERMS + 32, 70], Then::Store),
            ([3, 2 * TERMS + 32, 70], Then::StoreGelu),
            ([20, TERMS, 33], Then::Add),
            ([1, 32, 1], Then::Add),
        ] {
            let (from, before) = (numbers(rows * input, 1), numbers(rows * output, 2));
            let (weights, bias) = (numbers(output * input, 3), numbers(output, 4));
            let exact = |at: usize| {
                let (row, column) = (at / output, at % output);
                let row = &from[row * input..][..input];
                let terms = row.iter().zip(&weights[column * input..]);
                let sum: f64 = terms.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                let sum = sum + f64::from(bias[column]);
                match then {
                    Then::Store => sum,
                    Then::StoreGelu => sum * 0.5 * (1.0 + libm::erf(sum / libm::sqrt(2.0))),
                    Then::Add => f64::from(before[at]) + sum,
                }
            };
            let floats = Linear::floats(&weights, bias.clone(), input);
            let bytes = Linear::bytes(&weights, bias.clone(), input).unwrap();
            for (linear, tolerance) in [(floats, 1e-4), (bytes, 0.05)] {
                let mut to = before.clone();
                linear.apply(&Own, &from, then, &mut to);
                for (at, found) in to.iter().enumerate() {
                    let error = (f64::from(*found) - exact(at)).abs();
                    assert!(error < tolerance, "{then:?} {at}: {error}");
                }
            }
        }
    }
}

//! Weights of eight or four bits in blocks, each with a scale, in the layouts of GGML, whose files can be used as they are.
//!
//! The layouts are those of `block_q8_0` and `block_q4_0` in [`ggml-common.h`], and what they mean that of
//! `dequantize_row_q8_0` and `dequantize_row_q4_0` in `ggml-quants.c` beside it.
//!
//! [`ggml-common.h`]: https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h

mod product;
#[cfg(test)]
mod tests;

pub use product::matmul_blocks;

use alloc::vec::Vec;
use core::fmt;

use half::f16;

use crate::backend::Backend;
use crate::matrix::{MatMut, MatRef};
use crate::simd::{self, Kernel, Simd};

/// Elements of a block.
const BLOCK: usize = 32;
/// Bytes of a scale.
const SCALE: usize = 2;

/// How a block of 32 neighbours in a row is stored. A scale is a float of 16 bits (IEEE 754 binary16), little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockFormat {
    /// GGML's `Q8_0`, 34 bytes: the scale `d`, then 32 signed bytes `q`. An element is `q · d`.
    Q8,
    /// GGML's `Q4_0`, 18 bytes: the scale `d`, then 16 bytes. Elements 0 to 15 are in their lower halves, elements 16 to 31 in their upper
    /// ones. An element is `(q - 8) · d`.
    Q4,
}

impl BlockFormat {
    /// Bytes of a block of 32 elements.
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::Q8 => size_of::<Q8>(),
            Self::Q4 => size_of::<Q4>(),
        }
    }

    /// Bytes of a matrix.
    ///
    /// # Errors
    /// [`BlockError::Width`], or [`BlockError::TooLarge`] if they cannot be counted.
    pub const fn matrix_bytes(self, rows: usize, width: usize) -> Result<usize, BlockError> {
        if !width.is_multiple_of(BLOCK) {
            return Err(BlockError::Width { width });
        }
        let bytes = match rows.checked_mul(width / BLOCK) {
            Some(blocks) => blocks.checked_mul(self.block_bytes()),
            None => None,
        };
        match bytes {
            Some(bytes) => Ok(bytes),
            None => Err(BlockError::TooLarge { rows, width }),
        }
    }
}

/// What does not make blocks. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockError {
    /// Rows are not made of whole blocks.
    Width {
        /// Elements of a row.
        width: usize,
    },
    /// A matrix whose bytes cannot be counted, or for which there is no memory.
    TooLarge {
        /// Rows.
        rows: usize,
        /// Elements of a row.
        width: usize,
    },
    /// A matrix has another number of bytes.
    Length {
        /// Bytes there are.
        given: usize,
        /// Bytes of the matrix.
        expected: usize,
    },
    /// A block that no scale describes: an element is not a number, or so large that the scale would be beyond 65504.
    OutOfRange {
        /// The row.
        row: usize,
        /// The first column of the block.
        column: usize,
    },
    /// There is room for another shape than the weights have.
    Shape {
        /// The shape of the weights.
        weights: [usize; 2],
        /// The shape there is room for.
        given: [usize; 2],
    },
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Width { width } => {
                write!(
                    f,
                    "rows of {width} elements are not made of blocks of {BLOCK}"
                )
            }
            Self::TooLarge { rows, width } => {
                write!(f, "weights of {rows} × {width} have too many bytes")
            }
            Self::Length { given, expected } => {
                write!(f, "{given} bytes are not the {expected} of these weights")
            }
            Self::OutOfRange { row, column } => write!(
                f,
                "the block from column {column} on of row {row} has an element that is too large or not a number"
            ),
            Self::Shape { weights, given } => {
                write!(f, "weights of {weights:?} do not fit a matrix of {given:?}")
            }
        }
    }
}

impl core::error::Error for BlockError {}

/// A matrix in blocks, in bytes that somebody else owns: `rows` × `width` elements, the blocks of a row one after the other, and so the
/// rows. The bytes may lie at any address.
#[derive(Clone, Copy)]
pub struct BlockWeights<'a> {
    format: BlockFormat,
    bytes: &'a [u8],
    rows: usize,
    width: usize,
}

impl<'a> BlockWeights<'a> {
    /// Takes bytes as they stand in a file. Any bytes mean something; scales may be infinite or not a number, and elements are then,
    /// too.
    ///
    /// # Errors
    /// [`BlockError::Width`] if `width` is not a multiple of 32, [`BlockError::Length`] or [`BlockError::TooLarge`] if such a
    /// matrix has another number of bytes.
    pub const fn new(
        format: BlockFormat,
        bytes: &'a [u8],
        rows: usize,
        width: usize,
    ) -> Result<Self, BlockError> {
        match format.matrix_bytes(rows, width) {
            Ok(expected) if expected == bytes.len() => Ok(Self {
                format,
                bytes,
                rows,
                width,
            }),
            Ok(expected) => Err(BlockError::Length {
                given: bytes.len(),
                expected,
            }),
            Err(error) => Err(error),
        }
    }

    /// Rows and columns.
    #[must_use]
    pub const fn shape(&self) -> [usize; 2] {
        [self.rows, self.width]
    }

    /// How blocks are stored.
    #[must_use]
    pub const fn format(&self) -> BlockFormat {
        self.format
    }

    /// Writes the elements, which are exact, to a matrix of the same shape.
    ///
    /// # Errors
    /// [`BlockError::Shape`].
    pub fn dequantise(&self, to: &mut MatMut<'_, f32>) -> Result<(), BlockError> {
        self.dequantise_by(Backend::active(), to)
    }

    fn dequantise_by(&self, backend: Backend, to: &mut MatMut<'_, f32>) -> Result<(), BlockError> {
        if to.shape() != self.shape() {
            return Err(BlockError::Shape {
                weights: self.shape(),
                given: to.shape(),
            });
        }
        match self.format {
            BlockFormat::Q8 => unpack(backend, self.blocks::<Q8>(), to),
            BlockFormat::Q4 => unpack(backend, self.blocks::<Q4>(), to),
        }
        Ok(())
    }

    fn blocks<B: Block>(&self) -> Blocks<'a, B> {
        Blocks {
            blocks: B::of(self.bytes),
            rows: self.rows,
            in_row: self.width / BLOCK,
        }
    }
}

fn unpack<B: Block>(backend: Backend, blocks: Blocks<'_, B>, to: &mut MatMut<'_, f32>) {
    if blocks.in_row == 0 {
        return;
    }
    for row in 0..blocks.rows {
        let range = to.row(row);
        let kernel = Unpack {
            blocks: blocks.row(row),
            to: &mut to.elements_mut()[range],
        };
        simd::run(backend, kernel);
    }
}

/// Blocks of 8-bit weights. The scale is the largest magnitude of a block divided by 127, rounded to a float of 16 bits; each element
/// is the nearest multiple of the rounded scale, halves going to even ones.
///
/// An element is off by at most half of the scale; more where the largest magnitude is below 127 · 2⁻¹⁴, as scales have fewer
/// digits there.
///
/// # Errors
/// [`BlockError::Width`], [`BlockError::TooLarge`], [`BlockError::OutOfRange`].
pub fn quantise_q8(matrix: MatRef<'_, f32>) -> Result<Vec<u8>, BlockError> {
    quantise(BlockFormat::Q8, matrix, |elements, bytes| {
        let max = elements.iter().fold(0.0_f32, |max, it| max.max(it.abs()));
        let scale = put_scale(max / 127.0, bytes)?;
        bytes.extend(elements.iter().map(|element| {
            let value = nearest(*element, scale).clamp(-127.0, 127.0);
            value as i8 as u8
        }));
        Some(())
    })
}

/// Blocks of 4-bit weights. The scale is the element with the largest magnitude of a block divided by -8, rounded to a float of 16
/// bits; each element is the nearest of the sixteen multiples of the rounded scale, halves going to even ones.
///
/// An element is off by at most half of the scale; by up to one if it has the sign that the largest does not have and almost its magnitude,
/// as there are multiples from -8 to 7. As for [`quantise_q8`], that is for scales from 2⁻¹⁴ on.
///
/// # Errors
/// [`BlockError::Width`], [`BlockError::TooLarge`], [`BlockError::OutOfRange`].
pub fn quantise_q4(matrix: MatRef<'_, f32>) -> Result<Vec<u8>, BlockError> {
    quantise(BlockFormat::Q4, matrix, |elements, bytes| {
        let larger = |max: f32, it: &f32| if it.abs() > max.abs() { *it } else { max };
        let max = elements.iter().fold(0.0_f32, larger);
        let scale = put_scale(max / -8.0, bytes)?;
        let (low, high) = elements.split_at(BLOCK / 2);
        let half = |element: f32| (nearest(element, scale).clamp(-8.0, 7.0) + 8.0) as u8;
        let pairs = low.iter().zip(high);
        bytes.extend(pairs.map(|(low, high)| half(*low) | half(*high) << 4));
        Some(())
    })
}

/// Appends what `put` makes of each block.
fn quantise(
    format: BlockFormat,
    matrix: MatRef<'_, f32>,
    put: impl Fn(&[f32; BLOCK], &mut Vec<u8>) -> Option<()>,
) -> Result<Vec<u8>, BlockError> {
    let ([rows, width], [row_stride, stride]) = (matrix.shape(), matrix.strides());
    let mut bytes = Vec::new();
    let room = bytes.try_reserve_exact(format.matrix_bytes(rows, width)?);
    room.map_err(|_| BlockError::TooLarge { rows, width })?;
    for row in 0..rows {
        for column in (0..width).step_by(BLOCK) {
            let first = row * row_stride + column * stride;
            let elements = core::array::from_fn(|i| matrix.elements()[first + i * stride]);
            let finite = elements.iter().all(|element| element.is_finite());
            let put = finite.then(|| put(&elements, &mut bytes)).flatten();
            put.ok_or(BlockError::OutOfRange { row, column })?;
        }
    }
    Ok(bytes)
}

/// Appends a scale, and says what became of it, unless it is too large.
fn put_scale(scale: f32, bytes: &mut Vec<u8>) -> Option<f32> {
    let scale = f16::from_f32(scale);
    bytes.extend(scale.to_le_bytes());
    scale.is_finite().then(|| scale.to_f32())
}

fn nearest(element: f32, scale: f32) -> f32 {
    match scale == 0.0 {
        true => 0.0,
        false => libm::rintf(element / scale),
    }
}

/// All blocks of a matrix.
#[derive(Clone, Copy)]
struct Blocks<'a, B> {
    blocks: &'a [B],
    rows: usize,
    in_row: usize,
}

impl<'a, B> Blocks<'a, B> {
    fn row(&self, row: usize) -> &'a [B] {
        &self.blocks[row * self.in_row..][..self.in_row]
    }
}

/// A block as it is stored.
trait Block: Copy + Sync {
    fn of(bytes: &[u8]) -> &[Self];

    /// The bits of its scale.
    fn scale(&self) -> u16;

    /// As many elements as a vector has from `at` on, which is below 16, and from `16 + at` on, before they are multiplied with the scale.
    fn pair<S: Simd>(&self, simd: S, at: usize) -> [S::Floats; 2];
}

type Q8 = [u8; SCALE + BLOCK];
type Q4 = [u8; SCALE + BLOCK / 2];

impl Block for Q8 {
    fn of(bytes: &[u8]) -> &[Q8] {
        bytes.as_chunks().0
    }

    #[inline(always)]
    fn scale(&self) -> u16 {
        u16::from_le_bytes([self[0], self[1]])
    }

    #[inline(always)]
    fn pair<S: Simd>(&self, simd: S, at: usize) -> [S::Floats; 2] {
        let values = &self[SCALE + at..];
        [
            simd.load_small(values),
            simd.load_small(&values[BLOCK / 2..]),
        ]
    }
}

impl Block for Q4 {
    fn of(bytes: &[u8]) -> &[Q4] {
        bytes.as_chunks().0
    }

    #[inline(always)]
    fn scale(&self) -> u16 {
        u16::from_le_bytes([self[0], self[1]])
    }

    #[inline(always)]
    fn pair<S: Simd>(&self, simd: S, at: usize) -> [S::Floats; 2] {
        simd.load_nibbles(&self[SCALE + at..])
    }
}

/// The float of 32 bits that is the same as one of 16 bits. Without branches, so that several are converted at a time.
#[inline(always)]
fn widen(half: u16) -> f32 {
    let (sign, magnitude) = (u32::from(half & 0x8000) << 16, u32::from(half & 0x7FFF));
    // Exponents of 16-bit floats are biased by 15, those of 32-bit ones by 127; subnormal ones are right, too.
    const REBIAS: f32 = f32::from_bits((127 + 127 - 15) << 23);
    let finite = (f32::from_bits(magnitude << 13) * REBIAS).to_bits();
    let special = magnitude << 13 | 0x7F80_0000;
    f32::from_bits(sign | if magnitude < 0x7C00 { finite } else { special })
}

/// Makes the elements of blocks floats.
struct Unpack<'a, B> {
    blocks: &'a [B],
    /// As many as the blocks have.
    to: &'a mut [f32],
}

impl<B: Block> Kernel for Unpack<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (block, to) in self.blocks.iter().zip(self.to.as_chunks_mut::<BLOCK>().0) {
            let scale = simd.splat(widen(block.scale()));
            for at in (0..BLOCK / 2).step_by(S::LANES) {
                let [first, second] = block.pair(simd, at);
                simd.store(&mut to[at..], simd.mul(first, scale));
                simd.store(&mut to[BLOCK / 2 + at..], simd.mul(second, scale));
            }
        }
    }
}

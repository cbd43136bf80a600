//! Convolution along one or two axes, as neural networks mean it: the kernel is not turned around.

use alloc::vec;
use core::fmt;
use core::ops::Range;

use crate::backend::Backend;
use crate::elementwise::{LengthError, expect_length};
use crate::matmul::{Fused, matmul_by, part};
use crate::matrix::{MatMut, MatRef};
use crate::parallel::{Parallel, share_columns, share_rows};
use crate::simd::{self, Kernel, Simd};

/// Output positions that are computed at a time: a multiple of the columns that each backend's product takes.
const POSITIONS: usize = 144;
/// Terms of their sums. A product with so many terms and positions reads them where they are.
const TERMS: usize = 112;
/// Output channels that are computed at a time.
const CHANNELS: usize = 256;
/// Up to so many output channels of an input channel are computed without a product of matrices.
const DIRECT_CHANNELS_MAX: usize = 2;
/// Output columns of these that are computed at a time.
const DIRECT_COLUMNS: usize = 256;
/// Products of two elements that are worth a thread.
const PRODUCTS_MIN: usize = 1 << 20;

/// What is convolved with what, along one axis (a length) or two (height and width).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution<const AXES: usize> {
    /// Channels of the input and of the output.
    pub channels: [usize; 2],
    /// Elements of the input along each axis.
    pub size: [usize; AXES],
    /// Elements of the kernel along each axis.
    pub kernel: [usize; AXES],
    /// Input elements from one output element to the next.
    pub stride: [usize; AXES],
    /// Zeros before and after the input. They are factors like other elements: with a weight that is not finite they make sums that are not
    /// numbers.
    pub padding: [[usize; 2]; AXES],
    /// Input elements from one element of the kernel to the next.
    pub dilation: [usize; AXES],
    /// Parts into which both kinds of channels are divided, in their order: an output channel sees the input channels of its part.
    pub groups: usize,
}

/// A convolution that does not exist, or of other elements than there are. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConvolutionError {
    /// A stride, a dilation or a kernel of 0.
    Zero {
        /// Which of these.
        what: &'static str,
        /// The number of the axis.
        axis: usize,
    },
    /// There are no groups, or they do not divide the channels.
    Groups {
        /// Groups.
        groups: usize,
        /// Channels of the input and of the output.
        channels: [usize; 2],
    },
    /// The kernel does not fit the input.
    Kernel {
        /// The number of the axis.
        axis: usize,
        /// Elements from the first to the last one of the kernel, both of them included.
        extent: usize,
        /// Elements of the input, with its padding.
        padded: usize,
    },
    /// There are more elements than can be counted.
    TooLarge,
    /// A slice has another length than its shape.
    Length(LengthError),
}

impl fmt::Display for ConvolutionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero { what, axis } => write!(f, "a {what} of 0 along axis {axis}"),
            Self::Groups {
                groups,
                channels: [input, output],
            } => write!(
                f,
                "{groups} groups do not divide {input} input and {output} output channels"
            ),
            Self::Kernel {
                axis,
                extent,
                padded,
            } => write!(
                f,
                "a kernel that extends over {extent} elements does not fit the {padded} of axis {axis}"
            ),
            Self::TooLarge => f.write_str("a convolution of more elements than can be counted"),
            Self::Length(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ConvolutionError {}

impl From<LengthError> for ConvolutionError {
    fn from(error: LengthError) -> Self {
        Self::Length(error)
    }
}

impl<const AXES: usize> Convolution<AXES> {
    /// One with strides and dilations of 1, without padding and groups.
    #[must_use]
    pub const fn new(channels: [usize; 2], size: [usize; AXES], kernel: [usize; AXES]) -> Self {
        Self {
            channels,
            size,
            kernel,
            stride: [1; AXES],
            padding: [[0; 2]; AXES],
            dilation: [1; AXES],
            groups: 1,
        }
    }

    /// Elements of the output along each axis: `(before + size + after - (kernel - 1) · dilation - 1) / stride + 1`, rounded down.
    ///
    /// # Errors
    /// [`ConvolutionError::Zero`], [`ConvolutionError::Kernel`], [`ConvolutionError::TooLarge`].
    pub fn output_size(&self) -> Result<[usize; AXES], ConvolutionError> {
        Ok(self.axes()?.map(|axis| axis.outputs))
    }

    fn axes(&self) -> Result<[Axis; AXES], ConvolutionError> {
        let mut axes = [Axis::NONE; AXES];
        for (axis, place) in axes.iter_mut().enumerate() {
            let (size, kernel) = (self.size[axis], self.kernel[axis]);
            let ([before, after], stride) = (self.padding[axis], self.stride[axis]);
            let dilation = self.dilation[axis];
            let factors = [
                ("stride", stride),
                ("dilation", dilation),
                ("kernel", kernel),
            ];
            if let Some((what, _)) = factors.into_iter().find(|(_, factor)| *factor == 0) {
                return Err(ConvolutionError::Zero { what, axis });
            }
            let padded = before
                .checked_add(size)
                .and_then(|it| it.checked_add(after));
            let extent = (kernel - 1).checked_mul(dilation);
            let extent = extent.and_then(|it| it.checked_add(1));
            let (Some(padded), Some(extent)) = (padded, extent) else {
                return Err(ConvolutionError::TooLarge);
            };
            if extent > padded {
                return Err(ConvolutionError::Kernel {
                    axis,
                    extent,
                    padded,
                });
            }
            *place = Axis {
                size,
                kernel,
                stride,
                before,
                dilation,
                outputs: (padded - extent) / stride + 1,
            };
        }
        Ok(axes)
    }

    /// The same along two axes, which it has with those before.
    fn plan<const ADDED: usize>(&self) -> Result<Plan, ConvolutionError> {
        let (groups, channels) = (self.groups, self.channels);
        if groups == 0 || channels.iter().any(|count| count % groups != 0) {
            return Err(ConvolutionError::Groups { groups, channels });
        }
        let mut axes = [Axis::NONE; 2];
        axes[ADDED..].copy_from_slice(&self.axes()?);
        let [inputs, outputs] = channels.map(|count| count / groups);
        let [rows, columns] = axes;
        Ok(Plan {
            groups,
            inputs,
            outputs,
            plane: product([rows.size, columns.size, 1])?,
            positions: product([rows.outputs, columns.outputs, 1])?,
            terms: product([inputs, rows.kernel, columns.kernel])?,
            axes,
        })
    }
}

fn product(factors: [usize; 3]) -> Result<usize, ConvolutionError> {
    let product = factors
        .into_iter()
        .try_fold(1_usize, |product, factor| product.checked_mul(factor));
    product.ok_or(ConvolutionError::TooLarge)
}

/// `out[o, y] = function(Σ input[i, y · stride + k · dilation - before] · weights[o, i, k] + bias[o])`, or with `out[o, y] + `, as
/// [`Fused`] says: along one axis.
///
/// `input` is `[input channels, length]`, `weights` are `[output channels, input channels / groups, kernel]`, `out` is `[output
/// channels, output length]`, each row-major. There is one element of `bias` for each output channel. The sum is over the input
/// channels of the group, and over `k`; it is 0 if there are no input channels.
///
/// Work is shared out among threads by output positions, 144 or more for each, or by channels where each output channel has an input
/// channel of its own. Each element has the same bits on any number of threads.
///
/// Takes at most 210 KiB for each thread beyond `out`, and 16 bytes for each output channel and thread.
///
/// # Errors
/// See [`ConvolutionError`].
pub fn convolve_1d(
    parallel: &dyn Parallel,
    convolution: &Convolution<1>,
    input: &[f32],
    weights: &[f32],
    fused: Fused<'_>,
    out: &mut [f32],
) -> Result<(), ConvolutionError> {
    let plan = convolution.plan::<1>()?;
    convolve(
        Backend::active(),
        parallel,
        &plan,
        input,
        weights,
        fused,
        out,
    )
}

/// The same along two axes: `input` is `[input channels, height, width]`, `weights` are `[output channels, input channels / groups, kernel
/// height, kernel width]`, `out` is `[output channels, output height, output width]`. See [`convolve_1d`].
///
/// # Errors
/// See [`ConvolutionError`].
pub fn convolve_2d(
    parallel: &dyn Parallel,
    convolution: &Convolution<2>,
    input: &[f32],
    weights: &[f32],
    fused: Fused<'_>,
    out: &mut [f32],
) -> Result<(), ConvolutionError> {
    let plan = convolution.plan::<0>()?;
    convolve(
        Backend::active(),
        parallel,
        &plan,
        input,
        weights,
        fused,
        out,
    )
}

fn convolve(
    backend: Backend,
    parallel: &dyn Parallel,
    plan: &Plan,
    input: &[f32],
    weights: &[f32],
    fused: Fused<'_>,
    out: &mut [f32],
) -> Result<(), ConvolutionError> {
    let channels = plan.groups * plan.outputs;
    let inputs = product([plan.groups, plan.inputs, plan.plane])?;
    expect_length("the input", input.len(), inputs)?;
    let factors = product([channels, plan.terms, 1])?;
    expect_length("the weights", weights.len(), factors)?;
    let outputs = product([channels, plan.positions, 1])?;
    expect_length("the output", out.len(), outputs)?;
    if let Some(bias) = fused.bias {
        expect_length("the bias", bias.len(), channels)?;
    }
    if out.is_empty() {
        return Ok(());
    }
    let work = Work {
        backend,
        plan,
        input,
        weights,
        fused,
    };
    let threads = parallel
        .threads()
        .min(outputs.saturating_mul(plan.terms) / PRODUCTS_MIN);
    let mut out = MatMut::row_major(out, channels, plan.positions).expect("it has these elements");
    if plan.inputs == 1 && plan.outputs <= DIRECT_CHANNELS_MAX {
        let parts = threads.min(channels);
        share_rows(parallel, parts, 1, &mut out, |first, out| {
            for row in 0..out.shape()[0] {
                let range = out.row(row);
                work.add_directly(first + row, &mut out.elements_mut()[range]);
            }
        });
    } else {
        let parts = threads.min(plan.positions.div_ceil(POSITIONS));
        share_columns(parallel, parts, POSITIONS, &mut out, |first, out| {
            work.multiply(first, out);
        });
    }
    Ok(())
}

/// An axis of the input and the output.
#[derive(Clone, Copy)]
struct Axis {
    size: usize,
    kernel: usize,
    stride: usize,
    before: usize,
    dilation: usize,
    outputs: usize,
}

impl Axis {
    /// One along which nothing happens.
    const NONE: Axis = Axis {
        size: 1,
        kernel: 1,
        stride: 1,
        before: 0,
        dilation: 1,
        outputs: 1,
    };

    /// Which of these outputs see elements of the input, and not its padding, through an element of the kernel, and which element the first of
    /// them sees.
    #[inline(always)]
    fn seen(&self, tap: usize, outputs: Range<usize>) -> (Range<usize>, usize) {
        // The padded input can be counted, and the kernel is inside of it.
        let at = tap * self.dilation;
        let first = self.before.saturating_sub(at).div_ceil(self.stride);
        let end = (self.before + self.size).saturating_sub(at);
        let end = end.div_ceil(self.stride).min(outputs.end);
        let first = first.max(outputs.start);
        match first < end {
            true => (first..end, first * self.stride + at - self.before),
            false => (outputs.start..outputs.start, 0),
        }
    }
}

/// A convolution whose shapes fit together.
struct Plan {
    groups: usize,
    /// Input and output channels of a group.
    inputs: usize,
    outputs: usize,
    /// Elements of an input channel.
    plane: usize,
    /// Elements of an output channel.
    positions: usize,
    /// Terms of a sum.
    terms: usize,
    axes: [Axis; 2],
}

impl Plan {
    /// Whether each output sees the input element in its place, and no others.
    fn is_pointwise(&self) -> bool {
        let in_place = |axis: &Axis| axis.kernel == 1 && axis.stride == 1 && axis.before == 0;
        self.axes.iter().all(in_place) && self.plane == self.positions
    }

    /// Writes what these positions see as these terms, `[terms, positions]`.
    fn unfold(&self, input: &[f32], terms: Range<usize>, positions: Range<usize>, to: &mut [f32]) {
        let [rows, columns] = self.axes;
        let taps = rows.kernel * columns.kernel;
        for (term, mut to) in terms.zip(to.chunks_exact_mut(positions.len())) {
            let (channel, tap) = (term / taps, term % taps);
            let plane = &input[channel * self.plane..][..self.plane];
            let mut at = positions.start;
            while at < positions.end {
                let (row, column) = (at / columns.outputs, at % columns.outputs);
                let count = (columns.outputs - column).min(positions.end - at);
                let (piece, others) = to.split_at_mut(count);
                let (seen, y) = rows.seen(tap / columns.kernel, row..row + 1);
                let (seen_columns, x) = columns.seen(tap % columns.kernel, column..column + count);
                if seen.is_empty() || seen_columns.is_empty() {
                    piece.fill(0.0);
                } else {
                    let (start, end) = (seen_columns.start - column, seen_columns.end - column);
                    piece[..start].fill(0.0);
                    piece[end..].fill(0.0);
                    let from = &plane[y * columns.size + x..];
                    copy(from, columns.stride, &mut piece[start..end]);
                }
                to = others;
                at += count;
            }
        }
    }
}

/// Copies elements that are so far apart.
fn copy(from: &[f32], stride: usize, to: &mut [f32]) {
    match stride {
        1 => to.copy_from_slice(&from[..to.len()]),
        _ => {
            for (to, from) in to.iter_mut().zip(from.iter().step_by(stride)) {
                *to = *from;
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Work<'a> {
    backend: Backend,
    plan: &'a Plan,
    input: &'a [f32],
    weights: &'a [f32],
    fused: Fused<'a>,
}

impl Work<'_> {
    /// Computes the positions from `first` on of all output channels: products of the weights with what positions see.
    fn multiply(&self, first: usize, out: &mut [&mut [f32]]) {
        let Plan {
            groups,
            inputs,
            outputs,
            plane,
            terms,
            ..
        } = *self.plan;
        let (count, is_pointwise) = (out[0].len(), self.plan.is_pointwise());
        let most = POSITIONS.min(count);
        let unfolded = if is_pointwise {
            0
        } else {
            TERMS.min(terms) * most
        };
        let mut unfolded = vec![0.0; unfolded];
        let mut sums = vec![0.0; CHANNELS.min(outputs) * most];
        let blocks = (0..groups).flat_map(|group| {
            let blocks = (0..outputs).step_by(CHANNELS);
            blocks.map(move |block| {
                (
                    group,
                    group * outputs + block,
                    CHANNELS.min(outputs - block),
                )
            })
        });
        for (group, channel, channels) in blocks {
            let input = &self.input[group * inputs * plane..][..inputs * plane];
            let weights = &self.weights[channel * terms..][..channels * terms];
            for at in (0..count).step_by(POSITIONS) {
                let taken = POSITIONS.min(count - at);
                let sums = &mut sums[..channels * taken];
                sums.fill(0.0);
                for term in (0..terms).step_by(TERMS) {
                    let end = terms.min(term + TERMS);
                    let multiplied = MatRef::row_major(weights, channels, terms).and_then(|it| {
                        let left = part(it, [0, term], [channels, end - term]);
                        let right = match is_pointwise {
                            true => {
                                let input = MatRef::row_major(input, terms, plane)?;
                                part(input, [term, first + at], [end - term, taken])
                            }
                            false => {
                                let positions = first + at..first + at + taken;
                                self.plan.unfold(input, term..end, positions, &mut unfolded);
                                MatRef::row_major(&unfolded, end - term, taken)?
                            }
                        };
                        let fused = Fused {
                            accumulate: term > 0,
                            ..Fused::default()
                        };
                        let mut sums = MatMut::row_major(sums, channels, taken)?;
                        matmul_by(self.backend, left, right, fused, &mut sums)
                    });
                    multiplied.expect("the parts have these shapes, which fit together");
                }
                for (row, sums) in sums.chunks_exact(taken).enumerate() {
                    let to = &mut out[channel + row][at..at + taken];
                    let bias = self.bias(channel + row);
                    simd::run(self.backend, Finish::new(sums, bias, self.fused, to));
                }
            }
        }
    }

    /// Computes an output channel that sees one input channel.
    fn add_directly(&self, channel: usize, to: &mut [f32]) {
        let Plan {
            outputs,
            plane,
            terms,
            axes,
            ..
        } = *self.plan;
        let direct = Direct {
            axes,
            input: &self.input[channel / outputs * plane..][..plane],
            weights: &self.weights[channel * terms..][..terms],
            bias: self.bias(channel),
            fused: self.fused,
            to,
        };
        simd::run(self.backend, direct);
    }

    fn bias(&self, channel: usize) -> Option<f32> {
        self.fused.bias.map(|bias| bias[channel])
    }
}

/// Puts sums of one output channel in their place.
struct Finish<'a> {
    sums: &'a [f32],
    bias: Option<f32>,
    fused: Fused<'a>,
    to: &'a mut [f32],
}

impl<'a> Finish<'a> {
    #[inline(always)]
    fn new(sums: &'a [f32], bias: Option<f32>, fused: Fused<'a>, to: &'a mut [f32]) -> Self {
        Self {
            sums,
            bias,
            fused,
            to,
        }
    }
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let parts = self.to.chunks_mut(S::LANES).zip(self.sums.chunks(S::LANES));
        for (to, sums) in parts {
            let mut sum = simd.load_some(sums, 0.0);
            if self.fused.accumulate {
                sum = simd.add(simd.load_some(to, 0.0), sum);
            }
            if let Some(bias) = self.bias {
                sum = simd.add(sum, simd.splat(bias));
            }
            if let Some(function) = self.fused.function {
                sum = function.of(simd, sum);
            }
            simd.store_some(to, sum);
        }
    }
}

/// Convolves one channel with one kernel.
struct Direct<'a> {
    axes: [Axis; 2],
    input: &'a [f32],
    weights: &'a [f32],
    bias: Option<f32>,
    fused: Fused<'a>,
    to: &'a mut [f32],
}

impl Kernel for Direct<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let [rows, columns] = self.axes;
        for (row, to) in self.to.chunks_exact_mut(columns.outputs).enumerate() {
            for (number, to) in to.chunks_mut(DIRECT_COLUMNS).enumerate() {
                let column = number * DIRECT_COLUMNS;
                let mut sums = [0.0; DIRECT_COLUMNS];
                let sums = &mut sums[..to.len()];
                for (tap, weight) in self.weights.iter().enumerate() {
                    let (seen, y) = rows.seen(tap / columns.kernel, row..row + 1);
                    let outputs = column..column + to.len();
                    let (mut seen_columns, x) = columns.seen(tap % columns.kernel, outputs);
                    if seen.is_empty() {
                        seen_columns = column..column;
                    }
                    let (start, end) = (seen_columns.start - column, seen_columns.end - column);
                    // What is not finite, times the zeros of the padding.
                    let padded = weight * 0.0;
                    if padded.is_nan() {
                        sums[..start].fill(padded);
                        sums[end..].fill(padded);
                    }
                    if start < end {
                        let from = &self.input[y * columns.size + x..];
                        add_scaled(simd, *weight, from, columns.stride, &mut sums[start..end]);
                    }
                }
                Finish::new(sums, self.bias, self.fused, to).run(simd);
            }
        }
    }
}

/// Adds a multiple of elements that are so far apart to sums.
#[inline(always)]
fn add_scaled<S: Simd>(simd: S, weight: f32, from: &[f32], stride: usize, sums: &mut [f32]) {
    if stride == 1 {
        let weight = simd.splat(weight);
        let from = from[..sums.len()].chunks(S::LANES);
        for (sums, from) in sums.chunks_mut(S::LANES).zip(from) {
            let sum = simd.load_some(sums, 0.0);
            let sum = simd.mul_add(weight, simd.load_some(from, 0.0), sum);
            simd.store_some(sums, sum);
        }
    } else {
        for (sum, from) in sums.iter_mut().zip(from.iter().step_by(stride)) {
            *sum += weight * from;
        }
    }
}

#[cfg(test)]
mod tests;

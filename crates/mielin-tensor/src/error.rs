//! What can be wrong with shapes.

use alloc::vec::Vec;
use core::fmt;

use crate::element::ElementType;
use crate::shape::RANK_MAX;

/// A shape, an index or strides do not fit something else. Nothing was changed.
///
/// All of it is the caller's fault but for [`Memory`](Self::Memory), of which the machine has a share.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShapeError {
    /// More axes than [`RANK_MAX`].
    Rank {
        /// Axes that were asked for.
        rank: usize,
    },
    /// The lengths that are not 0 multiply to more than `isize::MAX`.
    Overflow {
        /// The lengths.
        shape: Vec<usize>,
    },
    /// Memory for the elements cannot be had.
    Memory {
        /// How many.
        elements: usize,
        /// Of what type.
        element_type: ElementType,
    },
    /// The shape asks for another number of elements than were given.
    ElementCount {
        /// The shape that was asked for.
        shape: Vec<usize>,
        /// How many elements there were.
        given: usize,
    },
    /// An axis that is not there.
    Axis {
        /// The axis, from 0.
        axis: usize,
        /// How many there are.
        rank: usize,
    },
    /// Not each axis exactly once.
    Permutation {
        /// The axes in their new order.
        axes: Vec<usize>,
        /// How many there are.
        rank: usize,
    },
    /// Indices that leave an axis, or a range whose end lies before its start.
    Range {
        /// The axis, from 0.
        axis: usize,
        /// The first index.
        start: usize,
        /// The one after the last.
        end: usize,
        /// The length of the axis.
        length: usize,
    },
    /// With these strides some element lies outside of the slice, or there is not one stride for each axis.
    Strides {
        /// The length of each axis.
        shape: Vec<usize>,
        /// Elements from one index of an axis to the next.
        strides: Vec<isize>,
        /// Where the element with all indices 0 is.
        offset: usize,
        /// Elements of the slice.
        given: usize,
    },
    /// Strides with which two indices could name the same element, of what is to be written.
    Overlap {
        /// The length of each axis.
        shape: Vec<usize>,
        /// Elements from one index of an axis to the next.
        strides: Vec<isize>,
    },
    /// No strides give the elements of a view this shape where they are.
    NeedsCopy {
        /// The length of each axis.
        from: Vec<usize>,
        /// Elements from one index of an axis to the next.
        strides: Vec<isize>,
        /// The shape that was asked for.
        to: Vec<usize>,
    },
    /// The shapes of two operands differ in an axis in which neither has the length 1.
    Mismatch {
        /// The shape of the left operand.
        left: Vec<usize>,
        /// The shape of the right operand.
        right: Vec<usize>,
    },
    /// Some axis has neither the length that was asked for nor the length 1, or there are more axes than were asked for.
    Broadcast {
        /// The shape that there is.
        from: Vec<usize>,
        /// The shape that was asked for.
        to: Vec<usize>,
    },
    /// A matrix product needs shapes `[…, m, k]` and `[…, k, n]`.
    MatMul {
        /// The shape of the left operand.
        left: Vec<usize>,
        /// The shape of the right operand.
        right: Vec<usize>,
    },
    /// A matrix has two axes, and no stride of it is negative. Of one to be written, rows are contiguous and do not overlap.
    Matrix {
        /// The length of each axis.
        shape: Vec<usize>,
        /// Elements from one index of an axis to the next.
        strides: Vec<isize>,
    },
    /// There is no greatest one among no elements.
    NoElements {
        /// The axis along which there are none.
        axis: usize,
        /// The length of each axis.
        shape: Vec<usize>,
    },
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rank { rank } => write!(f, "{rank} axes are more than {RANK_MAX}"),
            Self::Overflow { shape } => {
                write!(
                    f,
                    "the shape {shape:?} has more elements than can be counted"
                )
            }
            Self::Memory {
                elements,
                element_type,
            } => write!(
                f,
                "there is no memory for {elements} elements of {element_type}"
            ),
            Self::ElementCount { shape, given } => {
                write!(f, "{given} elements do not fill the shape {shape:?}")
            }
            Self::Axis { axis, rank } => write!(f, "there is no axis {axis} among {rank}"),
            Self::Permutation { axes, rank } => {
                write!(f, "{axes:?} does not name each of {rank} axes once")
            }
            Self::Range {
                axis,
                start,
                end,
                length,
            } => write!(
                f,
                "{start}..{end} is not a range of axis {axis}, which has the length {length}"
            ),
            Self::Strides {
                shape,
                strides,
                offset,
                given,
            } => write!(
                f,
                "the shape {shape:?} with the strides {strides:?} from {offset} on is not inside of {given} elements"
            ),
            Self::Overlap { shape, strides } => write!(
                f,
                "indices of the shape {shape:?} could meet with the strides {strides:?}"
            ),
            Self::NeedsCopy { from, strides, to } => write!(
                f,
                "the shape {from:?} with the strides {strides:?} becomes {to:?} only by a copy"
            ),
            Self::Mismatch { left, right } => {
                write!(f, "the shapes {left:?} and {right:?} do not fit together")
            }
            Self::Broadcast { from, to } => {
                write!(f, "the shape {from:?} cannot be repeated to {to:?}")
            }
            Self::MatMul { left, right } => write!(
                f,
                "a matrix product needs […, m, k] and […, k, n], not {left:?} and {right:?}"
            ),
            Self::Matrix { shape, strides } => write!(
                f,
                "the shape {shape:?} with the strides {strides:?} is not a matrix"
            ),
            Self::NoElements { axis, shape } => {
                write!(f, "the shape {shape:?} has no elements along axis {axis}")
            }
        }
    }
}

impl core::error::Error for ShapeError {}

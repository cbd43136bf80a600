//! How many elements an array has along each axis.

use core::fmt;

use crate::error::ShapeError;

/// The most axes that an array has.
pub const RANK_MAX: usize = 8;

/// The length of each axis, slowest first.
///
/// There are at most [`RANK_MAX`] of them, and those that are not 0 multiply to at most `isize::MAX`: so elements can be
/// counted, and their places computed, without overflow.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// 0 beyond the rank.
    lengths: [usize; RANK_MAX],
    rank: usize,
}

impl Shape {
    /// The shape with these lengths. Without any it is that of a scalar, which has one element.
    ///
    /// # Errors
    /// [`ShapeError::Rank`], [`ShapeError::Overflow`].
    pub fn new(lengths: &[usize]) -> Result<Self, ShapeError> {
        let rank = lengths.len();
        if rank > RANK_MAX {
            return Err(ShapeError::Rank { rank });
        }
        let mut nonzero = lengths.iter().filter(|length| **length != 0);
        let product = nonzero.try_fold(1_usize, |product, length| product.checked_mul(*length));
        if product.is_none_or(|product| isize::try_from(product).is_err()) {
            return Err(ShapeError::Overflow {
                shape: lengths.to_vec(),
            });
        }
        Ok(Self::collect(lengths.iter().copied()))
    }

    /// The length of each axis, slowest first.
    #[must_use]
    pub fn lengths(&self) -> &[usize] {
        &self.lengths[..self.rank]
    }

    /// The number of axes.
    #[must_use]
    pub const fn rank(&self) -> usize {
        self.rank
    }

    /// The number of elements: 1 for a scalar, and 0 if some length is 0.
    #[must_use]
    pub fn element_count(&self) -> usize {
        self.lengths().iter().product()
    }

    /// The length of an axis.
    pub(crate) fn length(&self, axis: usize) -> Result<usize, ShapeError> {
        self.lengths().get(axis).copied().ok_or(ShapeError::Axis {
            axis,
            rank: self.rank,
        })
    }

    /// The same axes, one of which is now no longer than it was.
    pub(crate) fn shortened(mut self, axis: usize, length: usize) -> Self {
        debug_assert!(length <= self.lengths[axis].max(1));
        self.lengths[axis] = length;
        self
    }

    /// Without an axis that there is.
    pub(crate) fn without(self, axis: usize) -> Self {
        let lengths = self.lengths().iter().enumerate();
        Self::collect(
            lengths
                .filter(|(at, _)| *at != axis)
                .map(|(_, length)| *length),
        )
    }

    /// Of lengths that are known to multiply to no more than they may, and to be few enough.
    pub(crate) fn collect(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut shape = Self {
            lengths: [0; RANK_MAX],
            rank: 0,
        };
        for length in lengths {
            shape.lengths[shape.rank] = length;
            shape.rank += 1;
        }
        shape
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lengths().fmt(f)
    }
}

/// The shape to which NumPy's broadcasting brings two shapes: they are aligned at their last axes, and an axis of length 1, or
/// one that is not there, takes the length of the other.
///
/// # Errors
/// [`ShapeError::Mismatch`] if two lengths differ of which neither is 1, [`ShapeError::Overflow`] if the result has too many
/// elements.
pub fn broadcast_shapes(a: &[usize], b: &[usize]) -> Result<Shape, ShapeError> {
    let rank = a.len().max(b.len());
    if rank > RANK_MAX {
        return Err(ShapeError::Rank { rank });
    }
    let aligned = |lengths: &[usize], axis: usize| match (axis + lengths.len()).checked_sub(rank) {
        Some(axis) => lengths[axis],
        None => 1,
    };
    let mut lengths = [0; RANK_MAX];
    for (axis, length) in lengths[..rank].iter_mut().enumerate() {
        *length = match (aligned(a, axis), aligned(b, axis)) {
            (a, b) if a == b => a,
            (1, length) | (length, 1) => length,
            _ => {
                return Err(ShapeError::Mismatch {
                    left: a.to_vec(),
                    right: b.to_vec(),
                });
            }
        };
    }
    Shape::new(&lengths[..rank])
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// Its square is one more than can be counted.
    const HALF: usize = 1 << (usize::BITS / 2);

    #[test]
    fn lengths_are_counted_without_overflow() {
        let million = 1_000_000;
        for lengths in [
            &[million; 4][..],
            // The product wraps to 0 where it is not checked, and is 0 where a length is.
            &[HALF, HALF],
            &[HALF, 0, HALF],
            &[0, HALF, HALF],
            &[isize::MAX as usize + 1],
        ] {
            let shape = lengths.to_vec();
            assert_eq!(Shape::new(lengths), Err(ShapeError::Overflow { shape }));
        }
        let largest = Shape::new(&[isize::MAX as usize, 1]).expect("it can be counted");
        assert_eq!(largest.element_count(), isize::MAX as usize);
        let empty = Shape::new(&[isize::MAX as usize, 0]).expect("it can be counted");
        assert_eq!(empty.element_count(), 0);
        assert_eq!(Shape::new(&[]).expect("a scalar").element_count(), 1);
    }

    #[test]
    fn there_are_at_most_eight_axes() {
        assert_eq!(Shape::new(&[2; 8]).expect("eight").rank(), 8);
        assert_eq!(Shape::new(&[2; 9]), Err(ShapeError::Rank { rank: 9 }));
        assert_eq!(
            broadcast_shapes(&[2; 9], &[1]),
            Err(ShapeError::Rank { rank: 9 })
        );
    }

    #[test]
    fn broadcasting_can_overflow() {
        let (tall, wide) = ([HALF, 1], [1, HALF]);
        let shape = vec![HALF, HALF];
        assert_eq!(
            broadcast_shapes(&tall, &wide),
            Err(ShapeError::Overflow { shape })
        );
    }
}

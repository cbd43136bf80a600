//! Where the elements of an array are in a slice.

use core::ops::Range;

use crate::error::ShapeError;
use crate::shape::{RANK_MAX, Shape};

/// The element at an index is at `offset + Σ index[axis] · strides[axis]` of a slice.
///
/// Every index inside of the shape names an element of the slice for which the layout was made. One without elements names
/// nothing, so its offset and strides may be anything; what is computed with them wraps around and is not used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    shape: Shape,
    /// 0 beyond the rank.
    strides: [isize; RANK_MAX],
    offset: usize,
}

impl Layout {
    /// Of a slice that holds the elements in row-major order and nothing else.
    pub(crate) fn row_major(shape: Shape) -> Self {
        let mut strides = [0; RANK_MAX];
        let mut stride = 1_usize;
        for (axis, length) in shape.lengths().iter().enumerate().rev() {
            strides[axis] = stride as isize;
            // Neither overflows: the product of lengths that are not 0 fits `isize`.
            stride *= (*length).max(1);
        }
        Self {
            shape,
            strides,
            offset: 0,
        }
    }

    /// Of a slice with `given` elements.
    ///
    /// # Errors
    /// [`ShapeError::Strides`] unless there is a stride for each axis, and all elements are in the slice.
    pub(crate) fn new(
        shape: Shape,
        strides: &[isize],
        offset: usize,
        given: usize,
    ) -> Result<Self, ShapeError> {
        if strides.len() != shape.rank() || !fits(shape, strides, offset, given) {
            return Err(ShapeError::Strides {
                shape: shape.lengths().to_vec(),
                strides: strides.to_vec(),
                offset,
                given,
            });
        }
        let mut all = [0; RANK_MAX];
        all[..strides.len()].copy_from_slice(strides);
        Ok(Self {
            shape,
            strides: all,
            offset,
        })
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(crate) fn strides(&self) -> &[isize] {
        &self.strides[..self.shape.rank()]
    }

    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    pub(crate) fn element_count(&self) -> usize {
        self.shape.element_count()
    }

    /// Where the element at this index is, if the index is inside of the shape.
    pub(crate) fn offset_of(&self, index: &[usize]) -> Option<usize> {
        let lengths = self.shape.lengths();
        let is_inside =
            index.len() == lengths.len() && index.iter().zip(lengths).all(|(i, n)| i < n);
        let steps = index.iter().zip(self.strides());
        is_inside.then(|| steps.fold(self.offset, |at, (i, stride)| moved(at, *i, *stride)))
    }

    /// Axis `i` of the result is axis `axes[i]` of this one.
    pub(crate) fn permute(&self, axes: &[usize]) -> Result<Self, ShapeError> {
        let rank = self.shape.rank();
        let is_named = |axis| axes.contains(&axis);
        if axes.len() != rank || !(0..rank).all(is_named) {
            return Err(ShapeError::Permutation {
                axes: axes.to_vec(),
                rank,
            });
        }
        Ok(self.only(axes.iter().copied()))
    }

    /// With the last two axes exchanged.
    pub(crate) fn transpose(&self) -> Result<Self, ShapeError> {
        let rank = self.shape.rank();
        if rank < 2 {
            return Err(ShapeError::Axis { axis: 1, rank });
        }
        let mut axes = [0, 1, 2, 3, 4, 5, 6, 7];
        axes.swap(rank - 2, rank - 1);
        self.permute(&axes[..rank])
    }

    /// Of one axis only the indices of a range.
    pub(crate) fn slice(&self, axis: usize, range: Range<usize>) -> Result<Self, ShapeError> {
        let length = self.shape.length(axis)?;
        if range.start > range.end || range.end > length {
            return Err(ShapeError::Range {
                axis,
                start: range.start,
                end: range.end,
                length,
            });
        }
        Ok(Self {
            shape: self.shape.shortened(axis, range.len()),
            offset: moved(self.offset, range.start, self.strides[axis]),
            ..*self
        })
    }

    /// Of one axis only one index, and without that axis.
    pub(crate) fn index(&self, axis: usize, index: usize) -> Result<Self, ShapeError> {
        let part = self.slice(axis, index..index.saturating_add(1))?;
        Ok(part.only((0..part.shape.rank()).filter(|at| *at != axis)))
    }

    /// The elements whose indices in all other axes are 0.
    fn only(&self, axes: impl Iterator<Item = usize> + Clone) -> Self {
        let mut strides = [0; RANK_MAX];
        for (stride, axis) in strides.iter_mut().zip(axes.clone()) {
            *stride = self.strides[axis];
        }
        let lengths = self.shape.lengths();
        Self {
            shape: Shape::collect(axes.map(|axis| lengths[axis])),
            strides,
            offset: self.offset,
        }
    }

    /// The parts that have some of the axes, one for each index of the others, in row-major order of these.
    pub(crate) fn parts(&self, axes: &[usize]) -> impl Iterator<Item = Self> + use<> {
        let part = self.only(axes.iter().copied());
        let others = (0..self.shape.rank()).filter(|axis| !axes.contains(axis));
        let offsets = self.only(others).offsets();
        offsets.map(move |offset| part.at(offset))
    }

    /// The same with its first element elsewhere.
    fn at(&self, offset: usize) -> Self {
        Self { offset, ..*self }
    }

    /// One axis backwards.
    pub(crate) fn flip(&self, axis: usize) -> Result<Self, ShapeError> {
        let length = self.shape.length(axis)?;
        let mut flipped = *self;
        flipped.offset = moved(self.offset, length.saturating_sub(1), self.strides[axis]);
        // Of an axis with one index the stride may be anything, even what has no negative.
        flipped.strides[axis] = self.strides[axis].wrapping_neg();
        Ok(flipped)
    }

    /// The same elements in the same row-major order under another shape.
    ///
    /// Neighbouring axes are one run of equal steps if a step in the first is as long as the whole second. Each run is
    /// divided anew; the new axes must not reach from one into the next.
    pub(crate) fn reshape(&self, shape: Shape) -> Result<Self, ShapeError> {
        let count = self.element_count();
        if shape.element_count() != count {
            return Err(ShapeError::ElementCount {
                shape: shape.lengths().to_vec(),
                given: count,
            });
        }
        let mut reshaped = Self::row_major(shape);
        reshaped.offset = self.offset;
        if count == 0 {
            return Ok(reshaped);
        }
        let mut next = shape.rank();
        let mut runs = self.runs();
        while let Some((mut length, mut stride)) = runs.next_back() {
            while length > 1 {
                next -= 1;
                let taken = shape.lengths()[next];
                if length % taken != 0 {
                    return Err(ShapeError::NeedsCopy {
                        from: self.shape.lengths().to_vec(),
                        strides: self.strides().to_vec(),
                        to: shape.lengths().to_vec(),
                    });
                }
                reshaped.strides[next] = stride;
                // May wrap where only axes of length 1 are left, whose strides are never used.
                stride = stride.wrapping_mul(taken as isize);
                length /= taken;
            }
        }
        Ok(reshaped)
    }

    /// NumPy's broadcasting: axes of length 1 and axes before the first are repeated, with the stride 0.
    pub(crate) fn broadcast_to(&self, shape: Shape) -> Result<Self, ShapeError> {
        let error = || ShapeError::Broadcast {
            from: self.shape.lengths().to_vec(),
            to: shape.lengths().to_vec(),
        };
        let added = shape.rank().checked_sub(self.shape.rank());
        let added = added.ok_or_else(error)?;
        let mut strides = [0; RANK_MAX];
        for (axis, length) in self.shape.lengths().iter().enumerate() {
            strides[axis + added] = match (*length, shape.lengths()[axis + added]) {
                (from, to) if from == to => self.strides[axis],
                (1, _) => 0,
                _ => return Err(error()),
            };
        }
        Ok(Self {
            shape,
            strides,
            offset: self.offset,
        })
    }

    /// Where the elements are if they lie in row-major order with nothing between them.
    pub(crate) fn contiguous(&self) -> Option<Range<usize>> {
        let count = self.element_count();
        if count == 0 {
            return Some(0..0);
        }
        let mut runs = self.runs();
        let is_one_run = match runs.next_back() {
            None => true,
            Some((_, stride)) => stride == 1 && runs.next_back().is_none(),
        };
        is_one_run.then_some(self.offset..self.offset + count)
    }

    /// Whether two indices could name the same element.
    ///
    /// They cannot if each step is longer than all shorter ones together can reach. Strides that interlock, as `[3, 2]` for
    /// `[2, 3]`, are thought to overlap though they do not: to find that out is as hard as a knapsack problem.
    pub(crate) fn may_overlap(&self) -> bool {
        if self.element_count() == 0 {
            return false;
        }
        let mut axes = [(0, 0); RANK_MAX];
        for (axis, length) in self.shape.lengths().iter().enumerate() {
            if *length > 1 {
                axes[axis] = (self.strides[axis].unsigned_abs(), *length - 1);
            }
        }
        axes.sort_unstable();
        let mut reach = 0;
        axes.iter().any(|(stride, last)| {
            let meets = *last > 0 && *stride <= reach;
            reach += stride * last;
            meets
        })
    }

    /// Where each element is, in row-major order of the indices.
    pub(crate) fn offsets(&self) -> Offsets {
        Offsets {
            layout: *self,
            index: [0; RANK_MAX],
            at: self.offset,
            left: self.element_count(),
        }
    }

    /// Axes of more than one index, with those in one that are equal steps together: lengths and strides. Of a layout with
    /// elements.
    fn runs(&self) -> Runs {
        let mut runs = Runs {
            runs: [(0, 0); RANK_MAX],
            len: 0,
        };
        for (length, stride) in self.shape.lengths().iter().zip(self.strides()) {
            if *length == 1 {
                continue;
            }
            match runs.runs[..runs.len].last_mut() {
                Some(last) if Some(last.1) == stride.checked_mul(*length as isize) => {
                    *last = (last.0 * length, *stride);
                }
                _ => {
                    runs.runs[runs.len] = (*length, *stride);
                    runs.len += 1;
                }
            }
        }
        runs
    }
}

/// Lengths and strides, of which the last is taken first.
struct Runs {
    runs: [(usize, isize); RANK_MAX],
    len: usize,
}

impl Runs {
    fn next_back(&mut self) -> Option<(usize, isize)> {
        self.len = self.len.checked_sub(1)?;
        Some(self.runs[self.len])
    }
}

/// Places of elements in row-major order of their indices.
#[derive(Clone, Debug)]
pub(crate) struct Offsets {
    layout: Layout,
    index: [usize; RANK_MAX],
    at: usize,
    left: usize,
}

impl Iterator for Offsets {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let found = self.at;
        for axis in (0..self.layout.shape.rank()).rev() {
            let (length, stride) = (self.layout.shape.lengths()[axis], self.layout.strides[axis]);
            if self.index[axis] + 1 < length {
                self.index[axis] += 1;
                self.at = moved(self.at, 1, stride);
                break;
            }
            self.at = moved(self.at, self.index[axis], stride.wrapping_neg());
            self.index[axis] = 0;
        }
        Some(found)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Offsets {}

/// By some steps along an axis. It is exact where both ends are elements of a slice.
fn moved(offset: usize, steps: usize, stride: isize) -> usize {
    offset.wrapping_add_signed(stride.wrapping_mul(steps as isize))
}

/// Whether all elements are among the first `given` ones.
fn fits(shape: Shape, strides: &[isize], offset: usize, given: usize) -> bool {
    if shape.element_count() == 0 {
        return true;
    }
    let reach = |forward: bool| {
        let axes = shape.lengths().iter().zip(strides);
        let mut axes = axes.filter(|(_, stride)| stride.is_positive() == forward);
        axes.try_fold(0_usize, |reach, (length, stride)| {
            reach.checked_add(stride.unsigned_abs().checked_mul(length - 1)?)
        })
    };
    let first = reach(false).and_then(|reach| offset.checked_sub(reach));
    let last = reach(true).and_then(|reach| offset.checked_add(reach));
    first.is_some() && last.is_some_and(|last| last < given)
}

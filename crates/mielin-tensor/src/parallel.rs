//! Work on several threads, which somebody else has.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::matrix::MatMut;

/// Something that does several things at the same time: a pool of threads, or the cores of a kernel.
pub trait Parallel: Sync {
    /// How many at most are done at the same time; 1 if there is but one.
    fn threads(&self) -> usize;

    /// Does all of these, and returns when they are done.
    fn run<'work>(&self, works: Vec<Box<dyn FnOnce() + Send + 'work>>);
}

/// Shares the rows of a matrix out in so many parts, each of a multiple of `step` rows but the last. `work` is called with a part
/// and the number of its first row.
pub(crate) fn share_rows<T: Send>(
    parallel: &dyn Parallel,
    parts: usize,
    step: usize,
    matrix: &mut MatMut<'_, T>,
    work: impl Fn(usize, &mut MatMut<'_, T>) + Sync,
) {
    let ([rows, columns], row_stride) = (matrix.shape(), matrix.row_stride());
    if parts <= 1 || columns == 0 {
        return work(0, matrix);
    }
    let steps = rows.div_ceil(step);
    let mut rest = matrix.elements_mut();
    let mut works: Vec<Box<dyn FnOnce() + Send>> = Vec::with_capacity(parts);
    for number in 0..parts {
        let first = steps * number / parts * step;
        let end = rows.min(steps * (number + 1) / parts * step);
        let len = match number + 1 == parts {
            true => rest.len(),
            false => (end - first) * row_stride,
        };
        let (mine, others) = rest.split_at_mut(len);
        rest = others;
        let part = MatMut::new(mine, [end - first, columns], row_stride);
        let mut part = part.expect("it is a part of a matrix with this stride");
        let work = &work;
        works.push(Box::new(move || work(first, &mut part)));
    }
    parallel.run(works);
}

/// Shares the columns of a matrix, of which there are some, out in so many parts, each of a multiple of `step` columns but the last. `work` is
/// called with the number of a part's first column and its piece of each row.
pub(crate) fn share_columns<T: Send>(
    parallel: &dyn Parallel,
    parts: usize,
    step: usize,
    matrix: &mut MatMut<'_, T>,
    work: impl Fn(usize, &mut [&mut [T]]) + Sync,
) {
    let ([rows, columns], row_stride) = (matrix.shape(), matrix.row_stride());
    let (parts, steps) = (parts.max(1), columns.div_ceil(step));
    let first_of = |number: usize| columns.min(steps * number / parts * step);
    let mut pieces: Vec<Vec<&mut [T]>> = Vec::with_capacity(parts);
    pieces.resize_with(parts, || Vec::with_capacity(rows));
    let mut rest = matrix.elements_mut();
    for row in 0..rows {
        let (mut these, others) = match row + 1 == rows {
            true => (rest, Default::default()),
            false => rest.split_at_mut(row_stride),
        };
        rest = others;
        for (number, pieces) in pieces.iter_mut().enumerate() {
            let (piece, others) = these.split_at_mut(first_of(number + 1) - first_of(number));
            pieces.push(piece);
            these = others;
        }
    }
    if let [pieces] = &mut pieces[..] {
        return work(0, pieces);
    }
    let mut works: Vec<Box<dyn FnOnce() + Send>> = Vec::with_capacity(parts);
    for (number, mut pieces) in pieces.into_iter().enumerate() {
        let (work, first) = (&work, first_of(number));
        works.push(Box::new(move || work(first, &mut pieces)));
    }
    parallel.run(works);
}

/// The thread that calls, and no other one.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Parallel for Alone {
    fn threads(&self) -> usize {
        1
    }

    fn run<'work>(&self, works: Vec<Box<dyn FnOnce() + Send + 'work>>) {
        works.into_iter().for_each(|work| work());
    }
}

/// Threads that are started for each call, and end with it.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug)]
pub struct Threads(pub core::num::NonZeroUsize);

#[cfg(feature = "std")]
impl Parallel for Threads {
    fn threads(&self) -> usize {
        self.0.get()
    }

    fn run<'work>(&self, works: Vec<Box<dyn FnOnce() + Send + 'work>>) {
        let mut works = works.into_iter();
        let first = works.next();
        std::thread::scope(|scope| {
            works.for_each(|work| {
                scope.spawn(work);
            });
            if let Some(work) = first {
                work();
            }
        });
    }
}

/// The threads of rayon: of the pool in which it is called, or the global one.
#[cfg(feature = "rayon")]
#[derive(Clone, Copy, Debug)]
pub struct Rayon;

#[cfg(feature = "rayon")]
impl Parallel for Rayon {
    fn threads(&self) -> usize {
        rayon::current_num_threads()
    }

    fn run<'work>(&self, works: Vec<Box<dyn FnOnce() + Send + 'work>>) {
        rayon::scope(|scope| {
            works
                .into_iter()
                .for_each(|work| scope.spawn(move |_| work()));
        });
    }
}

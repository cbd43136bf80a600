//! Work on several threads, which somebody else has.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// Something that does several things at the same time: a pool of threads, or the cores of a kernel.
pub trait Parallel: Sync {
    /// How many at most are done at the same time; 1 if there is but one.
    fn threads(&self) -> usize;

    /// Does all of these, and returns when they are done.
    fn run<'work>(&self, works: Vec<Box<dyn FnOnce() + Send + 'work>>);
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

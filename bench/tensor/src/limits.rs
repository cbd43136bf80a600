//! What the machine can do at most: multiply and add in registers, and bring bytes from memory.

mod loops;

use std::num::NonZeroUsize;
use std::sync::Barrier;
use std::time::Instant;

use mielin_tensor::Backend;
use serde::{Deserialize, Serialize};

use crate::case::Load;
use crate::clock::Stopwatch;
use crate::measure::short_and_median;

/// Limits of some threads together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Limits {
    pub(crate) threads: usize,
    /// 10⁹ operations of a second by fused multiply-add on vectors as wide as the backend's, two for each element. None
    /// for a backend without such an instruction.
    pub(crate) fma_gflops: Option<f64>,
    /// 10⁹ bytes of a second that are read from memory.
    pub(crate) read_gb_s: f64,
    /// The same where each is read and written, which counts twice.
    pub(crate) read_write_gb_s: f64,
}

/// Measures them.
pub(crate) struct Probe {
    threads: NonZeroUsize,
    rounds: usize,
    /// For each thread.
    memory: Vec<Vec<f32>>,
    fma: Vec<f64>,
    /// For each number of streams.
    reads: [Vec<f64>; loops::STREAMS.len()],
    read_writes: Vec<f64>,
}

/// Long enough that threads which start a little apart do not matter.
const FMA_STEPS: usize = 4_000_000;

impl Probe {
    /// Loops over `bytes` of memory, shared out among the threads.
    pub(crate) fn new(threads: NonZeroUsize, bytes: u64, rounds: usize) -> Probe {
        let elements = bytes as usize / size_of::<f32>() / threads.get();
        Probe {
            threads,
            rounds,
            memory: vec![vec![1.0; elements]; threads.get()],
            fma: Vec::new(),
            reads: Default::default(),
            read_writes: Vec::new(),
        }
    }

    /// Some more rounds.
    pub(crate) fn measure(&mut self) {
        for _ in 0..self.rounds {
            if let Some(fma) = loops::Fma::of(Backend::active()) {
                let works = (0..self.threads.get()).map(|_| move || fma.run(FMA_STEPS));
                self.fma.push(together(works));
            }
            for (streams, times) in loops::STREAMS.into_iter().zip(&mut self.reads) {
                let works = self.memory.iter();
                let works = works.map(|it| move || loops::read(it, streams));
                times.push(together(works));
            }
            let works = self.memory.iter_mut().map(|it| || loops::read_write(it));
            self.read_writes.push(together(works));
        }
    }

    /// Of all rounds until now, by the same rule as what is compared with them.
    ///
    /// # Panics
    /// If there were none.
    pub(crate) fn limits(&mut self) -> Limits {
        let threads = self.threads.get();
        let bytes: usize = self.memory.iter().map(|it| size_of_val(&it[..])).sum();
        let speed = |amount: f64, times: &mut [f64]| amount / short_and_median(times).0 / 1e9;
        let fma = loops::Fma::of(Backend::active());
        let operations = fma.map(|fma| fma.operations(FMA_STEPS) * threads as f64);
        let reads = self.reads.iter_mut();
        let reads = reads.map(|times| speed(bytes as f64, times));
        Limits {
            threads,
            fma_gflops: operations.map(|amount| speed(amount, &mut self.fma)),
            read_gb_s: reads.fold(0.0, f64::max),
            read_write_gb_s: speed(2.0 * bytes as f64, &mut self.read_writes),
        }
    }
}

/// Seconds until all are done that begin at the same time, each in a thread of its own.
fn together<W: FnOnce() + Send>(works: impl ExactSizeIterator<Item = W>) -> f64 {
    if works.len() == 1 {
        let watch = Stopwatch::start(NonZeroUsize::MIN);
        works.for_each(|work| work());
        return watch.seconds();
    }
    let barrier = &Barrier::new(works.len());
    let times = std::thread::scope(|scope| {
        let threads: Vec<_> = works
            .map(|work| {
                scope.spawn(move || {
                    barrier.wait();
                    let start = Instant::now();
                    work();
                    (start, Instant::now())
                })
            })
            .collect();
        let joined = threads
            .into_iter()
            .map(|it| it.join().expect("loops do not panic"));
        joined.collect::<Vec<_>>()
    });
    let first = times.iter().map(|(start, _)| *start).min();
    let last = times.iter().map(|(_, end)| *end).max();
    first
        .zip(last)
        .map_or(0.0, |(first, last)| (last - first).as_secs_f64())
}

impl Limits {
    /// The fewest seconds in which a load can be done: those of its operations, or those of its bytes. None if neither is
    /// limited.
    pub(crate) fn seconds(&self, load: Load) -> Option<f64> {
        let bytes = load.read_bytes + load.written_bytes;
        let speed = match load.written_bytes > 0.0 {
            true => self.read_write_gb_s,
            false => self.read_gb_s,
        };
        let of_bytes = (bytes > 0.0).then(|| bytes / (speed * 1e9));
        let fma = self.fma_gflops.filter(|_| load.is_fused);
        let of_operations = fma.map(|fma| load.operations / (fma * 1e9));
        of_operations.into_iter().chain(of_bytes).reduce(f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_limited_by_what_takes_longer() {
        let limits = Limits {
            threads: 1,
            fma_gflops: Some(100.0),
            read_gb_s: 10.0,
            read_write_gb_s: 20.0,
        };
        let load = |operations, read_bytes, written_bytes| Load {
            operations,
            is_fused: true,
            read_bytes,
            written_bytes,
        };
        assert_eq!(limits.seconds(load(1e11, 0.0, 0.0)), Some(1.0));
        assert_eq!(limits.seconds(load(1e11, 1e10, 0.0)), Some(1.0));
        assert_eq!(limits.seconds(load(1e11, 3e10, 0.0)), Some(3.0));
        assert_eq!(limits.seconds(load(1e11, 3e10, 5e10)), Some(4.0));
        let unknown = Limits {
            fma_gflops: None,
            ..limits
        };
        assert_eq!(unknown.seconds(load(1.0, 0.0, 0.0)), None);
        let other = Load {
            is_fused: false,
            ..load(1e12, 1e10, 0.0)
        };
        assert_eq!(limits.seconds(other), Some(1.0));
    }

    #[test]
    fn the_loops_run_on_any_number_of_threads() {
        for threads in 1..3 {
            let threads = NonZeroUsize::new(threads).expect("it is not 0");
            let mut probe = Probe::new(threads, 1 << 16, 1);
            probe.measure();
            let limits = probe.limits();
            assert!(limits.read_gb_s > 0.0 && limits.read_write_gb_s > 0.0);
            let fma = loops::Fma::of(Backend::active());
            assert_eq!(limits.fma_gflops.is_some(), fma.is_some());
        }
    }
}

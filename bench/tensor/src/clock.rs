//! Seconds that a computation takes.

use std::num::NonZeroUsize;
use std::time::Instant;

/// A time that runs.
///
/// With one thread it is the time that processors spend on this process, where the system tells that: what else the machine
/// does while the process waits for its turn is not counted, and a rival gains nothing by threads that it should not have.
/// With several it is the time that passes.
pub(crate) struct Stopwatch {
    passed: Instant,
    spent: Option<f64>,
}

impl Stopwatch {
    /// Begins.
    pub(crate) fn start(threads: NonZeroUsize) -> Stopwatch {
        Stopwatch {
            spent: if threads.get() == 1 { spent() } else { None },
            passed: Instant::now(),
        }
    }

    /// Since the beginning.
    pub(crate) fn seconds(&self) -> f64 {
        let since = |start: f64| Some(spent()? - start);
        let passed = || self.passed.elapsed().as_secs_f64();
        // A clock has steps; nothing takes no time.
        self.spent.and_then(since).unwrap_or_else(passed).max(1e-9)
    }
}

#[cfg(unix)]
fn spent() -> Option<f64> {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Some(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
}

#[cfg(not(unix))]
fn spent() -> Option<f64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_computed_takes_time_on_any_clock() {
        for threads in 1..3 {
            let threads = NonZeroUsize::new(threads).expect("it is not 0");
            let watch = Stopwatch::start(threads);
            let sum: u64 = std::hint::black_box(0..10_000_000_u64)
                .map(std::hint::black_box)
                .sum();
            assert_eq!(sum, 49_999_995_000_000);
            assert!(watch.seconds() > 1e-9);
        }
    }
}

//! How long each contender takes, measured in turn.
//!
//! A machine that does other things too is now fast and now slow. So nobody is measured alone: in each of many short rounds
//! every contender has its turn, beginning with another one each time. What disturbs a turn makes it longer and nothing makes
//! it shorter than the computation takes; so a short turn is what is compared, and the median says how quiet it was. It is
//! not the very shortest of many, but the one below which is one of [`SHORTER`]: the clock of a virtual machine that others
//! took the processor from leaves out, in the wrong turn, what they took, and so a few in ten thousand turns seem to be faster
//! than the processor.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use crate::case::Case;
use crate::clock::Stopwatch;

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// A turn repeats the call until it takes about that long.
    pub(crate) turn: Duration,
    /// Rounds are begun until a case has taken that long.
    pub(crate) case: Duration,
    pub(crate) rounds_min: usize,
    pub(crate) rounds_max: usize,
}

impl Effort {
    pub(crate) const FULL: Effort = Effort {
        turn: Duration::from_micros(500),
        case: Duration::from_secs(5),
        rounds_min: 10,
        rounds_max: 2_000,
    };
    pub(crate) const QUICK: Effort = Effort {
        turn: Duration::from_micros(100),
        case: Duration::from_millis(50),
        rounds_min: 2,
        rounds_max: 20,
    };
}

/// A call is made once before those that are measured, so that the caches hold what is the contender's own, unless it is so
/// long that this does not matter.
const WARM_MAX: Duration = Duration::from_millis(20);
/// With several threads, those of the one before may wait actively for more work, OpenBLAS's for about 26 ms. They must have
/// gone to sleep.
const SETTLE: Duration = Duration::from_millis(50);

/// One turn of so many may be shorter than the one that is reported.
const SHORTER: usize = 20;

/// The time that is reported of many, and the median.
///
/// # Panics
/// If there are none.
pub(crate) fn short_and_median(times: &mut [f64]) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / SHORTER], times[times.len() / 2])
}

/// Seconds of a call of a contender.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) short: f64,
    pub(crate) median: f64,
}

/// Measures all contenders of a case.
pub(crate) fn measure(case: &mut Case, threads: NonZeroUsize, effort: Effort) -> Vec<Measured> {
    case.begin();
    let output = &mut case.output;
    let contenders = &mut case.contenders;
    let mut calls = Vec::new();
    for contender in &mut *contenders {
        let watch = Stopwatch::start(threads);
        contender.run(output);
        let took = watch.seconds();
        calls.push((effort.turn.as_secs_f64() / took).clamp(1.0, 1e9) as u32);
    }
    let mut times = vec![Vec::new(); contenders.len()];
    let start = Instant::now();
    for round in 0..effort.rounds_max {
        if round >= effort.rounds_min && start.elapsed() >= effort.case {
            break;
        }
        for turn in 0..contenders.len() {
            let index = (round + turn) % contenders.len();
            if threads.get() > 1 {
                std::thread::sleep(SETTLE);
            }
            let last = times[index].last().copied().unwrap_or(0.0);
            if threads.get() > 1 || last < WARM_MAX.as_secs_f64() {
                contenders[index].run(output);
            }
            let watch = Stopwatch::start(threads);
            for _ in 0..calls[index] {
                contenders[index].run(std::hint::black_box(&mut *output));
            }
            let took = watch.seconds();
            times[index].push(took / f64::from(calls[index]));
        }
    }
    let measured = contenders.iter().zip(times).map(|(contender, mut times)| {
        let (short, median) = short_and_median(&mut times);
        Measured {
            name: contender.name,
            short,
            median,
        }
    });
    measured.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    #[test]
    fn a_turn_that_is_too_fast_to_be_true_is_not_reported() {
        let mut times: Vec<_> = (1..=99).rev().map(f64::from).chain([1e-9]).collect();
        assert_eq!(short_and_median(&mut times), (5.0, 50.0));
        assert_eq!(short_and_median(&mut [3.0, 2.0, 4.0]), (2.0, 3.0));
    }

    #[test]
    fn each_has_its_turn_in_each_round() {
        let order = Rc::new(RefCell::new(Vec::new()));
        let taking = |name: char| {
            let order = order.clone();
            move |_: &mut [f32]| order.borrow_mut().push(name)
        };
        let mut case = Case::new("none", String::new(), 0, taking('o')).with("rival", taking('r'));
        let effort = Effort {
            turn: Duration::ZERO,
            case: Duration::ZERO,
            rounds_min: 2,
            rounds_max: 5,
        };
        let measured = measure(&mut case, NonZeroUsize::MIN, effort);
        let names: Vec<_> = measured.iter().map(|it| it.name).collect();
        assert_eq!(names, ["ours", "rival"]);
        assert!(measured.iter().all(|it| it.short <= it.median));
        // Once for the number of calls; then in each turn once unmeasured and once measured.
        let order: String = order.borrow().iter().collect();
        assert_eq!(order, "or oorr rroo".replace(' ', ""));
    }
}

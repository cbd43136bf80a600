//! The loop around a firmware.

use crate::power::{PowerMode, PowerModes, Usage, WakeSources};
use crate::queue::Signals;

/// What the runtime needs of the machine: a clock, and rest.
pub trait Machine {
    /// Ticks until now, of a clock that never goes back and goes on while the processor rests.
    fn now(&mut self) -> u64;

    /// The modes that this board has, in ticks of this clock.
    fn modes(&self) -> &PowerModes;

    /// Rests until an interrupt is pending, or until `until` at the latest. Is called, and returns, with interrupts masked: one that becomes
    /// pending just before ends the rest at once, so that nothing is slept through. May return earlier without a reason.
    fn rest(&mut self, mode: PowerMode, until: Option<u64>);
}

impl<M: Machine> Machine for &mut M {
    fn now(&mut self) -> u64 {
        (**self).now()
    }

    fn modes(&self) -> &PowerModes {
        (**self).modes()
    }

    fn rest(&mut self, mode: PowerMode, until: Option<u64>) {
        (**self).rest(mode, until);
    }
}

/// What a firmware does.
pub trait Firmware {
    /// Does what there is to do now, and says when there will be more. Should return in less time than the watchdog has.
    fn step(&mut self, wake: Wake) -> Next;
}

/// Why a firmware is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wake {
    /// The time, in ticks.
    pub now: u64,
    /// What was raised since the last call.
    pub signals: u32,
}

/// What comes after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There is more to do: call again at once.
    Again,
    /// Nothing to do until a signal is raised, or until a time.
    Rest {
        /// At the latest then, in ticks.
        until: Option<u64>,
        /// What must be able to wake the processor, beside [`WakeSources::TIMER`] if there is a time.
        needs: WakeSources,
    },
    /// It is over; [`EmbeddedRuntime::run`] returns.
    Stop,
}

/// A machine, and the loop that lets a firmware have it.
///
/// ```
/// use mielin_rt::{EmbeddedRuntime, Firmware, Machine, ModeCost, Next, PowerMode, PowerModes, Signals, Wake, WakeSources};
///
/// /// A machine whose time passes only while it rests.
/// struct Idle(u64);
/// const MODES: PowerModes = PowerModes {
///     sleep: ModeCost { enter_ticks: 1, leave_ticks: 1, wakes: WakeSources::ANY },
///     deep_sleep: None,
/// };
/// impl Machine for Idle {
///     fn now(&mut self) -> u64 { self.0 }
///     fn modes(&self) -> &PowerModes { &MODES }
///     fn rest(&mut self, _: PowerMode, until: Option<u64>) { self.0 = until.expect("somebody wakes it"); }
/// }
///
/// /// Does something every 1000 ticks.
/// struct Beat(u32);
/// impl Firmware for Beat {
///     fn step(&mut self, wake: Wake) -> Next {
///         self.0 += 1;
///         if self.0 == 4 { return Next::Stop; }
///         Next::Rest { until: Some(wake.now + 1000), needs: WakeSources::NONE }
///     }
/// }
///
/// static SIGNALS: Signals = Signals::new();
/// let mut runtime = EmbeddedRuntime::new(Idle(0), &SIGNALS);
/// runtime.run(&mut Beat(0));
/// assert_eq!((runtime.usage().sleep_ticks, runtime.usage().rests), (3000, 3));
/// ```
#[derive(Debug)]
pub struct EmbeddedRuntime<M> {
    machine: M,
    signals: &'static Signals,
    usage: Usage,
    /// Until when `usage` is complete.
    accounted: u64,
}

impl<M: Machine> EmbeddedRuntime<M> {
    /// Begins to count time. Interrupts raise `signals`.
    pub fn new(mut machine: M, signals: &'static Signals) -> Self {
        let accounted = machine.now();
        Self {
            machine,
            signals,
            usage: Usage::default(),
            accounted,
        }
    }

    /// Calls the firmware whenever it has something to do, and rests otherwise, until it stops.
    pub fn run(&mut self, firmware: &mut impl Firmware) {
        loop {
            let wake = Wake {
                now: self.machine.now(),
                signals: self.signals.take(),
            };
            match firmware.step(wake) {
                Next::Again => {}
                Next::Rest { until, needs } => self.rest(until, needs),
                Next::Stop => return self.account(PowerMode::Run),
            }
        }
    }

    /// Rests until something has been raised, or until a time. An interrupt that raises nothing does not wake the firmware.
    pub fn rest(&mut self, until: Option<u64>, needs: WakeSources) {
        let needs = match until {
            Some(_) => needs | WakeSources::TIMER,
            None => needs,
        };
        loop {
            self.account(PowerMode::Run);
            let left = until.map(|until| until.saturating_sub(self.accounted));
            if left == Some(0) {
                return;
            }
            let mode = self.machine.modes().deepest(left, needs);
            // Interrupts stay pending from the look at what is raised until the processor rests, and end that; they come when the section ends.
            let rested = critical_section::with(|_| {
                let rests = !self.signals.any();
                if rests && mode != PowerMode::Run {
                    self.machine.rest(mode, until);
                }
                rests
            });
            if !rested {
                return;
            }
            if mode != PowerMode::Run {
                self.account(mode);
                self.usage.rests += 1;
            }
        }
    }

    /// Counts the time until now for a mode.
    fn account(&mut self, mode: PowerMode) {
        let now = self.machine.now();
        self.usage.add(mode, now.saturating_sub(self.accounted));
        self.accounted = now;
    }

    /// How long it was in which mode, until the last rest.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// The machine.
    pub fn machine(&mut self) -> &mut M {
        &mut self.machine
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::power::ModeCost;

    const MODES: PowerModes = PowerModes {
        sleep: ModeCost {
            enter_ticks: 1,
            leave_ticks: 1,
            wakes: WakeSources::ANY,
        },
        deep_sleep: Some(ModeCost {
            enter_ticks: 50,
            leave_ticks: 50,
            wakes: WakeSources::TIMER,
        }),
    };

    /// Time passes by a tick with each look at the clock; interrupts are due at given times, and raise their bits, if any.
    struct Script {
        now: u64,
        interrupts: Vec<(u64, u32)>,
        rests: Vec<(PowerMode, u64)>,
        signals: &'static Signals,
    }

    impl Script {
        fn deliver(&mut self) {
            let now = self.now;
            let due = self
                .interrupts
                .iter()
                .take_while(|(at, _)| *at <= now)
                .count();
            for (_, bits) in self.interrupts.drain(..due) {
                self.signals.raise(bits);
            }
        }
    }

    impl Machine for Script {
        fn now(&mut self) -> u64 {
            self.now += 1;
            self.deliver();
            self.now
        }

        fn modes(&self) -> &PowerModes {
            &MODES
        }

        fn rest(&mut self, mode: PowerMode, until: Option<u64>) {
            let interrupt = self.interrupts.first().map(|(at, _)| *at);
            let end = match (interrupt, until) {
                (Some(one), Some(other)) => one.min(other),
                (one, other) => one.or(other).expect("something wakes it"),
            };
            self.rests.push((mode, end.saturating_sub(self.now)));
            self.now = self.now.max(end);
        }
    }

    struct Steps {
        left: Vec<Next>,
        seen: Vec<Wake>,
    }

    impl Firmware for Steps {
        fn step(&mut self, wake: Wake) -> Next {
            self.seen.push(wake);
            self.left.pop().unwrap_or(Next::Stop)
        }
    }

    fn signals() -> &'static Signals {
        std::boxed::Box::leak(std::boxed::Box::new(Signals::new()))
    }

    fn run(interrupts: &[(u64, u32)], steps: &[Next]) -> (EmbeddedRuntime<Script>, Vec<Wake>) {
        let signals = signals();
        let machine = Script {
            now: 0,
            interrupts: interrupts.to_vec(),
            rests: Vec::new(),
            signals,
        };
        let mut runtime = EmbeddedRuntime::new(machine, signals);
        let mut firmware = Steps {
            left: steps.iter().rev().copied().collect(),
            seen: Vec::new(),
        };
        runtime.run(&mut firmware);
        (runtime, firmware.seen)
    }

    fn until(until: u64) -> Next {
        Next::Rest {
            until: Some(until),
            needs: WakeSources::NONE,
        }
    }

    #[test]
    fn interrupts_that_raise_nothing_wake_nobody() {
        let (runtime, seen) = run(&[(300, 0), (600, 0), (900, 0b10)], &[until(5_000)]);
        assert_eq!(seen.len(), 2);
        assert!(seen[1].now >= 900 && seen[1].now < 910);
        assert_eq!(seen[1].signals, 0b10);
        assert_eq!(runtime.machine.rests.len(), 3);
        assert!(
            runtime
                .machine
                .rests
                .iter()
                .all(|rest| rest.0 == PowerMode::DeepSleep)
        );
    }

    #[test]
    fn it_is_back_in_time_and_as_deep_as_that_allows() {
        let (runtime, seen) = run(
            &[],
            &[until(1_000), until(1_050), until(1_000), Next::Again],
        );
        let times: Vec<u64> = seen.iter().map(|wake| wake.now).collect();
        assert!((1_000..1_005).contains(&times[1]) && (1_050..1_055).contains(&times[2]));
        // A time that has passed, and work without an end: no rest.
        assert!(times[4] < times[2] + 10);
        let modes: Vec<PowerMode> = runtime.machine.rests.iter().map(|rest| rest.0).collect();
        assert_eq!(modes, [PowerMode::DeepSleep, PowerMode::Sleep]);
        let usage = runtime.usage();
        assert_eq!(usage.rests, 2);
        assert_eq!(
            usage.run_ticks + usage.sleep_ticks + usage.deep_sleep_ticks,
            runtime.accounted - 1
        );
        assert!(usage.deep_sleep_ticks > 980 && usage.sleep_ticks > 40 && usage.run_ticks < 30);
    }

    #[test]
    fn what_must_wake_it_can() {
        let waits = Next::Rest {
            until: None,
            needs: WakeSources::SERIAL,
        };
        let (runtime, seen) = run(&[(400, 1)], &[waits]);
        assert_eq!(seen[1].signals, 1);
        assert_eq!(runtime.machine.rests[0].0, PowerMode::Sleep);
    }

    #[test]
    fn what_was_raised_before_the_rest_is_not_slept_through() {
        let (runtime, seen) = run(&[(2, 4)], &[Next::Again, until(1_000)]);
        assert!(seen.iter().any(|wake| wake.signals == 4 && wake.now < 20));
        let _ = runtime;
        // Raised between the step and the rest: by the look at the clock.
        let (runtime, seen) = run(&[(3, 4)], &[until(1_000)]);
        assert_eq!((seen[1].signals, runtime.machine.rests.len()), (4, 0));
    }
}

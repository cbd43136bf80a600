//! What a timer is to a kernel: a clock that never goes back, and an alarm.

use core::time::Duration;

const NANOSECONDS: u128 = 1_000_000_000;

/// A clock that counts ticks since some moment in the past, and one alarm, which is an interrupt.
pub trait Timer {
    /// Ticks in a second.
    fn frequency_hz(&self) -> u64;

    /// The ticks until now: never less than what it said before.
    fn now(&mut self) -> u64;

    /// Has the interrupt come when the clock says `at`, or soon after if that has passed. There is one alarm: a new one
    /// takes the place of an earlier one. A timer may ring early, because its hardware cannot wait that long or counts alarms
    /// by another clock: who is woken looks at [`Timer::now`].
    fn set_alarm(&mut self, at: u64);

    /// Takes the alarm back, also one that has come and keeps its interrupt asserted.
    fn clear_alarm(&mut self);

    /// How long so many ticks are; rounded down to nanoseconds.
    fn duration(&self, ticks: u64) -> Duration {
        let hz = u128::from(self.frequency_hz().max(1));
        let nanoseconds = u128::from(ticks) * NANOSECONDS / hz;
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// The ticks that a duration takes; rounded up.
    fn ticks(&self, duration: Duration) -> u64 {
        let ticks = (duration.as_nanos() * u128::from(self.frequency_hz())).div_ceil(NANOSECONDS);
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

/// A timer that goes on while the processor sleeps so deeply that its clock stops: says how long that was, and ends it.
pub trait SleepClock {
    /// Ticks in a second.
    fn frequency_hz(&self) -> u32;

    /// Begins to count from 0, and interrupts when `ticks` (at least 1) have passed.
    fn begin(&mut self, ticks: u32);

    /// Counts no more, and takes its interrupt back. Gives the ticks since [`SleepClock::begin`], also beyond those that it was to
    /// wait for, up to 2³² − 1.
    fn end(&mut self) -> u32;
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Of(u64);

    impl Timer for Of {
        fn frequency_hz(&self) -> u64 {
            self.0
        }

        fn now(&mut self) -> u64 {
            0
        }

        fn set_alarm(&mut self, _: u64) {}

        fn clear_alarm(&mut self) {}
    }

    #[test]
    fn ticks_and_durations() {
        let timer = Of(62_500_000);
        assert_eq!(timer.duration(3), Duration::from_nanos(48));
        assert_eq!(timer.ticks(Duration::from_nanos(48)), 3);
        // A wait is never shorter than it was asked for.
        assert_eq!(timer.ticks(Duration::from_nanos(49)), 4);
        assert_eq!(timer.ticks(Duration::MAX), u64::MAX);
        assert_eq!(timer.duration(u64::MAX), Duration::from_nanos(u64::MAX));
        assert_eq!(Of(3).duration(1), Duration::from_nanos(333_333_333));
    }
}

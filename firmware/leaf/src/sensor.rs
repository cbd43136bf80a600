//! Sensors: what was measured, and a sensor that repeats a recorded series.

use alloc::collections::VecDeque;
use core::time::Duration;

use mielin_mesh_core::Instant;

/// So many readings are kept: at ten in a second as many as come while an agent crosses a slow line.
pub const READINGS_MAX: usize = 256;

/// What a sensor measured once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Its number: each is one above that before.
    pub number: u64,
    /// When it was taken, in nanoseconds of the clock of whoever took it.
    pub time_ns: u64,
    /// How much, in the sensor's own unit.
    pub value: i64,
}

/// The newest [`READINGS_MAX`] readings of a sensor. When there is no room the oldest goes, and whoever had not had it
/// sees a gap in the numbers.
#[derive(Clone, Debug)]
pub struct Readings {
    kept: VecDeque<Reading>,
    next: u64,
}

impl Readings {
    /// None. The first will have the number after `before`: 0, or for a sensor that has measured before a reset, of which nobody knows any more how often, one
    /// that is surely above.
    #[must_use]
    pub const fn new(before: u64) -> Self {
        Self {
            kept: VecDeque::new(),
            next: before + 1,
        }
    }

    /// Keeps a reading, and gives it its number.
    pub fn push(&mut self, time_ns: u64, value: i64) {
        if self.kept.len() == READINGS_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(Reading {
            number: self.next,
            time_ns,
            value,
        });
        self.next += 1;
    }

    /// The first reading above a number that is still there.
    #[must_use]
    pub fn above(&self, number: u64) -> Option<Reading> {
        let first = self.kept.front()?.number;
        let place = number.saturating_add(1).saturating_sub(first);
        self.kept.get(usize::try_from(place).ok()?).copied()
    }

    /// The number of the last one; before the first, what it was given.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.next - 1
    }
}

/// A sensor that measures what a series says, one value in each period, and begins it again when it has ended.
#[derive(Clone, Debug)]
pub struct Recording {
    series: &'static [i32],
    period: Duration,
    at: usize,
    due: Instant,
    readings: Readings,
}

impl Recording {
    /// A sensor that takes its first reading a period after `now`, with the number after `before`. Of an empty series nothing ever comes.
    #[must_use]
    pub const fn new(series: &'static [i32], period: Duration, now: Instant, before: u64) -> Self {
        Self {
            series,
            period,
            at: 0,
            due: Instant::from_start(now.since_start().saturating_add(period)),
            readings: Readings::new(before),
        }
    }

    /// Takes no reading: the next is due a period after `now`.
    pub fn wait(&mut self, now: Instant) {
        self.due = now + self.period;
    }

    /// Takes the readings that are due; `time_ns` is what the clock of the readings says now. Gives how many.
    pub fn measure(&mut self, now: Instant, time_ns: u64) -> usize {
        let mut taken = 0;
        while self.due <= now && taken < READINGS_MAX {
            let Some(value) = self.series.get(self.at) else {
                return taken;
            };
            // One that is taken late says when it was due.
            let late = u64::try_from(now.since(self.due).as_nanos()).unwrap_or(u64::MAX);
            self.readings
                .push(time_ns.saturating_sub(late), (*value).into());
            self.at = (self.at + 1) % self.series.len();
            self.due = self.due + self.period.max(Duration::from_millis(1));
            taken += 1;
        }
        taken
    }

    /// When the next one is due.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        (!self.series.is_empty()).then_some(self.due)
    }

    /// What it has measured.
    #[must_use]
    pub fn readings(&self) -> &Readings {
        &self.readings
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const SERIES: [i32; 3] = [215, -3, 220];

    fn at(ms: u64) -> Instant {
        Instant::from_start(Duration::from_millis(ms))
    }

    #[test]
    fn a_series_is_repeated_in_its_rhythm() {
        let mut sensor = Recording::new(&SERIES, Duration::from_millis(100), at(0), 0);
        assert_eq!(
            (sensor.measure(at(99), 0), sensor.next_at()),
            (0, Some(at(100)))
        );
        // Four are late, and are as old as they are.
        assert_eq!(sensor.measure(at(450), 1_450_000_000), 4);
        let all: Vec<_> = (0..4).map_while(|n| sensor.readings().above(n)).collect();
        let values: Vec<_> = all.iter().map(|reading| reading.value).collect();
        let times: Vec<_> = all
            .iter()
            .map(|reading| reading.time_ns / 1_000_000)
            .collect();
        assert_eq!(
            (values, times),
            (
                [215, -3, 220, 215].to_vec(),
                [1100, 1200, 1300, 1400].to_vec()
            )
        );
        assert_eq!(sensor.next_at(), Some(at(500)));
    }

    #[test]
    fn an_empty_series_is_silent() {
        let mut sensor = Recording::new(&[], Duration::from_millis(100), at(0), 0);
        assert_eq!((sensor.measure(at(1000), 0), sensor.next_at()), (0, None));
    }

    proptest! {
        /// Against a list that forgets nothing but what there is no room for.
        #[test]
        fn the_oldest_goes(count in 0_u64..800, after in 0_u64..900) {
            let mut readings = Readings::new(0);
            for number in 1..=count {
                readings.push(number * 10, number as i64);
            }
            let first = count.saturating_sub(READINGS_MAX as u64) + 1;
            let expected = (first..=count).find(|number| *number > after);
            prop_assert_eq!(readings.above(after).map(|reading| reading.number), expected);
            prop_assert_eq!(readings.last(), count);
        }
    }
}

//! When a battery says that it is time to leave.

use mielin_hal::{BatteryStatus, Charge};

/// At this charge a battery that was low is so no more, if it is not charging; between it and the 20 % of [`BatteryStatus::is_low`]
/// what was said stays said, so that a charge that wavers sends nobody to and fro.
pub const RECOVERED_PERCENT: u8 = 25;

/// So many readings that make no sense, one after the other, count as a battery that nobody knows.
pub const UNREADABLE_MAX: u8 = 3;

/// The charge can change by so much from one reading to the next that is believed at once.
const LEAP_MAX: u8 = 30;

/// What has become of a battery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatteryEvent {
    /// Below 20 %, and not charging: what runs here should leave.
    Low,
    /// Charging again, or above [`RECOVERED_PERCENT`]: it can come back.
    Recovered,
    /// [`UNREADABLE_MAX`] readings made no sense. Nobody knows how long the power lasts, which counts as [`BatteryEvent::Low`].
    Unreadable,
}

/// Watches a battery, reading by reading, and says what changes.
///
/// A reading makes no sense when there is none, when it is above 100 %, or when it lies more than 30 % from the one before; the
/// latter is believed when the next one says about the same, since a battery may have been replaced.
#[derive(Clone, Debug, Default)]
pub struct BatteryMonitor {
    believed: Option<BatteryStatus>,
    /// What made no sense by itself and will if it comes again.
    doubted: Option<u8>,
    senseless: u8,
    low: bool,
}

impl BatteryMonitor {
    /// Knows nothing, and takes it that there is power.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            believed: None,
            doubted: None,
            senseless: 0,
            low: false,
        }
    }

    /// Takes a reading; `None` when the sensor gave none.
    pub fn read(&mut self, reading: Option<BatteryStatus>) -> Option<BatteryEvent> {
        let Some(status) = reading.filter(|status| self.makes_sense(*status)) else {
            return self.senseless();
        };
        let was_unreadable = self.senseless >= UNREADABLE_MAX;
        self.senseless = 0;
        self.doubted = None;
        self.believed = Some(status);
        let recovered = status.charge == Charge::Charging || status.percent >= RECOVERED_PERCENT;
        if status.is_low() && (!self.low || was_unreadable) {
            self.low = true;
            return Some(BatteryEvent::Low);
        }
        if recovered && self.low {
            self.low = false;
            return Some(BatteryEvent::Recovered);
        }
        None
    }

    fn makes_sense(&mut self, status: BatteryStatus) -> bool {
        if status.percent > 100 {
            return false;
        }
        let near = |known: u8| known.abs_diff(status.percent) <= LEAP_MAX;
        let expected = self.believed.is_none_or(|before| near(before.percent));
        let repeated = self.doubted.is_some_and(near);
        self.doubted = Some(status.percent);
        expected || repeated
    }

    fn senseless(&mut self) -> Option<BatteryEvent> {
        self.senseless = self.senseless.saturating_add(1);
        if self.senseless != UNREADABLE_MAX {
            return None;
        }
        self.low = true;
        Some(BatteryEvent::Unreadable)
    }

    /// The last reading that made sense; `None` before the first one.
    #[must_use]
    pub fn status(&self) -> Option<BatteryStatus> {
        self.believed
    }

    /// Whether what runs here should leave, or stay away.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.low
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn discharging(percent: u8) -> Option<BatteryStatus> {
        Some(BatteryStatus {
            percent,
            charge: Charge::Discharging,
        })
    }

    fn charging(percent: u8) -> Option<BatteryStatus> {
        Some(BatteryStatus {
            percent,
            charge: Charge::Charging,
        })
    }

    fn events(
        monitor: &mut BatteryMonitor,
        readings: impl IntoIterator<Item = Option<BatteryStatus>>,
    ) -> std::vec::Vec<BatteryEvent> {
        readings
            .into_iter()
            .filter_map(|reading| monitor.read(reading))
            .collect()
    }

    #[test]
    fn low_once_and_back_once() {
        let mut monitor = BatteryMonitor::new();
        let drains = [22, 20, 19, 20, 18, 21, 24, 19].map(discharging);
        assert_eq!(events(&mut monitor, drains), [BatteryEvent::Low]);
        assert!(monitor.is_low());
        assert_eq!(monitor.read(discharging(25)), Some(BatteryEvent::Recovered));
        assert!(!monitor.is_low());
    }

    #[test]
    fn charging_is_never_low() {
        let mut monitor = BatteryMonitor::new();
        assert_eq!(events(&mut monitor, [10, 5, 1].map(charging)), []);
        assert_eq!(monitor.read(discharging(2)), Some(BatteryEvent::Low));
        assert_eq!(monitor.read(charging(2)), Some(BatteryEvent::Recovered));
    }

    #[test]
    fn nonsense_is_ignored_until_it_is_all_there_is() {
        let mut monitor = BatteryMonitor::new();
        let nonsense = [discharging(80), discharging(255), None, discharging(79)];
        assert_eq!(events(&mut monitor, nonsense), []);
        assert_eq!(monitor.status(), discharging(79));
        assert_eq!(
            events(&mut monitor, [None, discharging(101), None, None, None]),
            [BatteryEvent::Unreadable]
        );
        assert!(monitor.is_low());
        // It reads again, and is well, or not.
        let mut other = monitor.clone();
        assert_eq!(monitor.read(discharging(78)), Some(BatteryEvent::Recovered));
        assert_eq!(
            events(&mut other, [discharging(12), discharging(12)]),
            [BatteryEvent::Low]
        );
    }

    #[test]
    fn a_leap_is_believed_when_it_lasts() {
        let mut monitor = BatteryMonitor::new();
        let leaps = [discharging(90), discharging(3), discharging(90)];
        assert_eq!(events(&mut monitor, leaps), []);
        assert_eq!(monitor.read(discharging(3)), None);
        assert_eq!(monitor.read(discharging(3)), Some(BatteryEvent::Low));
        assert_eq!(monitor.status(), discharging(3));
    }

    proptest! {
        /// Whatever a sensor says, what is said alternates, and an event is the change of `is_low`.
        #[test]
        fn it_never_says_the_same_twice(readings in prop::collection::vec(any::<Option<(u8, bool)>>(), 0..200)) {
            let mut monitor = BatteryMonitor::new();
            for reading in readings {
                let was_low = monitor.is_low();
                let status = reading.and_then(|(percent, charges)| {
                    if charges { charging(percent) } else { discharging(percent) }
                });
                match monitor.read(status) {
                    None => prop_assert_eq!(monitor.is_low(), was_low),
                    Some(BatteryEvent::Recovered) => prop_assert!(was_low && !monitor.is_low()),
                    // What is unreadable may have been low, and what was unreadable may be low.
                    Some(BatteryEvent::Low | BatteryEvent::Unreadable) => prop_assert!(monitor.is_low()),
                }
                prop_assert!(monitor.status().is_none_or(|status| status.percent <= 100));
            }
        }
    }
}

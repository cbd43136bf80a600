//! A battery where there is none.

use core::fmt;

use mielin_hal::{BatteryStatus, Charge};

/// What a modelled battery holds and what takes from it. Charges are in parts of any size that all share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatteryTraits {
    /// When it is full.
    pub capacity: u64,
    /// A millisecond in which the processor executes instructions.
    pub awake_ms: u64,
    /// A millisecond in which it rests.
    pub asleep_ms: u64,
    /// A byte on the line, either way.
    pub line_byte: u64,
    /// What a charger gives in a millisecond.
    pub charger_ms: u64,
    /// At this charge in percent somebody connects the charger.
    pub charger_at_percent: u8,
    /// At this charge in percent somebody takes it away again.
    pub full_percent: u8,
}

/// A model of a battery: it drains with time and work, is charged when it is nearly empty, and drains again. Boards under an emulator have none, so
/// that everything that it says is computed, from nothing but what it is told; the same is told, the same is said.
///
/// ```
/// use mielin_leaf::{BatteryModel, BatteryTraits, ModelChange};
///
/// let traits = BatteryTraits {
///     capacity: 1000, awake_ms: 10, asleep_ms: 1, line_byte: 0, charger_ms: 20, charger_at_percent: 10, full_percent: 90,
/// };
/// let mut battery = BatteryModel::new(traits);
/// assert_eq!(battery.spend(20, 0, 0), None);
/// assert_eq!(battery.status().percent, 80);
/// assert_eq!(battery.spend(70, 0, 0), Some(ModelChange::ChargerOn));
/// ```
#[derive(Clone, Debug)]
pub struct BatteryModel {
    traits: BatteryTraits,
    left: u64,
    charging: bool,
}

/// What somebody does to a modelled battery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelChange {
    /// Connects the charger.
    ChargerOn,
    /// Takes it away.
    ChargerOff,
}

impl fmt::Display for ModelChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ChargerOn => "the charger is connected",
            Self::ChargerOff => "the charger is taken away",
        })
    }
}

impl BatteryModel {
    /// A full one.
    #[must_use]
    pub fn new(traits: BatteryTraits) -> Self {
        Self {
            left: traits.capacity,
            charging: false,
            traits,
        }
    }

    /// So much time has passed, so many bytes went over the line.
    pub fn spend(&mut self, awake_ms: u64, asleep_ms: u64, line_bytes: u64) -> Option<ModelChange> {
        let traits = &self.traits;
        let spent = awake_ms
            .saturating_mul(traits.awake_ms)
            .saturating_add(asleep_ms.saturating_mul(traits.asleep_ms))
            .saturating_add(line_bytes.saturating_mul(traits.line_byte));
        let gained = match self.charging {
            true => awake_ms
                .saturating_add(asleep_ms)
                .saturating_mul(traits.charger_ms),
            false => 0,
        };
        self.left = self
            .left
            .saturating_add(gained)
            .saturating_sub(spent)
            .min(traits.capacity);
        let percent = self.percent();
        if !self.charging && percent <= self.traits.charger_at_percent {
            self.charging = true;
            return Some(ModelChange::ChargerOn);
        }
        if self.charging && percent >= self.traits.full_percent {
            self.charging = false;
            return Some(ModelChange::ChargerOff);
        }
        None
    }

    fn percent(&self) -> u8 {
        let parts = u128::from(self.left) * 100;
        // Of an empty capacity nothing is left.
        parts
            .checked_div(self.traits.capacity.into())
            .map_or(0, |percent| percent as u8)
    }

    /// What a sensor would say of it.
    #[must_use]
    pub fn status(&self) -> BatteryStatus {
        BatteryStatus {
            percent: self.percent(),
            charge: match self.charging {
                true => Charge::Charging,
                false => Charge::Discharging,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use mielin_rt::{BatteryEvent, BatteryMonitor};
    use proptest::prelude::*;

    use super::*;

    const TRAITS: BatteryTraits = BatteryTraits {
        capacity: 1_000_000,
        awake_ms: 100,
        asleep_ms: 1,
        line_byte: 5,
        charger_ms: 300,
        charger_at_percent: 10,
        full_percent: 60,
    };

    /// What is said in so many steps of 100 ms, of which this share is awake.
    fn story(steps: u64, awake_ms: u64) -> Vec<(u64, Result<ModelChange, BatteryEvent>)> {
        let mut battery = BatteryModel::new(TRAITS);
        let mut monitor = BatteryMonitor::new();
        let mut said = Vec::new();
        for step in 0..steps {
            let change = battery.spend(awake_ms, 100 - awake_ms, 3);
            said.extend(change.map(|change| (step, Ok(change))));
            let event = monitor.read(Some(battery.status()));
            said.extend(event.map(|event| (step, Err(event))));
        }
        said
    }

    #[test]
    fn it_drains_is_charged_and_drains_again() {
        let said: Vec<_> = story(1000, 100).into_iter().collect();
        let what: Vec<_> = said.iter().map(|(_, what)| *what).collect();
        let round = [
            Err(BatteryEvent::Low),
            Ok(ModelChange::ChargerOn),
            Err(BatteryEvent::Recovered),
            Ok(ModelChange::ChargerOff),
        ];
        assert_eq!(what[..8], [round, round].concat());
        // 10,015 parts in a step: below 20 percent with the 80th.
        assert_eq!(said[0].0, 79);
    }

    #[test]
    fn who_sleeps_lasts_longer() {
        let first = |awake_ms| story(10_000, awake_ms)[0].0;
        assert!(first(1) > 40 * first(100), "{} {}", first(1), first(100));
    }

    proptest! {
        #[test]
        fn it_holds_no_more_than_it_can(
            spent in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 0..50),
            capacity in any::<u64>(),
        ) {
            let mut battery = BatteryModel::new(BatteryTraits { capacity, ..TRAITS });
            let mut charging = false;
            for (awake, asleep, bytes) in spent {
                if let Some(change) = battery.spend(awake, asleep, bytes) {
                    prop_assert_eq!(change == ModelChange::ChargerOn, !charging);
                    charging = !charging;
                }
                prop_assert!(battery.status().percent <= 100);
                prop_assert_eq!(battery.status().charge == Charge::Charging, charging);
            }
        }
    }
}

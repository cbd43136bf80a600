//! The devices of a node: sensors and actuators, for the agents that are here and those that are not.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use mielin_mesh_core::Instant;

use crate::{Reading, Recording};

/// What became of a command to an actuator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// It is set.
    Done,
    /// There is no such actuator.
    Absent,
    /// It has two states, 0 and 1, and this is another.
    Refused,
}

/// Sensors and actuators. An actuator is a switch here.
#[derive(Debug)]
pub struct Devices {
    sensors: Vec<Sensor>,
    switches: Vec<bool>,
    /// Switches that were set to something else.
    changes: VecDeque<(u8, bool)>,
}

#[derive(Debug)]
struct Sensor {
    recording: Recording,
    /// It measures from when somebody first wants to know.
    on: bool,
}

impl Devices {
    /// These sensors, and so many switches, which are off.
    #[must_use]
    pub fn new(sensors: Vec<Recording>, switches: u8) -> Self {
        let off = |recording| Sensor {
            recording,
            on: false,
        };
        Self {
            sensors: sensors.into_iter().map(off).collect(),
            switches: (0..switches).map(|_| false).collect(),
            changes: VecDeque::new(),
        }
    }

    /// How many sensors there are.
    #[must_use]
    pub fn sensors(&self) -> u8 {
        u8::try_from(self.sensors.len()).unwrap_or(u8::MAX)
    }

    /// How many actuators there are.
    #[must_use]
    pub fn actuators(&self) -> u8 {
        u8::try_from(self.switches.len()).unwrap_or(u8::MAX)
    }

    /// Somebody wants readings of this sensor: from now on it measures. Whether there is one.
    pub fn switch_on(&mut self, sensor: u8) -> bool {
        let sensor = self.sensors.get_mut(usize::from(sensor));
        sensor.map(|sensor| sensor.on = true).is_some()
    }

    /// The first reading of a sensor above a number that is there.
    #[must_use]
    pub fn above(&self, sensor: u8, number: u64) -> Option<Reading> {
        let sensor = self.sensors.get(usize::from(sensor))?;
        sensor.recording.readings().above(number)
    }

    /// Takes the readings that are due; `time_ns` is what the clock of readings says now. Whether there are new ones.
    pub fn measure(&mut self, now: Instant, time_ns: u64) -> bool {
        let mut taken = 0;
        for sensor in &mut self.sensors {
            if sensor.on {
                taken += sensor.recording.measure(now, time_ns);
            } else {
                sensor.recording.wait(now);
            }
        }
        taken > 0
    }

    /// When the next reading is due.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        let on = self.sensors.iter().filter(|sensor| sensor.on);
        on.filter_map(|sensor| sensor.recording.next_at()).min()
    }

    /// Sets an actuator.
    pub fn set(&mut self, actuator: u8, value: i64) -> Set {
        let on = match value {
            0 => false,
            1 => true,
            _ if usize::from(actuator) < self.switches.len() => return Set::Refused,
            _ => return Set::Absent,
        };
        let Some(switch) = self.switches.get_mut(usize::from(actuator)) else {
            return Set::Absent;
        };
        if *switch != on {
            *switch = on;
            // There are as many as somebody asks for in one turn; only the newest matter.
            if self.changes.len() == 16 {
                self.changes.pop_front();
            }
            self.changes.push_back((actuator, on));
        }
        Set::Done
    }

    /// An actuator that was set to something else.
    pub fn poll_change(&mut self) -> Option<(u8, bool)> {
        self.changes.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::vec;

    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_start(Duration::from_millis(ms))
    }

    #[test]
    fn a_sensor_measures_when_somebody_wants_to_know() {
        let recording = Recording::new(&[5, 6], Duration::from_millis(10), at(0), 0);
        let mut devices = Devices::new(vec![recording], 0);
        assert!(!devices.measure(at(500), 0));
        assert_eq!((devices.next_at(), devices.above(0, 0)), (None, None));
        assert!(!devices.switch_on(1));
        assert!(devices.switch_on(0));
        assert_eq!(devices.next_at(), Some(at(510)));
        assert!(devices.measure(at(515), 0));
        let first = devices.above(0, 0).expect("one is there");
        assert_eq!((first.number, first.value), (1, 5));
        assert_eq!(devices.above(0, 1), None);
    }

    #[test]
    fn switches_have_two_states() {
        let mut devices = Devices::new(vec![], 2);
        let sets = [(0, 0), (1, 1), (1, 1), (1, 0), (0, 2), (2, 1), (2, 5)];
        let results = sets.map(|(actuator, value)| devices.set(actuator, value));
        let done = Set::Done;
        let expected = [
            done,
            done,
            done,
            done,
            Set::Refused,
            Set::Absent,
            Set::Absent,
        ];
        assert_eq!(results, expected);
        let changes: Vec<_> = core::iter::from_fn(|| devices.poll_change()).collect();
        assert_eq!(changes, [(1, true), (1, false)]);
    }
}

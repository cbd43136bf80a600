//! The sensors and actuators of leaves, for agents that have been there and are at the host now.
//!
//! A reading waits here until every agent that reads its sensor is done with it. What the leaf was not told to be done with it
//! says again after each hello.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use mielin_mesh_core::AgentId;
use mielin_mesh_core::handover::{HostEnd, Reading};
use mielin_wasm::{Actuated, Sensed};

use super::{End, Lodgings};
use crate::lock::lock;
use crate::node::Node;

/// Readings of one sensor that wait here; a leaf sends fewer before it hears that some are done with.
const READINGS_MAX: usize = 256;

/// What a leaf says of an actuator that it does not have.
const NO_SUCH_ACTUATOR: u8 = 1;

/// What is known of one leaf's devices.
#[derive(Default)]
pub(super) struct Devices {
    /// Which start of the leaf it is.
    boot: Option<u64>,
    sensors: BTreeMap<u8, Sensor>,
    /// The command that an agent has given last.
    commands: HashMap<AgentId, Command>,
}

#[derive(Default)]
struct Sensor {
    readings: VecDeque<Reading>,
    /// How far each of the agents is that read it.
    readers: HashMap<AgentId, u64>,
}

struct Command {
    number: u32,
    actuator: u8,
    value: i64,
    /// What became of it, once that is known: nothing if it never will be.
    answer: Option<Option<u8>>,
}

impl Devices {
    /// The leaf has said hello: says again what is wanted of it.
    pub(super) fn greet(&mut self, boot: u64, core: &mut HostEnd) {
        let is_new = self.boot.replace(boot) != Some(boot);
        for (number, sensor) in &mut self.sensors {
            if is_new {
                // Their numbers begin anew.
                sensor.readings.clear();
            }
            if let Some(after) = sensor.after() {
                core.sense(*number, after);
            }
        }
    }

    /// Takes a reading in; gives who reads the sensor.
    pub(super) fn read(&mut self, sensor: u8, reading: Reading) -> Vec<AgentId> {
        let Some(sensor) = self.sensors.get_mut(&sensor) else {
            return Vec::new();
        };
        let newest = sensor.readings.back().map_or(0, |newest| newest.number);
        if reading.number > newest && sensor.readings.len() < READINGS_MAX {
            sensor.readings.push_back(reading);
        }
        sensor.readers.keys().copied().collect()
    }

    /// Takes the answer to a command in; gives whose it was.
    pub(super) fn answered(&mut self, number: u32, result: Option<u8>) -> Option<AgentId> {
        let mut commands = self.commands.iter_mut();
        let is_it = |(_, command): &(&AgentId, &mut Command)| {
            command.number == number && command.answer.is_none()
        };
        let (agent, command) = commands.find(is_it)?;
        command.answer = Some(result);
        Some(*agent)
    }

    fn forget(&mut self, agent: &AgentId) {
        for sensor in self.sensors.values_mut() {
            sensor.readers.remove(agent);
        }
        self.commands.remove(agent);
    }
}

impl Sensor {
    /// Up to where all who read it are done.
    fn after(&self) -> Option<u64> {
        self.readers.values().copied().min()
    }

    /// The first reading above `after` for one of those who read it, and whether the leaf is to be told how far all are.
    fn sense(&mut self, agent: AgentId, after: u64) -> (Option<Reading>, Option<u64>) {
        let before = self.after();
        self.readers.insert(agent, after);
        let done = self.after();
        if let Some(done) = done {
            self.readings.retain(|reading| reading.number > done);
        }
        let mut above = self
            .readings
            .iter()
            .filter(|reading| reading.number > after);
        (above.next().copied(), done.filter(|_| done != before))
    }
}

impl Lodgings {
    /// See `Services::sense`: of the leaf that the agent was on last.
    pub(crate) fn sense(&self, node: &Arc<Node>, agent: AgentId, sensor: u8, after: u64) -> Sensed {
        let sensed = self.with_device(node, agent, |end| {
            let sensors = end.profile.as_ref()?.sensors;
            if sensor >= sensors {
                return Some(Sensed::Absent);
            }
            let known = end.devices.sensors.entry(sensor).or_default();
            let lives = |reader: &AgentId| node.here(reader).is_ok_and(|cell| cell.end().is_none());
            known.readers.retain(|reader, _| lives(reader));
            let (reading, done) = known.sense(agent, after);
            if let Some(done) = done {
                end.core.sense(sensor, done);
                end.stirred.notify_one();
            }
            Some(match reading {
                Some(reading) => Sensed::Reading(mielin_wasm::Reading {
                    number: reading.number,
                    time_ns: reading.time_ns,
                    value: reading.value,
                }),
                None => Sensed::NotYet,
            })
        });
        match sensed {
            Device::None => Sensed::Absent,
            // It has not said what it has: it does when it is there.
            Device::Silent | Device::There(None) => Sensed::NotYet,
            Device::There(Some(sensed)) => sensed,
        }
    }

    /// See `Services::actuate`: of the leaf that the agent was on last.
    pub(crate) fn actuate(
        &self,
        node: &Arc<Node>,
        agent: AgentId,
        actuator: u8,
        value: i64,
    ) -> Actuated {
        let actuated = self.with_device(node, agent, |end| {
            let commands = &mut end.devices.commands;
            if let Some(command) = commands.get(&agent)
                && (command.actuator, command.value) == (actuator, value)
            {
                let Some(answer) = command.answer else {
                    return Actuated::NotYet;
                };
                commands.remove(&agent);
                return match answer {
                    Some(0) => Actuated::Done,
                    Some(NO_SUCH_ACTUATOR) => Actuated::Absent,
                    Some(_) => Actuated::Refused,
                    None => Actuated::Unreachable,
                };
            }
            match end.core.actuate(actuator, value) {
                Ok(number) => {
                    let command = Command {
                        number,
                        actuator,
                        value,
                        answer: None,
                    };
                    commands.insert(agent, command);
                    end.stirred.notify_one();
                    Actuated::NotYet
                }
                Err(_) => Actuated::Unreachable,
            }
        });
        match actuated {
            Device::None => Actuated::Absent,
            Device::Silent => Actuated::Unreachable,
            Device::There(actuated) => actuated,
        }
    }

    /// The agent is not here any more, and reads nothing by way of this node.
    pub(super) fn forget_reader(&self, agent: &AgentId) {
        for end in lock(&self.ends).values_mut() {
            end.devices.forget(agent);
        }
    }

    fn with_device<R>(
        &self,
        node: &Arc<Node>,
        agent: AgentId,
        action: impl FnOnce(&mut End) -> R,
    ) -> Device<R> {
        let cell = node.here(&agent).ok();
        let Some(device) = cell.and_then(|cell| cell.device()) else {
            return Device::None;
        };
        let Some(entry) = self.entry(&device.leaf) else {
            return Device::None;
        };
        match self.with(entry.number, action) {
            Some(result) => Device::There(result),
            None => Device::Silent,
        }
    }
}

/// Whether an agent has a device, and what that gives.
enum Device<R> {
    /// It has never been on a leaf of this node.
    None,
    /// The leaf has not been there since this node started.
    Silent,
    There(R),
}

//! The node: what is said to its host and what follows from it, its agents, its devices and its battery.

mod report;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use mielin_hal::Charge;
use mielin_mesh_core::handover::{
    Battery, HandoverError, LeafEnd, LeafEndEvent, Profile, Reading as WireReading, Reason, Status,
};
use mielin_mesh_core::{AgentId, Epoch, Instant, Name};
use mielin_rt::{BatteryEvent, BatteryMonitor};
use mielin_wasm::{Outcome, Platform, StopHandle};
use spin::Mutex;

use crate::agents::{Agents, Room, Unfit};
use crate::{BatteryModel, BatteryTraits, Devices, Set};
pub use report::Report;

/// How often the battery is looked at.
pub const BATTERY_PERIOD: Duration = Duration::from_millis(250);
/// When the host has not taken an agent that has to leave, it is asked again after so long.
const OFFER_AGAIN: Duration = Duration::from_secs(5);
/// Reports that nobody has asked for; beyond that the oldest are forgotten.
const REPORTS_MAX: usize = 16;
/// What an actuator says: docs/LEAF.md leaves that to the device, but for zero.
const ABSENT: u8 = 1;
const REFUSED: u8 = 2;

/// What a node is made of.
pub struct Parts {
    /// Its name, of at most 32 bytes.
    pub name: Name,
    /// Another number at each start.
    pub boot: u64,
    /// Clock and random bytes of its agents.
    pub platform: &'static dyn Platform,
    /// Its devices.
    pub devices: Devices,
    /// Its battery.
    pub battery: BatteryTraits,
    /// Says whether there is room for pieces of memory.
    pub room: Room,
}

/// A node with agents, above a [`Line`](crate::Line).
///
/// The driver gives it the messages of the line ([`Node::handle_message`]), the time ([`Node::handle_time`]), what was spent of the battery
/// ([`Node::handle_battery`]) and turns ([`Node::turn`]), sends what [`Node::poll_message`] gives whenever the line has room, and shows what [`Node::poll_report`] says.
pub struct Node {
    end: LeafEnd,
    agents: Agents,
    devices: Arc<Mutex<Devices>>,
    platform: &'static dyn Platform,
    battery: BatteryModel,
    monitor: BatteryMonitor,
    /// Agents that have to leave though the battery is well, as the host has asked for them.
    summoned: Vec<AgentId>,
    offered: Vec<AgentId>,
    offer_at: Instant,
    /// The host has just refused one.
    refused: bool,
    /// What became of commands, as far as the host has not been told.
    answers: VecDeque<(u32, u8)>,
    reports: VecDeque<Report>,
}

impl Node {
    /// A node without agents.
    ///
    /// # Errors
    /// [`HandoverError::Size`] if the name is too long.
    pub fn new(parts: Parts) -> Result<Self, HandoverError> {
        let battery = BatteryModel::new(parts.battery);
        let profile = Profile {
            name: parts.name,
            sensors: parts.devices.sensors(),
            actuators: parts.devices.actuators(),
            status: Status::default(),
        };
        let end = LeafEnd::new(parts.boot, profile)?;
        let devices = Arc::new(Mutex::new(parts.devices));
        let agents = Agents::new(parts.platform, Arc::clone(&devices), parts.room);
        let mut node = Self {
            end,
            agents,
            devices,
            platform: parts.platform,
            battery,
            monitor: BatteryMonitor::new(),
            summoned: Vec::new(),
            offered: Vec::new(),
            offer_at: Instant::START,
            refused: false,
            answers: VecDeque::new(),
            reports: VecDeque::new(),
        };
        node.monitor.read(Some(node.battery.status()));
        node.note_status();
        Ok(node)
    }

    /// The line's streams have begun anew.
    pub fn restarted(&mut self) {
        self.answers.clear();
        self.end.restarted();
        self.handle_events();
    }

    /// Takes in a message of the host. False if it was dropped, since it is none or does not follow what was said before.
    pub fn handle_message(&mut self, message: &[u8]) -> bool {
        let taken = self.end.handle_message(message).is_ok();
        self.handle_events();
        taken
    }

    /// The next message for the host. What comes has to be sent.
    pub fn poll_message(&mut self) -> Option<Vec<u8>> {
        self.give();
        self.end.poll_message()
    }

    /// What has happened, for people.
    pub fn poll_report(&mut self) -> Option<Report> {
        if let Some((actuator, on)) = self.devices.lock().poll_change() {
            return Some(Report::Switched { actuator, on });
        }
        self.reports.pop_front()
    }

    fn report(&mut self, report: Report) {
        if self.reports.len() == REPORTS_MAX {
            self.reports.pop_front();
        }
        self.reports.push_back(report);
    }

    fn handle_events(&mut self) {
        while let Some(event) = self.end.poll_event() {
            self.handle_event(event);
        }
        self.note_status();
    }

    fn handle_event(&mut self, event: LeafEndEvent) {
        match event {
            LeafEndEvent::Welcomed { real_ns } => self.report(Report::Welcomed { real_ns }),
            LeafEndEvent::Arrived { agent, bytes, .. } => self.admit(agent, bytes),
            LeafEndEvent::Run { agent, .. } => {
                self.agents.run(agent);
                self.report(Report::Runs { agent });
            }
            LeafEndEvent::Cancelled { agent, .. } => {
                self.forget(agent);
                self.report(Report::Cancelled { agent });
            }
            LeafEndEvent::HandedOver { agent, .. } => {
                self.forget(agent);
                self.report(Report::HandedOver { agent });
            }
            LeafEndEvent::Refused { agent, reason, .. } => self.refused(agent, reason),
            LeafEndEvent::Come { agent } => {
                if !self.summoned.contains(&agent) {
                    self.summoned.push(agent);
                }
            }
            LeafEndEvent::Mail {
                agent,
                letter,
                length,
                payload,
                ..
            } => {
                let len = usize::try_from(length).unwrap_or(usize::MAX);
                self.agents.deliver(agent, letter, len, payload);
            }
            LeafEndEvent::Posted { agent, result, .. } => self.agents.answer(agent, result),
            LeafEndEvent::Sense { sensor, .. } => {
                // Of a sensor that is not there nothing ever comes, and the host knows how many there are.
                self.devices.lock().switch_on(sensor);
            }
            LeafEndEvent::Actuate {
                number,
                actuator,
                value,
            } => {
                let result = match self.devices.lock().set(actuator, value) {
                    Set::Done => 0,
                    Set::Absent => ABSENT,
                    Set::Refused => REFUSED,
                };
                self.answers.push_back((number, result));
            }
        }
    }

    fn admit(&mut self, agent: AgentId, bytes: Vec<u8>) {
        let size = bytes.len();
        let mut words = String::new();
        let admitted = match self.monitor.is_low() {
            true => Err(Reason::NotReady),
            false => self
                .agents
                .admit(agent, bytes)
                .map_err(|unfit| match unfit {
                    Unfit::NoRoom => Reason::NoRoom {
                        room_bytes: self.room_bytes(),
                    },
                    Unfit::Damaged => Reason::Damaged,
                    Unfit::Unsuitable(text) => {
                        words = text;
                        Reason::Unsuitable
                    }
                }),
        };
        // The end has just said that it has arrived.
        let _ = match admitted {
            Ok(()) => self.end.accept(agent),
            Err(reason) => self.end.refuse(agent, reason),
        };
        self.report(match admitted {
            Ok(()) => Report::Arrived { agent, bytes: size },
            Err(reason) => Report::Declined {
                agent,
                reason,
                words,
            },
        });
    }

    fn forget(&mut self, agent: AgentId) {
        self.agents.remove(agent);
        self.offered.retain(|it| *it != agent);
        self.summoned.retain(|it| *it != agent);
    }

    /// The host does not take an agent: it goes on here, and if it has to leave it is offered again later.
    fn refused(&mut self, agent: AgentId, reason: Reason) {
        self.offered.retain(|it| *it != agent);
        self.summoned.retain(|it| *it != agent);
        self.refused = true;
        self.agents.run(agent);
        self.report(Report::NotTaken { agent, reason });
    }

    /// What agents have for the host, and what it wants to know.
    fn give(&mut self) {
        for (agent, desk, frozen) in self.agents.desks() {
            desk.give_lines(|line| self.end.log(agent, line.stream, &line.bytes).is_ok());
            if frozen {
                continue;
            }
            if let Some(next) = desk.take_want() {
                // The end is told each number once, in order, while the agent runs.
                let _ = self.end.want(agent, next);
            }
            if let Some(written) = desk.take_post() {
                // As long as one is not answered the desk has no other.
                let posted = self
                    .end
                    .post(agent, written.to, written.kind, &written.payload);
                debug_assert!(posted.is_ok(), "{posted:?}");
            }
        }
        while let Some((number, result)) = self.answers.front() {
            if self.end.actuated(*number, *result).is_err() {
                break;
            }
            self.answers.pop_front();
        }
        let devices = self.devices.lock();
        for sensor in 0..devices.sensors() {
            while let Some(after) = self.end.wanted_readings(sensor) {
                let Some(reading) = devices.above(sensor, after) else {
                    break;
                };
                let reading = WireReading {
                    number: reading.number,
                    time_ns: reading.time_ns,
                    value: reading.value,
                };
                if self.end.reading(sensor, reading).is_err() {
                    break;
                }
            }
        }
    }

    /// Does what time demands: readings, and agents that have to leave.
    pub fn handle_time(&mut self, now: Instant) {
        let time_ns = match self.platform.realtime_ns() {
            0 => self.platform.monotonic_ns(),
            real_ns => real_ns,
        };
        if self.devices.lock().measure(now, time_ns) {
            self.agents.wake_for_readings();
        }
        if core::mem::take(&mut self.refused) {
            self.offer_at = now + OFFER_AGAIN;
        }
        if now >= self.offer_at {
            self.offer(now);
        }
    }

    /// Freezes the agents that have to leave, and offers them.
    fn offer(&mut self, now: Instant) {
        let leaving: Vec<AgentId> = self
            .agents
            .ids()
            .filter(|agent| self.leaves(*agent) && !self.offered.contains(agent))
            .collect();
        for agent in leaving {
            let Some((program, taken)) = self.agents.freeze(agent) else {
                continue;
            };
            let bytes = program.len();
            match self.end.offer(agent, program, taken) {
                Ok(epoch) => {
                    self.offered.push(agent);
                    self.report(Report::Offered {
                        agent,
                        epoch,
                        bytes,
                    });
                }
                Err(_) => {
                    self.agents.run(agent);
                    self.offer_at = now + OFFER_AGAIN;
                }
            }
        }
    }

    fn leaves(&self, agent: AgentId) -> bool {
        self.monitor.is_low() || self.summoned.contains(&agent) || self.agents.has_ended(agent)
    }

    /// So much time has passed, awake and asleep, and so many bytes went over the line, since this was called last.
    pub fn handle_battery(&mut self, now: Instant, awake_ms: u64, asleep_ms: u64, line_bytes: u64) {
        if let Some(change) = self.battery.spend(awake_ms, asleep_ms, line_bytes) {
            let percent = self.battery.status().percent;
            self.report(Report::Model { change, percent });
        }
        let status = self.battery.status();
        let event = self.monitor.read(Some(status));
        if let Some(event) = event {
            self.report(Report::Battery { event, status });
        }
        match event {
            Some(BatteryEvent::Low | BatteryEvent::Unreadable) => self.offer_at = now,
            Some(BatteryEvent::Recovered) => self.stay(),
            None => {}
        }
        self.note_status();
    }

    /// The battery is well: whoever was to leave because of it, and has not, stays.
    fn stay(&mut self) {
        let offered = core::mem::take(&mut self.offered);
        for agent in offered {
            if self.leaves(agent) || self.end.cancel(agent).is_err() {
                self.offered.push(agent);
            } else {
                self.agents.run(agent);
            }
        }
    }

    fn note_status(&mut self) {
        let status = self.battery.status();
        let room_bytes = self.room_bytes();
        self.end.set_status(Status {
            battery: Battery {
                percent: Some(status.percent),
                charging: status.charge == Charge::Charging,
            },
            ready: !self.monitor.is_low(),
            room_bytes,
        });
    }

    fn room_bytes(&self) -> u32 {
        u32::try_from(self.agents.room_bytes()).unwrap_or(u32::MAX)
    }

    /// Lets the next agent that has something to do have its turn; `arm` gets what ends it. False if none has.
    pub fn turn(&mut self, arm: impl FnOnce(StopHandle)) -> bool {
        let Some(turn) = self.agents.turn(arm) else {
            return false;
        };
        let agent = turn.agent;
        match turn.outcome {
            Outcome::Exited(code) => self.report(Report::Exited { agent, code }),
            Outcome::Trapped(trap) => self.report(Report::Trapped { agent, trap }),
            Outcome::Stopped | Outcome::Blocked(_) => return true,
        }
        self.note_status();
        true
    }

    /// Whether an agent has something to do.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.agents.is_ready()
    }

    /// When to call [`Node::handle_time`], or to give a turn.
    #[must_use]
    pub fn next_at(&self, now: Instant) -> Option<Instant> {
        let due = |agent: AgentId| self.leaves(agent) && !self.offered.contains(&agent);
        // An agent that cannot be frozen yet waits for something that wakes the node; the rest is tried again.
        let offer = self.agents.ids().any(due).then(|| {
            let again = now + BATTERY_PERIOD;
            self.offer_at.max(again)
        });
        let agents = self.agents.idle().map(|idle| now + idle);
        [offer, agents, self.devices.lock().next_at()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether nobody needs the line: no agent is here or on its way, and nobody waits for readings.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let devices = self.devices.lock();
        let wanted = (0..devices.sensors()).any(|it| self.end.wanted_readings(it).is_some());
        self.agents.is_empty() && self.end.guests().next().is_none() && !wanted
    }

    /// Its agents, and in which epoch they have come.
    pub fn guests(&self) -> impl Iterator<Item = (AgentId, Epoch)> {
        self.end.guests().map(|guest| (guest.agent, guest.stay))
    }
}

impl core::fmt::Debug for Node {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Node")
            .field("agents", &self.agents)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

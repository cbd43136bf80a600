//! The leaf's end: agents that are here, and what they say and hear.

mod hearing;
mod resident;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::HandoverError;
use super::message::{
    Guest, Hello, LOG_BYTES_MAX, LeafMessage, Letter, Offer, POST_PAYLOAD_BYTES_MAX, PostResult,
    Profile, Reading, Reason, Status, Transfer, VERSION,
};
use super::transfer::{Incoming, Package};
use crate::delivery::MessageKind;
use crate::limits::{
    HANDOVER_CHECKPOINT_BYTES_MAX, HANDOVER_NAME_BYTES_MAX, HANDOVER_READINGS_AHEAD,
    HANDOVER_REPORTS_MAX,
};
use crate::{AgentId, Epoch};
use resident::{Being, Post, Resident, Wanted, arrived, running};

/// The end that is on the microcontroller. It knows of its agents which are here and who owns them, and keeps nothing
/// that outlives it.
#[derive(Debug)]
pub struct LeafEnd {
    boot: u64,
    /// Hellos that were due since the start.
    hellos: u64,
    greeting: Greeting,
    profile: Profile,
    status_due: bool,
    residents: Vec<Resident>,
    incoming: Option<Incoming>,
    /// Words of hand-overs that are due.
    answers: VecDeque<Transfer>,
    reports: VecDeque<Report>,
    /// A report has gone out since the last piece of a checkpoint.
    report_was_last: bool,
    sensors: Vec<Sensor>,
    events: VecDeque<LeafEndEvent>,
}

/// What happened at a [`LeafEnd`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeafEndEvent {
    /// The host has answered the hello. Nothing is said and heard before that.
    Welcomed {
        /// What time it is: nanoseconds since 1970.
        real_ns: u64,
    },
    /// An agent is offered and here whole. Make one of the checkpoint that does not run, and call [`LeafEnd::accept`],
    /// or [`LeafEnd::refuse`] if that is not possible.
    Arrived {
        /// The agent.
        agent: AgentId,
        /// Its epoch here.
        epoch: Epoch,
        /// The checkpoint.
        bytes: Vec<u8>,
    },
    /// The agent that was accepted is the leaf's: let it run.
    Run {
        /// The agent.
        agent: AgentId,
        /// Its epoch here.
        epoch: Epoch,
    },
    /// The agent that had arrived does not come, accepted or not: drop it. It has never run here.
    Cancelled {
        /// The agent.
        agent: AgentId,
        /// The epoch in which it was offered.
        epoch: Epoch,
    },
    /// The agent that was offered is the host's: drop it.
    HandedOver {
        /// The agent.
        agent: AgentId,
        /// The epoch in which it was offered.
        epoch: Epoch,
    },
    /// The host does not take the agent that was offered: let it run on.
    Refused {
        /// The agent.
        agent: AgentId,
        /// The epoch in which it was offered.
        epoch: Epoch,
        /// Why.
        reason: Reason,
    },
    /// The host asks for the agent: freeze and offer it.
    Come {
        /// The agent.
        agent: AgentId,
    },
    /// The mail that was wanted.
    Mail {
        /// For this agent.
        agent: AgentId,
        /// Its number.
        number: u64,
        /// Who wrote it.
        letter: Letter,
        /// The length of its payload.
        length: u32,
        /// The payload; empty if it is longer than what can come.
        payload: Vec<u8>,
    },
    /// What became of a post.
    Posted {
        /// The agent that made it.
        agent: AgentId,
        /// Its number.
        number: u64,
        /// The answer.
        result: PostResult,
    },
    /// The host is done with the readings of this sensor up to `after`: they need not be kept. It wants those above:
    /// [`LeafEnd::wanted_readings`].
    Sense {
        /// Which sensor.
        sensor: u8,
        /// The number.
        after: u64,
    },
    /// Do this, and say by [`LeafEnd::actuated`] what became of it.
    Actuate {
        /// The number of the command.
        number: u32,
        /// Which actuator.
        actuator: u8,
        /// What it is to do.
        value: i64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greeting {
    /// The hello has to go out.
    Due,
    /// It has gone out.
    Said { nonce: u64 },
    /// It was answered.
    Welcomed,
}

/// Something that waits to be said.
#[derive(Debug)]
struct Report {
    message: LeafMessage,
    tail: Vec<u8>,
}

impl Report {
    fn is_log_of(&self, whom: AgentId) -> bool {
        matches!(self.message, LeafMessage::Log { agent, .. } if agent == whom)
    }
}

/// A sensor whose readings are wanted.
#[derive(Debug)]
struct Sensor {
    sensor: u8,
    /// The host is done with those up to here.
    after: u64,
    /// Those above that were given to it in these streams.
    ahead: VecDeque<u64>,
}

impl Sensor {
    fn newest(&self) -> u64 {
        self.ahead.back().copied().unwrap_or(self.after)
    }

    fn has_room(&self) -> bool {
        self.ahead.len() < HANDOVER_READINGS_AHEAD
    }
}

impl LeafEnd {
    /// An end without agents. `boot` must be another at each start of the leaf: random, or a count of starts.
    ///
    /// # Errors
    ///
    /// [`HandoverError::Size`] if the name is too long.
    pub fn new(boot: u64, profile: Profile) -> Result<LeafEnd, HandoverError> {
        check_size(profile.name.as_str().len(), HANDOVER_NAME_BYTES_MAX)?;
        Ok(LeafEnd {
            boot,
            hellos: 1,
            greeting: Greeting::Due,
            profile,
            status_due: false,
            residents: Vec::new(),
            incoming: None,
            answers: VecDeque::new(),
            reports: VecDeque::new(),
            report_was_last: false,
            sensors: Vec::new(),
            events: VecDeque::new(),
        })
    }

    /// The link's streams have begun again. What was accepted and not run stays; what was arriving does not.
    pub fn restarted(&mut self) {
        self.greeting = Greeting::Due;
        self.hellos += 1;
        self.incoming = None;
        self.answers.clear();
        // What the host wants to know of sensors and actuators it asks anew, and of an agent that has gone it wants to
        // know nothing.
        let residents = &self.residents;
        let is_of_one = |report: &Report| residents.iter().any(|r| report.is_log_of(r.agent));
        self.reports.retain(is_of_one);
        self.sensors.clear();
        let events = &mut self.events;
        self.residents.retain_mut(|resident| {
            match &mut resident.being {
                Being::Arrived => {
                    events.push_back(resident.cancelled());
                    return false;
                }
                Being::Leaving(package) => package.start_over(),
                Being::Held | Being::Running => {}
            }
            resident.want_again();
            if let Some(post) = &mut resident.post {
                post.again |= !post.due;
                post.due = true;
            }
            true
        });
    }

    /// Whether the host has answered the newest hello.
    #[must_use]
    pub fn is_welcomed(&self) -> bool {
        self.greeting == Greeting::Welcomed
    }

    /// How the leaf is now. The host is told if that is another than before.
    pub fn set_status(&mut self, status: Status) {
        self.status_due |= self.profile.status != status;
        self.profile.status = status;
    }

    /// The agents that are here: those that run or are to leave, and those that were accepted.
    pub fn guests(&self) -> impl Iterator<Item = Guest> + '_ {
        self.residents.iter().filter_map(Resident::as_guest)
    }

    /// Offers an agent, which must be frozen now, to the host; in which epoch. `taken` says how much mail it has taken in
    /// this stay: that of the last [`LeafEnd::want`], and one more if that came and the checkpoint has it.
    ///
    /// [`LeafEndEvent::HandedOver`] or [`LeafEndEvent::Refused`] follows, unless it is cancelled before. An agent that has
    /// ended is handed over like any other.
    ///
    /// # Errors
    ///
    /// [`HandoverError::State`] if it does not run here, [`HandoverError::Unanswered`], [`HandoverError::Number`] for
    /// `taken`, [`HandoverError::Size`]; `bytes` is dropped.
    pub fn offer(
        &mut self,
        agent: AgentId,
        bytes: Vec<u8>,
        taken: u64,
    ) -> Result<Epoch, HandoverError> {
        check_checkpoint(&bytes)?;
        let resident = running(&mut self.residents, agent)?;
        if resident.post.is_some() {
            return Err(HandoverError::Unanswered);
        }
        let came = resident.wanted == Wanted::Delivered;
        if taken != resident.taken && !(came && taken == resident.taken + 1) {
            return Err(HandoverError::Number);
        }
        if taken != resident.taken {
            resident.taken = taken;
            resident.wanted = Wanted::No;
        }
        resident.last = resident.last.next();
        resident.being = Being::Leaving(Package::new(bytes));
        Ok(resident.last)
    }

    /// Keeps an agent that was offered: it may run on.
    ///
    /// # Errors
    ///
    /// [`HandoverError::State`]: it is not offered, or handed over already.
    pub fn cancel(&mut self, agent: AgentId) -> Result<(), HandoverError> {
        let resident = self.residents.iter_mut().find(|r| r.agent == agent);
        let resident = resident.ok_or(HandoverError::State)?;
        if !matches!(resident.being, Being::Leaving(_)) {
            return Err(HandoverError::State);
        }
        let epoch = resident.last;
        resident.stays();
        // Before the welcome it is said as well, for the hello may have said otherwise. It takes back all before.
        let is_same =
            |said: &Transfer| matches!(said, Transfer::Cancel { agent: a, .. } if *a == agent);
        self.answers.retain(|said| !is_same(said));
        self.answers.push_back(Transfer::Cancel { agent, epoch });
        Ok(())
    }

    /// An agent that has arrived will run here as soon as the host lets go of it.
    ///
    /// # Errors
    ///
    /// [`HandoverError::State`]: it has not arrived, or does not come any more.
    pub fn accept(&mut self, agent: AgentId) -> Result<(), HandoverError> {
        let resident = arrived(&mut self.residents, agent)?;
        resident.being = Being::Held;
        let epoch = resident.stay;
        self.answers.push_back(Transfer::Have { agent, epoch });
        Ok(())
    }

    /// An agent that has arrived cannot run here.
    ///
    /// # Errors
    ///
    /// [`HandoverError::State`]: it has not arrived, or does not come any more.
    pub fn refuse(&mut self, agent: AgentId, reason: Reason) -> Result<(), HandoverError> {
        let epoch = arrived(&mut self.residents, agent)?.stay;
        self.residents.retain(|resident| resident.agent != agent);
        self.answers.push_back(Transfer::Refuse {
            agent,
            epoch,
            reason,
        });
        Ok(())
    }

    /// An agent wants its mail number `next`, and has taken all before. Numbers begin at 0 in each stay.
    ///
    /// # Errors
    ///
    /// [`HandoverError::State`] if it does not run here; [`HandoverError::Number`] if `next` is neither the number that was
    /// wanted last nor, after that has come, the one after it.
    pub fn want(&mut self, agent: AgentId, next: u64) -> Result<(), HandoverError> {
        let resident = running(&mut self.residents, agent)?;
        match resident.wanted {
            Wanted::No | Wanted::Delivered if next == resident.taken => {}
            Wanted::Delivered if next == resident.taken + 1 => resident.taken = next,
            Wanted::Due | Wanted::Said if next == resident.taken => return Ok(()),
            _ => return Err(HandoverError::Number),
        }
        resident.wanted = Wanted::Due;
        Ok(())
    }

    /// An agent sends a message; its number. [`LeafEndEvent::Posted`] follows, however long the host is away.
    ///
    /// # Errors
    ///
    /// [`HandoverError::State`] if the agent does not run here, [`HandoverError::Unanswered`] if it has sent one that is
    /// not answered, [`HandoverError::Size`].
    pub fn post(
        &mut self,
        agent: AgentId,
        to: AgentId,
        kind: MessageKind,
        payload: &[u8],
    ) -> Result<u64, HandoverError> {
        check_size(payload.len(), POST_PAYLOAD_BYTES_MAX)?;
        let resident = running(&mut self.residents, agent)?;
        if resident.post.is_some() {
            return Err(HandoverError::Unanswered);
        }
        resident.post = Some(Post {
            to,
            kind,
            payload: payload.to_vec(),
            due: true,
            again: false,
        });
        Ok(resident.posted)
    }

    /// Says what an agent wrote or logged: at most [`LOG_BYTES_MAX`] bytes of it. What is on its way at a restart of the
    /// link may be lost.
    ///
    /// # Errors
    ///
    /// [`HandoverError::State`] if the agent is not here, [`HandoverError::Size`], [`HandoverError::Full`].
    pub fn log(&mut self, agent: AgentId, stream: u8, bytes: &[u8]) -> Result<(), HandoverError> {
        check_size(bytes.len(), LOG_BYTES_MAX)?;
        let resident = self.residents.iter().find(|r| r.agent == agent);
        let epoch = resident.ok_or(HandoverError::State)?.stay;
        let message = LeafMessage::Log {
            agent,
            epoch,
            stream,
        };
        self.report(message, bytes)
    }

    /// Above which number readings of this sensor are wanted, if some are and there is room for one. Give the next by
    /// [`LeafEnd::reading`] as soon as there is one, and ask again.
    #[must_use]
    pub fn wanted_readings(&self, sensor: u8) -> Option<u64> {
        let wanted = self.sensors.iter().find(|s| s.sensor == sensor);
        wanted
            .filter(|sensor| sensor.has_room() && self.reports.len() < HANDOVER_REPORTS_MAX)
            .map(Sensor::newest)
    }

    /// Says what a sensor reads.
    ///
    /// # Errors
    ///
    /// [`HandoverError::NotWanted`] if [`LeafEnd::wanted_readings`] is nothing or not below its number;
    /// [`HandoverError::Full`].
    pub fn reading(&mut self, sensor: u8, reading: Reading) -> Result<(), HandoverError> {
        let mut sensors = self.sensors.iter();
        let index = sensors
            .position(|s| s.sensor == sensor && s.has_room() && s.newest() < reading.number)
            .ok_or(HandoverError::NotWanted)?;
        self.report(LeafMessage::Reading { sensor, reading }, &[])?;
        self.sensors[index].ahead.push_back(reading.number);
        Ok(())
    }

    /// Says what became of a command. Zero is success.
    ///
    /// # Errors
    ///
    /// [`HandoverError::Full`].
    pub fn actuated(&mut self, number: u32, result: u8) -> Result<(), HandoverError> {
        self.report(LeafMessage::Actuated { number, result }, &[])
    }

    fn report(&mut self, message: LeafMessage, tail: &[u8]) -> Result<(), HandoverError> {
        if self.reports.len() >= HANDOVER_REPORTS_MAX {
            return Err(HandoverError::Full);
        }
        let tail = tail.to_vec();
        self.reports.push_back(Report { message, tail });
        Ok(())
    }

    /// What happened. Ask until nothing comes.
    pub fn poll_event(&mut self) -> Option<LeafEndEvent> {
        self.events.pop_front()
    }

    /// The next message for the link. What comes has to be sent: ask only when the link has room.
    pub fn poll_message(&mut self) -> Option<Vec<u8>> {
        match self.greeting {
            Greeting::Due => Some(self.say_hello()),
            Greeting::Said { .. } => None,
            Greeting::Welcomed => self.say_next(),
        }
    }

    fn say_hello(&mut self) -> Vec<u8> {
        // Neither two starts of a leaf nor two hellos of one start may have the same, also if starts are counted.
        let spread = self.boot.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let nonce = spread.wrapping_add(self.hellos);
        self.greeting = Greeting::Said { nonce };
        self.status_due = false;
        let hello = Hello {
            version: VERSION,
            nonce,
            boot: self.boot,
            profile: self.profile.clone(),
            guests: self.guests().collect(),
        };
        LeafMessage::Hello(hello).encode(&[])
    }

    /// Who owns what goes first. Reports and a checkpoint share what is left.
    fn say_next(&mut self) -> Option<Vec<u8>> {
        // What an agent wrote goes before it.
        if let Some(Transfer::Run { agent, .. }) = self.answers.front()
            && let Some(index) = self.reports.iter().position(|r| r.is_log_of(*agent))
            && let Some(report) = self.reports.remove(index)
        {
            return Some(report.message.encode(&report.tail));
        }
        if let Some(answer) = self.answers.pop_front() {
            return Some(LeafMessage::Transfer(answer).encode(&[]));
        }
        if core::mem::take(&mut self.status_due) {
            return Some(LeafMessage::Status(self.profile.status).encode(&[]));
        }
        let mut residents = self.residents.iter_mut();
        if let Some(message) = residents.find_map(Resident::say) {
            return Some(message);
        }
        self.report_was_last = !self.report_was_last;
        if self.report_was_last {
            self.say_report().or_else(|| self.say_package())
        } else {
            self.say_package().or_else(|| self.say_report())
        }
    }

    fn say_report(&mut self) -> Option<Vec<u8>> {
        let report = self.reports.pop_front()?;
        Some(report.message.encode(&report.tail))
    }

    fn say_package(&mut self) -> Option<Vec<u8>> {
        let going = |resident: &Resident| resident.package().is_some_and(Package::is_going);
        let due = |resident: &Resident| resident.package().is_some_and(Package::is_due);
        let mut residents = self.residents.iter();
        let index = residents
            .position(going)
            .or_else(|| self.residents.iter().position(due))?;
        let resident = &mut self.residents[index];
        let Being::Leaving(package) = &mut resident.being else {
            return None;
        };
        let offer = Offer {
            agent: resident.agent,
            epoch: resident.last,
            bytes: package.len(),
            taken: resident.taken,
            posted: resident.posted,
        };
        let (transfer, piece) = package.next(offer)?;
        Some(LeafMessage::Transfer(transfer).encode(piece))
    }
}

pub(super) const fn check_size(size: usize, max: usize) -> Result<(), HandoverError> {
    if size > max {
        return Err(HandoverError::Size { size, max });
    }
    Ok(())
}

/// Neither empty nor too large.
pub(super) fn check_checkpoint(bytes: &[u8]) -> Result<(), HandoverError> {
    if bytes.is_empty() {
        let max = HANDOVER_CHECKPOINT_BYTES_MAX;
        return Err(HandoverError::Size { size: 0, max });
    }
    check_size(bytes.len(), HANDOVER_CHECKPOINT_BYTES_MAX)
}

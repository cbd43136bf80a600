//! What the node provides to a running program.

use alloc::vec::Vec;

use crate::{Address, Capability};

/// The node's side of the host calls. Called from the thread that runs the program; must not block.
pub trait Services: Send + Sync {
    /// Appends to the program's log; gives how many bytes were taken, which may be fewer.
    ///
    /// # Errors
    /// [`LogError::Full`] if nothing more fits; the guest sees `ENOSPC`.
    fn write_log(&self, stream: LogStream, bytes: &[u8]) -> Result<usize, LogError>;

    /// A line that the program wrote with `mielin.log`.
    fn log(&self, level: Level, message: &str);

    /// Accepts a message for delivery; gives its sequence number (from 1) towards that destination.
    ///
    /// # Errors
    /// [`SendError::Full`] suspends the program for a moment and tries again; the others reach it.
    fn send(&self, to: Address, kind: MessageKind, payload: &[u8]) -> Result<u64, SendError>;

    /// Takes the oldest message, if its payload is at most `max_len` bytes.
    fn receive(&self, max_len: usize) -> Receive;

    /// Takes the oldest message without its payload, if that is longer than `longer_than` bytes, or if the node cannot give it
    /// here. A node that gives messages implements it, so that programs can pass over those for which they have no room.
    fn discard(&self, longer_than: usize) -> Option<Discarded> {
        let _ = longer_than;
        None
    }

    /// The reading of a sensor with the lowest number above `after`. The program is done with all up to that
    /// number, which may be forgotten. Called again with the same arguments when a wait for a
    /// reading has ended ([`Wait::reading`](crate::Wait::reading)), here or on another node.
    fn sense(&self, sensor: u8, after: u64) -> Sensed {
        let _ = (sensor, after);
        Sensed::Absent
    }

    /// Sets an actuator. [`Actuated::NotYet`] suspends the program, and when it wakes this is called again
    /// with the same arguments; so it is on another node, if the program moves before the answer, and the
    /// actuator may be set twice to the same value.
    fn actuate(&self, actuator: u8, value: i64) -> Actuated {
        let _ = (actuator, value);
        Actuated::Absent
    }

    /// Notes that the program asked for something that it was not granted.
    fn denied(&self, capability: &Capability, call: &'static str);

    /// Notes that a host call was performed; one that waits counts once, however often it is issued again.
    /// Gives whether the program shall leave at its next safepoint, as if it had been asked to stop.
    fn called(&self) -> bool {
        false
    }
}

/// Where output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogStream {
    /// What a program computes.
    Stdout,
    /// What it says about it.
    Stderr,
}

/// The log took nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The program has written as much as it may.
    #[error("the log is full")]
    Full,
}

/// How much a line of `mielin.log` matters. The numbers are the ABI's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// 0: the program could not do what it should.
    Error,
    /// 1: something is off.
    Warn,
    /// 2: worth knowing.
    Info,
    /// 3: for whoever debugs the program.
    Debug,
    /// 4: everything.
    Trace,
}

/// What a message is to its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// A message of the sender's own accord.
    Message,
    /// The answer to a message that the receiver had sent.
    Reply {
        /// The sequence number that the answered message was sent with.
        to: u64,
    },
}

/// A message that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Who sent it.
    pub from: Address,
    /// Its number among the messages from this sender to this program, from 1.
    pub sequence: u64,
    /// Whether it answers something.
    pub kind: MessageKind,
    /// What it says.
    pub payload: Vec<u8>,
}

/// The answer to [`Services::receive`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receive {
    /// The oldest message; it now belongs to the program.
    Message(Received),
    /// No message waits.
    Empty,
    /// The oldest message is larger than asked for and stays.
    TooLarge {
        /// The length of its payload in bytes.
        len: usize,
    },
}

/// A message that the program took without looking into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discarded {
    /// Who sent it.
    pub from: Address,
    /// Its number among the messages from this sender to this program, from 1.
    pub sequence: u64,
    /// Whether it answers something.
    pub kind: MessageKind,
    /// The length of its payload in bytes.
    pub len: usize,
}

/// What a sensor measured once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Its number among the readings of this sensor, from 1. A gap says that the device had no room for more.
    pub number: u64,
    /// When it was taken, on the device's clock: real time in ns since 1970 if the device knows it, else the time since
    /// it was started.
    pub time_ns: u64,
    /// How much, in the sensor's own unit.
    pub value: i64,
}

/// The answer to [`Services::sense`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sensed {
    /// The reading. It stays until the program asks for one above it.
    Reading(Reading),
    /// There is none yet, or it is still on its way.
    NotYet,
    /// There is no such sensor; the guest sees `ENODEV`.
    Absent,
}

/// The answer to [`Services::actuate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actuated {
    /// It is set.
    Done,
    /// The device has not answered.
    NotYet,
    /// There is no such actuator; the guest sees `ENODEV`.
    Absent,
    /// The device refuses the value; the guest sees `EINVAL`.
    Refused,
    /// The device cannot be reached, and whether it is set is not known; the guest sees `EHOSTUNREACH`.
    Unreachable,
}

/// A message was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Too many messages to that destination are under way; later it may work.
    #[error("too many messages to that destination are under way")]
    Full,
    /// The payload is over the limit; the guest sees `EMSGSIZE`.
    #[error("the message is over the limit of {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// Nobody has that address; the guest sees `EHOSTUNREACH`.
    #[error("no agent has that address")]
    Unknown,
    /// The node is going down or the program has been stopped; the guest sees `EPIPE`.
    #[error("the node accepts no messages any more")]
    Closed,
}

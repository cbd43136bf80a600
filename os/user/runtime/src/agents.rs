//! What the agent server does for people, and for the programs in which agents run.
//!
//! Answers have the label 0 if it was done.

use crate::Error;
use crate::boot::Buffer;
use crate::bytes::BYTES_MAX;
use crate::objects::Endpoint;
use crate::system_call::Received;

/// The badge of a person's programs. Those of agents are smaller: see [`badge`].
pub const USER: u64 = 1 << 32;

/// The most agents at once.
pub const AGENTS_MAX: u64 = 16;

/// Calls of people. The answer has text in its bytes; if its label is not 0, the text says why it was not done.
pub mod user {
    /// Does what a line says.
    pub const COMMAND: u64 = 1;
    /// The text that did not fit into the last answer; the answer has no bytes if there is none.
    pub const MORE: u64 = 2;
}

/// Calls of who carries stored agents to and from other machines, with the badge [`CARRIER`]. If the label of an answer is not 0, its bytes say why
/// it was not done.
pub mod files {
    /// How long the stored agent is whose name the bytes are. The answer: its bytes.
    pub const OPEN: u64 = 32;
    /// A piece of the stored agent whose name the bytes are. Words: offset. The answer: bytes.
    pub const READ: u64 = 33;
    /// An agent of this name is coming. The answer: a number for it.
    pub const CREATE: u64 = 34;
    /// A piece of what is coming. Words: its number.
    pub const APPEND: u64 = 35;
    /// All of it has come: it is a stored agent from now on. Words: its number.
    pub const COMMIT: u64 = 36;
    /// It will not come. Words: its number, or [`ALL`].
    pub const ABORT: u64 = 37;
    /// All that are coming.
    pub const ALL: u64 = u64::MAX;
}

/// The badge of who carries stored agents.
pub const CARRIER: u64 = USER + 1;

/// The most bytes that a stored agent has.
pub const STORED_BYTES_MAX: usize = 6 << 20;

/// Calls of an agent's program.
pub mod host {
    /// A piece of a [`Part`](super::Part). Words: its number, offset. The answer: bytes, and all that the part has.
    pub const FETCH: u64 = 16;
    /// Output of the agent. Words: 1 for stdout, 2 for stderr.
    pub const WRITE: u64 = 17;
    /// A line of its log. Words: its level.
    pub const LOG: u64 = 18;
    /// A message. Words: 1 if it is an answer, and to which number. The first 16 bytes are the receiver's address. The answer: the message's
    /// number; the label [`UNKNOWN`] or [`FULL`] if it was not taken.
    pub const SEND: u64 = 19;
    /// The oldest message for the agent, if its payload is not longer than the first word. The answer: 1 if it is an answer, to which number,
    /// and its own number; the first 16 bytes are the sender's address. The label is [`EMPTY`] if there is none, and [`LONG`] with the length as
    /// the second word if it is too long.
    pub const TAKE: u64 = 20;
    /// A piece of what the agent is, frozen. Words: offset, all that there is.
    pub const STORE: u64 = 21;
    /// It has ended. Words: how (see [`Ending`](super::Ending)), its exit code. The bytes say why. There is no answer.
    pub const END: u64 = 22;
    /// The oldest message for the agent without its payload, if that is longer than the first word. The answer is as that of [`TAKE`], with the length,
    /// little-endian in 8 bytes, in the place of the payload.
    pub const DISCARD: u64 = 23;

    /// No message.
    pub const EMPTY: u64 = 1;
    /// The message is too long.
    pub const LONG: u64 = 2;
    /// Nobody has that address, or this agent may not send.
    pub const UNKNOWN: u64 = 3;
    /// The receiver has too many messages.
    pub const FULL: u64 = 4;

    /// Bits of the notification at [`CONTROL`](super::slot::CONTROL): the agent is to freeze,
    pub const FREEZE: u64 = 1;
    /// and a message has come.
    pub const MESSAGE: u64 = 2;
}

/// Slots of the node of an agent's program: it has nothing but these.
pub mod slot {
    use crate::startup::slot::OWN;

    /// Calls to the agent server.
    pub const CALLS: u64 = OWN;
    /// The right to send messages of its own accord: the same endpoint with another badge. Only if it was granted.
    pub const SENDS: u64 = OWN + 1;
    /// What is raised by the agent server, for the second thread to wait for.
    pub const CONTROL: u64 = OWN + 2;
    /// What the second thread raises when the first is to look.
    pub const WAKE: u64 = OWN + 3;
}

/// Arguments of an agent's program: where the region of its memory begins,
pub const REGION: usize = 0;
/// and its bytes. The first [`STACK_BYTES`] of it are its first thread's stack.
pub const REGION_BYTES: usize = 1;
/// See there.
pub const STACK_BYTES: u64 = 1 << 20;

/// By which right a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// What each agent may do.
    Calls = 1,
    /// Sending messages of its own accord.
    Sends = 2,
}

/// The badge of an agent's program.
#[must_use]
pub const fn badge(agent: u64, right: Right) -> u64 {
    agent << 8 | right as u64
}

/// Which agent's program has this badge, and by which right it calls.
#[must_use]
pub const fn of_badge(badge: u64) -> Option<(u64, Right)> {
    match badge & 0xff {
        1 if badge < USER => Some((badge >> 8, Right::Calls)),
        2 if badge < USER => Some((badge >> 8, Right::Sends)),
        _ => None,
    }
}

/// What an agent's program is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Part {
    /// What the agent is: lines of a key and a value.
    Specification = 0,
    /// Its module, or the checkpoint that it goes on from.
    Image = 1,
    /// Its standard input.
    Input = 2,
}

/// How an agent has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Ending {
    /// By itself, with an exit code.
    Exited = 0,
    /// It did what WebAssembly forbids.
    Trapped = 1,
    /// It could not begin.
    Refused = 2,
    /// All of it is stored.
    Frozen = 3,
}

impl Ending {
    /// The one with this number; of others nobody knows more than that the agent is no more.
    #[must_use]
    pub fn of_number(number: u64) -> Self {
        let all = [Self::Exited, Self::Trapped, Self::Refused, Self::Frozen];
        let known = all.into_iter().find(|one| *one as u64 == number);
        known.unwrap_or(Self::Refused)
    }
}

/// The agent server, for a thread with this buffer.
#[derive(Clone, Copy, Debug)]
pub struct Agents {
    /// Its endpoint.
    pub endpoint: Endpoint,
    /// The thread's buffer.
    pub buffer: Buffer,
}

impl Agents {
    /// A call with bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn call(self, label: u64, words: [u64; 3], bytes: &[u8]) -> Result<Received, Error> {
        self.endpoint
            .call(&self.buffer.message(label, words, bytes))
    }

    /// Has it do what a line says. Gives whether that was done; the text of the answer goes to `show`, in pieces.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn command(self, line: &[u8], mut show: impl FnMut(&[u8])) -> Result<bool, Error> {
        let mut bytes = [0; BYTES_MAX];
        let mut received = self.call(user::COMMAND, [0; 3], line)?;
        let done = received.info.label() == 0;
        loop {
            let text = self.buffer.bytes(&received, &mut bytes);
            if text.is_empty() {
                return Ok(done);
            }
            show(text);
            received = self.call(user::MORE, [0; 3], &[])?;
        }
    }
}

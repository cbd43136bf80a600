//! The messages of both ends.
//!
//! A message is a value in the crate's [`codec`](crate::codec), followed by raw bytes where its description says so. With a
//! message's own bytes that fits into one message of the leaf link, whatever its numbers are.

use alloc::vec::Vec;

use oxicode::{Decode, Encode};

use super::{MESSAGE_BYTES_MAX, MessageError};
use crate::codec::{self, CodecError};
use crate::delivery::MessageKind;
use crate::limits::{HANDOVER_AGENTS_MAX, HANDOVER_NAME_BYTES_MAX};
use crate::{AgentId, Epoch, Name};

/// The version that is spoken here.
pub const VERSION: u8 = 1;

/// What decoding may occupy: a name and the agents of a hello.
const CODEC_LIMIT: usize = 1 << 10;

/// The longest forms of numbers, in the codec.
const U32: usize = 5;
const U64: usize = 9;
const KIND: usize = 1 + U64;
const AGENT: usize = 16;
/// Which message it is.
const TAG: usize = 1;

/// The longest payload of a mail that travels with it.
pub const MAIL_PAYLOAD_BYTES_MAX: usize =
    MESSAGE_BYTES_MAX - (TAG + AGENT + U64 + U64 + AGENT + U64 + KIND + U32);
/// The longest payload of a post.
pub const POST_PAYLOAD_BYTES_MAX: usize =
    MESSAGE_BYTES_MAX - (TAG + AGENT + U64 + U64 + 1 + AGENT + KIND);
/// The most that is said in one message of what an agent writes or logs.
pub const LOG_BYTES_MAX: usize = MESSAGE_BYTES_MAX - (TAG + AGENT + U64 + 1);
/// The most of a checkpoint that is in one message.
pub(super) const CHUNK_BYTES_MAX: usize = MESSAGE_BYTES_MAX - (TAG + TAG + U32);

/// How a battery is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Battery {
    /// How full it is, if that is known, and there is one.
    pub percent: Option<u8>,
    /// Whether it is being charged, or there is another source of power.
    pub charging: bool,
}

/// How a leaf is just now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Status {
    /// Its battery.
    pub battery: Battery,
    /// Whether it takes agents.
    pub ready: bool,
    /// The largest checkpoint that it takes.
    pub room_bytes: u32,
}

/// What a leaf is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Profile {
    /// Its name, of at most [`HANDOVER_NAME_BYTES_MAX`] bytes.
    pub name: Name,
    /// How many sensors it has.
    pub sensors: u8,
    /// How many actuators it has.
    pub actuators: u8,
    /// How it is.
    pub status: Status,
}

/// An agent that is at a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Guest {
    /// The agent.
    pub agent: AgentId,
    /// The epoch in which it came: its stay.
    pub stay: Epoch,
    /// Mail below this number was taken in this stay.
    pub taken: u64,
    /// Posts below this number were answered in this stay.
    pub posted: u64,
    /// What it does.
    pub phase: Phase,
}

/// What an agent does at a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Phase {
    /// It runs. The leaf owns it.
    Running,
    /// It is frozen and offered to the host. The leaf owns it.
    Leaving {
        /// In this epoch, which is above that of its stay.
        offered: Epoch,
    },
    /// It is here whole, and does not run: the host owns it.
    Held,
}

/// What a leaf says first in each pair of streams.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// [`VERSION`].
    pub version: u8,
    /// What the welcome must repeat; another in each hello.
    pub nonce: u64,
    /// Which start of the leaf this is: another at each. Numbers of readings begin anew with it.
    pub boot: u64,
    /// What the leaf is.
    pub profile: Profile,
    /// Its agents.
    pub guests: Vec<Guest>,
}

/// An agent is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Offer {
    /// The agent.
    pub agent: AgentId,
    /// The epoch that it is to have at the taker.
    pub epoch: Epoch,
    /// The length of its checkpoint.
    pub bytes: u32,
    /// From a leaf: mail below this number was taken in the stay that ends. From a host zero.
    pub taken: u64,
    /// From a leaf: posts below this number were made in the stay that ends. From a host zero.
    pub posted: u64,
}

/// Why an agent is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reason {
    /// There is no room for it.
    NoRoom {
        /// The largest checkpoint that would be taken.
        room_bytes: u32,
    },
    /// The leaf takes no agents now.
    NotReady,
    /// The taker cannot run it.
    Unsuitable,
    /// It has not come as it was announced, or could not be stored.
    Damaged,
    /// By what the taker knows the giver does not own it.
    Conflict,
}

/// What both ends say when an agent is handed over. The giver offers, the taker has, the giver lets go and says run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Transfer {
    /// Giver: take this agent.
    Offer(Offer),
    /// Giver: a piece of the checkpoint that was offered last. The raw bytes, at least one, follow.
    Chunk {
        /// Where it belongs: pieces come in order.
        offset: u32,
    },
    /// Giver: it is yours.
    Run {
        /// The agent.
        agent: AgentId,
        /// The epoch that was offered.
        epoch: Epoch,
    },
    /// Giver: it stays mine. That takes back offers of it in lower epochs too.
    Cancel {
        /// The agent.
        agent: AgentId,
        /// The epoch that was offered.
        epoch: Epoch,
    },
    /// Taker: no.
    Refuse {
        /// The agent.
        agent: AgentId,
        /// The epoch that was offered.
        epoch: Epoch,
        /// Why.
        reason: Reason,
    },
    /// Taker: I have it whole (at the host: written down), and do not run it.
    Have {
        /// The agent.
        agent: AgentId,
        /// The epoch that was offered.
        epoch: Epoch,
    },
}

/// A reading of a sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Reading {
    /// Its number: from 1 on since the leaf's start. A gap says that readings are lost.
    pub number: u64,
    /// When it was taken, in nanoseconds, as the leaf knows time.
    pub time_ns: u64,
    /// What the sensor says; the unit is the sensor's.
    pub value: i64,
}

/// What became of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PostResult {
    /// It has gone out.
    Sent {
        /// The number that replies to it name.
        sequence: u64,
    },
    /// There is no room for it. It was not performed.
    Full,
    /// It is too large. It was not performed.
    TooLarge,
    /// Nobody knows the receiver. It was not performed.
    Unknown,
    /// The agent may not, or the receiver has ended. It was not performed.
    Closed,
    /// The host has started anew and does not know whether it was performed.
    InDoubt,
}

/// Who wrote a mail, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Letter {
    /// Who sends it.
    pub from: AgentId,
    /// Its number there, which a reply names.
    pub sequence: u64,
    /// What is expected.
    pub kind: MessageKind,
}

/// What a leaf says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum LeafMessage {
    /// What it is and has.
    Hello(Hello),
    /// How it is now.
    Status(Status),
    /// The agent wants this mail, as soon as there is one; it has taken all before.
    Want {
        /// The agent.
        agent: AgentId,
        /// Its stay.
        epoch: Epoch,
        /// The number, from 0 on in each stay.
        next: u64,
    },
    /// A message of the agent. The raw payload follows.
    Post {
        /// The agent.
        agent: AgentId,
        /// Its stay.
        epoch: Epoch,
        /// Its number, from 0 on in each stay.
        number: u64,
        /// It was sent before, and not answered.
        again: bool,
        /// For whom.
        to: AgentId,
        /// What is expected.
        kind: MessageKind,
    },
    /// What the agent wrote or logged. The raw bytes follow.
    Log {
        /// The agent.
        agent: AgentId,
        /// Its stay.
        epoch: Epoch,
        /// Where to.
        stream: u8,
    },
    /// A reading.
    Reading {
        /// Of which sensor.
        sensor: u8,
        /// The reading.
        reading: Reading,
    },
    /// What became of a command.
    Actuated {
        /// Its number.
        number: u32,
        /// Zero if it was done; otherwise what the device says.
        result: u8,
    },
    /// Of a hand-over.
    Transfer(Transfer),
}

/// What a host says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum HostMessage {
    /// The answer to a hello.
    Welcome {
        /// Its nonce.
        nonce: u64,
        /// The time: nanoseconds since 1970.
        real_ns: u64,
    },
    /// Please offer this agent.
    Come {
        /// The agent.
        agent: AgentId,
        /// Its stay.
        epoch: Epoch,
    },
    /// The mail that was wanted. The raw payload follows if it has at most [`MAIL_PAYLOAD_BYTES_MAX`] bytes.
    Mail {
        /// For this agent.
        agent: AgentId,
        /// Its stay.
        epoch: Epoch,
        /// The number that was wanted.
        number: u64,
        /// Who wrote it.
        letter: Letter,
        /// The length of its payload.
        length: u32,
    },
    /// What became of a post.
    Posted {
        /// The agent.
        agent: AgentId,
        /// Its stay.
        epoch: Epoch,
        /// The number of the post.
        number: u64,
        /// The answer.
        result: PostResult,
    },
    /// Readings of this sensor are wanted.
    Sense {
        /// Which.
        sensor: u8,
        /// Above this number. The leaf need not keep those up to it.
        after: u64,
    },
    /// A command.
    Actuate {
        /// Its number.
        number: u32,
        /// Which actuator.
        actuator: u8,
        /// What it is to do; the unit is the actuator's.
        value: i64,
    },
    /// Of a hand-over.
    Transfer(Transfer),
}

impl LeafMessage {
    /// The message's bytes, with `tail` behind them where one belongs.
    #[must_use]
    pub fn encode(&self, tail: &[u8]) -> Vec<u8> {
        joined(codec::encode(self), tail)
    }

    /// A message and its tail.
    ///
    /// # Errors
    ///
    /// [`MessageError::Malformed`] and [`MessageError::OtherVersion`].
    pub fn decode(bytes: &[u8]) -> Result<(LeafMessage, &[u8]), MessageError> {
        // A hello of another version may have another form from there on.
        if let &[0, version, ..] = bytes
            && version != VERSION
        {
            return Err(MessageError::OtherVersion { version });
        }
        let (message, tail) = split::<LeafMessage>(bytes)?;
        let fits = match &message {
            LeafMessage::Hello(hello) => {
                tail.is_empty()
                    && hello.guests.len() <= HANDOVER_AGENTS_MAX
                    && hello.profile.name.as_str().len() <= HANDOVER_NAME_BYTES_MAX
            }
            LeafMessage::Post { .. } => tail.len() <= POST_PAYLOAD_BYTES_MAX,
            LeafMessage::Log { .. } => tail.len() <= LOG_BYTES_MAX,
            LeafMessage::Transfer(transfer) => transfer.fits(tail),
            LeafMessage::Status(_)
            | LeafMessage::Want { .. }
            | LeafMessage::Reading { .. }
            | LeafMessage::Actuated { .. } => tail.is_empty(),
        };
        fits.then_some((message, tail))
            .ok_or(MessageError::Malformed(CodecError::Malformed))
    }
}

impl HostMessage {
    /// The message's bytes, with `tail` behind them where one belongs.
    #[must_use]
    pub fn encode(&self, tail: &[u8]) -> Vec<u8> {
        joined(codec::encode(self), tail)
    }

    /// A message and its tail.
    ///
    /// # Errors
    ///
    /// [`MessageError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<(HostMessage, &[u8]), MessageError> {
        let (message, tail) = split::<HostMessage>(bytes)?;
        let fits = match &message {
            HostMessage::Mail { length, .. } => match *length as usize {
                length @ ..=MAIL_PAYLOAD_BYTES_MAX => tail.len() == length,
                _ => tail.is_empty(),
            },
            HostMessage::Transfer(transfer) => transfer.fits(tail),
            HostMessage::Welcome { .. }
            | HostMessage::Come { .. }
            | HostMessage::Posted { .. }
            | HostMessage::Sense { .. }
            | HostMessage::Actuate { .. } => tail.is_empty(),
        };
        fits.then_some((message, tail))
            .ok_or(MessageError::Malformed(CodecError::Malformed))
    }
}

impl Transfer {
    fn fits(&self, tail: &[u8]) -> bool {
        match self {
            Transfer::Chunk { .. } => (1..=CHUNK_BYTES_MAX).contains(&tail.len()),
            _ => tail.is_empty(),
        }
    }
}

fn joined(mut head: Vec<u8>, tail: &[u8]) -> Vec<u8> {
    head.extend_from_slice(tail);
    debug_assert!(head.len() <= MESSAGE_BYTES_MAX);
    head
}

fn split<T: Decode>(bytes: &[u8]) -> Result<(T, &[u8]), CodecError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        let limit = MESSAGE_BYTES_MAX;
        return Err(CodecError::TooLarge { limit });
    }
    codec::decode_prefix_limited::<T, CODEC_LIMIT>(bytes)
}

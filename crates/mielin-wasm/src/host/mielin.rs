//! The import module `mielin`, version 4, but for its tensor functions and those of devices. `docs/AGENT_ABI.md` is its contract.

use alloc::string::{String, ToString};

use super::Call;
use super::errno::Errno;
use super::patience::Patience;
use crate::services::{Discarded, Level, MessageKind, Receive, SendError};
use crate::state::Pending;
use crate::{Address, Capability, Target, Wait};

const VERSION: u32 = 4;

/// Layout of what [`receive`] writes beside the payload, and [`discard`].
const RECEIVED_BYTES: u32 = 40;
const KIND_MESSAGE: u32 = 0;
const KIND_REPLY: u32 = 1;
const RECEIVED_LENGTH: u32 = 36;

/// The longest line of [`log`].
const LOG_BYTES_MAX: u32 = 64 << 10;

/// How long a program waits before it tries again to send to a destination that is full.
const SEND_RETRY_NS: u64 = 5_000_000;

pub(crate) fn abi_version(_call: &mut Call<'_>) -> u32 {
    VERSION
}

pub(crate) fn self_id(call: &mut Call<'_>, out: u32) -> Result<(), Errno> {
    let address = call.state.address;
    call.memory.put(out, &address.0)
}

pub(crate) fn send(
    call: &mut Call<'_>,
    to: u32,
    payload: u32,
    len: u32,
    out: u32,
) -> Result<(), Errno> {
    call.state.pending = None;
    let to = Address(call.memory.array(to)?);
    call.require(Capability::Message(Target::One(to)), "mielin.send")?;
    call.memory.bytes(out, 8)?;
    if let Some(sequence) = deliver(call, to, MessageKind::Message, payload, len)? {
        call.memory.put_u64(out, sequence)?;
    }
    Ok(())
}

pub(crate) fn reply(
    call: &mut Call<'_>,
    to: u32,
    sequence: u64,
    payload: u32,
    len: u32,
) -> Result<(), Errno> {
    call.state.pending = None;
    let to = Address(call.memory.array(to)?);
    let answered = (to, sequence);
    let index = call
        .state
        .unanswered
        .iter()
        .position(|message| *message == answered);
    let index = index.ok_or(Errno::Noent)?;
    if deliver(call, to, MessageKind::Reply { to: sequence }, payload, len)?.is_some() {
        call.state.unanswered.remove(index);
    }
    Ok(())
}

/// Hands a message over; none if the program was suspended because there is no room.
fn deliver(
    call: &mut Call<'_>,
    to: Address,
    kind: MessageKind,
    payload: u32,
    len: u32,
) -> Result<Option<u64>, Errno> {
    if len as usize > call.limits.message_bytes {
        return Err(Errno::Msgsize);
    }
    match call
        .services
        .send(to, kind, call.memory.bytes(payload, len)?)
    {
        Ok(sequence) => Ok(Some(sequence)),
        Err(SendError::Full) => {
            let deadline_ns = Some(call.state.now_ns().saturating_add(SEND_RETRY_NS));
            call.block(
                Pending::Send,
                Wait {
                    deadline_ns,
                    message: false,
                    reading: false,
                },
            )?;
            Ok(None)
        }
        Err(SendError::TooLarge { .. }) => Err(Errno::Msgsize),
        Err(SendError::Unknown) => Err(Errno::Hostunreach),
        Err(SendError::Closed) => Err(Errno::Pipe),
    }
}

pub(crate) fn receive(
    call: &mut Call<'_>,
    buffer: u32,
    capacity: u32,
    timeout_ns: u64,
    out: u32,
) -> Result<(), Errno> {
    let begun = match call.state.pending.take() {
        Some(Pending::Receive { deadline_ns }) => Some(deadline_ns),
        _ => None,
    };
    let patience = Patience::of(call, timeout_ns, begun);
    call.memory.bytes(buffer, capacity)?;
    call.memory.bytes(out, RECEIVED_BYTES)?;
    let received = match call.services.receive(capacity as usize) {
        Receive::Message(received) => received,
        Receive::TooLarge { len } => {
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            call.memory.put_u32(out + RECEIVED_LENGTH, len)?;
            return Err(Errno::Msgsize);
        }
        Receive::Empty => {
            let deadline_ns = patience.left()?;
            let wait = Wait {
                deadline_ns,
                message: true,
                reading: false,
            };
            return call.block(Pending::Receive { deadline_ns }, wait);
        }
    };
    // A service that gives more than it was asked for breaks its contract; the program then sees
    // an error and no half message.
    if received.payload.len() > capacity as usize {
        return Err(Errno::Io);
    }
    call.memory.put(buffer, &received.payload)?;
    put_header(
        call,
        out,
        &Discarded {
            from: received.from,
            sequence: received.sequence,
            kind: received.kind,
            len: received.payload.len(),
        },
    )
}

pub(crate) fn discard(call: &mut Call<'_>, longer_than: u32, out: u32) -> Result<(), Errno> {
    call.state.pending = None;
    call.memory.bytes(out, RECEIVED_BYTES)?;
    let discarded = call.services.discard(longer_than as usize);
    let discarded = discarded.ok_or(Errno::Again)?;
    put_header(call, out, &discarded)
}

/// Writes what a message is, and remembers that it can be answered.
fn put_header(call: &mut Call<'_>, out: u32, message: &Discarded) -> Result<(), Errno> {
    let (kind, answers) = match message.kind {
        MessageKind::Message => (KIND_MESSAGE, 0),
        MessageKind::Reply { to } => (KIND_REPLY, to),
    };
    let len = u32::try_from(message.len).unwrap_or(u32::MAX);
    let mut header = [0; RECEIVED_BYTES as usize];
    header[0..16].copy_from_slice(&message.from.0);
    header[16..24].copy_from_slice(&message.sequence.to_le_bytes());
    header[24..32].copy_from_slice(&answers.to_le_bytes());
    header[32..36].copy_from_slice(&kind.to_le_bytes());
    header[36..40].copy_from_slice(&len.to_le_bytes());
    call.memory.put(out, &header)?;
    call.state.note_received(message.from, message.sequence);
    Ok(())
}

pub(crate) fn log(call: &mut Call<'_>, level: u32, text: u32, len: u32) -> Result<(), Errno> {
    let level = match level {
        0 => Level::Error,
        1 => Level::Warn,
        2 => Level::Info,
        3 => Level::Debug,
        4 => Level::Trace,
        _ => return Err(Errno::Inval),
    };
    if len > LOG_BYTES_MAX {
        return Err(Errno::Msgsize);
    }
    let text = call.memory.bytes(text, len)?;
    call.services.log(level, &String::from_utf8_lossy(text));
    Ok(())
}

pub(crate) fn capabilities(
    call: &mut Call<'_>,
    buffer: u32,
    capacity: u32,
    out: u32,
) -> Result<(), Errno> {
    let mut text = String::new();
    for capability in call.state.grants.iter() {
        text.push_str(&capability.to_string());
        text.push('\n');
    }
    let len = u32::try_from(text.len()).map_err(|_| Errno::Overflow)?;
    call.memory.put_u32(out, len)?;
    if len > capacity {
        return Err(Errno::Msgsize);
    }
    call.memory.put(buffer, text.as_bytes())
}

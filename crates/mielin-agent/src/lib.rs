//! The SDK with which an agent is written.
//!
//! An agent is an ordinary program for `wasm32-wasip1`: it has `main`, prints to
//! its log, and blocks where it waits. This crate adds what WASI has no words
//! for: the agent's own address, messages, and what it was granted. It is a thin
//! safe layer over the import module `mielin` (docs/AGENT_ABI.md) and depends on
//! nothing. It holds no state: an agent may be frozen inside any of these calls
//! and go on, on another machine, as if nothing had happened.
//!
//! ```no_run
//! fn main() -> Result<(), mielin_agent::Error> {
//!     loop {
//!         // Blocks until a message arrives, on whichever node that is then.
//!         let Some(message) = mielin_agent::receive(None)? else { continue };
//!         message.reply(b"seen")?;
//!     }
//! }
//! ```
//!
//! A program without a standard library, which may be as small as a few hundred
//! bytes, begins with [`entry!`], and takes messages with [`receive_into`].
//!
//! Built for anything but WebAssembly, the crate compiles and every call gives
//! [`Error::NotAnAgent`], so that an agent's own logic can be tested on the host.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod address;
mod capability;
mod device;
mod error;
#[allow(unsafe_code)]
mod ffi;
mod message;
pub mod tensor;

use alloc::vec::Vec;
use core::time::Duration;

pub use address::{AddressError, AgentAddress};
pub use capability::Capability;
pub use device::Reading;
pub use error::Error;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub use ffi::NoHeap;
pub use message::{Kind, Message, Received};

/// How much a line that [`log`] writes matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Level {
    /// The agent could not do what it should.
    Error = 0,
    /// Something is off.
    Warn = 1,
    /// Worth knowing.
    Info = 2,
    /// For whoever debugs the agent.
    Debug = 3,
    /// Everything.
    Trace = 4,
}

/// The version of the import module that this crate speaks.
pub const ABI_VERSION: u32 = 4;

/// The version of the import module that the node provides.
///
/// # Errors
/// [`Error::NotAnAgent`].
pub fn abi_version() -> Result<u32, Error> {
    match ffi::abi_version() {
        ffi::NOT_AN_AGENT => Err(Error::NotAnAgent),
        version => Ok(version),
    }
}

/// This agent's own address. It stays the same wherever the agent moves.
///
/// # Errors
/// [`Error::NotAnAgent`].
pub fn self_id() -> Result<AgentAddress, Error> {
    let mut bytes = [0; 16];
    Error::check(ffi::self_id(&mut bytes))?;
    Ok(AgentAddress(bytes))
}

/// Sends a message of the agent's own accord and gives its number among those
/// that this agent sent to that destination, from 1. The node delivers it once
/// and in order, wherever the destination is by then. Blocks while too many
/// messages to the destination are under way. Needs the capability `message` or
/// `message:ADDRESS`.
///
/// # Errors
/// [`Error::Denied`], [`Error::TooLarge`], [`Error::Unknown`], [`Error::Closed`];
/// nothing was sent then.
pub fn send(to: AgentAddress, payload: &[u8]) -> Result<u64, Error> {
    let mut sequence = 0;
    Error::check(ffi::send(&to.0, payload, &mut sequence))?;
    Ok(sequence)
}

/// Takes the oldest message that waits, or blocks until one arrives. `None`
/// waits without end; a timeout of zero only looks. Gives `None` when the time
/// is over. Time goes on while the agent moves.
///
/// # Errors
/// [`Error::TooLarge`] on a node that cannot give a message of that length, as a
/// microcontroller cannot: it stays, until it is passed over by [`discard`] or the
/// agent is on another node. [`Error::NotAnAgent`] or [`Error::Other`]. No message
/// was taken then.
pub fn receive(timeout: Option<Duration>) -> Result<Option<Message>, Error> {
    message::receive(timeout)
}

/// The same into a buffer, for programs without a heap.
///
/// # Errors
/// [`Error::TooLarge`] if the message is longer than the buffer; it stays, and is
/// the next one again, unless [`discard`] takes it. [`Error::NotAnAgent`] or [`Error::Other`].
pub fn receive_into(
    buffer: &mut [u8],
    timeout: Option<Duration>,
) -> Result<Option<Received>, Error> {
    message::receive_into(buffer, timeout)
}

/// Takes the oldest message that waits without what it says, if that is longer than
/// so many bytes, or if this node cannot give it; does not block. It can be answered
/// like any other, so that its sender knows. `None` if there is none, or the oldest
/// is not so long: as after a move, when the agent may be where its messages are not
/// yet. Then [`receive`] is the way to go on.
///
/// ```no_run
/// # fn main() -> Result<(), mielin_agent::Error> {
/// let mut buffer = [0; 100];
/// match mielin_agent::receive_into(&mut buffer, None) {
///     Err(mielin_agent::Error::TooLarge) => {
///         if let Some(long) = mielin_agent::discard(buffer.len())? {
///             long.reply(b"at most 100 bytes")?;
///         }
///     }
///     other => drop(other?),
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::NotAnAgent`] or [`Error::Other`]; no message was taken then.
pub fn discard(longer_than: usize) -> Result<Option<Received>, Error> {
    message::discard(longer_than)
}

/// The reading of a sensor with the lowest number above `after`, or blocks until
/// there is one. `None` waits without end; a timeout of zero only looks. Gives
/// `None` when the time is over.
///
/// By asking for what is above `after` the agent says that it is done with all up
/// to it, and the device may forget that. Begin with 0 and go on with the last
/// number: wherever the agent moves meanwhile, it loses and doubles nothing. Needs
/// the capability `sensor` or `sensor:N`.
///
/// ```no_run
/// # fn main() -> Result<(), mielin_agent::Error> {
/// let (mut last, mut highest) = (0, i64::MIN);
/// loop {
///     let Some(reading) = mielin_agent::sense(0, last, None)? else { continue };
///     last = reading.number;
///     highest = highest.max(reading.value);
/// }
/// # }
/// ```
///
/// # Errors
/// [`Error::Denied`], or [`Error::Absent`] where there is no such sensor.
pub fn sense(sensor: u8, after: u64, timeout: Option<Duration>) -> Result<Option<Reading>, Error> {
    device::sense(sensor, after, timeout)
}

/// Sets an actuator to a value, in the actuator's own unit. Blocks while the device
/// has not answered; if the agent moves meanwhile, the actuator may be set twice
/// to the same value. Needs the capability `actuator` or `actuator:N`.
///
/// ```no_run
/// # fn main() -> Result<(), mielin_agent::Error> {
/// match mielin_agent::actuate(0, 1) {
///     Ok(()) => mielin_agent::log(mielin_agent::Level::Info, "the fan is on"),
///     // Somewhere else there may be one.
///     Err(mielin_agent::Error::Absent) => Ok(()),
///     Err(error) => Err(error),
/// }
/// # }
/// ```
///
/// # Errors
/// [`Error::Denied`], [`Error::Absent`], [`Error::Refused`] or [`Error::Unreachable`].
pub fn actuate(actuator: u8, value: i64) -> Result<(), Error> {
    device::actuate(actuator, value)
}

/// Writes bytes to the agent's standard output, for programs without a standard
/// library.
///
/// # Errors
/// [`Error::Other`] when the log is full: a part may have been written.
pub fn print(mut bytes: &[u8]) -> Result<(), Error> {
    loop {
        let mut written = 0;
        Error::check(ffi::print(bytes, &mut written))?;
        match bytes.get(written as usize..) {
            Some([]) | None => return Ok(()),
            Some(_) if written == 0 => return Err(Error::Other(error::ERRNO_NOSPC)),
            Some(rest) => bytes = rest,
        }
    }
}

/// Writes a line to the node's structured log of this agent. Text beyond 64 KiB
/// is refused.
///
/// # Errors
/// [`Error::TooLarge`] or [`Error::NotAnAgent`].
pub fn log(level: Level, text: &str) -> Result<(), Error> {
    Error::check(ffi::log(level as u32, text.as_bytes()))
}

/// What this agent was granted, as of now.
///
/// # Errors
/// [`Error::NotAnAgent`].
pub fn capabilities() -> Result<Vec<Capability>, Error> {
    capability::granted()
}

//! Messages that arrived.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use crate::error::{ERRNO_AGAIN, ERRNO_MSGSIZE, ERRNO_TIMEDOUT};
use crate::ffi::{self, HEADER_BYTES};
use crate::{AgentAddress, Error};

/// A message that this agent took from its mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    received: Received,
    payload: Vec<u8>,
}

/// The same beside what it says: that is in the buffer that [`receive_into`](crate::receive_into) was given, or dropped by
/// [`discard`](crate::discard).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    from: AgentAddress,
    sequence: u64,
    kind: Kind,
    len: usize,
}

/// What a message is to its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Of the sender's own accord. It can be answered once.
    Message,
    /// The answer to a message of ours: `to` is the number that
    /// [`send`](crate::send) gave for it.
    Reply {
        /// The number of the answered message.
        to: u64,
    },
}

impl Message {
    /// Who sent it.
    #[must_use]
    pub fn from(&self) -> AgentAddress {
        self.received.from
    }

    /// Its number among the messages from this sender to this agent, from 1.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.received.sequence
    }

    /// Whether it answers something.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.received.kind
    }

    /// What it says.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Answers it. Every message that arrived may be answered once, without any
    /// capability, as long as it is among the last 4,096. Blocks as
    /// [`send`](crate::send) does.
    ///
    /// # Errors
    /// [`Error::NothingToAnswer`] the second time, [`Error::TooLarge`],
    /// [`Error::Unknown`] if the sender is gone, [`Error::Closed`].
    pub fn reply(&self, payload: &[u8]) -> Result<(), Error> {
        self.received.reply(payload)
    }
}

impl Received {
    /// Who sent it.
    #[must_use]
    pub fn from(&self) -> AgentAddress {
        self.from
    }

    /// Its number among the messages from this sender to this agent, from 1.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether it answers something.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How many bytes its payload has: so many of the buffer it takes.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.len
    }

    /// Answers it, as [`Message::reply`] does.
    ///
    /// # Errors
    /// Those of [`Message::reply`].
    pub fn reply(&self, payload: &[u8]) -> Result<(), Error> {
        Error::check(ffi::reply(&self.from.0, self.sequence, payload))
    }
}

/// Room for the payload of an ordinary message; larger ones take a second call.
const FIRST_CAPACITY: usize = 4096;

/// A timeout that never comes: the host reads the number as signed.
const WITHOUT_END: u64 = u64::MAX;

/// A timeout as the node reads it.
pub(crate) fn timeout_ns(timeout: Option<Duration>) -> u64 {
    timeout.map_or(WITHOUT_END, |timeout| {
        let longest = i64::MAX.cast_unsigned();
        u64::try_from(timeout.as_nanos())
            .unwrap_or(longest)
            .min(longest)
    })
}

pub(crate) fn receive(timeout: Option<Duration>) -> Result<Option<Message>, Error> {
    let timeout_ns = timeout_ns(timeout);
    let mut payload = vec![0; FIRST_CAPACITY];
    let mut header = [0; HEADER_BYTES];
    loop {
        match ffi::receive(&mut payload, timeout_ns, &mut header) {
            ERRNO_AGAIN | ERRNO_TIMEDOUT => return Ok(None),
            // The message waits until it is asked for with enough room; if that was enough, this node cannot give it.
            ERRNO_MSGSIZE if read(&header).len > payload.len() => {
                payload.resize(read(&header).len, 0);
            }
            errno => {
                Error::check(errno)?;
                let received = read(&header);
                payload.truncate(received.len);
                return Ok(Some(Message { received, payload }));
            }
        }
    }
}

pub(crate) fn receive_into(
    buffer: &mut [u8],
    timeout: Option<Duration>,
) -> Result<Option<Received>, Error> {
    let mut header = [0; HEADER_BYTES];
    match ffi::receive(buffer, timeout_ns(timeout), &mut header) {
        ERRNO_AGAIN | ERRNO_TIMEDOUT => Ok(None),
        errno => Error::check(errno).map(|()| Some(read(&header))),
    }
}

pub(crate) fn discard(longer_than: usize) -> Result<Option<Received>, Error> {
    let mut header = [0; HEADER_BYTES];
    match ffi::discard(longer_than, &mut header) {
        ERRNO_AGAIN => Ok(None),
        errno => Error::check(errno).map(|()| Some(read(&header))),
    }
}

/// The header's layout: address (16 bytes), sequence (8), the sequence that it
/// answers (8), kind (4), payload length (4), numbers little-endian.
fn read(header: &[u8; HEADER_BYTES]) -> Received {
    let mut from = [0; 16];
    from.copy_from_slice(&header[..16]);
    let kind = match number(&header[32..36]) {
        0 => Kind::Message,
        _ => Kind::Reply {
            to: number(&header[24..32]),
        },
    };
    Received {
        from: AgentAddress(from),
        sequence: number(&header[16..24]),
        kind,
        len: number(&header[36..40]) as usize,
    }
}

/// A number from its bytes.
pub(crate) fn number(little_endian: &[u8]) -> u64 {
    little_endian
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::{Kind, read, timeout_ns};
    use crate::Error;

    /// An agent's own logic is tested on the host, where no node answers.
    #[test]
    fn without_a_node_every_call_says_so() {
        assert_eq!(crate::self_id(), Err(Error::NotAnAgent));
        assert_eq!(crate::receive(None), Err(Error::NotAnAgent));
        assert_eq!(crate::receive_into(&mut [], None), Err(Error::NotAnAgent));
        assert_eq!(crate::discard(9), Err(Error::NotAnAgent));
        assert_eq!(crate::capabilities(), Err(Error::NotAnAgent));
        assert_eq!(crate::abi_version(), Err(Error::NotAnAgent));
        assert_eq!(read(&[0; 40]).reply(b""), Err(Error::NotAnAgent));
        assert_eq!(crate::sense(0, 0, None), Err(Error::NotAnAgent));
        assert_eq!(crate::actuate(0, 0), Err(Error::NotAnAgent));
        assert_eq!(crate::print(b""), Err(Error::NotAnAgent));
    }

    #[test]
    fn header_fields() {
        let mut header = [0; 40];
        header[..16].fill(7);
        header[16..24].copy_from_slice(&0x0102_0304_0506_0708u64.to_le_bytes());
        header[24..32].copy_from_slice(&9u64.to_le_bytes());
        header[36..40].copy_from_slice(&[2, 1, 0, 0]);
        let received = read(&header);
        assert_eq!(received.from().0, [7; 16]);
        assert_eq!(received.sequence(), 0x0102_0304_0506_0708);
        assert_eq!(received.kind(), Kind::Message);
        assert_eq!(received.payload_len(), 258);
        header[32] = 1;
        assert_eq!(read(&header).kind(), Kind::Reply { to: 9 });
    }

    #[test]
    fn no_timeout_is_taken_for_another() {
        assert_eq!(timeout_ns(None).cast_signed(), -1);
        assert_eq!(timeout_ns(Some(Duration::ZERO)), 0);
        assert_eq!(timeout_ns(Some(Duration::from_micros(5))), 5_000);
        let longest = timeout_ns(Some(Duration::MAX)).cast_signed();
        assert_eq!(longest, i64::MAX);
    }
}

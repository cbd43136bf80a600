//! What the first program says of the services that it looks after, and does with them, for whoever has its endpoint.
//!
//! A call has one of these labels, and the number of a service as its first word, from 0 on. Answers have the label 0, or 1 if there is no
//! such service.

use crate::boot::Buffer;
use crate::bytes::BYTES_MAX;
use crate::objects::{Endpoint, Message};
use crate::system_call::Received;
use crate::{Error, abi};

/// The answer has the name of the service in its bytes, and in its other words: whether it runs, and how often it was started again.
pub const DESCRIBE: u64 = 1;
/// Has the service's first thread fault, as if it had failed by itself.
pub const FAIL: u64 = 2;
/// Ends the machine; the first word is 0 if all went well. There is no answer.
pub const SHUT_DOWN: u64 = 3;

/// The first program, for a thread with this buffer.
#[derive(Clone, Copy, Debug)]
pub struct Services {
    /// Its endpoint.
    pub endpoint: Endpoint,
    /// The thread's buffer.
    pub buffer: Buffer,
}

/// A service.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    /// Its name.
    pub name: &'a str,
    /// It was not given up.
    pub runs: bool,
    /// How often it was started again.
    pub restarts: u64,
}

impl Services {
    fn ask(self, label: u64, number: u64) -> Result<Option<Received>, Error> {
        let received = self.endpoint.call(&Message::new(label, [number]))?;
        Ok((received.info.label() == 0).then_some(received))
    }

    /// The service with this number, if there is one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn describe(
        self,
        number: u64,
        name: &mut [u8; BYTES_MAX],
    ) -> Result<Option<Description<'_>>, Error> {
        let Some(received) = self.ask(DESCRIBE, number)? else {
            return Ok(None);
        };
        let name = core::str::from_utf8(self.buffer.bytes(&received, name));
        Ok(Some(Description {
            name: name.unwrap_or("?"),
            runs: received.words[1] != 0,
            restarts: received.words[2],
        }))
    }

    /// Has a service fail; whether there is one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn fail(self, number: u64) -> Result<bool, Error> {
        Ok(self.ask(FAIL, number)?.is_some())
    }

    /// Ends the machine.
    ///
    /// # Errors
    /// What the kernel says; it comes back only then.
    pub fn shut_down(self, success: bool) -> Result<(), Error> {
        self.ask(SHUT_DOWN, u64::from(!success)).map(|_| ())
    }
}

/// Whether a message says that a thread has faulted.
#[must_use]
pub fn is_fault(received: &Received) -> bool {
    received.info.label() == abi::FAULT_LABEL
}

//! Lines on the console, by way of the server that has it.
//!
//! A call to it has one of these labels. Its answers have the label 0, or 1 if it does not do that for this client.

use core::fmt::{self, Write};

use crate::Error;
use crate::boot::Buffer;
use crate::bytes::BYTES_MAX;
use crate::objects::{Cap, Endpoint, Message};
use crate::startup::slot;

/// Writes the bytes of the message.
pub const WRITE: u64 = 1;
/// Waits for a line that a person types. The answer has its bytes, without the end of the line.
pub const READ: u64 = 2;
/// The badge of whoever may read, and write.
pub const READER: u64 = 1;
/// The badge of those who may write only.
pub const WRITER: u64 = 2;

/// The console, for a thread with this buffer.
#[derive(Clone, Copy, Debug)]
pub struct Console {
    endpoint: Endpoint,
    buffer: Buffer,
}

impl Console {
    /// The console that a program was given, for the thread with this buffer.
    #[must_use]
    pub fn of(buffer: Buffer) -> Self {
        let endpoint = Endpoint(Cap(slot::CONSOLE));
        Self { endpoint, buffer }
    }

    /// Writes.
    ///
    /// # Errors
    /// What the kernel says: [`Error::Gone`] if the server has failed meanwhile.
    pub fn write(self, bytes: &[u8]) -> Result<(), Error> {
        for part in bytes.chunks(BYTES_MAX) {
            self.endpoint
                .call(&self.buffer.message(WRITE, [0; 3], part))?;
        }
        Ok(())
    }

    /// Waits for a line. What does not fit into a message is not in it.
    ///
    /// # Errors
    /// As for [`Console::write`]; [`Error::Denied`] if this program may not read.
    pub fn read(self, line: &mut [u8; BYTES_MAX]) -> Result<&[u8], Error> {
        let received = self.endpoint.call(&Message::new(READ, []))?;
        match received.info.label() {
            0 => Ok(self.buffer.bytes(&received, line)),
            _ => Err(Error::Denied),
        }
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        (*self).write(text.as_bytes()).map_err(|_| fmt::Error)
    }
}

/// A line that is put together before it is written, so that lines of several programs do not mix. What does not fit is cut off.
#[derive(Debug)]
pub struct Line {
    bytes: [u8; 256],
    len: usize,
}

impl Line {
    /// The text with an end.
    #[must_use]
    pub fn new(text: fmt::Arguments<'_>) -> Self {
        let mut line = Self {
            bytes: [0; 256],
            len: 0,
        };
        // It ends early if it does not fit.
        let _ = line.write_fmt(text);
        line.bytes[line.len] = b'\n';
        line.len += 1;
        line
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.len + 1 >= self.bytes.len() {
                return Err(fmt::Error);
            }
            self.bytes[self.len] = byte;
            self.len += 1;
        }
        Ok(())
    }
}

/// Writes a line on the console that the program was given. For its first thread, whose buffer it uses.
pub fn print(line: &Line) {
    // Without a console nobody could be told.
    if let Some(buffer) = crate::startup::first_buffer() {
        let _ = Console::of(buffer).write(line.bytes());
    }
}

/// Prints a line on the console: see [`line::print`](crate::line::print).
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => {
        $crate::line::print(&$crate::line::Line::new(format_args!($($argument)*)))
    };
}

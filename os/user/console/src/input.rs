//! What a person types, as lines.

use mielin_user::bytes::BYTES_MAX;

/// What is to be shown for a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The byte itself.
    Echo,
    /// That the last character is gone.
    Erase,
    /// The end of a line.
    End,
    /// Nothing.
    Nothing,
}

/// Lines that are whole, and one that is not yet.
pub(crate) struct Input {
    /// Whole lines, each with an end, and behind them the one that is being typed.
    bytes: [u8; 2 * BYTES_MAX],
    len: usize,
    /// Where the line begins that is being typed.
    begun: usize,
    /// The last byte was a carriage return: a line feed after it belongs to it.
    returned: bool,
}

const END: u8 = b'\n';

impl Input {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; 2 * BYTES_MAX],
            len: 0,
            begun: 0,
            returned: false,
        }
    }

    /// A byte was typed. What does not fit is not taken, and not shown.
    pub(crate) fn take(&mut self, byte: u8) -> Event {
        let returned = core::mem::replace(&mut self.returned, byte == b'\r');
        match byte {
            b'\n' if returned => Event::Nothing,
            b'\r' | b'\n' if self.len < self.bytes.len() => {
                self.bytes[self.len] = END;
                self.len += 1;
                self.begun = self.len;
                Event::End
            }
            // Backspace, and delete.
            0x08 | 0x7f if self.len > self.begun => {
                self.len -= 1;
                Event::Erase
            }
            0x20..0x7f if self.has_room() => {
                self.bytes[self.len] = byte;
                self.len += 1;
                Event::Echo
            }
            _ => Event::Nothing,
        }
    }

    fn has_room(&self) -> bool {
        self.len - self.begun < BYTES_MAX && self.len + 1 < self.bytes.len()
    }

    /// The first line that is whole.
    pub(crate) fn line(&self) -> Option<&[u8]> {
        let whole = &self.bytes[..self.begun];
        let end = whole.iter().position(|byte| *byte == END)?;
        Some(&whole[..end])
    }

    /// Takes the first line out.
    pub(crate) fn forget_line(&mut self) {
        let Some(line) = self.line() else { return };
        let taken = line.len() + 1;
        self.bytes.copy_within(taken..self.len, 0);
        self.len -= taken;
        self.begun -= taken;
    }
}

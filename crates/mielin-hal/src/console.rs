//! What a console is to a kernel: bytes out, and bytes in.

use core::fmt;

/// A place where a kernel can write before anything else works. Implementations never allocate and wait only for the
/// device itself.
pub trait Console {
    /// Writes a byte; waits until the device takes it.
    fn write_byte(&mut self, byte: u8);

    /// The next byte that has come in, if one has.
    fn read_byte(&mut self) -> Option<u8>;
}

/// A console as a writer of text: `\n` goes out as `\r\n`.
#[derive(Debug)]
pub struct Text<'a, C: Console + ?Sized>(pub &'a mut C);

impl<C: Console + ?Sized> fmt::Write for Text<'_, C> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.0.write_byte(b'\r');
            }
            self.0.write_byte(byte);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use core::fmt::Write;
    use std::vec::Vec;

    use super::*;

    struct Paper(Vec<u8>);

    impl Console for Paper {
        fn write_byte(&mut self, byte: u8) {
            self.0.push(byte);
        }

        fn read_byte(&mut self) -> Option<u8> {
            None
        }
    }

    #[test]
    fn lines_end_as_terminals_want_it() {
        let mut paper = Paper(Vec::new());
        write!(Text(&mut paper), "a{}\n\nä", 1).expect("paper takes everything");
        assert_eq!(paper.0, "a1\r\n\r\nä".as_bytes());
    }
}

//! A line of text, made without the library's formatting, which is several times as large as the rest.

const BYTES: usize = 128;
/// Digits of the longest number, and its sign.
const NUMBER_BYTES: usize = 20;

/// Text that is cut off where there is no more room.
pub(crate) struct Line {
    bytes: [u8; BYTES],
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            bytes: [0; BYTES],
            len: 0,
        }
    }
}

impl Line {
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.put(text.as_bytes());
        self
    }

    pub(crate) fn number(&mut self, number: i64) -> &mut Self {
        let mut digits = [0; NUMBER_BYTES];
        let mut left = number.unsigned_abs();
        let mut used = 0;
        for place in digits.iter_mut().rev() {
            *place = b'0' + (left % 10) as u8;
            left /= 10;
            used += 1;
            if left == 0 {
                break;
            }
        }
        if number < 0 {
            self.put(b"-");
        }
        self.put(digits.get(NUMBER_BYTES - used..).unwrap_or_default());
        self
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn put(&mut self, bytes: &[u8]) {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        for (place, byte) in room.iter_mut().zip(bytes) {
            *place = *byte;
            self.len += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BYTES, Line};

    #[test]
    fn numbers_are_written_as_the_library_writes_them() {
        for number in [0, 1, -1, 9, 10, -10, 1_234_567_890, i64::MAX, i64::MIN] {
            let mut line = Line::default();
            line.text("a ").number(number).text(" b");
            assert_eq!(line.bytes(), format!("a {number} b").as_bytes());
        }
    }

    #[test]
    fn what_is_too_long_is_cut_off() {
        let mut line = Line::default();
        for _ in 0..BYTES {
            line.number(-12);
        }
        assert_eq!(line.bytes().len(), BYTES);
        assert!(line.bytes().starts_with(b"-12-12"));
    }
}

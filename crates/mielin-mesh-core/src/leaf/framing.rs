//! Packets on a serial line: each is one COBS frame between zero bytes.
//!
//! Consistent overhead byte stuffing (Cheshire and Baker 1999, IEEE/ACM Transactions on Networking 7(2)) removes the
//! zeros from a packet, at the cost of one byte in 254, so that a zero on the line is always the end of a frame. A
//! receiver that has lost its place finds it again at the next one.

use super::PACKET_BYTES_MAX;

/// The most bytes of a run that follows one code.
const RUN_MAX: usize = 254;
/// The code of a run that no zero follows.
const CODE_FULL: u8 = 255;

/// The longest frame, with the zeros on both sides.
pub const FRAME_BYTES_MAX: usize = PACKET_BYTES_MAX + PACKET_BYTES_MAX.div_ceil(RUN_MAX) + 2;

/// The bytes for the line that carry `packet`, written to `line`.
///
/// The zero in front ends whatever noise the line had before.
///
/// # Panics
///
/// If the packet is empty or longer than [`PACKET_BYTES_MAX`].
pub fn frame<'l>(packet: &[u8], line: &'l mut [u8; FRAME_BYTES_MAX]) -> &'l [u8] {
    assert!((1..=PACKET_BYTES_MAX).contains(&packet.len()));
    line[0] = 0;
    // Where the code of the current run stands, and where the next byte goes.
    let (mut code_at, mut end) = (1, 2);
    for (index, &byte) in packet.iter().enumerate() {
        if byte != 0 {
            line[end] = byte;
            end += 1;
        }
        let run = end - code_at - 1;
        let full = run == RUN_MAX && index + 1 < packet.len();
        if byte == 0 || full {
            line[code_at] = code(run);
            code_at = end;
            end += 1;
        }
    }
    line[code_at] = code(end - code_at - 1);
    line[end] = 0;
    &line[..=end]
}

fn code(run: usize) -> u8 {
    u8::try_from(run + 1).expect("a run has at most 254 bytes")
}

/// Finds the packets among the bytes of a line.
///
/// Nothing makes it fail for good: what is no frame, and what is longer than a packet may be, is counted and skipped
/// up to the next zero.
#[derive(Clone, Debug)]
pub struct FrameDecoder {
    packet: [u8; PACKET_BYTES_MAX],
    len: usize,
    state: State,
    damaged: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Between two frames. The packet that was given out last is still there.
    Outside,
    /// `left` bytes follow of a run, after which stands a zero if the frame goes on and the run was not full.
    Inside { left: u8, zero: bool },
    /// In something that was found to be no frame.
    Skipping,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        FrameDecoder::new()
    }
}

impl FrameDecoder {
    /// A decoder at the beginning of a line.
    #[must_use]
    pub const fn new() -> FrameDecoder {
        FrameDecoder {
            packet: [0; PACKET_BYTES_MAX],
            len: 0,
            state: State::Outside,
            damaged: 0,
        }
    }

    /// Takes the next byte of the line; the packet, if this was the end of its frame.
    pub fn push(&mut self, byte: u8) -> Option<&[u8]> {
        match (self.state, byte) {
            (State::Outside | State::Skipping, 0) => self.state = State::Outside,
            (State::Skipping, _) => {}
            (State::Outside, code) => {
                self.len = 0;
                self.begin_run(code);
            }
            (State::Inside { left: 0, .. }, 0) => {
                self.state = State::Outside;
                return Some(&self.packet[..self.len]);
            }
            (State::Inside { .. }, 0) => {
                self.state = State::Outside;
                self.damaged = self.damaged.saturating_add(1);
            }
            (State::Inside { left: 0, zero }, code) => {
                self.begin_run(code);
                if zero {
                    self.append(0);
                }
            }
            (State::Inside { left, zero }, byte) => {
                let left = left - 1;
                self.state = State::Inside { left, zero };
                self.append(byte);
            }
        }
        None
    }

    /// Takes bytes of the line up to the end of the first frame, and leaves the others in `bytes`.
    ///
    /// Call it until it returns `None`: then all bytes are taken.
    pub fn next_packet(&mut self, bytes: &mut &[u8]) -> Option<&[u8]> {
        while let Some((&byte, rest)) = bytes.split_first() {
            *bytes = rest;
            if self.push(byte).is_some() {
                return Some(&self.packet[..self.len]);
            }
        }
        None
    }

    /// How many frames were cut short or too long.
    #[must_use]
    pub const fn damaged(&self) -> u32 {
        self.damaged
    }

    fn begin_run(&mut self, code: u8) {
        self.state = State::Inside {
            left: code - 1,
            zero: code != CODE_FULL,
        };
    }

    fn append(&mut self, byte: u8) {
        match self.packet.get_mut(self.len) {
            Some(place) => {
                *place = byte;
                self.len += 1;
            }
            None => {
                self.state = State::Skipping;
                self.damaged = self.damaged.saturating_add(1);
            }
        }
    }
}

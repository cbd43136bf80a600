//! Packets (RFC 1350, 5): what a datagram is, and how one is written.

use alloc::vec::Vec;

use crate::error::ErrorCode;
use crate::options::Options;

/// The longest request (RFC 2347).
pub(crate) const REQUEST_BYTES_MAX: usize = 512;
/// The longest message of an error that is written.
const MESSAGE_BYTES_MAX: usize = 400;
/// The operation and the number of a block.
pub(crate) const HEADER_BYTES: usize = 4;

const READ: u16 = 1;
const WRITE: u16 = 2;
const DATA: u16 = 3;
const ACKNOWLEDGEMENT: u16 = 4;
const ERROR: u16 = 5;
const OPTIONS: u16 = 6;

/// Which way a file goes, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// A datagram that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    Request {
        direction: Direction,
        name: &'a str,
        mode: &'a str,
        options: Options,
    },
    Data {
        block: u16,
        data: &'a [u8],
    },
    Acknowledgement {
        block: u16,
    },
    Error {
        code: ErrorCode,
        message: &'a [u8],
    },
    OptionAcknowledgement(Options),
}

/// Bytes that are no packet, and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// Nothing that anybody waits for an answer to.
    Noise,
    /// A request that its sender should hear about.
    Request,
}

impl<'a> Packet<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Packet<'a>, Malformed> {
        let (operation, rest) = number(bytes).ok_or(Malformed::Noise)?;
        match operation {
            READ => request(Direction::Read, bytes.len(), rest).ok_or(Malformed::Request),
            WRITE => request(Direction::Write, bytes.len(), rest).ok_or(Malformed::Request),
            OPTIONS => Options::parse(rest)
                .map(Packet::OptionAcknowledgement)
                .ok_or(Malformed::Noise),
            DATA | ACKNOWLEDGEMENT | ERROR => {
                let (second, rest) = number(rest).ok_or(Malformed::Noise)?;
                Ok(match operation {
                    DATA => Packet::Data {
                        block: second,
                        data: rest,
                    },
                    ACKNOWLEDGEMENT => Packet::Acknowledgement { block: second },
                    _ => Packet::Error {
                        code: ErrorCode(second),
                        // Without its end the message is what there is.
                        message: text(rest).map_or(rest, |(message, _)| message),
                    },
                })
            }
            _ => Err(Malformed::Noise),
        }
    }
}

fn request(direction: Direction, len: usize, rest: &[u8]) -> Option<Packet<'_>> {
    if len > REQUEST_BYTES_MAX {
        return None;
    }
    let (name, rest) = text(rest)?;
    let (mode, rest) = text(rest)?;
    Some(Packet::Request {
        direction,
        name: str::from_utf8(name).ok().filter(|name| !name.is_empty())?,
        mode: str::from_utf8(mode).ok()?,
        options: Options::parse(rest)?,
    })
}

/// A number, and what follows.
fn number(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*number), rest))
}

/// A text that ends with a zero, and what follows.
pub(crate) fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// Writes a request; its name is not empty and has no zero.
pub(crate) fn write_request(
    packet: &mut Vec<u8>,
    direction: Direction,
    name: &str,
    options: &Options,
) {
    begin(
        packet,
        match direction {
            Direction::Read => READ,
            Direction::Write => WRITE,
        },
    );
    for text in [name, "octet"] {
        packet.extend_from_slice(text.as_bytes());
        packet.push(0);
    }
    options.write(packet);
}

/// Writes a block of `len` bytes; gives the bytes, all zero, to be filled.
pub(crate) fn write_data(packet: &mut Vec<u8>, block: u16, len: usize) -> &mut [u8] {
    begin(packet, DATA);
    packet.extend_from_slice(&block.to_be_bytes());
    packet.resize(HEADER_BYTES + len, 0);
    &mut packet[HEADER_BYTES..]
}

pub(crate) fn write_acknowledgement(packet: &mut Vec<u8>, block: u16) {
    begin(packet, ACKNOWLEDGEMENT);
    packet.extend_from_slice(&block.to_be_bytes());
}

pub(crate) fn write_option_acknowledgement(packet: &mut Vec<u8>, options: &Options) {
    begin(packet, OPTIONS);
    options.write(packet);
}

/// Writes an error; a message that is too long is cut off, and one with a zero ends there.
pub(crate) fn write_error(packet: &mut Vec<u8>, code: ErrorCode, message: &str) {
    begin(packet, ERROR);
    packet.extend_from_slice(&code.0.to_be_bytes());
    let message = &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)];
    packet.extend(message.bytes().take_while(|byte| *byte != 0));
    packet.push(0);
}

fn begin(packet: &mut Vec<u8>, operation: u16) {
    packet.clear();
    packet.extend_from_slice(&operation.to_be_bytes());
}

//! Options of a transfer (RFC 2347): what is asked for, and what is agreed on.

use alloc::vec::Vec;

use crate::packet::text;

/// How long blocks are that nobody has spoken about (RFC 1350).
pub(crate) const BLOCK_BYTES_DEFAULT: u16 = 512;
/// The shortest and the longest block that can be asked for (RFC 2348).
const BLOCK_BYTES_LEAST: u64 = 8;
const BLOCK_BYTES_MOST: u64 = 65_464;

const BLOCK_BYTES: &str = "blksize";
const TIMEOUT: &str = "timeout";
const FILE_BYTES: &str = "tsize";

/// The options that this crate knows; `None` where one is not there, or its value is none.
///
/// Others are left out, as RFC 2347 asks. Where one comes twice, the first counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// RFC 2348: 8 to 65,464.
    pub(crate) block_bytes: Option<u16>,
    /// RFC 2349, in seconds: 1 to 255.
    pub(crate) timeout_s: Option<u8>,
    /// RFC 2349; who asks to read says 0.
    pub(crate) file_bytes: Option<u64>,
}

impl Options {
    /// Reads options to the end; `None` if a text has no end, or a name no value.
    pub(crate) fn parse(mut bytes: &[u8]) -> Option<Options> {
        let mut options = Options::default();
        while !bytes.is_empty() {
            let (name, rest) = text(bytes)?;
            let (value, rest) = text(rest)?;
            bytes = rest;
            let Some(value) = decimal(value) else {
                continue;
            };
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            if is(BLOCK_BYTES) && (BLOCK_BYTES_LEAST..=BLOCK_BYTES_MOST).contains(&value) {
                options.block_bytes = options.block_bytes.or(u16::try_from(value).ok());
            } else if is(TIMEOUT) && value > 0 {
                options.timeout_s = options.timeout_s.or(u8::try_from(value).ok());
            } else if is(FILE_BYTES) {
                options.file_bytes = options.file_bytes.or(Some(value));
            }
        }
        Some(options)
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Options::default()
    }

    pub(crate) fn write(&self, packet: &mut Vec<u8>) {
        let values = [
            (BLOCK_BYTES, self.block_bytes.map(u64::from)),
            (TIMEOUT, self.timeout_s.map(u64::from)),
            (FILE_BYTES, self.file_bytes),
        ];
        for (name, value) in values {
            let Some(value) = value else { continue };
            packet.extend_from_slice(name.as_bytes());
            packet.push(0);
            write_decimal(packet, value);
            packet.push(0);
        }
    }
}

/// A number in decimal digits, and nothing else: Rust's own reading would take a sign.
fn decimal(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    is_number.then(|| str::from_utf8(text).ok()?.parse().ok())?
}

fn write_decimal(packet: &mut Vec<u8>, mut value: u64) {
    let begin = packet.len();
    loop {
        packet.push(b'0' + (value % 10) as u8);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    packet[begin..].reverse();
}

//! What a leaf needs to join a mesh.
//!
//! As text an admission is one line: `mielinleaf1` followed by base64url (RFC 4648, section 5, unpadded) of
//!
//! ```text
//! number: u32 BE | mesh: 32 bytes | host's public key: 32 bytes | secret: 32 bytes | checksum: 4 bytes
//! ```
//!
//! The checksum (first bytes of BLAKE3 over the prefix and what precedes it) is there for people who copy half a line.

use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use thiserror::Error;
use zeroize::Zeroize;

use super::PublicKey;

/// What every version begins with.
const KIND: &str = "mielinleaf";
/// The version that is written here.
const VERSION: &str = "1";
const BYTES: usize = 4 + 3 * 32;
const CHECKSUM_BYTES: usize = 4;

/// Which of its admissions a host means. A leaf says it in its first packet, so it is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafNumber(pub u32);

impl fmt::Display for LeafNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Admits one leaf to a mesh, by one host. Whoever reads it can use it: `Display` shows all of it, `Debug` hides the
/// secret, which is wiped from memory when the admission is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Admission {
    /// By which number the host knows the leaf.
    pub number: LeafNumber,
    /// The id of the mesh.
    pub mesh: [u8; 32],
    /// The host's key.
    pub host: PublicKey,
    /// What only the host and this leaf know.
    pub secret: [u8; 32],
}

/// Text that is no admission. Whoever gave it is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AdmissionError {
    /// It is something else, such as a join token.
    #[error("this is no admission of a leaf, which begins with `{KIND}{VERSION}`")]
    OtherKind,
    /// It is an admission in a form that this version does not know.
    #[error("this admission is of another version; this program reads `{KIND}{VERSION}`")]
    OtherVersion,
    /// A part is missing or wrong.
    #[error("the admission is damaged; copy all of it, beginning with `{KIND}{VERSION}`")]
    Damaged,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl fmt::Display for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(BYTES + CHECKSUM_BYTES);
        bytes.extend_from_slice(&self.number.0.to_be_bytes());
        bytes.extend_from_slice(&self.mesh);
        bytes.extend_from_slice(&self.host.0);
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(&checksum(&bytes));
        let written = write!(f, "{KIND}{VERSION}{}", BASE64URL_NOPAD.encode(&bytes));
        bytes.zeroize();
        written
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("number", &self.number)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl FromStr for Admission {
    type Err = AdmissionError;

    fn from_str(text: &str) -> Result<Self, AdmissionError> {
        let versioned = text
            .trim()
            .strip_prefix(KIND)
            .ok_or(AdmissionError::OtherKind)?;
        let body = match versioned.strip_prefix(VERSION) {
            Some(body) => body,
            None if versioned.starts_with(|c: char| c.is_ascii_digit()) => {
                return Err(AdmissionError::OtherVersion);
            }
            None => return Err(AdmissionError::OtherKind),
        };
        if body.len() != BASE64URL_NOPAD.encode_len(BYTES + CHECKSUM_BYTES) {
            return Err(AdmissionError::Damaged);
        }
        let mut bytes = BASE64URL_NOPAD
            .decode(body.as_bytes())
            .map_err(|_| AdmissionError::Damaged)?;
        let admission = parse(&bytes).ok_or(AdmissionError::Damaged);
        bytes.zeroize();
        admission
    }
}

fn parse(bytes: &[u8]) -> Option<Admission> {
    let (bytes, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    if *sum != checksum(bytes) {
        return None;
    }
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    let (mesh, rest) = rest.split_first_chunk::<32>()?;
    let (host, rest) = rest.split_first_chunk::<32>()?;
    Some(Admission {
        number: LeafNumber(u32::from_be_bytes(*number)),
        mesh: *mesh,
        host: PublicKey(*host),
        secret: rest.try_into().ok()?,
    })
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(KIND.as_bytes());
    hasher.update(VERSION.as_bytes()).update(bytes);
    let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::{String, ToString};

    use super::*;

    #[test]
    fn text_round_trips_and_every_damaged_character_is_noticed() {
        let admission = Admission {
            number: LeafNumber(7),
            mesh: [1; 32],
            host: PublicKey([2; 32]),
            secret: [0xab; 32],
        };
        let text = admission.to_string();
        let again: Admission = format!(" {text}\n").parse().unwrap();
        assert!(again == admission);
        assert!(!format!("{admission:?}").contains("171"));
        let first = KIND.len() + VERSION.len();
        for index in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[index] = if damaged[index] == b'A' { b'B' } else { b'A' };
            let damaged = String::from_utf8(damaged).unwrap();
            let expected = if index < first {
                AdmissionError::OtherKind
            } else {
                AdmissionError::Damaged
            };
            assert_eq!(damaged.parse::<Admission>(), Err(expected), "{index}");
            assert!(text[..index].parse::<Admission>().is_err());
        }
        let check = |text: &str, expected| assert_eq!(text.parse::<Admission>(), Err(expected));
        check("", AdmissionError::OtherKind);
        check("mielin1AAAA", AdmissionError::OtherKind);
        check("mielinleaf2AAAA", AdmissionError::OtherVersion);
        check("mielinleaf1", AdmissionError::Damaged);
        check("mielinleaf1\u{fe0f}", AdmissionError::Damaged);
        check(&format!("{text}A"), AdmissionError::Damaged);
        check(&text.repeat(900), AdmissionError::Damaged);
    }
}

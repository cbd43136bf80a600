//! Packets by the byte, limits and refusals; transfers over bad networks are in `network`.
#![allow(clippy::unwrap_used)]

mod client;
mod network;
mod server;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::{Datagram, Ending, ErrorCode, Files, Refusal};

/// Files in memory, and what has happened to them.
#[derive(Default)]
pub(super) struct Shelf {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) endings: Vec<(String, Ending)>,
    pub(super) announced: Vec<Option<u64>>,
    pub(super) commits: Vec<String>,
}

impl Shelf {
    pub(super) fn with(name: &str, content: impl Into<Vec<u8>>) -> Shelf {
        let mut shelf = Shelf::default();
        shelf.files.insert(name.to_owned(), content.into());
        shelf
    }
}

/// Content that is refused when it is complete.
pub(super) const UNWANTED: &[u8] = b"unwanted";
/// A file whose end cannot be read: the bytes of this one and all after it.
pub(super) const TORN: (&str, u64) = ("torn", 700);

impl Files for Shelf {
    type Source = (String, u64);
    type Sink = (String, Vec<u8>);

    fn open(&mut self, name: &str) -> Result<(Self::Source, u64), Refusal> {
        let found = self.files.get(name);
        let content = found.ok_or(Refusal::new(ErrorCode::NOT_FOUND, "there is no such file"))?;
        Ok(((name.to_owned(), 0), content.len() as u64))
    }

    fn read(
        &mut self,
        (name, read): &mut Self::Source,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), Refusal> {
        assert_eq!(*read, offset, "offsets follow each other");
        *read += buffer.len() as u64;
        if name == TORN.0 && *read > TORN.1 {
            return Err(Refusal::new(ErrorCode::UNDEFINED, "it is torn"));
        }
        let offset = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.files[name.as_str()][offset..offset + buffer.len()]);
        Ok(())
    }

    fn close(&mut self, (name, _): Self::Source, ending: Ending) {
        self.endings.push((name, ending));
    }

    fn create(&mut self, name: &str, announced: Option<u64>) -> Result<Self::Sink, Refusal> {
        if self.files.contains_key(name) {
            return Err(Refusal::new(ErrorCode::EXISTS, "it is there"));
        }
        self.announced.push(announced);
        Ok((name.to_owned(), Vec::new()))
    }

    fn append(&mut self, (_, content): &mut Self::Sink, data: &[u8]) -> Result<(), Refusal> {
        content.extend_from_slice(data);
        Ok(())
    }

    fn commit(&mut self, (name, content): Self::Sink) -> Result<(), Refusal> {
        if content == UNWANTED {
            return Err(Refusal::new(ErrorCode::ACCESS, "nobody wants this"));
        }
        self.commits.push(name.clone());
        self.files.insert(name, content);
        Ok(())
    }
}

pub(super) fn server_address() -> SocketAddr {
    SocketAddr::from(([10, 0, 2, 15], 69))
}

pub(super) fn client_address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 2, 2], port))
}

/// The bytes of a datagram, if there is one.
pub(super) fn bytes(datagram: Option<Datagram<'_>>) -> Option<Vec<u8>> {
    datagram.map(|datagram| datagram.bytes.to_vec())
}

/// Bytes that differ from place to place.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    let pattern = (0..len as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8);
    pattern.collect()
}

/// A block, as RFC 1350 draws it.
pub(super) fn data(block: u16, content: &[u8]) -> Vec<u8> {
    [&[0, 3][..], &block.to_be_bytes(), content].concat()
}

/// An acknowledgement, as RFC 1350 draws it.
pub(super) fn ack(block: u16) -> Vec<u8> {
    [[0, 4], block.to_be_bytes()].concat()
}

/// An error, as RFC 1350 draws it.
pub(super) fn error(code: u16, message: &str) -> Vec<u8> {
    [&[0, 5][..], &code.to_be_bytes(), message.as_bytes(), &[0]].concat()
}

//! The side that asks.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use thiserror::Error;

use crate::error::ErrorCode;
use crate::options::{BLOCK_BYTES_DEFAULT, Options};
use crate::packet::{self, Direction, Packet, REQUEST_BYTES_MAX};
use crate::resend::{Datagram, Resend};

/// Why a file was not read or written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The name is empty, too long for a request, or has a zero in it. Nothing was asked.
    #[error("no file can have the name {0:?} here")]
    Name(String),
    /// The server does not do it, or stopped.
    #[error("the server says: {code}: {message:?}")]
    Refused {
        /// The kind of error.
        code: ErrorCode,
        /// What the server says about it.
        message: String,
    },
    /// There was no answer, however often it was asked. A file that was to be written may be there all the same.
    #[error("there is no answer")]
    Silence,
    /// The file has more bytes than the caller takes.
    #[error("the file is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The server does not keep to the protocol.
    #[error("the server does not keep to the protocol: {0}")]
    Protocol(&'static str),
}

/// What a client asks for beside the file, and how patient it is.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// How long blocks should be, from 8 to 65,464; else they have 512 bytes.
    pub block_bytes: Option<u16>,
    /// After how many seconds both sides should send again.
    pub timeout_s: Option<u8>,
    /// Whether the length of the file is told first.
    pub length: bool,
    /// When something is sent again, in milliseconds, unless the server has agreed on something else.
    pub timeout_ms: u64,
    /// How often it is sent, the first time included.
    pub tries: u8,
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted {
            block_bytes: Some(896),
            timeout_s: None,
            length: true,
            timeout_ms: 1_000,
            tries: 8,
        }
    }
}

/// Reads or writes one file.
///
/// A client may stop as soon as there is an [`outcome`](Client::outcome). It is more polite after reading to go on with
/// datagrams for a while: if the last acknowledgement was lost, the server asks for it until it gives up.
pub struct Client {
    server: SocketAddr,
    /// Where the server answers from, once it has.
    peer: Option<SocketAddr>,
    direction: Direction,
    asked: Options,
    content: Vec<u8>,
    limit: u64,
    announced: Option<u64>,
    block_bytes: u16,
    /// The last block that was sent or taken; `None` until the request is answered.
    block: Option<u16>,
    /// How much of the content was sent.
    sent: usize,
    is_last: bool,
    resend: Resend,
    outcome: Option<Result<(), ClientError>>,
    /// An error for who is not the server.
    stray: Vec<u8>,
}

impl Client {
    /// Will read a file of at most so many bytes.
    ///
    /// # Errors
    /// [`ClientError::Name`].
    pub fn get(
        server: SocketAddr,
        name: &str,
        wanted: Wanted,
        limit: u64,
    ) -> Result<Client, ClientError> {
        Client::new(server, Direction::Read, name, wanted, Vec::new(), limit)
    }

    /// Will write a file.
    ///
    /// # Errors
    /// [`ClientError::Name`].
    pub fn put(
        server: SocketAddr,
        name: &str,
        content: Vec<u8>,
        wanted: Wanted,
    ) -> Result<Client, ClientError> {
        let limit = content.len() as u64;
        Client::new(server, Direction::Write, name, wanted, content, limit)
    }

    fn new(
        server: SocketAddr,
        direction: Direction,
        name: &str,
        wanted: Wanted,
        content: Vec<u8>,
        limit: u64,
    ) -> Result<Client, ClientError> {
        let asked = Options {
            block_bytes: wanted.block_bytes.map(|bytes| bytes.clamp(8, 65_464)),
            timeout_s: wanted.timeout_s.map(|seconds| seconds.max(1)),
            file_bytes: wanted.length.then_some(content.len() as u64),
        };
        let mut resend = Resend::new(wanted.tries, wanted.timeout_ms);
        packet::write_request(&mut resend.packet, direction, name, &asked);
        if name.is_empty() || name.contains('\0') || resend.packet.len() > REQUEST_BYTES_MAX {
            return Err(ClientError::Name(name.into()));
        }
        Ok(Client {
            server,
            peer: None,
            direction,
            asked,
            content,
            limit,
            announced: None,
            block_bytes: BLOCK_BYTES_DEFAULT,
            block: None,
            sent: 0,
            is_last: false,
            resend,
            outcome: None,
            stray: Vec::new(),
        })
    }

    /// Gives the request, to be called first.
    pub fn start(&mut self, now_ms: u64) -> Datagram<'_> {
        self.resend.begin(now_ms);
        self.datagram()
    }

    /// Whether it has ended, and how.
    #[must_use]
    pub fn outcome(&self) -> Option<&Result<(), ClientError>> {
        self.outcome.as_ref()
    }

    /// What has been read up to here, or what is written.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// The same, as the caller's own.
    #[must_use]
    pub fn into_content(self) -> Vec<u8> {
        self.content
    }

    /// How long the server says that the file is.
    #[must_use]
    pub fn announced_bytes(&self) -> Option<u64> {
        self.announced
    }

    /// Takes a datagram, and gives what answers it.
    pub fn handle_datagram(
        &mut self,
        now_ms: u64,
        from: SocketAddr,
        bytes: &[u8],
    ) -> Option<Datagram<'_>> {
        let packet = Packet::parse(bytes).ok()?;
        match self.peer {
            None if from.ip() != self.server.ip() => return None,
            Some(peer) if peer != from => {
                let is_error = matches!(packet, Packet::Error { .. });
                return (!is_error).then(|| self.turn_away(from));
            }
            _ => {}
        }
        if self.outcome.is_some() {
            // The last acknowledgement was lost.
            let is_last = matches!(packet, Packet::Data { block, .. } if self.block == Some(block));
            let is_read = self.direction == Direction::Read && self.outcome == Some(Ok(()));
            return (is_last && is_read).then(|| self.datagram());
        }
        let sends = match packet {
            Packet::Data { block, data } => self.handle_data(block, data),
            Packet::Acknowledgement { block } => self.handle_acknowledgement(block),
            Packet::OptionAcknowledgement(options) => self.handle_options(&options),
            Packet::Error { code, message } => {
                self.outcome = Some(Err(ClientError::Refused {
                    code,
                    message: String::from_utf8_lossy(message).into_owned(),
                }));
                return None;
            }
            Packet::Request { .. } => Sends::Nothing,
        };
        if sends != Sends::Nothing {
            self.peer = Some(from);
        }
        match sends {
            Sends::Nothing => return None,
            Sends::New => self.resend.begin(now_ms),
            Sends::Again => {}
        }
        Some(self.datagram())
    }

    /// When [`handle_timeout`](Client::handle_timeout) has something to do; it changes with each call of the others.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        self.outcome.is_none().then(|| self.resend.due_ms())
    }

    /// Sends again what has had no answer, if it is time; ends after the last try.
    pub fn handle_timeout(&mut self, now_ms: u64) -> Option<Datagram<'_>> {
        if self.poll_timeout().is_none_or(|due_ms| due_ms > now_ms) {
            return None;
        }
        if self.resend.again(now_ms).is_err() {
            self.outcome = Some(Err(ClientError::Silence));
            return None;
        }
        Some(self.datagram())
    }

    fn handle_data(&mut self, block: u16, data: &[u8]) -> Sends {
        if self.direction == Direction::Write {
            return Sends::Nothing;
        }
        let taken = self.block.unwrap_or(0);
        if block != taken.wrapping_add(1) {
            // One that has come twice is acknowledged twice, as the first acknowledgement may be lost.
            let is_known = self.block == Some(block) && !self.content.is_empty();
            return if is_known {
                Sends::Again
            } else {
                Sends::Nothing
            };
        }
        if data.len() > usize::from(self.block_bytes) {
            return self.fail(
                ErrorCode::ILLEGAL,
                ClientError::Protocol("a block is longer than was agreed on"),
            );
        }
        if (self.content.len() + data.len()) as u64 > self.limit {
            return self.fail_too_large();
        }
        self.content.extend_from_slice(data);
        self.block = Some(block);
        if data.len() < usize::from(self.block_bytes) {
            self.outcome = Some(Ok(()));
        }
        packet::write_acknowledgement(&mut self.resend.packet, block);
        Sends::New
    }

    fn handle_acknowledgement(&mut self, block: u16) -> Sends {
        // One that comes twice sends nothing twice (RFC 1123, 4.2.3.1).
        if self.direction == Direction::Read || block != self.block.unwrap_or(0) {
            return Sends::Nothing;
        }
        self.send_next(block)
    }

    fn handle_options(&mut self, agreed: &Options) -> Sends {
        if self.block.is_some() {
            let is_first = self.block == Some(0) && self.content.is_empty();
            // Its acknowledgement was lost.
            let is_again = self.direction == Direction::Read && is_first;
            return if is_again {
                Sends::Again
            } else {
                Sends::Nothing
            };
        }
        let (asked, is_read) = (&self.asked, self.direction == Direction::Read);
        let is_agreed = agreed
            .block_bytes
            .is_none_or(|_| agreed.block_bytes <= asked.block_bytes)
            && (agreed.timeout_s.is_none() || agreed.timeout_s == asked.timeout_s)
            && match (agreed.file_bytes, asked.file_bytes) {
                (None, _) => true,
                (Some(_), None) => false,
                (told, Some(_)) => is_read || told == asked.file_bytes,
            };
        if !is_agreed {
            return self.fail(
                ErrorCode::OPTIONS,
                ClientError::Protocol("it agrees to options that it was not asked for"),
            );
        }
        self.announced = agreed.file_bytes;
        if is_read && agreed.file_bytes > Some(self.limit) {
            return self.fail_too_large();
        }
        self.block_bytes = agreed.block_bytes.unwrap_or(BLOCK_BYTES_DEFAULT);
        if let Some(seconds) = agreed.timeout_s {
            self.resend.timeout_ms = u64::from(seconds) * 1_000;
        }
        if !is_read {
            return self.send_next(0);
        }
        self.block = Some(0);
        packet::write_acknowledgement(&mut self.resend.packet, 0);
        Sends::New
    }

    /// A block was acknowledged: the next one is the packet, or it was the last.
    fn send_next(&mut self, acknowledged: u16) -> Sends {
        if self.is_last {
            self.outcome = Some(Ok(()));
            return Sends::Nothing;
        }
        let rest = &self.content[self.sent..];
        let data = &rest[..rest.len().min(usize::from(self.block_bytes))];
        let block = acknowledged.wrapping_add(1);
        packet::write_data(&mut self.resend.packet, block, data.len()).copy_from_slice(data);
        self.sent += data.len();
        self.is_last = data.len() < usize::from(self.block_bytes);
        self.block = Some(block);
        Sends::New
    }

    fn fail_too_large(&mut self) -> Sends {
        let limit = self.limit;
        self.fail(ErrorCode::FULL, ClientError::TooLarge { limit })
    }

    /// Ends, and tells the server so.
    fn fail(&mut self, code: ErrorCode, error: ClientError) -> Sends {
        packet::write_error(&mut self.resend.packet, code, "");
        self.outcome = Some(Err(error));
        Sends::New
    }

    fn turn_away(&mut self, to: SocketAddr) -> Datagram<'_> {
        packet::write_error(&mut self.stray, ErrorCode::UNKNOWN_TRANSFER, "");
        Datagram {
            to,
            bytes: &self.stray,
        }
    }

    fn datagram(&self) -> Datagram<'_> {
        Datagram {
            to: self.peer.unwrap_or(self.server),
            bytes: &self.resend.packet,
        }
    }
}

/// What a packet leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sends {
    Nothing,
    /// A packet that is there for the first time.
    New,
    /// The last one once more, without any effect on when it is sent by itself.
    Again,
}

//! The side that has the files.

use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::error::ErrorCode;
use crate::files::{Ending, Files, Refusal};
use crate::options::{BLOCK_BYTES_DEFAULT, Options};
use crate::packet::{self, Direction, Malformed, Packet};
use crate::resend::{Datagram, Resend};

/// No block may be longer, whatever the limits say.
const BLOCK_BYTES_MAX: u16 = 1024;
/// A client that asks for longer timeouts gets the server's own: it would keep a transfer for too long.
const TIMEOUT_S_MAX: u8 = 8;
/// How many timeouts the last answer is kept for, in case that it was lost.
const REST_TIMEOUTS: u64 = 3;

/// How much a server does for clients.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// How many transfers there are at once. Those that have ended and are kept for an answer that was lost count,
    /// but make way.
    pub transfers: usize,
    /// The most bytes that are written to a file.
    pub file_bytes: u64,
    /// The longest blocks that are agreed on, from 8 to 1,024; 512 where the client does not ask.
    pub block_bytes: u16,
    /// When something is sent again, in milliseconds, unless the client asks for another time.
    pub timeout_ms: u64,
    /// How often it is sent, the first time included, until the client counts as gone.
    pub tries: u8,
}

impl Default for ServerLimits {
    /// Four transfers at once, files of up to 64 MiB, five tries a second apart, and packets of up to 900 bytes.
    fn default() -> ServerLimits {
        ServerLimits {
            transfers: 4,
            file_bytes: 64 << 20,
            block_bytes: 896,
            timeout_ms: 1_000,
            tries: 5,
        }
    }
}

/// Answers clients at one address, its well-known port.
///
/// Each datagram has at most one answer. It is borrowed until the next call: send it first.
pub struct Server<F: Files> {
    limits: ServerLimits,
    transfers: Vec<Transfer<F>>,
    /// An error for who has no transfer.
    error: Vec<u8>,
}

impl<F: Files> Server<F> {
    /// A server without transfers. A length of blocks that is out of range is the nearest that is not.
    #[must_use]
    pub fn new(limits: ServerLimits) -> Server<F> {
        Server {
            limits: ServerLimits {
                block_bytes: limits.block_bytes.clamp(8, BLOCK_BYTES_MAX),
                ..limits
            },
            transfers: Vec::new(),
            error: Vec::new(),
        }
    }

    /// How many transfers have not ended.
    #[must_use]
    pub fn active(&self) -> usize {
        let transfers = self.transfers.iter();
        transfers.filter(|transfer| !transfer.is_over()).count()
    }

    /// Takes a datagram, and gives what answers it.
    pub fn handle_datagram(
        &mut self,
        now_ms: u64,
        from: SocketAddr,
        bytes: &[u8],
        files: &mut F,
    ) -> Option<Datagram<'_>> {
        let known = self.transfers.iter().position(|known| known.peer == from);
        let packet = match Packet::parse(bytes) {
            Ok(packet) => packet,
            Err(Malformed::Noise) => return None,
            Err(Malformed::Request) => {
                let refusal = Refusal::new(ErrorCode::ILLEGAL, "this request is malformed");
                return Some(self.refuse(from, &refusal));
            }
        };
        let step = match (packet, known) {
            (Packet::Request { .. }, Some(index)) if self.transfers[index].request == bytes => {
                // The answer was lost, or this comes late.
                return self.transfers[index].is_fresh.then(|| self.datagram(index));
            }
            (Packet::Request { .. }, _) => {
                if let Some(index) = known {
                    self.end(index, Ending::Broken, files);
                }
                return Some(self.begin(now_ms, from, bytes, files));
            }
            (Packet::Data { .. } | Packet::Acknowledgement { .. }, None) => {
                let refusal = Refusal::new(ErrorCode::UNKNOWN_TRANSFER, "there is no transfer");
                return Some(self.refuse(from, &refusal));
            }
            (Packet::Data { block, data }, Some(index)) => {
                self.transfers[index].handle_data(now_ms, block, data, &self.limits, files)
            }
            (Packet::Acknowledgement { block }, Some(index)) => {
                self.transfers[index].handle_acknowledgement(now_ms, block, files)
            }
            (Packet::Error { .. }, Some(_)) => Step::Over(Ending::Broken),
            (Packet::Error { .. }, None) | (Packet::OptionAcknowledgement(_), _) => return None,
        };
        let index = known?;
        match step {
            Step::Send => Some(self.datagram(index)),
            Step::Quiet => None,
            Step::Over(ending) => {
                self.end(index, ending, files);
                None
            }
        }
    }

    /// When [`handle_timeout`](Server::handle_timeout) has something to do; it changes with each call of the others.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let transfers = self.transfers.iter();
        transfers.map(|transfer| transfer.resend.due_ms()).min()
    }

    /// Sends again what is due and ends what has had no answer; to be repeated until it gives nothing.
    pub fn handle_timeout(&mut self, now_ms: u64, files: &mut F) -> Option<Datagram<'_>> {
        let is_due = |transfer: &Transfer<F>| transfer.resend.due_ms() <= now_ms;
        while let Some(index) = self.transfers.iter().position(is_due) {
            if self.transfers[index].resend.again(now_ms).is_ok() {
                return Some(self.datagram(index));
            }
            self.end(index, Ending::Broken, files);
        }
        None
    }

    /// Begins what somebody without a transfer asks for.
    fn begin(
        &mut self,
        now_ms: u64,
        from: SocketAddr,
        request: &[u8],
        files: &mut F,
    ) -> Datagram<'_> {
        match self.try_begin(now_ms, from, request, files) {
            Ok(index) => self.datagram(index),
            Err(refusal) => self.refuse(from, &refusal),
        }
    }

    fn try_begin(
        &mut self,
        now_ms: u64,
        from: SocketAddr,
        request: &[u8],
        files: &mut F,
    ) -> Result<usize, Refusal> {
        let Ok(Packet::Request {
            direction,
            name,
            mode,
            options,
        }) = Packet::parse(request)
        else {
            return Err(Refusal::new(ErrorCode::ILLEGAL, "this is no request"));
        };
        if !mode.eq_ignore_ascii_case("octet") {
            let message = "files go in mode octet alone";
            return Err(Refusal::new(ErrorCode::ILLEGAL, message));
        }
        self.make_room()?;
        let transfer = Transfer::begin(
            now_ms,
            (from, request),
            (direction, name),
            &options,
            &self.limits,
            files,
        )?;
        self.transfers.push(transfer);
        Ok(self.transfers.len() - 1)
    }

    /// Lets a transfer that has ended make way, if there has to be one.
    fn make_room(&mut self) -> Result<(), Refusal> {
        if self.transfers.len() < self.limits.transfers {
            return Ok(());
        }
        let ended = self.transfers.iter().enumerate();
        let oldest = ended
            .filter(|(_, transfer)| transfer.is_over())
            .min_by_key(|(_, transfer)| transfer.resend.due_ms());
        let Some((index, _)) = oldest else {
            let message = "there are as many transfers as there can be at once";
            return Err(Refusal::new(ErrorCode::UNDEFINED, message));
        };
        self.transfers.swap_remove(index);
        Ok(())
    }

    fn end(&mut self, index: usize, ending: Ending, files: &mut F) {
        if let Stage::Reading(reading) = self.transfers.swap_remove(index).stage {
            files.close(reading.source, ending);
        }
    }

    fn datagram(&self, index: usize) -> Datagram<'_> {
        let transfer = &self.transfers[index];
        Datagram {
            to: transfer.peer,
            bytes: &transfer.resend.packet,
        }
    }

    fn refuse(&mut self, to: SocketAddr, refusal: &Refusal) -> Datagram<'_> {
        packet::write_error(&mut self.error, refusal.code, &refusal.message);
        Datagram {
            to,
            bytes: &self.error,
        }
    }
}

/// What a packet of a transfer leads to.
enum Step {
    /// The transfer's packet is sent.
    Send,
    Quiet,
    Over(Ending),
}

struct Transfer<F: Files> {
    peer: SocketAddr,
    /// What began it, to know it again.
    request: Vec<u8>,
    /// Nothing has come since.
    is_fresh: bool,
    block_bytes: u16,
    resend: Resend,
    stage: Stage<F>,
}

enum Stage<F: Files> {
    Reading(Reading<F::Source>),
    Writing(Writing<F::Sink>),
    /// It has ended with an answer to this block, or to its acknowledgement, which comes again if the answer was lost.
    Over(Direction, u16),
}

struct Reading<S> {
    source: S,
    len: u64,
    /// How much of it was sent.
    sent: u64,
    /// The number of the last block that was sent, or 0 with the options.
    block: u16,
    is_last: bool,
}

struct Writing<S> {
    sink: S,
    received: u64,
    /// The number of the last block that was taken.
    block: u16,
}

impl<F: Files> Transfer<F> {
    fn begin(
        now_ms: u64,
        (peer, request): (SocketAddr, &[u8]),
        (direction, name): (Direction, &str),
        asked: &Options,
        limits: &ServerLimits,
        files: &mut F,
    ) -> Result<Transfer<F>, Refusal> {
        let mut agreed = Options {
            block_bytes: asked.block_bytes.map(|asked| asked.min(limits.block_bytes)),
            timeout_s: asked.timeout_s.filter(|asked| *asked <= TIMEOUT_S_MAX),
            file_bytes: asked.file_bytes,
        };
        let stage = match direction {
            Direction::Read => {
                let (source, len) = files.open(name)?;
                // curl takes a length of zero for an error, so an empty file has none.
                agreed.file_bytes = asked.file_bytes.and((len > 0).then_some(len));
                Stage::Reading(Reading {
                    source,
                    len,
                    sent: 0,
                    block: 0,
                    is_last: false,
                })
            }
            Direction::Write => {
                if asked.file_bytes > Some(limits.file_bytes) {
                    return Err(too_large());
                }
                Stage::Writing(Writing {
                    sink: files.create(name, asked.file_bytes)?,
                    received: 0,
                    block: 0,
                })
            }
        };
        let timeout_ms = agreed.timeout_s.map(|seconds| u64::from(seconds) * 1_000);
        let mut transfer = Transfer {
            peer,
            request: request.to_vec(),
            is_fresh: true,
            block_bytes: agreed.block_bytes.unwrap_or(BLOCK_BYTES_DEFAULT),
            resend: Resend::new(limits.tries, timeout_ms.unwrap_or(limits.timeout_ms)),
            stage,
        };
        let packet = &mut transfer.resend.packet;
        if !agreed.is_empty() {
            packet::write_option_acknowledgement(packet, &agreed);
        } else if direction == Direction::Write {
            packet::write_acknowledgement(packet, 0);
        } else {
            transfer.send_next(files);
        }
        transfer.begin_wait(now_ms);
        Ok(transfer)
    }

    fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over(..))
    }

    fn handle_data(
        &mut self,
        now_ms: u64,
        block: u16,
        data: &[u8],
        limits: &ServerLimits,
        files: &mut F,
    ) -> Step {
        let writing = match &mut self.stage {
            Stage::Writing(writing) => writing,
            Stage::Over(Direction::Write, last) if *last == block => return Step::Send,
            Stage::Over(..) | Stage::Reading(_) => return Step::Quiet,
        };
        if block == writing.block && !self.is_fresh {
            // The acknowledgement was lost, or this has come twice.
            return Step::Send;
        }
        if block != writing.block.wrapping_add(1) {
            return Step::Quiet;
        }
        self.is_fresh = false;
        let taken = writing.take(data, self.block_bytes, limits, files);
        let is_last = data.len() < usize::from(self.block_bytes);
        let result = match taken {
            Ok(()) if is_last => match self.stop(Direction::Write, block) {
                Stage::Writing(writing) => files.commit(writing.sink),
                _ => Ok(()),
            },
            taken => taken,
        };
        match result {
            Ok(()) => packet::write_acknowledgement(&mut self.resend.packet, block),
            Err(refusal) => self.refuse(Direction::Write, block, &refusal),
        }
        self.begin_wait(now_ms);
        Step::Send
    }

    fn handle_acknowledgement(&mut self, now_ms: u64, block: u16, files: &mut F) -> Step {
        match &self.stage {
            Stage::Reading(reading) if reading.block == block => {
                if reading.is_last {
                    return Step::Over(Ending::Whole);
                }
            }
            Stage::Over(Direction::Read, last) if *last == block => return Step::Send,
            // One that comes twice sends nothing twice (RFC 1123, 4.2.3.1).
            _ => return Step::Quiet,
        }
        self.is_fresh = false;
        self.send_next(files);
        self.begin_wait(now_ms);
        Step::Send
    }

    /// Makes the next block of a file that is read the packet.
    fn send_next(&mut self, files: &mut F) {
        let Stage::Reading(reading) = &mut self.stage else {
            return;
        };
        let answered = reading.block;
        let rest = reading.len - reading.sent;
        let len = rest.min(u64::from(self.block_bytes));
        reading.block = answered.wrapping_add(1);
        reading.is_last = len < u64::from(self.block_bytes);
        // At most the length of a block.
        let buffer = packet::write_data(&mut self.resend.packet, reading.block, len as usize);
        let read = files.read(&mut reading.source, reading.sent, buffer);
        reading.sent += len;
        if let Err(refusal) = read {
            if let Stage::Reading(reading) = self.stop(Direction::Read, answered) {
                files.close(reading.source, Ending::Broken);
            }
            self.refuse(Direction::Read, answered, &refusal);
        }
    }

    /// Ends it with an answer to this block; gives what it was.
    fn stop(&mut self, direction: Direction, block: u16) -> Stage<F> {
        core::mem::replace(&mut self.stage, Stage::Over(direction, block))
    }

    fn refuse(&mut self, direction: Direction, block: u16, refusal: &Refusal) {
        self.stop(direction, block);
        packet::write_error(&mut self.resend.packet, refusal.code, &refusal.message);
    }

    /// A new packet is there and goes out now.
    fn begin_wait(&mut self, now_ms: u64) {
        if self.is_over() {
            self.resend.rest(now_ms, REST_TIMEOUTS);
        } else {
            self.resend.begin(now_ms);
        }
    }
}

impl<S> Writing<S> {
    /// Takes the next block, if it may be as long.
    fn take<F: Files<Sink = S>>(
        &mut self,
        data: &[u8],
        block_bytes: u16,
        limits: &ServerLimits,
        files: &mut F,
    ) -> Result<(), Refusal> {
        if data.len() > usize::from(block_bytes) {
            let message = "this block is longer than was agreed on";
            return Err(Refusal::new(ErrorCode::ILLEGAL, message));
        }
        let received = self.received + data.len() as u64;
        if received > limits.file_bytes {
            return Err(too_large());
        }
        files.append(&mut self.sink, data)?;
        self.received = received;
        self.block = self.block.wrapping_add(1);
        Ok(())
    }
}

fn too_large() -> Refusal {
    Refusal::new(ErrorCode::FULL, "the file is larger than files may be here")
}

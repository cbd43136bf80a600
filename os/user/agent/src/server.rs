//! What the agent server is asked, by the first thread.

use alloc::vec::Vec;

use mielin_user::agents::{Agents, Ending, Part, host, slot};
use mielin_user::bytes::BYTES_MAX;
use mielin_user::objects::Endpoint;
use mielin_user::system_call::Received as Answer;
use mielin_user::{Cap, Error, startup};
use mielin_wasm::{
    Address, Capability, Discarded, Level, LogError, LogStream, MessageKind, Receive, Received,
    SendError, Services,
};

/// The agent server, for the first thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server;

/// Bytes of a message: an address goes with it.
pub(crate) const PAYLOAD_BYTES_MAX: usize = BYTES_MAX - 16;

impl Server {
    /// The server by the capability in a slot.
    fn at(self, slot: u64) -> Result<Agents, Error> {
        let buffer = startup::first_buffer().ok_or(Error::NotBound)?;
        let endpoint = Endpoint(Cap(slot));
        Ok(Agents { endpoint, buffer })
    }

    fn call(self, label: u64, words: [u64; 3], bytes: &[u8]) -> Result<Answer, Error> {
        self.at(slot::CALLS)?.call(label, words, bytes)
    }

    /// All of a part of what the program is told.
    pub(crate) fn fetch(&self, part: Part) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        let mut bytes = [0; BYTES_MAX];
        loop {
            let words = [part as u64, all.len() as u64, 0];
            let received = self.call(host::FETCH, words, &[])?;
            let piece = bytes_of(&received, &mut bytes);
            all.extend_from_slice(piece);
            if piece.is_empty() || all.len() as u64 >= received.words[1] {
                return Ok(all);
            }
        }
    }

    /// Hands over what the agent is. False if the server does not take it.
    pub(crate) fn store(&self, bytes: &[u8]) -> Result<bool, Error> {
        let mut offset = 0;
        for piece in bytes.chunks(BYTES_MAX) {
            let words = [offset, bytes.len() as u64, 0];
            let received = self.call(host::STORE, words, piece)?;
            if received.info.label() != 0 {
                return Ok(false);
            }
            offset += piece.len() as u64;
        }
        Ok(true)
    }

    /// Says how it has ended. The server takes the program apart then.
    pub(crate) fn end(&self, ending: Ending, code: i32, why: &[u8]) {
        let words = [ending as u64, i64::from(code) as u64, 0];
        // There is nobody else to say it to.
        let _ = self.call(host::END, words, why);
    }
}

/// The bytes of an answer, for the first thread.
fn bytes_of<'a>(received: &Answer, into: &'a mut [u8; BYTES_MAX]) -> &'a [u8] {
    match startup::first_buffer() {
        Some(buffer) => buffer.bytes(received, into),
        None => &[],
    }
}

/// A message that the server has given, and what is made of the bytes in the place of its payload.
fn taken<T>(received: &Answer, payload: impl FnOnce(&[u8]) -> T) -> Option<(Discarded, T)> {
    let [_, is_answer, answers, sequence] = received.words;
    let mut bytes = [0; BYTES_MAX];
    let (from, behind) = bytes_of(received, &mut bytes).split_first_chunk::<16>()?;
    let mail = Discarded {
        from: Address(*from),
        sequence,
        kind: match is_answer {
            0 => MessageKind::Message,
            _ => MessageKind::Reply { to: answers },
        },
        len: behind.len(),
    };
    Some((mail, payload(behind)))
}

impl Services for Server {
    fn write_log(&self, stream: LogStream, bytes: &[u8]) -> Result<usize, LogError> {
        let bytes = &bytes[..bytes.len().min(BYTES_MAX)];
        let number = match stream {
            LogStream::Stdout => 1,
            LogStream::Stderr => 2,
        };
        let written = self.call(host::WRITE, [number, 0, 0], bytes);
        written.map(|_| bytes.len()).map_err(|_| LogError::Full)
    }

    fn log(&self, level: Level, message: &str) {
        // Without a server there is no log.
        let _ = self.call(host::LOG, [level as u64, 0, 0], message.as_bytes());
    }

    fn send(&self, to: Address, kind: MessageKind, payload: &[u8]) -> Result<u64, SendError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            let limit = PAYLOAD_BYTES_MAX;
            return Err(SendError::TooLarge { limit });
        }
        let mut bytes = Vec::from(to.0);
        bytes.extend_from_slice(payload);
        let (slot, words) = match kind {
            MessageKind::Message => (slot::SENDS, [0; 3]),
            MessageKind::Reply { to } => (slot::CALLS, [1, to, 0]),
        };
        // Without the right there is no capability, so that the kernel refuses.
        let server = self.at(slot).map_err(|_| SendError::Closed)?;
        let answer = server.call(host::SEND, words, &bytes);
        match answer.map(|answer| (answer.info.label(), answer.words[1])) {
            Ok((0, number)) => Ok(number),
            Ok((host::FULL, _)) => Err(SendError::Full),
            Ok(_) | Err(_) => Err(SendError::Unknown),
        }
    }

    fn receive(&self, max_len: usize) -> Receive {
        let Ok(received) = self.call(host::TAKE, [max_len as u64, 0, 0], &[]) else {
            return Receive::Empty;
        };
        match received.info.label() {
            host::LONG => Receive::TooLarge {
                len: received.words[1] as usize,
            },
            0 => taken(&received, <[u8]>::to_vec).map_or(Receive::Empty, |(mail, payload)| {
                Receive::Message(Received {
                    from: mail.from,
                    sequence: mail.sequence,
                    kind: mail.kind,
                    payload,
                })
            }),
            _ => Receive::Empty,
        }
    }

    fn discard(&self, longer_than: usize) -> Option<Discarded> {
        let asked = self.call(host::DISCARD, [longer_than as u64, 0, 0], &[]);
        let received = asked.ok().filter(|received| received.info.label() == 0)?;
        let (mail, len) = taken(&received, |bytes| bytes.first_chunk().copied())?;
        Some(Discarded {
            len: u64::from_le_bytes(len?) as usize,
            ..mail
        })
    }

    fn denied(&self, capability: &Capability, call: &'static str) {
        let line = alloc::format!("denied: {call} needs the capability {capability}");
        self.log(Level::Warn, &line);
    }
}

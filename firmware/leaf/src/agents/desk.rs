//! What an agent has of the node while it is here: its mail, its posts, what it writes, and the devices.

use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use mielin_mesh_core::AgentId;
use mielin_mesh_core::delivery::MessageKind as Kind;
use mielin_mesh_core::handover::{LOG_BYTES_MAX, Letter, POST_PAYLOAD_BYTES_MAX, PostResult};
use mielin_wasm::{
    Actuated, Address, Capability, Discarded, Level, LogError, LogStream, MessageKind, Receive,
    Received, SendError, Sensed, Services,
};
use spin::Mutex;

use crate::{Devices, Set};

/// What an agent may have written that has not gone out. Beyond that the oldest is forgotten, and how much that was is said.
const LINES_BYTES_MAX: usize = 2048;

/// On which stream something was written: the ABI's standard output and error, and after these its levels.
const STDOUT: u8 = 0;
const STDERR: u8 = 1;
const FIRST_LEVEL: u8 = 2;

/// The node's services for one agent. The agent and the node have it in turns, never at the same time.
#[derive(Debug)]
pub(crate) struct Desk {
    devices: Arc<Mutex<Devices>>,
    papers: Mutex<Papers>,
}

#[derive(Debug, Default)]
struct Papers {
    /// The mail that has come and is not taken.
    mail: Option<Mail>,
    /// Mail below this number is taken.
    taken: u64,
    /// The next mail is to be asked for.
    wants: bool,
    post: Post,
    lines: VecDeque<Line>,
    lines_bytes: usize,
    forgotten_bytes: usize,
}

#[derive(Debug)]
struct Mail {
    received: Received,
    /// The length of the payload, which is not here if it is too long for the link.
    len: usize,
}

/// What an agent sends: one message at a time.
#[derive(Debug, Default)]
enum Post {
    #[default]
    None,
    /// It is to go out.
    Written {
        to: Address,
        kind: MessageKind,
        payload: Vec<u8>,
    },
    /// It has gone out, and the answer is awaited.
    Sent,
    /// The answer is there for the agent, which issues the call again.
    Answered(PostResult),
}

/// Something that an agent has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) stream: u8,
    pub(crate) bytes: Vec<u8>,
}

/// A message that is to be posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) to: AgentId,
    pub(crate) kind: Kind,
    pub(crate) payload: Vec<u8>,
}

impl Desk {
    pub(crate) fn new(devices: Arc<Mutex<Devices>>) -> Self {
        let papers = Papers {
            wants: true,
            ..Papers::default()
        };
        Self {
            devices,
            papers: Mutex::new(papers),
        }
    }

    /// Mail below this number is taken.
    pub(crate) fn taken(&self) -> u64 {
        self.papers.lock().taken
    }

    /// The number of the mail that is to be asked for, once.
    pub(crate) fn take_want(&self) -> Option<u64> {
        let mut papers = self.papers.lock();
        core::mem::take(&mut papers.wants).then_some(papers.taken)
    }

    /// Mail has come.
    pub(crate) fn deliver(&self, letter: Letter, len: usize, payload: Vec<u8>) {
        let received = Received {
            from: Address(letter.from.0),
            sequence: letter.sequence,
            kind: match letter.kind {
                Kind::Send | Kind::Request => MessageKind::Message,
                Kind::Reply { to_sequence } => MessageKind::Reply { to: to_sequence },
            },
            payload,
        };
        self.papers.lock().mail = Some(Mail { received, len });
    }

    /// The message that is to be posted.
    pub(crate) fn take_post(&self) -> Option<Written> {
        let mut papers = self.papers.lock();
        match core::mem::replace(&mut papers.post, Post::Sent) {
            Post::Written { to, kind, payload } => Some(Written {
                to: AgentId(to.0),
                kind: match kind {
                    MessageKind::Message => Kind::Send,
                    MessageKind::Reply { to } => Kind::Reply { to_sequence: to },
                },
                payload,
            }),
            other => {
                papers.post = other;
                None
            }
        }
    }

    /// The post is answered.
    pub(crate) fn answer(&self, result: PostResult) {
        let mut papers = self.papers.lock();
        if matches!(papers.post, Post::Sent) {
            papers.post = Post::Answered(result);
        }
    }

    /// Whether the answer to a post waits for the agent.
    pub(crate) fn has_answer(&self) -> bool {
        matches!(self.papers.lock().post, Post::Answered(_))
    }

    /// Whether nothing is under way of which the agent has to know before it leaves: it issues a call again when it goes on elsewhere, and that must not
    /// send a message for the second time.
    pub(crate) fn is_clear(&self) -> bool {
        let mut papers = self.papers.lock();
        if let Post::Written { .. } = papers.post {
            // It has not gone out, and goes out from wherever the agent is then.
            papers.post = Post::None;
        }
        matches!(papers.post, Post::None)
    }

    /// The oldest of what was written, in pieces that fit into a message; `take` says whether it has taken a piece.
    pub(crate) fn give_lines(&self, mut take: impl FnMut(&Line) -> bool) {
        let mut papers = self.papers.lock();
        if papers.forgotten_bytes > 0 {
            let text = alloc::format!("{} bytes of its log are lost", papers.forgotten_bytes);
            let line = Line {
                stream: FIRST_LEVEL + Level::Warn as u8,
                bytes: text.into_bytes(),
            };
            if !take(&line) {
                return;
            }
            papers.forgotten_bytes = 0;
        }
        while let Some(line) = papers.lines.front() {
            if !take(line) {
                return;
            }
            papers.lines_bytes -= line.bytes.len();
            papers.lines.pop_front();
        }
    }

    fn write(&self, stream: u8, bytes: &[u8]) {
        let mut papers = self.papers.lock();
        for piece in bytes.chunks(LOG_BYTES_MAX) {
            papers.lines_bytes += piece.len();
            papers.lines.push_back(Line {
                stream,
                bytes: piece.to_vec(),
            });
        }
        while papers.lines_bytes > LINES_BYTES_MAX {
            let len = papers.lines.pop_front().map_or(0, |line| line.bytes.len());
            papers.lines_bytes -= len;
            papers.forgotten_bytes += len;
        }
    }
}

impl Services for Desk {
    fn write_log(&self, stream: LogStream, bytes: &[u8]) -> Result<usize, LogError> {
        let stream = match stream {
            LogStream::Stdout => STDOUT,
            LogStream::Stderr => STDERR,
        };
        self.write(stream, bytes);
        Ok(bytes.len())
    }

    fn log(&self, level: Level, message: &str) {
        self.write(FIRST_LEVEL + level as u8, message.as_bytes());
    }

    fn send(&self, to: Address, kind: MessageKind, payload: &[u8]) -> Result<u64, SendError> {
        if payload.len() > POST_PAYLOAD_BYTES_MAX {
            return Err(SendError::TooLarge {
                limit: POST_PAYLOAD_BYTES_MAX,
            });
        }
        let mut papers = self.papers.lock();
        match &papers.post {
            Post::None => {
                papers.post = Post::Written {
                    to,
                    kind,
                    payload: payload.to_vec(),
                };
                Err(SendError::Full)
            }
            Post::Written { .. } | Post::Sent => Err(SendError::Full),
            Post::Answered(result) => {
                let result = *result;
                papers.post = Post::None;
                match result {
                    PostResult::Sent { sequence } => Ok(sequence),
                    PostResult::Full => Err(SendError::Full),
                    PostResult::TooLarge => Err(SendError::TooLarge {
                        limit: POST_PAYLOAD_BYTES_MAX,
                    }),
                    // Whether it has arrived nobody knows, as with a receiver that nobody can reach.
                    PostResult::Unknown | PostResult::InDoubt => Err(SendError::Unknown),
                    PostResult::Closed => Err(SendError::Closed),
                }
            }
        }
    }

    fn receive(&self, max_len: usize) -> Receive {
        let mut papers = self.papers.lock();
        let Some(mail) = papers.mail.take() else {
            return Receive::Empty;
        };
        let len = mail.len.max(mail.received.payload.len());
        if len > max_len || len > mail.received.payload.len() {
            papers.mail = Some(mail);
            return Receive::TooLarge { len };
        }
        papers.taken += 1;
        papers.wants = true;
        Receive::Message(mail.received)
    }

    fn discard(&self, longer_than: usize) -> Option<Discarded> {
        let mut papers = self.papers.lock();
        let mail = papers
            .mail
            .take_if(|mail| mail.len > longer_than || mail.len > mail.received.payload.len())?;
        papers.taken += 1;
        papers.wants = true;
        Some(Discarded {
            from: mail.received.from,
            sequence: mail.received.sequence,
            kind: mail.received.kind,
            len: mail.len,
        })
    }

    fn sense(&self, sensor: u8, after: u64) -> Sensed {
        let mut devices = self.devices.lock();
        if !devices.switch_on(sensor) {
            return Sensed::Absent;
        }
        let reading = devices.above(sensor, after);
        reading.map_or(Sensed::NotYet, |reading| {
            Sensed::Reading(mielin_wasm::Reading {
                number: reading.number,
                time_ns: reading.time_ns,
                value: reading.value,
            })
        })
    }

    fn actuate(&self, actuator: u8, value: i64) -> Actuated {
        match self.devices.lock().set(actuator, value) {
            Set::Done => Actuated::Done,
            Set::Absent => Actuated::Absent,
            Set::Refused => Actuated::Refused,
        }
    }

    fn denied(&self, capability: &Capability, call: &'static str) {
        let mut text = String::from(call);
        text.push_str(" was refused: it needs ");
        text.push_str(&capability.to_string());
        self.write(FIRST_LEVEL + Level::Warn as u8, text.as_bytes());
    }
}

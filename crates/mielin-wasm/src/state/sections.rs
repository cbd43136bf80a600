//! The host state as named, versioned sections of a snapshot.

use std::collections::VecDeque;

use mielin_safepoint::HostSection;

use super::bytes::{Reader, Writer};
use super::{Clock, DESCRIPTORS, Descriptor, End, HostState, Pending, Stream, UNANSWERED_MAX};
use crate::{Address, Capability, Grants, Trap, TrapKind};

/// Who the program is and what it was started with.
const PROGRAM: &str = "wasm.program";
/// All of its standard input.
const STDIN: &str = "wasm.stdin";
/// What changes while it runs.
const RUN: &str = "wasm.run";
/// Names with this prefix belong to this crate; other sections are left to those who know them.
const PREFIX: &str = "wasm.";
const VERSION: u16 = 1;

/// What a trap says beyond its kind is cut to this length before it is kept.
const TRAP_BYTES_MAX: usize = 4096;

/// A snapshot's host sections are not what this version of the crate writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A section that must be there is not.
    #[error("the section {section} is missing")]
    Missing {
        /// The section's name.
        section: &'static str,
    },
    /// A section is there twice.
    #[error("the section {section} is there twice")]
    Repeated {
        /// The section's name.
        section: &'static str,
    },
    /// A section of this crate's that this version does not know.
    #[error("the section {section} is of an unknown kind")]
    Unknown {
        /// The section's name, cut to 64 characters.
        section: String,
    },
    /// A section was written by another version.
    #[error("the section {section} has version {found}; this node reads version {known}")]
    Version {
        /// The section's name.
        section: &'static str,
        /// The version found.
        found: u16,
        /// The version that can be read.
        known: u16,
    },
    /// A section ends too early.
    #[error("the section {section} is cut off")]
    Truncated {
        /// The section's name.
        section: &'static str,
    },
    /// A section holds something that cannot be.
    #[error("the section {section} is malformed: {what}")]
    Malformed {
        /// The section's name.
        section: &'static str,
        /// What cannot be.
        what: &'static str,
    },
}

impl HostState {
    /// The state as sections of a snapshot, at the clock's present time.
    pub fn to_sections(&self) -> Vec<HostSection> {
        [
            (PROGRAM, self.program()),
            (STDIN, self.stdin.to_vec()),
            (RUN, self.run()),
        ]
        .map(|(name, bytes)| HostSection {
            name: name.into(),
            version: VERSION,
            bytes,
        })
        .into()
    }

    /// Whether a section stays the same however long the program runs, unless its grants are
    /// changed from outside: such a section can be sent ahead of the freeze.
    pub fn is_fixed(section: &str) -> bool {
        section == PROGRAM || section == STDIN
    }

    /// Reads what [`to_sections`](Self::to_sections) wrote; sections of others are skipped. The
    /// clock goes on from the time that it was written at.
    ///
    /// # Errors
    /// The sections are damaged, hostile or of another version.
    pub fn from_sections(sections: &[HostSection]) -> Result<Self, StateError> {
        let known = [PROGRAM, STDIN, RUN];
        let stranger = sections
            .iter()
            .find(|s| s.name.starts_with(PREFIX) && !known.contains(&s.name.as_str()));
        if let Some(stranger) = stranger {
            return Err(StateError::Unknown {
                section: stranger.name.chars().take(64).collect(),
            });
        }
        let mut state = Self::new(Address::default());
        state.read_program(Reader::new(PROGRAM, find(sections, PROGRAM)?))?;
        state.stdin = find(sections, STDIN)?.into();
        state.read_run(Reader::new(RUN, find(sections, RUN)?))?;
        Ok(state)
    }

    fn program(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.array(&self.address.0);
        for strings in [&self.args, &self.env] {
            out.len(strings.len());
            strings.iter().for_each(|text| out.text(text));
        }
        out.len(self.grants.len());
        for capability in self.grants.iter() {
            out.text(capability.to_string().as_bytes());
        }
        out.bytes
    }

    fn read_program(&mut self, mut bytes: Reader<'_>) -> Result<(), StateError> {
        self.address = Address(bytes.array()?);
        let string = |bytes: &mut Reader<'_>| {
            let text = bytes.text()?;
            if text.contains(&0) {
                return Err(bytes.malformed("a zero byte in an argument or the environment"));
            }
            Ok(text.to_vec())
        };
        self.args = bytes.list(string)?;
        self.env = bytes.list(string)?;
        let grants = bytes.list(|bytes| {
            let text = bytes.text()?;
            let text = std::str::from_utf8(text).map_err(|_| bytes.malformed("a grant's text"))?;
            text.parse::<Capability>()
                .map_err(|_| bytes.malformed("an unknown grant"))
        })?;
        self.grants = Grants::from_iter(grants);
        bytes.end()
    }

    fn run(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u64(self.clock.now_ns());
        out.u64(self.stdin_position as u64);
        for descriptor in &self.descriptors {
            match descriptor {
                None => out.u8(0),
                Some(descriptor) => {
                    out.u8(1 + descriptor.stream as u8);
                    out.u16(descriptor.flags);
                    out.u64(descriptor.rights);
                }
            }
        }
        match self.pending {
            None => out.u8(0),
            Some(Pending::Poll { since_ns }) => {
                out.u8(1);
                out.u64(since_ns);
            }
            Some(Pending::Receive { deadline_ns: None }) => out.u8(2),
            Some(Pending::Receive {
                deadline_ns: Some(deadline_ns),
            }) => {
                out.u8(3);
                out.u64(deadline_ns);
            }
            Some(Pending::Send) => out.u8(4),
        }
        out.len(self.unanswered.len());
        for (from, sequence) in &self.unanswered {
            out.array(&from.0);
            out.u64(*sequence);
        }
        match &self.end {
            None => out.u8(0),
            Some(End::Exited(code)) => {
                out.u8(1);
                out.u32(code.cast_unsigned());
            }
            Some(End::Trapped(trap)) => {
                let kinds = TrapKind::NUMBERED.iter();
                let text = match (0..).zip(kinds).find(|(_, kind)| **kind == trap.kind) {
                    Some((number, _)) => {
                        out.u8(3);
                        out.u8(number);
                        trap.function.clone().unwrap_or_default()
                    }
                    None => {
                        out.u8(2);
                        trap.kind.to_string()
                    }
                };
                let cut = text.floor_char_boundary(TRAP_BYTES_MAX);
                out.text(&text.as_bytes()[..cut]);
            }
        }
        out.bytes
    }

    fn read_run(&mut self, mut bytes: Reader<'_>) -> Result<(), StateError> {
        self.clock = Clock::starting_at(bytes.u64()?);
        let position = bytes.u64()?;
        self.stdin_position = usize::try_from(position)
            .ok()
            .filter(|position| *position <= self.stdin.len())
            .ok_or_else(|| bytes.malformed("a position beyond the end of standard input"))?;
        for index in 0..DESCRIPTORS {
            let stream = match bytes.u8()? {
                0 => None,
                1 => Some(Stream::Stdin),
                2 => Some(Stream::Stdout),
                3 => Some(Stream::Stderr),
                _ => return Err(bytes.malformed("an unknown stream")),
            };
            self.descriptors[index] = match stream {
                None => None,
                Some(stream) => {
                    let (flags, rights) = (bytes.u16()?, bytes.u64()?);
                    let widest = Descriptor::open(stream).rights;
                    Some(Descriptor {
                        stream,
                        flags,
                        rights: rights & widest,
                    })
                }
            };
        }
        self.pending = match bytes.u8()? {
            0 => None,
            1 => Some(Pending::Poll {
                since_ns: bytes.u64()?,
            }),
            2 => Some(Pending::Receive { deadline_ns: None }),
            3 => Some(Pending::Receive {
                deadline_ns: Some(bytes.u64()?),
            }),
            4 => Some(Pending::Send),
            _ => return Err(bytes.malformed("an unknown pending call")),
        };
        let unanswered = bytes.list(|bytes| Ok((Address(bytes.array()?), bytes.u64()?)))?;
        if unanswered.len() > UNANSWERED_MAX {
            return Err(bytes.malformed("too many messages to reply to"));
        }
        self.unanswered = VecDeque::from(unanswered);
        self.end = match bytes.u8()? {
            0 => None,
            1 => Some(End::Exited(bytes.u32()?.cast_signed())),
            2 => {
                let words = String::from_utf8_lossy(bytes.text()?).into_owned();
                Some(End::Trapped(TrapKind::Other(words).into()))
            }
            3 => {
                let kind = TrapKind::NUMBERED.get(usize::from(bytes.u8()?));
                let kind = kind.ok_or_else(|| bytes.malformed("an unknown trap"))?;
                let name = String::from_utf8_lossy(bytes.text()?);
                Some(End::Trapped(Trap {
                    kind: kind.clone(),
                    function: (!name.is_empty()).then(|| name.into_owned()),
                }))
            }
            _ => return Err(bytes.malformed("an unknown end")),
        };
        bytes.end()
    }
}

fn find<'a>(sections: &'a [HostSection], name: &'static str) -> Result<&'a [u8], StateError> {
    let mut named = sections.iter().filter(|section| section.name == name);
    let section = named.next().ok_or(StateError::Missing { section: name })?;
    if named.next().is_some() {
        return Err(StateError::Repeated { section: name });
    }
    if section.version != VERSION {
        return Err(StateError::Version {
            section: name,
            found: section.version,
            known: VERSION,
        });
    }
    Ok(&section.bytes)
}

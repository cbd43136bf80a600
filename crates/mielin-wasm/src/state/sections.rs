//! The host state as named, versioned sections of a snapshot.

use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use mielin_safepoint::HostSection;

use super::bytes::{Reader, Writer};
use super::descriptors::{DESCRIPTORS_MAX, STREAMS};
use super::{Clock, Descriptor, End, HostState, Object, Pending, Stream, UNANSWERED_MAX};
use crate::filesystem::{BlockStream, FileSystem, Ino, Quota};
use crate::{Address, Capability, Grants, Platform, Trap, TrapKind};

/// Who the program is and what it was started with.
const PROGRAM: &str = "wasm.program";
/// All of its standard input.
const STDIN: &str = "wasm.stdin";
/// What changes while it runs.
const RUN: &str = "wasm.run";
/// `/data` without the contents of files, and the descriptors that are not standard streams in their
/// places. There only if `/data` was granted, as the next one.
const DATA: &str = "wasm.data";
/// The contents of files.
const BLOCKS: &str = "wasm.blocks";
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
        let mut stream = BlockStream::default();
        self.add_blocks(&mut stream);
        let mut sections = self.to_sections_beside(&stream);
        if self.data.is_some() {
            sections.push(Self::blocks_section(stream.take(usize::MAX)));
        }
        sections
    }

    /// The same without the contents of the files in `/data`, all of which must have been
    /// [added](Self::add_blocks) to this stream. Whoever reads the sections needs one more: what the
    /// stream has given ([`blocks_section`](Self::blocks_section)).
    pub fn to_sections_beside(&self, stream: &BlockStream) -> Vec<HostSection> {
        let mut sections = vec![
            section(PROGRAM, self.program()),
            section(STDIN, self.stdin.to_vec()),
            section(RUN, self.run()),
        ];
        if let Some(files) = &self.data {
            sections.push(section(DATA, self.data(files, stream)));
        }
        sections
    }

    /// Adds to a stream what it lacks of the contents of the files in `/data`. They can be sent
    /// while the program goes on; what it writes meanwhile is added by calling this again.
    pub fn add_blocks(&self, stream: &mut BlockStream) {
        if let Some(files) = &self.data {
            stream.add(files);
        }
    }

    /// The section that goes with those of [`to_sections_beside`](Self::to_sections_beside) if `/data`
    /// is granted: all that the stream has given, one after the other.
    pub fn blocks_section(bytes: Vec<u8>) -> HostSection {
        section(BLOCKS, bytes)
    }

    /// Whether a section stays the same however long the program runs, unless its grants are
    /// changed from outside: such a section can be sent ahead of the freeze.
    pub fn is_fixed(section: &str) -> bool {
        section == PROGRAM || section == STDIN
    }

    /// Reads what [`to_sections`](Self::to_sections) wrote, on this platform or another one; sections of others are
    /// skipped. The clock goes on from the time that it was written at.
    ///
    /// # Errors
    /// The sections are damaged, hostile or of another version.
    pub fn from_sections_on(
        platform: &'static dyn Platform,
        sections: &[HostSection],
    ) -> Result<Self, StateError> {
        let known = [PROGRAM, STDIN, RUN, DATA, BLOCKS];
        let stranger = sections
            .iter()
            .find(|s| s.name.starts_with(PREFIX) && !known.contains(&s.name.as_str()));
        if let Some(stranger) = stranger {
            return Err(StateError::Unknown {
                section: stranger.name.chars().take(64).collect(),
            });
        }
        let mut state = Self::on(platform, Address::default());
        state.read_program(Reader::new(PROGRAM, find(sections, PROGRAM)?))?;
        state.stdin = find(sections, STDIN)?.into();
        state.read_run(Reader::new(RUN, find(sections, RUN)?))?;
        match state.grants.data_bytes() {
            Some(bytes) => {
                let blocks = find(sections, BLOCKS)?;
                let data = Reader::new(DATA, find(sections, DATA)?);
                state.read_data(data, blocks, Quota::of_bytes(bytes))?;
            }
            None if sections.iter().any(|s| [DATA, BLOCKS].contains(&&*s.name)) => {
                return Err(Reader::new(DATA, &[]).malformed("it is not granted"));
            }
            None => {}
        }
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
            let text = core::str::from_utf8(text).map_err(|_| bytes.malformed("a grant's text"))?;
            text.parse::<Capability>()
                .map_err(|_| bytes.malformed("an unknown grant"))
        })?;
        self.grants = Grants::from_iter(grants);
        bytes.end()
    }

    fn run(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u64(self.now_ns());
        out.u64(self.stdin_position as u64);
        for descriptor in self.descriptors.iter().take(STREAMS) {
            match descriptor {
                Some(Descriptor {
                    what: Object::Stream(stream),
                    flags,
                    rights,
                    ..
                }) => {
                    out.u8(1 + *stream as u8);
                    out.u16(*flags);
                    out.u64(*rights);
                }
                // One of a file stands in the section of `/data`.
                _ => out.u8(0),
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
            Some(Pending::Tensor { rows }) => {
                out.u8(5);
                out.u64(rows);
            }
            Some(Pending::Sense { deadline_ns: None }) => out.u8(6),
            Some(Pending::Sense {
                deadline_ns: Some(deadline_ns),
            }) => {
                out.u8(7);
                out.u64(deadline_ns);
            }
            Some(Pending::Actuate) => out.u8(8),
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
        self.clock = Clock::starting_at(self.platform, bytes.u64()?);
        let position = bytes.u64()?;
        self.stdin_position = usize::try_from(position)
            .ok()
            .filter(|position| *position <= self.stdin.len())
            .ok_or_else(|| bytes.malformed("a position beyond the end of standard input"))?;
        for index in 0..STREAMS {
            self.descriptors[index] = match bytes.u8()? {
                0 => None,
                kind => {
                    let stream =
                        stream(kind).ok_or_else(|| bytes.malformed("an unknown stream"))?;
                    let opened = Descriptor::of_stream(stream);
                    Some(Descriptor {
                        flags: bytes.u16()?,
                        rights: bytes.u64()? & opened.rights,
                        ..opened
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
            5 => Some(Pending::Tensor { rows: bytes.u64()? }),
            6 => Some(Pending::Sense { deadline_ns: None }),
            7 => Some(Pending::Sense {
                deadline_ns: Some(bytes.u64()?),
            }),
            8 => Some(Pending::Actuate),
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

/// The kinds of descriptors beside the streams', which are 1, 2 and 3.
const FILE: u8 = 4;
const DIRECTORY: u8 = 5;
const PREOPENED: u8 = 6;

impl HostState {
    fn data(&self, files: &FileSystem, stream: &BlockStream) -> Vec<u8> {
        let mut out = Writer::default();
        files.encode(stream, &mut out);
        let descriptors = (0..).zip(&self.descriptors);
        let open = descriptors.filter_map(|(fd, descriptor)| Some((fd, descriptor.as_ref()?)));
        let here: Vec<(u32, &Descriptor)> = open
            .filter(|(fd, descriptor)| *fd >= STREAMS as u32 || descriptor.what.ino().is_some())
            .collect();
        out.len(here.len());
        for (fd, descriptor) in here {
            out.u32(fd);
            match descriptor.what {
                Object::Stream(stream) => out.u8(1 + stream as u8),
                Object::File { ino, position } => {
                    out.u8(FILE);
                    out.u64(ino.0);
                    out.u64(position);
                }
                Object::Directory { ino, preopened } => {
                    out.u8(if preopened { PREOPENED } else { DIRECTORY });
                    out.u64(ino.0);
                }
            }
            out.u16(descriptor.flags);
            out.u64(descriptor.rights);
            out.u64(descriptor.inheriting);
        }
        out.bytes
    }

    fn read_data(
        &mut self,
        mut bytes: Reader<'_>,
        blocks: &[u8],
        quota: Quota,
    ) -> Result<(), StateError> {
        let mut files = FileSystem::decode(&mut bytes, blocks, quota)?;
        let mut least = 0;
        bytes.list(|bytes| {
            let fd = bytes.u32()? as usize;
            let what = read_object(bytes)?;
            let free = self.descriptors.get(fd).is_none_or(Option::is_none);
            if fd < least || fd >= DESCRIPTORS_MAX || !free {
                return Err(bytes.malformed("descriptors out of order"));
            }
            least = fd + 1;
            if let Some(ino) = what.ino() {
                let stat = files.stat(ino);
                let stat = stat.map_err(|_| bytes.malformed("a descriptor of nothing"))?;
                if stat.is_directory != matches!(what, Object::Directory { .. }) {
                    return Err(bytes.malformed("a descriptor of another kind"));
                }
                files.hold(ino);
            }
            let descriptor = Descriptor {
                what,
                flags: bytes.u16()?,
                rights: bytes.u64()? & what.rights(),
                inheriting: bytes.u64()? & what.inheriting(),
            };
            self.set(fd, Some(descriptor));
            Ok(())
        })?;
        if !files.is_settled() {
            return Err(bytes.malformed("a file that nothing leads to"));
        }
        self.data = Some(files);
        bytes.end()
    }
}

fn stream(kind: u8) -> Option<Stream> {
    match kind {
        1 => Some(Stream::Stdin),
        2 => Some(Stream::Stdout),
        3 => Some(Stream::Stderr),
        _ => None,
    }
}

fn read_object(bytes: &mut Reader<'_>) -> Result<Object, StateError> {
    Ok(match bytes.u8()? {
        FILE => {
            let (ino, position) = (Ino(bytes.u64()?), bytes.u64()?);
            if position > i64::MAX as u64 {
                return Err(bytes.malformed("a position beyond the end of every file"));
            }
            Object::File { ino, position }
        }
        kind @ (DIRECTORY | PREOPENED) => Object::Directory {
            ino: Ino(bytes.u64()?),
            preopened: kind == PREOPENED,
        },
        kind => {
            let stream = stream(kind);
            Object::Stream(stream.ok_or_else(|| bytes.malformed("an unknown descriptor"))?)
        }
    })
}

fn section(name: &str, bytes: Vec<u8>) -> HostSection {
    HostSection {
        name: name.into(),
        version: VERSION,
        bytes,
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

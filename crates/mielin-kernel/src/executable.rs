//! Executables, as the kernel has to read one, the first thread's, and as a loader has to read the kernel.
//!
//! Source: Tool Interface Standard, Executable and Linking Format (ELF), for 64-bit little-endian machines, with segments of type
//! `PT_LOAD` and `PT_NOTE`; others are passed over. Nothing is relocated.

use mielin_hal::paging::Access;

const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const TYPE_EXECUTABLE: u16 = 2;
const SEGMENT_LOAD: u32 = 1;
const SEGMENT_NOTE: u32 = 4;
const SEGMENT_EXECUTE: u32 = 1;
const SEGMENT_WRITE: u32 = 2;
const SEGMENTS_MAX: u16 = 32;
/// A note's sizes of owner and content, and its kind; owner and content follow, each filled up to a multiple of 4.
const NOTE_HEADER_BYTES: usize = 12;

/// Why bytes are no executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutableError {
    /// They do not begin as one of 64 bits, little-endian, that lies where it says.
    Foreign,
    /// It is for another architecture: this `e_machine`.
    Architecture(u16),
    /// It ends before what it says is in it.
    CutOff,
    /// A segment is writable and executable, or claims more bytes than it has memory, or more memory than there are addresses.
    Segment,
    /// It has more than 32 segments.
    TooMany,
}

/// An executable whose header was looked at.
#[derive(Clone, Copy, Debug)]
pub struct Executable<'a> {
    bytes: &'a [u8],
    entry: u64,
    headers: usize,
    count: u16,
}

/// A part of an executable.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Where it is in memory.
    pub address: u64,
    /// Where it is to be put by who loads it where nothing is mapped.
    pub physical: u64,
    /// How many bytes it has there; zeros where there is no content.
    pub memory_bytes: u64,
    /// What may be done with it.
    pub access: Access,
    content: &'a [u8],
}

impl<'a> Executable<'a> {
    /// Looks at the header.
    ///
    /// # Errors
    /// See [`ExecutableError`].
    pub fn parse(bytes: &'a [u8], architecture: u16) -> Result<Self, ExecutableError> {
        let header = bytes.get(..HEADER_BYTES).ok_or(ExecutableError::CutOff)?;
        // e_ident: magic, 64 bits, little-endian, version 1.
        if header[..7] != *b"\x7fELF\x02\x01\x01" || half(header, 16) != Some(TYPE_EXECUTABLE) {
            return Err(ExecutableError::Foreign);
        }
        let machine = half(header, 18).ok_or(ExecutableError::CutOff)?;
        if machine != architecture {
            return Err(ExecutableError::Architecture(machine));
        }
        let cut = ExecutableError::CutOff;
        let headers = long(header, 32).ok_or(cut)?;
        let size = half(header, 54).ok_or(cut)?;
        let count = half(header, 56).ok_or(cut)?;
        if usize::from(size) != PROGRAM_HEADER_BYTES {
            return Err(ExecutableError::Foreign);
        }
        if count > SEGMENTS_MAX {
            return Err(ExecutableError::TooMany);
        }
        let headers = usize::try_from(headers).map_err(|_| cut)?;
        let end = headers
            .checked_add(usize::from(count) * PROGRAM_HEADER_BYTES)
            .ok_or(cut)?;
        if end > bytes.len() {
            return Err(cut);
        }
        Ok(Self {
            bytes,
            entry: long(header, 24).ok_or(cut)?,
            headers,
            count,
        })
    }

    /// Where it begins.
    #[must_use]
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Its parts.
    pub fn segments(&self) -> impl Iterator<Item = Result<Segment<'a>, ExecutableError>> + '_ {
        self.headers_of(SEGMENT_LOAD)
            .map(|header| self.segment(header))
    }

    /// What the first note of this owner and kind says. An owner ends with a zero.
    #[must_use]
    pub fn note(&self, owner: &[u8], kind: u32) -> Option<&'a [u8]> {
        self.headers_of(SEGMENT_NOTE).find_map(|header| {
            let mut notes = self.content(header)?;
            while let Some((head, rest)) = notes.split_at_checked(NOTE_HEADER_BYTES) {
                let (name, rest) = filled_up(rest, word(head, 0)?)?;
                let (content, rest) = filled_up(rest, word(head, 4)?)?;
                if name == owner && word(head, 8)? == kind {
                    return Some(content);
                }
                notes = rest;
            }
            None
        })
    }

    fn headers_of(&self, kind: u32) -> impl Iterator<Item = &'a [u8]> + '_ {
        (0..usize::from(self.count)).filter_map(move |index| {
            let at = self.headers + index * PROGRAM_HEADER_BYTES;
            let header = self.bytes.get(at..at + PROGRAM_HEADER_BYTES)?;
            (word(header, 0)? == kind).then_some(header)
        })
    }

    /// What of the file a header means. `None` if that is not all there.
    fn content(&self, header: &[u8]) -> Option<&'a [u8]> {
        let offset = usize::try_from(long(header, 8)?).ok()?;
        let bytes = usize::try_from(long(header, 32)?).ok()?;
        self.bytes.get(offset..offset.checked_add(bytes)?)
    }

    fn segment(&self, header: &[u8]) -> Result<Segment<'a>, ExecutableError> {
        let cut = ExecutableError::CutOff;
        let flags = word(header, 4).ok_or(cut)?;
        let address = long(header, 16).ok_or(cut)?;
        let physical = long(header, 24).ok_or(cut)?;
        let memory_bytes = long(header, 40).ok_or(cut)?;
        let content = self.content(header).ok_or(cut)?;
        let fits =
            content.len() as u64 <= memory_bytes && address.checked_add(memory_bytes).is_some();
        let access = Access::new(
            true,
            flags & SEGMENT_WRITE != 0,
            flags & SEGMENT_EXECUTE != 0,
        );
        match access {
            Some(access) if fits => Ok(Segment {
                address,
                physical,
                memory_bytes,
                access,
                content,
            }),
            _ => Err(ExecutableError::Segment),
        }
    }
}

impl<'a> Segment<'a> {
    /// What it begins with; the rest is zeros.
    #[must_use]
    pub fn content(&self) -> &'a [u8] {
        self.content
    }

    /// The eight bytes at an address in memory, zeros where the segment has none.
    #[must_use]
    pub fn word(&self, address: u64) -> u64 {
        let mut bytes = [0; 8];
        for (offset, byte) in (0..).zip(&mut bytes) {
            let at = address.checked_add(offset);
            let known = at
                .and_then(|at| at.checked_sub(self.address))
                .and_then(|at| usize::try_from(at).ok())
                .and_then(|at| self.content.get(at));
            *byte = known.copied().unwrap_or(0);
        }
        u64::from_le_bytes(bytes)
    }
}

/// Bytes, and what is behind them and what fills them up to a multiple of 4; the last ones may lack that.
fn filled_up(bytes: &[u8], len: u32) -> Option<(&[u8], &[u8])> {
    let len = usize::try_from(len).ok()?;
    let filled = len.checked_next_multiple_of(4)?;
    Some((bytes.get(..len)?, bytes.get(filled..).unwrap_or(&[])))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests;

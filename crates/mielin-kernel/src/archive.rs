//! Files in a row: what a machine begins with. The first one is the first thread's program.
//!
//! The form, in little-endian numbers of 64 bits: `mielinar`, how many files there are, and for each 32 bytes with its name, behind which
//! are zeros, where it begins, and how many bytes it has. Files begin at multiples of 4,096.

const MAGIC: [u8; 8] = *b"mielinar";
const HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = 48;
const NAME_BYTES: usize = 32;
/// Where files begin.
pub const FILE_ALIGN: usize = 4096;
/// The most files that there are.
pub const FILES_MAX: usize = 1024;

/// Why bytes are no archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveError {
    /// They do not begin as one.
    Foreign,
    /// They end before what they say is in them, or a file lies elsewhere than at a multiple of [`FILE_ALIGN`].
    CutOff,
    /// It has more than [`FILES_MAX`] files.
    TooMany,
    /// A name is not text, or has more than 32 bytes.
    Name,
}

/// An archive, all of which was looked at.
#[derive(Clone, Copy, Debug)]
pub struct Archive<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Archive<'a> {
    /// Looks at all of it but the contents.
    ///
    /// # Errors
    /// See [`ArchiveError`].
    pub fn new(bytes: &'a [u8]) -> Result<Self, ArchiveError> {
        let header = bytes.get(..HEADER_BYTES).ok_or(ArchiveError::CutOff)?;
        if header[..8] != MAGIC {
            return Err(ArchiveError::Foreign);
        }
        let count = number(header, 8).ok_or(ArchiveError::CutOff)?;
        if count > FILES_MAX as u64 {
            return Err(ArchiveError::TooMany);
        }
        let archive = Self {
            bytes,
            count: count as usize,
        };
        for index in 0..archive.count {
            let (_, content) = archive.file(index)?;
            let begin = content.as_ptr().addr() - bytes.as_ptr().addr();
            if !begin.is_multiple_of(FILE_ALIGN) {
                return Err(ArchiveError::CutOff);
            }
        }
        Ok(archive)
    }

    /// Names and contents of its files, in order.
    pub fn files(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        (0..self.count).filter_map(move |index| self.file(index).ok())
    }

    /// The content of the file with this name.
    #[must_use]
    pub fn find(self, name: &str) -> Option<&'a [u8]> {
        let mut files = self.files();
        files
            .find(|(one, _)| *one == name)
            .map(|(_, content)| content)
    }

    fn file(self, index: usize) -> Result<(&'a str, &'a [u8]), ArchiveError> {
        let cut = ArchiveError::CutOff;
        let at = HEADER_BYTES + index * ENTRY_BYTES;
        let entry = self.bytes.get(at..at + ENTRY_BYTES).ok_or(cut)?;
        let (name, place) = entry.split_at(NAME_BYTES);
        let len = name.iter().position(|byte| *byte == 0);
        let name = &name[..len.unwrap_or(NAME_BYTES)];
        let name = core::str::from_utf8(name).map_err(|_| ArchiveError::Name)?;
        let part = |at| number(place, at).and_then(|number| usize::try_from(number).ok());
        let (begin, len) = (part(0).ok_or(cut)?, part(8).ok_or(cut)?);
        let end = begin.checked_add(len).ok_or(cut)?;
        Ok((name, self.bytes.get(begin..end).ok_or(cut)?))
    }
}

/// Writes the head of an archive: everything before the first file. `files` are names and lengths; whoever writes the
/// archive lets each file follow at the next multiple of [`FILE_ALIGN`].
///
/// # Errors
/// [`ArchiveError::TooMany`] and [`ArchiveError::Name`].
pub fn write_head<'a>(
    files: impl Iterator<Item = (&'a str, u64)> + Clone,
    mut write: impl FnMut(&[u8]),
) -> Result<(), ArchiveError> {
    let count = files.clone().count();
    if count > FILES_MAX {
        return Err(ArchiveError::TooMany);
    }
    write(&MAGIC);
    write(&(count as u64).to_le_bytes());
    let align = FILE_ALIGN as u64;
    let mut at = ((HEADER_BYTES + count * ENTRY_BYTES) as u64).next_multiple_of(align);
    for (name, len) in files {
        let mut padded = [0; NAME_BYTES];
        let place = padded.get_mut(..name.len()).ok_or(ArchiveError::Name)?;
        place.copy_from_slice(name.as_bytes());
        write(&padded);
        write(&at.to_le_bytes());
        write(&len.to_le_bytes());
        at = (at + len).next_multiple_of(align);
    }
    Ok(())
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use mielin_fuzz::{Seed, Target};

    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let lens = files
            .iter()
            .map(|(name, content)| (*name, content.len() as u64));
        write_head(lens, |part| bytes.extend_from_slice(part)).expect("short names");
        for (_, content) in files {
            bytes.resize(bytes.len().next_multiple_of(FILE_ALIGN), 0);
            bytes.extend_from_slice(content);
        }
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let files: [(&str, &[u8]); 3] = [("root", &[1; 5000]), ("empty", &[]), ("äöü", b"text")];
        let bytes = archive(&files);
        let read = Archive::new(&bytes).expect("it was written so");
        assert!(read.files().eq(files));
        assert_eq!(read.find("äöü"), Some(&b"text"[..]));
        assert_eq!(read.find("roo"), None);
    }

    #[test]
    fn hostile_bytes_are_errors() {
        let good = archive(&[("root", b"abc")]);
        for len in 0..good.len() {
            assert!(Archive::new(&good[..len]).is_err(), "cut off at {len}");
        }
        let with = |at: usize, value: u64| {
            let mut bytes = good.clone();
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            Archive::new(&bytes).map(|_| ())
        };
        assert_eq!(with(0, 0), Err(ArchiveError::Foreign));
        assert_eq!(with(8, u64::MAX), Err(ArchiveError::TooMany));
        assert_eq!(with(8, 1024), Err(ArchiveError::CutOff));
        assert_eq!(with(16, u64::MAX), Err(ArchiveError::Name));
        assert_eq!(with(48, u64::MAX), Err(ArchiveError::CutOff));
        assert_eq!(with(48, 4095), Err(ArchiveError::CutOff));
        assert_eq!(with(56, u64::MAX), Err(ArchiveError::CutOff));
        let long = write_head(
            [("0123456789012345678901234567890123", 0)].into_iter(),
            |_| {},
        );
        assert_eq!(long, Err(ArchiveError::Name));
    }

    /// Whatever the bytes are: no panic, nothing allocated, and files are parts of the bytes.
    const ARCHIVE: Target = Target {
        name: "archive",
        mutations: 20_000,
        fixed_bytes: 0,
        bytes_per_byte: 0,
        run: |bytes| {
            let Ok(archive) = Archive::new(bytes) else {
                return false;
            };
            let range = bytes.as_ptr_range();
            let mut count = 0;
            for (name, content) in archive.files() {
                assert!(name.len() <= NAME_BYTES);
                let part = content.as_ptr_range();
                assert!(range.start <= part.start && part.end <= range.end);
                assert!(archive.find(name).is_some());
                count += 1;
                if count == 16 {
                    break;
                }
            }
            true
        },
        seeds: || {
            let good = archive(&[("root", b"abc")]);
            let mut elsewhere = good[..HEADER_BYTES + ENTRY_BYTES].to_vec();
            elsewhere[48..56].copy_from_slice(&1u64.to_le_bytes());
            let mut many = archive(&[]);
            many[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
            std::vec![
                Seed::good("one-file", good.clone()),
                Seed::good("no-files", archive(&[])),
                Seed::bad("cut", &good[..HEADER_BYTES + ENTRY_BYTES]),
                Seed::bad("not-at-a-page", elsewhere),
                Seed::bad("too-many", many),
            ]
        },
    };

    #[test]
    fn hostile_archives() {
        ARCHIVE.replay();
    }
}

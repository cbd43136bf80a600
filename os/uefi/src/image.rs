//! A kernel's file, as it is to lie in physical memory.
//!
//! Source: Xen, `docs/misc/pvh.pandoc` (the state at the entry) and `xen/include/public/elfnote.h`.

use core::fmt;

use mielin_kernel::{Executable, ExecutableError, Segment};

/// ELF's number for x86-64.
const ARCHITECTURE: u16 = 62;
/// The note with the address of the 32-bit entry (`XEN_ELFNOTE_PHYS32_ENTRY`): 4 or 8 bytes.
const OWNER: &[u8] = b"Xen\0";
const ENTRY: u32 = 18;
/// What is entered without paging is below, and above what the first PCs have left of their memory.
const BEGIN_MIN: u64 = 1 << 20;
const END_MAX: u64 = 1 << 32;
const FRAME_BYTES: u64 = 4096;

/// Why a file is no kernel that can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// It is no executable for this architecture, or a damaged one.
    Executable(ExecutableError),
    /// No segment has anything.
    Empty,
    /// A segment is not between 1 MiB and 4 GiB: it begins here.
    Outside(u64),
    /// Two segments have this address.
    Overlap(u64),
    /// There is no PVH entry.
    NoEntry,
    /// The entry is not in code.
    Entry(u64),
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Executable(error) => {
                write!(f, "the kernel's file is not one for x86-64: {error:?}")
            }
            Self::Empty => f.write_str("the kernel's file has nothing to load"),
            Self::Outside(at) => write!(
                f,
                "the kernel's file wants to be at {at:#x}: not between 1 MiB and 4 GiB"
            ),
            Self::Overlap(at) => write!(f, "the kernel's file has two segments at {at:#x}"),
            Self::NoEntry => f.write_str("the kernel's file has no PVH entry"),
            Self::Entry(at) => {
                write!(f, "the kernel's PVH entry, {at:#x}, is not in its code")
            }
        }
    }
}

impl core::error::Error for ImageError {}

impl From<ExecutableError> for ImageError {
    fn from(error: ExecutableError) -> Self {
        Self::Executable(error)
    }
}

/// A kernel's file that was checked.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    executable: Executable<'a>,
    begin: u64,
    end: u64,
    entry: u32,
}

impl<'a> Image<'a> {
    /// Checks a file.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn new(file: &'a [u8]) -> Result<Self, ImageError> {
        let executable = Executable::parse(file, ARCHITECTURE)?;
        let entry = executable.note(OWNER, ENTRY).and_then(address);
        let entry = entry.ok_or(ImageError::NoEntry)?;
        let (mut begin, mut end, mut in_code) = (u64::MAX, 0, false);
        for (index, segment) in executable.segments().enumerate() {
            let segment = segment?;
            let (first, behind) = place(&segment)?;
            for other in executable.segments().take(index) {
                let (others_first, others_behind) = place(&other?)?;
                let both = first.max(others_first);
                if both < behind.min(others_behind) {
                    return Err(ImageError::Overlap(both));
                }
            }
            if first < behind {
                (begin, end) = (begin.min(first), end.max(behind));
                in_code |= segment.access.is_executable() && (first..behind).contains(&entry);
            }
        }
        if begin >= end {
            return Err(ImageError::Empty);
        }
        let bad_entry = ImageError::Entry(entry);
        if !in_code {
            return Err(bad_entry);
        }
        Ok(Self {
            executable,
            begin: begin / FRAME_BYTES * FRAME_BYTES,
            end: end.next_multiple_of(FRAME_BYTES),
            entry: u32::try_from(entry).map_err(|_| bad_entry)?,
        })
    }

    /// The first physical address; it begins a page.
    #[must_use]
    pub fn begin(&self) -> u64 {
        self.begin
    }

    /// The pages from there on.
    #[must_use]
    pub fn pages(&self) -> usize {
        // Both are below 4 GiB.
        ((self.end - self.begin) / FRAME_BYTES) as usize
    }

    /// Where it is entered.
    #[must_use]
    pub fn entry(&self) -> u32 {
        self.entry
    }

    /// Writes it into its pages, all of which are zero.
    ///
    /// # Panics
    /// If `memory` is shorter than [`pages`](Self::pages).
    pub fn write_into(&self, memory: &mut [u8]) {
        for segment in self.executable.segments().flatten() {
            let content = segment.content();
            let offset = (segment.physical - self.begin) as usize;
            memory[offset..offset + content.len()].copy_from_slice(content);
        }
    }
}

/// An address of 4 or 8 bytes.
fn address(note: &[u8]) -> Option<u64> {
    let short = || Some(u32::from_le_bytes(note.try_into().ok()?).into());
    let long = || Some(u64::from_le_bytes(note.try_into().ok()?));
    short().or_else(long)
}

/// Where a segment is in physical memory.
fn place(segment: &Segment<'_>) -> Result<(u64, u64), ImageError> {
    let begin = segment.physical;
    let end = begin.checked_add(segment.memory_bytes);
    let end = end.filter(|end| begin >= BEGIN_MIN && *end <= END_MAX);
    match (segment.memory_bytes, end) {
        (0, _) => Ok((begin, begin)),
        (_, Some(end)) => Ok((begin, end)),
        (_, None) => Err(ImageError::Outside(begin)),
    }
}

#[cfg(test)]
mod tests;

//! Paths from a program, and where they lead.

use alloc::vec;
use alloc::vec::Vec;

use super::{FileSystem, FsError, Ino};

/// The longest path of one call, as `PATH_MAX` on Linux.
pub(crate) const PATH_BYTES_MAX: usize = 4096;

/// The longest name.
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// A path that says nothing impossible by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'a>(&'a str);

/// Where a path leads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    /// To this directory: its last part is `.` or `..`.
    Itself(Ino),
    /// To this name, whether it is there or not.
    Named {
        parent: Ino,
        name: &'a str,
        /// A slash at the end: it must be a directory.
        slash: bool,
    },
}

impl<'a> Path<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, FsError> {
        if bytes.len() > PATH_BYTES_MAX {
            return Err(FsError::NameTooLong);
        }
        let text = core::str::from_utf8(bytes).map_err(|_| FsError::NotUtf8)?;
        if text.is_empty() {
            return Err(FsError::NotFound);
        }
        if text.contains('\0') {
            return Err(FsError::Invalid);
        }
        if text.starts_with('/') {
            return Err(FsError::Outside);
        }
        if text.split('/').any(|part| part.len() > NAME_BYTES_MAX) {
            return Err(FsError::NameTooLong);
        }
        Ok(Self(text))
    }
}

impl FileSystem {
    /// Follows a path from a directory, never above it.
    pub(super) fn resolve<'a>(&self, start: Ino, path: Path<'a>) -> Result<Place<'a>, FsError> {
        self.directory(start)?;
        let trimmed = path.0.trim_end_matches('/');
        let (front, last) = trimmed.rsplit_once('/').unwrap_or(("", trimmed));
        let mut way = vec![start];
        for part in front.split('/') {
            self.step(&mut way, part)?;
        }
        let is_dots = matches!(last, "." | "..");
        if is_dots {
            self.step(&mut way, last)?;
        }
        let parent = *way.last().ok_or(FsError::Outside)?;
        Ok(if is_dots {
            Place::Itself(parent)
        } else {
            Place::Named {
                parent,
                name: last,
                slash: trimmed.len() < path.0.len(),
            }
        })
    }

    fn step(&self, way: &mut Vec<Ino>, part: &str) -> Result<(), FsError> {
        match part {
            "" | "." => {}
            ".." => {
                way.pop();
                if way.is_empty() {
                    return Err(FsError::Outside);
                }
            }
            name => {
                let here = *way.last().ok_or(FsError::Outside)?;
                let next = self.directory(here)?.find(name);
                let next = next.ok_or(FsError::NotFound)?;
                self.directory(next)?;
                way.push(next);
            }
        }
        Ok(())
    }
}

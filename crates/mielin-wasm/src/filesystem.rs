//! `/data`: a small file system in memory that belongs to one program.
//!
//! It knows no clock (who calls says what time it is), no descriptors (who opens a file closes it)
//! and no WASI. There are directories and regular files with any number of names, and no symbolic
//! links; so a path leads nowhere but down from the directory at which it begins, and `..` is
//! followed only as far as there. Files are kept in blocks of [`BLOCK`] bytes; those that were never
//! written do not exist and read as zeros. Blocks are shared with whoever has looked at them
//! ([`BlockStream`]) and copied when they are written after that.
//!
//! What it may hold is bounded by a [`Quota`]. Nothing here recurses: its deepest directory is as
//! deep as there are directories.

mod content;
mod directory;
mod form;
mod names;
mod path;
#[cfg(test)]
mod tests;

use alloc::collections::BTreeMap;

pub use form::BlockStream;
pub(crate) use path::Path;

use content::Content;
use directory::Directory;

/// Bytes of a block, the unit in which space is counted.
pub(crate) const BLOCK: usize = 4096;

/// The number of the top directory.
pub(crate) const ROOT: Ino = Ino(1);

/// The last byte of a file stands before this place, so that every size is a positive `i64`.
const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// The names that one file may have.
const NAMES_OF_FILE_MAX: u32 = 65_000;

/// The number of a file or directory. It is never given to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ino(pub(crate) u64);

/// How much a file system may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    /// Blocks of all files.
    blocks: u64,
    /// Files and directories, and, separately, their names.
    nodes: usize,
}

impl Quota {
    /// So many bytes in whole blocks, and a file or directory for each of them; but never fewer than
    /// 64, and never more than 65,536, because those that are empty cost memory too.
    pub(crate) fn of_bytes(bytes: u64) -> Self {
        let blocks = bytes / BLOCK as u64;
        Self {
            blocks,
            nodes: blocks.clamp(64, 65_536) as usize,
        }
    }
}

/// Why an operation was refused. It has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FsError {
    #[error("there is no such file or directory")]
    NotFound,
    #[error("it exists already")]
    Exists,
    #[error("it is not a directory")]
    NotDirectory,
    #[error("it is a directory")]
    IsDirectory,
    #[error("the directory is not empty")]
    NotEmpty,
    #[error("the quota is used up")]
    NoSpace,
    #[error("a file cannot be that large")]
    TooLarge,
    #[error("the file cannot have more names")]
    TooManyNames,
    #[error("a name or path is too long")]
    NameTooLong,
    #[error("a path is not UTF-8")]
    NotUtf8,
    #[error("the path leads out of where it begins")]
    Outside,
    #[error("the arguments make no sense")]
    Invalid,
    #[error("directories have one name")]
    NotPermitted,
}

/// When something happened to a file, in nanoseconds since 1970, or 0 if nobody may know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    /// As it was made or last set; reading does not change it.
    pub(crate) accessed: u64,
    pub(crate) modified: u64,
    pub(crate) changed: u64,
}

impl Times {
    fn all(now: u64) -> Self {
        Self {
            accessed: now,
            modified: now,
            changed: now,
        }
    }

    fn write(&mut self, now: u64) {
        self.modified = now;
        self.changed = now;
    }
}

/// What is known of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) ino: Ino,
    pub(crate) is_directory: bool,
    pub(crate) names: u32,
    pub(crate) len: u64,
    pub(crate) times: Times,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Opening {
    pub(crate) create: bool,
    pub(crate) exclusive: bool,
    pub(crate) truncate: bool,
    pub(crate) directory: bool,
    pub(crate) write: bool,
}

#[derive(Clone, Debug)]
struct Node {
    kind: Kind,
    times: Times,
    /// How many names lead here; the top directory counts one.
    names: u32,
    /// How many descriptors are open. What is open lives on when its last name is gone.
    opens: u32,
}

#[derive(Clone, Debug)]
enum Kind {
    File(Content),
    Directory(Directory),
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct FileSystem {
    quota: Quota,
    nodes: BTreeMap<Ino, Node>,
    next: u64,
    /// Blocks of all files together.
    blocks: u64,
    /// Names in all directories together.
    names: usize,
}

impl FileSystem {
    /// With an empty top directory.
    pub(crate) fn new(quota: Quota) -> Self {
        let top = Node {
            kind: Kind::Directory(Directory::default()),
            times: Times::default(),
            names: 1,
            opens: 0,
        };
        Self {
            quota,
            nodes: BTreeMap::from([(ROOT, top)]),
            next: ROOT.0 + 1,
            blocks: 0,
            names: 0,
        }
    }

    fn node(&self, ino: Ino) -> Result<&Node, FsError> {
        self.nodes.get(&ino).ok_or(FsError::NotFound)
    }

    fn node_mut(&mut self, ino: Ino) -> Result<&mut Node, FsError> {
        self.nodes.get_mut(&ino).ok_or(FsError::NotFound)
    }

    fn directory(&self, ino: Ino) -> Result<&Directory, FsError> {
        match &self.node(ino)?.kind {
            Kind::Directory(directory) => Ok(directory),
            Kind::File(_) => Err(FsError::NotDirectory),
        }
    }

    /// Something may have become unreachable.
    fn settle(&mut self, ino: Ino) {
        let gone = |node: &Node| node.names == 0 && node.opens == 0;
        if self.nodes.get(&ino).is_some_and(gone)
            && let Some(Node {
                kind: Kind::File(content),
                ..
            }) = self.nodes.remove(&ino)
        {
            self.blocks -= content.blocks();
        }
    }

    /// Counts one more descriptor.
    pub(crate) fn hold(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.opens += 1;
        }
    }

    /// Counts one descriptor less; what has no name goes with its last one.
    pub(crate) fn release(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.opens = node.opens.saturating_sub(1);
        }
        self.settle(ino);
    }

    pub(crate) fn stat(&self, ino: Ino) -> Result<Stat, FsError> {
        let node = self.node(ino)?;
        let (is_directory, len) = match &node.kind {
            Kind::File(content) => (false, content.len()),
            Kind::Directory(_) => (true, 0),
        };
        Ok(Stat {
            ino,
            is_directory,
            names: node.names,
            len,
            times: node.times,
        })
    }

    /// Sets the times that are given.
    pub(crate) fn set_times(
        &mut self,
        ino: Ino,
        accessed: Option<u64>,
        modified: Option<u64>,
        now: u64,
    ) -> Result<(), FsError> {
        let times = &mut self.node_mut(ino)?.times;
        times.accessed = accessed.unwrap_or(times.accessed);
        times.modified = modified.unwrap_or(times.modified);
        times.changed = now;
        Ok(())
    }

    /// Copies what the file has from `offset` on; gives how much that is.
    pub(crate) fn read(&self, ino: Ino, offset: u64, out: &mut [u8]) -> Result<usize, FsError> {
        match &self.node(ino)?.kind {
            Kind::File(content) => Ok(content.read(offset, out)),
            Kind::Directory(_) => Err(FsError::IsDirectory),
        }
    }

    /// Writes as much of `bytes` as the quota allows; gives how much that is, which is nothing only if
    /// `bytes` is empty.
    pub(crate) fn write(
        &mut self,
        ino: Ino,
        offset: u64,
        bytes: &[u8],
        now: u64,
    ) -> Result<usize, FsError> {
        let room = self.quota.blocks - self.blocks;
        let node = self.nodes.get_mut(&ino).ok_or(FsError::NotFound)?;
        let Kind::File(content) = &mut node.kind else {
            return Err(FsError::IsDirectory);
        };
        let left = FILE_BYTES_MAX.saturating_sub(offset);
        if left == 0 && !bytes.is_empty() {
            return Err(FsError::TooLarge);
        }
        let len = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let before = content.blocks();
        let written = content.write(offset, &bytes[..len], room);
        self.blocks += content.blocks() - before;
        if written == 0 && !bytes.is_empty() {
            return Err(FsError::NoSpace);
        }
        if written > 0 {
            node.times.write(now);
        }
        Ok(written)
    }

    /// Cuts a file, or makes it longer without using any space.
    pub(crate) fn set_len(&mut self, ino: Ino, len: u64, now: u64) -> Result<(), FsError> {
        let node = self.nodes.get_mut(&ino).ok_or(FsError::NotFound)?;
        let Kind::File(content) = &mut node.kind else {
            return Err(FsError::IsDirectory);
        };
        if len > FILE_BYTES_MAX {
            return Err(FsError::TooLarge);
        }
        let before = content.blocks();
        content.set_len(len);
        self.blocks -= before - content.blocks();
        node.times.write(now);
        Ok(())
    }

    /// Makes the file long enough and takes the space for this part of it.
    pub(crate) fn allocate(
        &mut self,
        ino: Ino,
        offset: u64,
        len: u64,
        now: u64,
    ) -> Result<(), FsError> {
        let room = self.quota.blocks - self.blocks;
        let node = self.nodes.get_mut(&ino).ok_or(FsError::NotFound)?;
        let Kind::File(content) = &mut node.kind else {
            return Err(FsError::IsDirectory);
        };
        if len == 0 {
            return Err(FsError::Invalid);
        }
        let end = offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX);
        let end = end.ok_or(FsError::TooLarge)?;
        let before = content.blocks();
        if !content.allocate(offset, end, room) {
            return Err(FsError::NoSpace);
        }
        self.blocks += content.blocks() - before;
        node.times.changed = now;
        Ok(())
    }
}

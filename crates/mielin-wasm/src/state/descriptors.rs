//! The descriptors of a program.

use alloc::vec::Vec;

use super::HostState;
use crate::filesystem::{FileSystem, Ino, Quota, ROOT};

/// The most descriptors that can be open.
pub(crate) const DESCRIPTORS_MAX: usize = 1024;

/// The standard streams.
pub(crate) const STREAMS: usize = 3;

/// An open descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) what: Object,
    /// WASI `fdflags`.
    pub(crate) flags: u16,
    /// WASI `rights`, which a program may only narrow.
    pub(crate) rights: u64,
    /// The rights that what is opened from here can have.
    pub(crate) inheriting: u64,
}

/// What a descriptor stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    Stream(Stream),
    File {
        ino: Ino,
        position: u64,
    },
    Directory {
        ino: Ino,
        /// `/data` as the program was started with it.
        preopened: bool,
    },
}

/// A standard stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdin,
    Stdout,
    Stderr,
}

/// WASI `fdflags::append`. The log only grows.
pub(crate) const FDFLAGS_APPEND: u16 = 1;

/// WASI `rights`. Without `FD_SEEK` and `FD_TELL` wasi-libc takes a character device for a terminal
/// and buffers it by lines, so that output appears as it is made.
pub(crate) mod rights {
    pub(crate) const FD_DATASYNC: u64 = 1;
    pub(crate) const FD_READ: u64 = 1 << 1;
    pub(crate) const FD_SEEK: u64 = 1 << 2;
    pub(crate) const FD_FDSTAT_SET_FLAGS: u64 = 1 << 3;
    pub(crate) const FD_SYNC: u64 = 1 << 4;
    pub(crate) const FD_TELL: u64 = 1 << 5;
    pub(crate) const FD_WRITE: u64 = 1 << 6;
    pub(crate) const FD_ADVISE: u64 = 1 << 7;
    pub(crate) const FD_ALLOCATE: u64 = 1 << 8;
    pub(crate) const PATH_CREATE_DIRECTORY: u64 = 1 << 9;
    pub(crate) const PATH_CREATE_FILE: u64 = 1 << 10;
    pub(crate) const PATH_LINK_SOURCE: u64 = 1 << 11;
    pub(crate) const PATH_LINK_TARGET: u64 = 1 << 12;
    pub(crate) const PATH_OPEN: u64 = 1 << 13;
    pub(crate) const FD_READDIR: u64 = 1 << 14;
    pub(crate) const PATH_READLINK: u64 = 1 << 15;
    pub(crate) const PATH_RENAME_SOURCE: u64 = 1 << 16;
    pub(crate) const PATH_RENAME_TARGET: u64 = 1 << 17;
    pub(crate) const PATH_FILESTAT_GET: u64 = 1 << 18;
    pub(crate) const PATH_FILESTAT_SET_SIZE: u64 = 1 << 19;
    pub(crate) const PATH_FILESTAT_SET_TIMES: u64 = 1 << 20;
    pub(crate) const FD_FILESTAT_GET: u64 = 1 << 21;
    pub(crate) const FD_FILESTAT_SET_SIZE: u64 = 1 << 22;
    pub(crate) const FD_FILESTAT_SET_TIMES: u64 = 1 << 23;
    pub(crate) const PATH_SYMLINK: u64 = 1 << 24;
    pub(crate) const PATH_REMOVE_DIRECTORY: u64 = 1 << 25;
    pub(crate) const PATH_UNLINK_FILE: u64 = 1 << 26;
    pub(crate) const POLL_FD_READWRITE: u64 = 1 << 27;

    /// What every descriptor can have.
    pub(crate) const COMMON: u64 = FD_FDSTAT_SET_FLAGS | FD_FILESTAT_GET | POLL_FD_READWRITE;
    /// What one of a file can have.
    pub(crate) const FILE: u64 = COMMON
        | FD_DATASYNC
        | FD_READ
        | FD_SEEK
        | FD_SYNC
        | FD_TELL
        | FD_WRITE
        | FD_ADVISE
        | FD_ALLOCATE
        | FD_FILESTAT_SET_SIZE
        | FD_FILESTAT_SET_TIMES;
    /// What one of a directory can have.
    pub(crate) const DIRECTORY: u64 = COMMON
        | FD_DATASYNC
        | FD_SYNC
        | PATH_CREATE_DIRECTORY
        | PATH_CREATE_FILE
        | PATH_LINK_SOURCE
        | PATH_LINK_TARGET
        | PATH_OPEN
        | FD_READDIR
        | PATH_READLINK
        | PATH_RENAME_SOURCE
        | PATH_RENAME_TARGET
        | PATH_FILESTAT_GET
        | PATH_FILESTAT_SET_SIZE
        | PATH_FILESTAT_SET_TIMES
        | FD_FILESTAT_SET_TIMES
        | PATH_SYMLINK
        | PATH_REMOVE_DIRECTORY
        | PATH_UNLINK_FILE;
}

impl Descriptor {
    /// A standard stream as it is when a program starts.
    pub(crate) fn of_stream(stream: Stream) -> Self {
        let flags = if stream == Stream::Stdin {
            0
        } else {
            FDFLAGS_APPEND
        };
        let what = Object::Stream(stream);
        Self {
            what,
            flags,
            rights: what.rights(),
            inheriting: what.inheriting(),
        }
    }

    pub(crate) fn standard() -> Vec<Option<Self>> {
        [Stream::Stdin, Stream::Stdout, Stream::Stderr]
            .map(|stream| Some(Self::of_stream(stream)))
            .into()
    }

    fn top() -> Self {
        let what = Object::Directory {
            ino: ROOT,
            preopened: true,
        };
        Self {
            what,
            flags: 0,
            rights: what.rights(),
            inheriting: what.inheriting(),
        }
    }
}

impl Object {
    /// The widest rights that a descriptor of it can have.
    pub(crate) fn rights(self) -> u64 {
        match self {
            Self::Stream(Stream::Stdin) => rights::FD_READ | rights::COMMON,
            Self::Stream(_) => rights::FD_WRITE | rights::COMMON,
            Self::File { .. } => rights::FILE,
            Self::Directory { .. } => rights::DIRECTORY,
        }
    }

    /// The widest rights of what is opened from it.
    pub(crate) fn inheriting(self) -> u64 {
        match self {
            Self::Directory { .. } => rights::FILE | rights::DIRECTORY,
            Self::Stream(_) | Self::File { .. } => 0,
        }
    }

    /// The file or directory.
    pub(crate) fn ino(self) -> Option<Ino> {
        match self {
            Self::Stream(_) => None,
            Self::File { ino, .. } | Self::Directory { ino, .. } => Some(ino),
        }
    }
}

impl HostState {
    /// Makes `/data`, empty, if it is granted, and opens it.
    pub(super) fn make_data(&mut self) {
        self.descriptors.truncate(STREAMS);
        self.data = self.grants.data_bytes().map(|bytes| {
            let mut files = FileSystem::new(Quota::of_bytes(bytes));
            files.hold(ROOT);
            self.descriptors.push(Some(Descriptor::top()));
            files
        });
    }

    pub(crate) fn has_free_descriptor(&self) -> bool {
        self.descriptors.len() < DESCRIPTORS_MAX || self.descriptors.contains(&None)
    }

    /// Gives a descriptor the lowest number that is free; none if all are taken.
    pub(crate) fn enter(&mut self, descriptor: Descriptor) -> Option<u32> {
        let free = self.descriptors.iter().position(Option::is_none);
        let index = free.unwrap_or(self.descriptors.len());
        if index >= DESCRIPTORS_MAX {
            return None;
        }
        self.set(index, Some(descriptor));
        u32::try_from(index).ok()
    }

    pub(super) fn set(&mut self, index: usize, descriptor: Option<Descriptor>) {
        if self.descriptors.len() <= index {
            self.descriptors.resize(index + 1, None);
        }
        self.descriptors[index] = descriptor;
    }

    /// Closes a descriptor; gives what it was.
    pub(crate) fn close(&mut self, index: usize) -> Option<Descriptor> {
        let descriptor = self.descriptors.get_mut(index)?.take()?;
        if let (Some(files), Some(ino)) = (&mut self.data, descriptor.what.ino()) {
            files.release(ino);
        }
        self.trim();
        Some(descriptor)
    }

    /// Puts an open descriptor in place of another one.
    pub(crate) fn renumber(&mut self, from: usize, to: usize) {
        if from != to {
            self.close(to);
            let moved = self.descriptors.get_mut(from).and_then(Option::take);
            self.set(to, moved);
            self.trim();
        }
    }

    fn trim(&mut self) {
        while self.descriptors.len() > STREAMS && self.descriptors.last() == Some(&None) {
            self.descriptors.pop();
        }
    }
}

//! The names in a directory, in the order in which they were given.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::ops::Bound;

use super::{FileSystem, FsError, Ino, ROOT};

/// The numbers of `.` and `..`, before those of all entries.
const SELF: u64 = 1;
const PARENT: u64 = 2;
pub(super) const FIRST: u64 = 3;

/// Each entry has a number that stays the same as long as it is there, so that whoever lists a
/// directory that changes meanwhile sees everything that stays once.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    pub(super) parent: Ino,
    /// The number of the next entry.
    pub(super) next: u64,
    entries: BTreeMap<Arc<str>, (u64, Ino)>,
    order: BTreeMap<u64, Arc<str>>,
}

impl Default for Directory {
    fn default() -> Self {
        Self::within(ROOT)
    }
}

impl Directory {
    pub(super) fn within(parent: Ino) -> Self {
        Self {
            parent,
            next: FIRST,
            entries: BTreeMap::new(),
            order: BTreeMap::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn find(&self, name: &str) -> Option<Ino> {
        self.entries.get(name).map(|(_, ino)| *ino)
    }

    /// Adds a name that is not there.
    pub(super) fn insert(&mut self, name: &str, ino: Ino) {
        let number = self.next;
        self.next += 1;
        self.put(number, name, ino);
    }

    pub(super) fn put(&mut self, number: u64, name: &str, ino: Ino) {
        let name: Arc<str> = name.into();
        self.entries.insert(Arc::clone(&name), (number, ino));
        self.order.insert(number, name);
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Ino> {
        let (number, ino) = self.entries.remove(name)?;
        self.order.remove(&number);
        Some(ino)
    }

    /// The entries with their numbers, in the order of these.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &str, Ino)> {
        self.after(0)
    }

    fn after(&self, number: u64) -> impl Iterator<Item = (u64, &str, Ino)> {
        let range = self
            .order
            .range((Bound::Excluded(number), Bound::Unbounded));
        range.filter_map(|(number, name)| Some((*number, &**name, self.find(name)?)))
    }
}

/// An entry of a directory as it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listed<'a> {
    /// From here the listing goes on behind this entry.
    pub(crate) number: u64,
    pub(crate) name: &'a str,
    pub(crate) ino: Ino,
    pub(crate) is_directory: bool,
}

impl FileSystem {
    /// The entries behind the one with this number, `.` and `..` before all others; 0 begins.
    pub(crate) fn list(
        &self,
        ino: Ino,
        after: u64,
    ) -> Result<impl Iterator<Item = Listed<'_>>, FsError> {
        let directory = self.directory(ino)?;
        let dots = [(SELF, ".", ino), (PARENT, "..", directory.parent)];
        let dots = dots.into_iter().filter(move |(number, ..)| *number > after);
        let entries = dots.chain(directory.after(after));
        Ok(entries.map(|(number, name, ino)| Listed {
            number,
            name,
            ino,
            is_directory: self.directory(ino).is_ok(),
        }))
    }
}

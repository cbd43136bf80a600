//! Giving, changing and taking names.

use super::content::Content;
use super::directory::Directory;
use super::path::Place;
use super::{
    FileSystem, FsError, Ino, Kind, NAMES_OF_FILE_MAX, Node, Opening, Path, ROOT, Stat, Times,
};

impl FileSystem {
    /// Finds or makes what a path names, and counts a descriptor for it.
    pub(crate) fn open(
        &mut self,
        start: Ino,
        path: Path<'_>,
        how: Opening,
        now: u64,
    ) -> Result<Ino, FsError> {
        let ino = match self.resolve(start, path)? {
            Place::Itself(ino) => self.open_present(ino, false, how, now)?,
            Place::Named { slash: true, .. } if how.create => return Err(FsError::IsDirectory),
            Place::Named {
                parent,
                name,
                slash,
            } => match self.directory(parent)?.find(name) {
                Some(ino) => self.open_present(ino, slash, how, now)?,
                None if !how.create => return Err(FsError::NotFound),
                None => self.make(parent, name, Kind::File(Content::default()), now)?,
            },
        };
        self.hold(ino);
        Ok(ino)
    }

    fn open_present(
        &mut self,
        ino: Ino,
        slash: bool,
        how: Opening,
        now: u64,
    ) -> Result<Ino, FsError> {
        if how.create && how.exclusive {
            return Err(FsError::Exists);
        }
        match self.node(ino)?.kind {
            Kind::Directory(_) if how.create || how.write || how.truncate => {
                return Err(FsError::IsDirectory);
            }
            Kind::File(_) if how.directory || slash => return Err(FsError::NotDirectory),
            Kind::File(_) if how.truncate => self.set_len(ino, 0, now)?,
            _ => {}
        }
        Ok(ino)
    }

    pub(crate) fn stat_at(&self, start: Ino, path: Path<'_>) -> Result<Stat, FsError> {
        self.stat(self.find(start, path)?)
    }

    /// What a path names.
    pub(crate) fn find(&self, start: Ino, path: Path<'_>) -> Result<Ino, FsError> {
        match self.resolve(start, path)? {
            Place::Itself(ino) => Ok(ino),
            Place::Named {
                parent,
                name,
                slash,
            } => {
                let ino = self.directory(parent)?.find(name);
                let ino = ino.ok_or(FsError::NotFound)?;
                if slash {
                    self.directory(ino)?;
                }
                Ok(ino)
            }
        }
    }

    pub(crate) fn make_directory(
        &mut self,
        start: Ino,
        path: Path<'_>,
        now: u64,
    ) -> Result<(), FsError> {
        let Place::Named { parent, name, .. } = self.resolve(start, path)? else {
            return Err(FsError::Exists);
        };
        if self.directory(parent)?.find(name).is_some() {
            return Err(FsError::Exists);
        }
        let directory = Directory::within(parent);
        self.make(parent, name, Kind::Directory(directory), now)?;
        Ok(())
    }

    pub(crate) fn remove_directory(
        &mut self,
        start: Ino,
        path: Path<'_>,
        now: u64,
    ) -> Result<(), FsError> {
        let Place::Named { parent, name, .. } = self.resolve(start, path)? else {
            return Err(FsError::Invalid);
        };
        let ino = self.directory(parent)?.find(name);
        if !self.directory(ino.ok_or(FsError::NotFound)?)?.is_empty() {
            return Err(FsError::NotEmpty);
        }
        self.take(parent, name, now)
    }

    pub(crate) fn remove_file(
        &mut self,
        start: Ino,
        path: Path<'_>,
        now: u64,
    ) -> Result<(), FsError> {
        let Place::Named {
            parent,
            name,
            slash,
        } = self.resolve(start, path)?
        else {
            return Err(FsError::IsDirectory);
        };
        let ino = self.directory(parent)?.find(name);
        match self.node(ino.ok_or(FsError::NotFound)?)?.kind {
            Kind::Directory(_) => Err(FsError::IsDirectory),
            Kind::File(_) if slash => Err(FsError::NotDirectory),
            Kind::File(_) => self.take(parent, name, now),
        }
    }

    /// Gives a file one more name.
    pub(crate) fn link(
        &mut self,
        from: (Ino, Path<'_>),
        to: (Ino, Path<'_>),
        now: u64,
    ) -> Result<(), FsError> {
        let ino = self.find(from.0, from.1)?;
        let place = self.resolve(to.0, to.1)?;
        let Place::Named {
            parent,
            name,
            slash,
        } = place
        else {
            return Err(FsError::Exists);
        };
        if self.directory(parent)?.find(name).is_some() {
            return Err(FsError::Exists);
        }
        if slash {
            return Err(FsError::NotFound);
        }
        let node = self.node(ino)?;
        if matches!(node.kind, Kind::Directory(_)) {
            return Err(FsError::NotPermitted);
        }
        if node.names >= NAMES_OF_FILE_MAX {
            return Err(FsError::TooManyNames);
        }
        self.check_name(parent)?;
        self.give(parent, name, ino, now)
    }

    /// Gives what has the first name the second, in place of what had that.
    pub(crate) fn rename(
        &mut self,
        from: (Ino, Path<'_>),
        to: (Ino, Path<'_>),
        now: u64,
    ) -> Result<(), FsError> {
        let from = self.resolve(from.0, from.1)?;
        let to = self.resolve(to.0, to.1)?;
        let (
            Place::Named {
                parent,
                name,
                slash,
            },
            Place::Named {
                parent: new_parent,
                name: new_name,
                slash: new_slash,
            },
        ) = (from, to)
        else {
            return Err(FsError::Invalid);
        };
        let ino = self.directory(parent)?.find(name);
        let ino = ino.ok_or(FsError::NotFound)?;
        let is_directory = self.directory(ino).is_ok();
        if !is_directory && (slash || new_slash) {
            return Err(FsError::NotDirectory);
        }
        if is_directory && self.is_within(new_parent, ino) {
            return Err(FsError::Invalid);
        }
        match self.directory(new_parent)?.find(new_name) {
            Some(old) if old == ino => return Ok(()),
            // Also if a file would replace it: so Linux says.
            Some(old) if self.is_within(parent, old) => return Err(FsError::NotEmpty),
            Some(old) => {
                self.check_replace(is_directory, old)?;
                self.check_directory(new_parent)?;
                self.take(new_parent, new_name, now)?;
            }
            // The number of names stays the same.
            None => self.check_directory(new_parent)?,
        }
        self.move_name((parent, name), (new_parent, new_name), now)
    }

    fn move_name(
        &mut self,
        (parent, name): (Ino, &str),
        (new_parent, new_name): (Ino, &str),
        now: u64,
    ) -> Result<(), FsError> {
        let directory = self.directory_mut(parent, now)?;
        let ino = directory.remove(name).ok_or(FsError::NotFound)?;
        let directory = self.directory_mut(new_parent, now)?;
        directory.insert(new_name, ino);
        let node = self.node_mut(ino)?;
        node.times.changed = now;
        if let Kind::Directory(directory) = &mut node.kind {
            directory.parent = new_parent;
        }
        Ok(())
    }

    /// Whether something may take the place of `old`.
    fn check_replace(&self, is_directory: bool, old: Ino) -> Result<(), FsError> {
        match (&self.node(old)?.kind, is_directory) {
            (Kind::Directory(old), true) if old.is_empty() => Ok(()),
            (Kind::Directory(_), true) => Err(FsError::NotEmpty),
            (Kind::Directory(_), false) => Err(FsError::IsDirectory),
            (Kind::File(_), true) => Err(FsError::NotDirectory),
            (Kind::File(_), false) => Ok(()),
        }
    }

    /// Whether a directory is another one or somewhere in it.
    fn is_within(&self, mut ino: Ino, ancestor: Ino) -> bool {
        loop {
            if ino == ancestor {
                return true;
            }
            match self.directory(ino) {
                Ok(directory) if ino != ROOT => ino = directory.parent,
                _ => return false,
            }
        }
    }

    fn directory_mut(&mut self, ino: Ino, now: u64) -> Result<&mut Directory, FsError> {
        let node = self.node_mut(ino)?;
        match &mut node.kind {
            Kind::Directory(directory) => {
                node.times.write(now);
                Ok(directory)
            }
            Kind::File(_) => Err(FsError::NotDirectory),
        }
    }

    /// Whether a directory can take a name: it was not removed, and has numbers left.
    fn check_directory(&self, parent: Ino) -> Result<(), FsError> {
        if self.node(parent)?.names == 0 {
            return Err(FsError::NotFound);
        }
        if self.directory(parent)?.next == u64::MAX {
            return Err(FsError::NoSpace);
        }
        Ok(())
    }

    /// The same, and whether there may be one more name.
    fn check_name(&self, parent: Ino) -> Result<(), FsError> {
        self.check_directory(parent)?;
        if self.names >= self.quota.nodes {
            return Err(FsError::NoSpace);
        }
        Ok(())
    }

    fn make(&mut self, parent: Ino, name: &str, kind: Kind, now: u64) -> Result<Ino, FsError> {
        self.check_name(parent)?;
        if self.nodes.len() >= self.quota.nodes || self.next == u64::MAX {
            return Err(FsError::NoSpace);
        }
        let ino = Ino(self.next);
        self.next += 1;
        let node = Node {
            kind,
            times: Times::all(now),
            names: 0,
            opens: 0,
        };
        self.nodes.insert(ino, node);
        self.give(parent, name, ino, now)?;
        Ok(ino)
    }

    fn give(&mut self, parent: Ino, name: &str, ino: Ino, now: u64) -> Result<(), FsError> {
        self.directory_mut(parent, now)?.insert(name, ino);
        let node = self.node_mut(ino)?;
        node.names += 1;
        node.times.changed = now;
        self.names += 1;
        Ok(())
    }

    fn take(&mut self, parent: Ino, name: &str, now: u64) -> Result<(), FsError> {
        let removed = self.directory_mut(parent, now)?.remove(name);
        let ino = removed.ok_or(FsError::NotFound)?;
        self.names -= 1;
        let node = self.node_mut(ino)?;
        node.names -= 1;
        node.times.changed = now;
        if let Kind::Directory(directory) = &mut node.kind {
            // It may be open, and outlive the directory that it was in.
            directory.parent = ROOT;
        }
        self.settle(ino);
        Ok(())
    }
}

//! The data directory of a node: versioned, private to its user, and written
//! so that a crash leaves either the old or the new content of a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The version of the layout that this program reads and writes.
pub const DATA_VERSION: u32 = 1;

const VERSION_FILE: &str = "VERSION";
/// Folders that hold keys.
#[cfg(unix)]
const KEY_FOLDERS: [&str; 2] = ["identity", "authority"];
/// Nobody but the owner.
#[cfg(unix)]
const FOLDER_MODE: u32 = 0o700;
#[cfg(unix)]
const FILE_MODE: u32 = 0o600;
/// No file that this floor reads is near this size.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// An open data directory whose version was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDirectory {
    path: PathBuf,
}

/// Why a data directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It was written by another version of this program.
    #[error("data directory {path} has version {found}, this program needs version {DATA_VERSION}; use another directory or the program that wrote it", path = path.display())]
    OtherVersion {
        /// The directory.
        path: PathBuf,
        /// What its version file says.
        found: String,
    },
    /// Its version file says something else.
    #[error("the version file of data directory {path} says \"{found}\", which is no version", path = path.display())]
    NoVersion {
        /// The directory.
        path: PathBuf,
        /// What its version file says: how it begins, with escapes.
        found: String,
    },
    /// There are files in it, but not those of a node.
    #[error("{path} is not empty and not a data directory of mielin", path = path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// Others may use a file, and it is theirs: it cannot be closed to them.
    #[error("{path} belongs to another user, who may change it; give it to the user of this program, or use another directory", path = path.display())]
    NotOwned {
        /// The file or folder.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl DataDirectory {
    /// Opens the directory at `path`, creating it when it does not exist or is empty. It is closed to others (mode
    /// 0700), and so is what holds keys in it; where that was not so, the log says it.
    ///
    /// # Errors
    /// [`DirectoryError`]; the content of the directory is left as it was.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let directory = DataDirectory {
            path: path.to_path_buf(),
        };
        create_private(path)?;
        match directory.read(VERSION_FILE)? {
            Some(found) => {
                let found = String::from_utf8_lossy(&found);
                let found = found.trim();
                if found.parse() == Ok(DATA_VERSION) {
                    #[cfg(unix)]
                    directory.close_to_others()?;
                    return Ok(directory);
                }
                let path = path.to_path_buf();
                let is_number = !found.is_empty() && found.bytes().all(|b| b.is_ascii_digit());
                // It may be anything, and is shown on a terminal.
                let found = found
                    .chars()
                    .take(32)
                    .flat_map(char::escape_default)
                    .collect();
                Err(if is_number {
                    DirectoryError::OtherVersion { path, found }
                } else {
                    DirectoryError::NoVersion { path, found }
                })
            }
            None => {
                let mut entries = fs::read_dir(path).map_err(failure("list", path))?;
                if entries.next().is_some() {
                    return Err(DirectoryError::Foreign {
                        path: path.to_path_buf(),
                    });
                }
                // An empty directory that somebody made may be open to others.
                #[cfg(unix)]
                set_mode(path, FOLDER_MODE)?;
                directory.write(VERSION_FILE, format!("{DATA_VERSION}\n").as_bytes())?;
                Ok(directory)
            }
        }
    }

    /// Takes from others what they may do with the directory, and the folders that hold keys with what is in them.
    #[cfg(unix)]
    fn close_to_others(&self) -> Result<(), DirectoryError> {
        self.close(&self.path, FOLDER_MODE)?;
        for folder in KEY_FOLDERS {
            let folder = self.path.join(folder);
            if !folder.is_dir() {
                continue;
            }
            self.close(&folder, FOLDER_MODE)?;
            for entry in fs::read_dir(&folder).map_err(failure("list", &folder))? {
                let path = entry.map_err(failure("list", &folder))?.path();
                if path.is_file() {
                    self.close(&path, FILE_MODE)?;
                }
            }
        }
        Ok(())
    }

    #[cfg(unix)]
    fn close(&self, path: &Path, mode: u32) -> Result<(), DirectoryError> {
        use std::os::unix::fs::MetadataExt;
        /// Everybody's but the owner's.
        const OTHERS: u32 = 0o077;
        let found = fs::metadata(path).map_err(failure("look at", path))?;
        if found.mode() & OTHERS == 0 {
            return Ok(());
        }
        if found.uid() != self.user()? {
            return Err(DirectoryError::NotOwned {
                path: path.to_path_buf(),
            });
        }
        set_mode(path, mode)?;
        tracing::warn!(
            "{} was open to other users (mode {:04o}), and is closed to them now: whoever has read a key may use it. If \
             somebody may have, make a new node with another --data-dir, and have this one revoked",
            path.display(),
            found.mode() & 0o7777
        );
        Ok(())
    }

    /// The user to whom belongs what this process makes.
    #[cfg(unix)]
    fn user(&self) -> Result<u32, DirectoryError> {
        use std::os::unix::fs::MetadataExt;
        let path = fresh(&self.path.join("user"));
        let made = write_private(&path, b"").and_then(|()| fs::metadata(&path));
        let _ = fs::remove_file(&path);
        Ok(made.map_err(failure("write", &path))?.uid())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The content of a file, `None` when it does not exist.
    ///
    /// # Errors
    /// [`DirectoryError::Io`], also for a file above 4 MiB.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, DirectoryError> {
        let path = self.path.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failure("open", &path)(error)),
        };
        let mut content = Vec::new();
        file.take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut content)
            .map_err(failure("read", &path))?;
        if content.len() as u64 > FILE_BYTES_MAX {
            return Err(failure("read", &path)(io::ErrorKind::FileTooLarge.into()));
        }
        Ok(Some(content))
    }

    /// Replaces a file (mode 0600) durably: when this returns, a crash can no
    /// longer bring the old content back. Folders in `name` are created.
    ///
    /// # Errors
    /// [`DirectoryError::Io`]; the file has its old content, or, when only the
    /// last step failed, possibly the new one.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), DirectoryError> {
        let path = self.path.join(name);
        let parent = path.parent().unwrap_or(&self.path);
        if parent != self.path {
            create_private(parent)?;
        }
        let fresh = fresh(&path);
        let written = write_private(&fresh, content).and_then(|()| fs::rename(&fresh, &path));
        if let Err(error) = written {
            let _ = fs::remove_file(&fresh);
            return Err(failure("write", &path)(error));
        }
        File::open(parent)
            .and_then(|folder| folder.sync_all())
            .map_err(failure("sync", parent))
    }
}

/// A name for a file that is to take the place of another. It carries the process and a counter, so that two writers
/// never share a half-written file.
fn fresh(path: &Path) -> PathBuf {
    static COUNTER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let serial = COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut fresh = path.to_path_buf().into_os_string();
    fresh.push(format!(".{}-{serial}.new", std::process::id()));
    PathBuf::from(fresh)
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> Result<(), DirectoryError> {
    use std::os::unix::fs::PermissionsExt;
    let closed = fs::set_permissions(path, fs::Permissions::from_mode(mode));
    closed.map_err(failure("close to others", path))
}

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(FILE_MODE);
    }
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn create_private(path: &Path) -> Result<(), DirectoryError> {
    if path.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(FOLDER_MODE);
    }
    builder.create(path).map_err(|error| {
        // It is no directory, or it would not have come to this.
        let error = match error.kind() {
            io::ErrorKind::AlreadyExists => io::ErrorKind::NotADirectory.into(),
            _ => error,
        };
        failure("create", path)(error)
    })
}

fn failure(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
    let path = path.to_path_buf();
    move |source| DirectoryError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("VERSION"), "7\n").unwrap();
        let error = DataDirectory::open(dir.path()).unwrap_err();
        assert!(matches!(error, DirectoryError::OtherVersion { ref found, .. } if found == "7"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(
            fs::read_to_string(dir.path().join("VERSION")).unwrap(),
            "7\n"
        );
    }

    #[test]
    fn what_is_no_version_is_shown_with_escapes() {
        for (content, shown) in [
            (&b""[..], ""),
            (b"\x1b[31m\n7", "\\u{1b}[31m\\n7"),
            (b"one \"more\"", "one \\\"more\\\""),
            (b"\xff\xe2\x80\xae", "\\u{fffd}\\u{202e}"),
            (&[b'x'; 9_999], "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("VERSION"), content).unwrap();
            let error = DataDirectory::open(dir.path()).unwrap_err();
            assert!(
                matches!(error, DirectoryError::NoVersion { ref found, .. } if found == shown),
                "{error}"
            );
        }
    }

    #[test]
    fn a_file_is_no_directory_and_has_none_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        for path in [&file, &file.join("below")] {
            let error = DataDirectory::open(path).unwrap_err();
            let DirectoryError::Io { source, .. } = error else {
                panic!("{error}");
            };
            assert_eq!(source.kind(), io::ErrorKind::NotADirectory);
        }
    }

    #[test]
    fn foreign_files_are_not_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.txt"), "x").unwrap();
        let error = DataDirectory::open(dir.path()).unwrap_err();
        assert!(matches!(error, DirectoryError::Foreign { .. }));
        assert!(!dir.path().join("VERSION").exists());
    }

    #[cfg(unix)]
    #[test]
    fn files_are_private_and_survive_reopening() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("node");
        let directory = DataDirectory::open(&root).unwrap();
        directory.write("identity/node.key", b"one").unwrap();
        directory.write("identity/node.key", b"two").unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&root), 0o700);
        assert_eq!(mode(&root.join("identity")), 0o700);
        assert_eq!(mode(&root.join("identity/node.key")), 0o600);
        let again = DataDirectory::open(&root).unwrap();
        assert_eq!(again.read("identity/node.key").unwrap().unwrap(), b"two");
        assert_eq!(again.read("identity/other").unwrap(), None);
        assert_eq!(fs::read_dir(root.join("identity")).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn what_was_open_to_others_is_closed_or_refused() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("node");
        let directory = DataDirectory::open(&root).unwrap();
        directory.write("identity/node.key", b"one").unwrap();
        directory.write("authority/root.key", b"two").unwrap();
        let set = |name: &str, mode| {
            let path = root.join(name);
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let mode = |name: &str| fs::metadata(root.join(name)).unwrap().mode() & 0o777;
        for open in ["", "identity", "authority"] {
            set(open, 0o777);
        }
        set("identity/node.key", 0o666);
        set("authority/root.key", 0o640);
        DataDirectory::open(&root).unwrap();
        for closed in ["", "identity", "authority"] {
            assert_eq!(mode(closed), 0o700, "{closed}");
        }
        for closed in ["identity/node.key", "authority/root.key"] {
            assert_eq!(mode(closed), 0o600, "{closed}");
        }
        assert_eq!(fs::read_dir(&root).unwrap().count(), 3);
        // Somebody's who may change it, where the test may give it away.
        set("identity/node.key", 0o644);
        if std::os::unix::fs::chown(root.join("identity/node.key"), Some(12_345), None).is_ok() {
            let refused = DataDirectory::open(&root).unwrap_err();
            assert!(matches!(refused, DirectoryError::NotOwned { .. }));
            assert_eq!(mode("identity/node.key"), 0o644);
        }
    }

    #[cfg(unix)]
    #[test]
    fn an_empty_directory_that_somebody_made_is_closed() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        DataDirectory::open(dir.path()).unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o700);
    }
}

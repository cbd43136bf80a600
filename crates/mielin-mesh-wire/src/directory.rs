//! The data directory of a node: versioned, private to its user, and written
//! so that a crash leaves either the old or the new content of a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The version of the layout that this program reads and writes.
pub const DATA_VERSION: u32 = 1;

const VERSION_FILE: &str = "VERSION";
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
    /// Opens the directory at `path`, creating it (mode 0700) when it does not
    /// exist or is empty.
    ///
    /// # Errors
    /// [`DirectoryError`]; the directory is left as it was.
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
                directory.write(VERSION_FILE, format!("{DATA_VERSION}\n").as_bytes())?;
                Ok(directory)
            }
        }
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
        // The name carries the process and a counter, so that two writers never
        // share a half-written file.
        static COUNTER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let serial = COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut fresh = path.clone().into_os_string();
        fresh.push(format!(".{}-{serial}.new", std::process::id()));
        let fresh = PathBuf::from(fresh);
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

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
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
        builder.mode(0o700);
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
}

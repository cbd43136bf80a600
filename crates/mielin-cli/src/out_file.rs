//! Files that commands write, and what may stand in their place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::failure::{Class, Failure};

/// Instead of a file: standard input or output.
pub(crate) const STANDARD: &str = "-";
/// Links that are followed from one to the next, as many as Linux follows (`path_resolution(7)`).
const LINKS_MAX: usize = 40;

/// Whether this is standard output under any name, which must not be a terminal: a `what` is not for reading.
pub(crate) fn is_stdout(path: &Path, what: &str) -> Result<bool, Failure> {
    let stdout = io::stdout();
    if path != Path::new(STANDARD) && !is_open_as(path, &stdout).unwrap_or(false) {
        return Ok(false);
    }
    if stdout.is_terminal() {
        return Err(Failure::usage(format!(
            "a {what} is not for reading, and standard output is a terminal"
        ))
        .hint("name a file with -o, or have another program read it"));
    }
    Ok(true)
}

fn is_open_as(path: &Path, open: impl AsFd) -> io::Result<bool> {
    Ok(is_same(&fs::metadata(path)?, &duplicate(open)?.metadata()?))
}

fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn duplicate(open: impl AsFd) -> io::Result<File> {
    Ok(open.as_fd().try_clone_to_owned()?.into())
}

/// A file in the making: it is put in its place when it is whole and on the disk. What exists and is no file, as a pipe or
/// a device, is never replaced but written to.
pub(crate) struct OutFile {
    name: String,
    to: To,
}

enum To {
    /// Beside its place; nobody but its user can read it.
    Place(NamedTempFile, PathBuf),
    Direct(File),
}

impl OutFile {
    /// Standard output, if [`is_stdout`] has said that it is what is meant.
    pub(crate) fn stdout() -> Result<OutFile, Failure> {
        let name = "standard output".to_owned();
        let file = duplicate(io::stdout()).map_err(|error| cannot(&name, &error))?;
        Ok(OutFile {
            name,
            to: To::Direct(file),
        })
    }

    /// Opens what is at `path`, or makes a file that is to come there.
    pub(crate) fn at(path: &Path) -> Result<OutFile, Failure> {
        let name = path.display().to_string();
        let there = match fs::metadata(path) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(cannot(&name, &error)),
        };
        let is_folder = there.as_ref().is_some_and(fs::Metadata::is_dir);
        if is_folder || path.file_name().is_none() {
            return Err(
                Failure::usage(format!("{name} is a directory")).hint("name a file with -o")
            );
        }
        let to = open(path, there.as_ref()).map_err(|error| cannot(&name, &error))?;
        Ok(OutFile { name, to })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = match &mut self.to {
            To::Place(file, _) => file.write_all(bytes),
            To::Direct(file) => file.write_all(bytes),
        };
        written.map_err(|error| cannot(&self.name, &error))
    }

    /// All of it has been written.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let To::Place(file, path) = self.to else {
            return Ok(());
        };
        let put = || {
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            File::open(folder(&path))?.sync_all()
        };
        put().map_err(|error| cannot(&self.name, &error))
    }
}

fn open(path: &Path, there: Option<&fs::Metadata>) -> io::Result<To> {
    let place = behind_links(path)?;
    if let Some(there) = there {
        // What an open file is called in `/proc` need not be its path any more.
        let is_there = |found: fs::Metadata| is_same(&found, there);
        if !there.is_file() || !fs::symlink_metadata(&place).is_ok_and(is_there) {
            let file = OpenOptions::new().write(true).truncate(true).open(path);
            return file.map(To::Direct);
        }
    }
    let file = NamedTempFile::new_in(folder(&place))?;
    Ok(To::Place(file, place))
}

/// Where the links lead, also if nothing is there.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(next) = fs::read_link(&path) else {
            return Ok(path);
        };
        path = folder(&path).join(next);
    }
    Err(io::ErrorKind::NotFound.into())
}

fn folder(path: &Path) -> &Path {
    let above = path.parent();
    above
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn cannot(name: &str, error: &io::Error) -> Failure {
    let what = format!("cannot write to {name}");
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::of(Class::Internal, format!("{what}: nobody reads it any more"))
            .hint("it is cut off where it arrived; have it read to its end");
    }
    Failure::io(what, error)
}

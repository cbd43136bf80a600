//! What an agent wrote: two append-only byte streams, and the bounded list of lines that nodes wrote about it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use mielin_mesh_core::AgentId;
use tokio::sync::watch;

use crate::error::CellsError;
use crate::ledger::Ledger;
use crate::lock::lock;
use crate::private;
use crate::report::{HostLine, LogKind};
use crate::watched::Watched;

/// Host lines kept per agent; the oldest go first.
const HOST_LINES_MAX: usize = 256;
/// Bytes kept of one host line.
const HOST_LINE_LEN_MAX: usize = 1024;

const STDOUT: &str = "stdout";
const STDERR: &str = "stderr";

/// The logs of one agent.
pub(crate) struct Logs {
    pub(crate) stdout: Log,
    pub(crate) stderr: Log,
    lines: Mutex<VecDeque<HostLine>>,
    /// `None` where everything is kept in memory, and once the directory is deleted.
    home: Mutex<Option<Home>>,
}

/// Where a node keeps what it has of an agent.
#[derive(Clone)]
pub(crate) struct Home {
    pub(crate) agent: AgentId,
    /// Where the directories of all agents are.
    pub(crate) directories: Arc<Path>,
    pub(crate) ledger: Arc<Ledger>,
}

impl Home {
    /// The directory of the agent's logs, which is made when there is something to put into it.
    pub(crate) fn directory(&self) -> PathBuf {
        self.directories.join(self.agent.to_string())
    }
}

impl Logs {
    /// Empty logs of a new agent, on the disk if there is a place for them.
    pub(crate) fn new(home: Option<Home>) -> Logs {
        let log = |name| match &home {
            Some(home) => Log::file(home, name, 0),
            None => Log::memory(),
        };
        Logs {
            stdout: log(STDOUT),
            stderr: log(STDERR),
            lines: Mutex::default(),
            home: Mutex::new(home),
        }
    }

    /// The same of one that comes from another node. What an earlier visit left is deleted.
    pub(crate) fn anew(home: Option<Home>) -> io::Result<Logs> {
        if let Some(home) = &home {
            let directory = home.directory();
            for name in [STDOUT, STDERR] {
                match fs::remove_file(directory.join(name)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(Logs::new(home))
    }

    /// The logs that an earlier run of the node left. One that is not there was empty.
    pub(crate) fn open(home: Home) -> Logs {
        let log = |name| {
            let metadata = fs::metadata(home.directory().join(name));
            Log::file(&home, name, metadata.map_or(0, |metadata| metadata.len()))
        };
        Logs {
            stdout: log(STDOUT),
            stderr: log(STDERR),
            lines: Mutex::default(),
            home: Mutex::new(Some(home)),
        }
    }

    /// The same of an agent that has ended.
    pub(crate) fn ended(home: Home) -> Logs {
        let logs = Logs::open(home);
        logs.close();
        logs
    }

    pub(crate) fn log(&self, kind: LogKind) -> &Log {
        match kind {
            LogKind::Stdout => &self.stdout,
            LogKind::Stderr => &self.stderr,
        }
    }

    pub(crate) fn note(&self, level: &str, text: &str) {
        let mut end = text.len().min(HOST_LINE_LEN_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let line = HostLine {
            time_ms: now_ms(),
            level: level.to_owned(),
            text: text[..end].to_owned(),
        };
        let mut lines = lock(&self.lines);
        if lines.len() == HOST_LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    pub(crate) fn lines(&self) -> Vec<HostLine> {
        lock(&self.lines).iter().cloned().collect()
    }

    /// Puts the lines of earlier nodes before those of this one.
    pub(crate) fn adopt_lines(&self, earlier: Vec<HostLine>) {
        let mut lines = lock(&self.lines);
        for line in earlier.into_iter().rev() {
            if lines.len() < HOST_LINES_MAX {
                lines.push_front(line);
            }
        }
    }

    /// Appends what fits below `max` to a log, and notes when that is the end of it.
    pub(crate) fn write(&self, kind: LogKind, bytes: &[u8], max: u64) -> Result<usize, LogFull> {
        let log = self.log(kind);
        let had_room = log.len() < max;
        let appended = log.append(bytes, max);
        let name = match kind {
            LogKind::Stdout => STDOUT,
            LogKind::Stderr => STDERR,
        };
        match &appended {
            Ok(_) if had_room && log.len() >= max => {
                let text = format!("{name} is full: the log keeps {max} bytes and nothing after");
                self.note("warn", &text);
            }
            Err(LogFull::Disk { error, first: true }) => {
                self.note("error", &format!("{name} cannot be written: {error}"));
            }
            Ok(_) | Err(_) => {}
        }
        appended
    }

    /// Nothing more will be written.
    pub(crate) fn close(&self) {
        self.rest();
        for log in [&self.stdout, &self.stderr] {
            lock(&log.inner).closed = true;
        }
    }

    /// Nothing is written until further notice: the files are closed, and opened again when they are used.
    pub(crate) fn rest(&self) {
        for log in [&self.stdout, &self.stderr] {
            if let Backing::File(backing) = &mut lock(&log.inner).bytes {
                backing.file = None;
            }
        }
    }

    /// Runs `act` on the agent's directory, which nobody deletes meanwhile; `None` if there is none.
    pub(crate) fn at_home<T>(&self, act: impl FnOnce(&Home) -> T) -> Option<T> {
        lock(&self.home).as_ref().map(act)
    }

    /// Deletes what there is of the agent: logs, record, all.
    pub(crate) fn delete(&self) -> Result<(), CellsError> {
        let mut present = lock(&self.home);
        if let Some(home) = &*present {
            // First, because a directory without it is found and deleted later.
            home.ledger.forget(home.agent)?;
            match fs::remove_dir_all(home.directory()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(CellsError::io("deleting an agent's directory")(error));
                }
                Ok(()) | Err(_) => *present = None,
            }
        }
        Ok(())
    }

    /// The same where nobody waits for it: what stays is found and deleted when the node starts again.
    pub(crate) fn discard(&self) {
        if let Err(error) = self.delete() {
            self.at_home(|home| home.ledger.forget_later(home.agent));
            tracing::warn!(%error, "the files of an agent that is gone could not be deleted");
        }
    }
}

/// One append-only byte stream.
pub(crate) struct Log {
    inner: Mutex<Inner>,
    len: Watched<u64>,
}

struct Inner {
    len: u64,
    closed: bool,
    bytes: Backing,
}

enum Backing {
    Memory(Vec<u8>),
    File(LogFile),
}

struct LogFile {
    directories: Arc<Path>,
    agent: AgentId,
    name: &'static str,
    /// Open from the first byte on, while the agent is active.
    file: Option<File>,
    refused: bool,
}

impl LogFile {
    fn directory(&self) -> PathBuf {
        self.directories.join(self.agent.to_string())
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => {
                let directory = self.directory();
                private::create_folder(&directory)?;
                let mut options = private::create_file();
                let file = options.read(true).open(directory.join(self.name))?;
                self.file.insert(file)
            }
        };
        file.write_all_at(bytes, offset)
    }

    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.file {
            Some(file) => file.read_exact_at(bytes, offset),
            None => File::open(self.directory().join(self.name))?.read_exact_at(bytes, offset),
        }
    }
}

/// Not one byte was taken.
#[derive(Debug)]
pub(crate) enum LogFull {
    /// The log has reached its limit.
    Limit,
    /// The disk refuses the write.
    Disk {
        error: io::Error,
        /// It did so for the first time.
        first: bool,
    },
}

impl Log {
    fn memory() -> Log {
        Log::of(Backing::Memory(Vec::new()), 0)
    }

    fn file(home: &Home, name: &'static str, len: u64) -> Log {
        let file = LogFile {
            directories: Arc::clone(&home.directories),
            agent: home.agent,
            name,
            file: None,
            refused: false,
        };
        Log::of(Backing::File(file), len)
    }

    fn of(bytes: Backing, len: u64) -> Log {
        Log {
            inner: Mutex::new(Inner {
                len,
                closed: false,
                bytes,
            }),
            len: Watched::new(len),
        }
    }

    /// Appends as much as fits below `max`; gives the bytes taken, an error when not one fits.
    ///
    /// A disk that refuses the write counts as a full log: the program sees a short write or no space.
    pub(crate) fn append(&self, bytes: &[u8], max: u64) -> Result<usize, LogFull> {
        let mut inner = lock(&self.inner);
        let room = usize::try_from(max.saturating_sub(inner.len)).unwrap_or(usize::MAX);
        let taken = &bytes[..bytes.len().min(room)];
        if taken.is_empty() {
            return if bytes.is_empty() {
                Ok(0)
            } else {
                Err(LogFull::Limit)
            };
        }
        let (offset, closed) = (inner.len, inner.closed);
        match &mut inner.bytes {
            Backing::Memory(log) => log.extend_from_slice(taken),
            Backing::File(file) => {
                let written = match closed {
                    false => file.write(taken, offset),
                    true => Err(io::Error::other("the log is closed")),
                };
                written.map_err(|error| LogFull::Disk {
                    error,
                    first: !std::mem::replace(&mut file.refused, true),
                })?;
            }
        }
        inner.len += taken.len() as u64;
        let len = inner.len;
        self.len.change(|present| {
            *present = len;
            true
        });
        Ok(taken.len())
    }

    /// Up to `max` bytes from `offset`; empty at and beyond the end.
    pub(crate) fn read(&self, offset: u64, max: usize) -> io::Result<Bytes> {
        let inner = lock(&self.inner);
        let available = usize::try_from(inner.len.saturating_sub(offset))
            .unwrap_or(usize::MAX)
            .min(max);
        if available == 0 {
            return Ok(Bytes::new());
        }
        match &inner.bytes {
            Backing::Memory(log) => {
                let begin = usize::try_from(offset).map_err(io::Error::other)?;
                Ok(Bytes::copy_from_slice(&log[begin..begin + available]))
            }
            Backing::File(file) => {
                let mut bytes = vec![0; available];
                file.read(&mut bytes, offset)?;
                Ok(bytes.into())
            }
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len.with(|len| *len)
    }

    /// Sees every change of the length.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.len.watch()
    }
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn home(directory: &Path) -> Home {
        Home {
            agent: AgentId([1; 16]),
            directories: directory.into(),
            ledger: Arc::new(Ledger::open(None).unwrap()),
        }
    }

    #[test]
    fn both_backings_keep_every_byte_and_stop_at_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        for logs in [Logs::new(None), Logs::new(Some(home(directory.path())))] {
            let log = logs.log(LogKind::Stdout);
            let write = |bytes| logs.write(LogKind::Stdout, bytes, 10);
            assert_eq!(write(b"hello ").unwrap(), 6);
            logs.rest();
            assert!(logs.lines().is_empty());
            assert_eq!(write(b"world").unwrap(), 4);
            assert!(matches!(write(b"d"), Err(LogFull::Limit)));
            assert_eq!(write(b"").unwrap(), 0);
            assert_eq!(log.len(), 10);
            let lines = logs.lines();
            assert_eq!(lines.len(), 1, "it is noted once");
            assert_eq!(
                lines[0].text,
                "stdout is full: the log keeps 10 bytes and nothing after"
            );
            // What rests or has ended is read from its closed files.
            logs.rest();
            assert_eq!(write(b"").unwrap(), 0);
            assert_eq!(&log.read(0, 5).unwrap()[..], b"hello");
            logs.close();
            assert_eq!(&log.read(0, 100).unwrap()[..], b"hello worl");
            assert_eq!(&log.read(6, 2).unwrap()[..], b"wo");
            assert!(log.read(10, 1).unwrap().is_empty());
            assert!(log.read(u64::MAX, 1).unwrap().is_empty());
            assert_eq!(logs.stderr.len(), 0);
        }
        for logs in [
            Logs::open(home(directory.path())),
            Logs::ended(home(directory.path())),
        ] {
            assert_eq!(&logs.stdout.read(6, 100).unwrap()[..], b"worl");
            assert_eq!(logs.stderr.len(), 0);
        }
        let logs = Logs::anew(Some(home(directory.path()))).unwrap();
        assert!(!home(directory.path()).directory().join(STDOUT).exists());
        assert_eq!(logs.stdout.len(), 0);
        let logs = Logs::ended(home(&directory.path().join("gone")));
        assert!(logs.stdout.read(0, 1).unwrap().is_empty());
    }

    #[test]
    fn a_disk_that_refuses_is_noted_once_and_a_deleted_directory_stays_deleted() {
        let directory = tempfile::tempdir().unwrap();
        // There is a file where the directory should be.
        let home = home(&directory.path().join("agents"));
        fs::write(directory.path().join("agents"), b"").unwrap();
        let path = home.directory();
        let logs = Logs::new(Some(home));
        for _ in 0..2 {
            let refused = logs.write(LogKind::Stderr, b"x", 10);
            assert!(matches!(refused, Err(LogFull::Disk { .. })));
        }
        assert_eq!(logs.lines().len(), 1);
        fs::remove_file(directory.path().join("agents")).unwrap();
        assert!(!path.exists(), "it is made for the first byte");
        assert_eq!(logs.write(LogKind::Stderr, b"x", 10).unwrap(), 1);
        assert!(path.join(STDERR).exists() && !path.join(STDOUT).exists());
        logs.close();
        assert!(logs.write(LogKind::Stderr, b"x", 10).is_err());
        assert_eq!(logs.at_home(Home::directory), Some(path.clone()));
        logs.delete().unwrap();
        assert!(!path.exists());
        assert!(logs.at_home(|_| ()).is_none());
    }

    #[test]
    fn host_lines_are_bounded_in_number_and_length() {
        let logs = Logs::new(None);
        for index in 0..HOST_LINES_MAX + 5 {
            logs.note("info", &format!("{index} {}", "ü".repeat(2000)));
        }
        let lines = logs.lines();
        assert_eq!(lines.len(), HOST_LINES_MAX);
        assert!(lines[0].text.starts_with("5 "));
        assert!(
            lines
                .iter()
                .all(|line| line.text.len() <= HOST_LINE_LEN_MAX)
        );
    }
}

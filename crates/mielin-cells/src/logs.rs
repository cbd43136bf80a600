//! What an agent wrote: two append-only byte streams, and the bounded list of lines that nodes wrote about it.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::watch;

use crate::lock::lock;
use crate::report::{HostLine, LogKind};

/// Host lines kept per agent; the oldest go first.
const HOST_LINES_MAX: usize = 256;
/// Bytes kept of one host line.
const HOST_LINE_LEN_MAX: usize = 1024;

/// The logs of one agent.
pub(crate) struct Logs {
    pub(crate) stdout: Log,
    pub(crate) stderr: Log,
    lines: Mutex<VecDeque<HostLine>>,
    directory: Option<PathBuf>,
}

impl Logs {
    /// Empty logs, in `directory` if there is one. What an earlier visit of the agent left there is overwritten.
    pub(crate) fn create(directory: Option<&Path>) -> io::Result<Logs> {
        let open = |name: &str| match directory {
            Some(directory) => Log::file(&directory.join(name), true),
            None => Ok(Log::memory()),
        };
        if let Some(directory) = directory {
            fs::create_dir_all(directory)?;
        }
        Ok(Logs {
            stdout: open("stdout")?,
            stderr: open("stderr")?,
            lines: Mutex::default(),
            directory: directory.map(Path::to_owned),
        })
    }

    /// The logs that an earlier run of the node left in `directory`.
    pub(crate) fn open(directory: &Path) -> io::Result<Logs> {
        Ok(Logs {
            stdout: Log::file(&directory.join("stdout"), false)?,
            stderr: Log::file(&directory.join("stderr"), false)?,
            lines: Mutex::default(),
            directory: Some(directory.to_owned()),
        })
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

    /// Deletes the files: the agent has left and its logs with it.
    pub(crate) fn delete(&self) {
        if let Some(directory) = &self.directory {
            // A file that cannot be deleted is overwritten when the agent comes back.
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// One append-only byte stream.
pub(crate) struct Log {
    inner: Mutex<Inner>,
    len: watch::Sender<u64>,
}

struct Inner {
    len: u64,
    bytes: Backing,
}

enum Backing {
    Memory(Vec<u8>),
    File(File),
}

/// The log has reached its limit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LogFull;

impl Log {
    fn memory() -> Log {
        Log {
            inner: Mutex::new(Inner {
                len: 0,
                bytes: Backing::Memory(Vec::new()),
            }),
            len: watch::Sender::new(0),
        }
    }

    fn file(path: &Path, truncate: bool) -> io::Result<Log> {
        let file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(truncate)
            .open(path)?;
        let len = file.metadata()?.len();
        Ok(Log {
            inner: Mutex::new(Inner {
                len,
                bytes: Backing::File(file),
            }),
            len: watch::Sender::new(len),
        })
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
                Err(LogFull)
            };
        }
        let offset = inner.len;
        match &mut inner.bytes {
            Backing::Memory(log) => log.extend_from_slice(taken),
            Backing::File(file) => file.write_all_at(taken, offset).map_err(|_| LogFull)?,
        }
        inner.len += taken.len() as u64;
        self.len.send_replace(inner.len);
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
                file.read_exact_at(&mut bytes, offset)?;
                Ok(bytes.into())
            }
        }
    }

    pub(crate) fn len(&self) -> u64 {
        *self.len.borrow()
    }

    /// Sees every change of the length.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.len.subscribe()
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

    #[test]
    fn both_backings_keep_every_byte_and_stop_at_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        for logs in [
            Logs::create(None).unwrap(),
            Logs::create(Some(directory.path())).unwrap(),
        ] {
            let log = logs.log(LogKind::Stdout);
            assert_eq!(log.append(b"hello ", 10), Ok(6));
            assert_eq!(log.append(b"world", 10), Ok(4));
            assert_eq!(log.append(b"d", 10), Err(LogFull));
            assert_eq!(log.append(b"", 10), Ok(0));
            assert_eq!(log.len(), 10);
            assert_eq!(&log.read(0, 100).unwrap()[..], b"hello worl");
            assert_eq!(&log.read(6, 2).unwrap()[..], b"wo");
            assert!(log.read(10, 1).unwrap().is_empty());
            assert!(log.read(u64::MAX, 1).unwrap().is_empty());
            assert_eq!(logs.stderr.len(), 0);
        }
        assert_eq!(Logs::open(directory.path()).unwrap().stdout.len(), 10);
    }

    #[test]
    fn host_lines_are_bounded_in_number_and_length() {
        let logs = Logs::create(None).unwrap();
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

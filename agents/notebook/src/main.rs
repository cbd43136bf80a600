//! Sample agent: keeps what it is told in files in `/data`, which go with it wherever it goes. It
//! needs the capability `data`.
//!
//! A message is a command, and the answer is what came of it:
//!
//! - `add NAME TEXT`: a line more in this note, which stays open from then on
//! - `fill NAME KIB`: so many KiB of it more
//! - `read NAME`, `size NAME`
//! - `move NAME NAME`, `remove NAME`
//! - `list`
//! - `stop`: ends it

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use mielin_agent::{Error, Kind};

fn main() -> ExitCode {
    let notes = Notes::new(Path::new("/data/notes"));
    match notes
        .map_err(|error| error.to_string())
        .and_then(|notes| answer_all(notes).map_err(|error| error.to_string()))
    {
        Ok(count) => {
            println!("answered {count}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("notebook: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Answers until the message `stop`.
fn answer_all(mut notes: Notes) -> Result<u64, Error> {
    let mut count = 0;
    loop {
        let Some(message) = mielin_agent::receive(None)? else {
            continue;
        };
        if message.kind() != Kind::Message {
            continue;
        }
        count += 1;
        let text = String::from_utf8_lossy(message.payload()).into_owned();
        let answer = match notes.obey(&text) {
            Ok(answer) => answer,
            Err(error) => format!("error: {error}").into_bytes(),
        };
        match message.reply(&answer) {
            // A sender that is gone by now is no reason to stop.
            Ok(()) | Err(Error::Unknown) => {}
            Err(error) => return Err(error),
        }
        if text == "stop" {
            return Ok(count);
        }
    }
}

/// Files in one directory. Those that were written are open.
struct Notes {
    directory: PathBuf,
    open: BTreeMap<String, File>,
}

impl Notes {
    fn new(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            open: BTreeMap::new(),
        })
    }

    fn obey(&mut self, command: &str) -> io::Result<Vec<u8>> {
        let mut words = command.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_default();
        match (word(), word(), word()) {
            ("add", name, text) => self.add(name, format!("{text}\n").as_bytes()),
            ("fill", name, kib) => {
                let kib: usize = kib.parse().map_err(io::Error::other)?;
                self.fill(name, kib)
            }
            ("read", name, _) => {
                let mut text = Vec::new();
                let file = self.note(name)?;
                file.seek(SeekFrom::Start(0))?;
                file.read_to_end(&mut text)?;
                Ok(text)
            }
            ("size", name, _) => Ok(self.note(name)?.metadata()?.len().to_string().into()),
            ("move", name, to) => {
                fs::rename(self.directory.join(name), self.directory.join(to))?;
                Ok(b"moved".to_vec())
            }
            ("remove", name, _) => {
                fs::remove_file(self.directory.join(name))?;
                Ok(b"removed".to_vec())
            }
            ("list", ..) => self.list(),
            ("stop", ..) => Ok(b"bye".to_vec()),
            _ => Err(io::Error::other("no such command")),
        }
    }

    /// The file that was opened under this name, whatever it is called since.
    fn note(&mut self, name: &str) -> io::Result<&mut File> {
        if !self.open.contains_key(name) {
            let path = self.directory.join(name);
            let file = OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .open(path)?;
            self.open.insert(name.to_owned(), file);
        }
        self.open
            .get_mut(name)
            .ok_or(io::ErrorKind::NotFound.into())
    }

    fn add(&mut self, name: &str, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let file = self.note(name)?;
        file.write_all(bytes)?;
        Ok(file.metadata()?.len().to_string().into())
    }

    fn fill(&mut self, name: &str, kib: usize) -> io::Result<Vec<u8>> {
        for part in 0..kib {
            let letter = b'a' + (part % 26) as u8;
            self.add(name, &[letter; 1024])?;
        }
        Ok(b"filled".to_vec())
    }

    fn list(&self) -> io::Result<Vec<u8>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names.join(" ").into())
    }
}

#[cfg(test)]
mod tests {
    use super::Notes;

    #[test]
    fn notes_stay_open_under_another_name() -> std::io::Result<()> {
        let directory = std::env::temp_dir().join(format!("notebook-{}", std::process::id()));
        let mut notes = Notes::new(&directory)?;
        let mut check = |command: &str, answer: &[u8]| {
            let found = notes.obey(command);
            assert_eq!(found.ok().as_deref(), Some(answer), "{command}");
        };
        check("add one a line", b"7");
        check("add two x", b"2");
        check("move one three", b"moved");
        check("add one more", b"12");
        check("read three", b"a line\nmore\n");
        check("fill two 3", b"filled");
        check("size two", b"3074");
        check("remove two", b"removed");
        check("list", b"three");
        assert!(notes.obey("read ../../etc").is_err());
        assert!(notes.obey("dance").is_err());
        std::fs::remove_dir_all(directory)
    }
}

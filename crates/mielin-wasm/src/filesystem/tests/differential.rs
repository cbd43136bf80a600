//! Random operations on a file system and on a directory of this machine: the same results, the same
//! files.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path as HostPath;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::*;

/// The error number that Linux gives.
fn number(error: FsError) -> i32 {
    match error {
        FsError::NotFound => libc::ENOENT,
        FsError::Exists => libc::EEXIST,
        FsError::NotDirectory => libc::ENOTDIR,
        FsError::IsDirectory => libc::EISDIR,
        FsError::NotEmpty => libc::ENOTEMPTY,
        FsError::Invalid => libc::EINVAL,
        FsError::NotPermitted => libc::EPERM,
        other => panic!("{other} was not expected"),
    }
}

#[track_caller]
fn same<T, U>(what: &str, here: &Result<T, FsError>, there: &io::Result<U>) {
    let here = here.as_ref().map(drop).map_err(|error| number(*error));
    let there = there.as_ref().map(drop);
    let there = there.map_err(|error| error.raw_os_error().unwrap());
    assert_eq!(here, there, "{what}");
}

struct Both<'a> {
    files: FileSystem,
    top: &'a HostPath,
    open: Vec<(Ino, File)>,
    random: StdRng,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

impl Both<'_> {
    /// Up to three names, now and then by a detour or with a slash at the end.
    fn path(&mut self) -> String {
        let mut parts = Vec::new();
        for _ in 0..self.random.random_range(1..4) {
            parts.push(*NAMES.choose(&mut self.random).unwrap());
            if self.random.random_range(0..12) == 0 {
                parts.push(["..", "."].choose(&mut self.random).unwrap());
            }
        }
        while matches!(parts.last(), Some(&("." | ".."))) {
            parts.pop();
        }
        let slash = if self.random.random_range(0..16) == 0 {
            "/"
        } else {
            ""
        };
        parts.join("/") + slash
    }

    /// One operation; gives what it was.
    fn step(&mut self) -> String {
        let (one, two) = (self.path(), self.path());
        let (at, to) = (self.top.join(&one), self.top.join(&two));
        let (from, into) = ((ROOT, path(&one)), (ROOT, path(&two)));
        let files = &mut self.files;
        let what;
        match self.random.random_range(0..16) {
            0..3 => {
                what = format!("mkdir {one}");
                same(
                    &what,
                    &files.make_directory(ROOT, path(&one), 0),
                    &fs::create_dir(at),
                );
            }
            3 => {
                what = format!("rmdir {one}");
                same(
                    &what,
                    &files.remove_directory(ROOT, path(&one), 0),
                    &fs::remove_dir(at),
                );
            }
            4 | 5 => {
                what = format!("unlink {one}");
                same(
                    &what,
                    &files.remove_file(ROOT, path(&one), 0),
                    &fs::remove_file(at),
                );
            }
            6 | 7 => {
                what = format!("rename {one} {two}");
                same(&what, &files.rename(from, into, 0), &fs::rename(at, to));
            }
            8 => {
                what = format!("link {one} {two}");
                same(&what, &files.link(from, into, 0), &fs::hard_link(at, to));
            }
            9..13 => return self.open(&one, &at),
            _ => return self.use_open(),
        }
        what
    }

    fn open(&mut self, name: &str, at: &HostPath) -> String {
        let write = self.random.random_bool(0.7);
        let how = Opening {
            create: write && self.random.random_bool(0.6),
            exclusive: write && self.random.random_bool(0.3),
            truncate: write && self.random.random_bool(0.2),
            directory: false,
            write,
        };
        let what = format!("open {name} {how:?}");
        let here = self.files.open(ROOT, path(name), how, 0);
        let there = OpenOptions::new()
            .read(true)
            .write(write)
            .create(how.create)
            .create_new(how.create && how.exclusive)
            .truncate(how.truncate)
            .open(at);
        same(&what, &here, &there);
        if let (Ok(ino), Ok(file)) = (here, there) {
            if write {
                self.open.push((ino, file));
            } else {
                self.files.release(ino);
            }
        }
        what
    }

    /// Reads, writes, cuts or closes something that is open.
    fn use_open(&mut self) -> String {
        if self.open.is_empty() {
            return "nothing".into();
        }
        let index = self.random.random_range(0..self.open.len());
        let (ino, file) = &self.open[index];
        let offset = self.random.random_range(0..3 * BLOCK as u64);
        let len = self.random.random_range(1..2 * BLOCK);
        let what = format!("{ino:?} at {offset}, {len}");
        match self.random.random_range(0..8) {
            0..4 => {
                let bytes: Vec<u8> = (0..len).map(|_| self.random.random()).collect();
                same(
                    &what,
                    &self.files.write(*ino, offset, &bytes, 0),
                    &file.write_at(&bytes, offset),
                );
            }
            4 | 5 => {
                let len = self.random.random_range(0..3 * BLOCK as u64);
                same(&what, &self.files.set_len(*ino, len, 0), &file.set_len(len));
            }
            6 => {
                let (mut here, mut there) = (vec![1; len], vec![1; len]);
                let read = self.files.read(*ino, offset, &mut here).unwrap();
                assert_eq!(read, file.read_at(&mut there, offset).unwrap(), "{what}");
                assert_eq!(here, there, "{what}");
            }
            _ => {
                self.files.release(*ino);
                self.open.remove(index);
            }
        }
        what
    }

    /// Everything below a directory is the same.
    fn compare(&self, ino: Ino, at: &HostPath) {
        let listed = self.files.list(ino, 2).unwrap();
        let mut here: Vec<_> = listed
            .map(|entry| (entry.name.to_owned(), entry.ino))
            .collect();
        here.sort_unstable();
        let mut there: Vec<String> = fs::read_dir(at)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        there.sort_unstable();
        assert!(
            here.iter().map(|(name, _)| name).eq(&there),
            "{here:?} {there:?}"
        );
        for (name, ino) in here {
            let (stat, at) = (self.files.stat(ino).unwrap(), at.join(name));
            let real = fs::metadata(&at).unwrap();
            assert_eq!(stat.is_directory, real.is_dir());
            if stat.is_directory {
                self.compare(ino, &at);
            } else {
                assert_eq!(
                    (stat.len, u64::from(stat.names)),
                    (real.len(), real.nlink())
                );
                let mut bytes = vec![0; real.len() as usize];
                self.files.read(ino, 0, &mut bytes).unwrap();
                assert!(bytes == fs::read(&at).unwrap(), "{}", at.display());
            }
        }
    }
}

#[test]
fn it_does_what_a_real_directory_does() {
    for seed in 0..16 {
        let directory = tempfile::tempdir().unwrap();
        let mut both = Both {
            files: files(1 << 20),
            top: directory.path(),
            open: Vec::new(),
            random: StdRng::seed_from_u64(seed),
        };
        for step in 0..600 {
            let what = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| both.step()));
            let what = what.unwrap_or_else(|_| panic!("seed {seed}, step {step}"));
            if step % 20 == 0 {
                check(&both.files);
                both.compare(ROOT, both.top);
            }
            let gone = both
                .open
                .iter()
                .all(|(ino, _)| both.files.stat(*ino).is_ok());
            assert!(gone, "seed {seed}, step {step}: {what}");
        }
        let open = std::mem::take(&mut both.open);
        open.iter().for_each(|(ino, _)| both.files.release(*ino));
        check(&both.files);
        both.compare(ROOT, both.top);
    }
}

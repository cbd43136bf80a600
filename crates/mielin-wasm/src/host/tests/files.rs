//! `/data` by the calls of WASI: what they refuse, and what they leave as it was.

use super::super::wasi::{descriptor, directory, file, path, poll, stream};
use super::*;

const TOP: u32 = 3;
const ALL: u64 = (1 << 30) - 1;
const READ: u64 = 1 << 1;
const WRITE: u64 = 1 << 6;
const CREATE: u32 = 1;

/// Where a test puts its paths, and where it gets results.
const PATH: u32 = 4096;
const PATH_2: u32 = 16384;
const OUT: u32 = 2048;

impl Bench {
    fn files() -> Self {
        Self::new(&["data:64KiB"])
    }

    fn path(&mut self, at: u32, text: &[u8]) -> u32 {
        self.put(at, text);
        text.len() as u32
    }

    fn open_with(&mut self, text: &[u8], open: u32, base: u64, flags: u32) -> Result<u32, u32> {
        let len = self.path(PATH, text);
        let flags = path::Flags {
            open,
            base,
            inheriting: ALL,
            descriptor: flags,
        };
        let errno = self.call(|call| path::path_open(call, TOP, PATH, len, flags, OUT));
        if errno == 0 {
            Ok(self.u32(OUT))
        } else {
            Err(errno)
        }
    }

    fn make(&mut self, text: &str) -> u32 {
        self.open_with(text.as_bytes(), CREATE, ALL, 0).unwrap()
    }

    fn directory(&mut self, text: &[u8]) -> u32 {
        let len = self.path(PATH, text);
        self.call(|call| path::path_create_directory(call, TOP, PATH, len))
    }

    fn write(&mut self, fd: u32, bytes: &[u8]) -> Result<u32, u32> {
        self.put(100, bytes);
        self.vectors(0, &[(100, bytes.len() as u32)]);
        let errno = self.call(|call| stream::fd_write(call, fd, 0, 1, OUT));
        if errno == 0 {
            Ok(self.u32(OUT))
        } else {
            Err(errno)
        }
    }

    fn read(&mut self, fd: u32, offset: Option<u64>) -> Result<Vec<u8>, u32> {
        self.vectors(0, &[(30_000, 3), (40_000, 1000)]);
        let errno = self.call(|call| match offset {
            Some(offset) => file::fd_pread(call, fd, 0, 2, offset, OUT),
            None => stream::fd_read(call, fd, 0, 2, OUT),
        });
        if errno != 0 {
            return Err(errno);
        }
        let len = self.u32(OUT) as usize;
        let both = [&self.memory[30_000..30_003], &self.memory[40_000..41_000]].concat();
        Ok(both[..len].to_vec())
    }

    fn seek(&mut self, fd: u32, offset: i64, whence: u32) -> Result<u64, u32> {
        let offset = offset.cast_unsigned();
        let errno = self.call(|call| file::fd_seek(call, fd, offset, whence, OUT));
        if errno == 0 {
            Ok(self.u64(OUT))
        } else {
            Err(errno)
        }
    }

    /// Every call with a path, with this one.
    fn with_path(&mut self, text: &[u8]) -> [u32; 11] {
        let len = self.path(PATH, text);
        let good = self.path(PATH_2, b"good");
        let (one, other) = ((TOP, PATH, len), (TOP, PATH_2, good));
        let flags = path::Flags {
            open: CREATE,
            base: ALL,
            inheriting: ALL,
            descriptor: 0,
        };
        let set = path::SetTimes {
            accessed: 0,
            modified: 0,
            flags: 0,
        };
        let from = path::Two {
            from: one,
            to: other,
        };
        let to = path::Two {
            from: other,
            to: one,
        };
        [
            self.call(|call| path::path_open(call, TOP, PATH, len, flags, OUT)),
            self.call(|call| path::path_create_directory(call, TOP, PATH, len)),
            self.call(|call| path::path_remove_directory(call, TOP, PATH, len)),
            self.call(|call| path::path_unlink_file(call, TOP, PATH, len)),
            self.call(|call| path::path_filestat_get(call, TOP, PATH, len, OUT)),
            self.call(|call| path::path_filestat_set_times(call, TOP, PATH, len, set)),
            self.call(|call| path::path_rename(call, from)),
            self.call(|call| path::path_rename(call, to)),
            self.call(|call| path::path_link(call, from)),
            self.call(|call| path::path_link(call, to)),
            self.call(|call| path::path_readlink(call, TOP, PATH, len)),
        ]
    }
}

#[test]
fn the_directory_is_there_if_it_is_granted() {
    let mut bench = Bench::files();
    assert_eq!(
        bench.call(|call| directory::fd_prestat_get(call, TOP, OUT)),
        0
    );
    assert_eq!((bench.u32(OUT), bench.u32(OUT + 4)), (0, 5));
    assert_eq!(
        bench.call(|call| directory::fd_prestat_dir_name(call, TOP, OUT, 4)),
        37
    );
    assert_eq!(
        bench.call(|call| directory::fd_prestat_dir_name(call, TOP, OUT, 5)),
        0
    );
    assert_eq!(&bench.memory[OUT as usize..][..5], b"/data");
    assert_eq!(
        bench.call(|call| directory::fd_prestat_get(call, 4, OUT)),
        8
    );
    assert_eq!(
        bench.call(|call| descriptor::fd_fdstat_get(call, TOP, OUT)),
        0
    );
    assert_eq!(bench.memory[OUT as usize], 3, "a directory");
    // What is opened later is no pre-opened directory.
    assert_eq!(bench.directory(b"d"), 0);
    let fd = bench.open_with(b"d", 2, READ, 0).unwrap();
    assert_eq!(
        bench.call(|call| directory::fd_prestat_get(call, fd, OUT)),
        8
    );

    let mut bench = Bench::new(&["clock"]);
    assert_eq!(
        bench.call(|call| directory::fd_prestat_get(call, TOP, OUT)),
        8
    );
    assert_eq!(bench.with_path(b"f"), [8; 11]);
}

#[test]
fn a_revoked_grant_closes_the_files() {
    let mut bench = Bench::files();
    let fd = bench.make("f");
    bench.write(fd, b"text").unwrap();
    let data: Capability = "data:64KiB".parse().unwrap();
    bench.context.host.grants.revoke(&data);
    assert_eq!(bench.write(fd, b"text"), Err(76));
    assert_eq!(bench.read(fd, Some(0)), Err(76));
    assert_eq!(bench.with_path(b"f"), [76; 11]);
    assert!(!bench.desk.denied.lock().unwrap().is_empty());
    assert_eq!(bench.call(|call| descriptor::fd_close(call, fd)), 0);
}

#[test]
fn no_path_leads_out() {
    let (noent, out) = (errno(Errno::Noent), errno(Errno::Notcapable));
    let mut bench = Bench::files();
    assert_eq!(bench.directory(b"d"), 0);
    bench.make("good");
    let long = [b'x'; 256];
    let mut deep = b"d/".repeat(2048);
    deep.push(b'd');
    let cases: [(&[u8], u32); 12] = [
        (b"..", out),
        (b"../", out),
        (b"../data/good", out),
        (b"d/../../good", out),
        (b"./d/./../..", out),
        (b"/", out),
        (b"/data/good", out),
        (b"", noent),
        (b"good\0/../..", errno(Errno::Inval)),
        (b"d/\xff\xfe", errno(Errno::Ilseq)),
        (&long, errno(Errno::Nametoolong)),
        (&deep, errno(Errno::Nametoolong)),
    ];
    for (text, error) in cases {
        assert_eq!(bench.with_path(text), [error; 11], "{text:?}");
    }
    // From a directory below, what is above it is out of reach.
    let inner = bench.open_with(b"d", 2, ALL, 0).unwrap();
    let len = bench.path(PATH, b"../good");
    assert_eq!(
        bench.call(|call| path::path_filestat_get(call, inner, PATH, len, OUT)),
        out
    );
    let len = bench.path(PATH, b"good");
    assert_eq!(
        bench.call(|call| path::path_filestat_get(call, inner, PATH, len, OUT)),
        noent
    );
    // Links that would lead out cannot be made.
    let len = bench.path(PATH, b"link");
    let target = bench.path(PATH_2, b"../../etc");
    let target = (PATH_2, target);
    let made = bench.call(|call| path::path_symlink(call, target, TOP, PATH, len));
    assert_eq!(made, errno(Errno::Notsup));
    assert_eq!(
        bench.call(|call| path::path_readlink(call, TOP, PATH, len)),
        noent
    );
    let len = bench.path(PATH, b"good");
    assert_eq!(
        bench.call(|call| path::path_readlink(call, TOP, PATH, len)),
        28
    );
}

#[test]
fn files_are_read_and_written_where_they_should() {
    let mut bench = Bench::files();
    let fd = bench.make("f");
    assert_eq!(bench.write(fd, b"hello, world"), Ok(12));
    assert_eq!(bench.read(fd, None), Ok(vec![]));
    assert_eq!(bench.read(fd, Some(7)), Ok(b"world".to_vec()));
    assert_eq!(bench.seek(fd, -5, 2), Ok(7));
    assert_eq!(bench.read(fd, None), Ok(b"world".to_vec()));
    assert_eq!(bench.seek(fd, 0, 1), Ok(12));
    assert_eq!(bench.seek(fd, -13, 1), Err(28));
    assert_eq!(bench.seek(fd, i64::MAX, 1), Err(28));
    assert_eq!(bench.seek(fd, 0, 3), Err(28));
    assert_eq!(bench.seek(fd, i64::MAX, 0), Ok(i64::MAX as u64));
    assert_eq!(bench.write(fd, b"x"), Err(errno(Errno::Fbig)));
    assert_eq!(bench.read(fd, Some(1 << 63)), Err(28));
    // Appending does not mind the position.
    let append = bench.open_with(b"f", 0, ALL, 1).unwrap();
    assert_eq!(bench.write(append, b"!"), Ok(1));
    assert_eq!(bench.call(|call| file::fd_tell(call, append, OUT)), 0);
    assert_eq!(bench.u64(OUT), 13);
    assert_eq!(bench.read(fd, Some(7)), Ok(b"world!".to_vec()));
    // The quota is 64 KiB: the last write takes what fits.
    assert_eq!(
        bench.call(|call| file::fd_allocate(call, fd, 0, 65_536 - 4096)),
        0
    );
    let mut written = 0;
    let last = loop {
        match bench.write(append, &[7; 1000]) {
            Ok(len) => written += len,
            Err(error) => break error,
        }
    };
    assert_eq!((written, last), (4096, errno(Errno::Nospc)));
    assert_eq!(
        bench.call(|call| file::fd_filestat_set_size(call, fd, 3)),
        0
    );
    assert_eq!(bench.read(fd, Some(0)), Ok(b"hel".to_vec()));
    assert_eq!(bench.call(|call| file::fd_advise(call, fd, 5)), 0);
    assert_eq!(bench.call(|call| file::fd_advise(call, fd, 6)), 28);
}

#[test]
fn pointers_are_checked_before_anything_happens() {
    let mut bench = Bench::files();
    let fd = bench.make("f");
    bench.write(fd, b"text").unwrap();
    let len = bench.path(PATH, b"new");
    let flags = path::Flags {
        open: CREATE,
        base: ALL,
        inheriting: 0,
        descriptor: 0,
    };
    assert_eq!(
        bench.call(|call| path::path_open(call, TOP, PATH, len, flags, END - 3)),
        21
    );
    assert_eq!(
        bench.call(|call| path::path_open(call, TOP, END - 2, 3, flags, OUT)),
        21
    );
    assert_eq!(
        bench.call(|call| path::path_create_directory(call, TOP, PATH, u32::MAX)),
        21
    );
    assert_eq!(
        bench.call(|call| path::path_filestat_get(call, TOP, PATH, len, OUT)),
        44
    );
    bench.vectors(0, &[(100, 4), (END - 1, 2)]);
    assert_eq!(bench.call(|call| stream::fd_write(call, fd, 0, 2, OUT)), 21);
    bench.vectors(0, &[(100, 4)]);
    assert_eq!(
        bench.call(|call| stream::fd_write(call, fd, 0, 1, END - 3)),
        21
    );
    assert_eq!(
        bench.call(|call| file::fd_pwrite(call, fd, 0, 1, 0, END - 3)),
        21
    );
    assert_eq!(
        bench.call(|call| file::fd_seek(call, fd, 0, 0, END - 7)),
        21
    );
    assert_eq!(
        bench.call(|call| directory::fd_readdir(call, TOP, 0, u32::MAX, 0, OUT)),
        21
    );
    assert_eq!(bench.read(fd, Some(0)), Ok(b"text".to_vec()));
    assert_eq!(bench.seek(fd, 0, 1), Ok(4));
}

#[test]
fn rights_are_narrowed_and_kept() {
    let mut bench = Bench::files();
    let fd = bench.make("f");
    let (notcapable, isdir) = (errno(Errno::Notcapable), errno(Errno::Isdir));
    let reader = bench.open_with(b"f", 0, READ, 0).unwrap();
    assert_eq!(bench.write(reader, b"x"), Err(notcapable));
    assert_eq!(bench.seek(reader, 1, 0), Err(notcapable));
    let writer = bench.open_with(b"f", 0, WRITE, 0).unwrap();
    assert_eq!(bench.read(writer, None), Err(notcapable));
    assert_eq!(
        bench.call(|call| file::fd_filestat_set_size(call, writer, 0)),
        notcapable
    );
    let gain = bench.call(|call| descriptor::fd_fdstat_set_rights(call, writer, READ, 0));
    assert_eq!(gain, notcapable);
    // Directories are not written, and only read by listing.
    assert_eq!(bench.directory(b"d"), 0);
    assert_eq!(bench.open_with(b"d", 0, ALL, 0), Err(isdir));
    assert_eq!(bench.open_with(b"f", 2, READ, 0), Err(54));
    assert_eq!(bench.open_with(b"d", CREATE | 2, ALL, 0), Err(28));
    assert_eq!(bench.open_with(b"f", 16, READ, 0), Err(28));
    assert_eq!(bench.open_with(b"f", 0, READ, 32), Err(28));
    assert_eq!(bench.open_with(b"f", CREATE | 4, ALL, 0), Err(20));
    let inner = bench.open_with(b"d", 2, ALL, 0).unwrap();
    assert_eq!(bench.read(inner, None), Err(isdir));
    assert_eq!(bench.write(inner, b"x"), Err(isdir));
    // What a directory does not pass on cannot be opened from it.
    let give_up =
        |call: &mut Call<'_>| descriptor::fd_fdstat_set_rights(call, TOP, ALL_OF_TOP, READ);
    const ALL_OF_TOP: u64 = 1 << 13 | 1 << 18;
    assert_eq!(bench.call(give_up), 0);
    let weak = bench.open_with(b"f", 0, ALL, 0).unwrap();
    assert_eq!(bench.write(weak, b"x"), Err(notcapable));
    assert_eq!(bench.open_with(b"new", CREATE, ALL, 0), Err(notcapable));
    assert_eq!(bench.directory(b"new"), notcapable);
    assert_eq!(bench.write(fd, b"x"), Ok(1));
}

#[test]
fn descriptors_are_few_and_the_lowest_number_is_taken() {
    let mut bench = Bench::files();
    let fd = bench.make("f");
    assert_eq!(fd, 4);
    let mut last = fd;
    let refused = loop {
        match bench.open_with(b"f", 0, READ, 0) {
            Ok(next) => {
                assert_eq!(next, last + 1);
                last = next;
            }
            Err(error) => break error,
        }
    };
    assert_eq!((last, refused), (1023, errno(Errno::Mfile)));
    assert_eq!(bench.open_with(b"new", CREATE, ALL, 0), Err(refused));
    let len = bench.path(PATH, b"new");
    assert_eq!(
        bench.call(|call| path::path_filestat_get(call, TOP, PATH, len, OUT)),
        44
    );
    assert_eq!(bench.call(|call| descriptor::fd_close(call, 0)), 0);
    assert_eq!(bench.open_with(b"f", 0, READ, 0), Ok(0));
    // Standard output goes to a file, and the file lives as long as it does.
    assert_eq!(bench.call(|call| descriptor::fd_renumber(call, fd, 1)), 0);
    assert_eq!(bench.write(1, b"output"), Ok(6));
    assert_eq!(bench.logged(), []);
    assert_eq!(bench.write(fd, b"x"), Err(8));
    let len = bench.path(PATH, b"f");
    assert_eq!(
        bench.call(|call| path::path_unlink_file(call, TOP, PATH, len)),
        0
    );
    for fd in (5..=last).chain([0]) {
        assert_eq!(bench.call(|call| descriptor::fd_close(call, fd)), 0);
    }
    assert_eq!(bench.read(1, Some(0)), Ok(b"output".to_vec()));
    assert_eq!(bench.call(|call| descriptor::fd_close(call, 1)), 0);
    assert!(bench.context.host.data.as_ref().unwrap().is_settled());
}

#[test]
fn a_listing_fits_any_buffer() {
    let mut bench = Bench::files();
    for name in ["one", "two", "a longer name"] {
        bench.make(name);
    }
    let mut whole = Vec::new();
    for size in [24, 30, 64, 4000] {
        let (mut cookie, mut names) = (0, Vec::new());
        loop {
            let read = bench.call(|call| directory::fd_readdir(call, TOP, 8192, size, cookie, OUT));
            assert_eq!(read, 0);
            let used = bench.u32(OUT);
            let mut at = 8192;
            // Entries that are whole, as a C library takes them.
            while at + 24 <= 8192 + used {
                let (next, len) = (bench.u64(at), bench.u32(at + 16));
                if at + 24 + len > 8192 + used {
                    break;
                }
                names.push(bench.memory[at as usize + 24..][..len as usize].to_vec());
                (cookie, at) = (next, at + 24 + len);
            }
            if used < size || at == 8192 {
                break;
            }
        }
        if size >= 64 {
            assert_eq!(names.len(), 5);
            whole = names;
        } else {
            assert!(names.len() < 5, "a name does not fit {size} bytes");
        }
    }
    assert_eq!(whole, [&b"."[..], b"..", b"one", b"two", b"a longer name"]);
}

#[test]
fn times_need_the_clock() {
    let stat = |bench: &mut Bench, fd: u32| {
        assert_eq!(
            bench.call(|call| descriptor::fd_filestat_get(call, fd, OUT)),
            0
        );
        [40, 48, 56].map(|at| bench.u64(OUT + at))
    };
    let mut bench = Bench::files();
    let fd = bench.make("f");
    bench.write(fd, b"x").unwrap();
    assert_eq!(stat(&mut bench, fd), [0; 3]);
    assert_eq!(
        bench.call(|call| file::fd_filestat_set_times(call, fd, 7, 8, 5)),
        0
    );
    assert_eq!(stat(&mut bench, fd), [7, 8, 0]);
    assert_eq!(
        bench.call(|call| file::fd_filestat_set_times(call, fd, 7, 8, 2)),
        0
    );
    assert_eq!(stat(&mut bench, fd), [0, 8, 0]);
    for flags in [3, 12, 16] {
        assert_eq!(
            bench.call(|call| file::fd_filestat_set_times(call, fd, 7, 8, flags)),
            28
        );
    }
    let mut bench = Bench::new(&["data", "clock"]);
    let fd = bench.make("f");
    assert!(
        stat(&mut bench, fd)
            .iter()
            .all(|time| *time > 1_600_000_000_000_000_000)
    );
}

#[test]
fn files_are_always_ready() {
    let mut bench = Bench::files();
    let fd = bench.make("f");
    bench.write(fd, b"text").unwrap();
    bench.seek(fd, 1, 0).unwrap();
    for (kind, bytes) in [(1, 3), (2, 4096)] {
        let mut subscription = [0; 48];
        subscription[8] = kind;
        subscription[16] = fd as u8;
        bench.put(0, &subscription);
        assert_eq!(
            bench.call(|call| poll::poll_oneoff(call, 0, 100, 1, OUT)),
            0
        );
        assert_eq!((bench.u32(108) as u16, bench.u64(116)), (0, bytes));
    }
}

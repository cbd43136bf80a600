//! The standard streams, and what there is not beside them.

use super::super::wasi::{absent, descriptor, directory, file, path, program, stream};
use super::*;

#[test]
fn output_goes_to_its_stream_in_order() {
    let mut bench = Bench::new(&[]);
    bench.put(100, b"hello, world");
    bench.vectors(0, &[(100, 7), (0, 0), (107, 5)]);
    for (fd, stream) in [(1, LogStream::Stdout), (2, LogStream::Stderr)] {
        assert_eq!(bench.call(|call| stream::fd_write(call, fd, 0, 3, 50)), 0);
        assert_eq!(bench.u32(50), 12);
        let expected = vec![(stream, b"hello, ".to_vec()), (stream, b"world".to_vec())];
        assert_eq!(bench.logged(), expected);
    }
    for fd in [0, 3, u32::MAX] {
        assert_eq!(
            bench.call(|call| stream::fd_write(call, fd, 0, 3, 50)),
            errno(Errno::Badf)
        );
    }
}

#[test]
fn a_full_log_takes_a_part_and_then_nothing() {
    let mut bench = Bench::new(&[]);
    *bench.desk.log_left.lock().unwrap() = 9;
    bench.put(100, b"hello, world");
    bench.vectors(0, &[(100, 7), (107, 5)]);
    assert_eq!(bench.call(|call| stream::fd_write(call, 1, 0, 2, 50)), 0);
    assert_eq!(bench.u32(50), 9);
    assert_eq!(
        bench.call(|call| stream::fd_write(call, 1, 0, 2, 50)),
        errno(Errno::Nospc)
    );
}

#[test]
fn hostile_vectors_write_nothing() {
    let mut bench = Bench::new(&[]);
    let (fault, invalid) = (errno(Errno::Fault), errno(Errno::Inval));
    bench.vectors(0, &[(100, 5), (END - 4, 5)]);
    assert_eq!(
        bench.call(|call| stream::fd_write(call, 1, 0, 2, 50)),
        fault
    );
    bench.vectors(0, &[(100, 5), (u32::MAX, u32::MAX)]);
    assert_eq!(
        bench.call(|call| stream::fd_write(call, 1, 0, 2, 50)),
        fault
    );
    bench.vectors(0, &[(100, 5)]);
    assert_eq!(
        bench.call(|call| stream::fd_write(call, 1, 0, 1, END - 3)),
        fault
    );
    assert_eq!(
        bench.call(|call| stream::fd_write(call, 1, END - 7, 1, 50)),
        fault
    );
    assert_eq!(
        bench.call(|call| stream::fd_write(call, 1, 0, 1025, 50)),
        invalid
    );
    assert_eq!(
        bench.call(|call| stream::fd_write(call, 1, 0, u32::MAX, 50)),
        invalid
    );
    assert_eq!(
        bench.call(|call| stream::fd_read(call, 0, 0, u32::MAX, 50)),
        invalid
    );
    assert_eq!(bench.logged(), []);
    // The same buffer a thousand times is more than one call may move.
    let vectors = vec![(0, END); 1024];
    bench.vectors(0, &vectors);
    *bench.desk.log_left.lock().unwrap() = usize::MAX;
    assert_eq!(
        bench.call(|call| stream::fd_write(call, 1, 0, 1024, 9000)),
        0
    );
    assert_eq!(bench.u32(9000), 1 << 20);
}

#[test]
fn standard_input_is_read_to_its_end() {
    let mut bench = Bench::new(&[]);
    bench.context.host = HostState::new(Address::default()).with_stdin(*b"abcdefgh");
    bench.vectors(0, &[(100, 3), (200, 2)]);
    let mut read = Vec::new();
    loop {
        assert_eq!(bench.call(|call| stream::fd_read(call, 0, 0, 2, 50)), 0);
        let len = bench.u32(50) as usize;
        if len == 0 {
            break;
        }
        let both = [&bench.memory[100..103], &bench.memory[200..202]].concat();
        read.extend_from_slice(&both[..len]);
    }
    assert_eq!(read, b"abcdefgh");
    assert_eq!(bench.context.host.stdin_progress(), (8, 8));
    for fd in [1, 2, 3] {
        assert_eq!(
            bench.call(|call| stream::fd_read(call, fd, 0, 2, 50)),
            errno(Errno::Badf)
        );
    }
}

#[test]
fn descriptors_are_character_devices_that_can_be_closed_and_moved() {
    let mut bench = Bench::new(&[]);
    let badf = errno(Errno::Badf);
    for fd in 0..3 {
        assert_eq!(bench.call(|call| descriptor::fd_fdstat_get(call, fd, 0)), 0);
        assert_eq!(bench.memory[0], 2, "a character device");
        assert_eq!(
            bench.u64(8) & (1 << 2 | 1 << 5),
            0,
            "no seeking: a terminal to a C library"
        );
        assert_eq!(
            bench.call(|call| descriptor::fd_filestat_get(call, fd, 0)),
            0
        );
        assert_eq!(bench.memory[16], 2);
        assert_eq!(bench.call(|call| descriptor::fd_sync(call, fd)), 0);
    }
    assert_eq!(
        bench.call(|call| descriptor::fd_fdstat_get(call, BAD_FD, 0)),
        badf
    );
    assert_eq!(
        bench.call(|call| descriptor::fd_fdstat_get(call, 1, END - 23)),
        21
    );
    assert_eq!(
        bench.call(|call| descriptor::fd_fdstat_set_flags(call, 1, 5)),
        0
    );
    assert_eq!(
        bench.call(|call| descriptor::fd_fdstat_set_flags(call, 1, 2)),
        28
    );
    assert_eq!(
        bench.call(|call| descriptor::fd_fdstat_set_rights(call, 1, u64::MAX, 0)),
        76
    );
    // 2 becomes what 1 was, and 1 is closed.
    assert_eq!(bench.call(|call| descriptor::fd_renumber(call, 1, 2)), 0);
    bench.put(100, b"x");
    bench.vectors(0, &[(100, 1)]);
    assert_eq!(bench.call(|call| stream::fd_write(call, 2, 0, 1, 50)), 0);
    assert_eq!(bench.logged(), [(LogStream::Stdout, b"x".to_vec())]);
    assert_eq!(bench.call(|call| stream::fd_write(call, 1, 0, 1, 50)), badf);
    assert_eq!(bench.call(|call| descriptor::fd_renumber(call, 2, 1)), badf);
    assert_eq!(
        bench.call(|call| descriptor::fd_fdstat_set_rights(call, 2, 0, 0)),
        0
    );
    assert_eq!(bench.call(|call| stream::fd_write(call, 2, 0, 1, 50)), 76);
    assert_eq!(bench.call(|call| descriptor::fd_close(call, 2)), 0);
    assert_eq!(bench.call(|call| descriptor::fd_close(call, 2)), badf);
}

#[test]
fn what_needs_a_file_system_or_sockets_says_so() {
    let mut bench = Bench::new(&[]);
    for (fd, on_stream) in [(0, 0), (1, 0), (2, 0), (BAD_FD, 8), (u32::MAX, 8)] {
        let or = |errno| if on_stream == 0 { errno } else { on_stream };
        let mut gives = |expected, body: &dyn Fn(&mut Call<'_>) -> Result<(), Errno>| {
            assert_eq!(bench.call(body), or(expected));
        };
        gives(54, &|call| path::path_create_directory(call, fd, 0, 1));
        gives(54, &|call| directory::fd_readdir(call, fd, 0, 64, 0, 64));
        gives(57, &|call| absent::needs_socket(call, fd));
        gives(70, &|call| file::fd_seek(call, fd, 0, 0, 0));
        gives(70, &|call| file::fd_pread(call, fd, 0, 1, 0, 64));
        gives(58, &|call| file::fd_allocate(call, fd, 0, 1));
        gives(58, &|call| file::fd_filestat_set_times(call, fd, 0, 0, 0));
        gives(28, &|call| file::fd_filestat_set_size(call, fd, 0));
        assert_eq!(bench.call(|call| directory::fd_prestat_get(call, fd, 0)), 8);
    }
    assert_eq!(bench.call(|call| program::proc_raise(call, 9)), 52);
}

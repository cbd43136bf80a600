//! Host functions on a plain slice of memory: results, errors, capabilities and hostile pointers.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::Mutex;

use super::wasi::{absent, clock, descriptor, poll, program, stream};
use super::*;
use crate::services::{Level, LogError, LogStream, MessageKind, Receive, Received, SendError};
use crate::{Address, Grants, Target};

const MEMORY: usize = 65536;
const END: u32 = MEMORY as u32;
const BAD_FD: u32 = 3;

/// A node with a log of limited size and a mailbox.
#[derive(Default)]
struct Desk {
    log: Mutex<Vec<(LogStream, Vec<u8>)>>,
    log_left: Mutex<usize>,
    lines: Mutex<Vec<(Level, String)>>,
    mailbox: Mutex<VecDeque<Received>>,
    sent: Mutex<Vec<(Address, MessageKind, Vec<u8>)>>,
    send_error: Mutex<Option<SendError>>,
    denied: Mutex<Vec<(Capability, &'static str)>>,
}

impl Services for Desk {
    fn write_log(&self, stream: LogStream, bytes: &[u8]) -> Result<usize, LogError> {
        let mut left = self.log_left.lock().unwrap();
        if *left == 0 {
            return Err(LogError::Full);
        }
        let taken = bytes.len().min(*left);
        *left -= taken;
        self.log
            .lock()
            .unwrap()
            .push((stream, bytes[..taken].to_vec()));
        Ok(taken)
    }

    fn log(&self, level: Level, message: &str) {
        self.lines.lock().unwrap().push((level, message.into()));
    }

    fn send(&self, to: Address, kind: MessageKind, payload: &[u8]) -> Result<u64, SendError> {
        if let Some(error) = *self.send_error.lock().unwrap() {
            return Err(error);
        }
        let mut sent = self.sent.lock().unwrap();
        sent.push((to, kind, payload.to_vec()));
        Ok(sent.len() as u64)
    }

    fn receive(&self, max_len: usize) -> Receive {
        let mut mailbox = self.mailbox.lock().unwrap();
        match mailbox.front() {
            None => Receive::Empty,
            Some(message) if message.payload.len() > max_len => Receive::TooLarge {
                len: message.payload.len(),
            },
            Some(_) => Receive::Message(mailbox.pop_front().unwrap()),
        }
    }

    fn denied(&self, capability: &Capability, call: &'static str) {
        self.denied.lock().unwrap().push((*capability, call));
    }
}

/// A program's memory and state, on which host functions are called one by one.
struct Bench {
    memory: Vec<u8>,
    context: Context,
    desk: Arc<Desk>,
}

impl Bench {
    fn new(grants: &[&str]) -> Self {
        let desk = Arc::new(Desk {
            log_left: Mutex::new(1 << 20),
            ..Desk::default()
        });
        let grants: Grants = grants.iter().map(|text| text.parse().unwrap()).collect();
        let host = HostState::new(Address([7; 16])).with_grants(grants);
        let services = Arc::clone(&desk) as Arc<dyn Services>;
        let limits = Limits {
            message_bytes: 1000,
            ..Limits::default()
        };
        let context = Context {
            host,
            services,
            limits,
            waiting: None,
        };
        Self {
            memory: vec![0; MEMORY],
            context,
            desk,
        }
    }

    /// The errno of a call; the program must not be suspended.
    fn call(&mut self, body: impl FnOnce(&mut Call<'_>) -> Result<(), Errno>) -> u32 {
        let (reply, suspended) = self.context.call(&mut self.memory, body);
        assert!(!suspended, "{:?}", self.context.waiting);
        assert_eq!(self.context.host.pending, None);
        reply.unwrap()
    }

    /// What a call that suspends the program waits for.
    fn blocks(&mut self, body: impl FnOnce(&mut Call<'_>) -> Result<(), Errno>) -> Wait {
        let (_, suspended) = self.context.call(&mut self.memory, body);
        assert!(suspended, "it did not block");
        assert!(self.context.host.pending.is_some());
        self.context.waiting.unwrap()
    }

    fn put(&mut self, at: u32, bytes: &[u8]) {
        self.memory[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    fn vectors(&mut self, at: u32, vectors: &[(u32, u32)]) {
        for (index, (pointer, len)) in (0..).zip(vectors) {
            self.put(at + 8 * index, &pointer.to_le_bytes());
            self.put(at + 8 * index + 4, &len.to_le_bytes());
        }
    }

    fn u32(&self, at: u32) -> u32 {
        u32::from_le_bytes(self.memory[at as usize..][..4].try_into().unwrap())
    }

    fn u64(&self, at: u32) -> u64 {
        u64::from_le_bytes(self.memory[at as usize..][..8].try_into().unwrap())
    }

    fn logged(&self) -> Vec<(LogStream, Vec<u8>)> {
        std::mem::take(&mut *self.desk.log.lock().unwrap())
    }
}

fn errno(errno: Errno) -> u32 {
    errno as u32
}

#[test]
fn arguments_and_environment_are_laid_out_as_c_strings() {
    let mut bench = Bench::new(&[]);
    bench.context.host.args = vec![b"prog".to_vec(), b"".to_vec(), b"x=1".to_vec()];
    bench.context.host.env = vec![b"HOME=/".to_vec()];
    assert_eq!(bench.call(|call| program::args_sizes_get(call, 0, 4)), 0);
    assert_eq!((bench.u32(0), bench.u32(4)), (3, 10));
    assert_eq!(bench.call(|call| program::args_get(call, 8, 100)), 0);
    assert_eq!(
        [bench.u32(8), bench.u32(12), bench.u32(16)],
        [100, 105, 106]
    );
    assert_eq!(&bench.memory[100..110], b"prog\0\0x=1\0");
    assert_eq!(bench.call(|call| program::environ_sizes_get(call, 0, 4)), 0);
    assert_eq!((bench.u32(0), bench.u32(4)), (1, 7));
    assert_eq!(bench.call(|call| program::environ_get(call, 8, 200)), 0);
    assert_eq!(&bench.memory[200..207], b"HOME=/\0");
    let fault = errno(Errno::Fault);
    assert_eq!(
        bench.call(|call| program::args_get(call, END - 8, 100)),
        fault
    );
    assert_eq!(
        bench.call(|call| program::args_get(call, 8, END - 6)),
        fault
    );
    assert_eq!(
        bench.call(|call| program::args_get(call, 8, u32::MAX)),
        fault
    );
    assert_eq!(
        bench.call(|call| program::args_sizes_get(call, u32::MAX, 0)),
        fault
    );
}

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
        assert_eq!(
            bench.call(|call| descriptor::fd_seek(call, fd, 0, 0, 0)),
            70
        );
        assert_eq!(bench.call(|call| descriptor::fd_tell(call, fd, 0)), 70);
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
        assert_eq!(bench.call(|call| absent::needs_directory(call, fd)), or(54));
        assert_eq!(bench.call(|call| absent::needs_socket(call, fd)), or(57));
        assert_eq!(
            bench.call(|call| descriptor::fd_readdir(call, fd, 0, 0, 0, 0)),
            or(54)
        );
        assert_eq!(
            bench.call(|call| descriptor::fd_pread(call, fd, 0, 0, 0, 0)),
            or(70)
        );
        assert_eq!(
            bench.call(|call| descriptor::fd_pwrite(call, fd, 0, 0, 0, 0)),
            or(70)
        );
        assert_eq!(
            bench.call(|call| descriptor::fd_advise(call, fd, 0, 0, 0)),
            or(70)
        );
        assert_eq!(
            bench.call(|call| descriptor::fd_allocate(call, fd, 0, 0)),
            or(58)
        );
        assert_eq!(
            bench.call(|call| descriptor::fd_filestat_set_size(call, fd, 0)),
            or(28)
        );
        assert_eq!(
            bench.call(|call| descriptor::fd_filestat_set_times(call, fd, 0, 0, 0)),
            or(58)
        );
        assert_eq!(
            bench.call(|call| descriptor::fd_prestat_get(call, fd, 0)),
            8
        );
        assert_eq!(
            bench.call(|call| descriptor::fd_prestat_dir_name(call, fd, 0, 0)),
            8
        );
    }
    assert_eq!(bench.call(|call| program::proc_raise(call, 9)), 52);
}

#[test]
fn clocks_need_their_capability_and_never_go_back() {
    let mut bench = Bench::new(&[]);
    assert_eq!(bench.call(|call| clock::clock_time_get(call, 1, 0, 0)), 76);
    assert_eq!(bench.call(|call| clock::clock_res_get(call, 1, 0)), 76);
    let denied = bench.desk.denied.lock().unwrap().clone();
    assert_eq!(
        denied,
        [
            (Capability::Clock, "clock_time_get"),
            (Capability::Clock, "clock_res_get")
        ]
    );

    let mut bench = Bench::new(&["clock"]);
    let mut last = 0;
    for _ in 0..100 {
        assert_eq!(bench.call(|call| clock::clock_time_get(call, 1, 0, 0)), 0);
        assert!(bench.u64(0) >= last);
        last = bench.u64(0);
    }
    assert_eq!(bench.call(|call| clock::clock_time_get(call, 0, 0, 0)), 0);
    assert!(
        bench.u64(0) > 1_700_000_000_000_000_000,
        "it is later than 2023"
    );
    assert_eq!(bench.call(|call| clock::clock_res_get(call, 0, 0)), 0);
    assert!(bench.u64(0) > 0);
    for (id, expected) in [(2, 58), (3, 58), (4, 28), (u32::MAX, 28)] {
        assert_eq!(
            bench.call(|call| clock::clock_time_get(call, id, 0, 0)),
            expected
        );
    }
    assert_eq!(
        bench.call(|call| clock::clock_time_get(call, 1, 0, END - 7)),
        21
    );
}

#[test]
fn random_bytes_need_their_capability() {
    let mut bench = Bench::new(&[]);
    assert_eq!(bench.call(|call| program::random_get(call, 0, 16)), 76);
    assert_eq!(&bench.memory[..16], [0; 16]);
    assert_eq!(
        *bench.desk.denied.lock().unwrap(),
        [(Capability::Random, "random_get")]
    );
    let mut bench = Bench::new(&["random"]);
    assert_eq!(bench.call(|call| program::random_get(call, 0, 16)), 0);
    assert_ne!(&bench.memory[..16], [0; 16]);
    assert_eq!(
        bench.call(|call| program::random_get(call, END - 15, 16)),
        21
    );
    assert_eq!(
        bench.call(|call| program::random_get(call, 0, u32::MAX)),
        28
    );
    assert_eq!(bench.call(|call| program::random_get(call, 0, 0)), 0);
}

/// A subscription to a clock, as `poll_oneoff` reads it.
fn clock_subscription(userdata: u64, id: u32, timeout_ns: u64, absolute: bool) -> [u8; 48] {
    let mut bytes = [0; 48];
    bytes[0..8].copy_from_slice(&userdata.to_le_bytes());
    bytes[16..20].copy_from_slice(&id.to_le_bytes());
    bytes[24..32].copy_from_slice(&timeout_ns.to_le_bytes());
    bytes[40] = u8::from(absolute);
    bytes
}

fn fd_subscription(userdata: u64, kind: u8, fd: u32) -> [u8; 48] {
    let mut bytes = [0; 48];
    bytes[0..8].copy_from_slice(&userdata.to_le_bytes());
    bytes[8] = kind;
    bytes[16..20].copy_from_slice(&fd.to_le_bytes());
    bytes
}

#[test]
fn a_sleep_blocks_until_its_deadline_however_often_it_is_asked_again() {
    let mut bench = Bench::new(&["clock"]);
    bench.put(0, &clock_subscription(5, 1, 3_600_000_000_000, false));
    let poll = |call: &mut Call<'_>| poll::poll_oneoff(call, 0, 1000, 1, 2000);
    let wait = bench.blocks(poll);
    let deadline = wait.deadline_ns.unwrap();
    assert!(!wait.message);
    assert_eq!(bench.blocks(poll), wait, "asking again does not start anew");
    // The pending call travels, and the clock with it.
    bench.context.host = HostState::from_sections(&bench.context.host.to_sections()).unwrap();
    assert_eq!(bench.blocks(poll), wait);

    // An hour earlier it was issued; now it is over.
    bench.context.host.pending = Some(Pending::Poll { since_ns: 0 });
    bench.put(0, &clock_subscription(5, 1, 1, false));
    assert!(bench.context.host.now_ns() >= 1 && deadline > 1);
    assert_eq!(bench.call(poll), 0);
    assert_eq!(
        (bench.u32(2000), bench.u64(1000), bench.memory[1010]),
        (1, 5, 0)
    );

    bench.put(0, &clock_subscription(6, 1, 0, true));
    assert_eq!(bench.call(poll), 0);
    assert_eq!(bench.u64(1000), 6);
    bench.put(0, &clock_subscription(7, 0, u64::MAX, true));
    assert!(bench.blocks(poll).deadline_ns.unwrap() > deadline);
}

#[test]
fn of_several_subscriptions_the_ready_ones_are_reported() {
    let mut bench = Bench::new(&["clock"]);
    bench.context.host = bench.context.host.clone().with_stdin(*b"abc");
    let subscriptions = [
        clock_subscription(1, 1, 3_600_000_000_000, false),
        fd_subscription(2, 1, 0),
        fd_subscription(3, 2, 1),
        fd_subscription(4, 2, 9),
        fd_subscription(5, 1, 1),
        clock_subscription(6, 2, 0, false),
    ];
    bench.put(0, &subscriptions.concat());
    assert_eq!(
        bench.call(|call| poll::poll_oneoff(call, 0, 1000, 6, 2000)),
        0
    );
    assert_eq!(bench.u32(2000), 5);
    let events: Vec<(u64, u16, u8, u64)> = (0..5)
        .map(|index| {
            let at = 1000 + 32 * index;
            let error = u16::from_le_bytes([bench.memory[at + 8], bench.memory[at + 9]]);
            let at = at as u32;
            (
                bench.u64(at),
                error,
                bench.memory[at as usize + 10],
                bench.u64(at + 16),
            )
        })
        .collect();
    let expected = [
        (2, 0, 1, 3),
        (3, 0, 2, 4096),
        (4, 8, 2, 0),
        (5, 8, 1, 0),
        (6, 58, 0, 0),
    ];
    assert_eq!(events, expected);
}

#[test]
fn hostile_polls_are_refused() {
    let mut bench = Bench::new(&["clock"]);
    let mut check = |subscriptions, events, count, out, expected: Errno| {
        let poll = |call: &mut Call<'_>| poll::poll_oneoff(call, subscriptions, events, count, out);
        assert_eq!(
            bench.call(poll),
            errno(expected),
            "{subscriptions} {events} {count} {out}"
        );
    };
    check(0, 1000, 0, 2000, Errno::Inval);
    check(0, 1000, 1025, 2000, Errno::Inval);
    check(0, 1000, u32::MAX, 2000, Errno::Inval);
    check(END - 47, 1000, 1, 2000, Errno::Fault);
    check(0, END - 31, 1, 2000, Errno::Fault);
    check(0, u32::MAX, 1, 2000, Errno::Fault);
    check(0, 1000, 1, END - 3, Errno::Fault);
    bench.put(8, &[3]);
    assert_eq!(
        bench.call(|call| poll::poll_oneoff(call, 0, 1000, 1, 2000)),
        28
    );

    let mut bench = Bench::new(&[]);
    bench.put(0, &clock_subscription(5, 1, 0, false));
    assert_eq!(
        bench.call(|call| poll::poll_oneoff(call, 0, 1000, 1, 2000)),
        76
    );
    assert_eq!(
        *bench.desk.denied.lock().unwrap(),
        [(Capability::Clock, "poll_oneoff")]
    );
    bench.put(0, &fd_subscription(5, 2, 1));
    assert_eq!(
        bench.call(|call| poll::poll_oneoff(call, 0, 1000, 1, 2000)),
        0
    );
}

#[test]
fn sending_needs_a_grant_for_that_destination() {
    let one = format!("message:{}", Address([1; 16]));
    let mut bench = Bench::new(&[&one]);
    bench.put(0, &[1; 16]);
    bench.put(16, &[2; 16]);
    bench.put(100, b"hi");
    assert_eq!(bench.call(|call| mielin::send(call, 0, 100, 2, 200)), 0);
    assert_eq!(bench.u64(200), 1);
    let sent = (Address([1; 16]), MessageKind::Message, b"hi".to_vec());
    assert_eq!(*bench.desk.sent.lock().unwrap(), [sent]);
    assert_eq!(bench.call(|call| mielin::send(call, 16, 100, 2, 200)), 76);
    let wanted = Capability::Message(Target::One(Address([2; 16])));
    assert_eq!(
        *bench.desk.denied.lock().unwrap(),
        [(wanted, "mielin.send")]
    );
    assert_eq!(bench.call(|call| mielin::send(call, 0, 100, 1001, 200)), 35);
    assert_eq!(
        bench.call(|call| mielin::send(call, 0, END - 1, 2, 200)),
        21
    );
    assert_eq!(
        bench.call(|call| mielin::send(call, END - 15, 100, 2, 200)),
        21
    );
    assert_eq!(
        bench.call(|call| mielin::send(call, 0, 100, 2, END - 7)),
        21
    );
    assert_eq!(
        bench.desk.sent.lock().unwrap().len(),
        1,
        "nothing else was sent"
    );
    for (error, expected) in [
        (SendError::Unknown, 23),
        (SendError::Closed, 64),
        (SendError::TooLarge { limit: 1 }, 35),
    ] {
        *bench.desk.send_error.lock().unwrap() = Some(error);
        assert_eq!(
            bench.call(|call| mielin::send(call, 0, 100, 2, 200)),
            expected
        );
    }
    *bench.desk.send_error.lock().unwrap() = Some(SendError::Full);
    let wait = bench.blocks(|call| mielin::send(call, 0, 100, 2, 200));
    assert!(wait.deadline_ns.is_some() && !wait.message);
    *bench.desk.send_error.lock().unwrap() = None;
    assert_eq!(bench.call(|call| mielin::send(call, 0, 100, 2, 200)), 0);
    assert_eq!(bench.u64(200), 2);
}

fn message(from: u8, sequence: u64, kind: MessageKind, payload: &[u8]) -> Received {
    Received {
        from: Address([from; 16]),
        sequence,
        kind,
        payload: payload.to_vec(),
    }
}

#[test]
fn receiving_blocks_looks_or_times_out() {
    let mut bench = Bench::new(&[]);
    let forever = |call: &mut Call<'_>| mielin::receive(call, 100, 10, u64::MAX, 0);
    let look = |call: &mut Call<'_>| mielin::receive(call, 100, 10, 0, 0);
    assert_eq!(bench.call(look), errno(Errno::Again));
    assert_eq!(
        bench.blocks(forever),
        Wait {
            deadline_ns: None,
            message: true
        }
    );
    let put = |bench: &Bench, message| bench.desk.mailbox.lock().unwrap().push_back(message);
    put(
        &bench,
        message(4, 9, MessageKind::Reply { to: 3 }, b"0123456789"),
    );
    put(&bench, message(5, 1, MessageKind::Message, b"0123456789a"));
    assert_eq!(bench.call(forever), 0);
    assert_eq!(&bench.memory[0..16], [4; 16]);
    assert_eq!(
        (bench.u64(16), bench.u64(24), bench.u32(32), bench.u32(36)),
        (9, 3, 1, 10)
    );
    assert_eq!(&bench.memory[100..110], b"0123456789");

    // Too large: it says how large, and stays.
    assert_eq!(bench.call(look), errno(Errno::Msgsize));
    assert_eq!(bench.u32(36), 11);
    assert_eq!(bench.call(|call| mielin::receive(call, 100, 11, 0, 0)), 0);
    assert_eq!((bench.u64(24), bench.u32(32), bench.u32(36)), (0, 0, 11));

    let timed = |call: &mut Call<'_>| mielin::receive(call, 100, 10, 3_600_000_000_000, 0);
    let wait = bench.blocks(timed);
    assert_eq!(
        bench.blocks(timed),
        wait,
        "asking again does not start anew"
    );
    bench.context.host.pending = Some(Pending::Receive {
        deadline_ns: Some(1),
    });
    assert_eq!(bench.call(timed), errno(Errno::Timedout));

    // Nothing is taken when there is nowhere to put it.
    put(&bench, message(6, 2, MessageKind::Message, b"x"));
    for (buffer, capacity, out) in [(END - 9, 10, 0), (100, 10, END - 39), (100, u32::MAX, 0)] {
        let call = |call: &mut Call<'_>| mielin::receive(call, buffer, capacity, 0, out);
        assert_eq!(bench.call(call), errno(Errno::Fault));
    }
    assert_eq!(bench.desk.mailbox.lock().unwrap().len(), 1);
}

#[test]
fn each_message_can_be_answered_once_without_any_grant() {
    let mut bench = Bench::new(&[]);
    let received = message(4, 9, MessageKind::Message, b"?");
    bench.desk.mailbox.lock().unwrap().push_back(received);
    assert_eq!(bench.call(|call| mielin::receive(call, 100, 10, 0, 0)), 0);
    bench.put(200, b"yes");
    let reply = |call: &mut Call<'_>| mielin::reply(call, 0, 9, 200, 3);
    assert_eq!(
        bench.call(|call| mielin::reply(call, 0, 8, 200, 3)),
        errno(Errno::Noent)
    );
    assert_eq!(
        bench.call(|call| mielin::reply(call, 300, 9, 200, 3)),
        errno(Errno::Noent)
    );
    *bench.desk.send_error.lock().unwrap() = Some(SendError::Full);
    bench.blocks(reply);
    *bench.desk.send_error.lock().unwrap() = None;
    assert_eq!(bench.call(reply), 0);
    let sent = (
        Address([4; 16]),
        MessageKind::Reply { to: 9 },
        b"yes".to_vec(),
    );
    assert_eq!(*bench.desk.sent.lock().unwrap(), [sent]);
    assert_eq!(bench.call(reply), errno(Errno::Noent));
    assert_eq!(*bench.desk.denied.lock().unwrap(), []);
}

#[test]
fn unanswered_messages_are_bounded() {
    let mut state = HostState::new(Address::default());
    for sequence in 0..10_000 {
        state.note_received(Address([1; 16]), sequence);
    }
    assert_eq!(state.unanswered.len(), crate::state::UNANSWERED_MAX);
    assert_eq!(state.unanswered.back(), Some(&(Address([1; 16]), 9_999)));
}

#[test]
fn the_small_calls_of_mielin() {
    let mut bench = Bench::new(&["clock", "message"]);
    let (version, _) = bench.context.call(&mut bench.memory, mielin::abi_version);
    assert_eq!(version.unwrap(), 1);
    assert_eq!(bench.call(|call| mielin::self_id(call, 0)), 0);
    assert_eq!(&bench.memory[..16], [7; 16]);
    assert_eq!(bench.call(|call| mielin::self_id(call, END - 15)), 21);

    bench.put(100, b"line \xff");
    assert_eq!(bench.call(|call| mielin::log(call, 1, 100, 6)), 0);
    assert_eq!(
        *bench.desk.lines.lock().unwrap(),
        [(Level::Warn, "line \u{fffd}".into())]
    );
    assert_eq!(bench.call(|call| mielin::log(call, 5, 100, 6)), 28);
    assert_eq!(bench.call(|call| mielin::log(call, 1, 0, 65537)), 35);
    assert_eq!(bench.call(|call| mielin::log(call, 1, END - 5, 6)), 21);

    assert_eq!(
        bench.call(|call| mielin::capabilities(call, 300, 100, 0)),
        0
    );
    assert_eq!(
        &bench.memory[300..300 + bench.u32(0) as usize],
        b"clock\nmessage\n"
    );
    bench.put(300, &[0; 14]);
    assert_eq!(
        bench.call(|call| mielin::capabilities(call, 300, 13, 0)),
        35
    );
    assert_eq!((bench.u32(0), bench.memory[300]), (14, 0));
}

#[test]
fn every_function_of_the_list_links_on_both_engines() {
    use super::table::{HOST_FUNCTIONS, Number};
    let name = |number: &Number| match number {
        Number::I32 => "i32",
        Number::I64 => "i64",
    };
    let mut imports = String::new();
    for function in HOST_FUNCTIONS {
        let list = |numbers: &[Number]| numbers.iter().map(name).collect::<Vec<_>>().join(" ");
        imports.push_str(&format!(
            "(import \"{}\" \"{}\" (func (param {}) (result {})))\n",
            function.module,
            function.name,
            list(function.parameters),
            list(function.results)
        ));
    }
    let wasi = HOST_FUNCTIONS
        .iter()
        .filter(|function| function.module != "mielin")
        .count();
    assert_eq!((wasi, HOST_FUNCTIONS.len()), (46, 53));
    let wat =
        format!(r#"(module {imports} (memory (export "memory") 1) (func (export "_start")))"#);
    let module = mielin_safepoint::instrument(&wat::parse_str(wat).unwrap()).unwrap();
    for kind in [crate::EngineKind::Wasmtime, crate::EngineKind::Wasmi] {
        let prepared = crate::engine(kind).unwrap().prepare(&module).unwrap();
        let host = HostState::new(Address::default());
        let desk = Arc::new(Desk::default());
        let mut instance = prepared
            .instantiate(host, desk, &Limits::default())
            .unwrap();
        assert_eq!(instance.run(), crate::Outcome::Exited(0), "{kind}");
    }
}

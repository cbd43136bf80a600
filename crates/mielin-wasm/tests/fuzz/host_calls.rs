//! Host calls with any arguments, on any memory: the host survives them, and the program ends, waits
//! or goes on.
//!
//! The program is an interpreter of its own memory: it reads records of 64 bytes, each the number of
//! a host function and its arguments, and makes the calls.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::sync::{Arc, LazyLock};

use mielin_fuzz::{Seed, Target};
use mielin_safepoint::{PAGE_SIZE, Snapshot, SnapshotLimits, instrument};
use mielin_wasm::{
    Actuated, Address, Capability, Discarded, EngineKind, HostState, Level, Limits, LogError,
    LogStream, MessageKind, Outcome, Prepared, Reading, Receive, Received, SendError, Sensed,
    Services, engine,
};

pub(crate) const TARGET: Target = Target {
    name: "host_calls",
    mutations: 1_500,
    // The two memories of an instance, what one call may copy, files, and a snapshot of it.
    fixed_bytes: 24 << 20,
    bytes_per_byte: 64,
    run,
    seeds,
};

/// Bytes of a record: a number and nine arguments, each in the lower bytes of a u32 or in a u64.
const RECORD: usize = 64;
const RECORDS_MAX: usize = 64;
/// All rights of WASI.
const RIGHTS: u64 = (1 << 30) - 1;
/// How often a program is resumed after it waited.
const WAITS_MAX: usize = 8;

/// Every host function with its parameters, `i` for 32 and `l` for 64 bits. Those without a result
/// stand last.
const FUNCTIONS: &[(&str, &str, &str)] = &[
    ("wasi_snapshot_preview1", "args_get", "ii"),
    ("wasi_snapshot_preview1", "args_sizes_get", "ii"),
    ("wasi_snapshot_preview1", "environ_get", "ii"),
    ("wasi_snapshot_preview1", "environ_sizes_get", "ii"),
    ("wasi_snapshot_preview1", "clock_res_get", "ii"),
    ("wasi_snapshot_preview1", "clock_time_get", "ili"),
    ("wasi_snapshot_preview1", "fd_advise", "illi"),
    ("wasi_snapshot_preview1", "fd_close", "i"),
    ("wasi_snapshot_preview1", "fd_fdstat_get", "ii"),
    ("wasi_snapshot_preview1", "fd_fdstat_set_flags", "ii"),
    ("wasi_snapshot_preview1", "fd_fdstat_set_rights", "ill"),
    ("wasi_snapshot_preview1", "fd_filestat_get", "ii"),
    ("wasi_snapshot_preview1", "fd_pread", "iiili"),
    ("wasi_snapshot_preview1", "fd_prestat_get", "ii"),
    ("wasi_snapshot_preview1", "fd_prestat_dir_name", "iii"),
    ("wasi_snapshot_preview1", "fd_pwrite", "iiili"),
    ("wasi_snapshot_preview1", "fd_read", "iiii"),
    ("wasi_snapshot_preview1", "fd_readdir", "iiili"),
    ("wasi_snapshot_preview1", "fd_renumber", "ii"),
    ("wasi_snapshot_preview1", "fd_seek", "ilii"),
    ("wasi_snapshot_preview1", "fd_write", "iiii"),
    ("wasi_snapshot_preview1", "path_open", "iiiiillii"),
    ("wasi_snapshot_preview1", "poll_oneoff", "iiii"),
    ("wasi_snapshot_preview1", "proc_raise", "i"),
    ("wasi_snapshot_preview1", "random_get", "ii"),
    ("wasi_snapshot_preview1", "sched_yield", ""),
    ("wasi_snapshot_preview1", "sock_recv", "iiiiii"),
    ("mielin", "abi_version", ""),
    ("mielin", "self_id", "i"),
    ("mielin", "send", "iiii"),
    ("mielin", "receive", "iili"),
    ("mielin", "reply", "ilii"),
    ("mielin", "log", "iii"),
    ("mielin", "capabilities", "iii"),
    ("wasi_snapshot_preview1", "fd_allocate", "ill"),
    ("wasi_snapshot_preview1", "fd_filestat_set_size", "il"),
    ("wasi_snapshot_preview1", "fd_filestat_set_times", "illi"),
    ("wasi_snapshot_preview1", "fd_tell", "ii"),
    ("wasi_snapshot_preview1", "path_create_directory", "iii"),
    ("wasi_snapshot_preview1", "path_filestat_get", "iiiii"),
    (
        "wasi_snapshot_preview1",
        "path_filestat_set_times",
        "iiiilli",
    ),
    ("wasi_snapshot_preview1", "path_link", "iiiiiii"),
    ("wasi_snapshot_preview1", "path_readlink", "iiiiii"),
    ("wasi_snapshot_preview1", "path_remove_directory", "iii"),
    ("wasi_snapshot_preview1", "path_rename", "iiiiii"),
    ("wasi_snapshot_preview1", "path_symlink", "iiiii"),
    ("wasi_snapshot_preview1", "path_unlink_file", "iii"),
    ("mielin", "tensor_matmul", "iiiiii"),
    ("mielin", "tensor_matmul_i8", "iii"),
    ("mielin", "tensor_map", "iii"),
    ("mielin", "tensor_zip", "iiii"),
    ("mielin", "tensor_reduce", "iii"),
    ("mielin", "tensor_softmax", "i"),
    ("mielin", "tensor_norm", "iiii"),
    ("mielin", "tensor_attention", "iiiiii"),
    ("mielin", "tensor_embedding", "iii"),
    ("mielin", "sense", "illi"),
    ("mielin", "actuate", "il"),
    ("mielin", "discard", "ii"),
    ("wasi_snapshot_preview1", "proc_exit", "i"),
];

/// The interpreter. Record `n` stands at `n * RECORD`; a number beyond the table ends the program.
fn text() -> String {
    let mut text = String::from("(module\n");
    for (index, (module, name, parameters)) in FUNCTIONS.iter().enumerate() {
        let result = if *name == "proc_exit" {
            ""
        } else {
            "(result i32)"
        };
        let parameters: String = parameters
            .chars()
            .map(|c| format!(" {}", wasm(c)))
            .collect();
        writeln!(
            text,
            "(import \"{module}\" \"{name}\" (func $f{index} (param{parameters}) {result}))"
        )
        .unwrap();
    }
    text.push_str("(memory (export \"memory\") 1)\n(func (export \"_start\") (local $at i32)\n");
    text.push_str("(loop $next\n");
    for index in 0..=FUNCTIONS.len() {
        write!(text, "(block $b{} ", FUNCTIONS.len() - index).unwrap();
    }
    text.push_str("(br_table");
    for index in 0..=FUNCTIONS.len() {
        write!(text, " $b{index}").unwrap();
    }
    text.push_str(" (i32.load8_u (local.get $at))))\n");
    for (index, (_, name, parameters)) in FUNCTIONS.iter().enumerate() {
        for (place, parameter) in parameters.chars().enumerate() {
            let offset = 4 + 6 * place;
            write!(
                text,
                "({}.load offset={offset} (local.get $at))",
                wasm(parameter)
            )
            .unwrap();
        }
        write!(text, "(call $f{index})").unwrap();
        if *name != "proc_exit" {
            text.push_str("(drop)");
        }
        // On to the next record; the last block, for numbers beyond the table, has none.
        writeln!(
            text,
            "(local.set $at (i32.add (local.get $at) (i32.const {RECORD})))\
             (br_if $next (i32.lt_u (local.get $at) (i32.const {})))(return))",
            RECORD * RECORDS_MAX
        )
        .unwrap();
    }
    text.push_str("))\n)");
    text
}

fn wasm(parameter: char) -> &'static str {
    if parameter == 'i' { "i32" } else { "i64" }
}

static PROGRAM: LazyLock<Arc<dyn Prepared>> = LazyLock::new(|| {
    let module = instrument(&wat::parse_str(text()).unwrap()).unwrap();
    engine(EngineKind::Wasmi)
        .unwrap()
        .prepare(&module, None)
        .unwrap()
});

/// A node that takes a little of everything.
struct Node;

impl Services for Node {
    fn write_log(&self, _: LogStream, bytes: &[u8]) -> Result<usize, LogError> {
        if bytes.len() % 7 == 6 {
            return Err(LogError::Full);
        }
        Ok(bytes.len().min(1000))
    }

    fn log(&self, _: Level, message: &str) {
        assert!(message.len() <= 3 * (64 << 10));
    }

    fn send(&self, to: Address, _: MessageKind, payload: &[u8]) -> Result<u64, SendError> {
        assert!(payload.len() <= limits().message_bytes);
        match to.0[0] % 4 {
            0 => Err(SendError::Full),
            1 => Err(SendError::Unknown),
            _ => Ok(1),
        }
    }

    fn receive(&self, max_len: usize) -> Receive {
        match max_len {
            0 => Receive::Empty,
            1..8 => Receive::TooLarge { len: 8 },
            _ => Receive::Message(Received {
                from: Address([2; 16]),
                sequence: 1,
                kind: MessageKind::Message,
                payload: vec![5; 8],
            }),
        }
    }

    fn discard(&self, longer_than: usize) -> Option<Discarded> {
        (longer_than < 8).then_some(Discarded {
            from: Address([2; 16]),
            sequence: 1,
            kind: MessageKind::Message,
            len: 8,
        })
    }

    fn sense(&self, sensor: u8, after: u64) -> Sensed {
        let number = match sensor % 4 {
            0 => return Sensed::Absent,
            1 => after.wrapping_add(1),
            2 => return Sensed::NotYet,
            // Which the program may be done with.
            _ => 2,
        };
        Sensed::Reading(Reading {
            number,
            time_ns: 1,
            value: -1,
        })
    }

    fn actuate(&self, actuator: u8, value: i64) -> Actuated {
        match (actuator % 4, value) {
            (0, _) => Actuated::Absent,
            (1, 0..) => Actuated::Done,
            (1, _) => Actuated::Refused,
            (2, _) => Actuated::NotYet,
            _ => Actuated::Unreachable,
        }
    }

    fn denied(&self, _: &Capability, call: &'static str) {
        panic!("{call} was denied although everything is granted");
    }
}

fn limits() -> Limits {
    Limits {
        memory_bytes: 65536,
        message_bytes: 4096,
        ..Limits::default()
    }
}

fn run(input: &[u8]) -> bool {
    let grants = [
        "clock",
        "random",
        "message",
        "data:64KiB",
        "tensor",
        "sensor",
        "actuator",
    ]
    .map(|text| text.parse().unwrap());
    let host = HostState::new(Address([7; 16]))
        .with_args(["program", "argument"])
        .with_env(["NAME=value"])
        .with_stdin(*b"some standard input")
        .with_grants(grants.into_iter().collect());
    let mut instance = PROGRAM
        .instantiate(host, Arc::new(Node), &limits())
        .unwrap();
    for (index, bytes) in (0..16).zip(input.chunks(PAGE_SIZE)) {
        let mut page = [0; PAGE_SIZE];
        page[..bytes.len()].copy_from_slice(bytes);
        instance.write_page(index, &page).unwrap();
    }
    let mut outcome = instance.run();
    for _ in 0..WAITS_MAX {
        if !matches!(outcome, Outcome::Blocked(_)) {
            break;
        }
        outcome = instance.run();
    }
    assert_eq!(instance.memory_bytes(), 65536);
    let snapshot = instance.snapshot();
    let again = Snapshot::decode(&snapshot.encode(), &SnapshotLimits::default()).unwrap();
    assert!(HostState::from_sections(&again.host).is_ok());
    matches!(outcome, Outcome::Exited(_))
}

/// Descriptions of matrices, 32 bytes apart from 1024 on: two rows of two floats at 2048 and at 2064, a row of two at 2080, their
/// transpose, bytes and integers.
fn matrices() -> Vec<u8> {
    let descriptions: [[u32; 6]; 7] = [
        [2048, 0, 2, 2, 2, 1],
        [2064, 0, 2, 2, 2, 1],
        [2080, 0, 1, 2, 2, 1],
        [2048, 0, 2, 2, 1, 2],
        [2096, 1, 2, 2, 2, 1],
        [2112, 2, 2, 2, 2, 1],
        [2064, 0, 2, 1, 1, 1],
    ];
    let mut bytes = vec![0; 1024];
    for (description, place) in descriptions.iter().zip(bytes.chunks_exact_mut(32)) {
        for (word, place) in description.iter().zip(place.chunks_exact_mut(4)) {
            place.copy_from_slice(&word.to_le_bytes());
        }
    }
    bytes.extend_from_slice(&1.5_f32.to_le_bytes().repeat(40));
    bytes
}

fn tensors(record: &dyn Fn(&str, &[u64]) -> Vec<u8>) -> Vec<Vec<u8>> {
    let [a, c, row, turned, bytes, integers, column] = [0, 1, 2, 3, 4, 5, 6].map(|n| 1024 + 32 * n);
    vec![
        record("tensor_matmul", &[a, turned, c, row, 5, 1]),
        record("tensor_matmul_i8", &[bytes, bytes, integers]),
        record("tensor_map", &[1, a, c]),
        record("tensor_zip", &[3, c, a, c]),
        record("tensor_reduce", &[2, a, column]),
        record("tensor_softmax", &[c]),
        record("tensor_norm", &[c, row, row, 0]),
        record("tensor_attention", &[a, a, turned, c, 1 << 29, 0]),
        record("tensor_embedding", &[a, row, c]),
        record("", &[]),
    ]
}

fn seeds() -> Vec<Seed> {
    let record = |name: &str, arguments: &[u64]| {
        let number = FUNCTIONS.iter().position(|function| function.1 == name);
        let mut record = [0; RECORD + 8];
        record[0] = number.unwrap_or(255) as u8;
        for (place, argument) in arguments.iter().enumerate() {
            // The upper half of a 64-bit argument overlaps the next one, which comes later.
            record[4 + 6 * place..][..8].copy_from_slice(&argument.to_le_bytes());
        }
        record[..RECORD].to_vec()
    };
    let end = record("", &[]);
    // Data stands behind the records, at 1024: two vectors, and a subscription to a clock.
    let data = |records: &[Vec<u8>], data: &[u8]| {
        let mut memory = records.concat();
        memory.resize(1024, 255);
        memory.extend_from_slice(data);
        memory
    };
    let vectors: Vec<u8> = [2048_u32, 5, 65530, 6]
        .iter()
        .flat_map(|n| n.to_le_bytes())
        .collect();
    let mut clock = [0_u8; 48];
    clock[16] = 1;
    clock[24] = 1;
    let every: Vec<Vec<u8>> = FUNCTIONS
        .iter()
        .map(|(_, name, _)| record(name, &[1, 4096, 16, 4200, 4096]))
        .collect();
    let past_the_end: Vec<Vec<u8>> = FUNCTIONS
        .iter()
        .map(|(_, name, _)| record(name, &[0, 0xffff_fff0, 0xffff_ffff, 0xffff_fffc]))
        .collect();
    vec![
        Seed::good("every-function", every.concat()),
        Seed::good("pointers-past-the-end", past_the_end.concat()),
        Seed::good(
            "write-read-poll",
            data(
                &[
                    record("fd_write", &[1, 1024, 2, 3000]),
                    record("fd_read", &[0, 1024, 2, 3000]),
                    record("poll_oneoff", &[1040, 3000, 1, 4000]),
                    end.clone(),
                ],
                &[&vectors[..], &clock].concat(),
            ),
        ),
        Seed::good(
            "messages",
            data(
                &[
                    record("receive", &[3000, 64, 0, 4000]),
                    record("reply", &[4000, 1, 3000, 8]),
                    record("discard", &[7, 4000]),
                    record("send", &[4000, 3000, 8, 3100]),
                    record("log", &[2, 1024, 6]),
                    record("capabilities", &[3000, 100, 3200]),
                    end.clone(),
                ],
                b"a line",
            ),
        ),
        Seed::good(
            "devices",
            data(
                &[
                    record("sense", &[1, 5, 0, 3000]),
                    // Where it is to be written is also how long to wait for it.
                    record("sense", &[2, 5, 0, 0]),
                    record("sense", &[3, 5, 0, 3000]),
                    record("sense", &[4, 5, 0, 3000]),
                    record("actuate", &[1, 7]),
                    record("actuate", &[1, u64::MAX]),
                    record("actuate", &[3, 7]),
                    end.clone(),
                ],
                b"",
            ),
        ),
        Seed::good("tensors", data(&tensors(&record), &matrices())),
        Seed::good(
            "files",
            data(
                &[
                    record("path_create_directory", &[3, 2048, 1]),
                    record("path_open", &[3, 0, 2050, 3, 1, RIGHTS, RIGHTS, 0, 3000]),
                    record("fd_write", &[4, 1024, 2, 3000]),
                    record("fd_seek", &[4, 1, 0, 3000]),
                    record("fd_read", &[4, 1024, 2, 3000]),
                    record("path_rename", &[3, 2050, 3, 3, 2053, 1]),
                    record("path_link", &[3, 0, 2053, 1, 3, 2050, 3]),
                    record("path_unlink_file", &[3, 2053, 1]),
                    record("fd_readdir", &[3, 5000, 70, 0, 3000]),
                    record("fd_renumber", &[4, 0]),
                    record("path_open", &[3, 0, 2054, 4, 1, RIGHTS, RIGHTS, 0, 3000]),
                    end.clone(),
                ],
                &[&vectors[..], &[0; 1008], b"d/d/fg../x"].concat(),
            ),
        ),
        Seed::bad(
            "waits-for-ever",
            data(&[record("receive", &[3000, 0, u64::MAX, 4000])], b""),
        ),
        Seed::bad(
            "waits-for-an-actuator",
            data(&[record("actuate", &[2, 1])], b""),
        ),
    ]
}

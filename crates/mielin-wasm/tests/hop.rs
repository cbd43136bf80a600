//! The differential test: a program that is stopped at many points, and goes on each time in a new
//! instance on a random engine from the bytes of a snapshot, half the times after it had no instance for a while, ends with the same output and code as
//! the module that was not rewritten does on either engine.
//!
//! `MIELIN_HOP_SEED` repeats a run's choices. Where a stop falls inside a time slice depends on the
//! machine; the single steps between the slices do not.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use mielin_safepoint::{Resumable, Snapshot, SnapshotLimits, instrument};
use mielin_wasm::{
    EngineKind, Grants, HostState, Instance, Limits, Outcome, Services, StopHandle, engine,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use support::{BOTH, Node, all_grants, host, instance_with};

struct Case {
    name: &'static str,
    /// The module as its compiler made it.
    plain: Vec<u8>,
    host: HostState,
    hops: usize,
    /// The most turns of an idle loop before a slice is cut.
    slice: u32,
}

/// Hops by stopping slices after a while; the helper thread serves one program.
struct Cutter {
    orders: mpsc::Sender<(StopHandle, u32, Arc<AtomicU8>)>,
}

const WAITING: u8 = 0;
const OVER: u8 = 1;

impl Cutter {
    fn new() -> Self {
        let (orders, received) = mpsc::channel::<(StopHandle, u32, Arc<AtomicU8>)>();
        thread::spawn(move || {
            for (stop, turns, state) in received {
                for _ in 0..turns {
                    if state.load(Ordering::Relaxed) == OVER {
                        break;
                    }
                    std::hint::spin_loop();
                }
                stop.request();
            }
        });
        Self { orders }
    }

    fn slice(&self, instance: &mut dyn Instance, turns: u32) -> Outcome {
        let state = Arc::new(AtomicU8::new(WAITING));
        self.orders
            .send((instance.stop_handle(), turns, Arc::clone(&state)))
            .unwrap();
        let outcome = instance.run();
        state.store(OVER, Ordering::Relaxed);
        outcome
    }
}

/// Goes from safepoint to safepoint this many times.
fn steps(instance: &mut dyn Instance, count: u32) -> Outcome {
    for _ in 1..count {
        instance.stop_handle().request();
        let outcome = instance.run();
        if outcome != Outcome::Stopped {
            return outcome;
        }
    }
    instance.stop_handle().request();
    instance.run()
}

/// Runs the plain module.
fn whole_run(kind: EngineKind, case: &Case) -> (Outcome, String) {
    let node = Arc::new(Node::default());
    let plain = engine(kind).unwrap().prepare_plain(&case.plain).unwrap();
    let services = Arc::clone(&node) as Arc<dyn Services>;
    let outcome = plain.run(case.host.clone(), services, &Limits::default());
    (outcome.unwrap(), node.stdout())
}

/// Another instance of the same engine, to which nothing is different.
fn rested_and_woken(
    kind: EngineKind,
    module: &Resumable,
    instance: Box<dyn Instance>,
) -> Box<dyn Instance> {
    let before = instance.snapshot();
    let rested = instance.rest().ok().expect("nobody looks at its memory");
    let at_rest = rested.snapshot();
    let prepared = engine(kind).unwrap().prepare(module, None).unwrap();
    let instance = prepared.wake(rested).unwrap();
    for after in [at_rest, instance.snapshot()] {
        assert_eq!(after.memory_bytes, before.memory_bytes);
        assert!(after.pages == before.pages, "its memory is another");
        assert!(after.frames == before.frames && after.globals == before.globals);
    }
    instance
}

/// Runs with hops; gives what it ended with, and how many hops there were.
fn hopping_run(case: &Case, module: &Resumable, random: &mut StdRng) -> (Outcome, String, usize) {
    let node = Arc::new(Node::default());
    let cutter = Cutter::new();
    let any_engine = |random: &mut StdRng| BOTH[random.random_range(0..2)];
    let mut kind = any_engine(random);
    let mut instance = instance_with(kind, module, case.host.clone(), &node);
    let mut hops = 0;
    loop {
        let outcome = match random.random_range(0..4) {
            _ if hops >= case.hops => instance.run(),
            0..3 => steps(&mut *instance, random.random_range(1..200)),
            _ => {
                let turns = random.random_range(0..case.slice);
                cutter.slice(&mut *instance, turns)
            }
        };
        match outcome {
            Outcome::Stopped => {}
            Outcome::Blocked(wait) => {
                let deadline = wait.deadline_ns.expect("nobody sends messages");
                if hops >= case.hops || random.random() {
                    thread::sleep(instance.host().until(deadline));
                }
            }
            ended => return (ended, node.stdout(), hops),
        }
        if hops < case.hops && random.random() {
            instance = rested_and_woken(kind, module, instance);
        }
        if hops < case.hops {
            kind = any_engine(random);
            let bytes = instance.snapshot().encode();
            let snapshot = Snapshot::decode(&bytes, &SnapshotLimits::default()).unwrap();
            instance = instance_with(kind, module, host(), &node);
            instance.load(&snapshot).unwrap();
            hops += 1;
        }
    }
}

fn check(case: &Case) {
    let seed = std::env::var("MIELIN_HOP_SEED").map_or(1, |seed| seed.parse().unwrap());
    let expected = whole_run(EngineKind::Wasmtime, case);
    assert!(
        matches!(expected.0, Outcome::Exited(_)),
        "{}: {expected:?}",
        case.name
    );
    assert_eq!(
        whole_run(EngineKind::Wasmi, case),
        expected,
        "{}: the engines differ",
        case.name
    );
    let module = instrument(&case.plain).unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    let (mut total, mut round) = (0, 0);
    // On a loaded machine the first slice may last until the program ends.
    while round < 3 || total < case.hops / 2 {
        assert!(round < 100, "{}: {total} hops prove too little", case.name);
        let (outcome, output, hops) = hopping_run(case, &module, &mut random);
        let place = format!(
            "{}, seed {seed}, round {round}, after {hops} hops",
            case.name
        );
        assert_eq!((outcome, output), expected, "{place}");
        total += hops;
        round += 1;
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A C program built with clang and wasi-libc, which `cargo xtask setup` installs.
fn c_program(name: &str) -> Vec<u8> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/programs")
        .join(name);
    let target = tempfile::tempdir().unwrap();
    let wasm = target.path().join("program.wasm");
    let clang = Command::new("clang")
        .args([
            "--target=wasm32-wasi",
            "-O1",
            "-Wno-everything",
            "-lm",
            "-o",
        ])
        .args([&wasm, &source])
        .output()
        .expect("clang is installed; `cargo xtask setup` does it");
    let errors = String::from_utf8_lossy(&clang.stderr);
    assert!(
        clang.status.success(),
        "clang with wasi-libc builds {name}; `cargo xtask setup` installs both: {errors}"
    );
    std::fs::read(wasm).unwrap()
}

#[test]
fn digest_hops() {
    let wasm = std::fs::read(repository().join("agents/prebuilt/digest.wasm")).unwrap();
    let input = std::fs::read(repository().join("Cargo.toml")).unwrap();
    check(&Case {
        name: "digest",
        plain: wasm,
        host: host().with_args(["digest", "3000"]).with_stdin(input),
        hops: 60,
        slice: 20_000,
    });
}

#[test]
fn numbers_hop() {
    let plain = c_program("numbers.c");
    check(&Case {
        name: "numbers.c",
        plain,
        host: host(),
        hops: 60,
        slice: 20_000,
    });
}

#[test]
fn heap_hops() {
    let plain = c_program("heap.c");
    let host = host().with_stdin("a line of text\n".repeat(500).into_bytes());
    check(&Case {
        name: "heap.c",
        plain,
        host,
        hops: 60,
        slice: 20_000,
    });
}

#[test]
fn sleeps_and_clocks_hop() {
    let plain = c_program("sleeper.c");
    let host = host().with_grants(all_grants());
    check(&Case {
        name: "sleeper.c",
        plain,
        host,
        hops: 40,
        slice: 20_000,
    });
}

/// Functions move about in a table and a global, call each other by tail calls, and are counted.
const REFERENCES: &str = r#"(module
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (type $step (func (param i32 i32) (result i32)))
    (table $steps 2 40 funcref) (table $spare 4 funcref)
    (global $held (mut funcref) (ref.func $square))
    (elem $some func $add $square $spin $chain)
    (func $add (type $step) (i32.add (local.get 0) (local.get 1)))
    (func $square (type $step)
        (i32.xor (i32.mul (local.get 0) (local.get 0)) (local.get 1)))
    (func $spin (type $step) (local $i i32)
        (loop $again
            (local.set 0 (i32.rotl (i32.add (local.get 0) (local.get $i)) (i32.const 5)))
            (br_if $again (i32.lt_u
                (local.tee $i (i32.add (local.get $i) (i32.const 1))) (local.get 1))))
        (local.get 0))
    (func $chain (type $step)
        (if (i32.eqz (local.get 1)) (then (return (local.get 0))))
        (table.set $steps (i32.rem_u (local.get 1) (table.size $steps)) (global.get $held))
        (return_call_indirect $steps (type $step)
            (local.get 0) (i32.sub (local.get 1) (i32.const 1))
            (i32.rem_u (local.get 0) (table.size $steps))))
    (func (export "_start") (local $i i32) (local $sum i32) (local $kept funcref)
        (table.init $spare $some (i32.const 0) (i32.const 0) (i32.const 4))
        (elem.drop $some)
        (table.copy $steps $spare (i32.const 0) (i32.const 2) (i32.const 2))
        (loop $again
            (local.set $kept (table.get $spare (i32.and (local.get $i) (i32.const 3))))
            (local.set $sum (call_indirect $steps (type $step)
                (i32.add (local.get $sum) (local.get $i)) (i32.and (local.get $i) (i32.const 15))
                (i32.rem_u (local.get $i) (table.size $steps))))
            (global.set $held (local.get $kept))
            (drop (table.grow $steps (local.get $kept) (i32.const 1)))
            (br_if $again (i32.lt_u
                (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 3000))))
        (call $exit (i32.and (local.get $sum) (i32.const 0x7f)))))"#;

#[test]
fn references_hop() {
    check(&Case {
        name: "references",
        plain: wat::parse_str(REFERENCES).unwrap(),
        host: host(),
        hops: 60,
        slice: 20_000,
    });
}

#[test]
fn files_hop() {
    let plain = c_program("files.c");
    let host = host().with_grants(Grants::from_iter(["data:1MiB".parse().unwrap()]));
    let case = Case {
        name: "files.c",
        plain,
        host,
        hops: 80,
        slice: 20_000,
    };
    let (_, output) = whole_run(EngineKind::Wasmtime, &case);
    for line in [
        "/data: . .. journal old part-0 part-1 part-2 part-3",
        "/data/old: . .. part-0 part-1 part-2",
        "journal: 100 bytes, ",
        "table: 97979 bytes, 0 names, ",
        "link: done",
        "symlink: Not supported",
        "rmdir: Directory not empty",
        "exclusive: File exists",
        "directory: Not a directory",
        "write a directory: Is a directory",
        "missing: No such file or directory",
        "above: Capabilities insufficient",
        "up and away: Capabilities insufficient",
        "down and up: done",
        "elsewhere: Capabilities insufficient",
    ] {
        let found = output.lines().any(|found| found.starts_with(line));
        assert!(found, "{line} is missing in\n{output}");
    }
    check(&case);
}

#[test]
fn without_the_grant_there_are_no_files() {
    let module = instrument(&c_program("files.c")).unwrap();
    for kind in BOTH {
        let node = Arc::new(Node::default());
        let mut instance = instance_with(kind, &module, host(), &node);
        assert_eq!(instance.run(), Outcome::Exited(1), "{kind}");
        assert!(node.stdout().starts_with("no files: "));
    }
}

#[test]
fn a_denied_clock_reaches_the_program_and_the_node() {
    let module = instrument(&c_program("sleeper.c")).unwrap();
    for kind in BOTH {
        let node = Arc::new(Node::default());
        let mut instance = instance_with(kind, &module, host(), &node);
        assert_eq!(instance.run(), Outcome::Exited(1), "{kind}");
        assert_eq!(node.stdout(), "sleep failed\n");
        assert!(!node.state.lock().unwrap().denied.is_empty());
    }
}

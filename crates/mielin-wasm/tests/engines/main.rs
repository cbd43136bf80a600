//! Both engines behind one face: running, ending, stopping, limits and refusals.
#![allow(clippy::unwrap_used)]

mod numbers;
mod plain;
#[path = "../support/mod.rs"]
mod support;
mod traps;

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use mielin_safepoint::{Execution, GlobalValue, Snapshot, SnapshotLimits};
use mielin_wasm::{
    EngineError, EngineKind, HostState, Instance, Limits, Outcome, Services, engine,
};
use support::{BOTH, Node, host, instance, module};

const DEADLINE: Duration = Duration::from_secs(60);

/// Nothing in the loops stores, and polls dominate them: an engine that moves the load of a poll out
/// of its loop never looks again.
const STORE_FREE_LOOP: &str = r#"(module (memory (export "memory") 1)
    (func $spin (param $n i32) (local $i i32)
        (loop $outer
            (local.set $i (i32.const 1000))
            (loop $inner
                (br_if $inner (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
            (loop $forever
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br $forever))
            (br $outer)))
    (func (export "_start") (call $spin (i32.const 1))))"#;

/// Adds 1 to the word at 0 until it is `limit`, in nested loops with locals that must survive.
const COUNTER: &str = r#"(module (memory (export "memory") 2)
    (global $steps (mut i64) (i64.const 0))
    (func (export "_start") (local $outer i32) (local $inner i32)
        (loop $outer_loop
            (local.set $inner (i32.const 0))
            (loop $inner_loop
                (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
                (global.set $steps (i64.add (global.get $steps) (i64.const 1)))
                (local.set $inner (i32.add (local.get $inner) (i32.const 1)))
                (br_if $inner_loop (i32.lt_u (local.get $inner) (i32.const 20))))
            (local.set $outer (i32.add (local.get $outer) (i32.const 1)))
            (br_if $outer_loop (i32.lt_u (local.get $outer) (i32.const 10))))))"#;

fn word(instance: &dyn Instance) -> u32 {
    u32::from_le_bytes(instance.memory()[0..4].try_into().unwrap())
}

/// Runs an instance on a thread of its own; the result must come before the deadline.
fn run_elsewhere(mut instance: Box<dyn Instance>) -> mpsc::Receiver<(Outcome, Box<dyn Instance>)> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let outcome = instance.run();
        let _ = sender.send((outcome, instance));
    });
    receiver
}

#[test]
fn a_program_that_returns_has_exited_with_0_and_stays_so() {
    for kind in BOTH {
        let mut instance = instance(kind, COUNTER);
        assert_eq!(instance.run(), Outcome::Exited(0), "{kind}");
        assert_eq!(word(&*instance), 200, "{kind}");
        assert_eq!(instance.run(), Outcome::Exited(0), "{kind}");
        assert_eq!(word(&*instance), 200, "{kind}: it ran again");
        assert_eq!(instance.host().exit_code(), Some(0));
    }
}

#[test]
fn proc_exit_gives_its_code() {
    let wat = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "_start") (call $exit (i32.const 42)) unreachable))"#;
    for kind in BOTH {
        assert_eq!(instance(kind, wat).run(), Outcome::Exited(42), "{kind}");
    }
}

#[test]
fn a_store_free_endless_loop_is_stopped_again_and_again() {
    for kind in BOTH {
        let mut running = instance(kind, STORE_FREE_LOOP);
        for _ in 0..20 {
            let stop = running.stop_handle();
            let result = run_elsewhere(running);
            assert!(
                result.recv_timeout(Duration::from_millis(1)).is_err(),
                "{kind} left alone"
            );
            stop.request();
            let (outcome, instance) = result.recv_timeout(DEADLINE).expect("it must stop");
            assert_eq!(outcome, Outcome::Stopped, "{kind}");
            running = instance;
        }
    }
}

#[test]
fn requests_at_any_time_are_never_lost_and_never_linger() {
    for kind in BOTH {
        let mut running = instance(kind, STORE_FREE_LOOP);
        for delay in 0..200 {
            let stop = running.stop_handle();
            let result = run_elsewhere(running);
            // Meets the run before, during and after it enters its frames.
            for _ in 0..delay * 50 {
                std::hint::spin_loop();
            }
            stop.request();
            let (outcome, instance) = result.recv_timeout(DEADLINE).expect("it must stop");
            assert_eq!(outcome, Outcome::Stopped, "{kind}");
            running = instance;
        }
    }
}

#[test]
fn a_request_while_parked_stops_the_next_run_at_its_next_safepoint_only() {
    for kind in BOTH {
        let mut instance = instance(kind, COUNTER);
        let stop = instance.stop_handle();
        let mut stops = 0;
        let mut last = 0;
        loop {
            stop.request();
            stop.request();
            match instance.run() {
                Outcome::Stopped => stops += 1,
                Outcome::Exited(0) => break,
                other => panic!("{kind}: {other:?}"),
            }
            assert!(word(&*instance) <= last + 1, "{kind} ran past a safepoint");
            last = word(&*instance);
        }
        assert!(stops >= 190, "{kind}: only {stops} stops");
        assert_eq!(word(&*instance), 200, "{kind}");
        stop.request();
        drop(instance);
        stop.request();
    }
}

#[test]
fn one_endless_loop_does_not_keep_others_from_running() {
    for kind in BOTH {
        let hog = instance(kind, STORE_FREE_LOOP);
        let stop = hog.stop_handle();
        let hogging = run_elsewhere(hog);
        for _ in 0..10 {
            assert_eq!(instance(kind, COUNTER).run(), Outcome::Exited(0));
        }
        stop.request();
        hogging.recv_timeout(DEADLINE).expect("it must stop");
    }
}

#[test]
fn memory_grows_to_the_limit_and_no_further() {
    let wat = r#"(module (memory (export "memory") 1)
        (func (export "_start")
            (i32.store (i32.const 0) (memory.grow (i32.const 3)))
            (i32.store (i32.const 4) (memory.grow (i32.const 1)))
            (i32.store (i32.const 8) (memory.size))))"#;
    let limits = Limits {
        memory_bytes: 4 * 65536,
        ..Limits::default()
    };
    for kind in BOTH {
        let prepared = engine(kind).unwrap().prepare(&module(wat), None).unwrap();
        let node: Arc<dyn Services> = Arc::new(Node::default());
        let mut instance = prepared.instantiate(host(), node, &limits).unwrap();
        assert_eq!(instance.run(), Outcome::Exited(0));
        let words: Vec<i32> = instance.memory()[..12]
            .chunks(4)
            .map(|bytes| i32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        assert_eq!(words, [1, -1, 4], "{kind}");
        let refused = instance.grow(5 * 65536).unwrap_err();
        assert!(
            matches!(
                refused,
                EngineError::OverLimit {
                    limit: 0x4_0000,
                    ..
                }
            ),
            "{refused}"
        );
    }
}

#[test]
fn what_is_over_the_limits_is_refused_before_it_is_made() {
    let large = module(r#"(module (memory (export "memory") 100) (func (export "_start")))"#);
    let refused = |kind, limits: &Limits, host: HostState| {
        let prepared = engine(kind).unwrap().prepare(&large, None).unwrap();
        let node: Arc<dyn Services> = Arc::new(Node::default());
        match prepared.instantiate(host, node, limits) {
            Err(EngineError::OverLimit { what, .. }) => what,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it was made"),
        }
    };
    for kind in BOTH {
        let memory = Limits {
            memory_bytes: 99 * 65536,
            ..Limits::default()
        };
        assert_eq!(refused(kind, &memory, host()), "the program's memory");
        let code = Limits {
            module_bytes: 10,
            ..Limits::default()
        };
        assert_eq!(refused(kind, &code, host()), "the module");
        let input = Limits {
            input_bytes: 100,
            ..Limits::default()
        };
        let host = host().with_stdin(vec![0; 101]);
        assert_eq!(
            refused(kind, &input, host),
            "arguments, environment and standard input"
        );
    }
}

#[test]
fn imports_that_nobody_provides_are_named() {
    let refused = |kind: EngineKind, import: &str| {
        let wat =
            format!(r#"(module {import} (memory (export "memory") 1) (func (export "_start")))"#);
        match engine(kind).unwrap().prepare(&module(&wat), None) {
            Ok(_) => panic!("{import} was accepted"),
            Err(error) => error.to_string(),
        }
    };
    for kind in BOTH {
        assert_eq!(
            refused(kind, r#"(import "env" "magic" (func))"#),
            "nobody provides the import env.magic"
        );
        assert_eq!(
            refused(
                kind,
                r#"(import "mielin" "sned" (func (param i32) (result i32)))"#
            ),
            "nobody provides the import mielin.sned"
        );
        assert_eq!(
            refused(
                kind,
                r#"(import "mielin" "receive" (func (param i32 i32) (result i32)))"#
            ),
            "the import mielin.receive has the type (i32, i32) -> (i32), \
             but the node provides (i32, i32, i64, i32) -> (i32)"
        );
    }
}

#[test]
fn a_snapshot_goes_to_the_other_engine_and_only_to_the_same_module() {
    for (from, to) in [(BOTH[0], BOTH[1]), (BOTH[1], BOTH[0])] {
        let mut source = instance(from, COUNTER);
        source.stop_handle().request();
        assert_eq!(source.run(), Outcome::Stopped);
        for _ in 0..70 {
            source.stop_handle().request();
            assert_eq!(source.run(), Outcome::Stopped);
        }
        let before = word(&*source);
        let bytes = source.snapshot().encode();
        let snapshot = Snapshot::decode(&bytes, &SnapshotLimits::default()).unwrap();

        let mut target = instance(to, COUNTER);
        target.load(&snapshot).unwrap();
        assert_eq!(word(&*target), before);
        assert_eq!(target.execution(), source.execution());
        assert_eq!(target.run(), Outcome::Exited(0), "{from} to {to}");
        assert_eq!(word(&*target), 200, "{from} to {to}");

        let mut other = instance(to, STORE_FREE_LOOP);
        let refused = other.load(&snapshot).unwrap_err();
        assert!(
            matches!(refused, EngineError::WrongModule { .. }),
            "{refused}"
        );
    }
}

#[test]
fn an_execution_that_does_not_fit_is_refused_and_changes_nothing() {
    for kind in BOTH {
        let mut instance = instance(kind, COUNTER);
        instance.stop_handle().request();
        instance.run();
        let good = instance.execution();
        assert_eq!(good.globals.len(), 1);
        let wrong = [
            Execution {
                globals: vec![],
                frames: good.frames.clone(),
            },
            Execution {
                globals: vec![GlobalValue::F64(1)],
                frames: good.frames.clone(),
            },
            Execution {
                globals: good.globals.clone(),
                frames: vec![0; 5 << 20],
            },
        ];
        for execution in wrong {
            assert!(instance.restore(&execution).is_err(), "{kind}");
        }
        assert_eq!(instance.execution(), good);
        assert_eq!(instance.run(), Outcome::Exited(0), "{kind}");
        assert_eq!(word(&*instance), 200);
    }
}

#[test]
fn hostile_frames_end_in_a_trap_or_nonsense_but_never_hang_or_crash_the_host() {
    for kind in BOTH {
        let mut source = instance(kind, COUNTER);
        for _ in 0..5 {
            source.stop_handle().request();
            source.run();
        }
        let good = source.execution();
        assert!(!good.frames.is_empty());
        for seed in 0..200u32 {
            let mut execution = good.clone();
            let at = (seed as usize * 7) % execution.frames.len();
            execution.frames[at] ^= (seed % 255) as u8 + 1;
            if seed % 3 == 0 {
                execution.frames.truncate(at);
            }
            let mut target = instance(kind, COUNTER);
            if target.restore(&execution).is_err() {
                continue;
            }
            let stop = target.stop_handle();
            let result = run_elsewhere(target);
            if result.recv_timeout(Duration::from_millis(200)).is_err() {
                stop.request();
                result
                    .recv_timeout(DEADLINE)
                    .expect("a stop ends even nonsense");
            }
        }
    }
}

#[test]
fn pages_are_read_and_written_inside_the_memory_only() {
    for kind in BOTH {
        let mut instance = instance(kind, COUNTER);
        let pages = (instance.memory_bytes() / 4096) as u32;
        instance.write_page(pages - 1, &[9; 4096]).unwrap();
        let mut page = [0; 4096];
        instance.read_page(pages - 1, &mut page);
        assert_eq!(page, [9; 4096]);
        instance.read_page(pages, &mut page);
        assert_eq!(page, [0; 4096]);
        let refused = instance.write_page(pages, &page).unwrap_err();
        assert!(matches!(refused, EngineError::PageRange { .. }));
        instance.clear();
        assert!(instance.memory().iter().all(|byte| *byte == 0));
        instance.grow(5 * 65536 - 1).unwrap();
        assert_eq!(instance.memory_bytes(), 5 * 65536);
    }
}

#[test]
fn a_module_is_compiled_once() {
    for kind in BOTH {
        let engine = engine(kind).unwrap();
        let module = module(COUNTER);
        let (one, two) = (
            engine.prepare(&module, None).unwrap(),
            engine.prepare(&module, None).unwrap(),
        );
        assert!(Arc::ptr_eq(&one, &two), "{kind}");
    }
}

#[test]
fn a_start_function_runs_with_the_program_and_not_before() {
    let wat = r#"(module (memory (export "memory") 1)
        (func $start (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))))
        (start $start)
        (func (export "_start") (i32.store (i32.const 4) (i32.load (i32.const 0)))))"#;
    for kind in BOTH {
        let mut instance = instance(kind, wat);
        assert_eq!(word(&*instance), 0, "{kind}: it ran before it was run");
        assert_eq!(instance.run(), Outcome::Exited(0));
        assert_eq!(instance.memory()[..8], [1, 0, 0, 0, 1, 0, 0, 0], "{kind}");
    }
}

#[test]
fn tables_are_bounded() {
    let refused = |kind: EngineKind, tables: &str| {
        let wat =
            format!(r#"(module {tables} (memory (export "memory") 1) (func (export "_start")))"#);
        let Ok(prepared) = engine(kind).unwrap().prepare(&module(&wat), None) else {
            return true;
        };
        let node: Arc<dyn Services> = Arc::new(Node::default());
        prepared
            .instantiate(host(), node, &Limits::default())
            .is_err()
    };
    for kind in BOTH {
        assert!(!refused(kind, "(table 1000 funcref)"), "{kind}");
        assert!(refused(kind, "(table 1048577 funcref)"), "{kind}");
        assert!(refused(kind, &"(table 1 funcref)".repeat(17)), "{kind}");
    }
}

#[test]
fn what_the_program_zeroed_stays_zero_in_a_fresh_instance() {
    let wat = r#"(module (memory (export "memory") 1)
        (data (i32.const 8192) "data")
        (func (export "_start")
            (i32.store (i32.const 8192) (i32.const 0))
            (loop $again (br $again))))"#;
    for (from, to) in [(BOTH[0], BOTH[1]), (BOTH[1], BOTH[0])] {
        let mut source = instance(from, wat);
        for _ in 0..3 {
            source.stop_handle().request();
            assert_eq!(source.run(), Outcome::Stopped);
        }
        assert_eq!(source.memory()[8192..8196], [0; 4]);
        let mut target = instance(to, wat);
        assert_eq!(&target.memory()[8192..8196], b"data");
        target.load(&source.snapshot()).unwrap();
        assert_eq!(target.memory()[8192..8196], [0; 4], "{from} to {to}");
        assert_eq!(target.snapshot().pages, source.snapshot().pages);
    }
}

/// Cranelift's time can grow with the square of what a function has, and nothing stops it.
#[test]
fn what_would_be_compiled_for_minutes_is_refused() {
    let program = |functions: &[String]| {
        let functions: String = functions
            .iter()
            .map(|body| format!("(func {body})"))
            .collect();
        module(&format!(
            r#"(module (memory (export "memory") 1) {functions} (func (export "_start")))"#
        ))
    };
    let branches = |count| format!("(block {})", "(br_if 0 (i32.const 0)) ".repeat(count));
    let locals = |count| {
        format!(
            "(local{})(loop (br_if 0 (local.get 0)))",
            " i32".repeat(count)
        )
    };
    let merges = |count, locals| {
        let sets = (0..count).map(|n| {
            format!(
                "(if (i32.const 0) (then (local.set {} (i32.const 1))))",
                n % locals
            )
        });
        format!(
            "(local{}){}",
            " i32".repeat(locals),
            sets.collect::<String>()
        )
    };
    let hard = [
        (vec![branches(750_000)], 0),
        (
            vec![
                String::new(),
                branches(430_000),
                branches(440_000),
                branches(430_000),
            ],
            2,
        ),
        (vec![locals(40_000), locals(45_000), locals(40_000)], 1),
        (vec![merges(9_000, 500)], 0),
    ];
    for (functions, largest) in hard {
        let module = program(&functions);
        let error = engine(EngineKind::Wasmtime).unwrap().prepare(&module, None);
        let error = error.err().unwrap();
        assert!(
            matches!(&error, EngineError::TooMuchWork { function, seconds, seconds_max: 72, .. }
                if *function == largest && (72..200).contains(seconds)),
            "{error}"
        );
    }
    let easy = program(&[branches(5_000), locals(500), merges(500, 20)]);
    for kind in BOTH {
        engine(kind).unwrap().prepare(&easy, None).unwrap();
    }
}

/// A program that is moved to another node must not be found to be too much for its engine once it has left.
#[test]
fn what_an_engine_does_not_take_it_refuses_before_there_is_an_instance() {
    let locals = " i64".repeat(33_000);
    let text = format!(
        r#"(module (memory (export "memory") 1) (func $large (local{locals}) (local.set 32999 (i64.const 1)))
            (func (export "_start") (if (i32.load (i32.const 0)) (then (call $large)))))"#
    );
    let error = engine(EngineKind::Wasmi)
        .unwrap()
        .prepare(&module(&text), None);
    let error = error.err().unwrap();
    assert!(
        matches!(
            error,
            EngineError::Refused {
                engine: EngineKind::Wasmi,
                ..
            }
        ),
        "{error}"
    );
}

/// As a program does that catches its allocator's failures. wasmi's own `memory.grow` used up the native stack.
#[test]
fn a_program_may_ask_in_vain_for_memory_as_often_as_it_likes() {
    let wat = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1 4) (table 1 funcref) (elem (i32.const 0) $grow)
        (func $grow (param $pages i32) (result i32) (memory.grow (local.get $pages)))
        (func (export "_start") (local $turns i32)
            (if (i32.ne (memory.grow (i32.const 2)) (i32.const 1)) (then (unreachable)))
            (loop $again
                (if (i32.ne (memory.grow (i32.const 2)) (i32.const -1)) (then (unreachable)))
                (if (i32.ne (call $grow (i32.const -1)) (i32.const -1)) (then (unreachable)))
                (local.set $turns (i32.add (local.get $turns) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $turns) (i32.const 100000))))
            (if (i32.ne (call_indirect (param i32) (result i32) (i32.const 1) (i32.const 0)) (i32.const 3))
                (then (unreachable)))
            (call $exit (i32.add (memory.size) (i32.const 40)))))"#;
    let no_imports = r#"(module (memory (export "memory") 1 2)
        (func (export "_start") (loop $again
            (br_if $again (i32.eq (memory.grow (i32.const 1)) (i32.const 1)))
            (br_if $again (i32.ne (memory.size) (i32.const 2))))))"#;
    for kind in BOTH {
        assert_eq!(instance(kind, wat).run(), Outcome::Exited(44), "{kind}");
        assert_eq!(
            instance(kind, no_imports).run(),
            Outcome::Exited(0),
            "{kind}"
        );
        let plain = engine(kind).unwrap();
        let plain = plain.prepare_plain(&wat::parse_str(wat).unwrap()).unwrap();
        let ran = plain.run(host(), Arc::new(Node::default()), &Limits::default());
        assert_eq!(ran.unwrap(), Outcome::Exited(44), "{kind}");
    }
}

//! Programs without an instance: what of them stays, what they cost, and which of them keep their instance.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use mielin_safepoint::PAGE_SIZE;
use mielin_wasm::{
    EngineError, EngineKind, HostState, Instance, Limits, Outcome, Prepared, Rested, Services,
    engine,
};
use support::{BOTH, Node, host, module};

/// Programs that are kept at once.
const MANY: usize = 500;

/// Adds 1 to the first word at each step; has data in its second page, and clears all of that.
const CLEARING: &str = r#"(module (memory (export "memory") 1 4) (global (mut i64) (i64.const -5))
    (data (i32.const 4096) "data that the program clears") (data (i32.const 8192) "data that stays")
    (func (export "_start")
        (memory.fill (i32.const 4096) (i32.const 0) (i32.const 4096))
        (drop (memory.grow (i32.const 2)))
        (i32.store (i32.const 131072) (i32.const 7))
        (loop $again
            (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
            (br $again))))"#;

/// Writes a byte to every page of so many KiB, and goes on for ever.
fn filling(kib: usize) -> String {
    format!(
        r#"(module (memory (export "memory") 256)
        (func (export "_start") (local $at i32)
            (loop $fill
                (memory.fill (local.get $at) (i32.const 1) (i32.const 4096))
                (local.set $at (i32.add (local.get $at) (i32.const 4096)))
                (br_if $fill (i32.lt_u (local.get $at) (i32.const {}))))
            (loop $again (br $again))))"#,
        kib << 10
    )
}

fn prepared(kind: EngineKind, text: &str) -> Arc<dyn Prepared> {
    engine(kind).unwrap().prepare(&module(text), None).unwrap()
}

fn fresh(prepared: &dyn Prepared, host: HostState, limits: &Limits) -> Result<Rested, EngineError> {
    prepared.rested(host, Arc::<Node>::default() as Arc<dyn Services>, limits)
}

fn instance(prepared: &dyn Prepared) -> Box<dyn Instance> {
    let rested = fresh(prepared, host(), &Limits::default());
    prepared.wake(rested.unwrap()).unwrap()
}

#[test]
fn a_module_that_has_no_instances_is_refused_at_once() {
    let run = r#"(func (export "_start"))"#;
    let data = r#"(memory (export "memory") 1) (data (i32.const 65530) "beyond the end")"#;
    let elements = r#"(memory (export "memory") 1) (table 1 funcref) (elem (i32.const 1) 0)"#;
    let large = r#"(memory (export "memory") 1) (table 50000000 funcref)"#;
    for kind in BOTH {
        for wrong in [data, elements, large] {
            let prepared = prepared(kind, &format!("(module {wrong} {run})"));
            for _ in 0..2 {
                let refused = fresh(&*prepared, host(), &Limits::default());
                let error = refused.err().unwrap();
                assert!(
                    !matches!(error, EngineError::OverLimit { .. }),
                    "{kind}, {wrong}: {error}"
                );
            }
        }
    }
}

/// Runs to the next safepoint, so many times.
fn step(instance: &mut dyn Instance, count: usize) {
    for _ in 0..count {
        instance.stop_handle().request();
        assert_eq!(instance.run(), Outcome::Stopped);
    }
}

fn rest(instance: Box<dyn Instance>) -> Rested {
    instance.rest().ok().expect("it can rest")
}

#[test]
fn a_program_rests_at_every_step_and_nothing_of_it_is_lost() {
    for kind in BOTH {
        let prepared = prepared(kind, CLEARING);
        let mut rested = fresh(&*prepared, host(), &Limits::default()).unwrap();
        assert_eq!((rested.memory_bytes(), rested.kept_bytes()), (65536, 0));
        let mut steady = instance(&*prepared);
        for round in 0..20 {
            let (at_rest, expected) = (rested.snapshot(), steady.snapshot());
            assert_eq!(at_rest.memory_bytes, expected.memory_bytes);
            assert!(at_rest.pages == expected.pages, "{kind}, {round}");
            assert_eq!(at_rest.globals, expected.globals);
            assert_eq!(at_rest.frames, expected.frames);
            let mut woken = prepared.wake(rested).unwrap();
            assert!(woken.memory() == steady.memory(), "{kind}, {round}");
            assert_eq!(woken.execution(), steady.execution());
            step(&mut *woken, 1);
            step(&mut *steady, 1);
            rested = rest(woken);
        }
        assert_eq!(rested.memory_bytes(), 3 << 16);
        // A block with the word, the data that was cleared, and a block behind what the module has; and the stack.
        let kept = rested.kept_bytes();
        assert!((3 * 64..1024).contains(&kept), "{kept}");
        let woken = prepared.wake(rested).unwrap();
        let text = b"data that stays";
        assert_eq!(&woken.memory()[8192..][..text.len()], text);
        assert_eq!(woken.memory()[4096..8192], [0; PAGE_SIZE]);
        assert_eq!(woken.memory()[131072], 7);
    }
}

/// As a target does before pages come: there is no trace of what the module begins with.
#[test]
fn a_memory_that_was_cleared_stays_so() {
    for kind in BOTH {
        let prepared = prepared(kind, CLEARING);
        let mut program = instance(&*prepared);
        assert!(program.memory().iter().any(|byte| *byte != 0));
        program.clear();
        let rested = rest(program);
        assert_eq!(rested.snapshot().pages, []);
        let program = prepared.wake(rested).unwrap();
        assert!(program.memory().iter().all(|byte| *byte == 0), "{kind}");
    }
}

#[test]
fn the_host_state_is_kept_as_it_is() {
    for kind in BOTH {
        let prepared = prepared(kind, CLEARING);
        let host = host().with_args(["program", "argument"]);
        let mut woken = instance(&*prepared);
        *woken.host_mut() = host;
        let before = woken.host().now_ns();
        let woken = prepared.wake(rest(woken)).unwrap();
        assert_eq!(
            woken.host().args,
            [b"program".to_vec(), b"argument".to_vec()]
        );
        assert!(woken.host().now_ns() > before, "its clock goes on");
    }
}

#[test]
fn an_end_is_final_for_a_woken_program_too() {
    for kind in BOTH {
        let trap = r#"(module (memory (export "memory") 1) (func (export "_start") unreachable))"#;
        let prepared = prepared(kind, trap);
        let mut ended = instance(&*prepared);
        let end = ended.run();
        assert!(matches!(end, Outcome::Trapped(_)));
        assert_eq!(prepared.wake(rest(ended)).unwrap().run(), end);
    }
}

#[test]
fn whoever_looks_at_the_memory_keeps_the_instance() {
    for kind in BOTH {
        let prepared = prepared(kind, CLEARING);
        let mut program = instance(&*prepared);
        step(&mut *program, 3);
        let mut tracker = program.track().unwrap();
        let first = tracker.harvest(Some(&*program)).unwrap();
        assert!(first.contains(&0));
        if !tracker.concurrent() {
            // Page hashes are taken of whichever instance there is.
            let program = prepared.wake(rest(program)).unwrap();
            assert_eq!(tracker.harvest(Some(&*program)).unwrap(), []);
            continue;
        }
        let mut program = program.rest().err().expect("it is looked at");
        step(&mut *program, 1);
        assert_eq!(tracker.harvest(Some(&*program)).unwrap(), [0]);
        drop(tracker);
        rest(program);
    }
}

#[test]
fn a_program_that_has_changed_too_much_keeps_its_instance() {
    for kind in BOTH {
        for (kib, rests) in [(7 << 10, true), (9 << 10, false)] {
            let prepared = prepared(kind, &filling(kib));
            let mut program = instance(&*prepared);
            step(&mut *program, kib / 4 + 2);
            assert_eq!(program.memory()[(kib << 10) - 1], 1);
            match program.rest() {
                Ok(rested) => {
                    assert!(rests, "{kind}, {kib} KiB");
                    assert!(rested.kept_bytes() >= kib << 10);
                    assert_eq!(prepared.wake(rested).unwrap().memory()[(kib << 10) - 1], 1);
                }
                Err(mut program) => {
                    assert!(!rests, "{kind}, {kib} KiB");
                    step(&mut *program, 1);
                }
            }
        }
    }
}

/// With wasmi nobody knows what a program has touched, so all of a large memory would be looked at.
#[test]
fn a_large_memory_of_which_little_is_known_keeps_its_instance() {
    let large = CLEARING.replace("1 4)", "400 404)");
    for (kind, rests) in [(EngineKind::Wasmtime, true), (EngineKind::Wasmi, false)] {
        let mut program = instance(&*prepared(kind, &large));
        step(&mut *program, 3);
        assert_eq!(program.rest().is_ok(), rests, "{kind}");
    }
}

#[test]
fn what_the_limits_forbid_does_not_wait_for_an_instance() {
    for kind in BOTH {
        let prepared = prepared(kind, CLEARING);
        let small = Limits {
            memory_bytes: 1,
            ..Limits::default()
        };
        let refused = fresh(&*prepared, host(), &small);
        assert!(matches!(refused.err(), Some(EngineError::OverLimit { .. })));
    }
}

/// The stop handle of a former instance is as good as none.
#[test]
fn a_request_to_the_former_instance_does_nothing() {
    for kind in BOTH {
        let ends = r#"(module (memory (export "memory") 1)
            (func (export "_start") (local $i i32)
                (loop $again (br_if $again (i32.lt_u
                    (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000))))))"#;
        let prepared = prepared(kind, ends);
        let mut program = instance(&*prepared);
        step(&mut *program, 2);
        let former = program.stop_handle();
        let mut program = prepared.wake(rest(program)).unwrap();
        former.request();
        assert_eq!(program.run(), Outcome::Exited(0));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn programs_at_rest_have_no_mappings() {
    let mappings = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().count()
    };
    let prepared = prepared(EngineKind::Wasmtime, CLEARING);
    let stepped = || {
        let mut program = instance(&*prepared);
        step(&mut *program, 3);
        program
    };
    let before = mappings();
    let live: Vec<_> = (0..MANY).map(|_| stepped()).collect();
    assert!(mappings() > before + MANY, "an instance costs mappings");
    let rested: Vec<_> = live.into_iter().map(rest).collect();
    // Others run beside this test.
    assert!(mappings() < before + MANY / 2, "{} at rest", mappings());
    for program in rested {
        assert_eq!(prepared.wake(program).unwrap().memory()[131072], 7);
    }
}

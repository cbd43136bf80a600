//! What a program may not do ends it, in the same words on both engines.

use mielin_safepoint::Execution;
use mielin_wasm::{EngineKind, Instance, Outcome, Trap, TrapKind};

use super::support::{BOTH, instance};

/// A program whose `_start` is this.
fn program(body: &str) -> String {
    format!(
        r#"(module (memory (export "memory") 1) (table 2 funcref) (elem (i32.const 0) $number)
        (type $nothing (func))
        (func $number (result i32) (i32.const 1))
        (func $deep (call $deep) (call $deep))
        (func $culprit {body})
        (func (export "_start") (call $culprit)))"#
    )
}

fn trap(instance: &mut dyn Instance) -> Trap {
    match instance.run() {
        Outcome::Trapped(trap) => trap,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_trap_ends_the_program_and_says_why() {
    let traps = [
        ("unreachable", TrapKind::Unreachable),
        ("(call $deep)", TrapKind::StackExhausted),
        (
            "(drop (i32.load (i32.const 65536)))",
            TrapKind::MemoryOutOfBounds,
        ),
        (
            "(memory.fill (i32.const 65535) (i32.const 0) (i32.const 2))",
            TrapKind::MemoryOutOfBounds,
        ),
        (
            "(drop (table.get (i32.const 2)))",
            TrapKind::TableOutOfBounds,
        ),
        (
            "(call_indirect (type $nothing) (i32.const 2))",
            TrapKind::TableOutOfBounds,
        ),
        (
            "(call_indirect (type $nothing) (i32.const 1))",
            TrapKind::CallToNull,
        ),
        (
            "(call_indirect (type $nothing) (i32.const 0))",
            TrapKind::CallTypeMismatch,
        ),
        (
            "(drop (i32.div_u (i32.const 1) (i32.const 0)))",
            TrapKind::DivisionByZero,
        ),
        (
            "(drop (i64.rem_s (i64.const 1) (i64.const 0)))",
            TrapKind::DivisionByZero,
        ),
        (
            "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))",
            TrapKind::IntegerOverflow,
        ),
        (
            "(drop (i32.trunc_f32_s (f32.const nan)))",
            TrapKind::NanToInteger,
        ),
        (
            "(drop (i32.trunc_f64_u (f64.const 1e10)))",
            TrapKind::IntegerOverflow,
        ),
    ];
    for kind in BOTH {
        for (body, expected) in &traps {
            let mut instance = instance(kind, &program(body));
            let trap = trap(&mut *instance);
            assert_eq!(trap.kind, *expected, "{kind}: {body}");
            assert!(trap.to_string().starts_with(&expected.to_string()));
            let again = instance.run();
            assert_eq!(again, Outcome::Trapped(trap), "{kind}: {body} ran again");
            assert_eq!(instance.host().exit_code(), None);
        }
    }
}

#[test]
fn a_trap_names_its_function_where_the_engine_knows_it() {
    let mut instance = instance(EngineKind::Wasmtime, &program("unreachable"));
    assert_eq!(
        trap(&mut *instance).to_string(),
        "the program gave itself up: it executed `unreachable` (in the function culprit)"
    );
}

/// Stops in a loop, and then in a function that the loop's function calls.
const NESTED: &str = r#"(module (memory (export "memory") 1)
    (func $inner (loop $again (br $again)))
    (func (export "_start") (local $turns i32)
        (loop $outer
            (local.set $turns (i32.add (local.get $turns) (i32.const 1)))
            (br_if $outer (i32.lt_u (local.get $turns) (i32.const 5))))
        (call $inner)))"#;

#[test]
fn frames_that_do_not_fit_are_called_by_their_name() {
    for kind in BOTH {
        let step = |instance: &mut dyn Instance| {
            instance.stop_handle().request();
            instance.run()
        };
        let mut source = instance(kind, NESTED);
        for _ in 0..3 {
            assert_eq!(step(&mut *source), Outcome::Stopped);
        }
        // As if many open functions had left frames below these, and no room for more.
        let Execution { globals, frames } = source.execution();
        let mut full = vec![0; (4 << 20) - 16 - frames.len()];
        full.extend_from_slice(&frames);
        let mut target = instance(kind, NESTED);
        let frames = full;
        target.restore(&Execution { globals, frames }).unwrap();
        assert_eq!(step(&mut *target), Outcome::Stopped, "{kind}: they fit");
        let end = (0..5).find_map(|_| match step(&mut *target) {
            Outcome::Stopped => None,
            end => Some(end),
        });
        let expected = Outcome::Trapped(TrapKind::FramesFull.into());
        assert_eq!(end, Some(expected), "{kind}");
    }
}

#[test]
fn a_recursion_that_is_too_deep_to_be_stopped_ends_by_that_name() {
    // Each call keeps 100 numbers. wasmi has room for 6,000 of them, and the frames memory has not.
    let each = |text: &str| -> String {
        let one = |index: usize| text.replace('#', &index.to_string());
        (1..=100).map(one).collect()
    };
    let wat = format!(
        r#"(module
        (import "mielin" "receive" (func $receive (param i32 i32 i64 i32) (result i32)))
        (memory (export "memory") 1)
        (func $deep (param $depth i64) (local {})
            {}
            (if (i64.eqz (local.get $depth)) (then
                (drop (call $receive
                    (i32.const 100) (i32.const 10) (i64.const -1) (i32.const 0)))
                return))
            (call $deep (i64.sub (local.get $depth) (i64.const 1)))
            {})
        (func (export "_start") (call $deep (i64.const 6000))))"#,
        "i64 ".repeat(100),
        each("(local.set # (i64.load8_u (i32.const #)))"),
        each("(i64.store (i32.const 0) (local.get #))"),
    );
    let trap = |kind| trap(&mut *instance(kind, &wat)).kind;
    assert_eq!(trap(EngineKind::Wasmi), TrapKind::FramesFull);
    // Native code keeps the same on a stack that is smaller than the frames memory.
    assert_eq!(trap(EngineKind::Wasmtime), TrapKind::StackExhausted);
}

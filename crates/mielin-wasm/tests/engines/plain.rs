//! Modules that were not rewritten, run to their end as witnesses.

use std::sync::Arc;

use mielin_wasm::{
    EngineError, EngineKind, HostState, Limits, Outcome, Services, TrapKind, engine,
};

use super::support::{BOTH, Node, all_grants, host};

fn run(kind: EngineKind, wat: &str, host: HostState, node: &Arc<Node>) -> Outcome {
    let wasm = wat::parse_str(wat).unwrap();
    let plain = engine(kind).unwrap().prepare_plain(&wasm).unwrap();
    let services = Arc::clone(node) as Arc<dyn Services>;
    plain.run(host, services, &Limits::default()).unwrap()
}

#[test]
fn a_plain_program_runs_to_its_end_each_time_anew() {
    let wat = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (global $runs (mut i32) (i32.const 40))
        (func (export "_start")
            (global.set $runs (i32.add (global.get $runs) (i32.const 1)))
            (call $exit (global.get $runs))))"#;
    for kind in BOTH {
        let plain = engine(kind).unwrap();
        let plain = plain.prepare_plain(&wat::parse_str(wat).unwrap()).unwrap();
        for _ in 0..2 {
            let node: Arc<dyn Services> = Arc::new(Node::default());
            let outcome = plain.run(host(), node, &Limits::default()).unwrap();
            assert_eq!(outcome, Outcome::Exited(41), "{kind}");
        }
        let node = Arc::new(Node::default());
        let returns = r#"(module (func (export "_start")))"#;
        assert_eq!(run(kind, returns, host(), &node), Outcome::Exited(0));
        let traps = r#"(module (func (export "_start") unreachable))"#;
        let Outcome::Trapped(trap) = run(kind, traps, host(), &node) else {
            panic!("{kind}: it did not trap")
        };
        assert_eq!(trap.kind, TrapKind::Unreachable);
    }
}

/// Receives with a time limit of so many nanoseconds and exits with the errno.
fn receiver(timeout_ns: i64) -> String {
    format!(
        r#"(module
        (import "mielin" "receive" (func $receive (param i32 i32 i64 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "_start")
            (call $exit (call $receive
                (i32.const 100) (i32.const 10) (i64.const {timeout_ns}) (i32.const 0)))))"#
    )
}

#[test]
fn a_plain_program_waits_inside_its_calls() {
    const TIMED_OUT: i32 = 73;
    for kind in BOTH {
        let node = Arc::new(Node::default());
        let granted = || host().with_grants(all_grants());
        let timed = run(kind, &receiver(1_000_000), granted(), &node);
        assert_eq!(timed, Outcome::Exited(TIMED_OUT), "{kind}");
        node.put(1, 1, b"hello");
        let received = run(kind, &receiver(-1), granted(), &node);
        assert_eq!(received, Outcome::Exited(0), "{kind}");
        let endless = run(kind, &receiver(-1), granted(), &node);
        assert_eq!(endless, Outcome::Trapped(TrapKind::EndlessWait.into()));
    }
}

#[test]
fn what_a_plain_module_may_not_be_is_refused() {
    for kind in BOTH {
        let refused = |wat: &str, limits: &Limits| {
            let plain = engine(kind).unwrap();
            let node: Arc<dyn Services> = Arc::new(Node::default());
            let wasm = wat::parse_str(wat).unwrap();
            let run = |limits| plain.prepare_plain(&wasm)?.run(host(), node, limits);
            run(limits).unwrap_err()
        };
        let limits = Limits::default();
        let unknown = refused(r#"(module (import "env" "f" (func)))"#, &limits);
        assert!(matches!(unknown, EngineError::UnknownImport { .. }));
        let start = "(module (func $f) (start $f))";
        assert!(matches!(refused(start, &limits), EngineError::Shape { .. }));
        assert!(matches!(
            refused("(module)", &limits),
            EngineError::Shape { .. }
        ));
        let large = r#"(module (memory (export "memory") 3) (func (export "_start")))"#;
        let small = Limits {
            memory_bytes: 2 << 16,
            ..Limits::default()
        };
        assert!(matches!(
            refused(large, &small),
            EngineError::Refused { .. }
        ));
    }
}

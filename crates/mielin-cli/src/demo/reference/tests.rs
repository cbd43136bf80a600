//! The reference run against a stand-in that prints its argument.

use super::*;

/// Prints `args[1]`, as a WASI command would.
const ECHO: &str = r#"(module
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (call $args_get (i32.const 16) (i32.const 64)))
    ;; One vector: from args[1], six bytes (the digits of 100000).
    (i32.store (i32.const 0) (i32.load (i32.const 20)))
    (i32.store (i32.const 4) (i32.const 6))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

#[test]
fn prints_and_is_measured() {
    let module = wat::parse_str(ECHO).expect("valid text");
    let mut reference = Reference::prepare(&module, b"", None).expect("compiles and runs");
    assert!(reference.rounds() >= MEASURED_ROUNDS);
    reference.rounds = 100_000;
    assert_eq!(reference.compute().expect("runs"), b"100000");
}

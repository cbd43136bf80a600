//! Plain modules: what is rewritten is a module that is accepted as rewritten, and the same one
//! whenever it is rewritten again.
#![allow(clippy::unwrap_used)]

use mielin_fuzz::{Seed, Target};
use mielin_safepoint::{InstrumentError, Resumable, canonical_nans, instrument};

pub(crate) const TARGET: Target = Target {
    name: "instrument",
    mutations: 3_000,
    // A function may declare tens of thousands of locals in a few bytes, and each poll spills those
    // that are live, so the code that is written can be far larger than what was read.
    fixed_bytes: 16 << 20,
    bytes_per_byte: 8192,
    run,
    seeds,
};

fn run(bytes: &[u8]) -> bool {
    // It may be told of a module that nobody has validated.
    let any = canonical_nans(bytes).map(|canonical| wasmparser::validate(&canonical).is_ok());
    if wasmparser::validate(bytes).is_ok() {
        assert_ne!(any, Ok(false));
    }
    let Ok(rewritten) = instrument(bytes) else {
        return false;
    };
    let again = Resumable::from_rewritten(rewritten.bytes().to_vec()).unwrap();
    let canonical = canonical_nans(rewritten.bytes()).unwrap();
    wasmparser::validate(&canonical).unwrap();
    assert_eq!(again.hash(), rewritten.hash());
    assert_eq!(again.manifest(), rewritten.manifest());
    assert_eq!(instrument(bytes).unwrap().hash(), rewritten.hash());
    let twice = instrument(rewritten.bytes()).map(|twice| twice.hash());
    assert_eq!(twice, Err(InstrumentError::AlreadyRewritten));
    true
}

fn seeds() -> Vec<Seed> {
    let wasm = |text: &str| wat::parse_str(text).unwrap();
    let program = wasm(
        r#"(module
            (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
            (memory (export "memory") 1 2)
            (global $count (mut i32) (i32.const 3))
            (global $fixed i64 (i64.const 7))
            (table funcref (elem $leaf $again))
            (type $leaf (func (param i32) (result i32)))
            (func $leaf (type $leaf) (i32.load8_u (local.get 0)))
            (func $again (type $leaf) (local i64 f32 f64)
              (local.set 1 (i64.extend_i32_u (local.get 0)))
              (if (result i32) (local.get 0)
                (then (call $again (i32.sub (local.get 0) (i32.const 1))))
                (else (i32.wrap_i64 (local.get 1)))))
            (func (export "_start") (local i32)
              (loop $more
                (drop (call $yield))
                (local.set 0 (call_indirect (type $leaf) (local.get 0) (i32.const 1)))
                (global.set $count (i32.sub (global.get $count) (i32.const 1)))
                (br_if $more (global.get $count)))
              (block $a (block $b (br_table $a $b (local.get 0)))))
            (data (i32.const 8) "data"))"#,
    );
    let results = wasm(
        r#"(module
            (func $pair (param i32) (result i32 i64) (local.get 0) (i64.const 1))
            (func (export "_start") (local i32)
              (i32.const 5)
              (loop $l (param i32) (result i32)
                (call $pair) (drop)
                (br_if $l (local.tee 0 (i32.const 0)))
                (drop) (local.get 0))
              (drop)))"#,
    );
    let references = wasm(
        r#"(module
            (type $step (func (param funcref i32) (result i32)))
            (type $alike (func (param i32 i32) (result i32)))
            (table $a 3 9 funcref) (table $b 1 funcref)
            (global (mut funcref) (ref.func $two))
            (elem $some func $one $two) (elem (table $a) (i32.const 1) func $two)
            (func $one (type $step) (local funcref)
              (if (local.get 1) (then (return_call $one
                (local.get 0) (i32.sub (local.get 1) (i32.const 1)))))
              (return_call_indirect $a (type $alike)
                (i32.const 0) (ref.is_null (local.get 2)) (local.get 1)))
            (func $two (type $alike) (table.size $a))
            (func (export "_start")
              (table.init $a $some (i32.const 0) (i32.const 0) (i32.const 2))
              (elem.drop $some)
              (table.copy $b $a (i32.const 0) (i32.const 1) (i32.const 1))
              (table.fill $a (i32.const 2) (table.get $b (i32.const 0)) (i32.const 1))
              (drop (table.grow $b (global.get 0) (i32.const 2)))
              (drop (call_indirect $a (type $step)
                (select (result funcref) (ref.null func) (global.get 0) (i32.const 1))
                (i32.const 2) (i32.const 0)))))"#,
    );
    let many_locals = wasm(
        r#"(module (memory 1) (func (export "_start") (local i32 i32 i32 i32 i32 i32 i32 i32 v128)
            (loop $l (br_if $l (i32.load (i32.const 0))))))"#,
    );
    let relaxed = wasm(
        r#"(module (memory 1) (func (export "_start") (local i32) (local $sum v128)
            (loop $l
              (local.set $sum (f32x4.relaxed_madd (v128.load (i32.const 0)) (local.get $sum) (local.get $sum)))
              (local.set $sum (i32x4.relaxed_dot_i8x16_i7x16_add_s
                (local.get $sum) (local.get $sum) (v128.load (i32.const 16))))
              (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
            (v128.store (i32.const 0) (local.get $sum))))"#,
    );
    let endless = wasm(r#"(module (func (export "_start") (loop $l (br $l))))"#);
    vec![
        Seed::good("calls-loops-tables", program),
        Seed::good("several-results", results),
        Seed::good("references-and-tail-calls", references),
        Seed::good("v128-local", many_locals),
        Seed::good("relaxed-vectors", relaxed),
        Seed::good("endless", endless),
        Seed::bad("no-start", wasm("(module (memory 1))")),
        Seed::bad(
            "two-memories",
            wasm(r#"(module (memory 1) (memory 1) (func (export "_start")))"#),
        ),
        Seed::bad("only-the-header", *b"\0asm\x01\0\0\0"),
    ]
}

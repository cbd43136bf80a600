//! Hand-written programs with references, tables that change, and tail calls.

/// The callee takes itself out of the table, so that what is resumed must not look there again.
const TABLE_CHANGES_DURING_A_CALL: &str = r#"(module
  (type $unary (func (param i32) (result i32)))
  (import "env" "log" (func $log (param i32)))
  (table $t 4 20 funcref)
  (elem (table $t) (i32.const 1) func $first $second)
  (func $first (type $unary) (local $i i32)
    (table.set $t (i32.const 1) (ref.func $second))
    (table.set $t (i32.const 2) (ref.null func))
    (loop $l
      (call $log (i32.add (local.get $i) (local.get 0)))
      (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 3))))
    (i32.add (local.get 0) (i32.const 100)))
  (func $second (type $unary) (call $log (i32.const -2)) (i32.mul (local.get 0) (i32.const 3)))
  (func (export "_start")
    (call $log (call_indirect $t (type $unary) (i32.const 5) (i32.const 1)))
    (call $log (call_indirect $t (type $unary) (i32.const 5) (i32.const 1)))
    (call $log (ref.is_null (table.get $t (i32.const 2))))
    (call $log (table.grow $t (ref.func $second) (i32.const 3)))
    (call $log (table.size $t))
    (call $log (call_indirect $t (type $unary) (i32.const 7) (i32.const 6)))
    (call $log (table.grow $t (ref.null func) (i32.const 30)))
    (call_indirect $t (type $unary) (i32.const 7) (i32.const 7))
    (call $log)))"#;

/// References in locals, on the stack, in parameters, results, block types and globals.
const REFERENCES_ARE_ALIVE: &str = r#"(module
  (type $nullary (func (result i32)))
  (import "env" "log" (func $log (param i32)))
  (table $calls 1 funcref)
  (global $last (mut funcref) (ref.func $three))
  (global $nothing (mut funcref) (ref.null func))
  (global $fixed funcref (ref.func $four))
  (elem declare func $three $four)
  (func $three (type $nullary) (i32.const 3))
  (func $four (type $nullary) (i32.const 4))
  (func $say (param $f funcref) (result funcref)
    (table.set $calls (i32.const 0) (local.get $f))
    (call $log (call_indirect $calls (type $nullary) (i32.const 0)))
    (local.get $f))
  (func (export "_start") (local $f funcref) (local $e funcref) (local $i i32)
    (local.set $f (ref.func $three))
    (loop $l
      (drop (call $say (local.get $f)))
      (call $say (global.get $last))
      (block $b (param funcref) (result funcref)
        (call $log (local.get $i))
        (br_if $b (i32.and (local.get $i) (i32.const 1)))
        (drop) (global.get $fixed))
      (global.set $last)
      (local.set $f (select (result funcref)
        (local.get $f) (global.get $last) (i32.sub (i32.const 2) (local.get $i))))
      (if (result funcref) (local.get $i)
        (then (call $log (i32.const 77)) (local.get $e)) (else (global.get $nothing)))
      (local.set $e)
      (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 5))))
    (call $log (ref.is_null (global.get $nothing)))))"#;

/// Several tables, passive and declared segments, copies between and within tables.
const BULK: &str = r#"(module
  (type $nullary (func (result i32)))
  (import "env" "log" (func $log (param i32)))
  (import "env" "ask" (func $ask (type $nullary)))
  (table $a 8 funcref) (table $b 6 6 funcref) (table $e 2 10 funcref)
  (elem $some func $one $two $ask)
  (elem $others funcref (ref.func $two) (ref.null func) (item (ref.func $one)))
  (elem (table $b) (i32.const 1) funcref (ref.func $two) (ref.null func))
  (func $one (type $nullary) (i32.const 1))
  (func $two (type $nullary) (call $log (i32.const 222)) (i32.const 2))
  (func $show (local $i i32)
    (loop $l
      (if (ref.is_null (table.get $a (local.get $i)))
        (then (call $log (i32.const -1)))
        (else (call $log (call_indirect $a (type $nullary) (local.get $i)))))
      (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (table.size $a)))))
  (func (export "_start")
    (table.init $a $some (i32.const 0) (i32.const 0) (i32.const 3))
    (call $show)
    (elem.drop $some)
    (table.init $a $some (i32.const 8) (i32.const 0) (i32.const 0))
    (table.copy $a $b (i32.const 3) (i32.const 0) (i32.const 4))
    (table.copy $a $a (i32.const 1) (i32.const 0) (i32.const 5))
    (call $show)
    (table.init $b $others (i32.const 3) (i32.const 0) (i32.const 3))
    (table.fill $a (i32.const 6) (ref.func $one) (i32.const 2))
    (table.copy $a $b (i32.const 0) (i32.const 3) (i32.const 3))
    (call $show)
    (call $log (table.grow $e (ref.null func) (i32.const 8)))
    (call $log (table.grow $e (ref.null func) (i32.const 1)))
    (call $log (ref.is_null (table.get $e (i32.const 9))))
    (table.init $a $some (i32.const 0) (i32.const 1) (i32.const 1))))"#;

/// Types that become equal when references become numbers: a call of the wrong one still traps.
const LIKE_TYPES: &str = r#"(module
  (type $number (func (param i32) (result i32)))
  (type $reference (func (param funcref) (result i32)))
  (import "env" "log" (func $log (param i32)))
  (table 2 funcref)
  (elem (i32.const 0) $number $reference)
  (func $number (type $number) (call $log (i32.const 1)) (local.get 0))
  (func $reference (type $reference) (call $log (i32.const 2)) (ref.is_null (local.get 0)))
  (func (export "_start")
    (call $log (call_indirect (type $number) (i32.const 5) (i32.const 0)))
    (call $log (call_indirect (type $reference) (ref.null func) (i32.const 1)))
    (call $log (call_indirect (type $number) (i32.const 5) (i32.const 1)))))"#;

/// Chains of tail calls, direct, through a table and of imports, below frames that wait.
const TAIL_CALLS: &str = r#"(module
  (type $unary (func (param i32) (result i32)))
  (type $many (func (param i64 f64 i32) (result i32)))
  (import "env" "log" (func $log (param i32)))
  (import "env" "ask" (func $ask (type $unary)))
  (table 3 funcref)
  (elem (i32.const 0) $down $spin $ask)
  (func $down (type $unary)
    (if (i32.eqz (local.get 0)) (then (return (i32.const 9))))
    (return_call $many (i64.extend_i32_u (local.get 0)) (f64.const 0.5)
      (i32.sub (local.get 0) (i32.const 1))))
  (func $many (type $many)
    (call $log (i32.wrap_i64 (local.get 0)))
    (return_call_indirect (type $unary) (local.get 2)
      (i32.rem_u (local.get 2) (i32.const 2))))
  (func $spin (type $unary) (local $i i32) (local $kept i64)
    (local.set $kept (i64.const 1234567890123))
    (loop $l (br_if $l (i32.lt_u
      (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 4))))
    (call $log (i32.wrap_i64 (local.get $kept)))
    (return_call $down (local.get 0)))
  (func $leaf (type $unary) (i32.add (local.get 0) (i32.const 1)))
  (func $to_leaf (type $unary) (return_call $leaf (local.get 0)))
  (func $to_import (type $unary)
    (if (i32.and (local.get 0) (i32.const 1))
      (then (return_call $ask (local.get 0))))
    (return_call_indirect (type $unary) (local.get 0) (i32.const 2)))
  (func $waits (param $depth i32) (result i32) (local $mine i32)
    (local.set $mine (i32.mul (local.get $depth) (i32.const 1000)))
    (if (i32.eqz (local.get $depth)) (then (return_call $down (i32.const 7))))
    (i32.add (local.get $mine) (call $waits (i32.sub (local.get $depth) (i32.const 1)))))
  (func (export "_start")
    (call $log (call $waits (i32.const 4)))
    (call $log (call $to_leaf (i32.const 4)))
    (call $log (call $to_import (i32.const 5)))
    (call $log (call $to_import (i32.const 6)))
    (return_call $last))
  (func $last (call $log (i32.const -1))))"#;

/// Tail calls with references while the table changes, of functions that poll where they begin.
pub(crate) const TAIL_CALLS_WITH_REFERENCES: &str = r#"(module
  (type $step (func (param funcref i32) (result funcref)))
  (import "env" "log" (func $log (param i32)))
  (table $t 2 funcref)
  (elem declare func $odd $even)
  (func $odd (type $step)
    (call $log (i32.const 1))
    (table.set $t (i32.const 0) (ref.func $even))
    (if (i32.eqz (local.get 1)) (then (return (local.get 0))))
    (return_call_indirect $t (type $step)
      (ref.func $odd) (i32.sub (local.get 1) (i32.const 1)) (i32.const 0)))
  (func $even (type $step)
    (table.set $t (i32.const 0) (ref.func $odd))
    (if (i32.eqz (local.get 1)) (then (return (ref.null func))))
    (return_call_indirect $t (type $step)
      (local.get 0) (i32.sub (local.get 1) (i32.const 1)) (i32.const 0)))
  (func (export "_start")
    (call $log (ref.is_null (call $even (ref.null func) (i32.const 9))))
    (call $log (ref.is_null (call $even (ref.null func) (i32.const 8))))))"#;

/// More tail calls than any stack has room for.
const MANY_TAIL_CALLS: &str = r#"(module
  (import "env" "log" (func $log (param i32)))
  (func $count (param i32) (result i32)
    (if (i32.eqz (local.get 0)) (then (return (i32.const 42))))
    (return_call $count (i32.sub (local.get 0) (i32.const 1))))
  (func (export "_start") (call $log (call $count (i32.const 200000)))))"#;

/// Name, least number of stops when all of them are taken, source.
pub(crate) const PROGRAMS: &[(&str, usize, &str)] = &[
    (
        "a table that changes during a call",
        15,
        TABLE_CHANGES_DURING_A_CALL,
    ),
    ("references that are alive", 25, REFERENCES_ARE_ALIVE),
    ("bulk instructions on tables", 40, BULK),
    ("types that differ in references", 5, LIKE_TYPES),
    ("tail calls", 30, TAIL_CALLS),
    ("tail calls with references", 20, TAIL_CALLS_WITH_REFERENCES),
    ("many tail calls", 20_000, MANY_TAIL_CALLS),
];

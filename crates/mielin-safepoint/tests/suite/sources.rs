//! Hand-written programs, each about one construct.

/// Loops in loops, with values that only the outer ones need.
pub(crate) const NESTED_LOOPS: &str = r#"(module
  (import "env" "log" (func $log (param i32)))
  (memory (export "memory") 1)
  (func (export "_start") (local $i i32) (local $j i32) (local $k i32) (local $sum i32)
    (loop $a
      (local.set $j (i32.const 0))
      (loop $b
        (local.set $k (i32.mul (local.get $i) (i32.const 3)))
        (loop $c
          (local.set $sum (i32.add (i32.mul (local.get $sum) (i32.const 31)) (local.get $k)))
          (br_if $c (i32.lt_u (local.tee $k (i32.add (local.get $k) (i32.const 2))) (i32.const 14))))
        (i32.store (i32.add (i32.mul (local.get $i) (i32.const 64)) (i32.mul (local.get $j) (i32.const 4)))
          (local.get $sum))
        (br_if $b (i32.lt_u (local.tee $j (i32.add (local.get $j) (i32.const 1))) (i32.const 5))))
      (call $log (local.get $sum))
      (br_if $a (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 4))))))"#;

/// Recursion with values on the operand stack across the calls.
pub(crate) const RECURSION: &str = r#"(module
  (import "env" "log" (func $log (param i32)))
  (func $fib (param $n i32) (result i32)
    (if (result i32) (i32.lt_u (local.get $n) (i32.const 2))
      (then (local.get $n))
      (else (i32.add (call $fib (i32.sub (local.get $n) (i32.const 1)))
                     (call $fib (i32.sub (local.get $n) (i32.const 2)))))))
  (func $ackermann (param $m i32) (param $n i32) (result i32)
    (if (i32.eqz (local.get $m)) (then (return (i32.add (local.get $n) (i32.const 1)))))
    (if (i32.eqz (local.get $n))
      (then (return (call $ackermann (i32.sub (local.get $m) (i32.const 1)) (i32.const 1)))))
    (call $ackermann (i32.sub (local.get $m) (i32.const 1))
      (call $ackermann (local.get $m) (i32.sub (local.get $n) (i32.const 1)))))
  (func (export "_start")
    (call $log (call $fib (i32.const 9)))
    (call $log (call $ackermann (i32.const 2) (i32.const 3)))))"#;

const MUTUAL: &str = r#"(module
  (import "env" "log" (func $log (param i32)))
  (func $even (param $n i32) (result i32)
    (if (result i32) (local.get $n)
      (then (call $odd (i32.sub (local.get $n) (i32.const 1)))) (else (i32.const 1))))
  (func $odd (param $n i32) (result i32)
    (if (result i32) (local.get $n)
      (then (call $third (i32.sub (local.get $n) (i32.const 1)))) (else (i32.const 0))))
  (func $third (param $n i32) (result i32)
    (i32.add (call $even (local.get $n)) (i32.const 10)))
  (func (export "_start") (local $i i32)
    (loop $l
      (call $log (call $even (local.get $i)))
      (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 9))))))"#;

const INDIRECT: &str = r#"(module
  (type $unary (func (param i32) (result i32)))
  (type $same (func (param i32) (result i32)))
  (import "env" "log" (func $log (param i32)))
  (import "env" "ask" (func $ask (type $unary)))
  (table 6 6 funcref)
  (elem (i32.const 0) $leaf $looping $recursive $ask)
  (elem (i32.const 4) funcref (ref.func $leaf) (ref.null func))
  (func $leaf (type $same) (i32.add (local.get 0) (i32.const 100)))
  (func $looping (type $unary) (local $i i32)
    (loop $l
      (local.set 0 (i32.add (local.get 0) (local.get $i)))
      (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 3))))
    (local.get 0))
  (func $recursive (type $unary)
    (if (result i32) (i32.gt_u (local.get 0) (i32.const 200))
      (then (local.get 0))
      (else (i32.sub
        (call_indirect (type $unary) (i32.add (local.get 0) (i32.const 60)) (i32.const 2))
        (call_indirect (type $same) (local.get 0) (i32.const 1))))))
  (func (export "_start") (local $i i32)
    (loop $l
      (call $log (i32.add (i32.const 1000)
        (call_indirect (type $unary) (local.get $i) (i32.rem_u (local.get $i) (i32.const 5)))))
      (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 12))))
    (drop (call_indirect (type $unary) (i32.const 1) (i32.const 5)))))"#;

const BRANCH_TABLE: &str = r#"(module
  (import "env" "log" (func $log (param i32)))
  (func $pick (param $n i32) (result i32) (local $r i32)
    (block $out (result i32)
      (block $c (result i32)
        (block $b (result i32)
          (block $a (result i32)
            (i32.const 40)
            (br_table $a $b $c $out (local.get $n)))
          (call $log (i32.const 1))
          (i32.add (i32.const 1)))
        (loop $l
          (local.set $r (i32.add (local.get $r) (i32.const 2)))
          (br_if $l (i32.lt_u (local.get $r) (i32.const 7))))
        (i32.add (local.get $r)))
      (call $log (local.get $n))
      (i32.mul (i32.const 3)))
    (i32.add (i32.const 5)))
  (func (export "_start") (local $i i32)
    (loop $l
      (call $log (call $pick (local.get $i)))
      (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 6))))))"#;

/// Blocks and loops with parameters, branches of every kind to loops with parameters.
const MULTI_VALUE: &str = r#"(module
  (import "env" "log" (func $log (param i32)))
  (import "env" "pair" (func $pair (param i32) (result i32 i64)))
  (func $swap (param i32 i64) (result i64 i32) (local.get 1) (local.get 0))
  (func $two (param i32) (result i32 i32) (local $k i32)
    (local.get 0) (i32.const 1)
    (loop $l (param i32 i32) (result i32 i32)
      (local.set $k) (i32.add (local.get $k))
      (local.get $k) (i32.const 1) (i32.add)
      (br_if $l (i32.lt_u (local.get $k) (i32.const 5)))))
  (func $mixed (param $n i32) (result i32)
    (i32.const 7)
    (local.get $n)
    (loop $top (param i32) (result i32)
      (local.set $n)
      (local.get $n)
      (block $exit (param i32) (result i32)
        (call $log (local.get $n))
        (i32.sub (i32.const 1))
        (br_table $top $exit $top $exit $exit (i32.and (local.get $n) (i32.const 3)))))
    (i32.add))
  (func $table (param $n i32) (result i32)
    (i32.const 3) (i32.const 100)
    (loop $a (param i32 i32) (result i32)
      (i32.add)
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (i32.const 9)
      (loop $b (param i32 i32) (result i32)
        (i32.sub)
        (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (local.get $n)
        (block $c (param i32 i32) (result i32 i32)
          (br_table $a $b $c (i32.and (local.get $n) (i32.const 3))))
        (i32.mul))))
  (func $condition (param $n i32) (result i32)
    (local.get $n) (i32.const 2)
    (if (param i32 i32) (result i32 i32) (i32.gt_u (local.get $n) (i32.const 3))
      (then (call $log (i32.const 77)) (i32.add) (call $two))
      (else (call $log (i32.const 78)) (i32.sub) (i32.const 4)))
    (i32.add)
    (if (param i32) (result i32) (i32.and (local.get $n) (i32.const 1))
      (then (call $log) (local.get $n)))
    (i32.const 6) (local.get $n)
    (if (param i32) (result i32) (then (i32.const 1) (i32.add)))
    (i32.add))
  (func (export "_start") (local $i i32)
    (loop $l
      (call $two (local.get $i)) (i32.mul) (call $log)
      (call $mixed (local.get $i)) (call $log)
      (call $table (local.get $i)) (call $log)
      (call $condition (local.get $i)) (call $log)
      (call $pair (local.get $i)) (call $swap) (call $log) (i32.wrap_i64) (call $log)
      (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 8))))))"#;

/// Operands that lie on the stack while loops, blocks and calls come and go above them.
const DEEP_STACK: &str = r#"(module
  (import "env" "log" (func $log (param i32)))
  (import "env" "mix" (func $mix (param i32 i64 f32 f64) (result f64)))
  (func $id (param i32) (result i32) (local $i i32)
    (loop $l (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 2))))
    (local.get 0))
  (func $deep (param $n i32) (result f64) (local $j i32)
    (f64.const 1.5)
    (i64.const 1234567890123)
    (f32.const 0.25)
    (i32.const 42)
    (block $b (result i32)
      (call $id (local.get $n))
      (loop $l (result i32)
        (i32.const 5)
        (call $id (i32.const 6))
        (i32.add)
        (drop)
        (local.set $j (i32.add (local.get $j) (i32.const 1)))
        (if (i32.lt_u (local.get $j) (i32.const 3)) (then (call $log (local.get $j)) (br $l)))
        (local.get $j))
      (br_if $b (i32.and (local.get $n) (i32.const 1)))
      (i32.add))
    (i32.add)
    (f32.convert_i32_s)
    (f32.add)
    (f64.promote_f32)
    (call $mix (i32.const 1) (i64.const 2) (f32.const 3) (f64.const 4))
    (f64.add)
    (local.set $j (i32.trunc_f64_s))
    (f64.convert_i64_s)
    (f64.add)
    (f64.convert_i32_s (local.get $j))
    (f64.add))
  (func (export "_start") (local $i i32)
    (loop $l
      (call $log (i32.trunc_sat_f64_s (call $deep (local.get $i))))
      (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 5))))))"#;

const DEAD_CODE: &str = r#"(module
  (import "env" "log" (func $log (param i32)))
  (func $f (param $n i32) (result i32)
    (block $a (result i32)
      (loop $l
        (call $log (local.get $n))
        (local.set $n (i32.sub (local.get $n) (i32.const 1)))
        (br_if $l (i32.gt_s (local.get $n) (i32.const 0)))
        (br $a (i32.const 5))
        (call $log (i32.const 99))
        (loop $dead (call $log (i32.const 98)) (br $dead))
        (if (i32.const 1) (then (call $log (i32.const 97))) (else (call $log (i32.const 96)))))
      (call $log (i32.const 95))
      (unreachable)
      (i32.add)
      (block (br 0) (call $log (i32.const 94)))
      (drop))
    (call $log)
    (if (result i32) (i32.const 1)
      (then (call $log (i32.const 50)) (return (i32.const 6)) (call $log (i32.const 51)))
      (else (unreachable) (call $log (i32.const 52)) (i32.const 1))))
  (func (export "_start")
    (call $log (call $f (i32.const 3)))
    (return)
    (call $log (i32.const 93))))"#;

const VECTORS: &str = r#"(module
  (import "env" "log" (func $log (param i32)))
  (memory (export "memory") 1)
  (global $g (mut v128) (v128.const i64x2 1 2))
  (func $step (param $v v128) (param $n i32) (result v128) (local $w v128)
    (local.set $w (i32x4.splat (local.get $n)))
    (local.get $v)
    (loop $l
      (local.set $w (i32x4.add (local.get $w) (v128.const i32x4 1 2 3 4)))
      (global.set $g (v128.xor (global.get $g) (local.get $w)))
      (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (i32x4.mul (local.get $w)))
  (func (export "_start") (local $v v128) (local $i i32)
    (local.set $v (v128.const i32x4 9 8 7 6))
    (loop $l
      (local.set $v (call $step (local.get $v) (i32.add (local.get $i) (i32.const 1))))
      (v128.store (i32.mul (local.get $i) (i32.const 16)) (local.get $v))
      (call $log (i32x4.extract_lane 2 (local.get $v)))
      (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 5))))
    (v128.store (i32.const 512) (global.get $g))))"#;

/// Passive segments that are dropped, memory that grows, a start function, mutable globals.
const STATE: &str = r#"(module
  (import "env" "log" (func $log (param i32)))
  (memory (export "memory") 1 4)
  (global $a (export "a") (mut i64) (i64.const 5))
  (global $b (mut f32) (f32.const 1.5))
  (global $c (export "c") (mut f64) (f64.const -0.0))
  (global $constant i32 (i32.const 33))
  (data $p "passive segment")
  (data (i32.const 100) "active")
  (data $q "another")
  (start $begin)
  (func $begin (call $log (i32.const 1)) (call $spin) (memory.init $p (i32.const 200) (i32.const 0) (i32.const 7)))
  (func $spin (local $i i32)
    (loop $l
      (global.set $a (i64.mul (global.get $a) (i64.const 3)))
      (global.set $b (f32.add (global.get $b) (f32.const 0.5)))
      (global.set $c (f64.sub (global.get $c) (f64.const 0.125)))
      (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 4)))))
  (func (export "_start")
    (call $log (memory.grow (i32.const 1)))
    (call $spin)
    (memory.init $q (i32.const 70000) (i32.const 0) (i32.const 5))
    (data.drop $p)
    (call $spin)
    (memory.fill (i32.const 300) (i32.const 0xaa) (i32.const 50))
    (memory.copy (i32.const 400) (i32.const 290) (i32.const 30))
    (call $log (memory.grow (i32.const 9)))
    (call $log (memory.grow (i32.const 1)))
    (call $log (memory.size))
    (f32.store (i32.const 0) (global.get $b))
    (call $log (global.get $constant))
    (call $spin)
    (memory.init $p (i32.const 0) (i32.const 0) (i32.const 1))))"#;

const TRAP: &str = r#"(module
  (import "env" "log" (func $log (param i32)))
  (memory (export "memory") 1)
  (func $down (param $n i32) (result i32)
    (call $log (local.get $n))
    (if (i32.eqz (local.get $n)) (then (i32.store (i32.const -4) (i32.const 1))))
    (i32.div_u (i32.const 100) (call $down (i32.sub (local.get $n) (i32.const 1)))))
  (func (export "_start") (drop (call $down (i32.const 6)))))"#;

/// An imported function that is exported and taken by reference, a start function that is one.
const IMPORTS: &str = r#"(module
  (import "env" "log" (func $log (param i32)))
  (import "env" "start" (func $start))
  (import "env" "eight" (func $eight (param i32 i64 f32 f64 i32 i64 f32 f64) (result f32)))
  (export "again" (func $log))
  (table (export "table") funcref (elem $log $start))
  (global $r funcref (ref.func $start))
  (elem declare func $log)
  (start $start)
  (func (export "_start")
    (drop (ref.func $log))
    (drop (global.get $r))
    (i32.const 11)
    (call $log (i32.trunc_f32_u (call $eight (i32.const 1) (i64.const 2) (f32.const 3) (f64.const 4)
      (i32.const 5) (i64.const 6) (f32.const 7) (f64.const 8))))
    (call_indirect (param i32) (i32.const 0))
    (call_indirect (i32.const 1))))"#;

/// No memory, no loop, nothing.
const EMPTY: &str = r#"(module (func (export "_start") (nop)))"#;

/// A local that is dead on one path and alive on another, `if` without `else` around a loop.
const PATHS: &str = r#"(module
  (import "env" "log" (func $log (param i32)))
  (func $f (param $n i32) (param $k i32) (result i32) (local $dead i32) (local $x i64)
    (local.set $x (i64.const 77))
    (block $skip
      (if (local.get $n)
        (then
          (local.set $dead (i32.const 3))
          (loop $l
            (local.set $k (i32.add (local.get $k) (local.get $dead)))
            (br_if $skip (i32.gt_u (local.get $k) (i32.const 30)))
            (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
          (local.set $dead (i32.const 9))))
      (if (i32.eqz (local.get $k))
        (then (call $log (local.get $dead)))
        (else
          (loop $m
            (call $log (local.get $dead))
            (local.set $dead (i32.sub (local.get $dead) (i32.const 4)))
            (br_if $m (i32.gt_s (local.get $dead) (i32.const 0))))))
      (call $log (i32.wrap_i64 (local.get $x)))
      (local.set $x (i64.extend_i32_u (local.get $k))))
    (i32.add (local.get $dead) (i32.wrap_i64 (local.get $x))))
  (func (export "_start") (local $i i32)
    (loop $l
      (call $log (call $f (local.get $i) (i32.mul (local.get $i) (local.get $i))))
      (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 7))))))"#;

/// A recursion whose only poll is the header of the loop that it goes through.
const RECURSION_IN_LOOP: &str = r#"(module
  (import "env" "log" (func $log (param i32)))
  (func $fib (param $n i32) (result i32) (local $sum i32)
    (if (i32.ge_u (local.get $n) (i32.const 2))
      (then
        (loop $l
          (local.set $sum (i32.add (call $fib (i32.sub (local.get $n) (i32.const 1))) (local.get $sum)))
          (br_if $l (i32.gt_u (local.tee $n (i32.sub (local.get $n) (i32.const 2))) (i32.const 1))))))
    (i32.add (local.get $n) (local.get $sum)))
  (func (export "_start") (call $log (call $fib (i32.const 10)))))"#;

/// Locals that are read on one way out of a point only.
const LIVENESS: &str = r#"(module
  (import "env" "log" (func $log (param i32)))
  (func $f (param $way i32) (result i32)
    (local $else i32) (local $then i32) (local $jump i32) (local $table i32) (local $default i32)
    (local $next i32) (local $i i32) (local $return i32)
    (local.set $else (i32.const 11))
    (local.set $then (i32.const 12))
    (local.set $jump (i32.const 13))
    (local.set $table (i32.const 14))
    (local.set $default (i32.const 15))
    (local.set $next (i32.const 16))
    (local.set $return (i32.const 17))
    (call $log (local.get $way))
    (if (i32.eqz (local.get $way))
      (then (call $log (local.get $then)))
      (else (call $log (local.get $else))))
    (block $jumped
      (block $on_table
        (block $on_default
          (call $log (i32.const 1))
          (br_if $jumped (i32.eq (local.get $way) (i32.const 1)))
          (call $log (i32.const 2))
          (br_table $on_table $on_default (i32.sub (local.get $way) (i32.const 2))))
        (call $log (local.get $default))
        (return (local.get $return)))
      (call $log (local.get $table))
      (return (i32.const 18)))
    (call $log (local.get $jump))
    (loop $l
      (call $log (local.get $next))
      (local.set $next (i32.mul (local.get $i) (i32.const 5)))
      (call $log (i32.const 3))
      (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 3))))
    (i32.const 19))
  (func $around (local $i i32) (local $outer i32)
    (local.set $outer (i32.const 21))
    (loop $o
      (call $log (local.get $outer))
      (if (i32.gt_u (local.get $i) (i32.const 9)) (then (return)))
      (local.set $outer (i32.add (local.get $i) (i32.const 100)))
      (loop $in
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $o (i32.eqz (i32.rem_u (local.get $i) (i32.const 4))))
        (call $log (i32.const 4))
        (br $in))))
  (func (export "_start") (local $i i32)
    (loop $l
      (call $log (call $f (local.get $i)))
      (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 5))))
    (call $around)))"#;

/// `select` with the outcome of a comparison with zero, which wasmi 2.0.0 gets wrong when it
/// follows directly.
pub(crate) const COMPARE_AND_SELECT: &str = r#"(module
  (import "env" "log" (func $log (param i32)))
  (elem declare func $leaf)
  (func $leaf (param $n i32) (result i32)
    (select (i32.const 3) (i32.const 9) (i32.eqz (local.get $n))))
  (func (export "_start") (local $n i32) (local $r funcref)
    (local.set $n (i32.const 7))
    (call $log (select (local.get $n) (i32.const 6) (ref.is_null (local.get $r))))
    (local.set $r (ref.func $leaf))
    (call $log (select (i32.const 5) (local.get $n) (ref.is_null (local.get $r))))
    (call $log (call $leaf (i32.const 7)))
    (call $log (call $leaf (i32.const 0)))
    (call $log (select (i32.const 3) (local.get $n) (i32.eqz (local.get $n))))
    (call $log (select (local.get $n) (i32.const 3) (i32.eq (local.get $n) (i32.const 0))))
    (call $log (select (i32.const 4) (i32.const 3) (i32.ne (local.get $n) (i32.const 0))))))"#;

/// Arguments that are dead after a call, and would trap if they were computed again; and two calls that
/// keep the same locals, of which one is restored in the loop at the first and before it at the second.
const ARGUMENTS: &str = r#"(module
  (import "env" "log" (func $log (param i32)))
  (memory 1)
  (global $sum (mut i32) (i32.const 0))
  (func $work (param $n i32) (result i32) (local $i i32)
    (loop $l
      (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 3))))
    (i32.add (local.get $n) (local.get $i)))
  (func $divides (param $n i32) (result i32) (local $d i32)
    (local.set $d (i32.sub (local.get $n) (i32.const 2)))
    (call $work (i32.div_u (i32.const 90) (local.get $d))))
  (func $loads (param $n i32) (result i32) (local $p i32)
    (local.set $p (i32.add (local.get $n) (i32.const 70000)))
    (call $work (i32.load (i32.sub (local.get $p) (i32.const 70000)))))
  (func $same (param $n i32) (result i32) (local $x i32)
    (loop $l
      (local.set $x (i32.mul (local.get $n) (i32.const 7)))
      (global.set $sum (i32.add (call $work (local.get $n)) (global.get $sum)))
      (global.set $sum (i32.add (global.get $sum) (local.get $x)))
      (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.set $x (i32.const 5))
    (local.set $n (i32.const 9))
    (drop (call $work (i32.const 1)))
    (i32.add (local.get $x) (i32.mul (local.get $n) (i32.const 100))))
  (func (export "_start")
    (call $log (call $divides (i32.const 11)))
    (call $log (call $loads (i32.const 8)))
    (call $log (call $same (i32.const 3)))
    (call $log (global.get $sum))))"#;

/// Name, least number of safepoints that it passes, text.
pub(crate) const PROGRAMS: &[(&str, usize, &str)] = &[
    ("nested loops", 100, NESTED_LOOPS),
    ("recursion", 100, RECURSION),
    ("recursion in a loop", 50, RECURSION_IN_LOOP),
    ("mutual recursion", 20, MUTUAL),
    ("indirect calls", 40, INDIRECT),
    ("branch table", 20, BRANCH_TABLE),
    ("multiple values", 100, MULTI_VALUE),
    ("deep stack", 50, DEEP_STACK),
    ("dead code", 5, DEAD_CODE),
    ("vectors", 15, VECTORS),
    ("state", 20, STATE),
    ("trap", 10, TRAP),
    ("imports", 5, IMPORTS),
    ("empty", 1, EMPTY),
    ("paths", 50, PATHS),
    ("liveness", 30, LIVENESS),
    ("arguments", 15, ARGUMENTS),
];

//! Interpreters: one function with a loop, a switch in it, and calls in every branch.

use mielin_safepoint::instrument;

use super::hosts::{End, Kind, machine};
use super::stepping;

const REGISTERS: usize = 48;

/// An interpreter with so many operations, of a program that runs each of them once and then calls the interpreter
/// again, as deep as it is told.
///
/// Every operation reads and writes some of the registers, and calls a function that may stop with values on the
/// operand stack below; one in eight calls the host, one in eight has a loop.
fn interpreter(operations: usize, depth: usize) -> String {
    let register = |number: usize| {
        ["$i", "$l", "$d", "$j"][number % 4].to_owned()
            + &(number / 4 % (REGISTERS / 4)).to_string()
    };
    let as_i32 = |number: usize| {
        let get = format!("(local.get {})", register(number));
        match number % 4 {
            1 => format!("(i32.wrap_i64 {get})"),
            2 => format!("(i32.trunc_sat_f64_s {get})"),
            _ => get,
        }
    };
    let set = |number: usize, value: &str| {
        let value = match number % 4 {
            1 => format!("(i64.extend_i32_s {value})"),
            2 => format!("(f64.convert_i32_s {value})"),
            _ => value.to_owned(),
        };
        format!("(local.set {} {value})", register(number))
    };
    let operation = |number: usize| {
        let (a, b, c) = (number % 41, number % 29 + 3, number % REGISTERS);
        let call = format!(
            "(i32.xor {} (call $mix {} (i32.add {} (i32.const {number}))))",
            as_i32(b),
            as_i32(a),
            as_i32(c),
        );
        let more = match number % 8 {
            3 => format!("(call $log {})", as_i32(a)),
            5 => format!(
                "(local.set $n (i32.const 3))
                 (loop $turn {} (br_if $turn (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))",
                set(b, &format!("(call $mix {} (local.get $n))", as_i32(c)))
            ),
            _ => String::new(),
        };
        format!("{} {more} (br $next)", set(c, &call))
    };
    let mut switch = String::new();
    for number in (0..operations).rev() {
        switch += &format!("(block $op{number} ");
    }
    let targets: String = (0..operations)
        .map(|number| format!("$op{number} "))
        .collect();
    switch += &format!("(br_table {targets} $end (local.get $pc))");
    for number in 0..operations {
        switch += &format!(") {}", operation(number));
    }
    let registers: String = (0..REGISTERS / 4)
        .map(|n| format!("(local $i{n} i32) (local $l{n} i64) (local $d{n} f64) (local $j{n} i32)"))
        .collect();
    // Some begin anew, so that they do not live where the outer loop begins.
    let start: String = (0..REGISTERS)
        .filter(|number| number % 3 != 0)
        .map(|number| {
            set(
                number,
                &format!("(i32.add {} (local.get $again))", as_i32(number / 3 * 3)),
            )
        })
        .collect();
    let result = (0..REGISTERS).fold("(i32.const 1)".to_owned(), |sum, number| {
        format!("(i32.add {} {sum})", as_i32(number))
    });
    format!(
        r#"(module
  (import "env" "log" (func $log (param i32)))
  (memory (export "memory") 1)
  (func $mix (param $a i32) (param $b i32) (result i32)
    (if (i32.eq (local.get $b) (i32.const -1)) (then (return (call $interpret (i32.const 0)))))
    (i32.add (i32.mul (local.get $a) (i32.const 31)) (i32.rotl (local.get $b) (i32.const 5))))
  (func $interpret (param $depth i32) (result i32) (local $pc i32) (local $n i32) (local $again i32) {registers}
    (local.set $again (i32.const 2))
    (loop $start
      {start}
      (local.set $pc (i32.const -1))
      (block $end (loop $next
        (local.set $pc (i32.add (local.get $pc) (i32.const 1)))
        {switch}))
      (local.set $i0 {result})
      (br_if $start (local.tee $again (i32.sub (local.get $again) (i32.const 1)))))
    (i32.store (i32.const 8) (local.get $j3))
    (if (result i32) (local.get $depth)
      (then (i32.add (local.get $i0) (call $interpret (i32.sub (local.get $depth) (i32.const 1)))))
      (else (i32.const 1))))
  (func (export "_start") (call $log (call $interpret (i32.const {depth})))))"#
    )
}

#[test]
fn an_interpreter_does_the_same_when_stopped_at_every_safepoint() {
    let wasm = wat::parse_str(interpreter(60, 1)).unwrap();
    assert!(stepping::check("interpreter", &wasm) > 300);
}

/// Each value that a point keeps for itself costs a compiler that cannot see that they are alike a place on the stack.
#[test]
fn calls_of_an_interpreter_take_little_of_the_native_stack() {
    let wasm = wat::parse_str(interpreter(200, 200)).unwrap();
    let program = instrument(&wasm).unwrap();
    for kind in [Kind::Wasmtime, Kind::Wasmi] {
        let mut machine = machine(kind, program.bytes());
        assert_eq!(machine.run(), End::Returned, "{kind:?}");
    }
}

//! The bits of NaNs that a program can see, on an engine that computes any.

mod random;

use std::borrow::Cow;

use mielin_safepoint::{InstrumentError, canonical_nans};

use super::hosts::Kind;
use super::stepping::{check, run_plain};

/// Two NaNs with signs and payloads in memory, and after them room for results.
const DATA: &str = r#"(memory (export "memory") 1)
    (data (i32.const 0) "\34\12\b0\ff\34\12\b0\ff\34\12\b0\ff\34\12\b0\ff\78\56\00\00\00\00\f4\ff\78\56\00\00\00\00\f4\ff")"#;

fn module(body: &str) -> Vec<u8> {
    let wat = format!(r#"(module {DATA} {body})"#);
    wat::parse_str(&wat).unwrap_or_else(|error| panic!("{error}: {wat}"))
}

/// How many values are made canonical.
fn made_canonical(wasm: &[u8]) -> usize {
    let count = |wasm: &[u8]| {
        let mut count = 0;
        for payload in wasmparser::Parser::new(0).parse_all(wasm) {
            if let wasmparser::Payload::CodeSectionEntry(body) = payload.unwrap() {
                let operators = body.get_operators_reader().unwrap().into_iter();
                count += operators
                    .filter(|operator| {
                        use wasmparser::Operator::{F32Eq, F32x4Eq, F64Eq, F64x2Eq};
                        matches!(operator, Ok(F32x4Eq | F64x2Eq | F32Eq | F64Eq))
                    })
                    .count();
            }
        }
        count
    };
    count(&canonical_nans(wasm).unwrap()) - count(wasm)
}

/// The functions, how many values are made canonical in them, and why.
const FUNCTIONS: &[(usize, &str, &str)] = &[
    (
        1,
        "a sum of products is looked at once, when it is stored",
        r#"(func (export "_start") (local $sum v128) (local $i i32)
            (loop $next
                (local.set $sum (f32x4.add (local.get $sum)
                    (f32x4.mul (v128.load (i32.const 0)) (v128.load (i32.const 64)))))
                (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 9))))
            (v128.store (i32.const 128) (local.get $sum)))"#,
    ),
    (
        1,
        "what was loaded keeps its bits, also in a local that gets results",
        r#"(func (export "_start") (local $value f64)
            (local.set $value (f64.load (i32.const 16)))
            (f64.store (i32.const 128) (local.get $value))
            (local.set $value (f64.sqrt (local.get $value)))
            (f64.store (i32.const 136) (local.get $value)))"#,
    ),
    (
        0,
        "comparisons, conversions and drops see no bits",
        r#"(func (export "_start") (local $any f32)
            (local.set $any (f32.sqrt (f32.load (i32.const 0))))
            (i32.store (i32.const 128) (f32.lt (local.get $any) (f32.const 1)))
            (i32.store (i32.const 132) (i32.trunc_sat_f32_s (f32.neg (f32.load (i32.const 0)))))
            (i32.store (i32.const 136) (i32.trunc_sat_f32_u (local.get $any)))
            (drop (f32.add (local.get $any) (local.get $any))))"#,
    ),
    (
        1,
        "a sign is seen",
        r#"(func (export "_start")
            (f32.store (i32.const 128) (f32.neg (f32.sqrt (f32.load (i32.const 0)))))
            (f32.store (i32.const 132) (f32.copysign (f32.const 1) (f32.load (i32.const 0)))))"#,
    ),
    (
        2,
        "integers see the bits",
        r#"(func (export "_start")
            (i64.store (i32.const 128) (i64.reinterpret_f64 (f64.div (f64.load (i32.const 16)) (f64.const 2))))
            (v128.store (i32.const 144) (v128.not (f64x2.mul (v128.load (i32.const 16)) (v128.load (i32.const 16))))))"#,
    ),
    (
        2,
        "arguments, and results of functions, are seen by others",
        r#"(func $half (param f64) (result f64) (f64.mul (local.get 0) (f64.const 0.5)))
        (func (export "_start")
            (f64.store (i32.const 128) (call $half (f64.sqrt (f64.load (i32.const 16))))))"#,
    ),
    (
        1,
        "an argument may be a NaN that the caller has loaded",
        r#"(func $second (param f64 i32) (result f64)
            (if (local.get 1) (then (local.set 0 (f64.sqrt (local.get 0)))))
            (local.get 0))
        (func (export "_start")
            (f64.store (i32.const 128) (call $second (f64.load (i32.const 16)) (i32.const 0)))
            (f64.store (i32.const 136) (call $second (f64.load (i32.const 16)) (i32.const 1))))"#,
    ),
    (
        3,
        "what comes together with what was loaded is canonical before",
        r#"(func (export "_start")
            (f64.store (i32.const 128) (select (f64.sqrt (f64.load (i32.const 16))) (f64.load (i32.const 16)) (i32.load (i32.const 0))))
            (f64.store (i32.const 136) (select (f64.sqrt (f64.load (i32.const 16))) (f64.load (i32.const 16)) (i32.load (i32.const 64))))
            (f64.store (i32.const 144) (select (f64.sqrt (f64.load (i32.const 16))) (f64.const 1) (i32.load (i32.const 0)))))"#,
    ),
    (
        1,
        "what a block gives may be one or the other, and is stored once",
        r#"(func (export "_start")
            (f64.store (i32.const 128) (block (result f64)
                (drop (br_if 0 (f64.sqrt (f64.load (i32.const 16))) (i32.load (i32.const 64))))
                (f64.floor (f64.load (i32.const 16))))))"#,
    ),
    (
        3,
        "lanes are taken out, put in and spread",
        r#"(func (export "_start") (local $v v128)
            (local.set $v (f32x4.splat (f32.sqrt (f32.load (i32.const 0)))))
            (local.set $v (f32x4.replace_lane 1 (local.get $v) (f32.const 3)))
            (f32.store (i32.const 128) (f32x4.extract_lane 0 (local.get $v)))
            (v128.store (i32.const 144) (local.get $v))
            (v128.store (i32.const 160) (f32x4.replace_lane 2 (v128.load (i32.const 0)) (f32.sqrt (f32.load (i32.const 0))))))"#,
    ),
    (
        3,
        "lanes of one size are bits to those of the other",
        r#"(func (export "_start") (local $v v128)
            (local.set $v (f32x4.mul (v128.load (i32.const 0)) (v128.load (i32.const 0))))
            (v128.store (i32.const 128) (f64x2.add (local.get $v) (v128.load (i32.const 16))))
            (v128.store (i32.const 144) (local.get $v)))"#,
    ),
    (
        1,
        "lanes that move as a whole stay lanes, bytes do not",
        r#"(func (export "_start") (local $v v128)
            (local.set $v (f32x4.sqrt (v128.load (i32.const 0))))
            (drop (f32x4.add (local.get $v) (i8x16.shuffle 4 5 6 7 0 1 2 3 20 21 22 23 16 17 18 19 (local.get $v) (local.get $v))))
            (v128.store (i32.const 128) (i8x16.shuffle 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 (f32x4.abs (local.get $v)) (v128.const i64x2 0 0))))"#,
    ),
    (
        2,
        "what follows a jump is never reached",
        r#"(func (export "_start") (local $v f32)
            (block
                (local.set $v (f32.sqrt (f32.load (i32.const 0))))
                (br 0)
                (f32.store (f32.add)))
            (f32.store (i32.const 132) (local.get $v)))"#,
    ),
];

#[test]
fn nans_are_canonical_where_they_are_seen_and_nowhere_else() {
    for (count, why, functions) in FUNCTIONS {
        let wasm = module(functions);
        let canonical = canonical_nans(&wasm).unwrap();
        wasmparser::validate(&canonical).unwrap_or_else(|error| panic!("{why}: {error}"));
        assert_eq!(made_canonical(&wasm), *count, "{why}");
        assert_eq!(
            run_plain(Kind::WasmtimeWithAnyNan, &wasm).unwrap(),
            run_plain(Kind::Wasmtime, &wasm).unwrap(),
            "{why}"
        );
        check(why, &wasm);
    }
}

#[test]
fn a_module_without_computed_nans_stays_as_it_is() {
    let wasm = module(
        r#"(func (export "_start") (f64.store (i32.const 128) (f64.load (i32.const 16)))
            (f64.store (i32.const 136) (f64.convert_i32_s (i32.load (i32.const 64)))))"#,
    );
    assert!(matches!(canonical_nans(&wasm), Ok(Cow::Borrowed(_))));
}

#[test]
fn a_sum_stays_uncanonical_in_a_loop_that_can_be_stopped() {
    let (_, _, sum) = FUNCTIONS[0];
    let program = mielin_safepoint::instrument(&module(sum)).unwrap();
    // Where the sum is stored, and where it goes to a frame: not where it is added up.
    let frames = made_canonical(program.bytes());
    assert!((2..=3).contains(&frames), "{frames}");
}

#[test]
fn hints_stay_with_their_branches() {
    let wasm = wat::parse_str(
        r#"(module (memory 1) (func (param i32)
            (f32.store (i32.const 0) (f32.sqrt (f32.load (i32.const 4))))
            (@metadata.code.branch_hint "\00") (if (local.get 0) (then (unreachable)))
            (f64.store (i32.const 8) (f64.sqrt (f64.load (i32.const 16))))
            (@metadata.code.branch_hint "\01") (if (local.get 0) (then (unreachable)))))"#,
    )
    .unwrap();
    let hinted = |wasm: &[u8]| -> Vec<bool> {
        let (mut hints, mut found) = (Vec::new(), Vec::new());
        for payload in wasmparser::Parser::new(0).parse_all(wasm) {
            match payload.unwrap() {
                wasmparser::Payload::CustomSection(section) => {
                    if let wasmparser::KnownCustom::BranchHints(functions) = section.as_known() {
                        for hint in functions.into_iter().next().unwrap().unwrap().hints {
                            hints.push(hint.unwrap());
                        }
                    }
                }
                wasmparser::Payload::CodeSectionEntry(body) => {
                    let mut reader = body.get_operators_reader().unwrap();
                    while !reader.eof() {
                        let (operator, at) = reader.read_with_offset().unwrap();
                        let at = at - body.range().start;
                        if let Some(hint) =
                            hints.iter().find(|hint| hint.func_offset as usize == at)
                        {
                            assert!(
                                matches!(operator, wasmparser::Operator::If { .. }),
                                "{operator:?}"
                            );
                            found.push(hint.taken);
                        }
                    }
                }
                _ => {}
            }
        }
        assert_eq!(hints.len(), found.len());
        found
    };
    assert_eq!(hinted(&wasm), [false, true]);
    let canonical = canonical_nans(&wasm).unwrap();
    assert_eq!(hinted(&canonical), [false, true]);
    wasmparser::validate(&canonical).unwrap();
}

/// Each program runs as it is and, of some, rewritten and stopped everywhere, on all engines.
#[test]
fn random_programs_see_the_same_bits_as_if_each_result_were_canonical() {
    let (mut seen, mut stopped) = (0, 0);
    for seed in super::random::seeds() {
        let text = random::program(seed);
        let wasm = wat::parse_str(&text).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let expected = run_plain(Kind::Wasmtime, &wasm).unwrap();
        let observed = run_plain(Kind::WasmtimeWithAnyNan, &wasm).unwrap();
        assert_eq!(observed, expected, "seed {seed}");
        seen += made_canonical(&wasm);
        if seed % 4 == 0 {
            stopped += check(&format!("seed {seed}"), &wasm);
        }
    }
    assert!(seen > 0 && stopped > 0, "{seen} NaNs, {stopped} stops");
}

#[test]
fn functions_with_many_locals_and_branches_take_bounded_time() {
    let local = "f64 ".repeat(49_990);
    let branches = "(br_if 0 (i32.const 0)) ".repeat(20_000);
    let sum = "(local.set 7 (f64.add (local.get 7) (f64.load (i32.const 16))))";
    let function = format!(
        "(func (local {local}) (block {sum} {branches} {sum}) (f64.store (i32.const 128) (local.get 7)))"
    );
    let wasm = module(&format!(
        r#"{} (func (export "_start"))"#,
        function.repeat(3)
    ));
    // Followed, the sums would be canonical once: there are too many steps, and they are so twice.
    assert_eq!(made_canonical(&wasm), 6);
}

/// An instruction that is never reached may say that it takes any number of operands.
#[test]
fn operands_that_nobody_has_are_not_taken() {
    let wasm = wat::parse_str(format!(
        "(module (memory 1) (type $many (array f32)) (func unreachable {} drop))",
        "(array.new_fixed $many 4294967295) drop ".repeat(1000)
    ));
    assert_eq!(made_canonical(&wasm.unwrap()), 0);
}

#[test]
fn a_number_of_locals_may_be_written_in_more_bytes_than_it_takes() {
    let body = [
        // No groups of locals.
        &[0x80, 0x80, 0x80, 0x80, 0x00][..],
        // (f32.store (i32.const 0) (f32.sqrt (f32.load (i32.const 4))))
        &[0x41, 0, 0x41, 4, 0x2a, 2, 0, 0x91, 0x38, 2, 0, 0x0b],
    ]
    .concat();
    let mut module = wasm_encoder::Module::new();
    let mut types = wasm_encoder::TypeSection::new();
    types.ty().function([], []);
    let mut functions = wasm_encoder::FunctionSection::new();
    functions.function(0);
    let mut memories = wasm_encoder::MemorySection::new();
    memories.memory(wasm_encoder::MemoryType {
        minimum: 1,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut code = wasm_encoder::CodeSection::new();
    code.raw(&body);
    let sections = module.section(&types).section(&functions);
    let wasm = sections.section(&memories).section(&code).clone().finish();
    wasmparser::validate(&wasm).unwrap();
    let canonical = canonical_nans(&wasm).unwrap();
    wasmparser::validate(&canonical).unwrap();
    assert_eq!(made_canonical(&wasm), 1);
}

#[test]
fn functions_that_would_be_larger_than_engines_accept_are_refused() {
    // Eleven bytes become more than twenty.
    let stores = "(f32.store (i32.const 0) (f32.sqrt (f32.load (i32.const 4))))".repeat(500_000);
    let wasm = module(&format!("(func {stores})"));
    wasmparser::validate(&wasm).unwrap();
    assert!(matches!(
        canonical_nans(&wasm),
        Err(InstrumentError::TooLarge { what: "bytes", .. })
    ));
}

/// The names of a rewritten module do not make one of a module.
#[test]
fn only_a_module_that_says_it_was_rewritten_has_frames() {
    let wasm = module(
        r#"(memory 1) (data (memory 1) (i32.const 0) "\34\12\b0\ff") (func (export "mielin:run")) (func (export "_start") (local $value f32)
            (local.set $value (f32.load 1 (i32.const 0)))
            (if (i32.load (i32.const 64)) (then (local.set $value (f32.sqrt (local.get $value)))))
            (f32.store (i32.const 128) (local.get $value)))"#,
    );
    // The root, and not what is stored: that may be what was loaded.
    assert_eq!(made_canonical(&wasm), 1);
    assert_eq!(
        run_plain(Kind::WasmtimeWithAnyNan, &wasm).unwrap(),
        run_plain(Kind::Wasmtime, &wasm).unwrap()
    );
}

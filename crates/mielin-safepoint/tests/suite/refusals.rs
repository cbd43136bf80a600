//! What is refused, and how clearly.

use mielin_safepoint::{InstrumentError, Resumable, abi, instrument};

fn refusal(source: &str) -> String {
    let wasm = wat::parse_str(source).unwrap();
    instrument(&wasm)
        .err()
        .unwrap_or_else(|| panic!("accepted: {source}"))
        .to_string()
}

/// The refusal of a module whose `_start` is called `$main` and has this body.
fn check(fields: &str, body: &str, expected: &str) {
    let source = format!("(module {fields} (func $main (export \"_start\") {body}))");
    assert_eq!(refusal(&source), expected, "{source}");
}

#[test]
fn instructions_are_refused_by_function_and_feature() {
    let cases = [
        ("(tag $t)", "(throw $t)", None),
        (
            "",
            "(return_call $main)",
            Some("an instruction of the tail_call proposal"),
        ),
        (
            "(memory 1)",
            "(drop (i32.atomic.load (i32.const 0)))",
            Some("an instruction of the threads proposal"),
        ),
        (
            "",
            "(drop (i32x4.relaxed_trunc_f32x4_s (v128.const i64x2 0 0)))",
            Some("an instruction of the relaxed_simd proposal"),
        ),
        (
            "",
            "(drop (ref.i31 (i32.const 1)))",
            Some("an instruction of the gc proposal"),
        ),
        (
            "(table 1 funcref)",
            "(table.set (i32.const 0) (ref.null func))",
            Some("table.set, which changes a table"),
        ),
        (
            "(table 1 funcref)",
            "(drop (table.grow (ref.null func) (i32.const 1)))",
            Some("table.grow, which changes a table"),
        ),
        (
            "",
            "(local $r funcref) (loop (local.set $r (local.get $r)) (br 0))",
            Some("a reference that is alive where the program can be stopped"),
        ),
        (
            "(table 1 funcref)",
            "(table.get (i32.const 0)) (loop) (drop)",
            Some("a reference that is alive where the program can be stopped"),
        ),
    ];
    for (fields, body, feature) in cases {
        let expected = match feature {
            Some(feature) => {
                format!("in function 0 (\"main\"): {feature} cannot be made resumable")
            }
            None => {
                "an instruction of the exceptions proposal cannot be made resumable".to_string()
            }
        };
        check(fields, body, &expected);
    }
}

#[test]
fn modules_are_refused_by_feature() {
    for (fields, feature) in [
        ("(memory i64 1)", "a 64-bit memory"),
        ("(memory 1 1 shared)", "a shared memory"),
        ("(memory 1) (memory 1)", "more than one memory"),
        (
            "(import \"env\" \"memory\" (memory 1))",
            "the imported memory \"env\" \"memory\"",
        ),
        (
            "(import \"env\" \"g\" (global i32))",
            "the imported global \"env\" \"g\"",
        ),
        (
            "(global (mut funcref) (ref.null func))",
            "a mutable global that holds a reference",
        ),
        ("(type (struct))", "an instruction of the gc proposal"),
    ] {
        check(fields, "", &format!("{feature} cannot be made resumable"));
    }
}

#[test]
fn a_module_must_be_a_command() {
    for source in [
        "(module)",
        "(module (func (export \"main\")))",
        "(module (func (export \"_start\") (param i32)))",
        "(module (import \"env\" \"f\" (func $f)) (export \"_start\" (func $f)))",
        "(module (memory (export \"_start\") 1))",
    ] {
        let expected = "the module exports no function _start: () -> (), so it is not a command";
        assert_eq!(refusal(source), expected);
    }
    assert_eq!(
        refusal("(module (func (export \"_start\")) (func (export \"mielin:run\")))"),
        "the module exports the reserved name \"mielin:run\""
    );
    assert_eq!(
        refusal("(component)"),
        "this is a component, not a core WebAssembly module"
    );
}

#[test]
fn a_rewritten_module_is_not_rewritten_again_and_a_plain_one_is_not_taken_for_one() {
    let plain = wat::parse_str("(module (func (export \"_start\")))").unwrap();
    let program = instrument(&plain).unwrap();
    assert_eq!(
        instrument(program.bytes()).unwrap_err(),
        InstrumentError::AlreadyRewritten
    );
    assert!(matches!(
        Resumable::from_rewritten(plain),
        Err(InstrumentError::NotRewritten(_))
    ));
    let mut other = program.bytes().to_vec();
    let at = other
        .windows(abi::SECTION.len())
        .position(|w| w == abi::SECTION.as_bytes())
        .unwrap();
    other[at + abi::SECTION.len()] = 9;
    assert_eq!(
        Resumable::from_rewritten(other).unwrap_err(),
        InstrumentError::Version {
            found: 9,
            expected: abi::VERSION
        }
    );
}

#[test]
fn hostile_shapes_neither_overflow_the_stack_nor_take_for_ever() {
    let depth = 40_000;
    let nest = |open: &[u8]| {
        let mut body = vec![0];
        for _ in 0..depth {
            body.extend_from_slice(open);
        }
        body.extend(std::iter::repeat_n(0x0b, depth + 1));
        body
    };
    let module = |body: &[u8]| {
        let mut module = wasm_encoder::Module::new();
        let mut types = wasm_encoder::TypeSection::new();
        types.ty().function([], []);
        let mut functions = wasm_encoder::FunctionSection::new();
        functions.function(0);
        let mut exports = wasm_encoder::ExportSection::new();
        exports.export("_start", wasm_encoder::ExportKind::Func, 0);
        let mut code = wasm_encoder::CodeSection::new();
        code.raw(body);
        module
            .section(&types)
            .section(&functions)
            .section(&exports)
            .section(&code);
        module.finish()
    };
    // Nested loops: their dispatch tables would grow with the square of the depth.
    let error = instrument(&module(&nest(&[0x03, 0x40]))).unwrap_err();
    assert!(matches!(error, InstrumentError::TooLarge { .. }), "{error}");
    // Nested blocks around nothing are harmless.
    instrument(&module(&nest(&[0x02, 0x40]))).unwrap();
    // 50,000 locals, all alive at 5,000 loops.
    let mut body = vec![1];
    wasm_encoder::Encode::encode(&49_000_u32, &mut body);
    body.push(0x7f);
    for _ in 0..5_000 {
        body.extend_from_slice(&[0x03, 0x40, 0x0b]);
    }
    for local in 0..49_000_u32 {
        body.push(0x20);
        wasm_encoder::Encode::encode(&local, &mut body);
        body.push(0x1a);
    }
    body.push(0x0b);
    let error = instrument(&module(&body)).unwrap_err();
    assert!(matches!(error, InstrumentError::TooLarge { .. }), "{error}");
}

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
    for (fields, body, proposal) in [
        ("(tag $t)", "(throw $t)", "exceptions"),
        (
            "(tag $t)",
            "(block $b (try_table (catch $t $b)))",
            "exceptions",
        ),
        (
            "(memory 1)",
            "(drop (i32.atomic.load (i32.const 0)))",
            "threads",
        ),
        ("(memory 1 1 shared)", "(atomic.fence)", "threads"),
        ("", "(drop (ref.i31 (i32.const 1)))", "gc"),
        ("(type $s (struct))", "(drop (struct.new $s))", "gc"),
        (
            "(type $f (func))",
            "(call_ref $f (ref.null $f))",
            "function_references",
        ),
        (
            "",
            "(drop (i64.add128 (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0))) (drop)",
            "wide_arithmetic",
        ),
    ] {
        let feature = format!("an instruction of the {proposal} proposal");
        let expected = format!("in function 0 (\"main\"): {feature} cannot be made resumable");
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
            "(import \"env\" \"f\" (func (result externref)))",
            "the imported function of references \"env\" \"f\"",
        ),
        ("(type (struct))", "a definition of the gc proposal"),
        ("(tag)", "a definition of the exceptions proposal"),
        (
            "(table i64 1 funcref)",
            "a type beyond numbers, vectors, funcref and externref",
        ),
        (
            "(table 1 anyref)",
            "a type beyond numbers, vectors, funcref and externref",
        ),
        ("(memory 1 (pagesize 1))", "a custom-page-size memory"),
        (
            "(import \"env\" \"t\" (table 1 funcref))",
            "the imported table \"env\" \"t\"",
        ),
        (
            "(import \"env\" \"t\" (tag))",
            "the imported tag \"env\" \"t\"",
        ),
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
    let module_of = |bodies: usize, body: &[u8]| {
        let mut module = wasm_encoder::Module::new();
        let mut types = wasm_encoder::TypeSection::new();
        types.ty().function([], []);
        let mut functions = wasm_encoder::FunctionSection::new();
        let mut exports = wasm_encoder::ExportSection::new();
        exports.export("_start", wasm_encoder::ExportKind::Func, 0);
        let mut code = wasm_encoder::CodeSection::new();
        for _ in 0..bodies {
            functions.function(0);
            code.raw(body);
        }
        module
            .section(&types)
            .section(&functions)
            .section(&exports)
            .section(&code);
        module.finish()
    };
    let module = |body: &[u8]| module_of(1, body);
    // As many functions as engines accept, and the rewriter adds some.
    let error = instrument(&module_of(1_000_000, &[0, 0x0b])).unwrap_err();
    let expected = InstrumentError::TooLarge {
        function: None,
        what: "functions",
        limit: 1_000_000,
    };
    assert_eq!(error, expected);
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

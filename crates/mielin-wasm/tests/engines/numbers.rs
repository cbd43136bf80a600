//! The bits of NaNs: canonical wherever an instruction computes one, on both engines.

use mielin_wasm::{EngineKind, Outcome};

use super::support::{BOTH, instance};

/// A NaN with a sign and a payload, which processors would carry into a result.
const NAN32: u32 = 0xffb0_1234;
const NAN64: u64 = 0xfff4_0000_0000_5678;
const CANONICAL32: u32 = 0x7fc0_0000;
const CANONICAL64: u64 = 0x7ff8_0000_0000_0000;

const UNARY: &[&str] = &["sqrt", "ceil", "floor", "trunc", "nearest"];
const BINARY: &[&str] = &["add", "sub", "mul", "div", "min", "max"];
/// These only look at bits or move them.
const BITWISE: &[&str] = &["neg", "abs"];

/// Runs instructions that each store 16 bytes, and gives what they stored.
fn stored(kind: EngineKind, expressions: &[String]) -> Vec<u128> {
    let stores: String = expressions
        .iter()
        .enumerate()
        .map(|(index, expression)| {
            format!(
                "(v128.store (i32.const {}) {expression})\n",
                64 + 16 * index
            )
        })
        .collect();
    let wat = format!(
        r#"(module (memory (export "memory") 1)
        (data (i32.const 0) "{}")
        (func (export "_start") {stores}))"#,
        NAN32
            .to_le_bytes()
            .repeat(4)
            .into_iter()
            .chain(NAN64.to_le_bytes().repeat(2))
            .map(|byte| format!("\\{byte:02x}"))
            .collect::<String>(),
    );
    let mut instance = instance(kind, &wat);
    assert_eq!(instance.run(), Outcome::Exited(0), "{kind}");
    let memory = &instance.memory()[64..];
    let results = memory.chunks(16).take(expressions.len());
    results
        .map(|bytes| u128::from_le_bytes(bytes.try_into().unwrap()))
        .collect()
}

/// The instructions with NaNs from memory, which no compiler computes beforehand, and what they give.
fn cases() -> Vec<(String, u128)> {
    let mut cases = Vec::new();
    let wide32 = |bits: u32| u128::from(bits) * 0x1_0000_0001_0000_0001_0000_0001;
    let wide64 = |bits: u64| u128::from(bits) * 0x1_0000_0000_0000_0001;
    let shapes = [
        (
            "f32",
            "f32x4",
            "(f32.load (i32.const 0))",
            "(f32.const 1)",
            "(v128.load (i32.const 0))",
            wide32(NAN32),
            wide32(CANONICAL32),
            wide32(0x8000_0000),
        ),
        (
            "f64",
            "f64x2",
            "(f64.load (i32.const 16))",
            "(f64.const 1)",
            "(v128.load (i32.const 16))",
            wide64(NAN64),
            wide64(CANONICAL64),
            wide64(0x8000_0000_0000_0000),
        ),
    ];
    for (ty, lanes, nan, one, nans, bits, canonical, sign) in shapes {
        let splat = |expression: String| format!("({lanes}.splat {expression})");
        let ones = splat(one.to_owned());
        for name in UNARY {
            cases.push((splat(format!("({ty}.{name} {nan})")), canonical));
            cases.push((format!("({lanes}.{name} {nans})"), canonical));
        }
        for name in BINARY {
            for (left, right) in [(nan, one), (one, nan), (nan, nan)] {
                cases.push((splat(format!("({ty}.{name} {left} {right})")), canonical));
            }
            for (left, right) in [(nans, &*ones), (&*ones, nans), (nans, nans)] {
                cases.push((format!("({lanes}.{name} {left} {right})"), canonical));
            }
        }
        for name in BITWISE {
            let expected = if *name == "neg" {
                bits ^ sign
            } else {
                bits & !sign
            };
            cases.push((splat(format!("({ty}.{name} {nan})")), expected));
            cases.push((format!("({lanes}.{name} {nans})"), expected));
        }
        let copied = format!("({ty}.copysign {nan} {one})");
        cases.push((splat(copied), bits & !sign));
        cases.push((format!("({lanes}.pmin {nans} {ones})"), bits));
        cases.push((format!("({lanes}.pmax {nans} {ones})"), bits));
        // Zero by zero is a NaN of the processor's own.
        let zero = format!("({ty}.convert_i32_s (i32.load (i32.const 32)))");
        cases.push((splat(format!("({ty}.div {zero} {zero})")), canonical));
    }
    let (nan32, nan64) = ("(f32.load (i32.const 0))", "(f64.load (i32.const 16))");
    let promoted = format!("(f64x2.splat (f64.promote_f32 {nan32}))");
    cases.push((promoted, wide64(CANONICAL64)));
    let demoted = format!("(f32x4.splat (f32.demote_f64 {nan64}))");
    cases.push((demoted, wide32(CANONICAL32)));
    let vectors = [
        ("f64x2.promote_low_f32x4", 0, wide64(CANONICAL64)),
        (
            "f32x4.demote_f64x2_zero",
            16,
            wide32(CANONICAL32) & u128::from(u64::MAX),
        ),
    ];
    for (name, address, expected) in vectors {
        cases.push((
            format!("({name} (v128.load (i32.const {address})))"),
            expected,
        ));
    }
    cases
}

#[test]
fn computed_nans_are_canonical_and_moved_ones_keep_their_bits() {
    let (expressions, expected): (Vec<_>, Vec<_>) = cases().into_iter().unzip();
    for kind in BOTH {
        let stored = stored(kind, &expressions);
        for ((expression, stored), expected) in expressions.iter().zip(stored).zip(&expected) {
            assert_eq!(
                format!("{stored:032x}"),
                format!("{expected:032x}"),
                "{kind}: {expression}"
            );
        }
    }
}

/// A machine may choose what relaxed instructions give; a program that is moved may not see that.
#[test]
fn relaxed_instructions_have_one_meaning() {
    let splat =
        |shape: &str, value: &str| format!("({shape}.splat ({}.const {value}))", scalar(shape));
    fn scalar(shape: &str) -> &str {
        match shape {
            "f32x4" => "f32",
            "f64x2" => "f64",
            "i64x2" => "i64",
            _ => "i32",
        }
    }
    let lanes32 = |bits: u32| u128::from(bits) * 0x1_0000_0001_0000_0001_0000_0001;
    let lanes16 = |bits: u16| lanes32(u32::from(bits) * 0x1_0001);
    let lanes64 = |bits: u64| u128::from(bits) * 0x1_0000_0000_0000_0001;
    // One more than 1 in the last place, whose square needs more places than there are.
    let (a, b) = (1.0 + f32::EPSILON, 1.0 + f64::EPSILON);
    let (ones32, ones64) = (format!("{a:.30}"), format!("{b:.60}"));
    let three = |instruction: &str, shape: &str, x: &str, y: &str, z: &str| {
        let operands = [x, y, z].map(|value| splat(shape, value)).join(" ");
        format!("({shape}.{instruction} {operands})")
    };
    let two = |instruction: &str, shape: &str, x: &str, y: &str| {
        format!(
            "({shape}.{instruction} {} {})",
            splat(shape, x),
            splat(shape, y)
        )
    };
    let nan = format!("nan:0x{:x}", NAN32 & 0x7f_ffff);
    let cases = [
        (
            three("relaxed_madd", "f32x4", &ones32, &ones32, "-1"),
            lanes32((a * a - 1.0).to_bits()),
        ),
        (
            three("relaxed_nmadd", "f32x4", &ones32, &ones32, "1"),
            lanes32((1.0 - a * a).to_bits()),
        ),
        (
            three("relaxed_madd", "f64x2", &ones64, &ones64, "-1"),
            lanes64((b * b - 1.0).to_bits()),
        ),
        (
            three("relaxed_nmadd", "f64x2", &ones64, &ones64, "1"),
            lanes64((1.0 - b * b).to_bits()),
        ),
        (two("relaxed_min", "f32x4", &nan, "1"), lanes32(CANONICAL32)),
        (two("relaxed_max", "f64x2", "0", "-0"), 0),
        // Indices beyond 15, of which some machines take the low bits.
        (two("relaxed_swizzle", "i8x16", "7", "16"), 0),
        (
            two("relaxed_q15mulr_s", "i16x8", "-32768", "-32768"),
            lanes16(i16::MAX as u16),
        ),
        // Mixed masks select bits, not lanes.
        (
            three("relaxed_laneselect", "i8x16", "-1", "0", "0x81"),
            u128::from_le_bytes([0x81; 16]),
        ),
        (
            three("relaxed_laneselect", "i64x2", "-1", "0", "0x7f"),
            lanes64(0x7f),
        ),
        (
            format!("(i32x4.relaxed_trunc_f32x4_s {})", splat("f32x4", &nan)),
            0,
        ),
        (
            format!("(i32x4.relaxed_trunc_f32x4_u {})", splat("f32x4", "-7.5")),
            0,
        ),
        (
            format!(
                "(i32x4.relaxed_trunc_f64x2_s_zero {})",
                splat("f64x2", "1e300")
            ),
            u128::from(lanes64(0x7fff_ffff_7fff_ffff) as u64),
        ),
        (
            format!(
                "(i16x8.relaxed_dot_i8x16_i7x16_s {} {})",
                splat("i8x16", "-128"),
                splat("i8x16", "-128")
            ),
            lanes16(i16::MAX as u16),
        ),
        (
            format!(
                "(i32x4.relaxed_dot_i8x16_i7x16_add_s {} {} {})",
                splat("i8x16", "-3"),
                splat("i8x16", "5"),
                splat("i32x4", "100")
            ),
            lanes32(40),
        ),
    ];
    let expressions: Vec<String> = cases
        .iter()
        .map(|(expression, _)| expression.clone())
        .collect();
    for kind in BOTH {
        let results = stored(kind, &expressions);
        for ((expression, expected), result) in cases.iter().zip(results) {
            assert_eq!(result, *expected, "{kind}: {expression}: {result:032x}");
        }
    }
}

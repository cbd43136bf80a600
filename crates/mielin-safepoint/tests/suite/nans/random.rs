//! Random programs that compute with NaNs and look at them.

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Locals of each type, and how many of them are parameters of the function.
const LOCALS: u32 = 4;
const PARAMS: u32 = 2;
const TYPES: [&str; 3] = ["f32", "f64", "v128"];
/// Where the numbers and NaNs end that programs load, and where they store what they compute.
const DATA_END: u32 = 256;
const RESULTS: u32 = 1024;
const RESULTS_END: u32 = 8192;

/// A program that ends, as text.
pub(super) fn program(seed: u64) -> String {
    let mut writer = Writer {
        random: StdRng::seed_from_u64(seed),
        counters: 0,
        depth: 0,
    };
    let data: String = (0..DATA_END / 4).map(|_| writer.word()).collect();
    let mut body = writer.statements(3);
    for ty in TYPES {
        for local in 0..LOCALS {
            let at = writer.at(RESULTS, RESULTS_END);
            body += &format!("({ty}.store (i32.const {at}) (local.get ${ty}{local}))");
        }
    }
    let declared = |name: &str, range: std::ops::Range<u32>| -> String {
        let all = TYPES.iter().flat_map(|ty| {
            range
                .clone()
                .map(move |local| format!("({name} ${ty}{local} {ty})"))
        });
        all.collect()
    };
    let counters: String = (0..writer.counters)
        .map(|counter| format!("(local $i{counter} i32)"))
        .collect();
    let arguments: String = TYPES
        .iter()
        .flat_map(|ty| (0..PARAMS).map(move |at| format!("({ty}.load (i32.const {}))", at * 32)))
        .collect();
    format!(
        r#"(module (memory (export "memory") 1) (data (i32.const 0) "{data}")
        (func $half (param f64) (result f64) (f64.mul (local.get 0) (f64.const 0.5)))
        (func $same (param v128) (result v128) (local.get 0))
        (func $main {} {}{counters} {body})
        (func (export "_start") (call $main {arguments})))"#,
        declared("param", 0..PARAMS),
        declared("local", PARAMS..LOCALS),
    )
}

struct Writer {
    random: StdRng,
    counters: u32,
    /// Blocks around this place.
    depth: u32,
}

impl Writer {
    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.random.random_range(0..of.len())]
    }

    fn at(&mut self, first: u32, end: u32) -> u32 {
        self.random.random_range(first..end - 16) & !15
    }

    /// A number, or a NaN with sign and payload, as 32 bits or the upper half of 64.
    fn word(&mut self) -> String {
        let bits: u32 = match self.random.random_range(0..4) {
            0 => 0x3f80_0000,
            1 => 0xc000_0000 | self.random.random_range(0..1 << 20),
            2 => 0xfff0_0000 | self.random.random_range(1..1 << 20),
            _ => 0x7fb0_0000 | self.random.random_range(1..1 << 20),
        };
        bits.to_le_bytes()
            .map(|byte| format!("\\{byte:02x}"))
            .concat()
    }

    fn statements(&mut self, nesting: u32) -> String {
        let count = self.random.random_range(1..4);
        (0..count).map(|_| self.statement(nesting)).collect()
    }

    fn statement(&mut self, nesting: u32) -> String {
        let ty = self.one(&TYPES);
        let local = self.random.random_range(0..LOCALS);
        match self
            .random
            .random_range(0..if nesting == 0 { 4 } else { 9 })
        {
            0..=2 => format!("(local.set ${ty}{local} {})", self.value(ty, 3)),
            3 => {
                let at = self.at(RESULTS, RESULTS_END);
                format!("({ty}.store (i32.const {at}) {})", self.value(ty, 3))
            }
            4 => {
                let condition = self.condition();
                let (then, other) = (self.nested(nesting), self.nested(nesting));
                format!("(if {condition} (then {then}) (else {other}))")
            }
            5 => format!("(if {} (then {}))", self.condition(), self.nested(nesting)),
            6 => format!("(block {})", self.nested(nesting)),
            7 if self.depth > 0 => {
                let to = self.random.random_range(0..self.depth);
                // Not to a loop's start: that is counted.
                format!("(br_if {} {})", 2 * to, self.condition())
            }
            _ => {
                let counter = self.counters;
                self.counters += 1;
                let turns = self.random.random_range(1..3);
                let body = self.nested(nesting);
                format!(
                    "(local.set $i{counter} (i32.const {turns})) (loop {body} \
                     (br_if 0 (local.tee $i{counter} (i32.sub (local.get $i{counter}) (i32.const 1)))))"
                )
            }
        }
    }

    /// The inside of a block, in a block of its own, so that every second label can be branched to.
    fn nested(&mut self, nesting: u32) -> String {
        self.depth += 1;
        let inside = self.statements(nesting - 1);
        self.depth -= 1;
        format!("(block {inside})")
    }

    fn condition(&mut self) -> String {
        match self.random.random_range(0..3) {
            0 => format!("(f32.lt {} {})", self.value("f32", 2), self.value("f32", 2)),
            1 => format!("(i32.load8_u (i32.const {}))", self.at(0, DATA_END)),
            _ => format!("(f64.eq {} {})", self.value("f64", 2), self.value("f64", 2)),
        }
    }

    fn value(&mut self, ty: &str, nesting: u32) -> String {
        if nesting == 0 || self.random.random_bool(0.2) {
            return match self.random.random_range(0..5) {
                0 => format!("({ty}.load (i32.const {}))", self.at(0, DATA_END)),
                1 if ty == "v128" => "(v128.const f32x4 0 1.5 -2 1)".to_owned(),
                1 => format!(
                    "({ty}.const {})",
                    self.one(&["0", "1.5", "nan:0x400001", "-inf"])
                ),
                _ => format!("(local.get ${ty}{})", self.random.random_range(0..LOCALS)),
            };
        }
        let next = nesting - 1;
        match self.random.random_range(0..12) {
            0 => {
                let local = self.random.random_range(0..LOCALS);
                return format!("(local.tee ${ty}{local} {})", self.value(ty, next));
            }
            1 => {
                let (left, right) = (self.value(ty, next), self.value(ty, next));
                return format!("(select {left} {right} {})", self.condition());
            }
            2 => {
                let (first, last) = (self.value(ty, next), self.value(ty, next));
                let condition = self.condition();
                return format!(
                    "(block (result {ty}) (drop (br_if 0 {first} {condition})) {last})"
                );
            }
            3 => {
                let condition = self.condition();
                let (first, last) = (self.value(ty, next), self.value(ty, next));
                return format!("(if (result {ty}) {condition} (then {first}) (else {last}))");
            }
            _ => {}
        }
        match ty {
            "v128" => self.vector(next),
            _ => self.scalar(ty, next),
        }
    }

    fn scalar(&mut self, ty: &str, next: u32) -> String {
        let wide = if ty == "f32" { "f32x4" } else { "f64x2" };
        match self.random.random_range(0..8) {
            0 | 1 => {
                let name = self.one(&["add", "sub", "mul", "div", "min", "max", "copysign"]);
                format!(
                    "({ty}.{name} {} {})",
                    self.value(ty, next),
                    self.value(ty, next)
                )
            }
            2 => {
                let name = self.one(&["sqrt", "ceil", "nearest", "neg", "abs"]);
                format!("({ty}.{name} {})", self.value(ty, next))
            }
            3 => format!("({wide}.extract_lane 1 {})", self.value("v128", next)),
            4 if ty == "f32" => format!("(f32.demote_f64 {})", self.value("f64", next)),
            4 => format!("(f64.promote_f32 {})", self.value("f32", next)),
            5 if ty == "f64" => format!("(call $half {})", self.value("f64", next)),
            6 if ty == "f32" => {
                let bits = format!("(i32.reinterpret_f32 {})", self.value("f32", next));
                format!("(f32.reinterpret_i32 (i32.xor (i32.const 2) {bits}))")
            }
            _ => format!(
                "({ty}.convert_i32_s (i32.trunc_sat_{ty}_s {}))",
                self.value(ty, next)
            ),
        }
    }

    fn vector(&mut self, next: u32) -> String {
        let wide = self.one(&["f32x4", "f64x2"]);
        let narrow = if wide == "f32x4" { "f32" } else { "f64" };
        match self.random.random_range(0..9) {
            0 | 1 => {
                let name = self.one(&["add", "sub", "mul", "div", "min", "max", "pmin", "pmax"]);
                format!(
                    "({wide}.{name} {} {})",
                    self.value("v128", next),
                    self.value("v128", next)
                )
            }
            2 => {
                let name = self.one(&["sqrt", "floor", "nearest", "neg", "abs"]);
                format!("({wide}.{name} {})", self.value("v128", next))
            }
            3 => format!("({wide}.splat {})", self.value(narrow, next)),
            4 => {
                let (vector, lane) = (self.value("v128", next), self.value(narrow, next));
                format!("({wide}.replace_lane 1 {vector} {lane})")
            }
            5 => {
                let lanes = self.one(&[
                    "8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23",
                    "4 5 6 7 0 1 2 3 20 21 22 23 16 17 18 19",
                    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
                ]);
                format!(
                    "(i8x16.shuffle {lanes} {} {})",
                    self.value("v128", next),
                    self.value("v128", next)
                )
            }
            6 => {
                let mask = match self.random.random_bool(0.7) {
                    true => format!(
                        "({wide}.lt {} {})",
                        self.value("v128", next),
                        self.value("v128", next)
                    ),
                    false => self.value("v128", next),
                };
                format!(
                    "(v128.bitselect {} {} {mask})",
                    self.value("v128", next),
                    self.value("v128", next)
                )
            }
            7 => format!(
                "(v128.xor {} {})",
                self.value("v128", next),
                self.value("v128", next)
            ),
            _ => format!("(call $same {})", self.value("v128", next)),
        }
    }
}

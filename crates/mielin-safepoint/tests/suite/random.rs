//! Random modules, stopped at every safepoint and moved between the engines.

use arbitrary::Unstructured;
use mielin_safepoint::{InstrumentError, instrument};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use wasm_smith::Config;

use super::command;
use super::hosts::Kind;
use super::stepping::{PLANS, Program, exported_globals, run_plain, run_stepping};

fn config(random: &mut StdRng) -> Config {
    Config {
        max_funcs: random.random_range(1..8),
        min_funcs: 1,
        max_instructions: random.random_range(20..400),
        max_imports: random.random_range(0..6),
        max_memories: 1,
        max_tables: random.random_range(1..4),
        table_max_size_required: true,
        max_globals: 6,
        max_types: 12,
        min_types: 2,
        max_table_elements: 100,
        max_data_segments: 4,
        max_nesting_depth: 30,
        memory_max_size_required: true,
        canonicalize_nans: false,
        disallow_traps: random.random_bool(0.6),
        simd_enabled: random.random_bool(0.3),
        relaxed_simd_enabled: false,
        reference_types_enabled: random.random_bool(0.5),
        bulk_memory_enabled: random.random_bool(0.6),
        multi_value_enabled: random.random_bool(0.7),
        extended_const_enabled: false,
        exceptions_enabled: false,
        gc_enabled: false,
        tail_call_enabled: random.random_bool(0.5),
        threads_enabled: false,
        memory64_enabled: false,
        custom_page_sizes_enabled: false,
        allow_start_export: random.random_bool(0.2),
        ..Config::default()
    }
}

/// A random command that ends.
fn module(seed: u64) -> Option<Vec<u8>> {
    let mut random = StdRng::seed_from_u64(seed);
    let config = config(&mut random);
    let bytes: Vec<u8> = (0..random.random_range(500..6000))
        .map(|_| random.random())
        .collect();
    let mut module = wasm_smith::Module::new(config, &mut Unstructured::new(&bytes)).ok()?;
    module
        .ensure_termination(random.random_range(20..400))
        .ok()?;
    let wasm = command::from_module(&module.to_bytes())?;
    wasmparser::validate(&wasm).ok()?;
    Some(wasm)
}

/// Seeds from the environment, or a number that fits into an ordinary test run.
pub(crate) fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str, default| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let first = number("SAFEPOINT_SEED", 0);
    first..first + number("SAFEPOINT_MODULES", 100)
}

#[test]
fn random_modules_do_the_same_when_stopped_at_every_safepoint() {
    let (mut compared, mut stopped, mut refused) = (0, 0, 0);
    for seed in seeds() {
        let Some(wasm) = module(seed) else { continue };
        let program = match instrument(&wasm) {
            Ok(program) => program,
            Err(InstrumentError::Unsupported { .. }) => {
                refused += 1;
                continue;
            }
            Err(error) => panic!("seed {seed}: {error}"),
        };
        let program = Program::new(program);
        // Instantiation may trap.
        if program.on(Kind::Wasmtime).is_err() {
            continue;
        }
        let globals = exported_globals(&wasm);
        // As it is built here, wasmtime knows no external references, and wasmi's `select` is not to
        // be trusted: such programs are compared with what they do when they are not stopped.
        let expected = run_plain(Kind::Wasmtime, &wasm)
            .unwrap_or_else(|_| run_stepping(PLANS[0], &program, &globals).0);
        for plan in PLANS {
            let (observed, stops) = run_stepping(*plan, &program, &globals);
            assert_eq!(observed, expected, "seed {seed}: {plan:?}");
            stopped += stops;
        }
        compared += 1;
    }
    assert!(
        refused < compared,
        "{refused} modules were refused, {compared} compared"
    );
    let modules = seeds().count();
    assert!(
        compared * 4 > modules,
        "only {compared} of {modules} modules were compared"
    );
    assert!(
        stopped > compared * 10,
        "only {stopped} stops in {compared} modules"
    );
}

#[test]
fn garbage_and_damaged_modules_are_errors() {
    let mut random = StdRng::seed_from_u64(5);
    let wasm = wat::parse_str(super::sources::RECURSION).unwrap();
    for cut in 0..wasm.len() {
        // Between two sections the rest may be missing: then it is the names that are cut off.
        if instrument(&wasm[..cut]).is_ok() {
            assert!(wasmparser::validate(&wasm[..cut]).is_ok(), "cut at {cut}");
        }
    }
    let mut accepted = 0;
    for _ in 0..3000 {
        let mut damaged = wasm.clone();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(8..damaged.len());
            damaged[at] = random.random();
        }
        accepted += usize::from(instrument(&damaged).is_ok());
    }
    // Some damage changes only a constant; that the rewriter's own output is valid is checked
    // by `instrument` itself.
    assert!(accepted > 0);
    for len in 0..200 {
        let garbage: Vec<u8> = (0..len).map(|_| random.random()).collect();
        assert!(instrument(&garbage).is_err());
    }
}

//! How much slower is a rewritten program?
//!
//! Question: run time of the rewritten module divided by that of the plain one, for nine programs
//! in `benches/programs`, built by `clang --target=wasm32-wasi -O2`. Baseline: the plain module,
//! in the same process, its runs interleaved with those of the rewritten one; of each the
//! fastest run counts, since the machine's other work only ever adds time. wasmtime: Cranelift
//! at `OptLevel::Speed`, NaN canonicalisation, memories that do not move and branch hints, for
//! both modules; wasmi: defaults.
//! The limit is 1.00. Both modules must give the same checksum.
//!
//! `cargo run --release -p mielin-safepoint --example overhead -- [-o json] [--rounds N]`
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use mielin_safepoint::{abi, instrument};

const PROGRAMS: [&str; 9] = [
    "sieve",
    "matmul",
    "fib",
    "sha256",
    "mandelbrot",
    "mixed",
    "json",
    "btree",
    "interpreter",
];

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Row {
    name: &'static str,
    plain_ms: f64,
    wasmtime: f64,
    wasmi: f64,
    size: f64,
}

fn main() -> Result<()> {
    let mut json = false;
    let mut rounds = 12;
    let mut only = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-o" => json = arguments.next().as_deref() == Some("json"),
            "--rounds" => rounds = arguments.next().ok_or("--rounds needs a number")?.parse()?,
            "--only" => only = arguments.next(),
            other => return Err(format!("unknown argument {other:?}").into()),
        }
    }
    let mut rows = Vec::new();
    for name in PROGRAMS {
        if only.as_ref().is_none_or(|only| only == name) {
            rows.push(measure(name, rounds)?);
        }
    }
    if json {
        print_json(&rows)
    } else {
        print_table(&rows)
    }
    Ok(())
}

/// Builds a program and gives the module.
fn build(name: &str) -> Result<Vec<u8>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("benches/programs")
        .join(format!("{name}.c"));
    let target: PathBuf = std::env::temp_dir().join(format!(
        "mielin-overhead-{}-{name}.wasm",
        std::process::id()
    ));
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let status = Command::new(&clang)
        .args([
            "--target=wasm32-wasi",
            "-O2",
            "-nostdlib",
            "-Wl,--no-entry",
            "-o",
        ])
        .args([&target, &source])
        .status()
        .map_err(|error| format!("{clang}: {error}"))?;
    if !status.success() {
        return Err(format!("{clang} failed on {}", source.display()).into());
    }
    let wasm = std::fs::read(&target)?;
    std::fs::remove_file(&target)?;
    Ok(wasm)
}

fn measure(name: &'static str, rounds: u32) -> Result<Row> {
    let plain = build(name)?;
    let rewritten = instrument(&plain)?;
    if let Ok(directory) = std::env::var("MIELIN_KEEP_MODULES") {
        std::fs::write(Path::new(&directory).join(format!("{name}.wasm")), &plain)?;
        std::fs::write(
            Path::new(&directory).join(format!("{name}.rewritten.wasm")),
            rewritten.bytes(),
        )?;
    }
    let (slow, fast) = on_wasmtime(&plain, rewritten.bytes(), rounds)?;
    let (wasmi_slow, wasmi_fast) = on_wasmi(&plain, rewritten.bytes(), rounds.div_ceil(6))?;
    Ok(Row {
        name,
        plain_ms: fast * 1e3,
        wasmtime: slow / fast,
        wasmi: wasmi_slow / wasmi_fast,
        size: rewritten.bytes().len() as f64 / plain.len() as f64,
    })
}

/// The fastest of several interleaved runs: of the rewritten and of the plain program.
fn interleave(
    rounds: u32,
    mut rewritten: impl FnMut() -> Result<(f64, i64)>,
    mut plain: impl FnMut() -> Result<(f64, i64)>,
) -> Result<(f64, f64)> {
    let (mut slow, mut fast) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..rounds {
        let (plain_time, expected) = plain()?;
        let (rewritten_time, found) = rewritten()?;
        if expected != found {
            return Err(format!("the checksums differ: {found:x} instead of {expected:x}").into());
        }
        slow = slow.min(rewritten_time);
        fast = fast.min(plain_time);
    }
    Ok((slow, fast))
}

fn on_wasmtime(plain: &[u8], rewritten: &[u8], rounds: u32) -> Result<(f64, f64)> {
    use wasmtime::{Config, Engine, Instance, Module, OptLevel, Store};
    let mut config = Config::new();
    config.cranelift_opt_level(OptLevel::Speed);
    config.cranelift_nan_canonicalization(true);
    config.wasm_multi_memory(true);
    config.memory_may_move(false);
    config.wasm_branch_hinting(true);
    let engine = Engine::new(&config)?;
    let run = |module: &Module, entry: &str| -> Result<(f64, i64)> {
        let mut store = Store::new(&engine, ());
        let instance = Instance::new(&mut store, module, &[])?;
        let entry = instance.get_typed_func::<(), ()>(&mut store, entry)?;
        let result = instance.get_typed_func::<(), i64>(&mut store, "result")?;
        let start = Instant::now();
        entry.call(&mut store, ())?;
        let time = start.elapsed().as_secs_f64();
        Ok((time, result.call(&mut store, ())?))
    };
    let (plain, rewritten) = (
        Module::new(&engine, plain)?,
        Module::new(&engine, rewritten)?,
    );
    interleave(
        rounds,
        || run(&rewritten, abi::ENTRY),
        || run(&plain, "_start"),
    )
}

fn on_wasmi(plain: &[u8], rewritten: &[u8], rounds: u32) -> Result<(f64, f64)> {
    use wasmi::{Config, Engine, Linker, Module, Store};
    let mut config = Config::default();
    config.wasm_multi_memory(true);
    let engine = Engine::new(&config);
    let run = |module: &Module, entry: &str| -> Result<(f64, i64)> {
        let mut store = Store::new(&engine, ());
        let instance = Linker::new(&engine).instantiate_and_start(&mut store, module)?;
        let entry = instance.get_typed_func::<(), ()>(&store, entry)?;
        let result = instance.get_typed_func::<(), i64>(&store, "result")?;
        let start = Instant::now();
        entry.call(&mut store, ())?;
        let time = start.elapsed().as_secs_f64();
        Ok((time, result.call(&mut store, ())?))
    };
    let (plain, rewritten) = (
        Module::new(&engine, plain)?,
        Module::new(&engine, rewritten)?,
    );
    interleave(
        rounds,
        || run(&rewritten, abi::ENTRY),
        || run(&plain, "_start"),
    )
}

/// Geometric mean and largest value.
fn summary(rows: &[Row], column: impl Fn(&Row) -> f64) -> (f64, f64) {
    let sum: f64 = rows.iter().map(|row| column(row).ln()).sum();
    let worst = rows.iter().map(column).fold(0.0, f64::max);
    ((sum / rows.len() as f64).exp(), worst)
}

fn print_json(rows: &[Row]) {
    let (geomean, worst) = summary(rows, |row| row.wasmtime);
    let (wasmi_geomean, wasmi_worst) = summary(rows, |row| row.wasmi);
    let (size, _) = summary(rows, |row| row.size);
    println!(
        "{{\"wasmtime\":{{\"geomean\":{geomean:.4},\"worst\":{worst:.4}}},\
         \"wasmi\":{{\"geomean\":{wasmi_geomean:.4},\"worst\":{wasmi_worst:.4}}},\
         \"size_ratio\":{size:.4}}}"
    );
}

fn print_table(rows: &[Row]) {
    println!(
        "{:<12}{:>10}{:>10}{:>8}{:>8}",
        "program", "plain ms", "wasmtime", "wasmi", "size"
    );
    for Row {
        name,
        plain_ms,
        wasmtime,
        wasmi,
        size,
    } in rows
    {
        println!("{name:<12}{plain_ms:>10.1}{wasmtime:>10.3}{wasmi:>8.3}{size:>8.2}");
    }
    let (wasmtime, worst) = summary(rows, |row| row.wasmtime);
    let (wasmi, wasmi_worst) = summary(rows, |row| row.wasmi);
    let (size, _) = summary(rows, |row| row.size);
    println!(
        "{:<22}{wasmtime:>10.3}{wasmi:>8.3}{size:>8.2}",
        "geometric mean"
    );
    println!("{:<22}{worst:>10.3}{wasmi_worst:>8.3}", "worst");
}

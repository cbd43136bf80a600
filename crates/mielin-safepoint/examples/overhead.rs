//! How much slower is a rewritten program?
//!
//! Question: run time of the rewritten module divided by that of the plain one, for nine programs
//! in `benches/programs`, built by `clang --target=wasm32-wasi -O2`, and for CoreMark in its port to
//! Rust (`agents/coremark`), whose module `--coremark FILE` names. Baseline: the plain module,
//! in the same process, its runs interleaved with those of the rewritten one; of each the
//! fastest run counts, by the thread's time on a processor, since the machine's other work only ever
//! adds time. wasmtime: Cranelift at `OptLevel::Speed`, NaN canonicalisation, memories that do not
//! move and branch hints, for both modules; wasmi: defaults.
//! The limit is 1.00. Both modules must give the same checksum, or print the same.
//!
//! `cargo xtask bench safepoint [-o json] [--rounds N] [--only PROGRAM]` builds CoreMark and runs this with it.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use mielin_safepoint::{abi, canonical_nans, instrument};
use mielin_wasm::ThreadClock;

const COREMARK: &str = "coremark";
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
    let (mut only, mut coremark) = (None::<String>, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-o" => json = arguments.next().as_deref() == Some("json"),
            "--rounds" => rounds = arguments.next().ok_or("--rounds needs a number")?.parse()?,
            "--only" => only = arguments.next(),
            "--coremark" => coremark = arguments.next(),
            other => return Err(format!("unknown argument {other:?}").into()),
        }
    }
    let wanted = |name: &str| only.as_ref().is_none_or(|only| only == name);
    let mut rows = Vec::new();
    for name in PROGRAMS {
        if wanted(name) {
            rows.push(measure(name, &build(name)?, rounds)?);
        }
    }
    if let Some(module) = coremark
        && wanted(COREMARK)
    {
        let module = std::fs::read(&module).map_err(|error| format!("{module}: {error}"))?;
        rows.push(measure(COREMARK, &module, rounds)?);
    }
    if rows.is_empty() {
        return Err("there is no such program".into());
    }
    if json {
        print_json(&rows)
    } else {
        print_table(&rows)
    }
    Ok(())
}

/// What CoreMark asks of its host: arguments, of which there are none, a clock that stands still, and somewhere to print
/// to, of which a checksum is kept.
macro_rules! link_host {
    ($linker:ident, $caller:ty) => {
        const WASI: &str = "wasi_snapshot_preview1";
        let memory = |caller: &mut $caller| {
            let memory = caller.get_export("memory");
            memory.and_then(|memory| memory.into_memory())
        };
        for list in ["args", "environ"] {
            $linker.func_wrap(WASI, &format!("{list}_get"), |_: i32, _: i32| 0)?;
            $linker.func_wrap(
                WASI,
                &format!("{list}_sizes_get"),
                move |mut caller: $caller, count: i32, bytes: i32| -> i32 {
                    let Some(memory) = memory(&mut caller) else {
                        return BAD_ADDRESS;
                    };
                    let memory = memory.data_mut(&mut caller);
                    let put = [count, bytes].map(|at| put(memory, at, &[0; 4]));
                    if put.iter().all(Option::is_some) {
                        0
                    } else {
                        BAD_ADDRESS
                    }
                },
            )?;
        }
        // It is called when a checksum is wrong, and what follows it is `unreachable`.
        $linker.func_wrap(WASI, "proc_exit", |_: i32| ())?;
        $linker.func_wrap(
            WASI,
            "clock_time_get",
            move |mut caller: $caller, _: i32, _: i64, time: i32| -> i32 {
                let Some(memory) = memory(&mut caller) else {
                    return BAD_ADDRESS;
                };
                let put = put(memory.data_mut(&mut caller), time, &[0; 8]);
                put.map_or(BAD_ADDRESS, |()| 0)
            },
        )?;
        $linker.func_wrap(
            WASI,
            "fd_write",
            move |mut caller: $caller, _: i32, vectors: i32, count: i32, written: i32| -> i32 {
                let Some(memory) = memory(&mut caller) else {
                    return BAD_ADDRESS;
                };
                let (memory, sum) = memory.data_and_store_mut(&mut caller);
                let printed = print(memory, vectors, count, written, sum);
                printed.map_or(BAD_ADDRESS, |()| 0)
            },
        )?;
    };
}

/// `errno::fault`.
const BAD_ADDRESS: i32 = 21;

fn put(memory: &mut [u8], at: i32, bytes: &[u8]) -> Option<()> {
    let at = at as u32 as usize;
    memory.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
    Some(())
}

fn word(memory: &[u8], at: u32) -> Option<u32> {
    let bytes = memory.get(at as usize..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

/// Adds what a program prints to a checksum (FNV-1a).
fn print(memory: &mut [u8], vectors: i32, count: i32, written: i32, sum: &mut i64) -> Option<()> {
    let mut total = 0_u32;
    for vector in 0..count as u32 {
        let at = (vectors as u32).checked_add(vector.checked_mul(8)?)?;
        let (start, len) = (word(memory, at)?, word(memory, at.checked_add(4)?)?);
        let bytes = memory.get(start as usize..)?.get(..len as usize)?;
        for byte in bytes {
            *sum = (*sum ^ i64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        total = total.checked_add(len)?;
    }
    put(memory, written, &total.to_le_bytes())
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

fn measure(name: &'static str, plain: &[u8], rounds: u32) -> Result<Row> {
    let rewritten = instrument(plain)?;
    if let Ok(directory) = std::env::var("MIELIN_KEEP_MODULES") {
        std::fs::write(Path::new(&directory).join(format!("{name}.wasm")), plain)?;
        std::fs::write(
            Path::new(&directory).join(format!("{name}.rewritten.wasm")),
            rewritten.bytes(),
        )?;
    }
    let (slow, fast) = on_wasmtime(plain, rewritten.bytes(), rounds)?;
    let (wasmi_slow, wasmi_fast) = on_wasmi(plain, rewritten.bytes(), rounds.div_ceil(6))?;
    Ok(Row {
        name,
        plain_ms: fast * 1e3,
        wasmtime: slow / fast,
        wasmi: wasmi_slow / wasmi_fast,
        size: rewritten.bytes().len() as f64 / plain.len() as f64,
    })
}

/// Seconds for which this thread has run on a processor: less than the time that passes where others
/// want the processor, too.
fn processor_time() -> Result<f64> {
    let clock = ThreadClock::of_this_thread().ok_or("threads have no clock here")?;
    let now = clock.now().ok_or("the thread's clock cannot be read")?;
    Ok(now.as_secs_f64())
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
    use wasmtime::{Caller, Config, Engine, Linker, Module, OptLevel, Store};
    let mut config = Config::new();
    config.cranelift_opt_level(OptLevel::Speed);
    config.wasm_multi_memory(true);
    config.memory_may_move(false);
    config.wasm_branch_hinting(true);
    let engine = Engine::new(&config)?;
    let mut linker = Linker::new(&engine);
    link_host!(linker, Caller<'_, i64>);
    let run = |module: &Module, entry: &str| -> Result<(f64, i64)> {
        let mut store = Store::new(&engine, 0);
        let instance = linker.instantiate(&mut store, module)?;
        let entry = instance.get_typed_func::<(), ()>(&mut store, entry)?;
        let start = processor_time()?;
        entry.call(&mut store, ())?;
        let time = processor_time()? - start;
        match instance.get_func(&mut store, "result") {
            Some(result) => {
                let result = result.typed::<(), i64>(&store)?;
                Ok((time, result.call(&mut store, ())?))
            }
            None => Ok((time, *store.data())),
        }
    };
    // As nodes compile them for this engine, and for no other.
    let (plain, rewritten) = (
        Module::new(&engine, canonical_nans(plain)?)?,
        Module::new(&engine, canonical_nans(rewritten)?)?,
    );
    interleave(
        rounds,
        || run(&rewritten, abi::ENTRY),
        || run(&plain, "_start"),
    )
}

fn on_wasmi(plain: &[u8], rewritten: &[u8], rounds: u32) -> Result<(f64, f64)> {
    use wasmi::{Caller, Config, Engine, Linker, Module, Store};
    let mut config = Config::default();
    config.wasm_multi_memory(true);
    let engine = Engine::new(&config);
    let mut linker = Linker::new(&engine);
    link_host!(linker, Caller<'_, i64>);
    let run = |module: &Module, entry: &str| -> Result<(f64, i64)> {
        let mut store = Store::new(&engine, 0);
        let instance = linker.instantiate_and_start(&mut store, module)?;
        let entry = instance.get_typed_func::<(), ()>(&store, entry)?;
        let start = processor_time()?;
        entry.call(&mut store, ())?;
        let time = processor_time()? - start;
        match instance.get_func(&store, "result") {
            Some(result) => {
                let result = result.typed::<(), i64>(&store)?;
                Ok((time, result.call(&mut store, ())?))
            }
            None => Ok((time, *store.data())),
        }
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

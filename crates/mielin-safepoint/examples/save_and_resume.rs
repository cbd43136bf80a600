//! Saves a running WebAssembly program to a file and resumes it, with wasmtime and nothing of ours but
//! `mielin-safepoint`.
//!
//! ```text
//! cargo run -p mielin-safepoint --example save_and_resume                      # both, in one process
//! cargo run -p mielin-safepoint --example save_and_resume -- --save FILE      # stops in the middle
//! cargo run -p mielin-safepoint --example save_and_resume -- --resume FILE    # goes on in another process
//! ```
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs;

use mielin_safepoint::{
    Execution, Frames, GlobalValue, Resumable, Snapshot, SnapshotLimits, abi, instrument,
};
use wasmtime::{Caller, Engine, Extern, Instance, Linker, Module, Store, Val};

/// Prints the numbers whose Collatz sequence is longer than that of every smaller one. Nothing in it knows that it can
/// be stopped: any module will do.
const PROGRAM: &str = r#"(module
  (import "env" "print" (func $print (param i64)))
  (global $longest (mut i64) (i64.const 0))
  (memory (export "memory") 1)
  (func $length (param $n i64) (result i64)
    (if (i64.le_u (local.get $n) (i64.const 1)) (then (return (i64.const 1))))
    (i64.add (i64.const 1) (call $length
      (if (result i64) (i64.eqz (i64.and (local.get $n) (i64.const 1)))
        (then (i64.shr_u (local.get $n) (i64.const 1)))
        (else (i64.add (i64.mul (local.get $n) (i64.const 3)) (i64.const 1)))))))
  (func (export "_start") (local $n i64) (local $length i64)
    (loop $next
      (local.set $n (i64.add (local.get $n) (i64.const 1)))
      (local.set $length (call $length (local.get $n)))
      (if (i64.gt_u (local.get $length) (global.get $longest))
        (then
          (global.set $longest (local.get $length))
          (i64.store (i32.const 0) (local.get $n))
          (call $print (i64.load (i32.const 0)))))
      (br_if $next (i64.lt_u (local.get $n) (i64.const 30000))))))"#;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What the host function needs to know.
struct Host {
    printed: Vec<i64>,
    /// How many numbers may be printed before the program is stopped.
    stop_after: usize,
}

/// How a run ended.
enum End {
    Finished,
    Stopped(Snapshot),
}

/// A new engine, store and instance each time: nothing but the snapshot connects two runs.
fn run(saved: Option<&Snapshot>, stop_after: usize) -> Result<(Vec<i64>, End)> {
    let program = instrument(&wat::parse_str(PROGRAM)?)?;
    // Of programs with floating-point numbers that go to other machines, compile what `mielin_safepoint::canonical_nans` gives.
    let engine = Engine::default();
    let module = Module::new(&engine, program.bytes())?;
    let mut linker = Linker::new(&engine);
    linker.func_wrap("env", "print", print)?;
    let host = Host {
        printed: Vec::new(),
        stop_after,
    };
    let mut store = Store::new(&engine, host);
    let instance = linker.instantiate(&mut store, &module)?;

    if let Some(saved) = saved {
        restore(&mut store, instance, &program, saved)?;
    }
    let entry = instance.get_typed_func::<(), ()>(&mut store, abi::ENTRY)?;
    entry.call(&mut store, ())?;
    let mode = global(&mut store, instance, abi::MODE)?;
    let end = match mode.get(&mut store) {
        Val::I32(abi::UNWINDING) => End::Stopped(save(&mut store, instance, &program)?),
        _ => End::Finished,
    };
    Ok((store.into_data().printed, end))
}

/// The program's import, which also decides when to stop. To stop it at any time, from any thread, do the same in
/// wasmtime's `Store::epoch_deadline_callback`, and call `Engine::increment_epoch`.
fn print(mut caller: Caller<'_, Host>, number: i64) -> wasmtime::Result<()> {
    println!("{number}");
    let host = caller.data_mut();
    host.printed.push(number);
    if host.printed.len() == host.stop_after {
        let frames = caller.get_export(abi::FRAMES).and_then(Extern::into_memory);
        let frames = frames.expect("every rewritten module exports it");
        Frames::new(frames.data_mut(&mut caller))?.request_stop();
    }
    Ok(())
}

/// Everything that a stopped program is: memory, globals and frames.
fn save(store: &mut Store<Host>, instance: Instance, program: &Resumable) -> Result<Snapshot> {
    let frames = Frames::new(memory(store, instance, abi::FRAMES)?)?.unwound()?;
    let mut globals = Vec::new();
    for info in &program.manifest().globals {
        globals.push(
            match global(store, instance, &info.export)?.get(&mut *store) {
                Val::I32(value) => GlobalValue::I32(value),
                Val::I64(value) => GlobalValue::I64(value),
                Val::F32(bits) => GlobalValue::F32(bits),
                Val::F64(bits) => GlobalValue::F64(bits),
                Val::V128(value) => GlobalValue::V128(value.as_u128()),
                _ => return Err("no rewritten module has a mutable reference".into()),
            },
        );
    }
    let memory = memory(store, instance, &program.manifest().memory.export)?;
    Ok(Snapshot::of(
        program.hash(),
        memory,
        Execution { globals, frames },
    ))
}

/// Makes a fresh instance what was saved, so that the next call goes on from there.
fn restore(
    store: &mut Store<Host>,
    instance: Instance,
    program: &Resumable,
    saved: &Snapshot,
) -> Result<()> {
    if saved.module != program.hash() {
        return Err("this is another program's snapshot".into());
    }
    let name = &program.manifest().memory.export;
    let size = memory(store, instance, name)?.len() as u64;
    let missing = saved.memory_bytes.saturating_sub(size);
    let grown = instance.get_memory(&mut *store, name).ok_or("no memory")?;
    grown.grow(&mut *store, missing / 65536)?;
    saved.write_memory(memory(store, instance, name)?)?;
    for (info, value) in program.manifest().globals.iter().zip(&saved.globals) {
        let value = match *value {
            GlobalValue::I32(value) => Val::I32(value),
            GlobalValue::I64(value) => Val::I64(value),
            GlobalValue::F32(bits) => Val::F32(bits),
            GlobalValue::F64(bits) => Val::F64(bits),
            GlobalValue::V128(value) => Val::V128(value.into()),
        };
        global(store, instance, &info.export)?.set(&mut *store, value)?;
    }
    Frames::new(memory(store, instance, abi::FRAMES)?)?.rewind(&saved.frames)?;
    global(store, instance, abi::MODE)?.set(&mut *store, Val::I32(abi::REWINDING))?;
    Ok(())
}

fn memory<'s>(store: &'s mut Store<Host>, instance: Instance, name: &str) -> Result<&'s mut [u8]> {
    let memory = instance.get_memory(&mut *store, name);
    Ok(memory.ok_or("no such memory")?.data_mut(store))
}

fn global(store: &mut Store<Host>, instance: Instance, name: &str) -> Result<wasmtime::Global> {
    Ok(instance
        .get_global(&mut *store, name)
        .ok_or("no such global")?)
}

/// Runs until twenty numbers are printed, and writes a snapshot.
fn save_to(file: &str) -> Result<Vec<i64>> {
    match run(None, 20)? {
        (printed, End::Stopped(snapshot)) => {
            fs::write(file, snapshot.encode())?;
            Ok(printed)
        }
        (_, End::Finished) => Err("it ended before it could be stopped".into()),
    }
}

/// Goes on from a snapshot to the program's end.
fn resume_from(file: &str) -> Result<Vec<i64>> {
    let snapshot = Snapshot::decode(&fs::read(file)?, &SnapshotLimits::default())?;
    Ok(run(Some(&snapshot), usize::MAX)?.0)
}

/// Whether a program that was saved and resumed prints what one prints that was not.
fn both() -> Result<()> {
    let file = std::env::temp_dir().join(format!("save-and-resume-{}", std::process::id()));
    let file = file.to_str().ok_or("the name of the folder is not text")?;
    let mut printed = save_to(file)?;
    println!("-- saved to {file}, and resumed:");
    printed.extend(resume_from(file)?);
    fs::remove_file(file)?;
    println!("-- the same without a stop:");
    let (uninterrupted, _) = run(None, usize::MAX)?;
    if printed != uninterrupted {
        return Err("it did not go on as it would have".into());
    }
    println!("-- equal");
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => both(),
        ["--save", file] => save_to(file).map(drop),
        ["--resume", file] => resume_from(file).map(drop),
        _ => Err("nothing, --save FILE or --resume FILE".into()),
    }
}

#[test]
fn a_program_goes_on_as_if_it_had_not_been_stopped() {
    both().expect("what is printed is equal");
}

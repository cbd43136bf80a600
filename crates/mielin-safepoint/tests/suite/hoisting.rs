//! A compiler that moves the poll out of a loop makes a program that cannot be stopped.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use mielin_safepoint::{abi, instrument};

use super::hosts::wasmtime_engine;

/// Loops without any store, behind polls that dominate them.
const STORE_FREE: &str = r#"(module
  (memory (export "memory") 1)
  (func $spin (param $n i32) (local $i i32)
    (loop $outer
      (local.set $i (i32.const 1000))
      (loop $inner
        (br_if $inner (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
      (loop $forever
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $forever))
      (br $outer)))
  (func (export "_start") (call $spin (i32.const 1))))"#;

#[test]
fn a_store_free_endless_loop_stops_on_wasmtime() {
    use wasmtime::{Instance, Module, Store};
    let program = instrument(&wat::parse_str(STORE_FREE).unwrap()).unwrap();
    let module = Module::new(wasmtime_engine(), program.bytes()).unwrap();
    let mut store = Store::new(wasmtime_engine(), ());
    let instance = Instance::new(&mut store, &module, &[]).unwrap();
    let frames = instance.get_memory(&mut store, abi::FRAMES).unwrap();
    let entry = instance
        .get_typed_func::<(), ()>(&mut store, abi::ENTRY)
        .unwrap();
    let mode = instance.get_global(&mut store, abi::MODE).unwrap();
    let flag = frames.data_ptr(&store) as usize;
    for _ in 0..3 {
        let runner = std::thread::scope(|scope| {
            let runner = scope.spawn(|| entry.call(&mut store, ()));
            stop(flag, || runner.is_finished());
            runner.join().unwrap()
        });
        runner.unwrap();
        assert_eq!(mode.get(&mut store).i32(), Some(abi::UNWINDING));
        let rewinding = abi::REWINDING.to_le_bytes();
        frames.data_mut(&mut store)[..4].copy_from_slice(&rewinding);
        mode.set(&mut store, wasmtime::Val::I32(abi::REWINDING))
            .unwrap();
    }
}

#[test]
fn a_store_free_endless_loop_stops_on_wasmi() {
    use wasmi::{Config, Engine, Linker, Module, Store, Val};
    let program = instrument(&wat::parse_str(STORE_FREE).unwrap()).unwrap();
    let mut config = Config::default();
    config.wasm_multi_memory(true);
    let engine = Engine::new(&config);
    let module = Module::new(&engine, program.bytes()).unwrap();
    let mut store = Store::new(&engine, ());
    let instance = Linker::new(&engine)
        .instantiate_and_start(&mut store, &module)
        .unwrap();
    let frames = instance.get_memory(&store, abi::FRAMES).unwrap();
    let entry = instance
        .get_typed_func::<(), ()>(&store, abi::ENTRY)
        .unwrap();
    let mode = instance.get_global(&store, abi::MODE).unwrap();
    let flag = frames.data_ptr(&store) as usize;
    for _ in 0..3 {
        let runner = std::thread::scope(|scope| {
            let runner = scope.spawn(|| entry.call(&mut store, ()));
            stop(flag, || runner.is_finished());
            runner.join().unwrap()
        });
        runner.unwrap();
        assert_eq!(mode.get(&store).i32(), Some(abi::UNWINDING));
        frames.data_mut(&mut store)[..4].copy_from_slice(&abi::REWINDING.to_le_bytes());
        mode.set(&mut store, Val::I32(abi::REWINDING)).unwrap();
    }
}

/// Asks the program behind the flag to stop and waits until it has.
#[allow(unsafe_code)]
fn stop(flag: usize, stopped: impl Fn() -> bool) {
    // SAFETY: the flag is an aligned word in a memory that neither moves nor is freed while the
    // caller's store lives; the program writes it from compiled code only.
    let flag = unsafe { &*(flag as *const AtomicI32) };
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut spins = 0_u64;
    loop {
        let order = Ordering::SeqCst;
        // Let it get into its loops first: the first requests come late.
        spins += 1;
        if spins > 2_000_000
            && flag
                .compare_exchange(abi::RUNNING, abi::STOP_REQUESTED, order, order)
                .is_ok()
        {
            break;
        }
        assert!(Instant::now() < deadline, "the program never ran");
    }
    while !stopped() {
        assert!(Instant::now() < deadline, "the program does not stop");
        std::thread::yield_now();
    }
}

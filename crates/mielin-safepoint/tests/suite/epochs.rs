//! Stopping by wasmtime's epochs, for hosts that have no unsafe code to reach the flag from another thread.

use mielin_safepoint::{Frames, abi, instrument};
use wasmtime::{Config, Engine, Linker, Memory, Module, Store, UpdateDeadline, Val};

#[test]
fn another_thread_stops_an_endless_loop_by_an_epoch() {
    let wasm =
        r#"(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))"#;
    let program = instrument(&wat::parse_str(wasm).unwrap()).unwrap();
    let mut config = Config::new();
    config.epoch_interruption(true);
    let engine = Engine::new(&config).unwrap();
    let module = Module::new(&engine, program.bytes()).unwrap();
    let mut store: Store<Option<Memory>> = Store::new(&engine, None);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut store| {
        let frames = store.data().unwrap();
        Frames::new(frames.data_mut(&mut store))?.request_stop();
        Ok(UpdateDeadline::Continue(1))
    });
    let linker: Linker<Option<Memory>> = Linker::new(&engine);
    let instance = linker.instantiate(&mut store, &module).unwrap();
    *store.data_mut() = instance.get_memory(&mut store, abi::FRAMES);
    let entry = instance
        .get_typed_func::<(), ()>(&mut store, abi::ENTRY)
        .unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| engine.increment_epoch());
        entry.call(&mut store, ()).unwrap();
    });
    let mode = instance.get_global(&mut store, abi::MODE).unwrap();
    assert!(matches!(mode.get(&mut store), Val::I32(abi::UNWINDING)));
    let frames = instance.get_memory(&mut store, abi::FRAMES).unwrap();
    let frames = Frames::new(frames.data_mut(&mut store)).unwrap().unwound();
    assert!(!frames.unwrap().is_empty());
}

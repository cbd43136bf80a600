//! The engine wasmtime: native code by Cranelift.
//!
//! The configuration serves three needs beyond speed. Results are the same on every machine: NaNs
//! are canonical, relaxed SIMD is off, threads too. Memories never move, so that the poll word and
//! dirty tracking keep their addresses: each has its whole address range reserved. And nothing but
//! the polls stops a program: neither fuel nor epochs.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::Arc;

use ::wasmtime::{
    Caller, Config, Error, Global, InstancePre, Linker, Memory, Module, OptLevel, ResourceLimiter,
    Store, TypedFunc, Val,
};
use mielin_safepoint::{GlobalValue, Resumable, abi};

use crate::cache::Cache;
use crate::dirty::RegionOwner;
use crate::host::table::host_functions;
use crate::host::{self, Call, Context, Exit, Reply};
use crate::limits::WASM_STACK_BYTES;
use crate::poll_word::{Frames, StopHandle};
use crate::program::{self, Failure, Growth, Machine, Program};
use crate::{
    Engine, EngineError, EngineKind, HostState, Instance, Limits, Prepared, Services, imports,
};

/// Address space of each memory: all that a 32-bit memory can become.
const RESERVATION_BYTES: u64 = 4 << 30;

/// Frames of the program's native stack that a trap's message may name.
const BACKTRACE_FRAMES: Option<NonZeroUsize> = NonZeroUsize::new(8);

pub(crate) struct Wasmtime {
    engine: ::wasmtime::Engine,
    linker: Linker<Data>,
    cache: Cache,
}

struct Data {
    context: Context,
    growth: Growth,
    /// None until the instance is made.
    parts: Option<Parts>,
}

struct Parts {
    memory: Option<Memory>,
    mode: Global,
    stop: StopHandle,
}

impl Wasmtime {
    pub(crate) fn new() -> Result<Self, Error> {
        let mut config = Config::new();
        config
            .cranelift_opt_level(OptLevel::Speed)
            .cranelift_nan_canonicalization(true)
            .wasm_multi_memory(true)
            .wasm_bulk_memory(true)
            .wasm_multi_value(true)
            .wasm_simd(true)
            .wasm_relaxed_simd(false)
            .wasm_memory64(false)
            .wasm_tail_call(false)
            // The rewriter marks its polls' ways out as cold.
            .wasm_branch_hinting(true)
            .max_wasm_stack(WASM_STACK_BYTES)
            .memory_reservation(RESERVATION_BYTES)
            .memory_may_move(false)
            .memory_init_cow(false)
            .wasm_backtrace_max_frames(BACKTRACE_FRAMES);
        let engine = ::wasmtime::Engine::new(&config)?;
        let linker = linker(&engine)?;
        Ok(Self {
            engine,
            linker,
            cache: Cache::default(),
        })
    }

    fn compile(&self, module: &Resumable) -> Result<Arc<dyn Prepared>, EngineError> {
        imports::check(module)?;
        let compiled = Module::new(&self.engine, module.bytes()).map_err(refused)?;
        let instance = self.linker.instantiate_pre(&compiled).map_err(refused)?;
        Ok(Arc::new(Compiled {
            module: Arc::new(module.clone()),
            instance,
        }))
    }
}

fn refused(error: Error) -> EngineError {
    EngineError::Refused {
        engine: EngineKind::Wasmtime,
        reason: format!("{error:#}"),
    }
}

fn missing(name: &str) -> EngineError {
    EngineError::Shape {
        reason: format!("it does not export {name} as it should"),
    }
}

fn linker(engine: &::wasmtime::Engine) -> Result<Linker<Data>, Error> {
    use host::{mielin, wasi};
    let mut linker = Linker::new(engine);
    macro_rules! link {
        ($($module:literal $name:literal ($($argument:ident: $ty:tt),*) -> $result:tt = $body:expr;)*) => {$(
            linker.func_wrap($module, $name, |caller: Caller<'_, Data>, $($argument: $ty),*| -> Result<$result, Error> {
                host_call(caller, $body)
            })?;
        )*};
    }
    host_functions!(link);
    Ok(linker)
}

fn host_call<R: Reply>(
    mut caller: Caller<'_, Data>,
    body: impl FnOnce(&mut Call<'_>) -> R,
) -> Result<R::Wasm, Error> {
    let Some(Parts { memory, mode, .. }) = &caller.data().parts else {
        return Err(Error::new(Exit::TooEarly));
    };
    let (memory, mode) = (*memory, *mode);
    let (bytes, data) = match memory {
        Some(memory) => memory.data_and_store_mut(&mut caller),
        None => (&mut [][..], caller.data_mut()),
    };
    let (reply, suspended) = data.context.call(bytes, body);
    if suspended {
        mode.set(&mut caller, Val::I32(abi::UNWINDING))?;
        if let Some(parts) = &caller.data().parts {
            parts.stop.unwind();
        }
    }
    reply.map_err(Error::new)
}

impl Engine for Wasmtime {
    fn kind(&self) -> EngineKind {
        EngineKind::Wasmtime
    }

    fn prepare(&self, module: &Resumable) -> Result<Arc<dyn Prepared>, EngineError> {
        self.cache.prepared(module, || self.compile(module))
    }
}

struct Compiled {
    module: Arc<Resumable>,
    instance: InstancePre<Data>,
}

impl Prepared for Compiled {
    fn module(&self) -> &Resumable {
        &self.module
    }

    fn instantiate(
        &self,
        host: HostState,
        services: Arc<dyn Services>,
        limits: &Limits,
    ) -> Result<Box<dyn Instance>, EngineError> {
        program::check_limits(&self.module, &host, limits)?;
        let context = program::context(host, services, limits);
        let growth = Growth {
            table_elements: limits.table_elements,
            ..Growth::default()
        };
        let data = Data {
            context,
            growth,
            parts: None,
        };
        let mut store = Store::new(self.instance.module().engine(), data);
        store.limiter(|data| &mut data.growth);
        let instance = self.instance.instantiate(&mut store).map_err(refused)?;

        let manifest = self.module.manifest();
        let entry = instance
            .get_typed_func::<(), ()>(&mut store, abi::ENTRY)
            .map_err(|_| missing(abi::ENTRY))?;
        let mode = instance
            .get_global(&mut store, abi::MODE)
            .ok_or_else(|| missing(abi::MODE))?;
        let frames = instance
            .get_memory(&mut store, abi::FRAMES)
            .ok_or_else(|| missing(abi::FRAMES))?;
        let memory = instance.get_memory(&mut store, &manifest.memory.export);
        let globals = manifest.globals.iter().map(|info| {
            instance
                .get_global(&mut store, &info.export)
                .ok_or_else(|| missing(&info.export))
        });
        let globals = globals.collect::<Result<Vec<_>, _>>()?;

        let frames = Frames::of_wasmtime(&frames, &store).ok_or_else(|| missing(abi::FRAMES))?;
        let region = memory.and_then(|memory| {
            let base = NonNull::new(memory.data_ptr(&store))?;
            let most = RESERVATION_BYTES.min(limits.memory_bytes);
            Some(RegionOwner::new(
                base,
                memory.data_size(&store) as u64,
                most,
            ))
        });
        let data = store.data_mut();
        data.growth.memory_bytes = Some(limits.memory_bytes);
        data.growth.region = region.as_ref().map(RegionOwner::size);
        data.parts = Some(Parts {
            memory,
            mode,
            stop: frames.stop_handle(),
        });
        let machine = Running {
            store,
            entry,
            mode,
            memory,
            globals,
        };
        Ok(Box::new(Program::new(
            Arc::clone(&self.module),
            machine,
            frames,
            region,
        )))
    }
}

struct Running {
    store: Store<Data>,
    entry: TypedFunc<(), ()>,
    mode: Global,
    memory: Option<Memory>,
    globals: Vec<Global>,
}

impl Machine for Running {
    fn enter(&mut self) -> Result<(), Failure> {
        self.entry
            .call(&mut self.store, ())
            .map_err(|error| Failure::of(error.downcast_ref::<Exit>(), || format!("{error:#}")))
    }

    fn mode(&mut self) -> i32 {
        self.mode.get(&mut self.store).i32().unwrap_or(abi::RUNNING)
    }

    fn set_mode(&mut self, mode: i32) {
        let set = self.mode.set(&mut self.store, Val::I32(mode));
        debug_assert!(set.is_ok(), "the mode is a mutable i32");
    }

    fn context(&self) -> &Context {
        &self.store.data().context
    }

    fn context_mut(&mut self) -> &mut Context {
        &mut self.store.data_mut().context
    }

    fn memory(&self) -> &[u8] {
        self.memory.map_or(&[], |memory| memory.data(&self.store))
    }

    fn memory_mut(&mut self) -> &mut [u8] {
        match self.memory {
            Some(memory) => memory.data_mut(&mut self.store),
            None => &mut [],
        }
    }

    fn grow(&mut self, wasm_pages: u64) -> bool {
        self.memory
            .is_some_and(|memory| memory.grow(&mut self.store, wasm_pages).is_ok())
    }

    fn globals(&mut self) -> Vec<GlobalValue> {
        let Self { globals, store, .. } = self;
        globals
            .iter()
            .filter_map(|global| to_value(global.get(&mut *store)))
            .collect()
    }

    fn set_globals(&mut self, values: &[GlobalValue]) {
        for (global, value) in self.globals.iter().zip(values) {
            let set = global.set(&mut self.store, from_value(value));
            debug_assert!(set.is_ok(), "number and types were checked");
        }
    }
}

/// None for references, which the manifest does not list.
fn to_value(value: Val) -> Option<GlobalValue> {
    Some(match value {
        Val::I32(value) => GlobalValue::I32(value),
        Val::I64(value) => GlobalValue::I64(value),
        Val::F32(bits) => GlobalValue::F32(bits),
        Val::F64(bits) => GlobalValue::F64(bits),
        Val::V128(value) => GlobalValue::V128(value.into()),
        _ => return None,
    })
}

fn from_value(value: &GlobalValue) -> Val {
    match *value {
        GlobalValue::I32(value) => Val::I32(value),
        GlobalValue::I64(value) => Val::I64(value),
        GlobalValue::F32(bits) => Val::F32(bits),
        GlobalValue::F64(bits) => Val::F64(bits),
        GlobalValue::V128(value) => Val::V128(value.into()),
    }
}

impl ResourceLimiter for Growth {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, Error> {
        Ok(maximum.is_none_or(|maximum| desired <= maximum) && self.memory(desired))
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, Error> {
        Ok(maximum.is_none_or(|maximum| desired <= maximum) && self.table(desired))
    }
}

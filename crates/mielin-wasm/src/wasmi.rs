//! The engine wasmi: an interpreter, small and the same everywhere.
//!
//! Its NaNs are the machine's: where a program looks at the bits of a NaN that it computed, wasmi
//! can differ from wasmtime, and between architectures; everything else is the same.

use std::sync::Arc;

use ::wasmi::errors::HostError;
use ::wasmi::{
    Caller, CompilationMode, Config, Error, F32, F64, Global, Instance as WasmiInstance, Linker,
    Memory, Module, Store, StoreLimits, StoreLimitsBuilder, TypedFunc, V128, Val,
};
use mielin_safepoint::{GlobalValue, Resumable, abi};

use crate::cache::Cache;
use crate::host::table::host_functions;
use crate::host::{self, Call, Context, Exit, Reply};
use crate::poll_word::{Frames, StopHandle};
use crate::program::{self, Failure, Machine, Program};
use crate::{
    Engine, EngineError, EngineKind, HostState, Instance, Limits, Prepared, Services, imports,
};

/// As deep as a program can get on [`WASM_STACK_BYTES`](crate::WASM_STACK_BYTES) of native stack
/// with the smallest frames, so that what ran on wasmtime can go on here.
const RECURSION_MAX: usize = 1 << 15;

/// The interpreter's own stack, which it allocates as it is needed.
const STACK_BYTES_MAX: usize = 8 << 20;

pub(crate) struct Wasmi {
    engine: ::wasmi::Engine,
    linker: Arc<Linker<Data>>,
    cache: Cache,
}

struct Data {
    context: Context,
    limits: StoreLimits,
    /// None until the instance is made.
    parts: Option<Parts>,
}

struct Parts {
    memory: Option<Memory>,
    mode: Global,
    stop: StopHandle,
}

impl HostError for Exit {}

impl Wasmi {
    pub(crate) fn new() -> Self {
        let mut config = Config::default();
        config
            .set_max_recursion_depth(RECURSION_MAX)
            .set_max_stack_height(STACK_BYTES_MAX)
            .wasm_multi_memory(true)
            .wasm_bulk_memory(true)
            .wasm_multi_value(true)
            .wasm_reference_types(true)
            .wasm_simd(true)
            .wasm_relaxed_simd(false)
            .wasm_tail_call(false)
            .wasm_wide_arithmetic(false)
            .wasm_custom_page_sizes(false)
            .allow_start_fn(false)
            .compilation_mode(CompilationMode::LazyTranslation);
        let engine = ::wasmi::Engine::new(&config);
        let linker = linker(&engine).expect("the host functions have different names");
        Self {
            engine,
            linker: Arc::new(linker),
            cache: Cache::default(),
        }
    }

    fn compile(&self, module: &Resumable) -> Result<Arc<dyn Prepared>, EngineError> {
        imports::check(module)?;
        let compiled = Module::new(&self.engine, module.bytes()).map_err(refused)?;
        let linker = Arc::clone(&self.linker);
        Ok(Arc::new(Compiled {
            module: Arc::new(module.clone()),
            compiled,
            linker,
        }))
    }
}

fn refused(error: Error) -> EngineError {
    EngineError::Refused {
        engine: EngineKind::Wasmi,
        reason: error.to_string(),
    }
}

fn missing(name: &str) -> EngineError {
    EngineError::Shape {
        reason: format!("it does not export {name} as it should"),
    }
}

fn linker(engine: &::wasmi::Engine) -> Result<Linker<Data>, Error> {
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
        return Err(Error::host(Exit::TooEarly));
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
    reply.map_err(Error::host)
}

impl Engine for Wasmi {
    fn kind(&self) -> EngineKind {
        EngineKind::Wasmi
    }

    fn prepare(&self, module: &Resumable) -> Result<Arc<dyn Prepared>, EngineError> {
        self.cache.prepared(module, || self.compile(module))
    }
}

struct Compiled {
    module: Arc<Resumable>,
    compiled: Module,
    linker: Arc<Linker<Data>>,
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
        // The memories that the module declares were checked; how far they may grow is set once
        // they are there.
        let tables = StoreLimitsBuilder::new().table_elements(limits.table_elements);
        let data = Data {
            context,
            limits: tables.build(),
            parts: None,
        };
        let mut store = Store::new(self.compiled.engine(), data);
        store.limiter(|data| &mut data.limits);
        let instance = self
            .linker
            .instantiate_and_start(&mut store, &self.compiled)
            .map_err(refused)?;
        let machine = Running::new(store, &instance, &self.module)?;
        let frames = instance.get_memory(&machine.store, abi::FRAMES);
        let frames = frames.and_then(|frames| Frames::of_wasmi(&frames, &machine.store));
        let frames = frames.ok_or_else(|| missing(abi::FRAMES))?;
        let Running {
            mut store,
            entry,
            mode,
            memory,
            globals,
        } = machine;
        let data = store.data_mut();
        data.limits = StoreLimitsBuilder::new()
            .memory_size(usize::try_from(limits.memory_bytes).unwrap_or(usize::MAX))
            .table_elements(limits.table_elements)
            .build();
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
        // Its memories move when they grow, so there is no region.
        Ok(Box::new(Program::new(
            Arc::clone(&self.module),
            machine,
            frames,
            None,
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

impl Running {
    fn new(
        store: Store<Data>,
        instance: &WasmiInstance,
        module: &Resumable,
    ) -> Result<Self, EngineError> {
        let manifest = module.manifest();
        let entry = instance
            .get_typed_func::<(), ()>(&store, abi::ENTRY)
            .map_err(|_| missing(abi::ENTRY))?;
        let mode = instance
            .get_global(&store, abi::MODE)
            .ok_or_else(|| missing(abi::MODE))?;
        let memory = instance.get_memory(&store, &manifest.memory.export);
        let globals = manifest.globals.iter().map(|info| {
            instance
                .get_global(&store, &info.export)
                .ok_or_else(|| missing(&info.export))
        });
        let globals = globals.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            store,
            entry,
            mode,
            memory,
            globals,
        })
    }
}

impl Machine for Running {
    fn enter(&mut self) -> Result<(), Failure> {
        self.entry
            .call(&mut self.store, ())
            .map_err(|error| Failure::of(error.downcast_ref::<Exit>(), || error.to_string()))
    }

    fn mode(&mut self) -> i32 {
        match self.mode.get(&self.store) {
            Val::I32(mode) => mode,
            _ => abi::RUNNING,
        }
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
        self.globals
            .iter()
            .filter_map(|global| to_value(global.get(&self.store)))
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
        Val::F32(value) => GlobalValue::F32(value.to_bits()),
        Val::F64(value) => GlobalValue::F64(value.to_bits()),
        Val::V128(value) => GlobalValue::V128(value.as_u128()),
        Val::FuncRef(_) | Val::ExternRef(_) => return None,
    })
}

fn from_value(value: &GlobalValue) -> Val {
    match *value {
        GlobalValue::I32(value) => Val::I32(value),
        GlobalValue::I64(value) => Val::I64(value),
        GlobalValue::F32(bits) => Val::F32(F32::from_bits(bits)),
        GlobalValue::F64(bits) => Val::F64(F64::from_bits(bits)),
        GlobalValue::V128(value) => Val::V128(V128::from(value)),
    }
}

//! The engine wasmi: an interpreter, small and the same everywhere.
//!
//! It is built with the feature `deterministic`, which makes computed NaNs canonical, as the
//! configuration of wasmtime does.

use alloc::string::ToString;
use alloc::sync::Arc;

use ::wasmi::errors::HostError;
use ::wasmi::{
    Caller, CompilationMode, Config, Error, F32, F64, Global, Instance as WasmiInstance, Linker,
    Memory, Module, Store, StoreLimits, StoreLimitsBuilder, TrapCode, TypedFunc, V128, Val,
};
use mielin_safepoint::{GlobalValue, abi};

use crate::cache::Cache;
use crate::dirty::RegionOwner;
use crate::host::table::host_functions;
use crate::host::{self, Call, Context, Exit, Reply};
use crate::machine::{self, Adapter, Failure, Growth, Machine};
use crate::poll_word::Frames;
use crate::prepared::missing;
use crate::{CodeCache, EngineError, EngineKind, TrapKind};

/// As deep as a program can get on [`WASM_STACK_BYTES`](crate::WASM_STACK_BYTES) of native stack
/// with the smallest frames, so that what ran on wasmtime can go on here.
const RECURSION_MAX: usize = 1 << 15;

/// The interpreter's own stack, which it allocates as it is needed. Machines of 32 bits have not that much memory: what is deeper elsewhere traps there.
const STACK_BYTES_MAX: usize = if usize::BITS > 32 { 8 << 20 } else { 128 << 10 };

pub(crate) struct Wasmi {
    engine: ::wasmi::Engine,
    linker: Arc<Linker<Data>>,
    cache: Cache,
}

type Data = machine::Data<Memory, Global, StoreLimits>;

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
            .wasm_tail_call(true)
            .wasm_wide_arithmetic(false)
            .wasm_custom_page_sizes(false)
            .allow_start_fn(false)
            .compilation_mode(CompilationMode::Eager);
        #[cfg(feature = "simd")]
        config.wasm_simd(true).wasm_relaxed_simd(false);
        let engine = ::wasmi::Engine::new(&config);
        let linker = linker(&engine).expect("the host functions have different names");
        Self {
            engine,
            linker: Arc::new(linker),
            cache: Cache::default(),
        }
    }
}

impl Adapter for Wasmi {
    const KIND: EngineKind = EngineKind::Wasmi;
    type Machine = Running;

    fn compile(&self, wasm: &[u8], _: Option<&CodeCache>) -> Result<Code, EngineError> {
        Ok(Code {
            module: Module::new(&self.engine, wasm).map_err(refused)?,
            linker: Arc::clone(&self.linker),
        })
    }

    fn cache(&self) -> &Cache {
        &self.cache
    }
}

fn refused(error: Error) -> EngineError {
    EngineError::Refused {
        engine: EngineKind::Wasmi,
        reason: error.to_string(),
    }
}

fn linker(engine: &::wasmi::Engine) -> Result<Linker<Data>, Error> {
    #[cfg(feature = "tensor")]
    use host::tensor;
    use host::{device, mielin, wasi};
    let mut linker = Linker::new(engine);
    macro_rules! link {
        ($($(#[$condition:meta])* $module:literal $name:literal ($($argument:ident: $ty:tt),*) -> $result:tt = $body:expr;)*) => {$(
            $(#[$condition])*
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
    body: impl Fn(&mut Call<'_>) -> R,
) -> Result<R::Wasm, Error> {
    let Data { memory, mode, .. } = *caller.data();
    let (bytes, data) = match memory {
        Some(memory) => memory.data_and_store_mut(&mut caller),
        None => (&mut [][..], caller.data_mut()),
    };
    let (reply, unwinds) = data.context.call(bytes, body);
    if let (true, Some(mode)) = (unwinds, mode) {
        mode.set(&mut caller, Val::I32(abi::UNWINDING))?;
    }
    reply.map_err(Error::host)
}

pub(crate) struct Code {
    module: Module,
    linker: Arc<Linker<Data>>,
}

pub(crate) struct Running {
    store: Store<Data>,
    instance: WasmiInstance,
    entry: TypedFunc<(), ()>,
    memory: Option<Memory>,
}

impl Machine for Running {
    type Code = Code;
    type Global = Global;

    fn new(
        code: &Code,
        context: Context,
        growth: Growth,
        entry: &str,
        memory: &str,
    ) -> Result<Self, EngineError> {
        let data = Data {
            context,
            limiter: limiter(&growth),
            memory: None,
            mode: None,
        };
        let mut store = Store::new(code.module.engine(), data);
        store.limiter(|data| &mut data.limiter);
        let instance = code.linker.instantiate_and_start(&mut store, &code.module);
        let instance = instance.map_err(refused)?;
        let memory = instance.get_memory(&store, memory);
        let mode = instance.get_global(&store, abi::MODE);
        let entry = instance
            .get_typed_func(&store, entry)
            .map_err(|_| missing(entry))?;
        let data = store.data_mut();
        (data.memory, data.mode) = (memory, mode);
        Ok(Self {
            store,
            instance,
            entry,
            memory,
        })
    }

    fn enter(&mut self) -> Result<(), Failure> {
        self.entry.call(&mut self.store, ()).map_err(failure)
    }

    fn global(&mut self, name: &str) -> Option<Global> {
        let global = self.instance.get_global(&self.store, name)?;
        to_value(global.get(&self.store)).map(|_| global)
    }

    fn get(&mut self, global: Global) -> GlobalValue {
        to_value(global.get(&self.store)).expect("`global` gives out no references")
    }

    fn set(&mut self, global: Global, value: GlobalValue) {
        let set = global.set(&mut self.store, from_value(value));
        debug_assert!(set.is_ok(), "it is mutable and of this type");
    }

    fn frames(&mut self) -> Option<Frames> {
        let frames = self.instance.get_memory(&self.store, abi::FRAMES)?;
        Frames::of_wasmi(&frames, &self.store)
    }

    fn region(&self, _bytes_max: u64) -> Option<RegionOwner> {
        // Its memories move when they grow.
        None
    }

    fn context(&self) -> &Context {
        &self.store.data().context
    }

    fn context_mut(&mut self) -> &mut Context {
        &mut self.store.data_mut().context
    }

    fn into_context(self) -> Context {
        self.store.into_data().context
    }

    fn bound(&mut self, growth: Growth) {
        self.store.data_mut().limiter = limiter(&growth);
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
}

fn failure(error: Error) -> Failure {
    if let Some(exit) = error.downcast_ref() {
        return Failure::of_exit(exit);
    }
    let kind = match error.as_trap_code() {
        Some(TrapCode::StackOverflow) => TrapKind::StackExhausted,
        Some(TrapCode::MemoryOutOfBounds) => TrapKind::MemoryOutOfBounds,
        Some(TrapCode::TableOutOfBounds) => TrapKind::TableOutOfBounds,
        Some(TrapCode::IndirectCallToNull) => TrapKind::CallToNull,
        Some(TrapCode::BadSignature) => TrapKind::CallTypeMismatch,
        Some(TrapCode::IntegerDivisionByZero) => TrapKind::DivisionByZero,
        Some(TrapCode::IntegerOverflow) => TrapKind::IntegerOverflow,
        Some(TrapCode::BadConversionToInteger) => TrapKind::NanToInteger,
        Some(TrapCode::UnreachableCodeReached) => TrapKind::Unreachable,
        _ => TrapKind::Other(error.to_string()),
    };
    Failure::Trapped(kind.into())
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

fn from_value(value: GlobalValue) -> Val {
    match value {
        GlobalValue::I32(value) => Val::I32(value),
        GlobalValue::I64(value) => Val::I64(value),
        GlobalValue::F32(bits) => Val::F32(F32::from_bits(bits)),
        GlobalValue::F64(bits) => Val::F64(F64::from_bits(bits)),
        GlobalValue::V128(value) => Val::V128(V128::from(value)),
    }
}

/// wasmi's own limiter, since an implementation of its trait cannot name the error type.
fn limiter(growth: &Growth) -> StoreLimits {
    debug_assert!(growth.region.is_none(), "its memories have no fixed place");
    let limits = StoreLimitsBuilder::new().table_elements(growth.table_elements);
    match growth.memory_bytes {
        Some(bytes) => limits.memory_size(usize::try_from(bytes).unwrap_or(usize::MAX)),
        None => limits,
    }
    .build()
}

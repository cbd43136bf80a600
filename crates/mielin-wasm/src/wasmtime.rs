//! The engine wasmtime: native code by Cranelift.
//!
//! The configuration serves three needs beyond speed. Results are the same on every machine: NaNs
//! are canonical where programs see them ([`canonical_nans`]; Cranelift's own setting makes each result canonical, with which products of matrices
//! reach a fifth of the native speed), relaxed SIMD (which the rewriter replaces) is off, threads too. Memories never move, so that the poll word and
//! dirty tracking keep their addresses: each has its whole address range reserved. And nothing but
//! the polls stops a program: neither fuel nor epochs.

use std::num::NonZeroUsize;
use std::ptr::NonNull;

use ::wasmtime::{
    Caller, Config, Error, Global, Instance as WasmtimeInstance, InstancePre, Linker, Memory,
    Module, OptLevel, ResourceLimiter, Store, Trap, TypedFunc, Val, WasmBacktrace,
};
use mielin_safepoint::{GlobalValue, abi, canonical_nans};

use crate::cache::Cache;
use crate::dirty::RegionOwner;
use crate::host::table::host_functions;
use crate::host::{self, Call, Context, Reply};
use crate::limits::WASM_STACK_BYTES;
use crate::machine::{self, Adapter, Failure, Growth, Machine};
use crate::poll_word::Frames;
use crate::prepared::missing;
use crate::{CodeCache, EngineError, EngineKind, TrapKind, compile_work};

/// Address space of each memory: all that a 32-bit memory can become.
const RESERVATION_BYTES: u64 = 4 << 30;

/// Frames of the program's native stack that a trap looks at: it names the innermost function.
const BACKTRACE_FRAMES: Option<NonZeroUsize> = NonZeroUsize::new(1);

pub(crate) struct Wasmtime {
    engine: ::wasmtime::Engine,
    linker: Linker<Data>,
    cache: Cache,
}

type Data = machine::Data<Memory, Global, Growth>;

impl Wasmtime {
    pub(crate) fn new() -> Result<Self, Error> {
        let mut config = Config::new();
        config
            .cranelift_opt_level(OptLevel::Speed)
            .cranelift_nan_canonicalization(false)
            .wasm_multi_memory(true)
            .wasm_bulk_memory(true)
            .wasm_multi_value(true)
            .wasm_simd(true)
            .wasm_relaxed_simd(false)
            .wasm_memory64(false)
            .wasm_tail_call(true)
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
}

impl Adapter for Wasmtime {
    const KIND: EngineKind = EngineKind::Wasmtime;
    type Machine = Running;

    fn compile(
        &self,
        wasm: &[u8],
        code: Option<&CodeCache>,
    ) -> Result<InstancePre<Data>, EngineError> {
        compile_work::check(wasm)?;
        let wasm = &*canonical_nans(wasm).map_err(|error| refused(Error::msg(error)))?;
        let compiled = match code {
            Some(cache) => cache.module(&self.engine, wasm),
            None => Module::new(&self.engine, wasm),
        };
        let compiled = compiled.map_err(refused)?;
        self.linker.instantiate_pre(&compiled).map_err(refused)
    }

    fn cache(&self) -> &Cache {
        &self.cache
    }
}

fn refused(error: Error) -> EngineError {
    EngineError::Refused {
        engine: EngineKind::Wasmtime,
        reason: format!("{error:#}"),
    }
}

fn linker(engine: &::wasmtime::Engine) -> Result<Linker<Data>, Error> {
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
    reply.map_err(Error::new)
}

pub(crate) struct Running {
    store: Store<Data>,
    instance: WasmtimeInstance,
    entry: TypedFunc<(), ()>,
    memory: Option<Memory>,
}

impl Machine for Running {
    type Code = InstancePre<Data>;
    type Global = Global;

    fn new(
        code: &InstancePre<Data>,
        context: Context,
        growth: Growth,
        entry: &str,
        memory: &str,
    ) -> Result<Self, EngineError> {
        let data = Data {
            context,
            limiter: growth,
            memory: None,
            mode: None,
        };
        let mut store = Store::new(code.module().engine(), data);
        store.limiter(|data| &mut data.limiter);
        let instance = code.instantiate(&mut store).map_err(refused)?;
        let memory = instance.get_memory(&mut store, memory);
        let mode = instance.get_global(&mut store, abi::MODE);
        let entry = instance
            .get_typed_func(&mut store, entry)
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
        let global = self.instance.get_global(&mut self.store, name)?;
        to_value(global.get(&mut self.store)).map(|_| global)
    }

    fn get(&mut self, global: Global) -> GlobalValue {
        to_value(global.get(&mut self.store)).expect("`global` gives out no references")
    }

    fn set(&mut self, global: Global, value: GlobalValue) {
        let set = global.set(&mut self.store, from_value(value));
        debug_assert!(set.is_ok(), "it is mutable and of this type");
    }

    fn frames(&mut self) -> Option<Frames> {
        let frames = self.instance.get_memory(&mut self.store, abi::FRAMES)?;
        Frames::of_wasmtime(&frames, &self.store)
    }

    fn region(&self, bytes_max: u64) -> Option<RegionOwner> {
        let memory = self.memory?;
        let base = NonNull::new(memory.data_ptr(&self.store))?;
        let bytes = memory.data_size(&self.store) as u64;
        let bytes_max = RESERVATION_BYTES.min(bytes_max);
        Some(RegionOwner::new(base, bytes, bytes_max))
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
        self.store.data_mut().limiter = growth;
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
    let Some(trap) = error.downcast_ref() else {
        return Failure::Trapped(TrapKind::Other(format!("{error:#}")).into());
    };
    let kind = match trap {
        Trap::StackOverflow => TrapKind::StackExhausted,
        Trap::MemoryOutOfBounds => TrapKind::MemoryOutOfBounds,
        Trap::TableOutOfBounds => TrapKind::TableOutOfBounds,
        Trap::IndirectCallToNull => TrapKind::CallToNull,
        Trap::BadSignature => TrapKind::CallTypeMismatch,
        Trap::IntegerDivisionByZero => TrapKind::DivisionByZero,
        Trap::IntegerOverflow => TrapKind::IntegerOverflow,
        Trap::BadConversionToInteger => TrapKind::NanToInteger,
        Trap::UnreachableCodeReached => TrapKind::Unreachable,
        other => return Failure::Trapped(TrapKind::Other(other.to_string()).into()),
    };
    let backtrace = error.downcast_ref::<WasmBacktrace>();
    let innermost = backtrace.and_then(|backtrace| backtrace.frames().first());
    let function = innermost.and_then(|frame| frame.func_name());
    Failure::Trapped(crate::Trap {
        kind,
        function: function.map(str::to_owned),
    })
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

fn from_value(value: GlobalValue) -> Val {
    match value {
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
        let bytes = desired as u64;
        let allowed = maximum.is_none_or(|maximum| desired <= maximum)
            && self.memory_bytes.is_none_or(|limit| bytes <= limit);
        if let (true, Some(region)) = (allowed, &self.region) {
            region.grow_to(bytes);
        }
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, Error> {
        Ok(maximum.is_none_or(|maximum| desired <= maximum) && desired <= self.table_elements)
    }
}

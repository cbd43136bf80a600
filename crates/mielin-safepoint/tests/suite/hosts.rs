//! The smallest hosts that can run a program, plain or rewritten: one on wasmtime, one on wasmi.

use std::collections::BTreeMap;

use mielin_safepoint::{
    Execution, GlobalValue, HostSection, ModuleHash, PAGE_SIZE, Page, Resumable, Snapshot,
    SnapshotLimits, abi, canonical_nans,
};

/// What the program can observe and be observed by.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Calls {
    /// Host calls that were carried out: name and the bits of the arguments.
    pub(crate) log: Vec<(String, Vec<u128>)>,
    /// Suspend every host call once before carrying it out.
    pub(crate) suspend: bool,
    /// What calls of these names give.
    pub(crate) answers: BTreeMap<String, GlobalValue>,
    reissued: bool,
}

impl Calls {
    /// True if this call is to be suspended; otherwise it is logged.
    fn suspend_or_log(&mut self, name: &str, arguments: Vec<u128>) -> bool {
        if self.suspend && !self.reissued {
            self.reissued = true;
            return true;
        }
        self.reissued = false;
        self.log.push((name.to_string(), arguments));
        false
    }

    /// What the call that was logged last gives at this position, in the type of `like`.
    fn result(&self, position: usize, like: GlobalValue) -> GlobalValue {
        let (name, arguments) = self.log.last().unwrap();
        if let Some(answer) = self.answers.get(name) {
            return *answer;
        }
        let sum = arguments.iter().fold(position as u128 + 7, |sum, bits| {
            sum.wrapping_mul(31).wrapping_add(*bits)
        });
        let value = (sum as u64 % 1000) as u16;
        match like {
            GlobalValue::I32(_) => GlobalValue::I32(value.into()),
            GlobalValue::I64(_) => GlobalValue::I64(value.into()),
            GlobalValue::F32(_) => GlobalValue::F32(f32::from(value).to_bits()),
            GlobalValue::F64(_) => GlobalValue::F64(f64::from(value).to_bits()),
            GlobalValue::V128(_) => GlobalValue::V128(value.into()),
        }
    }
}

fn bits(value: GlobalValue) -> u128 {
    match value {
        GlobalValue::I32(value) => value as u32 as u128,
        GlobalValue::I64(value) => value as u64 as u128,
        GlobalValue::F32(bits) => bits.into(),
        GlobalValue::F64(bits) => bits.into(),
        GlobalValue::V128(value) => value,
    }
}

/// How a call of an exported function ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End {
    Returned,
    Unwound,
    Trapped(String),
}

/// The engines under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It makes the result of each instruction canonical.
    Wasmtime,
    /// It computes NaNs as the processor does, of modules that were made for that.
    WasmtimeWithAnyNan,
    Wasmi,
}

/// What the tests need of an engine.
pub(crate) trait Machine {
    fn call(&mut self, function: &str) -> Result<(), String>;
    fn memory(&mut self, name: &str) -> Option<&mut [u8]>;
    fn grow(&mut self, name: &str, pages: u64);
    fn global(&mut self, name: &str) -> Option<GlobalValue>;
    fn set_global(&mut self, name: &str, value: GlobalValue);
    fn calls(&mut self) -> &mut Calls;
}

/// A compiled module, to be instantiated any number of times.
pub(crate) enum Compiled {
    Wasmtime(wasmtime::Module),
    Wasmi(wasmi::Module),
}

impl Compiled {
    pub(crate) fn new(kind: Kind, wasm: &[u8]) -> Compiled {
        Compiled::try_new(kind, wasm).unwrap()
    }

    /// Fails if the engine refuses the module.
    pub(crate) fn try_new(kind: Kind, wasm: &[u8]) -> Result<Compiled, String> {
        Ok(match kind {
            Kind::Wasmtime => Compiled::Wasmtime(on_wasmtime::compile(wasm)?),
            Kind::WasmtimeWithAnyNan => {
                let wasm = canonical_nans(wasm).map_err(|error| error.to_string())?;
                Compiled::Wasmtime(on_wasmtime::compile_with_any_nan(&wasm)?)
            }
            Kind::Wasmi => Compiled::Wasmi(on_wasmi::compile(wasm)?),
        })
    }

    /// Fails if a segment does not fit or the start function traps.
    pub(crate) fn instantiate(&self) -> Result<Box<dyn Machine>, String> {
        Ok(match self {
            Compiled::Wasmtime(module) => Box::new(on_wasmtime::Host::new(module)?),
            Compiled::Wasmi(module) => Box::new(on_wasmi::Host::new(module)?),
        })
    }
}

/// Compiles and instantiates a module.
pub(crate) fn machine(kind: Kind, wasm: &[u8]) -> Box<dyn Machine> {
    Compiled::new(kind, wasm).instantiate().unwrap()
}

impl dyn Machine + '_ {
    pub(crate) fn word(&mut self, address: u32) -> i32 {
        let frames = self.memory(abi::FRAMES).unwrap();
        let at = address as usize;
        i32::from_le_bytes(frames[at..at + 4].try_into().unwrap())
    }

    pub(crate) fn set_word(&mut self, address: u32, value: i32) {
        let at = address as usize;
        self.memory(abi::FRAMES).unwrap()[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn set_state(&mut self, state: i32) {
        self.set_word(abi::FLAG_ADDRESS, state);
        self.set_global(abi::MODE, GlobalValue::I32(state));
    }

    /// Runs or resumes a rewritten program.
    pub(crate) fn run(&mut self) -> End {
        match self.call(abi::ENTRY) {
            Err(trap) => End::Trapped(trap),
            Ok(()) => match self.global(abi::MODE).unwrap() {
                GlobalValue::I32(abi::RUNNING) => {
                    let top = self.word(abi::STACK_POINTER_ADDRESS);
                    assert_eq!(top, abi::FRAMES_BASE as i32, "frames remain after the end");
                    End::Returned
                }
                GlobalValue::I32(abi::UNWINDING) => {
                    self.set_state(abi::RUNNING);
                    End::Unwound
                }
                other => panic!("mode {other:?} after the entry returned"),
            },
        }
    }

    /// Prepares the next `run` to resume; with `step`, only as far as the next safepoint.
    pub(crate) fn rewind(&mut self, step: bool) {
        let next = if step {
            abi::STOP_REQUESTED
        } else {
            abi::RUNNING
        };
        self.set_word(abi::NEXT_FLAG_ADDRESS, next);
        self.set_state(abi::REWINDING);
    }

    pub(crate) fn snapshot(&mut self, program: &Resumable) -> Snapshot {
        let manifest = program.manifest();
        let memory = self.memory(&manifest.memory.export).unwrap();
        let memory_bytes = memory.len() as u64;
        let pages = memory
            .chunks_exact(PAGE_SIZE)
            .enumerate()
            .filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0))
            .map(|(index, bytes)| Page {
                index: index as u32,
                bytes: Box::new(bytes.try_into().unwrap()),
            })
            .collect();
        let top = self.word(abi::STACK_POINTER_ADDRESS) as usize;
        let frames = self.memory(abi::FRAMES).unwrap()[abi::FRAMES_BASE as usize..top].to_vec();
        let globals = manifest
            .globals
            .iter()
            .map(|info| self.global(&info.export).unwrap())
            .collect();
        let host = vec![HostSection {
            name: "test".into(),
            version: 1,
            bytes: vec![1, 2, 3],
        }];
        Snapshot {
            module: program.hash(),
            memory_bytes,
            pages,
            globals,
            frames,
            host,
        }
    }

    pub(crate) fn load(&mut self, program: &Resumable, snapshot: &Snapshot) {
        assert_eq!(snapshot.module, program.hash());
        let manifest = program.manifest();
        self.grow(&manifest.memory.export, snapshot.memory_bytes / 65536);
        let memory = self.memory(&manifest.memory.export).unwrap();
        memory.fill(0);
        for page in &snapshot.pages {
            let at = page.index as usize * PAGE_SIZE;
            memory[at..at + PAGE_SIZE].copy_from_slice(&page.bytes[..]);
        }
        for (info, value) in manifest.globals.iter().zip(&snapshot.globals) {
            assert_eq!(info.value_type, value.value_type());
            self.set_global(&info.export, *value);
        }
        let base = abi::FRAMES_BASE as usize;
        let top = base + snapshot.frames.len();
        self.memory(abi::FRAMES).unwrap()[base..top].copy_from_slice(&snapshot.frames);
        self.set_word(abi::STACK_POINTER_ADDRESS, top as i32);
    }
}

/// A snapshot that went through its bytes.
pub(crate) fn through_bytes(snapshot: &Snapshot) -> Snapshot {
    let limits = SnapshotLimits::default();
    let decoded = Snapshot::decode(&snapshot.encode(), &limits).unwrap();
    assert_eq!(decoded, *snapshot);
    let execution = Execution {
        globals: decoded.globals.clone(),
        frames: decoded.frames.clone(),
    };
    assert_eq!(
        Execution::decode(&execution.encode(), &limits).unwrap(),
        execution
    );
    decoded
}

/// Everything that can be seen of a program that has ended.
#[derive(Debug, PartialEq)]
pub(crate) struct Observed {
    pub(crate) end: End,
    pub(crate) log: Vec<(String, Vec<u128>)>,
    pub(crate) memory: Option<ModuleHash>,
    pub(crate) globals: Vec<(String, Option<GlobalValue>)>,
}

/// Looks at the memory and the globals that the plain program exports.
pub(crate) fn observe(machine: &mut dyn Machine, end: End, globals: &[String]) -> Observed {
    let memory = machine
        .memory(abi::MEMORY)
        .map(|memory| ModuleHash::of(memory));
    let globals = globals
        .iter()
        .map(|name| (name.clone(), machine.global(name)))
        .collect();
    Observed {
        end,
        log: machine.calls().log.clone(),
        memory,
        globals,
    }
}

mod on_wasmtime {
    use std::sync::OnceLock;

    use super::{Calls, GlobalValue, Machine, abi, bits};
    use wasmtime::{
        Caller, Config, Engine, Extern, Instance, Linker, Module, OptLevel, Store, Trap, Val,
    };

    pub(crate) struct Host {
        store: Store<Calls>,
        instance: Instance,
    }

    fn engine(canonical_nans: bool) -> Engine {
        let mut config = Config::new();
        config.cranelift_opt_level(OptLevel::Speed);
        config.cranelift_nan_canonicalization(canonical_nans);
        config.wasm_multi_memory(true);
        config.memory_may_move(false);
        config.wasm_branch_hinting(true);
        Engine::new(&config).unwrap()
    }

    pub(crate) fn compile(wasm: &[u8]) -> Result<Module, String> {
        static ENGINE: OnceLock<Engine> = OnceLock::new();
        let engine = ENGINE.get_or_init(|| engine(true));
        Module::new(engine, wasm).map_err(|error| error.to_string())
    }

    pub(crate) fn compile_with_any_nan(wasm: &[u8]) -> Result<Module, String> {
        static ENGINE: OnceLock<Engine> = OnceLock::new();
        let engine = ENGINE.get_or_init(|| engine(false));
        Module::new(engine, wasm).map_err(|error| error.to_string())
    }

    impl Host {
        pub(crate) fn new(module: &Module) -> Result<Host, String> {
            let mut linker: Linker<Calls> = Linker::new(module.engine());
            let mut store = Store::new(module.engine(), Calls::default());
            linker.allow_shadowing(true);
            for import in module.imports() {
                let ty = import.ty().unwrap_func().clone();
                let name = import.name().to_string();
                let zeros: Vec<Val> = ty
                    .results()
                    .map(|ty| Val::default_for_ty(&ty).unwrap())
                    .collect();
                let call = move |mut caller: Caller<'_, Calls>, args: &[Val], out: &mut [Val]| {
                    let args = args.iter().filter_map(value).map(bits).collect();
                    if caller.data_mut().suspend_or_log(&name, args) {
                        out.copy_from_slice(&zeros);
                        unwind(caller);
                        return Ok(());
                    }
                    for (position, (out, zero)) in out.iter_mut().zip(&zeros).enumerate() {
                        let result = |like| caller.data().result(position, like);
                        *out = value(zero).map_or(*zero, |like| val(result(like)));
                    }
                    Ok(())
                };
                linker
                    .func_new(import.module(), import.name(), ty, call)
                    .unwrap();
            }
            let instance = linker
                .instantiate(&mut store, module)
                .map_err(|error| error.to_string())?;
            Ok(Host { store, instance })
        }
    }

    fn unwind(mut caller: Caller<'_, Calls>) {
        let export = caller.get_export(abi::FRAMES);
        let frames = export.and_then(Extern::into_memory);
        let frames = frames.expect("only a rewritten program is suspended");
        frames.data_mut(&mut caller)[..4].copy_from_slice(&abi::UNWINDING.to_le_bytes());
        let mode = caller.get_export(abi::MODE).and_then(Extern::into_global);
        let unwinding = Val::I32(abi::UNWINDING);
        mode.unwrap().set(&mut caller, unwinding).unwrap();
    }

    /// None for references.
    fn value(value: &Val) -> Option<GlobalValue> {
        Some(match value {
            Val::I32(value) => GlobalValue::I32(*value),
            Val::I64(value) => GlobalValue::I64(*value),
            Val::F32(bits) => GlobalValue::F32(*bits),
            Val::F64(bits) => GlobalValue::F64(*bits),
            Val::V128(value) => GlobalValue::V128(value.as_u128()),
            _ => return None,
        })
    }

    fn val(value: GlobalValue) -> Val {
        match value {
            GlobalValue::I32(value) => Val::I32(value),
            GlobalValue::I64(value) => Val::I64(value),
            GlobalValue::F32(bits) => Val::F32(bits),
            GlobalValue::F64(bits) => Val::F64(bits),
            GlobalValue::V128(value) => Val::V128(value.into()),
        }
    }

    impl Machine for Host {
        fn call(&mut self, function: &str) -> Result<(), String> {
            let function = self
                .instance
                .get_typed_func::<(), ()>(&mut self.store, function)
                .unwrap();
            function.call(&mut self.store, ()).map_err(|error| {
                error
                    .downcast_ref::<Trap>()
                    .map_or(error.to_string(), |trap| format!("{trap:?}"))
            })
        }

        fn memory(&mut self, name: &str) -> Option<&mut [u8]> {
            let memory = self.instance.get_memory(&mut self.store, name)?;
            Some(memory.data_mut(&mut self.store))
        }

        fn grow(&mut self, name: &str, pages: u64) {
            let memory = self.instance.get_memory(&mut self.store, name).unwrap();
            let size = memory.size(&self.store);
            memory.grow(&mut self.store, pages - size).unwrap();
        }

        fn global(&mut self, name: &str) -> Option<GlobalValue> {
            let global = self.instance.get_global(&mut self.store, name)?;
            value(&global.get(&mut self.store))
        }

        fn set_global(&mut self, name: &str, value: GlobalValue) {
            let global = self.instance.get_global(&mut self.store, name).unwrap();
            global.set(&mut self.store, val(value)).unwrap();
        }

        fn calls(&mut self) -> &mut Calls {
            self.store.data_mut()
        }
    }
}

mod on_wasmi {
    use super::{Calls, GlobalValue, Machine, abi, bits};
    use wasmi::{Caller, Config, Engine, Extern, Instance, Linker, Module, Store, Val};

    pub(crate) struct Host {
        store: Store<Calls>,
        instance: Instance,
    }

    pub(crate) fn compile(wasm: &[u8]) -> Result<Module, String> {
        let mut config = Config::default();
        config.wasm_multi_memory(true);
        Module::new(&Engine::new(&config), wasm).map_err(|error| error.to_string())
    }

    impl Host {
        pub(crate) fn new(module: &Module) -> Result<Host, String> {
            let mut linker: Linker<Calls> = Linker::new(module.engine());
            let mut store = Store::new(module.engine(), Calls::default());
            linker.allow_shadowing(true);
            for import in module.imports() {
                let ty = import.ty().func().unwrap().clone();
                let name = import.name().to_string();
                let zeros: Vec<Val> = ty
                    .results()
                    .iter()
                    .map(|ty| Val::default_for_ty(*ty))
                    .collect();
                let call = move |mut caller: Caller<'_, Calls>, args: &[Val], out: &mut [Val]| {
                    let args = args.iter().filter_map(value).map(bits).collect();
                    if caller.data_mut().suspend_or_log(&name, args) {
                        out.clone_from_slice(&zeros);
                        unwind(caller);
                        return Ok(());
                    }
                    for (position, (out, zero)) in out.iter_mut().zip(&zeros).enumerate() {
                        let result = |like| caller.data().result(position, like);
                        *out = value(zero).map_or(zero.clone(), |like| val(result(like)));
                    }
                    Ok(())
                };
                linker
                    .func_new(import.module(), import.name(), ty, call)
                    .unwrap();
            }
            let instance = linker
                .instantiate_and_start(&mut store, module)
                .map_err(|error| error.to_string())?;
            Ok(Host { store, instance })
        }
    }

    fn unwind(mut caller: Caller<'_, Calls>) {
        let export = caller.get_export(abi::FRAMES);
        let frames = export.and_then(Extern::into_memory);
        let frames = frames.expect("only a rewritten program is suspended");
        frames.data_mut(&mut caller)[..4].copy_from_slice(&abi::UNWINDING.to_le_bytes());
        let mode = caller.get_export(abi::MODE).and_then(Extern::into_global);
        let unwinding = Val::I32(abi::UNWINDING);
        mode.unwrap().set(&mut caller, unwinding).unwrap();
    }

    /// None for references.
    fn value(value: &Val) -> Option<GlobalValue> {
        Some(match value {
            Val::I32(value) => GlobalValue::I32(*value),
            Val::I64(value) => GlobalValue::I64(*value),
            Val::F32(value) => GlobalValue::F32(value.to_bits()),
            Val::F64(value) => GlobalValue::F64(value.to_bits()),
            Val::V128(value) => GlobalValue::V128(value.as_u128()),
            _ => return None,
        })
    }

    fn val(value: GlobalValue) -> Val {
        match value {
            GlobalValue::I32(value) => Val::I32(value),
            GlobalValue::I64(value) => Val::I64(value),
            GlobalValue::F32(bits) => Val::F32(f32::from_bits(bits).into()),
            GlobalValue::F64(bits) => Val::F64(f64::from_bits(bits).into()),
            GlobalValue::V128(value) => Val::V128(value.into()),
        }
    }

    impl Machine for Host {
        fn call(&mut self, function: &str) -> Result<(), String> {
            let function = self
                .instance
                .get_typed_func::<(), ()>(&self.store, function)
                .unwrap();
            function.call(&mut self.store, ()).map_err(|error| {
                error
                    .as_trap_code()
                    .map_or(error.to_string(), |trap| format!("{trap:?}"))
            })
        }

        fn memory(&mut self, name: &str) -> Option<&mut [u8]> {
            let memory = self.instance.get_memory(&self.store, name)?;
            Some(memory.data_mut(&mut self.store))
        }

        fn grow(&mut self, name: &str, pages: u64) {
            let memory = self.instance.get_memory(&self.store, name).unwrap();
            let size = memory.size(&self.store);
            memory.grow(&mut self.store, pages - size).unwrap();
        }

        fn global(&mut self, name: &str) -> Option<GlobalValue> {
            let global = self.instance.get_global(&self.store, name)?;
            value(&global.get(&self.store))
        }

        fn set_global(&mut self, name: &str, value: GlobalValue) {
            let global = self.instance.get_global(&self.store, name).unwrap();
            global.set(&mut self.store, val(value)).unwrap();
        }

        fn calls(&mut self) -> &mut Calls {
            self.store.data_mut()
        }
    }
}

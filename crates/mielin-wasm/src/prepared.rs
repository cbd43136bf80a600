//! Compiled modules on any engine: the checks before an instance is made, and its making.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use mielin_safepoint::{Resumable, abi};

use crate::dirty::{self, RegionOwner};
use crate::host::Context;
use crate::machine::{Adapter, Failure, Growth, Machine};
use crate::program::{Program, WASM_PAGE};
use crate::rested::{Changes, Image, NotWoken, Rested};
use crate::state::StateError;
use crate::sync::Once;
use crate::{
    CodeCache, Engine, EngineError, EngineKind, HostState, Instance, Limits, Outcome, Plain,
    Prepared, Services, imports,
};

impl<A: Adapter> Engine for A {
    fn kind(&self) -> EngineKind {
        A::KIND
    }

    fn prepare(
        &self,
        module: &Resumable,
        code: Option<&CodeCache>,
    ) -> Result<Arc<dyn Prepared>, EngineError> {
        self.cache().prepared(module, || {
            imports::check(module)?;
            Ok(Arc::new(Compiled::<A::Machine> {
                code: self.compile(module.bytes(), code)?,
                module: Arc::new(module.clone()),
                image: Once::new(),
            }))
        })
    }

    #[cfg(feature = "wasmtime")]
    fn lets_follow(&self) -> bool {
        // The other one keeps memories where the kernel's help does not reach, and moves them.
        A::KIND == EngineKind::Wasmtime && dirty::absence_works()
    }

    fn prepare_plain(&self, wasm: &[u8]) -> Result<Arc<dyn Plain>, EngineError> {
        imports::check_plain(wasm)?;
        Ok(Arc::new(CompiledPlain::<A::Machine> {
            code: self.compile(wasm, None)?,
            bytes: wasm.len(),
        }))
    }
}

struct Compiled<M: Machine> {
    module: Arc<Resumable>,
    code: M::Code,
    /// What an instance begins with, known from the first one on.
    image: Once<Arc<Image>>,
}

impl<M: Machine> Prepared for Compiled<M> {
    fn module(&self) -> &Resumable {
        &self.module
    }

    fn instantiate(
        &self,
        host: HostState,
        services: Arc<dyn Services>,
        limits: &Limits,
    ) -> Result<Box<dyn Instance>, EngineError> {
        check_limits(&self.module, &host, limits)?;
        Ok(Box::new(self.make(host, services, limits)?))
    }

    fn rested(
        &self,
        host: HostState,
        services: Arc<dyn Services>,
        limits: &Limits,
    ) -> Result<Rested, EngineError> {
        check_limits(&self.module, &host, limits)?;
        let image = match self.image.get() {
            Some(image) => Arc::clone(image),
            None => {
                // What has no instance, as a module with data beyond its memory, is refused now and not when it should
                // run.
                let host = HostState::on(host.platform, host.address);
                self.make(host, Arc::clone(&services), limits)?.into_image()
            }
        };
        let pages = self.module.manifest().memory.minimum_pages;
        Ok(Rested {
            module: Arc::clone(&self.module),
            image,
            memory_bytes: pages.saturating_mul(WASM_PAGE),
            changes: Changes::default(),
            execution: None,
            host,
            services,
            limits: limits.clone(),
        })
    }

    fn wake(&self, rested: Rested) -> Result<Box<dyn Instance>, Box<NotWoken>> {
        let waking = || {
            let host = HostState::on(rested.host.platform, rested.host.address);
            let services = Arc::clone(&rested.services);
            let mut program = self.make(host, services, &rested.limits)?;
            program.resume_from(&rested)?;
            Ok(program)
        };
        match waking() {
            Ok(mut program) => {
                *program.host_mut() = rested.host;
                Ok(Box::new(program))
            }
            Err(error) => Err(Box::new(NotWoken { rested, error })),
        }
    }
}

impl<M: Machine> Compiled<M> {
    fn make(
        &self,
        host: HostState,
        services: Arc<dyn Services>,
        limits: &Limits,
    ) -> Result<Program<M>, EngineError> {
        let manifest = self.module.manifest();
        let context = Context::new(host, services, limits);
        let growth = Growth {
            memory_bytes: None,
            table_elements: limits.table_elements,
            region: None,
        };
        let memory = &manifest.memory.export;
        let mut machine = M::new(&self.code, context, growth, abi::ENTRY, memory)?;
        let mut global = |name: &str| machine.global(name).ok_or_else(|| missing(name));
        let mode = global(abi::MODE)?;
        let globals = manifest.globals.iter().map(|info| global(&info.export));
        let globals = globals.collect::<Result<Vec<_>, _>>()?;
        let frames = machine.frames().ok_or_else(|| missing(abi::FRAMES))?;
        let region = machine.region(limits.memory_bytes);
        machine.context_mut().stop = Some(frames.stop_handle());
        machine.bound(Growth {
            memory_bytes: Some(limits.memory_bytes),
            table_elements: limits.table_elements,
            region: region.as_ref().map(RegionOwner::size),
        });
        let image = self.image.get_or_init(|| {
            let touched = region.as_ref().and_then(dirty::touched);
            let values = globals.iter().map(|global| machine.get(*global)).collect();
            Arc::new(Image::of(machine.memory(), touched, values))
        });
        let origin = (Arc::clone(&self.module), Arc::clone(image));
        Ok(Program::new(origin, machine, frames, region, mode, globals))
    }
}

struct CompiledPlain<M: Machine> {
    code: M::Code,
    bytes: usize,
}

impl<M: Machine> Plain for CompiledPlain<M> {
    fn run(
        &self,
        host: HostState,
        services: Arc<dyn Services>,
        limits: &Limits,
    ) -> Result<Outcome, EngineError> {
        check_module(self.bytes, limits)?;
        check_host(&host, limits)?;
        let context = Context::new(host, services, limits);
        let growth = Growth {
            memory_bytes: Some(limits.memory_bytes),
            table_elements: limits.table_elements,
            region: None,
        };
        let mut machine = M::new(&self.code, context, growth, "_start", abi::MEMORY)?;
        Ok(match machine.enter() {
            Ok(()) => Outcome::Exited(0),
            Err(Failure::Exited(code)) => Outcome::Exited(code),
            Err(Failure::Trapped(trap)) => Outcome::Trapped(trap),
        })
    }
}

/// A module lacks an export, or it is not as it should be.
pub(crate) fn missing(name: &str) -> EngineError {
    EngineError::Shape {
        reason: format!("it does not export {name} as it should"),
    }
}

/// Refuses what the limits do not allow before anything is allocated for it.
pub(crate) fn check_limits(
    module: &Resumable,
    host: &HostState,
    limits: &Limits,
) -> Result<(), EngineError> {
    check_module(module.bytes().len(), limits)?;
    let pages = module.manifest().memory.minimum_pages;
    let memory_bytes = pages.saturating_mul(WASM_PAGE);
    over("the program's memory", limits.memory_bytes, memory_bytes)?;
    check_host(host, limits)
}

fn check_module(bytes: usize, limits: &Limits) -> Result<(), EngineError> {
    over("the module", limits.module_bytes as u64, bytes as u64)
}

fn check_host(host: &HostState, limits: &Limits) -> Result<(), EngineError> {
    let what = "arguments, environment and standard input";
    over(what, limits.input_bytes as u64, host.input_bytes() as u64)?;
    let mut texts = host.args.iter().chain(&host.env);
    if texts.any(|text| text.contains(&0)) {
        let what = "a zero byte in an argument or the environment";
        return Err(StateError::Malformed {
            section: "wasm.program",
            what,
        }
        .into());
    }
    Ok(())
}

fn over(what: &'static str, limit: u64, found: u64) -> Result<(), EngineError> {
    if found <= limit {
        Ok(())
    } else {
        Err(EngineError::OverLimit { what, limit, found })
    }
}

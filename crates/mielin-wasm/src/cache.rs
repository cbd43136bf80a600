//! Compiled modules, kept by their hash and the size of their frames memory.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use mielin_safepoint::{ModuleHash, Resumable};

use crate::sync::Lock;
use crate::{EngineError, Prepared};

/// Beyond this many, or this many bytes of WebAssembly, modules that no instance maker holds are forgotten.
const KEPT: usize = 64;
const KEPT_BYTES: usize = 32 << 20;

/// A module of the same name can have room for fewer frames.
type Key = (ModuleHash, u64);

/// Compiled modules of one engine.
#[derive(Default)]
pub(crate) struct Cache {
    modules: Lock<BTreeMap<Key, Arc<dyn Prepared>>>,
}

impl Cache {
    /// The module as it was compiled before, or compiled now. Two threads that ask for the same new
    /// module both compile it, and one result is kept: nobody waits for another's module.
    pub(crate) fn prepared(
        &self,
        module: &Resumable,
        compile: impl FnOnce() -> Result<Arc<dyn Prepared>, EngineError>,
    ) -> Result<Arc<dyn Prepared>, EngineError> {
        let key = (module.hash(), module.frames_pages());
        if let Some(prepared) = self.modules.lock().get(&key) {
            return Ok(Arc::clone(prepared));
        }
        let prepared = compile()?;
        let mut modules = self.modules.lock();
        let bytes: usize = modules.values().map(|it| it.module().bytes().len()).sum();
        if modules.len() >= KEPT || bytes + module.bytes().len() > KEPT_BYTES {
            modules.retain(|_, prepared| Arc::strong_count(prepared) > 1);
        }
        Ok(Arc::clone(modules.entry(key).or_insert(prepared)))
    }
}

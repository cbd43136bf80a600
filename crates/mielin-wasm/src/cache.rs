//! Compiled modules that somebody holds, found by their hash.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use mielin_safepoint::{ModuleHash, Resumable};

use crate::{EngineError, Prepared};

/// Compiled modules of one engine.
#[derive(Default)]
pub(crate) struct Cache {
    modules: Mutex<HashMap<ModuleHash, Weak<dyn Prepared>>>,
}

impl Cache {
    /// The module as it was compiled before, or compiled now. Two threads that ask for the same new
    /// module both compile it, and one result is kept: nobody waits for another's module.
    pub(crate) fn prepared(
        &self,
        module: &Resumable,
        compile: impl FnOnce() -> Result<Arc<dyn Prepared>, EngineError>,
    ) -> Result<Arc<dyn Prepared>, EngineError> {
        let hash = module.hash();
        if let Some(prepared) = self.lock().get(&hash).and_then(Weak::upgrade) {
            return Ok(prepared);
        }
        let prepared = compile()?;
        let mut modules = self.lock();
        if let Some(other) = modules.get(&hash).and_then(Weak::upgrade) {
            return Ok(other);
        }
        modules.retain(|_, prepared| prepared.strong_count() > 0);
        modules.insert(hash, Arc::downgrade(&prepared));
        Ok(prepared)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ModuleHash, Weak<dyn Prepared>>> {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

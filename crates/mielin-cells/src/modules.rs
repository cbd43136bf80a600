//! Modules on their way to becoming agents: rewritten once, compiled once, found again by hash.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use mielin_safepoint::{InstrumentError, ModuleHash, Resumable};
use mielin_wasm::{CodeCache, EngineKind, Limits, Prepared};

use crate::config::CellsConfig;
use crate::error::CellsError;
use crate::lock::lock;

/// Rewritten modules kept after their last agent has gone, so that spawning again or coming back costs nothing.
const KEPT_MAX: usize = 32;

/// The folder of native code in the node's data directory.
const CODE: &str = "code";

/// The rewritten modules of this node.
pub(crate) struct Modules {
    /// Most recently used last.
    kept: Mutex<VecDeque<Kept>>,
    /// What was handed in last, and what it became. Whoever spawns many agents of a module hands in the same bytes, and
    /// to hash them takes longer than the rest of a spawn.
    last: Mutex<Option<(Bytes, Kept)>>,
    /// Their native code on disk.
    code: Option<CodeCache>,
}

#[derive(Clone)]
struct Kept {
    /// BLAKE3 of what was handed in, which may be the rewritten module itself.
    input: ModuleHash,
    engine: EngineKind,
    prepared: Arc<dyn Prepared>,
}

impl Modules {
    /// None yet, with the native code that earlier runs of this node have kept.
    pub(crate) fn open(config: &CellsConfig) -> io::Result<Modules> {
        let directory = config.data_dir.as_ref().map(|data| data.join(CODE));
        let code = directory
            .filter(|_| config.code_bytes_max > 0)
            .map(|directory| CodeCache::open(directory, config.code_bytes_max));
        Ok(Modules {
            kept: Mutex::default(),
            last: Mutex::default(),
            code: code.transpose()?,
        })
    }

    /// What was handed in last, if it is this.
    pub(crate) fn at_hand(
        &self,
        input: &Bytes,
        engine: EngineKind,
        limits: &Limits,
    ) -> Option<Arc<dyn Prepared>> {
        let last = lock(&self.last);
        let (bytes, kept) = last.as_ref()?;
        let fits = input.len() <= limits.module_bytes;
        (fits && is_same(bytes, input) && kept.engine == engine).then(|| Arc::clone(&kept.prepared))
    }

    /// Rewrites and compiles; blocks for as long as that takes.
    pub(crate) fn prepare(
        &self,
        input: &Bytes,
        engine: EngineKind,
        limits: &Limits,
    ) -> Result<Arc<dyn Prepared>, CellsError> {
        if input.len() > limits.module_bytes {
            return Err(too_large(input.len(), limits.module_bytes));
        }
        let hash = ModuleHash::of(input);
        let prepared = match self.find(engine, |kept| kept.input == hash) {
            Some(prepared) => prepared,
            None => self.rewrite(hash, input, engine, limits)?,
        };
        let kept = Kept {
            input: hash,
            engine,
            prepared: Arc::clone(&prepared),
        };
        *lock(&self.last) = Some((input.clone(), kept));
        Ok(prepared)
    }

    fn rewrite(
        &self,
        hash: ModuleHash,
        input: &Bytes,
        engine: EngineKind,
        limits: &Limits,
    ) -> Result<Arc<dyn Prepared>, CellsError> {
        let module = match mielin_safepoint::instrument(input) {
            Err(InstrumentError::AlreadyRewritten) => Resumable::from_rewritten(input.to_vec())?,
            other => other?,
        };
        if module.bytes().len() > limits.module_bytes {
            return Err(too_large(module.bytes().len(), limits.module_bytes));
        }
        self.compile(hash, &module, engine)
    }

    /// A module that this node has already, by the hash of its rewritten form.
    pub(crate) fn known(&self, hash: ModuleHash, engine: EngineKind) -> Option<Arc<dyn Prepared>> {
        self.find(engine, |kept| kept.prepared.module().hash() == hash)
    }

    /// Accepts the rewritten module that a peer sent under this hash; blocks while it compiles.
    pub(crate) fn accept(
        &self,
        hash: ModuleHash,
        bytes: Vec<u8>,
        engine: EngineKind,
    ) -> Result<Arc<dyn Prepared>, CellsError> {
        let module = Resumable::from_rewritten(bytes)?;
        if module.hash() != hash {
            return Err(CellsError::Internal(
                "the module that arrived is not the one announced".to_owned(),
            ));
        }
        self.compile(hash, &module, engine)
    }

    fn compile(
        &self,
        input: ModuleHash,
        module: &Resumable,
        engine: EngineKind,
    ) -> Result<Arc<dyn Prepared>, CellsError> {
        let prepared = mielin_wasm::engine(engine)?.prepare(module, self.code.as_ref())?;
        let mut kept = lock(&self.kept);
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(Kept {
            input,
            engine,
            prepared: Arc::clone(&prepared),
        });
        Ok(prepared)
    }

    fn find(
        &self,
        engine: EngineKind,
        matches: impl Fn(&Kept) -> bool,
    ) -> Option<Arc<dyn Prepared>> {
        let mut kept = lock(&self.kept);
        let index = kept
            .iter()
            .position(|kept| kept.engine == engine && matches(kept))?;
        let found = kept.remove(index)?;
        let prepared = Arc::clone(&found.prepared);
        kept.push_back(found);
        Some(prepared)
    }
}

/// Whether both are the same memory, which nobody changes as long as either is there.
fn is_same(one: &Bytes, other: &Bytes) -> bool {
    one.as_ptr() == other.as_ptr() && one.len() == other.len()
}

fn too_large(len: usize, max: usize) -> CellsError {
    CellsError::TooLarge {
        what: "the module".to_owned(),
        len: len as u64,
        max: max as u64,
    }
}

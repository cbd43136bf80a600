//! Modules on their way to becoming agents: rewritten once, compiled once, found again by hash.
//!
//! A node runs what its own rewriter has made, and nothing that others say has been rewritten: only of that does it
//! know that it comes to safepoints. So it takes plain modules, from users and from other nodes, and where an agent is
//! to go on in one, it sees whether the rewriter makes the very module that the agent was stopped in.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use mielin_safepoint::{ModuleHash, Resumable, instrument};
use mielin_wasm::{CodeCache, EngineKind, Limits, Prepared};

use crate::config::CellsConfig;
use crate::error::CellsError;
use crate::lock::lock;

/// Rewritten modules kept after their last agent has gone, so that spawning again or coming back costs nothing.
const KEPT_MAX: usize = 32;
/// Bytes of these; their native code takes some times as much.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// The folder of native code in the node's data directory.
const CODE: &str = "code";

/// The rewritten modules of this node.
pub(crate) struct Modules {
    /// Most recently used last.
    kept: Mutex<VecDeque<Kept>>,
    /// What was handed in last, and what it became. Whoever spawns many agents of a module hands in the same bytes, and
    /// to hash them takes longer than the rest of a spawn.
    last: Mutex<Option<(Bytes, Kept)>>,
    /// Plain modules that are being made into them, each by whoever has its lock.
    making: Mutex<HashMap<(ModuleHash, EngineKind), Turn>>,
    /// Their native code on disk.
    code: Option<CodeCache>,
}

/// Who has it locked makes a module; the others wait for it.
type Turn = Arc<Mutex<()>>;

#[derive(Clone)]
struct Kept {
    /// BLAKE3 of the plain module.
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
            making: Mutex::default(),
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
        let made = || self.find(engine, |kept| kept.input == hash);
        let prepared = self.once(hash, engine, made, || {
            self.compile(hash, &rewrite(input, limits)?, engine)
        })?;
        let kept = Kept {
            input: hash,
            engine,
            prepared: Arc::clone(&prepared),
        };
        *lock(&self.last) = Some((input.clone(), kept));
        Ok(prepared)
    }

    /// A module that this node has already, by the hash of its rewritten form.
    pub(crate) fn known(&self, hash: ModuleHash, engine: EngineKind) -> Option<Arc<dyn Prepared>> {
        self.find(engine, |kept| kept.prepared.module().hash() == hash)
    }

    /// What an agent goes on in that was stopped in the rewritten module of this hash, made again of the plain one;
    /// blocks for as long as rewriting and compiling take.
    pub(crate) fn make_again(
        &self,
        hash: ModuleHash,
        plain: &[u8],
        engine: EngineKind,
        limits: &Limits,
    ) -> Result<Arc<dyn Prepared>, CellsError> {
        let input = ModuleHash::of(plain);
        let made = || self.known(hash, engine);
        self.once(input, engine, made, || {
            let module = rewrite(plain, limits)?;
            let found = module.hash();
            if found != hash {
                return Err(CellsError::OtherRewriter {
                    expected: hash,
                    found,
                });
            }
            self.compile(input, &module, engine)
        })
    }

    /// What was made before, or is made now. Who asks while it is being made waits for that, lest a module that a
    /// compiler works long on is compiled again with every try to move there.
    fn once(
        &self,
        input: ModuleHash,
        engine: EngineKind,
        made: impl Fn() -> Option<Arc<dyn Prepared>>,
        make: impl FnOnce() -> Result<Arc<dyn Prepared>, CellsError>,
    ) -> Result<Arc<dyn Prepared>, CellsError> {
        if let Some(prepared) = made() {
            return Ok(prepared);
        }
        let turn = Arc::clone(lock(&self.making).entry((input, engine)).or_default());
        let alone = lock(&turn);
        let prepared = match made() {
            Some(prepared) => Ok(prepared),
            None => make(),
        };
        drop(alone);
        drop(turn);
        lock(&self.making).retain(|_, turn| Arc::strong_count(turn) > 1);
        prepared
    }

    /// The same from the rewritten module that this node has kept itself, perhaps when it had another rewriter.
    pub(crate) fn take_back(
        &self,
        kept: Resumable,
        engine: EngineKind,
    ) -> Result<Arc<dyn Prepared>, CellsError> {
        self.compile(kept.hash(), &kept, engine)
    }

    fn compile(
        &self,
        input: ModuleHash,
        module: &Resumable,
        engine: EngineKind,
    ) -> Result<Arc<dyn Prepared>, CellsError> {
        let prepared = mielin_wasm::engine(engine)?.prepare(module, self.code.as_ref())?;
        let mut kept = lock(&self.kept);
        kept.push_back(Kept {
            input,
            engine,
            prepared: Arc::clone(&prepared),
        });
        let len = |kept: &Kept| kept.prepared.module().bytes().len();
        while kept.len() > KEPT_MAX || kept.iter().map(len).sum::<usize>() > KEPT_BYTES_MAX {
            kept.pop_front();
        }
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

fn rewrite(plain: &[u8], limits: &Limits) -> Result<Resumable, CellsError> {
    if plain.len() > limits.module_bytes {
        return Err(too_large(plain.len(), limits.module_bytes));
    }
    let module = instrument(plain)?;
    if module.bytes().len() > limits.module_bytes {
        return Err(too_large(module.bytes().len(), limits.module_bytes));
    }
    Ok(module)
}

/// The module that this one was made of.
pub(crate) fn plain(module: &Resumable) -> Result<Bytes, CellsError> {
    let plain = module.original().ok_or_else(|| {
        CellsError::Internal(format!("what module {} was made of is gone", module.hash()))
    })?;
    Ok(Bytes::copy_from_slice(plain))
}

fn too_large(len: usize, max: usize) -> CellsError {
    CellsError::TooLarge {
        what: "the module".to_owned(),
        len: len as u64,
        max: max as u64,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn modules_are_kept_by_number_and_by_size() {
        let modules = Modules::open(&CellsConfig::default()).unwrap();
        let limits = Limits::default();
        let program = |name: usize, bytes: usize| {
            let data = "x".repeat(bytes);
            let text = format!(
                r#"(module (memory (export "memory") 256) (data (i32.const {name}) "{data}") (func (export "_start")))"#
            );
            Bytes::from(wat::parse_str(text).unwrap())
        };
        for name in 0..KEPT_MAX + 3 {
            modules
                .prepare(&program(name, 1), EngineKind::Wasmi, &limits)
                .unwrap();
        }
        assert_eq!(lock(&modules.kept).len(), KEPT_MAX);
        for name in 0..4 {
            modules
                .prepare(&program(name, 9 << 20), EngineKind::Wasmi, &limits)
                .unwrap();
        }
        assert_eq!(lock(&modules.kept).len(), 3);
    }

    #[test]
    fn who_asks_for_a_module_while_it_is_made_waits_for_it() {
        let modules = Modules::open(&CellsConfig::default()).unwrap();
        let plain = wat::parse_str(r#"(module (func (export "_start")))"#).unwrap();
        let (input, module) = (ModuleHash::of(&plain), instrument(&plain).unwrap());
        let (made, together) = (AtomicUsize::new(0), Barrier::new(4));
        thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    together.wait();
                    let known = || modules.known(module.hash(), EngineKind::Wasmi);
                    let prepared = modules.once(input, EngineKind::Wasmi, known, || {
                        made.fetch_add(1, Ordering::Relaxed);
                        modules.compile(input, &module, EngineKind::Wasmi)
                    });
                    assert_eq!(prepared.unwrap().module().hash(), module.hash());
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
        assert!(lock(&modules.making).is_empty());
    }
}

//! One face for every WebAssembly engine.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use mielin_safepoint::{Execution, PAGE_SIZE, Resumable, Snapshot};

#[cfg(feature = "wasmtime")]
use crate::dirty::AbsentPages;
use crate::dirty::DirtyTracker;
use crate::sync::Once;
use crate::{
    CodeCache, HostState, Limits, NoRandomBytes, NotWoken, Outcome, Rested, Services, StateError,
    StopHandle, TrackError,
};

/// Compiles rewritten modules.
pub trait Engine: Send + Sync {
    /// Which one this is.
    fn kind(&self) -> EngineKind;

    /// Checks a module's imports and shape and compiles it. Compiled modules are kept in memory by
    /// their hash, so preparing the same one again costs a look-up. Native code is taken from
    /// `code` if that has it, and kept there otherwise; an engine that makes none does not look.
    ///
    /// # Errors
    /// The module is at fault: an import that nobody provides, a memory of the wrong shape, or
    /// something that the engine refuses.
    fn prepare(
        &self,
        module: &Resumable,
        code: Option<&CodeCache>,
    ) -> Result<Arc<dyn Prepared>, EngineError>;

    /// Whether [`Instance::let_follow`] works with this engine on this machine.
    #[cfg(feature = "wasmtime")]
    fn lets_follow(&self) -> bool;

    /// Checks and compiles a module as its author's compiler made it. It is not kept in memory.
    ///
    /// # Errors
    /// As for [`prepare`](Self::prepare), and for a module with a start function.
    fn prepare_plain(&self, wasm: &[u8]) -> Result<Arc<dyn Plain>, EngineError>;
}

/// A compiled module that was not rewritten: it can be run to its end, and neither be stopped nor
/// moved. The witness for what the rewritten module of the same program must do.
pub trait Plain: Send + Sync {
    /// Runs a new instance to its end; blocks the calling thread until then, also while the program
    /// sleeps. The thread needs [`THREAD_STACK_BYTES`](crate::THREAD_STACK_BYTES) of stack.
    ///
    /// The host functions are the same as for a rewritten program. They see the memory that the
    /// module exports as `memory`. Waiting for a message without a time limit is a trap.
    ///
    /// # Errors
    /// The module or the host state is over the limits, or there is no memory left.
    fn run(
        &self,
        host: HostState,
        services: Arc<dyn Services>,
        limits: &Limits,
    ) -> Result<Outcome, EngineError>;
}

/// A compiled module.
pub trait Prepared: Send + Sync {
    /// The module that was compiled.
    fn module(&self) -> &Resumable;

    /// Makes an instance that has not started: no code of the program runs before
    /// [`Instance::run`].
    ///
    /// # Errors
    /// The module or the host state is over the limits, or there is no memory left.
    fn instantiate(
        &self,
        host: HostState,
        services: Arc<dyn Services>,
        limits: &Limits,
    ) -> Result<Box<dyn Instance>, EngineError>;

    /// A program that has not started, as [`instantiate`](Self::instantiate) would make it, but without an instance.
    /// The first time one is made, to see whether the module has instances.
    ///
    /// # Errors
    /// The module or the host state is over the limits, or the module cannot be instantiated.
    fn rested(
        &self,
        host: HostState,
        services: Arc<dyn Services>,
        limits: &Limits,
    ) -> Result<Rested, EngineError>;

    /// Makes an instance for a program of this module that has none. Whoever asked the former instance to stop, or
    /// noted which of its pages were written, has nothing to do with this one.
    ///
    /// # Errors
    /// There is no memory left, or no room for mappings; it may work later.
    fn wake(&self, rested: Rested) -> Result<Box<dyn Instance>, Box<NotWoken>>;
}

/// A program: its memory, its stack and its host state.
pub trait Instance: Send {
    /// Starts, or resumes where the last run stopped; blocks the calling thread until the program
    /// leaves. The thread needs [`THREAD_STACK_BYTES`](crate::THREAD_STACK_BYTES) of stack.
    fn run(&mut self) -> Outcome;

    /// A handle by which any thread can ask the program to stop.
    fn stop_handle(&self) -> StopHandle;

    /// The program's host state.
    fn host(&self) -> &HostState;

    /// The program's host state, to change it between runs.
    fn host_mut(&mut self) -> &mut HostState;

    /// The program's memory, as the program sees it; empty if it has none.
    fn memory(&self) -> &[u8];

    /// The size of the program's memory.
    fn memory_bytes(&self) -> u64 {
        self.memory().len() as u64
    }

    /// Zeroes the program's memory. A fresh instance holds the module's data segments, and pages
    /// that a source does not send are zero, so whoever receives pages one by one begins with this.
    fn clear(&mut self);

    /// Grows the program's memory to this size, rounded up to 64 KiB, if it is smaller.
    ///
    /// # Errors
    /// The size is over the limits or the module's own maximum.
    fn grow(&mut self, bytes: u64) -> Result<(), EngineError>;

    /// Makes pages absent, given as runs that ascend, each a first index and a length: the program may run, and waits
    /// where it touches one of them until that is put in place. What they held is gone.
    ///
    /// # Errors
    /// A run is not inside the memory, or this engine or machine cannot do it; see [`Engine::lets_follow`].
    #[cfg(feature = "wasmtime")]
    fn let_follow(&mut self, runs: &[(u32, u32)]) -> Result<Box<dyn AbsentPages>, EngineError>;

    /// The pages that may hold something else than zeros, ascending: those that the kernel has, or, where it does not
    /// tell, those that are not zero.
    fn touched_pages(&self) -> Vec<u32>;

    /// Copies a page of the program's memory; beyond its end there are zeros.
    fn read_page(&self, index: u32, out: &mut [u8; PAGE_SIZE]);

    /// Overwrites a page of the program's memory.
    ///
    /// # Errors
    /// The page is beyond the end of the memory.
    fn write_page(&mut self, index: u32, page: &[u8; PAGE_SIZE]) -> Result<(), EngineError> {
        self.write_pages(index, core::slice::from_ref(page))
    }

    /// Overwrites pages of the program's memory that are neighbours, from `first` on.
    ///
    /// # Errors
    /// A page is beyond the end of the memory. Nothing has changed then.
    fn write_pages(&mut self, first: u32, pages: &[[u8; PAGE_SIZE]]) -> Result<(), EngineError>;

    /// Globals and stack of a program that is not running.
    fn execution(&self) -> Execution;

    /// Puts globals and stack in place, so that the next run resumes there. Memory and host state
    /// are the caller's to restore.
    ///
    /// # Errors
    /// They do not fit this module. Nothing has changed then.
    fn restore(&mut self, execution: &Execution) -> Result<(), EngineError>;

    /// Everything that the program is, at a time when it is not running.
    fn snapshot(&self) -> Snapshot;

    /// Becomes what the snapshot says: memory, stack, globals and host state.
    ///
    /// # Errors
    /// The snapshot is of another module, does not fit the limits or is damaged. The instance should
    /// then be dropped: parts of it may have changed.
    fn load(&mut self, snapshot: &Snapshot) -> Result<(), EngineError>;

    /// Starts noting which pages are written, by the best way that passed its self-test here.
    /// `MIELIN_DIRTY=page-hash` in the environment makes it the portable way.
    ///
    /// # Errors
    /// The node has no random bytes for the page hashes' key.
    fn track(&mut self) -> Result<Box<dyn DirtyTracker>, EngineError>;

    /// Gives back what the engine has of a program that is not running, until [`Prepared::wake`]. Takes as long as
    /// looking at the pages that the program has touched.
    ///
    /// # Errors
    /// The instance, as it was: somebody notes which of its pages are written, or places pages that are still to come;
    /// or so much of its memory has changed that to copy it would take too long.
    fn rest(self: Box<Self>) -> Result<Rested, Box<dyn Instance>>;
}

/// The engines there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// Compiles to native code: the fastest on hosts, and only there (feature `wasmtime`).
    #[cfg_attr(feature = "wasmtime", default)]
    Wasmtime,
    /// Interprets: small, and everywhere.
    #[cfg_attr(not(feature = "wasmtime"), default)]
    Wasmi,
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wasmtime => "wasmtime",
            Self::Wasmi => "wasmi",
        })
    }
}

/// A text that names no engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no engine is called {text:?}; there are wasmtime and wasmi")]
pub struct EngineKindError {
    /// The text that was refused.
    pub text: String,
}

impl FromStr for EngineKind {
    type Err = EngineKindError;

    fn from_str(text: &str) -> Result<Self, EngineKindError> {
        match text {
            "wasmtime" => Ok(Self::Wasmtime),
            "wasmi" => Ok(Self::Wasmi),
            _ => Err(EngineKindError {
                text: text.chars().take(64).collect(),
            }),
        }
    }
}

/// The engine of this kind; there is one of each in a process, with one cache of compiled modules.
///
/// # Errors
/// [`EngineError::Unsupported`] if this machine cannot run it, or was built without it.
pub fn engine(kind: EngineKind) -> Result<Arc<dyn Engine>, EngineError> {
    static WASMI: Once<Arc<dyn Engine>> = Once::new();
    match kind {
        EngineKind::Wasmtime => wasmtime().map_err(|reason| EngineError::Unsupported {
            engine: kind,
            reason,
        }),
        EngineKind::Wasmi => Ok(WASMI
            .get_or_init(|| Arc::new(crate::wasmi::Wasmi::new()))
            .clone()),
    }
}

/// An interpreter that shares nothing with the one of [`engine`], its cache included. wasmi keeps what it has made of a module for as long as its engine
/// lives, so a node with little memory makes another one when the last of its programs has gone.
pub fn interpreter() -> Arc<dyn Engine> {
    Arc::new(crate::wasmi::Wasmi::new())
}

#[cfg(feature = "wasmtime")]
fn wasmtime() -> Result<Arc<dyn Engine>, String> {
    static WASMTIME: Once<Result<Arc<dyn Engine>, String>> = Once::new();
    WASMTIME
        .get_or_init(|| match crate::wasmtime::Wasmtime::new() {
            Ok(engine) => Ok(Arc::new(engine)),
            Err(reason) => Err(format!("{reason:#}")),
        })
        .clone()
}

#[cfg(not(feature = "wasmtime"))]
fn wasmtime() -> Result<Arc<dyn Engine>, String> {
    Err("the node was built without it".into())
}

/// A module, a snapshot or this machine is not what an engine needs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// This machine cannot run the engine.
    #[error("{engine} does not work on this machine: {reason}")]
    Unsupported {
        /// The engine that was asked for.
        engine: EngineKind,
        /// Its own words.
        reason: String,
    },
    /// The module imports something that no node provides.
    #[error("nobody provides the import {module}.{name}")]
    UnknownImport {
        /// The import's module.
        module: String,
        /// The import's name.
        name: String,
    },
    /// The module imports a host function under another signature than it has.
    #[error("the import {module}.{name} has the type {found}, but the node provides {expected}")]
    ImportType {
        /// The import's module.
        module: String,
        /// The import's name.
        name: String,
        /// The type that the node provides.
        expected: String,
        /// The type that the module asks for.
        found: String,
    },
    /// The module is not shaped as the rewriter shapes it.
    #[error("the module is not a resumable one: {reason}")]
    Shape {
        /// What is missing or different.
        reason: String,
    },
    /// The engine refuses to compile or instantiate the module.
    #[error("{engine} refuses the module: {reason}")]
    Refused {
        /// The engine.
        engine: EngineKind,
        /// Its own words.
        reason: String,
    },
    /// The module could be compiled for minutes.
    #[error(
        "compiling the module could take {seconds} seconds, and {seconds_max} are the most: function {function} has \
         {blocks} branches, loops and calls, {locals} locals, and {assignments} assignments to them; \
         split it up, or use a node with wasmi, which does not compile"
    )]
    TooMuchWork {
        /// The function with the most work, with its size in the rewritten form.
        function: u32,
        /// Its branches, loops and calls, about.
        blocks: u64,
        /// Its locals.
        locals: u64,
        /// Its instructions that change a local.
        assignments: u64,
        /// How long compiling could take, estimated for a core of a server of the year 2024.
        seconds: u64,
        /// The limit.
        seconds_max: u64,
    },
    /// Something is larger than the limits allow.
    #[error("{what}: {found} bytes are over the limit of {limit}")]
    OverLimit {
        /// What is too large.
        what: &'static str,
        /// The limit in bytes.
        limit: u64,
        /// The size in bytes.
        found: u64,
    },
    /// The memory could not be grown.
    #[error("the memory cannot grow to {bytes} bytes")]
    Grow {
        /// The size that was asked for.
        bytes: u64,
    },
    /// A page beyond the end of the memory.
    #[error("page {index} is beyond the end of the memory of {memory_bytes} bytes")]
    PageRange {
        /// The page's index.
        index: u32,
        /// The size of the memory.
        memory_bytes: u64,
    },
    /// A snapshot of another module.
    #[error("the snapshot is of module {found}, not of {expected}")]
    WrongModule {
        /// The module of this instance.
        expected: String,
        /// The module of the snapshot.
        found: String,
    },
    /// Globals or frames that do not fit the module.
    #[error("the execution state does not fit the module: {reason}")]
    Execution {
        /// What does not fit.
        reason: String,
    },
    /// The host state is damaged.
    #[error("the host state cannot be read: {0}")]
    State(#[from] StateError),
    /// Pages cannot follow a running program.
    #[error("the program cannot run before all of its memory is here: {0}")]
    Follow(#[from] TrackError),
    /// The platform gave no random bytes.
    #[error("the machine gave no random bytes: {0}")]
    Entropy(#[from] NoRandomBytes),
}

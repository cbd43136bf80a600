//! What differs from engine to engine, as small operations; the rest is in `prepared` and `program`.

use mielin_safepoint::GlobalValue;

use crate::cache::Cache;
use crate::dirty::{RegionOwner, RegionSize};
use crate::host::{Context, Exit};
use crate::poll_word::Frames;
use crate::{CodeCache, EngineError, EngineKind, Trap, TrapKind};

/// An engine with its host functions linked.
pub(crate) trait Adapter: Send + Sync {
    const KIND: EngineKind;
    type Machine: Machine;

    /// Compiles a module whose imports were checked, or finds its native code.
    fn compile(
        &self,
        wasm: &[u8],
        code: Option<&CodeCache>,
    ) -> Result<<Self::Machine as Machine>::Code, EngineError>;

    fn cache(&self) -> &Cache;
}

/// An engine's store with one instance in it.
pub(crate) trait Machine: Send + Sized + 'static {
    /// A compiled and linked module.
    type Code: Send + Sync;
    type Global: Copy + Send;

    /// An instance of which no code has run. `entry` and `memory` are the names of exports; there
    /// may be no memory.
    fn new(
        code: &Self::Code,
        context: Context,
        growth: Growth,
        entry: &str,
        memory: &str,
    ) -> Result<Self, EngineError>;

    /// Calls the entry.
    fn enter(&mut self) -> Result<(), Failure>;

    /// An exported global that is no reference.
    fn global(&mut self, name: &str) -> Option<Self::Global>;
    fn get(&mut self, global: Self::Global) -> GlobalValue;
    /// The value must be of the global's type.
    fn set(&mut self, global: Self::Global, value: GlobalValue);

    /// The frames memory; none if there is no proper one. Whoever gets it drops it before the machine.
    fn frames(&mut self) -> Option<Frames>;
    /// The place of the program's memory, which may grow to `bytes_max`, if it never moves.
    fn region(&self, bytes_max: u64) -> Option<RegionOwner>;

    fn context(&self) -> &Context;
    fn context_mut(&mut self) -> &mut Context;
    fn into_context(self) -> Context;
    /// From now on memories and tables may grow as this says.
    fn bound(&mut self, growth: Growth);
    /// The program's memory; empty if it has none.
    fn memory(&self) -> &[u8];
    fn memory_mut(&mut self) -> &mut [u8];
    /// False if the memory cannot become this much larger.
    fn grow(&mut self, wasm_pages: u64) -> bool;
}

/// What an engine's store holds beside the instance.
pub(crate) struct Data<M, G, L> {
    pub(crate) context: Context,
    pub(crate) limiter: L,
    /// The program's memory.
    pub(crate) memory: Option<M>,
    /// Says that the program unwinds; a plain program has none.
    pub(crate) mode: Option<G>,
}

/// How a call of the entry fails.
pub(crate) enum Failure {
    Exited(i32),
    Trapped(Trap),
}

impl Failure {
    /// What a host function gave as an error.
    pub(crate) fn of_exit(exit: &Exit) -> Self {
        match exit {
            Exit::Process(code) => Self::Exited(*code),
            Exit::EndlessWait => Self::Trapped(TrapKind::EndlessWait.into()),
        }
    }
}

/// Whether a memory or table may grow.
pub(crate) struct Growth {
    /// None while an instance of a rewritten module is made: the memories that it declares were
    /// checked, and the one for frames is not the program's.
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) table_elements: usize,
    pub(crate) region: Option<RegionSize>,
}

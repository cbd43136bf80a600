//! Sandboxed, resumable WebAssembly instances on wasmtime and wasmi, with a WASI preview 1 whose
//! state is data.
//!
//! An [`Engine`] compiles a module that [`mielin_safepoint`] has rewritten; a [`Prepared`] module
//! makes [`Instance`]s; [`Instance::run`] runs one until it ends, blocks, or is asked to stop
//! through its [`StopHandle`], and the next `run` goes on from there: in this process, or, after
//! [`Instance::snapshot`] and [`Instance::load`], on another engine and machine.
//!
//! [`Engine::prepare_plain`] takes a module that was not rewritten and runs it to its end: what a
//! program does there is what it must do when it is stopped and moved.
//!
//! What a program may ask of its host is in `docs/AGENT_ABI.md`: all of WASI preview 1 (its only
//! files are in a `/data` of its own) and the import module `mielin`. The host functions are written once, against a
//! slice of memory, a [`HostState`] and the node's [`Services`], and linked into both engines.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use mielin_wasm::*;
//!
//! /// A node that provides nothing and notes nothing.
//! struct Bare;
//! impl Services for Bare {
//!     fn write_log(&self, _: LogStream, _: &[u8]) -> Result<usize, LogError> { Err(LogError::Full) }
//!     fn log(&self, _: Level, _: &str) {}
//!     fn send(&self, _: Address, _: MessageKind, _: &[u8]) -> Result<u64, SendError> { Err(SendError::Unknown) }
//!     fn receive(&self, _: usize) -> Receive { Receive::Empty }
//!     fn denied(&self, _: &Capability, _: &'static str) {}
//! }
//!
//! let endless = wat::parse_str(
//!     r#"(module (memory (export "memory") 1) (func (export "_start") (loop $again (br $again))))"#,
//! )?;
//! let module = mielin_safepoint::instrument(&endless)?;
//! let make = |kind| -> Result<Box<dyn Instance>, EngineError> {
//!     let host = HostState::new(Address::default());
//!     engine(kind)?.prepare(&module, None)?.instantiate(host, Arc::new(Bare), &Limits::default())
//! };
//!
//! let mut here = make(EngineKind::Wasmtime)?;
//! here.stop_handle().request();
//! assert_eq!(here.run(), Outcome::Stopped);
//!
//! let mut there = make(EngineKind::Wasmi)?;
//! there.load(&here.snapshot())?;
//! there.stop_handle().request();
//! assert_eq!(there.run(), Outcome::Stopped);
//! # Ok(())
//! # }
//! ```
//!
//! Deliberately not here: scheduling, mailboxes and policy (`mielin-cells`), anything that knows of
//! other nodes, and the rewriting itself. One engine feature is deliberately unused: fuel and
//! epochs, because the rewritten module's own polls already stop it.

mod address;
mod cache;
mod capability;
mod code_cache;
mod compile_work;
mod dirty;
mod engine;
mod filesystem;
mod host;
mod imports;
mod limits;
mod machine;
mod outcome;
mod poll_word;
mod prepared;
mod program;
mod rested;
mod services;
mod state;
mod thread_clock;
mod wasmi;
mod wasmtime;

pub use address::{Address, AddressError};
pub use capability::{Capability, CapabilityError, DataBytes, Grants, Target};
pub use code_cache::CodeCache;
pub use dirty::{AbsentPages, DirtyTracker, Fingerprint, PageKey, PageSet, TrackError, Watch};
pub use engine::{
    Engine, EngineError, EngineKind, EngineKindError, Instance, Plain, Prepared, engine,
};
pub use filesystem::BlockStream;
pub use limits::{DATA_BYTES_MAX, Limits, MODULE_BYTES_MAX, THREAD_STACK_BYTES, WASM_STACK_BYTES};
pub use outcome::{Outcome, Trap, TrapKind, Wait};
pub use poll_word::StopHandle;
pub use rested::{NotWoken, Rested};
pub use services::{
    Level, LogError, LogStream, MessageKind, Receive, Received, SendError, Services,
};
pub use state::{HostState, StateError};
pub use thread_clock::ThreadClock;

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

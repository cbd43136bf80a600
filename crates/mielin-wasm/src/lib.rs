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
//! # Features
//!
//! | feature | brings | without it |
//! |---|---|---|
//! | `wasmtime` (default; implies `std`) | native code: [`EngineKind::Wasmtime`], `CodeCache`, written pages by the kernel's help, `AbsentPages` | wasmi alone, and written pages by their hashes |
//! | `std` (default) | `Hosted`, the clocks and random numbers of the operating system, with `HostState::new`; locks that sleep; `ThreadClock` | the crate is `no_std` with `alloc`; a [`Platform`] is given by whoever uses it |
//!
//! wasmi is always there. A snapshot has the same form in all cases: what ran on a bare node goes on under a host's
//! wasmtime, and the other way round. [`Checkpoint`] is the file in which it goes there together with its module.
//!
//! # On a bare node
//!
//! A program without an operating system brings an allocator, a [`Platform`] and its [`Services`]:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! extern crate alloc;
//!
//! use alloc::sync::Arc;
//! use core::sync::atomic::{AtomicU64, Ordering};
//! use mielin_safepoint::{Resumable, Snapshot, SnapshotLimits};
//! use mielin_wasm::*;
//!
//! /// A machine with a counter of 10 MHz, and without a clock on the wall or a source of random numbers.
//! #[derive(Debug)]
//! struct Board;
//! # static COUNTER: AtomicU64 = AtomicU64::new(0);
//! # fn counter() -> u64 { COUNTER.fetch_add(1, Ordering::Relaxed) }
//! impl Platform for Board {
//!     fn monotonic_ns(&self) -> u64 { counter() * 100 }
//!     fn realtime_ns(&self) -> u64 { 0 }
//!     fn fill_random(&self, _: &mut [u8]) -> Result<(), NoRandomBytes> {
//!         Err(NoRandomBytes { reason: "this board has no generator".into() })
//!     }
//! }
//!
//! /// What the program may use of the node: here so many calls, after which it is to leave.
//! struct Slice { calls: AtomicU64 }
//! # fn console(_: &[u8]) {}
//! impl Services for Slice {
//!     fn write_log(&self, _: LogStream, bytes: &[u8]) -> Result<usize, LogError> { console(bytes); Ok(bytes.len()) }
//!     fn log(&self, _: Level, message: &str) { console(message.as_bytes()) }
//!     fn send(&self, _: Address, _: MessageKind, _: &[u8]) -> Result<u64, SendError> { Err(SendError::Unknown) }
//!     fn receive(&self, _: usize) -> Receive { Receive::Empty }
//!     fn denied(&self, _: &Capability, _: &'static str) {}
//!     fn called(&self) -> bool { self.calls.fetch_add(1, Ordering::Relaxed) == 2 }
//! }
//!
//! # let text = wat::parse_str(r#"(module (import "mielin" "abi_version" (func $call (result i32)))
//! #     (memory (export "memory") 1) (func (export "_start") (local i32) (loop $again (drop (call $call))
//! #     (local.set 0 (i32.add (local.get 0) (i32.const 1))) (br_if $again (i32.lt_u (local.get 0) (i32.const 9))))))"#)?;
//! # let bytes = mielin_safepoint::instrument(&text)?.bytes().to_vec();
//! // The module as `mielin_safepoint::instrument` made it, here or on a host.
//! let module = Resumable::from_rewritten(bytes)?;
//! let prepared = engine(EngineKind::Wasmi)?.prepare(&module, None)?;
//! let limits = Limits { memory_bytes: 2 << 20, message_bytes: 4096, ..Limits::default() };
//! let make = |services: &Arc<Slice>| {
//!     let host = HostState::on(&Board, Address([1; 16])).with_args(["agent"]);
//!     prepared.instantiate(host, services.clone(), &limits)
//! };
//!
//! let services = Arc::new(Slice { calls: AtomicU64::new(0) });
//! let mut agent = make(&services)?;
//! assert_eq!(agent.run(), Outcome::Stopped);
//! // To any other node.
//! let bytes = agent.snapshot().encode();
//! # drop(agent);
//!
//! let mut agent = make(&services)?;
//! agent.load(&Snapshot::decode(&bytes, &SnapshotLimits::default())?)?;
//! assert_eq!(agent.run(), Outcome::Exited(0));
//! assert_eq!(services.calls.load(Ordering::Relaxed), 9);
//! # Ok(())
//! # }
//! ```
//!
//! A program that waits gives [`Outcome::Blocked`], and its thread is free until the time, the message or the reading that
//! it waits for has come. A node with sensors or actuators implements [`Services::sense`] and [`Services::actuate`]. One that computes stops when its [`StopHandle`] is asked to, by another thread of the same address space with
//! the same priority (the lock that both take for a few instructions spins), or when [`Services::called`] says so. Beside
//! the memory that a program has and may grow to, an instance takes the 4 MiB of
//! [`FRAMES_PAGES`](mielin_safepoint::abi::FRAMES_PAGES), in one piece, or what
//! [`with_frames_pages`](mielin_safepoint::Resumable::with_frames_pages) leaves of it. The features `simd` and `tensor` add what the
//! smallest nodes have no room for.
//!
//! Deliberately not here: scheduling, mailboxes and policy (`mielin-cells`), anything that knows of
//! other nodes, and the rewriting itself. One engine feature is deliberately unused: fuel and
//! epochs, because the rewritten module's own polls already stop it.

#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod address;
mod cache;
mod capability;
mod checkpoint;
#[cfg(feature = "wasmtime")]
mod code_cache;
#[cfg(feature = "wasmtime")]
mod compile_work;
mod dirty;
mod engine;
mod filesystem;
mod host;
mod imports;
mod limits;
mod machine;
#[cfg(not(feature = "wasmtime"))]
mod no_code_cache;
mod outcome;
mod platform;
mod poll_word;
mod prepared;
mod program;
mod rested;
mod services;
mod state;
mod sync;
#[cfg(feature = "std")]
mod thread_clock;
mod wasmi;
#[cfg(feature = "wasmtime")]
mod wasmtime;

pub use address::{Address, AddressError};
pub use capability::{Capability, CapabilityError, DataBytes, Grants, Port, Target};
pub use checkpoint::{Checkpoint, CheckpointFormError};
#[cfg(feature = "wasmtime")]
pub use code_cache::CodeCache;
#[cfg(feature = "wasmtime")]
pub use dirty::{AbsentPages, Watch};
pub use dirty::{DirtyTracker, Fingerprint, PageKey, PageSet, TrackError};
pub use engine::{
    Engine, EngineError, EngineKind, EngineKindError, Instance, Plain, Prepared, engine,
    interpreter,
};
pub use filesystem::BlockStream;
pub use limits::{DATA_BYTES_MAX, Limits, MODULE_BYTES_MAX, THREAD_STACK_BYTES, WASM_STACK_BYTES};
#[cfg(not(feature = "wasmtime"))]
pub use no_code_cache::CodeCache;
pub use outcome::{Outcome, Trap, TrapKind, Wait};
#[cfg(feature = "std")]
pub use platform::Hosted;
pub use platform::{NoRandomBytes, Platform};
pub use poll_word::StopHandle;
pub use rested::{NotWoken, Rested};
pub use services::{
    Actuated, Discarded, Level, LogError, LogStream, MessageKind, Reading, Receive, Received,
    SendError, Sensed, Services,
};
pub use state::{HostState, StateError};
#[cfg(feature = "std")]
pub use thread_clock::ThreadClock;

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

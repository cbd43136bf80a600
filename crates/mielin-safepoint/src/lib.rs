//! Rewrites a WebAssembly module so that a running program can be frozen, moved and resumed.
//!
//! A program that went through [`instrument`] polls one word, in a memory apart from its own, at
//! loop headers and at the entries of functions that can recurse. When that word says *stop*, the
//! program writes what is alive into frames behind that word, returns from all its
//! functions, and can later be called again, on another machine and under another engine, to
//! go on where it was. [`abi`] describes the exports through which a host drives that;
//! [`Snapshot`] is the portable form of a stopped program. `examples/save_and_resume.rs` is a whole host on wasmtime:
//! it saves a running program to a file and resumes it in another process.
//!
//! This crate is not an engine and does no input or output: it turns bytes into bytes, the
//! same ones on every machine, and needs nothing but an allocator.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let plain = wat::parse_str(
//!     r#"(module (memory (export "memory") 1) (func (export "_start") (loop $again (br $again))))"#,
//! )?;
//! let program = mielin_safepoint::instrument(&plain)?;
//! assert_eq!(program.manifest().memory.minimum_pages, 1);
//! let same = mielin_safepoint::Resumable::from_rewritten(program.bytes().to_vec())?;
//! assert_eq!(same.hash(), program.hash());
//! # Ok(())
//! # }
//! ```

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod abi;
mod error;
mod frames;
mod nans;
mod resumable;
mod rewrite;
mod snapshot;

pub use error::{Feature, FunctionName, InstrumentError};
pub use frames::Frames;
pub use nans::canonical_nans;
pub use resumable::{GlobalInfo, Manifest, MemoryInfo, ModuleHash, Resumable, ValueType};
pub use rewrite::instrument;
pub use snapshot::{
    Execution, GlobalValue, HostSection, PAGE_SIZE, Page, Snapshot, SnapshotError, SnapshotLimits,
};

//! What a host and a rewritten module agree on.
//!
//! # Exports
//! [`ENTRY`] is the function to call, [`FRAMES`] the memory that holds the control words and
//! the frames, [`MODE`] a mutable `i32` global. The program's memory and its mutable globals
//! are exported under the names that the [`Manifest`](crate::Manifest) gives.
//!
//! # Control words, in the frames memory
//! | address | meaning |
//! |---|---|
//! | [`FLAG_ADDRESS`] | one of [`RUNNING`], [`STOP_REQUESTED`], [`UNWINDING`], [`REWINDING`] |
//! | [`NEXT_FLAG_ADDRESS`] | the value that the flag takes when a rewind has finished |
//! | [`STACK_POINTER_ADDRESS`] | offset of the byte after the last frame |
//! | [`POINT_ADDRESS`] | the module's own note while it rewinds |
//! | [`FRAMES_BASE`] | the innermost frame begins here; those of its callers follow, and then the tables that can change |
//!
//! # Protocol
//! - **Run.** Call [`ENTRY`]. It returns when the program has returned ([`MODE`] is
//!   [`RUNNING`]) or has unwound ([`MODE`] is [`UNWINDING`]).
//! - **Stop**, from any thread: compare-and-exchange the flag from [`RUNNING`] to
//!   [`STOP_REQUESTED`], and retry while it has another value. A plain store could destroy a
//!   rewind that is under way. If the program has not begun, [`ENTRY`] stops it at once.
//! - **Suspend in a host call**: the host stores [`UNWINDING`] in the flag and in [`MODE`] and
//!   returns anything. On resume the module issues the same call again with the same arguments.
//! - **After an unwind** the host sets the flag and [`MODE`] to [`RUNNING`]. The state to keep is
//!   the program's memory, its mutable globals and the frame bytes from [`FRAMES_BASE`] to the
//!   stack pointer.
//! - **Resume**: put that state back (a fresh instance's memory holds the module's data
//!   segments, so pages that are absent in a snapshot must be cleared), store [`REWINDING`] in
//!   the flag and in [`MODE`], and call [`ENTRY`]. The module itself sets both back when the
//!   innermost frame is reached: [`MODE`] to [`RUNNING`], then the flag to the word at
//!   [`NEXT_FLAG_ADDRESS`], which only the host writes (it is [`RUNNING`] in a new instance). With
//!   [`STOP_REQUESTED`] there, the program advances exactly to its next poll: a
//!   deterministic single step. A program that has not begun (no frames) may be resumed too.
//! - **After a trap** the instance is finished: its frames mean nothing.
//!
//! [`Frames`](crate::Frames) reads and writes the control words and the frames for a host that has the bytes of
//! the memory [`FRAMES`].
//!
//! Only [`ENTRY`] may be called. Frames that come from a hostile source can make the program
//! compute nonsense or trap, but never leave the sandbox: they are read by ordinary
//! bounds-checked code.
//!
//! # Determinism
//! The bits of a NaN that an instruction computes differ between machines, and a program can look
//! at them. An engine whose snapshots go elsewhere must make them canonical: wasmi by being built with its feature
//! `deterministic`, wasmtime by its setting `cranelift_nan_canonicalization` or, for programs that compute a lot, by compiling what
//! [`canonical_nans`](crate::canonical_nans) makes of the module. The rewriter itself moves values by loads and stores, which keep the bits.

/// Function `() -> ()`: runs the start function and `_start`, or resumes.
pub const ENTRY: &str = "mielin:run";
/// The memory that holds the control words and the frames.
pub const FRAMES: &str = "mielin:frames";
/// Mutable `i32` global, set together with the flag by whoever begins an unwind or a rewind.
pub const MODE: &str = "mielin:mode";
/// Export name of the program's memory where the program exports it itself.
pub const MEMORY: &str = "memory";
/// Export name of the program's memory where the program does not export it as [`MEMORY`].
pub const HIDDEN_MEMORY: &str = "mielin:memory";
/// Mutable globals are exported under this prefix followed by their index.
pub const GLOBAL_PREFIX: &str = "mielin:global:";
/// Names with this prefix are reserved: a program that exports one is refused.
pub const RESERVED_PREFIX: &str = "mielin:";
/// Custom section that marks a rewritten module and holds [`VERSION`] as `u32`, little endian.
pub const SECTION: &str = "mielin.safepoint";
/// Version of this interface and of the frames' layout.
pub const VERSION: u32 = 2;

/// Address of the flag (`i32`).
pub const FLAG_ADDRESS: u32 = 0;
/// Address of the flag's value after a rewind (`i32`).
pub const NEXT_FLAG_ADDRESS: u32 = 4;
/// Address of the stack pointer (`i32`).
pub const STACK_POINTER_ADDRESS: u32 = 8;
/// Address of a word in which the module keeps the point that it rewinds to (`i32`).
pub const POINT_ADDRESS: u32 = 12;
/// Address of the innermost frame; the stack pointer of a program without frames.
pub const FRAMES_BASE: u32 = 16;
/// Size of the frames memory in 64 KiB pages; minimum and maximum alike.
///
/// A program whose frames and changing tables do not fit traps while it unwinds. What is live across calls is on
/// the engine's own stack too, so that one which bounds that lower traps before.
pub const FRAMES_PAGES: u64 = 64;

/// Flag and mode: the program runs, or nothing is going on.
pub const RUNNING: i32 = 0;
/// Flag only: stop at the next poll.
pub const STOP_REQUESTED: i32 = 1;
/// Flag and mode: functions are writing their frames and returning.
pub const UNWINDING: i32 = 2;
/// Flag and mode: functions are being entered again and read their frames.
pub const REWINDING: i32 = 3;

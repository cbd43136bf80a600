//! WASI preview 1 without a file system (snapshot 1, `wasi_snapshot_preview1`).
//!
//! All 46 functions can be imported. The three standard streams exist; every other descriptor gives
//! `EBADF`, and paths have no directory to start from (`ENOTDIR` on a stream).

pub(crate) mod absent;
pub(crate) mod clock;
pub(crate) mod descriptor;
pub(crate) mod poll;
pub(crate) mod program;
pub(crate) mod stream;

//! WASI preview 1 (snapshot 1, `wasi_snapshot_preview1`).
//!
//! All 46 functions can be imported. The three standard streams exist, and `/data` if it is granted;
//! sockets do not.

pub(crate) mod absent;
pub(crate) mod clock;
pub(crate) mod descriptor;
pub(crate) mod directory;
pub(crate) mod file;
pub(crate) mod path;
pub(crate) mod poll;
pub(crate) mod program;
pub(crate) mod stream;

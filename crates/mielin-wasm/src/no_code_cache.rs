//! What stands in for the cache of native code where none is made.

/// A directory of native code. Without the feature `wasmtime` there is none, and this type has no values.
#[derive(Debug)]
pub enum CodeCache {}

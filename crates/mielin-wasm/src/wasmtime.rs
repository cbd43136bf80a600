//! The engine wasmtime.
use crate::{Engine, EngineError, EngineKind, Prepared};
use mielin_safepoint::Resumable;
use std::sync::Arc;
pub(crate) struct Wasmtime;
impl Wasmtime {
    pub(crate) fn new() -> Result<Self, EngineError> {
        todo!()
    }
}
impl Engine for Wasmtime {
    fn kind(&self) -> EngineKind {
        EngineKind::Wasmtime
    }
    fn prepare(&self, _module: &Resumable) -> Result<Arc<dyn Prepared>, EngineError> {
        todo!()
    }
}

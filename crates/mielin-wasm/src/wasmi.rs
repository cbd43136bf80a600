//! The engine wasmi.
use crate::{Engine, EngineError, EngineKind, Prepared};
use mielin_safepoint::Resumable;
use std::sync::Arc;
pub(crate) struct Wasmi;
impl Wasmi {
    pub(crate) fn new() -> Self {
        todo!()
    }
}
impl Engine for Wasmi {
    fn kind(&self) -> EngineKind {
        EngineKind::Wasmi
    }
    fn prepare(&self, _module: &Resumable) -> Result<Arc<dyn Prepared>, EngineError> {
        todo!()
    }
}

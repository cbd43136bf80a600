//! What each command does with its arguments.

pub(crate) mod agent;
mod copies;
mod leaves;
pub(crate) mod mesh;
pub(crate) mod node;
mod reach;
mod top;
mod trouble;
pub(crate) mod wasm;

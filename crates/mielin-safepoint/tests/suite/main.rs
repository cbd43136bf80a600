//! Rewritten programs against plain ones, on two engines.
#![allow(clippy::unwrap_used)]

mod command;
mod hosts;
mod interpreters;
mod random;
mod references;
mod refusals;
mod sources;
mod spec;
mod stepping;

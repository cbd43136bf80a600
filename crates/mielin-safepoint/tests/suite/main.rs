//! Rewritten programs against plain ones, on two engines.
#![allow(clippy::unwrap_used)]

mod command;
mod epochs;
mod hosts;
mod interpreters;
mod nans;
mod random;
mod references;
mod refusals;
mod sources;
mod spec;
mod stepping;

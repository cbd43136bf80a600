//! Rewritten programs against plain ones, on two engines.
#![allow(clippy::unwrap_used)]

mod hosts;
mod hoisting;
mod random;
mod refusals;
mod sources;
mod stepping;

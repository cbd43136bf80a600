//! Agents on real nodes: several of them in this process, over QUIC on loopback.
#![allow(clippy::unwrap_used)]

mod bare;
mod budgets;
mod copies;
mod doubts;
mod files;
mod kills;
mod leaves;
mod life;
mod many;
mod messages;
mod moves;
mod nodes;
mod programs;
mod refusals;
mod sleep;
mod soft_leaf;

//! Agents: lifecycle, mailboxes, limits and live migration.
#![allow(unused, clippy::todo)]

mod cells;
mod config;
mod error;
mod report;

pub use cells::{Cells, LogReader};
pub use config::{CellsConfig, MoveProbe, MoveSide, ProbeAnswer};
pub use error::{CellsError, ErrorKind};
pub use report::*;

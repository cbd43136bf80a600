//! Agents: their life, their messages and their moves from node to node.
//!
//! [`Cells`] is what a node knows about agents and what anybody may ask of them. It runs the agents of this node on
//! its own worker threads, keeps their logs and mailboxes, gives their messages to `mielin-mesh`, and talks to its peers
//! over two protocols of its own: 101 carries operations on agents of other nodes, 200 moving agents.
//! Whatever is asked of an agent is asked on whichever node it is.
//!
//! What is deliberately not here: sockets and certificates (`mielin-mesh`), the decisions of a move and of delivery
//! (`mielin-mesh-core`, which this crate drives), engines and host calls (`mielin-wasm`), and the command line.
//!
//! ```no_run
//! use mielin_cells::{Cells, CellsConfig, MoveOptions, SpawnRequest};
//!
//! # async fn example(mesh: mielin_mesh::MeshService, program: Vec<u8>) -> Result<(), Box<dyn std::error::Error>> {
//! let cells = Cells::start(CellsConfig::default(), mesh).await?;
//! let agent = cells.spawn(SpawnRequest::new(program)).await?;
//! let node = cells.resolve_node("relay")?;
//! let report = cells.migrate(agent, node, MoveOptions::default(), None).await?;
//! println!("it stood still for {} µs", report.downtime_us);
//! let end = cells.wait(agent).await?;
//! println!("it ended with {}", end.exit_code);
//! # Ok(())
//! # }
//! ```

mod budget;
mod cell;
mod cells;
mod checkpoint;
mod client;
mod cloning;
mod config;
mod courier;
mod error;
mod finding;
mod hearsay;
mod hibernation;
mod host;
mod ledger;
mod live;
mod lock;
mod lodging;
mod logs;
mod modules;
mod moving;
mod name;
mod node;
mod operations;
mod persist;
mod post;
mod private;
mod record;
mod report;
mod scheduler;
mod spawn;
mod stored;
mod tally;
mod watched;
mod wire;

pub use budget::{Budget, BudgetError, Measure, Spending};
pub use cells::{Cells, LogReader};
pub use config::{CellsConfig, MoveProbe, MoveSide, Packing, ProbeAnswer};
pub use error::{CellsError, ErrorKind};
pub use lodging::{Handover, LeafDirectory, LeafReport, LeafStanding, LeafSummary};
pub use report::{
    AgentDirectory, AgentEnd, AgentReport, AgentSummary, Counters, EXIT_LOST, EXIT_OVER_BUDGET,
    EXIT_TERMINATED, EXIT_TRAPPED, HostLine, LogChunk, LogKind, MoveOptions, MoveProgress,
    MoveReport, PhaseTime, SpawnRequest,
};
pub use stored::CheckpointError;

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

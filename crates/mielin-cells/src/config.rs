//! How a node runs agents: engine, worker threads, limits and the probe that tests use to break moves.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mielin_mesh_core::limits::ENDED_AGENTS_MAX;
use mielin_mesh_core::{AgentId, MigrationPhase};
use mielin_wasm::{EngineKind, Limits};

/// Everything [`Cells::start`](crate::Cells::start) needs besides the mesh.
#[derive(Clone, Debug)]
pub struct CellsConfig {
    /// Where logs, records of ended agents and the agents of a stopped node are kept. `None` keeps all of it in memory.
    pub data_dir: Option<PathBuf>,
    /// The engine that new and arriving agents run on.
    pub engine: EngineKind,
    /// Threads that run agents.
    pub workers: usize,
    /// How long an agent may run while another one waits for a thread.
    pub slice: Duration,
    /// Limits of agents whose spawner names none.
    pub limits: Limits,
    /// Native code of modules that is kept in `data_dir`, in bytes; 0 keeps none.
    pub code_bytes_max: u64,
    /// Agents that may live here at once; an arriving agent counts too.
    pub agents_max: usize,
    /// Agents that keep their instance while they do not run, those that were active last. Of the others only what has
    /// changed in their memory is kept, and they are made whole again when they go on, which takes some
    /// hundred microseconds. Each instance costs four mappings of memory, of which Linux allows a process 65,530, and
    /// its agent up to two open files.
    pub live_instances_max: usize,
    /// Ended agents that are kept here with their logs; the oldest is removed for the newest.
    pub ended_max: usize,
    /// How long one move may take before it is rolled back.
    pub move_timeout: Duration,
    /// Whether pages of agents that leave are compressed.
    pub packing: Packing,
    /// Told about every phase of every move on this node, and able to break it. Only tests set it.
    pub probe: Option<MoveProbe>,
}

impl Default for CellsConfig {
    fn default() -> CellsConfig {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        CellsConfig {
            data_dir: None,
            engine: EngineKind::Wasmtime,
            workers: cores.max(2),
            slice: Duration::from_millis(10),
            limits: Limits::default(),
            code_bytes_max: 256 << 20,
            agents_max: 1 << 17,
            live_instances_max: 256,
            ended_max: ENDED_AGENTS_MAX,
            move_timeout: Duration::from_secs(30),
            packing: Packing::Auto,
            probe: None,
        }
    }
}

/// Whether the pages of an agent that moves are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// Where their content and the measured speed of the link make it worth while.
    #[default]
    Auto,
    /// Never.
    Never,
    /// Whenever they become smaller by it.
    Always,
}

/// What a probe wants done with the move it was told about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// Carry on.
    Continue,
    /// Drop this node's end of the migration stream, as a killed process would.
    Drop,
    /// Drop it and answer nobody from then on, as a killed process does not.
    Kill,
}

/// Which end of a move asks the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveSide {
    /// The node the agent leaves.
    Source,
    /// The node the agent goes to.
    Target,
}

/// A function asked at the beginning of every phase of a move.
#[derive(Clone)]
pub struct MoveProbe(pub Arc<Ask>);

type Ask = dyn Fn(MoveSide, &AgentId, &MigrationPhase) -> ProbeAnswer + Send + Sync;

impl fmt::Debug for MoveProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MoveProbe")
    }
}

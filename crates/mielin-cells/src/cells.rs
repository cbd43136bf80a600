//! [`Cells`]: the operations on agents, wherever in the mesh they are.

use std::time::Duration;

use bytes::Bytes;
use mielin_mesh::MeshService;
use mielin_mesh_core::{AgentId, NodeId};
use tokio::sync::mpsc;

use crate::config::CellsConfig;
use crate::error::CellsError;
use crate::report::{
    AgentEnd, AgentReport, AgentSummary, HostLine, LogChunk, LogKind, MoveOptions, MoveProgress, MoveReport, SpawnRequest,
};

/// The agents of this node, and the way to the agents of all others. Cheap to clone.
#[derive(Clone)]
pub struct Cells {}

impl Cells {
    /// Starts the worker threads, serves protocols 100 to 102 and restores the agents of the last run.
    pub async fn start(config: CellsConfig, mesh: MeshService) -> Result<Cells, CellsError> {
        todo!()
    }
    /// The mesh below.
    #[must_use]
    pub fn mesh(&self) -> &MeshService {
        todo!()
    }
    /// Starts an agent on this node.
    pub async fn spawn(&self, request: SpawnRequest) -> Result<AgentId, CellsError> {
        todo!()
    }
    /// Every agent of the mesh that this node knows of, ordered by name.
    #[must_use]
    pub fn agents(&self) -> Vec<AgentSummary> {
        todo!()
    }
    /// Finds an agent by id, name or unique prefix of its id.
    pub fn resolve(&self, query: &str) -> Result<AgentId, CellsError> {
        todo!()
    }
    /// Finds a node by id, name or unique prefix of its id.
    pub fn resolve_node(&self, query: &str) -> Result<NodeId, CellsError> {
        todo!()
    }
    /// What the agent's node says about it.
    pub async fn inspect(&self, agent: AgentId) -> Result<AgentReport, CellsError> {
        todo!()
    }
    /// Stops the agent at its next safepoint until it is resumed.
    pub async fn pause(&self, agent: AgentId) -> Result<(), CellsError> {
        todo!()
    }
    /// Lets a paused agent go on.
    pub async fn resume(&self, agent: AgentId) -> Result<(), CellsError> {
        todo!()
    }
    /// Ends the agent at its next safepoint with exit code 137.
    pub async fn terminate(&self, agent: AgentId) -> Result<(), CellsError> {
        todo!()
    }
    /// Waits until the agent has ended, through all its moves.
    pub async fn wait(&self, agent: AgentId) -> Result<AgentEnd, CellsError> {
        todo!()
    }
    /// Reads a log from `offset`; when nothing is there yet and the agent lives, waits up to `wait` for more.
    pub async fn read_log(&self, agent: AgentId, log: LogKind, offset: u64, wait: Duration) -> Result<LogChunk, CellsError> {
        todo!()
    }
    /// A reader over a log from `offset`: to its present end, or with `follow` until the agent has ended.
    #[must_use]
    pub fn logs(&self, agent: AgentId, log: LogKind, offset: u64, follow: bool) -> LogReader {
        todo!()
    }
    /// The newest lines that nodes wrote about the agent.
    pub async fn host_log(&self, agent: AgentId) -> Result<Vec<HostLine>, CellsError> {
        todo!()
    }
    /// Sends a message; returns when it is in the agent's mailbox, with its sequence number.
    pub async fn send(&self, agent: AgentId, payload: Bytes) -> Result<u64, CellsError> {
        todo!()
    }
    /// Sends a request and waits for the agent's reply.
    pub async fn request(&self, agent: AgentId, payload: Bytes, timeout: Duration) -> Result<Bytes, CellsError> {
        todo!()
    }
    /// Moves an agent to `node` and reports each step to `progress`.
    pub async fn migrate(
        &self,
        agent: AgentId,
        node: NodeId,
        options: MoveOptions,
        progress: Option<mpsc::UnboundedSender<MoveProgress>>,
    ) -> Result<MoveReport, CellsError> {
        todo!()
    }
    /// Stops the agents, writes those that live to the data directory and ends the worker threads.
    pub async fn shutdown(&self) {
        todo!()
    }
}

/// Reads a log piece by piece; see [`Cells::logs`].
pub struct LogReader {}

impl LogReader {
    /// The next bytes, or `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CellsError> {
        todo!()
    }
}

//! Moves that are under way to this node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mielin_mesh::MeshStream;
use mielin_mesh_core::{AgentId, NodeId};
use tokio::sync::{Notify, mpsc, watch};

use crate::error::CellsError;
use crate::lock::lock;
use crate::node::Node;

/// How long a move waits for the end of an earlier one of the same agent.
const EARLIER_TIMEOUT: Duration = Duration::from_secs(5);

/// A move that is under way to this node.
pub(crate) struct Inbound {
    /// The source asked on another stream what became of it.
    pub(super) queried: Notify,
    /// The source was told that the agent runs here, as far as it can be told.
    pub(super) told: AtomicBool,
    over: watch::Sender<bool>,
    /// Its source, and where to put the stream on which pages are asked for.
    pub(super) from: NodeId,
    pub(super) follow: mpsc::Sender<MeshStream>,
}

impl Inbound {
    /// Whether nobody may know yet that the agent is here. Before its source, nobody may: to the source a location
    /// record is as good as the answer that it waits for, and it would let go of an agent whose target may be dead. For
    /// the same reason a target that is killed and starts again must not find that it had the agent.
    pub(crate) fn is_secret(&self) -> bool {
        !self.told.load(Ordering::Acquire)
    }
}

/// Its entry in the node's table, taken back when the move is over.
pub(super) struct InboundEntry {
    node: Arc<Node>,
    pub(super) agent: AgentId,
    pub(super) inbound: Arc<Inbound>,
    /// The stream on which pages are asked for, when the source has opened it.
    pub(super) follow: mpsc::Receiver<MeshStream>,
}

impl InboundEntry {
    /// Enters a move. An earlier one of the same agent that is still under way here was given up by its source, or
    /// it would not make another, and may not have heard of that yet.
    pub(super) async fn new(
        node: &Arc<Node>,
        agent: AgentId,
        from: NodeId,
    ) -> Result<InboundEntry, CellsError> {
        let deadline = tokio::time::Instant::now() + EARLIER_TIMEOUT;
        loop {
            let earlier = {
                let mut coming = lock(&node.inbound);
                match coming.get(&agent) {
                    Some(earlier) => Arc::clone(earlier),
                    None => {
                        let (sender, follow) = mpsc::channel(1);
                        let inbound = Arc::new(Inbound {
                            queried: Notify::new(),
                            told: AtomicBool::new(false),
                            over: watch::Sender::new(false),
                            from,
                            follow: sender,
                        });
                        coming.insert(agent, Arc::clone(&inbound));
                        return Ok(InboundEntry {
                            node: Arc::clone(node),
                            agent,
                            inbound,
                            follow,
                        });
                    }
                }
            };
            earlier.queried.notify_one();
            let mut over = earlier.over.subscribe();
            if !matches!(
                tokio::time::timeout_at(deadline, over.wait_for(|over| *over)).await,
                Ok(Ok(_))
            ) {
                return Err(CellsError::Busy {
                    agent,
                    doing: "it is on its way here already".to_owned(),
                });
            }
        }
    }
}

impl Drop for InboundEntry {
    fn drop(&mut self) {
        lock(&self.node.inbound).remove(&self.agent);
        self.inbound.over.send_replace(true);
    }
}

//! What a node does that was killed after an agent had come, and before it was written down that its source has let go: it
//! asks the source.
//!
//! A source that has not let go asks by itself, and goes on with the agent. One that has asks nobody, and then the agent is
//! lost.

use std::sync::{Arc, Weak};
use std::time::Duration;

use mielin_mesh_core::{AgentId, Epoch, NodeId};

use crate::lock::lock;
use crate::node::Node;
use crate::operations;
use crate::wire::{Answer, Call, Operation};

/// How often it asks.
const PERIOD: Duration = Duration::from_secs(5);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks until the source has said that it has let go of an agent that had come in this epoch, or it is known otherwise what
/// has become of it.
pub(crate) async fn ask_source(node: Weak<Node>, agent: AgentId, epoch: Epoch, source: NodeId) {
    let call = Call {
        agent: agent.0,
        operation: Operation::Inspect,
    };
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        ticks.tick().await;
        let Some(node) = node.upgrade().filter(|node| !node.is_closing()) else {
            return;
        };
        if !lock(&node.unsettled).contains(&agent) {
            return;
        }
        let asked = operations::ask(&node, &source, &call, None);
        let Ok(Ok((answer, _))) = tokio::time::timeout(TIMEOUT, asked).await else {
            continue;
        };
        match answer {
            // It has even forgotten to whom.
            Answer::Unknown => return be_lost(&node, agent, epoch).await,
            Answer::Elsewhere {
                node: there,
                epoch: then,
            } => {
                let (there, then) = (NodeId(there), Epoch(then));
                if there == node.id() && then == epoch {
                    return be_lost(&node, agent, epoch).await;
                }
                if then > epoch {
                    return node.left_before(&agent, there, then);
                }
            }
            // It still has it.
            _ => {}
        }
    }
}

/// The agent was this node's, and is no more: everybody may know.
async fn be_lost(node: &Arc<Node>, agent: AgentId, epoch: Epoch) {
    if !lock(&node.unsettled).remove(&agent) {
        return;
    }
    // As of any other agent that was here.
    lock(&node.arrivals).secure(agent, epoch);
    let Ok(cell) = node.here(&agent) else { return };
    node.make_known(&cell);
    tracing::warn!(%agent, "an agent was lost that had just come: its source has let go of it");
    let securing = tokio::task::spawn_blocking(move || cell.secure());
    match securing.await {
        Ok(Ok(())) => {}
        // The next life of this node asks again.
        failed => tracing::warn!(%agent, ?failed, "that could not be written down"),
    }
}

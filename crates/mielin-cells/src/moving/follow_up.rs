//! What a node does that was killed while it handed an agent over: it asks the target what became of it.

use std::sync::Weak;
use std::time::Duration;

use mielin_mesh_core::AgentId;
use mielin_mesh_core::migration::{Query, QueryReply};

use super::source;
use crate::ledger::Departure;
use crate::lock::lock;
use crate::node::Node;

/// How often it asks.
const PERIOD: Duration = Duration::from_secs(5);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks until there is an answer. The agent counts as lost until then, and for good if the target has not got it.
pub(crate) async fn follow_up(node: Weak<Node>, agent: AgentId, departure: Departure) {
    let query = Query {
        agent,
        epoch: departure.epoch(),
    };
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        ticks.tick().await;
        let Some(node) = node.upgrade() else { return };
        if node.is_closing() {
            return;
        }
        let asked = source::ask(node.clone(), departure.target(), query);
        match tokio::time::timeout(TIMEOUT, asked).await {
            Ok(Ok(QueryReply::Running { epoch })) => {
                node.left_before(&agent, departure.target(), epoch);
                lock(&node.departed).remove(&agent);
                return;
            }
            Ok(Ok(QueryReply::NotHere { .. })) => {
                tracing::warn!(%agent, node = %departure.target(), "an agent was lost on its way");
                lock(&node.departed).remove(&agent);
                let ledger = node.ledger.clone();
                let _ = tokio::task::spawn_blocking(move || ledger.stay(agent)).await;
                return;
            }
            Ok(Ok(QueryReply::Unsettled) | Err(_)) | Err(_) => {}
        }
    }
}

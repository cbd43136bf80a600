//! A target that does not say what became of an agent is asked.

use std::sync::Arc;

use mielin_mesh::FrameLimit;
use mielin_mesh_core::migration::{Query, QueryReply, SourceInput};
use mielin_mesh_core::{NodeId, codec};

use super::super::frames::Header;
use super::QUERY_TIMEOUT;
use crate::error::CellsError;
use crate::node::Node;
use crate::wire;

/// Asks the target, and if it does not answer, who may know.
pub(super) async fn query(node: Arc<Node>, target: NodeId, query: Query) -> SourceInput {
    let asked = ask(Arc::clone(&node), target, query);
    let answer = tokio::time::timeout(QUERY_TIMEOUT, asked).await;
    if let Ok(Ok(reply)) = answer {
        return SourceInput::Answered(reply);
    }
    // Where the target does not answer, the table may know that the agent runs: see `relevant`.
    let sought = node.sought(&query.agent);
    let _ = tokio::time::timeout(QUERY_TIMEOUT, sought).await;
    SourceInput::QueryFailed
}

/// Asks the target on a stream of its own what became of an agent.
pub(in crate::moving) async fn ask(
    node: Arc<Node>,
    target: NodeId,
    query: Query,
) -> Result<QueryReply, CellsError> {
    let lost = |reason: String| CellsError::Unreachable {
        node: target,
        reason,
    };
    let mut stream = node
        .mesh
        .open_stream(&target, wire::MOVES)
        .await
        .map_err(|error| lost(error.to_string()))?;
    stream
        .send_frame(&codec::encode(&Header::Query(query)), &[])
        .await
        .map_err(|error| lost(error.to_string()))?;
    let frame = stream
        .recv_frame(FrameLimit::payload(0))
        .await
        .map_err(|error| lost(error.to_string()))?;
    let frame = frame.ok_or_else(|| lost("it gave no answer".to_owned()))?;
    codec::decode(&frame.header).map_err(|_| wire::malformed("an answer to a query"))
}

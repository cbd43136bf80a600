//! Checkpoints of agents, and agents made of them.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;

use mielin_cells::CellsError;
use mielin_mesh_core::AgentId;
use tokio::task::JoinError;

use super::NodeState;
use super::answer::{Input, OTHER_VERSION};
use super::routes::{Answer, stream_answer};
use crate::api;
use crate::failure::Failure;

pub(super) async fn checkpoint(
    State(state): State<NodeState>,
    Path(agent): Path<String>,
) -> Result<Response, Failure> {
    let agent = state.agent(&agent).await?;
    let checkpoint = state.cells.checkpoint(agent).await?;
    Ok(stream_answer(
        "application/octet-stream",
        Body::from(checkpoint),
    ))
}

pub(super) async fn restore(
    State(state): State<NodeState>,
    query: Result<Query<api::NewName>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<api::Spawned> {
    let Query(query) =
        query.map_err(|rejection| Failure::usage(rejection.body_text()).hint(OTHER_VERSION))?;
    let checkpoint = body.map_err(|rejection| {
        Failure::refused(format!(
            "the checkpoint was not read: {}",
            rejection.body_text()
        ))
        .hint("a checkpoint has at most 1.25 GiB")
    })?;
    // Whoever asked may go away: then there is a new agent all the same, and not half of one.
    let restoring = tokio::spawn(async move { state.cells.restore(checkpoint, query.name).await });
    made(restoring.await)
}

pub(super) async fn duplicate(
    State(state): State<NodeState>,
    Path(agent): Path<String>,
    Input(request): Input<api::Duplicate>,
) -> Answer<api::Spawned> {
    let agent = state.agent(&agent).await?;
    let node = match &request.node {
        Some(node) => state.member(node).await?,
        None => state.mesh().local().id,
    };
    let copying =
        tokio::spawn(async move { state.cells.duplicate(agent, node, request.name).await });
    made(copying.await)
}

fn made(restored: Result<Result<AgentId, CellsError>, JoinError>) -> Answer<api::Spawned> {
    let agent = restored.map_err(|error| Failure::internal(error.to_string()))??;
    Ok(Json(api::Spawned {
        agent: agent.to_string(),
    }))
}

//! Who may join the mesh, and who may not stay.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use mielin_mesh::Reason;
use mielin_mesh_core::NodeId;

use super::NodeState;
use super::answer::Input;
use super::reach::node_name;
use super::routes::Answer;
use super::spelling::{role, role_name};
use crate::api;
use crate::failure::Failure;

pub(super) async fn issue_token(
    State(state): State<NodeState>,
    Input(request): Input<api::TokenRequest>,
) -> Answer<api::TokenIssued> {
    let role = request.role.as_deref().map(role).transpose()?;
    let lifetime = Duration::from_secs(request.ttl_s);
    let authority = state.authority("issue tokens")?;
    let token = authority.issue_counted_token(role, lifetime, request.uses)?;
    Ok(Json(api::TokenIssued {
        token: token.to_string(),
    }))
}

pub(super) async fn pending(State(state): State<NodeState>) -> Answer<api::PendingNodes> {
    let pending = state
        .authority("admit others")?
        .pending()
        .into_iter()
        .map(|waiting| api::PendingLine {
            node: waiting.node.to_string(),
            name: waiting.name.to_string(),
            role: role_name(waiting.role).to_owned(),
            address: waiting.address.to_string(),
        });
    Ok(Json(api::PendingNodes {
        pending: pending.collect(),
    }))
}

pub(super) async fn approve(
    State(state): State<NodeState>,
    Input(approval): Input<api::Approval>,
) -> Answer<api::Approved> {
    let authority = state.authority("admit others")?;
    let query = approval.node.to_lowercase();
    let mut fitting: Vec<_> = authority
        .pending()
        .into_iter()
        .filter(|waiting| {
            waiting.name == *approval.node || waiting.node.to_string().starts_with(&query)
        })
        .collect();
    let waiting = match (fitting.pop(), fitting.len()) {
        (Some(waiting), 0) if !query.is_empty() => waiting,
        (None, _) => {
            return Err(Failure::not_found(format!(
                "no node `{}` is waiting for approval",
                approval.node
            ))
            .hint("`mielin mesh approve` without a node lists those that wait"));
        }
        _ => {
            return Err(
                Failure::usage(format!("`{}` fits several nodes", approval.node))
                    .hint("give more of the id; `mielin mesh approve` lists those that wait"),
            );
        }
    };
    authority.approve(&waiting.node)?;
    Ok(Json(api::Approved {
        node: waiting.node.to_string(),
        name: waiting.name.to_string(),
    }))
}

pub(super) async fn revocations(State(state): State<NodeState>) -> Json<api::Revocations> {
    let mesh = state.mesh();
    let members = mesh.members();
    let named = |node: &NodeId| {
        let api::NodeName { node: id, name } = node_name(&members, node);
        let name = name.or_else(|| Some(mesh.revoked_name(node)?.to_string()));
        api::NodeName { node: id, name }
    };
    let revoked = mesh.revocations().into_iter().map(|one| api::RevokedNode {
        node: named(&one.node),
        revoked_ms: one.revoked_ms,
        reason: one.reason.as_str().to_owned(),
    });
    Json(api::Revocations {
        revoked: revoked.collect(),
    })
}

pub(super) async fn revoke(
    State(state): State<NodeState>,
    Input(request): Input<api::Revoke>,
) -> Answer<api::Revoked> {
    state.authority("revoke others")?;
    let reason = Reason::new(&request.reason).map_err(|error| {
        Failure::usage(error.to_string()).hint("give it one short line with --reason")
    })?;
    // One that is away for long is not known any more, except by its whole id.
    let node = match request.node.parse::<NodeId>() {
        Ok(node) => node,
        Err(_) => state.node(&request.node).await?,
    };
    state.not_a_leaf(&node).await?;
    let mesh = state.mesh();
    if node == mesh.local().id {
        return Err(
            Failure::refused("this node holds the mesh's root and cannot be revoked")
                .hint("name another node; `mielin mesh peers` shows them"),
        );
    }
    let named = node_name(&mesh.members(), &node);
    let new = mesh.revoke(&node, reason).await.map_err(Failure::from)?;
    Ok(Json(api::Revoked { node: named, new }))
}

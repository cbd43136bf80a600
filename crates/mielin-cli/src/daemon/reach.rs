//! Routes that ask the mesh itself: how far a node is, and where the table says that an agent is.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use mielin_cells::CellsError;
use mielin_mesh::{METRICS_CONTENT_TYPE, MeshError, Path, Route, WireError};
use mielin_mesh_core::{AgentId, Member, Name, NodeId};

use super::NodeState;
use super::answer::Input;
use super::spelling::agent_state;
use crate::api;
use crate::failure::{Class, Failure};

/// A ping that takes longer counts as lost.
const PING_LIMIT: Duration = Duration::from_secs(5);
/// The search for a direct way and relays may take 12 s; messages over the members come after that.
const ROUTE_LIMIT: Duration = Duration::from_secs(15);

pub(super) async fn ping(
    State(state): State<NodeState>,
    Input(request): Input<api::Ping>,
) -> Result<Json<api::Pong>, Failure> {
    let node = state.member(&request.node).await?;
    let mesh = state.mesh();
    if let Some(absence) = mesh.absence(&node) {
        return Err(CellsError::Gone(absence).into());
    }
    let rtt = mesh.ping(&node, PING_LIMIT).await;
    let rtt = rtt.map_err(|error| {
        let failure = about(&mesh.members(), &node, "gave no answer", error);
        match failure.class {
            Class::Unreachable => failure.hint(format!(
                "`mielin mesh route {}` says whether members hand messages on to it",
                request.node
            )),
            _ => failure,
        }
    })?;
    let members = mesh.members();
    let identity = members.iter().find(|member| member.identity.id == node);
    let identity = identity.map(|member| &member.identity);
    let (address, relay) = match mesh.path(&node) {
        Some(Path::Direct { address, .. }) => (Some(address), None),
        Some(Path::Relayed { relay, .. }) => (None, relay),
        // It has ended since.
        None => (identity.map(|identity| identity.address), None),
    };
    Ok(Json(api::Pong {
        node: node.to_string(),
        name: identity.map_or_else(String::new, |identity| identity.name.to_string()),
        address: address.map(|address| address.to_string()),
        relay: relay.map(|relay| node_name(&members, &relay)),
        rtt_us: rtt.as_micros() as u64,
    }))
}

/// A node with its name, if it is a member.
pub(super) fn node_name(members: &[Member], node: &NodeId) -> api::NodeName {
    let mut fitting = members.iter().filter(|m| m.identity.id == *node);
    api::NodeName {
        node: node.to_string(),
        name: fitting.next().map(|m| m.identity.name.to_string()),
    }
}

/// A failure that says which node it is about, where it is one of the way there.
fn about(members: &[Member], node: &NodeId, what: &str, error: MeshError) -> Failure {
    let failure = Failure::from(error);
    if failure.class != Class::Unreachable {
        return failure;
    }
    let api::NodeName { name, .. } = node_name(members, node);
    let (name, id) = (name.unwrap_or_default(), node.short());
    Failure::unreachable(format!("node {name} ({id}) {what}: {}", failure.message))
        .hint(failure.hint)
}

pub(super) async fn route(
    State(state): State<NodeState>,
    Input(request): Input<api::Ping>,
) -> Result<Json<api::Route>, Failure> {
    let node = state.member(&request.node).await?;
    let mesh = state.mesh();
    if let Some(absence) = mesh.absence(&node) {
        return Err(CellsError::Gone(absence).into());
    }
    let route = mesh.route(&node, ROUTE_LIMIT).await;
    let members = mesh.members();
    let route = route.map_err(|error| about(&members, &node, "is reached on no way", error))?;
    let named = |node: &NodeId| node_name(&members, node);
    let way = match route {
        Route::Direct { address, rtt } => api::Way::Direct {
            address: address.to_string(),
            rtt_us: rtt.as_micros() as u64,
        },
        Route::Relayed { relay, rtt } => api::Way::Relayed {
            relay: relay.as_ref().map(named),
            rtt_us: rtt.as_micros() as u64,
        },
        Route::Routed { hops } => api::Way::Routed {
            hops: hops
                .iter()
                .map(|hop| api::HopLine {
                    node: named(&hop.node),
                    rtt_us: hop.rtt_us.into(),
                })
                .collect(),
        },
    };
    let api::NodeName { node, name } = named(&node);
    Ok(Json(api::Route {
        node,
        name: name.unwrap_or_default(),
        way,
    }))
}

pub(super) async fn metrics(State(state): State<NodeState>) -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)];
    (kind, state.mesh().metrics())
}

pub(super) async fn look_up(
    State(state): State<NodeState>,
    Input(request): Input<api::Lookup>,
) -> Result<Json<api::LookedUp>, Failure> {
    let query = request.agent;
    let mesh = state.mesh();
    let found = match query.parse::<AgentId>() {
        Ok(agent) => mesh.look_up(&agent).await?,
        Err(_) => {
            let name = Name::new(query.as_str())
                .map_err(|error| Failure::usage(error.to_string()).hint(WHOLE_ID))?;
            mesh.look_up_name(&name).await?
        }
    };
    if found.records.is_empty() {
        return Err(Failure::not_found(format!(
            "none of the {} nodes that were asked keeps a record of `{query}`",
            found.queries
        ))
        .hint(WHOLE_ID));
    }
    let members = mesh.members();
    let named = |node| node_name(&members, &node);
    let agents = found.records.iter().map(|record| api::FoundAgent {
        agent: record.agent.to_string(),
        name: record.name.to_string(),
        // A record says what was so when its node was there.
        state: if mesh.absence(&record.node).is_some() && !record.state.is_final() {
            "unreachable".to_owned()
        } else {
            agent_state(&record.state)
        },
        at: named(record.node),
        epoch: record.epoch.0,
    });
    Ok(Json(api::LookedUp {
        agents: agents.collect(),
        closest: found.closest.into_iter().map(named).collect(),
        hops: found.hops,
        queries: found.queries,
    }))
}

const WHOLE_ID: &str =
    "give the whole id, or the name; `mielin agent list` shows the agents that this node knows";

impl From<MeshError> for Failure {
    fn from(error: MeshError) -> Failure {
        let message = error.to_string();
        match error {
            MeshError::UnknownNode(_) => {
                Failure::not_found(message).hint("`mielin mesh status` shows the members")
            }
            MeshError::IsLocal(_) => {
                Failure::usage(message).hint("name another node; `mielin mesh peers` shows them")
            }
            MeshError::NoPath { .. }
            | MeshError::NoCircuit { .. }
            | MeshError::NotRouted { .. } => Failure::unreachable(message).hint(
                "a node that cannot be dialled needs a running member of role relay or core; \
                     `mielin mesh status` shows who is there",
            ),
            MeshError::Wire(
                WireError::Revoked { .. } | WireError::RevokedHere { .. } | WireError::ShutOut,
            )
            | MeshError::Revocation(_) => {
                Failure::refused(message).hint("`mielin mesh revoke` lists the revoked nodes")
            }
            MeshError::Wire(_) | MeshError::Stream(_) | MeshError::Timeout { .. } => {
                Failure::unreachable(message)
                    .hint("`mielin mesh status` shows who is there; try again when the node is")
            }
            MeshError::RegistryOff => {
                Failure::refused(message).hint("ask a node whose registry is on")
            }
            MeshError::Busy => Failure::refused(message).hint("try again in a moment"),
            MeshError::ShutDown => {
                Failure::refused(message).hint("`mielin daemon` starts the node again")
            }
            _ => Failure::internal(message),
        }
    }
}

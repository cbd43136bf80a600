//! How the control API writes roles, states and strategies. These words are stable.

use mielin_mesh_core::{AgentState, MemberState, MigrationStrategy, NodeRole};

use crate::failure::Failure;

pub(crate) fn role_name(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Edge => "edge",
        NodeRole::Relay => "relay",
        NodeRole::Core => "core",
    }
}

pub(super) fn role(name: &str) -> Result<NodeRole, Failure> {
    match name {
        "edge" => Ok(NodeRole::Edge),
        "relay" => Ok(NodeRole::Relay),
        "core" => Ok(NodeRole::Core),
        _ => Err(Failure::usage(format!("`{name}` is not a role"))
            .hint("there are edge, relay and core")),
    }
}

pub(super) fn member_state(state: MemberState) -> String {
    state.to_string()
}

pub(super) fn agent_state(state: &AgentState) -> String {
    state.to_string()
}

pub(super) fn strategy_name(strategy: MigrationStrategy) -> String {
    strategy.to_string()
}

/// `None` leaves the choice to the node.
pub(super) fn strategy(name: &str) -> Result<Option<MigrationStrategy>, Failure> {
    match name {
        "auto" => Ok(None),
        "stop-copy" => Ok(Some(MigrationStrategy::StopCopy)),
        "pre-copy" => Ok(Some(MigrationStrategy::PreCopy)),
        "post-copy" => Ok(Some(MigrationStrategy::PostCopy)),
        "hybrid" => Ok(Some(MigrationStrategy::Hybrid)),
        _ => Err(Failure::usage(format!("`{name}` is not a strategy"))
            .hint("there are auto, stop-copy, pre-copy, post-copy and hybrid")),
    }
}

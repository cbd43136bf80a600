//! What the agents of the mesh use up.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use mielin_cells::{AgentDirectory, AgentReport, AgentSummary, CellsError, Spending};
use mielin_mesh_core::{AgentState, NodeId};
use tokio::task::JoinSet;

use super::NodeState;
use super::routes::Answer;
use super::spelling::agent_state;
use crate::api;

/// How many agents are asked about at once.
const AT_ONCE: usize = 64;
/// How long a node may take to say what its agent uses: whoever looks wants to look again in a second.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is said of every living agent.
pub(super) async fn usage(State(state): State<NodeState>) -> Answer<api::UsageList> {
    let AgentDirectory {
        agents,
        silent,
        unlisted,
    } = state.cells.agents().await?;
    let members = state.mesh().members().into_iter();
    let names: HashMap<NodeId, String> = members
        .map(|member| (member.identity.id, member.identity.name.to_string()))
        .collect();
    let living = agents.into_iter().filter(|agent| !agent.state.is_final());
    let mut silent: BTreeSet<NodeId> = silent.into_iter().chain(unlisted).collect();
    let (mut asking, mut lines) = (JoinSet::new(), Vec::new());
    for agent in living {
        if asking.len() == AT_ONCE {
            take(&mut asking, &names, &mut silent, &mut lines).await;
        }
        let cells = state.cells.clone();
        asking.spawn(async move {
            let asked = match agent.reachable {
                true => tokio::time::timeout(PATIENCE, cells.inspect(agent.agent))
                    .await
                    .ok(),
                false => None,
            };
            (agent, asked)
        });
    }
    while !asking.is_empty() {
        take(&mut asking, &names, &mut silent, &mut lines).await;
    }
    lines.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.agent.cmp(&b.agent)));
    Ok(Json(api::UsageList {
        agents: lines,
        silent: silent.iter().map(ToString::to_string).collect(),
    }))
}

type Asked = (AgentSummary, Option<Result<AgentReport, CellsError>>);

/// Takes one answer in, if one is awaited.
async fn take(
    asking: &mut JoinSet<Asked>,
    names: &HashMap<NodeId, String>,
    silent: &mut BTreeSet<NodeId>,
    lines: &mut Vec<api::UsageLine>,
) {
    let Some(Ok((agent, asked))) = asking.join_next().await else {
        return;
    };
    let report = match asked {
        Some(Ok(report)) if report.state.is_final() => return,
        // It has ended and been forgotten meanwhile.
        Some(Err(CellsError::AgentNotFound(_))) => return,
        Some(Ok(report)) => Some(report),
        Some(Err(_)) | None => {
            silent.insert(agent.node);
            None
        }
    };
    let node = report.as_ref().map_or(agent.node, |report| report.node);
    lines.push(api::UsageLine {
        agent: agent.agent.to_string(),
        name: agent.name,
        state: match &report {
            Some(report) => agent_state(&report.state),
            None => "unreachable".to_owned(),
        },
        node: api::NodeName {
            node: node.to_string(),
            name: names.get(&node).cloned(),
        },
        usage: report.as_ref().map(used),
    });
}

/// What an agent has used up, and of what.
pub(super) fn used(report: &AgentReport) -> api::Usage {
    let counters = &report.counters;
    api::Usage {
        throttled: report.throttled,
        cpu_us: counters.cpu_ns / 1000,
        // The memory of one that is hibernated is on the disk.
        memory_bytes: match report.state {
            AgentState::Hibernated => 0,
            _ => report.memory_bytes,
        },
        memory_bytes_max: report.memory_bytes_max,
        messages_received: counters.received,
        messages_sent: counters.sent,
        log_bytes: counters.log_bytes,
        host_calls: counters.host_calls,
        budgets: report.spending().into_iter().map(budget).collect(),
    }
}

fn budget(spending: Spending) -> api::BudgetLine {
    api::BudgetLine {
        budget: spending.part,
        used: spending.used.map(|(used, _)| used),
        max: spending.used.map(|(_, max)| max),
    }
}

//! How an agent comes into the world.

use std::sync::Arc;

use mielin_mesh_core::{AgentId, Epoch};
use mielin_safepoint::ModuleHash;
use mielin_wasm::{Address, HostState, Limits, Prepared};

use crate::cell::{Cell, Identity, Parts, Program};
use crate::error::CellsError;
use crate::host::HostCalls;
use crate::logs::{Logs, now_ms};
use crate::name;
use crate::node::Node;
use crate::post::Post;
use crate::report::SpawnRequest;
use crate::tally::Tally;

/// How long a spawn waits until every member can find the agent.
const PUBLISH_LIMIT: std::time::Duration = std::time::Duration::from_secs(1);

/// What memories consist of, by the specification of WebAssembly.
const WASM_PAGE_BYTES: u64 = 65_536;

/// Makes an agent and starts it.
pub(crate) async fn spawn(node: &Arc<Node>, request: SpawnRequest) -> Result<AgentId, CellsError> {
    if node.is_closing() {
        return Err(CellsError::ShuttingDown);
    }
    let limits = limits(node, &request)?;
    check(node, &request, &limits).await?;
    let prepared = prepare(node, &request, &limits).await?;
    let id = new_id(node, prepared.module().hash());
    let name = match &request.name {
        Some(name) => name.clone(),
        None => new_name(node, request.hint.as_deref(), &id).await,
    };
    let cell = make(node, request, limits, prepared, id, name)?;
    bring_in(node, &cell).await
}

/// The module, which the last agent had too, or which is rewritten and compiled on a thread for blocking work.
async fn prepare(
    node: &Arc<Node>,
    request: &SpawnRequest,
    limits: &Limits,
) -> Result<Arc<dyn Prepared>, CellsError> {
    let engine = node.config.engine;
    if let Some(prepared) = node.modules.at_hand(&request.module, engine, limits) {
        return Ok(prepared);
    }
    let preparing = {
        let (node, module, limits) = (Arc::clone(node), request.module.clone(), limits.clone());
        tokio::task::spawn_blocking(move || node.modules.prepare(&module, engine, &limits))
    };
    preparing
        .await
        .map_err(|error| CellsError::Internal(error.to_string()))?
}

/// Makes a new agent one of this node's, and starts it, unless its name is taken, or it cannot be written down: a node that
/// was killed must know what it has lost.
pub(crate) async fn bring_in(node: &Arc<Node>, cell: &Arc<Cell>) -> Result<AgentId, CellsError> {
    let securing = {
        let cell = Arc::clone(cell);
        tokio::task::spawn_blocking(move || cell.secure())
    };
    let secured = securing
        .await
        .map_err(|error| CellsError::Internal(error.to_string()))
        .and_then(|secured| secured);
    // Between the check and here another agent may have taken the name.
    if let Err(error) = secured.and_then(|()| node.adopt(cell, true)) {
        cell.logs.discard();
        return Err(error);
    }
    cell.start();
    let agent = cell.id();
    // Whoever is told of the agent should find it. Where that takes long it will be found later.
    let _ = tokio::time::timeout(PUBLISH_LIMIT, node.mesh.published(&agent)).await;
    Ok(agent)
}

fn limits(node: &Node, request: &SpawnRequest) -> Result<Limits, CellsError> {
    let chosen = request.limits.as_ref();
    let mut limits = chosen.unwrap_or(&node.config.limits).clone();
    if let Some(bytes) = request.budget.memory_bytes() {
        if bytes > limits.memory_bytes {
            return Err(CellsError::TooLarge {
                what: "the budget for memory".to_owned(),
                len: bytes,
                max: limits.memory_bytes,
            });
        }
        limits.memory_bytes = bytes;
    }
    Ok(limits)
}

async fn check(node: &Node, request: &SpawnRequest, limits: &Limits) -> Result<(), CellsError> {
    node.has_room()?;
    if let Some(name) = &request.name {
        check_name(node, name).await?;
    }
    let strings = request.args.iter().map(|arg| arg.len() + 1);
    let variables = request
        .env
        .iter()
        .map(|(name, value)| name.len() + value.len() + 2);
    let input = strings
        .chain(variables)
        .sum::<usize>()
        .saturating_add(request.stdin.len());
    if input > limits.input_bytes {
        let what = "the input (arguments, environment and stdin)".to_owned();
        return Err(CellsError::TooLarge {
            what,
            len: input as u64,
            max: limits.input_bytes as u64,
        });
    }
    let mut texts = request
        .args
        .iter()
        .chain(request.env.iter().flat_map(|(name, value)| [name, value]));
    if let Some(text) = texts.find(|text| text.contains('\0')) {
        return Err(CellsError::BadArgument(text.clone()));
    }
    Ok(())
}

/// Whether a new agent may have this name.
pub(crate) async fn check_name(node: &Node, name: &str) -> Result<(), CellsError> {
    name::check(name)?;
    match node.is_taken(name).await {
        true => Err(CellsError::NameTaken(name.to_owned())),
        false => Ok(()),
    }
}

/// An id that no agent has had.
pub(crate) fn new_id(node: &Node, module: ModuleHash) -> AgentId {
    AgentId::derive(&module.0, &node.id(), &AgentId::new().0)
}

/// A name that begins like this and that no living agent has.
pub(crate) async fn new_name(node: &Node, like: Option<&str>, id: &AgentId) -> String {
    let mut name = String::new();
    for candidate in name::candidates(like, &id.0) {
        name = candidate;
        if !node.is_taken(&name).await {
            break;
        }
    }
    name
}

fn make(
    node: &Arc<Node>,
    request: SpawnRequest,
    limits: Limits,
    prepared: Arc<dyn Prepared>,
    id: AgentId,
    name: String,
) -> Result<Arc<Cell>, CellsError> {
    let pages = prepared.module().manifest().memory.minimum_pages;
    let needed = pages.saturating_mul(WASM_PAGE_BYTES);
    if let Some(budget) = request.budget.memory_bytes()
        && needed > budget
    {
        return Err(CellsError::MemoryBudget { needed, budget });
    }
    let program = request.hint.unwrap_or_else(|| name.clone());
    let env = request
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    let host = HostState::new(Address(id.0))
        .with_args(std::iter::once(program).chain(request.args))
        .with_env(env)
        .with_stdin(&request.stdin[..])
        .with_grants(request.grants.clone());
    let identity = Identity {
        id,
        name,
        owner: node.id(),
        grants: request.grants,
        limits,
        budget: request.budget,
        started_ms: now_ms(),
    };
    let epoch = Epoch(1);
    let logs = Arc::new(Logs::new(node.home(&id)));
    let post = Arc::new(Post::new(id, epoch, identity.limits.message_bytes));
    let tally = Arc::new(Tally::new(&identity.budget));
    let services = host_calls(&identity, &logs, &post, &tally);
    // The thread that runs it makes its instance: however many are spawned, only those that run have one.
    let rested = match prepared.rested(host, services, &identity.limits) {
        Ok(rested) => rested,
        Err(error) => {
            logs.discard();
            return Err(error.into());
        }
    };
    let parts = Parts {
        identity,
        epoch,
        engine: node.config.engine,
        prepared,
        logs,
        post,
        tally,
        program: Program::Rested(Box::new(rested)),
        paused: false,
        settled: true,
    };
    Ok(Cell::new(
        parts,
        node.scheduler.clone(),
        node.changes.clone(),
    ))
}

/// The services of an agent with these parts.
pub(crate) fn host_calls(
    identity: &Identity,
    logs: &Arc<Logs>,
    post: &Arc<Post>,
    tally: &Arc<Tally>,
) -> Arc<HostCalls> {
    Arc::new(HostCalls {
        agent: identity.id,
        logs: Arc::clone(logs),
        post: Arc::clone(post),
        tally: Arc::clone(tally),
        log_bytes: identity.limits.log_bytes,
    })
}

#[cfg(test)]
mod tests;

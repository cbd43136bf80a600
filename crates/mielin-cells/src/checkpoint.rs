//! Copies of agents: taken while one stands still for a moment, and made agents of their own.
//!
//! A copy has everything that the program is, with its grants, limits, budget and counters: what the original
//! has used up, the copy has too. It has no messages, because those
//! that are on their way belong to the original, which may be alive; and no log. Of an agent that was started on a bare
//! node only the program is known: its grants are those that the program's host state says, limits and budget those that
//! a spawn gives which asks for none, and counters begin at zero.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mielin_mesh_core::{AgentId, Epoch};
use mielin_wasm::{Address, Grants, HostState, Limits};

use crate::budget::Budget;
use crate::cell::{Cell, Held, Identity, Parts, Program};
use crate::error::CellsError;
use crate::hibernation;
use crate::logs::{Logs, now_ms};
use crate::node::Node;
use crate::post::Post;
use crate::spawn::{bring_in, check_name, host_calls, new_id, new_name};
use crate::stored::Stored;
use crate::tally::Tally;

/// How long an agent may take to come to a safepoint, and to be copied.
const HOLD_LIMIT: Duration = Duration::from_secs(30);

/// What a new agent is called that is made of a copy.
#[derive(Clone, Debug)]
pub(crate) enum Naming {
    /// As the original, or by chance if that is not known.
    Kept,
    /// As its user wishes.
    Chosen(String),
    /// Beginning as the original, which still has its name.
    Like,
}

/// Stops an agent at its next safepoint, copies what it is, and lets it go on. Only then is the copy brought into its
/// form.
pub(crate) async fn take(node: &Arc<Node>, cell: &Arc<Cell>) -> Result<Bytes, CellsError> {
    hibernation::wake(node, cell).await?;
    let claim = cell.claim("it is being copied")?;
    let held = hold(cell).await?;
    let cell = Arc::clone(cell);
    let copying = tokio::task::spawn_blocking(move || {
        let stored = Stored::copy_of(&cell, &held);
        drop(held);
        drop(claim);
        Ok(stored?.encode().into())
    });
    copying
        .await
        .map_err(|error| CellsError::Internal(error.to_string()))?
}

/// Takes the program of an agent that the caller has claimed.
pub(crate) async fn hold(cell: &Arc<Cell>) -> Result<Held, CellsError> {
    let held = tokio::time::timeout(HOLD_LIMIT, cell.hold()).await;
    held.map_err(|_| CellsError::Busy {
        agent: cell.id(),
        doing: "it comes to no safepoint".to_owned(),
    })?
}

/// Makes a copy an agent of this node and starts it.
pub(crate) async fn restore(
    node: &Arc<Node>,
    copy: Bytes,
    naming: Naming,
) -> Result<AgentId, CellsError> {
    if node.is_closing() {
        return Err(CellsError::ShuttingDown);
    }
    node.has_room()?;
    let memory_bytes = node.config.limits.memory_bytes;
    let reading = tokio::task::spawn_blocking(move || Stored::decode(&copy, memory_bytes));
    let stored = reading
        .await
        .map_err(|error| CellsError::Internal(error.to_string()))??;
    // Also of a copy that says so of itself.
    let original = match stored.known() {
        Some(about) => Some(about.identity(AgentId([0; 16]))?.name),
        None => None,
    };
    let name = match naming {
        Naming::Kept => original.clone(),
        Naming::Chosen(name) => Some(name),
        Naming::Like => None,
    };
    if let Some(name) = &name {
        check_name(node, name).await?;
    }
    let id = new_id(node, stored.snapshot.module);
    let name = match name {
        Some(name) => name,
        None => new_name(node, original.as_deref(), &id).await,
    };
    let making = {
        let node = Arc::clone(node);
        tokio::task::spawn_blocking(move || make(&node, &stored, id, name))
    };
    let cell = making
        .await
        .map_err(|error| CellsError::Internal(error.to_string()))??;
    bring_in(node, &cell).await
}

fn make(
    node: &Arc<Node>,
    stored: &Stored,
    id: AgentId,
    name: String,
) -> Result<Arc<Cell>, CellsError> {
    let (original, tallied) = match stored.known() {
        Some(about) => (Some(about.identity(id)?), Some(about.tallied())),
        None => (None, None),
    };
    let granted = original.as_ref().map(|original| original.grants.clone());
    let mut identity = of_copy(node, original, id, name);
    let prepared = stored.prepare(node, &identity.limits)?;
    let logs = Arc::new(Logs::new(node.home(&id)));
    let epoch = Epoch(1);
    let post = Arc::new(Post::new(id, epoch, identity.limits.message_bytes));
    let tally = Arc::new(match &tallied {
        Some(tallied) => Tally::resumed(&identity.budget, tallied),
        None => Tally::new(&identity.budget),
    });
    let services = host_calls(&identity, &logs, &post, &tally);
    let host = HostState::new(Address(id.0));
    let made = prepared.instantiate(host, services, &identity.limits);
    let loaded = made.map_err(CellsError::from).and_then(|mut instance| {
        stored.load(instance.as_mut(), granted.as_ref())?;
        check_input(instance.host(), &identity.limits)?;
        Ok(instance)
    });
    let mut instance = loaded.inspect_err(|_| logs.discard())?;
    identity.grants = instance.host().grants.clone();
    // In the copy it is the original's.
    instance.host_mut().address = Address(id.0);
    let parts = Parts {
        identity,
        epoch,
        engine: node.config.engine,
        prepared,
        logs,
        post,
        tally,
        program: Program::Live(instance),
        paused: false,
        settled: true,
    };
    Ok(Cell::new(
        parts,
        node.scheduler.clone(),
        node.changes.clone(),
    ))
}

/// Who a copy is: as the original, but here and now. One of which nothing is known is as a new agent is of which nothing is
/// asked, until its program says what it may do.
fn of_copy(node: &Node, original: Option<Identity>, id: AgentId, name: String) -> Identity {
    let here = &node.config.limits;
    let (grants, limits, budget) = match original {
        Some(original) => (
            original.grants,
            smaller(&original.limits, here),
            original.budget,
        ),
        None => (Grants::none(), here.clone(), Budget::default()),
    };
    Identity {
        id,
        name,
        owner: node.id(),
        grants,
        limits,
        budget,
        started_ms: now_ms(),
    }
}

/// A copy, or an agent that arrives, brings its limits along, and gets no more than a spawn here would.
pub(crate) fn smaller(brought: &Limits, here: &Limits) -> Limits {
    Limits {
        memory_bytes: brought.memory_bytes.min(here.memory_bytes),
        table_elements: brought.table_elements.min(here.table_elements),
        module_bytes: brought.module_bytes.min(here.module_bytes),
        message_bytes: brought.message_bytes.min(here.message_bytes),
        log_bytes: brought.log_bytes.min(here.log_bytes),
        input_bytes: brought.input_bytes.min(here.input_bytes),
    }
}

/// Arguments, environment and standard input are a part of what a copy or an arriving agent is, so nobody can cut them.
pub(crate) fn check_input(host: &HostState, limits: &Limits) -> Result<(), CellsError> {
    let (len, max) = (host.input_bytes() as u64, limits.input_bytes as u64);
    if len > max {
        return Err(CellsError::TooLarge {
            what: "the agent's input".to_owned(),
            len,
            max,
        });
    }
    Ok(())
}

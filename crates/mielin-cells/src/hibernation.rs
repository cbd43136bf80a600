//! Agents that sleep on the disk: their memory is freed until something is asked of them.
//!
//! **Going to sleep.** The agent stands still, and nothing comes in or goes out any more, while all of it is
//! [stored](crate::stored), mailbox and outbox included. When that is on the disk its instance is freed. From then on what
//! it has sent goes out again, and nothing comes in: a message is answered with `Busy`, which acknowledges nothing, and
//! wakes the agent, so that its sender finds it awake when it tries again. A node that is killed finds the agent asleep when
//! it is started again; what it sent and what was acknowledged since is sent once more, and is no news to its receiver.
//!
//! **Waking.** An instance is made of what is stored. Then, before it runs, the agent's epoch is raised and its record
//! written, and what is stored is deleted. A node that is killed from then on has lost the agent, as it loses every one
//! that runs: what is stored in a lower epoch than the record has is not gone back to, even if the disk has forgotten that
//! it was deleted.
//!
//! The program's clock goes on while it sleeps, also while its node is down, by the node's wall clock then.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mielin_wasm::{Address, HostState};

use crate::cell::{Cell, Held};
use crate::checkpoint::hold;
use crate::error::CellsError;
use crate::logs::now_ms;
use crate::moving::until_settled;
use crate::node::Node;
use crate::persist::{SNAPSHOT, remove_stored};
use crate::record::write;
use crate::spawn::host_calls;
use crate::stored::{self, CheckpointError, Sleep, Stored};

/// Puts an agent on the disk; it is there when this returns, unless something has woken it since.
pub(crate) async fn hibernate(node: &Arc<Node>, cell: &Arc<Cell>) -> Result<(), CellsError> {
    if node.is_closing() {
        return Err(CellsError::ShuttingDown);
    }
    let directory = node.directory(&cell.id()).ok_or(CellsError::NoDisk)?;
    not_on_leaf(cell)?;
    if cell.is_asleep() {
        return Ok(());
    }
    until_settled(node, cell).await?;
    let claim = cell.claim("it is being hibernated")?;
    if !cell.is_settled() {
        return Err(CellsError::Busy {
            agent: cell.id(),
            doing: "it has just come, and its source has not let go of it".to_owned(),
        });
    }
    let held = hold(cell).await?;
    let (node, cell) = (Arc::clone(node), Arc::clone(cell));
    // It comes to its end also if whoever asked goes away.
    let storing = tokio::task::spawn_blocking(move || {
        cell.post.freeze();
        let stored = store(&cell, &held, &directory);
        match &stored {
            Ok(()) => drop(cell.fall_asleep(held)),
            Err(_) => {
                remove_stored(cell.id(), &directory);
                cell.post.thaw(cell.epoch());
                drop(held);
            }
        }
        drop(claim);
        node.move_ended();
        stored
    });
    storing
        .await
        .map_err(|error| CellsError::Internal(error.to_string()))?
}

fn store(cell: &Cell, held: &Held, directory: &Path) -> Result<(), CellsError> {
    let sleep = Sleep {
        since_ms: now_ms(),
        left_ms: cell
            .time_left()
            .map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
    };
    let stored = Stored::whole(cell, held)?.asleep(sleep);
    write(&directory.join(SNAPSHOT), &stored.encode()).map_err(CellsError::io("writing a snapshot"))
}

/// Brings an agent back that is asleep, and lets it go on; it is awake when this returns.
pub(crate) async fn wake(node: &Arc<Node>, cell: &Arc<Cell>) -> Result<(), CellsError> {
    if !cell.is_asleep() {
        return Ok(());
    }
    let (node, cell) = (Arc::clone(node), Arc::clone(cell));
    // As above.
    let waking = tokio::spawn(async move {
        let _alone = cell.waking.lock().await;
        if !cell.is_asleep() {
            return Ok(());
        }
        not_on_leaf(&cell)?;
        if let Some(target) = cell.waits_for() {
            return Err(CellsError::InDoubt {
                agent: cell.id(),
                node: target,
            });
        }
        // A node that stops has seen, under this lock, that the agent sleeps.
        if node.is_closing() {
            return Err(CellsError::ShuttingDown);
        }
        let loading = {
            let (node, cell) = (Arc::clone(&node), Arc::clone(&cell));
            tokio::task::spawn_blocking(move || load(&node, &cell))
        };
        let loaded = loading.await;
        node.move_ended();
        loaded.map_err(|error| CellsError::Internal(error.to_string()))?
    });
    waking
        .await
        .map_err(|error| CellsError::Internal(error.to_string()))?
}

/// Its program is not here.
fn not_on_leaf(cell: &Cell) -> Result<(), CellsError> {
    match cell.leaf() {
        Some(leaf) => Err(CellsError::OnLeaf {
            agent: cell.id(),
            leaf,
        }),
        None => Ok(()),
    }
}

fn load(node: &Node, cell: &Arc<Cell>) -> Result<(), CellsError> {
    let agent = cell.id();
    let directory = node.directory(&agent).ok_or(CellsError::NoDisk)?;
    let path = directory.join(SNAPSHOT);
    let damaged = |reason: CheckpointError| CellsError::Unwakeable {
        agent,
        path: path.clone(),
        reason: Box::new(reason),
    };
    let bytes = stored::read(&path).map_err(|error| match error {
        CellsError::Checkpoint(reason) => damaged(reason),
        error => error,
    })?;
    let stored = Stored::decode_kept(&bytes).map_err(damaged)?;
    drop(bytes);
    let limits = &cell.identity.limits;
    let prepared = stored.take_back(node)?;
    let services = host_calls(&cell.identity, &cell.logs, &cell.post, &cell.tally);
    let mut instance = prepared.instantiate(HostState::new(Address(agent.0)), services, limits)?;
    stored
        .load(instance.as_mut(), Some(&cell.identity.grants))
        .map_err(damaged)?;
    instance.host_mut().advance(cell.slept());
    cell.raise_epoch(cell.epoch().next());
    cell.secure()?;
    remove_stored(agent, &directory);
    cell.awaken(prepared, instance);
    Ok(())
}

/// How long an agent has slept, and how long it has left, when its node starts again.
pub(crate) fn since(sleep: Sleep) -> (Duration, Option<Duration>) {
    let slept = Duration::from_millis(now_ms().saturating_sub(sleep.since_ms));
    let left = sleep.left_ms.map(Duration::from_millis);
    (slept, left.map(|left| left.saturating_sub(slept)))
}

//! An agent whose source was in doubt when its node stopped: it is on the disk, and the node asks on what became of it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use mielin_mesh_core::migration::{Query, QueryReply};
use mielin_mesh_core::{AgentState, Epoch, NodeId};
use tokio::sync::Notify;

use super::source;
use crate::cell::{Cell, Claim};
use crate::error::CellsError;
use crate::hibernation;
use crate::ledger::Departure;
use crate::lock::lock;
use crate::node::Node;

/// How often it asks.
const PERIOD: Duration = Duration::from_secs(1);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps others from an agent that sleeps and is doubted, until its target has said what became of it, or somebody who
/// knows.
pub(crate) fn ask_on(
    node: &Arc<Node>,
    cell: &Arc<Cell>,
    departure: Departure,
) -> Result<(), CellsError> {
    let claim = cell.claim("it may live on another node")?;
    let forced = Arc::new(Notify::new());
    lock(&node.doubts).insert(cell.id(), Arc::clone(&forced));
    cell.publish(AgentState::InDoubt);
    tokio::spawn(settle(Arc::downgrade(node), claim, departure, forced));
    Ok(())
}

async fn settle(node: Weak<Node>, claim: Claim, departure: Departure, forced: Arc<Notify>) {
    let cell = Arc::clone(claim.cell());
    let agent = cell.id();
    let mut ticks = tokio::time::interval(PERIOD);
    let found = loop {
        let asking = async {
            ticks.tick().await;
            let node = node.upgrade().filter(|node| !node.is_closing())?;
            Some(where_it_is(&node, &cell, departure).await)
        };
        let asked = tokio::select! {
            asked = asking => asked,
            () = forced.notified() => Some(Some(None)),
        };
        match asked {
            None => return,
            Some(Some(found)) => break found,
            Some(None) => {}
        }
    };
    let Some(node) = node.upgrade() else { return };
    lock(&node.doubts).remove(&agent);
    if let Some((there, epoch)) = found {
        node.entomb(&cell, there, epoch);
        cell.post.close();
        cell.give_up_asleep();
        cell.logs.discard();
        return;
    }
    // In the epoch behind the one that the target would have had.
    cell.raise_epoch(departure.epoch());
    cell.doubt(None);
    drop(claim);
    if let Err(error) = hibernation::wake(&node, &cell).await {
        tracing::warn!(%agent, %error, "an agent that goes on here could not be woken");
        return;
    }
    let ledger = Arc::clone(&node.ledger);
    match tokio::task::spawn_blocking(move || ledger.stay(agent)).await {
        Ok(Ok(())) => {}
        failed => {
            tracing::warn!(%agent, ?failed, "it could not be written down that an agent stays");
        }
    }
}

/// The node that has the agent, and its epoch there; or that none has. `None` if nobody says.
async fn where_it_is(
    node: &Arc<Node>,
    cell: &Cell,
    departure: Departure,
) -> Option<Option<(NodeId, Epoch)>> {
    let agent = cell.id();
    if let Some(location) = node.mesh.locate(&agent)
        && location.record.epoch >= departure.epoch()
        && location.record.node != node.id()
    {
        return Some(Some((location.record.node, location.record.epoch)));
    }
    let query = Query {
        agent,
        epoch: departure.epoch(),
    };
    let asked = source::ask(Arc::clone(node), departure.target(), query);
    match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(Ok(QueryReply::Running { epoch })) => Some(Some((departure.target(), epoch))),
        Ok(Ok(QueryReply::NotHere { .. })) => Some(None),
        Ok(Ok(QueryReply::Unsettled) | Err(_)) | Err(_) => None,
    }
}

//! News: what the agents of this node do, for the mesh, and where those of others went, for this node.

use std::collections::{HashMap, HashSet};
use std::sync::Weak;

use mielin_mesh::MeshEvent;
use mielin_mesh_core::{AgentId, AgentState, Epoch};
use tokio::sync::{broadcast, mpsc, watch};

use super::{ANNOUNCE_PAUSE, Node};

/// Announces what agents do: the going back and forth between running and waiting at leisure, all else at once.
pub(super) async fn announce_changes(
    node: Weak<Node>,
    mut changed: mpsc::UnboundedReceiver<AgentId>,
) {
    let mut said: HashMap<AgentId, (AgentState, Epoch)> = HashMap::new();
    let mut later: HashSet<AgentId> = HashSet::new();
    let mut due: Option<tokio::time::Instant> = None;
    loop {
        let sleep = tokio::time::sleep_until(due.unwrap_or_else(tokio::time::Instant::now));
        let now: Vec<AgentId> = tokio::select! {
            agent = changed.recv() => {
                let (Some(agent), Some(node)) = (agent, node.upgrade()) else { return };
                let Ok(cell) = node.here(&agent) else { continue };
                if cell.end().is_some() {
                    node.keep_ended(agent);
                }
                if matches!(cell.state(), AgentState::Running | AgentState::Waiting) && said.contains_key(&agent) {
                    later.insert(agent);
                    due.get_or_insert_with(|| tokio::time::Instant::now() + ANNOUNCE_PAUSE);
                    continue;
                }
                later.remove(&agent);
                vec![agent]
            }
            () = sleep, if due.is_some() => {
                due = None;
                later.drain().collect()
            }
        };
        let Some(node) = node.upgrade() else { return };
        for agent in now {
            let Ok(cell) = node.here(&agent) else {
                said.remove(&agent);
                continue;
            };
            let news = (cell.state(), cell.epoch());
            if said.get(&agent) != Some(&news) {
                node.announce(&cell);
                if news.0.is_final() {
                    said.remove(&agent);
                } else {
                    said.insert(agent, news);
                }
            }
        }
    }
}

/// Listens to the mesh: agents that moved elsewhere get their messages there.
pub(super) async fn follow_mesh(
    node: Weak<Node>,
    mut events: broadcast::Receiver<MeshEvent>,
    mut closing: watch::Receiver<bool>,
) {
    let mut epochs: HashMap<AgentId, Epoch> = HashMap::new();
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = closing.wait_for(|closing| *closing) => return,
        };
        let record = match event {
            Ok(MeshEvent::LocationChanged(location)) => location.record,
            Ok(MeshEvent::Fenced { by, .. }) => by,
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => continue,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let Some(node) = node.upgrade() else { return };
        let news = epochs
            .insert(record.agent, record.epoch)
            .is_none_or(|known| known < record.epoch);
        if news {
            node.relocated(&record.agent);
        }
        node.fence(&record).await;
        if record.state.is_final() {
            epochs.remove(&record.agent);
        }
    }
}

//! Where an agent is of which nobody seems to know.

use std::time::Duration;

use mielin_mesh::{Absence, MeshEvent};
use mielin_mesh_core::AgentId;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout};

use crate::error::CellsError;
use crate::node::{Node, Place};

/// How long an agent is looked for of which nobody knows. Right after its node or this one has come into the mesh, or
/// was taken for dead and came back, its record has yet to be published, or this node to meet those who keep it.
const UNKNOWN_PATIENCE: Duration = Duration::from_secs(2);
/// The longest pause between two looks, if no record arrives in between.
const FIND_PAUSE: Duration = Duration::from_millis(200);

/// Where an agent is as far as this node knows, or what the mesh says when it is asked for some time.
pub(crate) async fn found(node: &Node, agent: &AgentId) -> Place {
    let deadline = Instant::now() + UNKNOWN_PATIENCE;
    let mut events = node.mesh.subscribe();
    loop {
        let place = match node.place(agent) {
            Place::Unknown => node.sought(agent).await,
            known => known,
        };
        if !matches!(place, Place::Unknown) || Instant::now() >= deadline {
            return place;
        }
        heard_of(agent, &mut events).await;
    }
}

impl Node {
    /// What became of the node where the agent is, if membership says that it has gone, and the mesh knows of no other
    /// place.
    pub(crate) async fn absence_at(&self, agent: &AgentId) -> Option<Absence> {
        let absent = |place: Place| match place {
            Place::There(peer, _) => self.mesh.absence(&peer),
            Place::Here(_) | Place::Unknown => None,
        };
        absent(self.place(agent))?;
        absent(self.sought(agent).await)
    }

    /// Completes when that is so: until then it may answer.
    pub(crate) async fn out_of_reach(&self, agent: &AgentId) -> CellsError {
        let mut events = self.mesh.subscribe();
        loop {
            if let Some(absence) = self.absence_at(agent).await {
                return CellsError::Gone(absence);
            }
            if let Err(RecvError::Closed) = events.recv().await {
                return CellsError::ShuttingDown;
            }
        }
    }
}

/// Waits for news of where an agent is, but not for long.
pub(crate) async fn heard_of(agent: &AgentId, events: &mut Receiver<MeshEvent>) {
    let heard = async {
        loop {
            match events.recv().await {
                Ok(MeshEvent::LocationChanged(location)) if location.record.agent == *agent => {
                    return;
                }
                Ok(_) => {}
                Err(_) => std::future::pending().await,
            }
        }
    };
    // An error says that there was none.
    let _ = timeout(FIND_PAUSE, heard).await;
}

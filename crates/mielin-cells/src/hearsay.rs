//! Hearsay: where agents have gone, as nodes say that do not hold them.
//!
//! Nobody signs it, so that it is a hint on where to look next and nothing more, whatever epoch it claims. It is given
//! up when the node that it names does not serve the agent. In any case the table is asked after [`LIFE`], and then
//! what holders have signed counts again; more hearsay does not put that off. Others are not told of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mielin_mesh::MeshError;
use mielin_mesh_core::delivery::DeliveryReply;
use mielin_mesh_core::{AgentId, Epoch, NodeId};

use crate::lock::lock;
use crate::node::{Node, Place, REMEMBERED_MAX};

/// How long a node is believed that sends others on. Long enough that an agent's new holder has published it, or
/// messages would be sent on by the old one once more.
const LIFE: Duration = Duration::from_secs(5);

/// Hints by agent. Where one was given up, the check that is due for it is for the next one.
#[derive(Default)]
pub(crate) struct Hearsay(Mutex<HashMap<AgentId, Option<(NodeId, Epoch)>>>);

impl Hearsay {
    pub(crate) fn hint(&self, agent: &AgentId) -> Option<(NodeId, Epoch)> {
        lock(&self.0).get(agent).copied().flatten()
    }

    pub(crate) fn give_up(&self, agent: &AgentId) {
        if let Some(hint) = lock(&self.0).get_mut(agent) {
            *hint = None;
        }
    }

    /// Whether a check is due from now on.
    fn note(&self, agent: AgentId, node: NodeId, epoch: Epoch) -> bool {
        let mut hints = lock(&self.0);
        if hints.len() >= REMEMBERED_MAX {
            hints.clear();
        }
        hints.insert(agent, Some((node, epoch))).is_none()
    }

    fn checked(&self, agent: &AgentId) {
        lock(&self.0).remove(agent);
    }
}

impl Node {
    /// Notes where an agent is said to be; whether that is news.
    pub(crate) fn hear_of(self: &Arc<Self>, agent: AgentId, node: NodeId, epoch: u64) -> bool {
        let epoch = Epoch(epoch);
        let news = match self.place(&agent) {
            Place::Here(_) => false,
            Place::There(_, known) => known < epoch,
            Place::Unknown => true,
        };
        let news = news && node != self.id();
        if news && self.hearsay.note(agent, node, epoch) {
            self.check_later(agent);
        }
        news
    }

    /// Takes what is said to messages for what it says of where their destination is. `false` if the mesh has to be
    /// asked: it is not where they went, and nobody says where else.
    pub(crate) fn heed(self: &Arc<Self>, to: &AgentId, reply: Option<DeliveryReply>) -> bool {
        let leads_on = match reply {
            None | Some(DeliveryReply::Unknown) => false,
            Some(DeliveryReply::Moved { node, epoch }) => self.hear_of(*to, node, epoch.0),
            Some(_) => true,
        };
        if !leads_on {
            self.hearsay.give_up(to);
        }
        leads_on
    }

    fn check_later(self: &Arc<Self>, agent: AgentId) {
        let node = Arc::downgrade(self);
        self.runtime.spawn(async move {
            tokio::time::sleep(LIFE).await;
            let Some(node) = node.upgrade() else { return };
            // Without the table nobody has signed anything.
            if !matches!(node.look_up(&agent).await, Err(MeshError::RegistryOff)) {
                node.hearsay.checked(&agent);
            }
        });
    }
}

#[cfg(test)]
mod tests;

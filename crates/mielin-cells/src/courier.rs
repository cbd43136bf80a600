//! Carries messages from outboxes to mailboxes, on this node and, over the mesh, on others.

use std::sync::{Arc, Weak};
use std::time::Duration;

use mielin_mesh::{BoxFuture, Mailboxes, MeshError};
use mielin_mesh_core::delivery::{Advice, DeliveryReply, Envelope};
use mielin_mesh_core::{AgentId, NodeId};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::node::{Node, Place, Route};
use crate::post::Post;

/// How long messages wait at a mailbox whose agent is being handed over, before their sender is told to wait itself.
const HAND_OVER: Duration = Duration::from_secs(2);
/// Pauses between looks at where the sender of a message is, which may have moved a moment ago.
const LOOK_PAUSES: [Duration; 4] = [
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(40),
    Duration::from_millis(80),
];
/// A pause instead of a sleep for ever, when nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// Empties one outbox of what does not go by itself ([`Post::transmit`]), until all of it is acknowledged or its agent is
/// gone from this node. One exchange per destination is under way at a time, so that nothing overtakes.
pub(crate) async fn run(node: Arc<Node>, post: Arc<Post>) {
    let mut flights: JoinSet<(AgentId, Option<DeliveryReply>)> = JoinSet::new();
    let mut flying: Vec<AgentId> = Vec::new();
    while !node.dismiss_courier(&post, flying.is_empty()) {
        for to in post.ready(node.now()) {
            if post.transmit(&node, &to) {
                continue;
            }
            let Some(envelopes) = post.begin_exchange(node.now(), &to) else {
                continue;
            };
            flying.push(to);
            let node = Arc::clone(&node);
            flights.spawn(async move { (to, carry(&node, to, envelopes).await) });
        }
        let due = post.wakes_courier_at();
        let due = due.map_or(IDLE, |at| at.since(node.now()));
        tokio::select! {
            () = post.outgoing.notified() => {}
            () = tokio::time::sleep(due) => {}
            Some(landed) = flights.join_next() => {
                let Ok((to, reply)) = landed else {
                    // Only a panic in `carry` comes here; every flight is abandoned and its messages come again.
                    flights.shutdown().await;
                    for to in flying.drain(..) {
                        post.end_exchange(&to);
                    }
                    continue;
                };
                flying.retain(|flying| *flying != to);
                land(&node, &post, &to, reply);
                post.end_exchange(&to);
            }
        }
    }
}

fn land(node: &Node, post: &Post, to: &AgentId, reply: Option<DeliveryReply>) {
    let Some(reply) = reply else {
        post.undeliverable(node.now(), to);
        return;
    };
    match post.handle_reply(node.now(), to, reply) {
        Advice::Dropped { count } => {
            tracing::info!(agent = %to, count, "messages to an ended agent were dropped")
        }
        // It was heeded before.
        Advice::Redirect { .. } | Advice::LookUp | Advice::Continue => {}
    }
}

/// Brings messages to wherever the destination is; `None` if nobody answered. Where nobody has it or says where else
/// it is, the mesh is asked for the next attempt.
async fn carry(node: &Arc<Node>, to: AgentId, envelopes: Vec<Envelope>) -> Option<DeliveryReply> {
    let reply = attempt(node, to, envelopes).await;
    if !node.heed(&to, reply) {
        node.sought(&to).await;
    }
    reply
}

async fn attempt(node: &Arc<Node>, to: AgentId, envelopes: Vec<Envelope>) -> Option<DeliveryReply> {
    match node.route(&to) {
        Route::Local => Some(deliver(node, to, envelopes).await),
        Route::Remote(peer) => match node.mesh.deliver(&peer, &envelopes).await {
            Ok(reply) => Some(reply),
            Err(error) => {
                tracing::debug!(agent = %to, node = %peer, %error, "messages could not be delivered");
                None
            }
        },
        Route::None => None,
    }
}

/// Puts messages into a mailbox; waits a little for one whose agent is just being handed over.
async fn deliver(node: &Arc<Node>, to: AgentId, envelopes: Vec<Envelope>) -> DeliveryReply {
    let deadline = tokio::time::Instant::now() + HAND_OVER;
    let mut handed_over = node.watch_moves();
    loop {
        handed_over.borrow_and_update();
        let reply = node.deliver(to, envelopes.clone());
        if reply != DeliveryReply::Busy
            || !matches!(
                tokio::time::timeout_at(deadline, handed_over.changed()).await,
                Ok(Ok(()))
            )
        {
            return reply;
        }
    }
}

/// The mailboxes of a node, for messages from others. It is no reason for the node to go on.
pub(crate) struct Entrance(pub(crate) Weak<Node>);

impl Mailboxes for Entrance {
    fn deliver(
        &self,
        from: NodeId,
        to: AgentId,
        envelopes: Vec<Envelope>,
    ) -> BoxFuture<'_, Option<DeliveryReply>> {
        let node = self.0.upgrade().filter(|node| node.serves());
        Box::pin(async move {
            let node = node?;
            let taken = async {
                if !comes_from(&node, &from, &envelopes).await {
                    tracing::warn!(node = %from, "messages of an agent that lives elsewhere");
                    return DeliveryReply::Busy;
                }
                deliver(&node, to, envelopes).await
            };
            tokio::select! {
                reply = taken => Some(reply),
                () = node.closing() => None,
            }
        })
    }

    fn deliver_now(&self, from: NodeId, envelope: Envelope) -> Option<DeliveryReply> {
        let node = self.0.upgrade().filter(|node| node.serves())?;
        if !is_at(&node, &envelope.source, &from) {
            return None;
        }
        match node.deliver(envelope.destination, vec![envelope]) {
            DeliveryReply::Busy | DeliveryReply::Unknown => None,
            reply => Some(reply),
        }
    }

    fn replied(
        &self,
        from: NodeId,
        source: AgentId,
        destination: AgentId,
        reply: Option<DeliveryReply>,
    ) {
        let Some(node) = self.0.upgrade() else {
            return;
        };
        let Some(post) = node.post_of(&source) else {
            return;
        };
        // What a node says of an agent that has left it is no news, and it could be wrong.
        let reply = reply.filter(|reply| {
            is_at(&node, &destination, &from) && node.heed(&destination, Some(*reply))
        });
        match reply {
            Some(reply) => land(&node, &post, &destination, Some(reply)),
            None => post.unheard(&destination),
        }
        post.go_on(&node, &destination);
    }
}

/// Whether an agent, or a node's command line, is at a node as far as is known here.
fn is_at(node: &Node, agent: &AgentId, at: &NodeId) -> bool {
    Client::is_of(agent, at)
        || matches!(node.place(agent), Place::There(holder, _) if holder == *at)
}

/// Whether the sender of messages, an agent or a node's command line, is at the node that they came from, as far as the
/// mesh knows. Whoever is nowhere cannot be told from a newcomer.
async fn comes_from(node: &Arc<Node>, from: &NodeId, envelopes: &[Envelope]) -> bool {
    let Some(source) = envelopes.first().map(|envelope| envelope.source) else {
        return true;
    };
    if is_at(node, &source, from) {
        return true;
    }
    let is_there = |place: &Place| matches!(place, Place::There(holder, _) if holder == from);
    for pause in LOOK_PAUSES {
        match node.look_up(&source).await {
            Ok(Place::Unknown) => return !node.is_client_of_another(&source, from),
            Ok(place) if is_there(&place) => return true,
            Ok(Place::Here(_) | Place::There(..)) => tokio::time::sleep(pause).await,
            // Without the table all that is known is what was heard.
            Err(MeshError::RegistryOff) => {
                return matches!(node.place(&source), Place::Unknown)
                    && !node.is_client_of_another(&source, from);
            }
            Err(error) => {
                tracing::debug!(%source, %error, "the sender of messages could not be looked up");
                return false;
            }
        }
    }
    false
}

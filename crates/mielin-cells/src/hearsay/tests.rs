#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use mielin_mesh::{BoxFuture, FrameLimit, Mailboxes, MeshService, MeshStream, stream_handler};
use mielin_mesh_core::delivery::{Envelope, MessageKind};
use mielin_mesh_core::{AgentState, LocationRecord, Name};

use super::*;
use crate::Cells;
use crate::post::tests::{node_and_member, until};
use crate::wire::{self, Answer};

const AGENT: AgentId = AgentId([7; 16]);
/// A node that is not there.
const LIAR: NodeId = NodeId([1; 32]);

/// Counts the messages that come.
#[derive(Default)]
struct Taken(Mutex<Vec<u64>>);

impl Mailboxes for Taken {
    fn deliver(
        &self,
        _: NodeId,
        _: AgentId,
        envelopes: Vec<Envelope>,
    ) -> BoxFuture<'_, Option<DeliveryReply>> {
        let mut replies = envelopes.into_iter().map(|one| self.deliver_now(LIAR, one));
        Box::pin(std::future::ready(replies.next_back().flatten()))
    }

    fn deliver_now(&self, _: NodeId, envelope: Envelope) -> Option<DeliveryReply> {
        let through = envelope.sequence;
        lock(&self.0).push(through);
        Some(DeliveryReply::Acknowledged { through })
    }

    fn replied(&self, _: NodeId, _: AgentId, _: AgentId, _: Option<DeliveryReply>) {}
}

fn is_at(node: &Node, at: NodeId) -> bool {
    matches!(node.place(&AGENT), Place::There(holder, _) if holder == at)
}

/// Publishes that a member holds the agent.
async fn hold(holder: &MeshService) {
    until(|| holder.members().len() == 2).await;
    let record = LocationRecord {
        agent: AGENT,
        name: Name::new("held").unwrap(),
        module: [0; 32],
        owner: holder.local().id,
        started_ms: 0,
        node: holder.local().id,
        epoch: Epoch(2),
        revision: 1,
        state: AgentState::Running,
    };
    holder.announce(record).unwrap();
    holder.published(&AGENT).await;
}

#[tokio::test]
async fn messages_go_to_the_holder_when_hearsay_led_nowhere() {
    let (node, holder, _directories) = node_and_member().await;
    let taken = Arc::new(Taken::default());
    holder.serve_messages(Arc::clone(&taken) as Arc<dyn Mailboxes>);
    hold(&holder).await;
    assert!(node.hear_of(AGENT, LIAR, u64::MAX));
    let sent = node
        .client
        .post
        .push(AGENT, MessageKind::Send, Bytes::new());
    assert_eq!(sent, Ok(1));
    until(|| !lock(&taken.0).is_empty()).await;
    assert!(is_at(&node, holder.local().id));
}

#[tokio::test]
async fn operations_go_to_the_holder_when_hearsay_led_nowhere() {
    let (node, holder, _directories) = node_and_member().await;
    let serve = |_, mut stream: MeshStream| async move {
        stream.recv_frame(FrameLimit::payload(0)).await.unwrap();
        let done = Answer::Done.encode();
        stream.send_frame(&done, &[]).await.unwrap();
        // The caller leaves when it has heard.
        let _ = stream.recv_frame(FrameLimit::payload(0)).await;
    };
    holder.serve_streams(wire::OPERATIONS, stream_handler(serve));
    hold(&holder).await;
    assert!(node.hear_of(AGENT, LIAR, u64::MAX));
    let cells = Cells { node };
    cells.pause(AGENT).await.unwrap();
}

/// And however much more is said meanwhile.
#[tokio::test]
async fn hearsay_that_nobody_tries_yields_to_the_registry() {
    let (node, holder, _directories) = node_and_member().await;
    hold(&holder).await;
    let mut claimed = 9;
    assert!(node.hear_of(AGENT, LIAR, claimed));
    assert!(is_at(&node, LIAR));
    until(|| {
        claimed += u64::from(is_at(&node, LIAR));
        is_at(&node, holder.local().id) || !node.hear_of(AGENT, LIAR, claimed)
    })
    .await;
    assert!(is_at(&node, holder.local().id));
}

#[tokio::test]
async fn others_are_not_told_of_hearsay_and_old_news_end_it() {
    let (node, _holder, _directories) = node_and_member().await;
    assert!(node.hear_of(AGENT, LIAR, 9));
    assert_eq!(node.deliver(AGENT, Vec::new()), DeliveryReply::Unknown);
    let moved = |epoch| {
        let epoch = Epoch(epoch);
        Some(DeliveryReply::Moved { node: LIAR, epoch })
    };
    assert!(node.heed(&AGENT, moved(10)) && is_at(&node, LIAR));
    assert!(!node.heed(&AGENT, moved(10)) && !is_at(&node, LIAR));
}

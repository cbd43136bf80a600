//! Messages: exactly once and in order, wherever their receiver is.

use std::sync::Arc;

use bytes::Bytes;
use mielin_cells::MoveOptions;
use mielin_mesh::{BoxFuture, Mailboxes};
use mielin_mesh_core::delivery::{DeliveryReply, Envelope, MessageKind};
use mielin_mesh_core::{AgentId, AgentState, Epoch, LocationRecord, Name, NodeId};

use crate::nodes::{PATIENCE, joined, plain_mesh, shut_down, within};
use crate::programs;

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_from_every_node() {
    let nodes = plain_mesh(2).await;
    let agent = nodes[0].spawn(&programs::echo(), "echo").await;
    nodes[1].until(agent, |_, _| true).await;
    for (index, node) in nodes.iter().enumerate() {
        let payload = Bytes::from(format!("from {index}"));
        assert_eq!(
            node.cells
                .request(agent, payload.clone(), PATIENCE)
                .await
                .unwrap(),
            payload
        );
    }
    assert_eq!(nodes[0].stdout(agent).await, "from 0\nfrom 1\n");
    shut_down(nodes).await;
}

/// Has everything that is brought to it.
struct Everything;

impl Mailboxes for Everything {
    fn deliver(
        &self,
        _: NodeId,
        _: AgentId,
        envelopes: Vec<Envelope>,
    ) -> BoxFuture<'_, Option<DeliveryReply>> {
        let last = envelopes
            .last()
            .and_then(|last| self.deliver_now(NodeId([0; 32]), last.clone()));
        Box::pin(std::future::ready(last))
    }

    fn deliver_now(&self, _: NodeId, envelope: Envelope) -> Option<DeliveryReply> {
        let through = envelope.sequence;
        Some(DeliveryReply::Acknowledged { through })
    }

    fn replied(&self, _: NodeId, _: AgentId, _: AgentId, _: Option<DeliveryReply>) {}
}

/// A node that has just come into the mesh, or its agent, is not found by everybody at once.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_not_found_at_first_gets_its_message() {
    let nodes = plain_mesh(1).await;
    let directory = tempfile::tempdir().unwrap();
    let holder = joined(
        &directory.path().join("node"),
        "holder".into(),
        nodes[0].mesh.local().address,
        nodes[0].token(),
    )
    .await;
    holder.serve_messages(Arc::new(Everything));
    let (agent, cells) = (AgentId::new(), nodes[0].cells.clone());
    let sending = tokio::spawn(async move { cells.send(agent, Bytes::new()).await });
    let in_vain = "mielin_lookups_total{outcome=\"empty\"} ";
    within(async {
        let is_so = |line: &str| line.strip_prefix(in_vain).is_some_and(|count| count != "0");
        while !nodes[0].mesh.metrics().lines().any(is_so) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let record = LocationRecord {
        agent,
        name: Name::new("late").unwrap(),
        module: [0; 32],
        owner: holder.local().id,
        started_ms: 0,
        node: holder.local().id,
        epoch: Epoch(1),
        revision: 1,
        state: AgentState::Waiting,
    };
    holder.announce(record).unwrap();
    assert_eq!(within(sending).await.unwrap().unwrap(), 1);
    holder.shutdown().await;
    shut_down(nodes).await;
}

/// The largest payload is larger than the receiver's buffer, so it stays in the mailbox; what matters is that it gets
/// there over the wire.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_message_arrives() {
    let nodes = plain_mesh(2).await;
    let agent = nodes[0].spawn(&programs::spin(), "s").await;
    nodes[1].until(agent, |_, _| true).await;
    within(nodes[1].cells.send(agent, Bytes::from(vec![1; 16 << 20])))
        .await
        .unwrap();
    assert_eq!(
        nodes[0].cells.inspect(agent).await.unwrap().mailbox_count,
        1
    );
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_moves_lose_double_and_reorder_nothing() {
    let nodes = plain_mesh(3).await;
    let agent = nodes[0].spawn(&programs::echo(), "echo").await;
    nodes[2].until(agent, |_, _| true).await;
    let sender = nodes[2].cells.clone();
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    // One command line sends as fast as it can while the agent moves.
    let sending = tokio::spawn(async move {
        let mut count = 0;
        while !*stopped.borrow_and_update() {
            sender
                .send(agent, Bytes::from(format!("{count}")))
                .await
                .unwrap();
            count += 1;
        }
        sender
            .send(agent, Bytes::from_static(b"stop"))
            .await
            .unwrap();
        count
    });
    for step in 1..=50 {
        let target = nodes[step % 3].id();
        let report = within(
            nodes[0]
                .cells
                .migrate(agent, target, MoveOptions::default(), None),
        )
        .await
        .unwrap();
        assert_eq!(
            (report.from, report.to),
            (nodes[(step - 1) % 3].id(), target)
        );
    }
    stop.send_replace(true);
    let count = within(sending).await.unwrap();
    within(nodes[0].cells.wait(agent)).await.unwrap();
    let expected: String = (0..count)
        .map(|index| format!("{index}\n"))
        .chain(["stop\n".to_owned()])
        .collect();
    assert_eq!(nodes[1].whole_stdout(agent).await, expected);
    assert!(count > 0);
    let report = nodes[1].cells.inspect(agent).await.unwrap();
    assert_eq!(
        (report.counters.moves, report.counters.received),
        (50, count + 1)
    );
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_moving_agents_hear_each_other() {
    const COUNT: u64 = 3000;
    let nodes = plain_mesh(3).await;
    let echo = nodes[0].spawn(&programs::echo(), "echo").await;
    let talker = nodes[1]
        .spawn_granted(&programs::talker(), "talker", &["message"])
        .await;
    nodes[0].until(talker, |_, _| true).await;
    let mut order = echo.0.to_vec();
    order.extend_from_slice(&COUNT.to_le_bytes());
    // The first move begins with the conversation, which cannot end while the echo stands still.
    let ordered = nodes[0].cells.send(talker, order.into());
    let away = nodes[2]
        .cells
        .migrate(echo, nodes[2].id(), MoveOptions::default(), None);
    let (ordered, moved) = within(async { tokio::join!(ordered, away) }).await;
    ordered.unwrap();
    moved.unwrap();
    for step in 3.. {
        for (agent, offset) in [(echo, 0), (talker, 1)] {
            let target = nodes[(step + offset) % 3].id();
            let options = MoveOptions::default();
            // Either may have ended meanwhile, or be there.
            let _ = within(nodes[2].cells.migrate(agent, target, options, None)).await;
        }
        let agents = nodes[2].cells.agents().await.unwrap().agents;
        let mut echoes = agents.iter().filter(|summary| summary.agent == echo);
        if echoes.any(|summary| summary.state.is_final()) {
            break;
        }
    }
    within(nodes[2].cells.wait(echo)).await.unwrap();
    let expected: String = (0..COUNT)
        .map(|index| format!("{index:016x}\n"))
        .chain(["stop\n".to_owned()])
        .collect();
    assert_eq!(nodes[2].whole_stdout(echo).await, expected);
    shut_down(nodes).await;
}

/// A member can put any name over a message. Only the node where an agent lives speaks for it, and only the node of a
/// command line for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_the_name_of_an_agent_of_another_node_is_not_taken_in() {
    let nodes = plain_mesh(2).await;
    let victim = nodes[0].spawn(&programs::spin(), "victim").await;
    let target = nodes[0].spawn(&programs::spin(), "target").await;
    let other = nodes[1].spawn(&programs::spin(), "other").await;
    let liar = &nodes[1].mesh;
    let said = async |source: AgentId, source_epoch: u64| {
        let envelope = Envelope {
            source,
            source_epoch: Epoch(source_epoch),
            destination: target,
            sequence: 1,
            kind: MessageKind::Send,
            payload: Bytes::from_static(b"as if"),
        };
        liar.deliver(&nodes[0].id(), &[envelope]).await.unwrap()
    };
    let waiting = async || nodes[0].cells.inspect(target).await.unwrap().mailbox_count;
    for epoch in [1, 2, 1_000] {
        assert_eq!(said(victim, epoch).await, DeliveryReply::Busy);
    }
    assert_eq!(waiting().await, 0);
    // Its own agents' words are taken in, and so are the words of one that nobody knows.
    let taken = DeliveryReply::Acknowledged { through: 1 };
    assert_eq!(said(other, 1).await, taken);
    assert_eq!(said(AgentId::new(), 1).await, taken);
    assert_eq!(waiting().await, 2);
    // The same for what is posted. The lane is in order: when the last is there, the lies were before it.
    let posted = |source: AgentId, sequence: u64| Envelope {
        source,
        source_epoch: Epoch(1),
        destination: target,
        sequence,
        kind: MessageKind::Send,
        payload: Bytes::from_static(b"as if"),
    };
    let lane = within(async {
        loop {
            match liar.lane(&nodes[0].id()) {
                Some(lane) => return lane,
                None => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    let mut lies = [
        posted(victim, 1),
        posted(AgentId::new(), 1),
        posted(other, 2),
    ]
    .into_iter();
    assert!(lane.post(|| lies.next()));
    within(async { while waiting().await < 3 {} }).await;
    assert_eq!(waiting().await, 3);
    shut_down(nodes).await;
}

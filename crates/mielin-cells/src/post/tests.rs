#![allow(clippy::unwrap_used)]

use std::time::Duration;

use mielin_mesh::{BoxFuture, JoinRequest, Mailboxes, MeshConfig, MeshService, create_mesh, join};
use mielin_mesh_core::limits::DELIVERY_WINDOW_COUNT;
use mielin_mesh_core::{NodeId, NodeRole};
use tempfile::TempDir;
use tokio::time::{interval, timeout};

use super::*;
use crate::cell::Cell;
use crate::config::CellsConfig;
use crate::courier::Entrance;
use crate::logs::Logs;
use crate::record::Record;

const DEADLINE: Duration = Duration::from_secs(120);

/// Counts what is posted, and leaves its answers to the test.
#[derive(Default)]
struct Silent(AtomicU64);

impl Mailboxes for Silent {
    fn deliver(
        &self,
        _: NodeId,
        _: AgentId,
        _: Vec<Envelope>,
    ) -> BoxFuture<'_, Option<DeliveryReply>> {
        Box::pin(std::future::pending())
    }

    fn deliver_now(&self, _: NodeId, _: Envelope) -> Option<DeliveryReply> {
        self.0.fetch_add(1, Ordering::Relaxed);
        None
    }

    fn replied(&self, _: NodeId, _: AgentId, _: AgentId, _: Option<DeliveryReply>) {}
}

pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    let mut look = interval(Duration::from_millis(5));
    let becomes_so = async {
        while !is_so() {
            look.tick().await;
        }
    };
    timeout(DEADLINE, becomes_so).await.unwrap();
}

fn listening() -> MeshConfig {
    let mut config = MeshConfig::new("127.0.0.1:0".parse().unwrap());
    config.enable_mdns = false;
    config
}

/// A node without agents.
async fn node(directory: &TempDir) -> Arc<Node> {
    let mesh = founded(directory).await;
    Node::start(CellsConfig::default(), mesh).await.unwrap()
}

/// A mesh of one.
pub(crate) async fn founded(directory: &TempDir) -> MeshService {
    let founder = create_mesh(directory.path(), "founder", NodeRole::Core).unwrap();
    MeshService::start(listening(), founder).await.unwrap()
}

/// A node without agents, and a member of its mesh that holds none either.
pub(crate) async fn node_and_member() -> (Arc<Node>, MeshService, [TempDir; 2]) {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let node = node(&directories[0]).await;
    let address = node.mesh.local().address;
    let token = node.mesh.authority().unwrap().issue_token(None, DEADLINE);
    let request = JoinRequest {
        address,
        token: Some(token.unwrap()),
        name: "other".into(),
        role: NodeRole::Edge,
    };
    let other = join(directories[1].path(), request, |_| {}).await.unwrap();
    let other = MeshService::start(listening().bootstrap(address), other);
    (node, other.await.unwrap(), directories)
}

#[tokio::test]
async fn an_answer_sends_off_what_it_made_room_for() {
    let (node, other, _directories) = node_and_member().await;
    let posted = Arc::new(Silent::default());
    other.serve_messages(Arc::clone(&posted) as Arc<dyn Mailboxes>);
    let there = other.local().id;
    until(|| node.mesh.lane(&there).is_some()).await;

    let (source, to) = (AgentId::new(), AgentId::new());
    assert!(node.hear_of(to, there, 1));
    // No courier works for this post.
    let post = Post::new(source, Epoch(1), PAYLOAD_BYTES_MAX);
    let window = DELIVERY_WINDOW_COUNT as u64;
    for _ in 0..2 * window {
        let kind = delivery::MessageKind::Send;
        post.push(to, kind, Bytes::new()).unwrap();
    }
    post.transmit(&node, &to);
    until(|| posted.0.load(Ordering::Relaxed) == window).await;
    let through = window / 2;
    post.handle_reply(node.now(), &to, DeliveryReply::Acknowledged { through });
    post.go_on(&node, &to);
    until(|| posted.0.load(Ordering::Relaxed) == window + through).await;
    node.shutdown().await;
    other.shutdown().await;
    node.mesh.shutdown().await;
}

#[tokio::test]
async fn only_the_node_where_an_agent_is_speaks_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(&directory).await;
    let (to, holder, former) = (AgentId::new(), NodeId([1; 32]), NodeId([2; 32]));
    assert!(node.hear_of(to, holder, 2));
    let (post, client) = (&node.client.post, node.client.id());
    let kind = delivery::MessageKind::Send;
    assert_eq!(post.push(to, kind, Bytes::new()), Ok(1));
    let entrance = Entrance(Arc::downgrade(&node));
    let acknowledged = DeliveryReply::Acknowledged { through: 1 };
    for lie in [DeliveryReply::Ended, acknowledged] {
        entrance.replied(former, client, to, Some(lie));
        let fate = post.fate(&to);
        assert!(!fate.ended && fate.through == 0, "{fate:?}");
    }
    entrance.replied(holder, client, to, Some(acknowledged));
    assert_eq!(post.fate(&to).through, 1);
    node.shutdown().await;
    node.mesh.shutdown().await;
}

/// The last pause may have been long, and the next is short.
#[tokio::test]
async fn an_answer_that_ends_the_pauses_wakes_the_courier() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(&directory).await;
    let to = AgentId::new();
    // No courier works for this post.
    let post = Post::new(AgentId::new(), Epoch(1), PAYLOAD_BYTES_MAX);
    for _ in 0..2 {
        let kind = delivery::MessageKind::Send;
        post.push(to, kind, Bytes::new()).unwrap();
    }
    let now = node.now();
    for _ in 0..8 {
        post.undeliverable(now, &to);
    }
    let moved = DeliveryReply::Moved {
        node: node.id(),
        epoch: Epoch(1),
    };
    post.handle_reply(now, &to, moved);
    while lock(&post.state).outbox.poll_post(now, &to, 1).is_some() {}
    let wakes = post.wakes_courier_at().unwrap();
    assert!(wakes.since(now) > Duration::from_secs(1));
    let woken = || timeout(Duration::ZERO, post.outgoing.notified());
    assert!(woken().await.is_ok(), "by the messages");
    post.go_on(&node, &to);
    assert!(woken().await.is_err(), "there is nothing to do");
    post.handle_reply(now, &to, DeliveryReply::Acknowledged { through: 1 });
    post.go_on(&node, &to);
    assert!(woken().await.is_ok());
    assert!(post.wakes_courier_at().unwrap() < wakes);
    node.shutdown().await;
    node.mesh.shutdown().await;
}

/// What is stored of an agent that sleeps would not have a message that comes now.
#[test]
fn a_post_that_sleeps_acknowledges_nothing_and_lets_out_what_was_sent() {
    let (agent, peer, now) = (AgentId([1; 16]), AgentId([2; 16]), Instant::default());
    let post = Post::new(agent, Epoch(1), 1024);
    let mut sender = Outbox::new(peer);
    let hello = Bytes::from_static(b"hello");
    let push = |sender: &mut Outbox| {
        let kind = delivery::MessageKind::Send;
        sender.push(Epoch(1), agent, kind, hello.clone()).unwrap();
    };
    push(&mut sender);
    let envelopes = sender.begin_exchange(now, &agent).unwrap();
    let taken = std::cell::Cell::new(0);
    let count = || {
        // Nobody can look at the outbox yet.
        assert!(post.state.try_lock().is_err());
        taken.set(taken.get() + 1);
    };
    post.send(peer, MessageKind::Message, b"out", count)
        .unwrap();
    assert_eq!(taken.get(), 1);
    let received = AtomicU64::new(0);
    post.freeze();
    assert!(post.ready(now).is_empty());
    post.sleep();
    assert_eq!(post.ready(now), [peer]);
    let reply = post.accept(envelopes.clone(), &received);
    assert_eq!((reply, post.mailbox_count()), (DeliveryReply::Busy, 0));
    post.wake(Epoch(2));
    let reply = post.accept(envelopes, &received);
    assert_eq!(reply, DeliveryReply::Acknowledged { through: 1 });
    assert_eq!((post.mailbox_count(), received.into_inner()), (1, 1));
}

/// A sender that was told so would drop what it has for the agent, and the agent would wait for that for ever.
#[tokio::test]
async fn nobody_is_told_that_an_agent_has_ended_which_may_live_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(&directory).await;
    let mut record = Record::sample();
    record.lose("its node was killed".to_owned());
    let remains = record.into_remains().unwrap();
    let agent = remains.identity.id;
    let (scheduler, changes) = (node.scheduler.clone(), node.changes.clone());
    let cell = Cell::ended(remains, Logs::new(None), scheduler, changes);
    node.adopt(&cell, false).unwrap();
    let told = || node.deliver(agent, Vec::new());
    assert_eq!(told(), DeliveryReply::Ended);
    for missing in [&node.departed, &node.unsettled] {
        lock(missing).insert(agent);
        assert_eq!(told(), DeliveryReply::Busy);
        lock(missing).remove(&agent);
    }
    // Of one that is known to have gone on nothing is left.
    lock(&node.departed).insert(agent);
    node.left_before(&agent, NodeId([5; 32]), Epoch(9));
    assert!(lock(&node.departed).is_empty());
    assert!(matches!(told(), DeliveryReply::Moved { .. }));
    node.shutdown().await;
    node.mesh.shutdown().await;
}

//! Messages between the mailboxes of two nodes, over loopback.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mielin_mesh::{
    BoxFuture, JoinRequest, Lane, Mailboxes, MeshConfig, MeshError, MeshService, create_mesh, join,
};
use mielin_mesh_core::delivery::{DeliveryReply, Envelope, Inbox, MessageKind};
use mielin_mesh_core::limits::PAYLOAD_BYTES_MAX;
use mielin_mesh_core::{AgentId, Epoch, NodeId, NodeRole};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::time::{interval, timeout};

const DEADLINE: Duration = Duration::from_secs(120);
const SOURCE: AgentId = AgentId([1; 16]);
const DESTINATION: AgentId = AgentId([2; 16]);

/// One mailbox, and who brought what.
struct Mailbox {
    inbox: Mutex<Inbox>,
    froms: Mutex<Vec<NodeId>>,
    /// Says nothing while it is closed.
    open: Mutex<bool>,
    /// What others said to what was posted.
    said: Mutex<Vec<Option<DeliveryReply>>>,
    heard: Notify,
}

impl Default for Mailbox {
    fn default() -> Mailbox {
        Mailbox {
            inbox: Mutex::new(Inbox::new(DESTINATION)),
            froms: Mutex::default(),
            open: Mutex::new(true),
            said: Mutex::default(),
            heard: Notify::new(),
        }
    }
}

impl Mailbox {
    fn take(&self) -> Vec<(u64, usize)> {
        let mut inbox = self.inbox.lock().unwrap();
        let messages = std::iter::from_fn(|| inbox.take());
        messages.map(|m| (m.sequence, m.payload.len())).collect()
    }
}

impl Mailboxes for Mailbox {
    fn deliver(
        &self,
        from: NodeId,
        to: AgentId,
        envelopes: Vec<Envelope>,
    ) -> BoxFuture<'_, Option<DeliveryReply>> {
        assert_eq!(to, DESTINATION);
        self.froms.lock().unwrap().push(from);
        let said = self.open.lock().unwrap().then(|| {
            let mut inbox = self.inbox.lock().unwrap();
            let replies = envelopes.into_iter().map(|e| inbox.accept(e).reply());
            replies.last().unwrap()
        });
        Box::pin(std::future::ready(said))
    }

    fn deliver_now(&self, from: NodeId, envelope: Envelope) -> Option<DeliveryReply> {
        self.froms.lock().unwrap().push(from);
        let open = *self.open.lock().unwrap();
        open.then(|| self.inbox.lock().unwrap().accept(envelope).reply())
    }

    fn replied(
        &self,
        _: NodeId,
        source: AgentId,
        destination: AgentId,
        reply: Option<DeliveryReply>,
    ) {
        assert_eq!((source, destination), (SOURCE, DESTINATION));
        self.said.lock().unwrap().push(reply);
        self.heard.notify_one();
    }
}

impl Mailbox {
    /// Waits until the last thing that was said is this.
    async fn hears(&self, reply: Option<DeliveryReply>) {
        let heard = async {
            while self.said.lock().unwrap().last() != Some(&reply) {
                self.heard.notified().await;
            }
        };
        timeout(DEADLINE, heard).await.unwrap();
    }
}

/// Waits for a lane, which is opened when it is asked for.
async fn lane(mesh: &MeshService, to: &NodeId) -> Lane {
    let mut look = interval(Duration::from_millis(10));
    let opened = async {
        loop {
            if let Some(lane) = mesh.lane(to) {
                return lane;
            }
            look.tick().await;
        }
    };
    timeout(DEADLINE, opened).await.unwrap()
}

fn message(sequence: u64, len: usize) -> Envelope {
    Envelope {
        source: SOURCE,
        source_epoch: Epoch(1),
        destination: DESTINATION,
        sequence,
        kind: MessageKind::Send,
        payload: Bytes::from(vec![7; len]),
    }
}

fn through(through: u64) -> DeliveryReply {
    DeliveryReply::Acknowledged { through }
}

fn config() -> MeshConfig {
    MeshConfig {
        enable_mdns: false,
        ..MeshConfig::new("127.0.0.1:0".parse().unwrap())
    }
}

/// Two nodes that know each other.
async fn two() -> ([MeshService; 2], Vec<TempDir>) {
    let directories = vec![tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let founder = create_mesh(directories[0].path(), "founder", NodeRole::Core).unwrap();
    let founder = MeshService::start(config(), founder).await.unwrap();
    let address = founder.local().address;
    let token = founder.authority().unwrap().issue_token(None, DEADLINE);
    let request = JoinRequest {
        address,
        token: Some(token.unwrap()),
        name: "other".into(),
        role: NodeRole::Edge,
    };
    let other = join(directories[1].path(), request, |_| {}).await.unwrap();
    let other = MeshService::start(config().bootstrap(address), other);
    let nodes = [founder, other.await.unwrap()];
    let mut look = interval(Duration::from_millis(10));
    let acquainted = async {
        while nodes.iter().any(|node| node.members().len() < 2) {
            look.tick().await;
        }
    };
    timeout(DEADLINE, acquainted).await.unwrap();
    (nodes, directories)
}

#[tokio::test]
async fn messages_come_in_order_whatever_their_length() {
    let ([sender, receiver], _directories) = two().await;
    let to = receiver.local().id;
    let mailbox = Arc::new(Mailbox::default());
    // Nobody takes them in yet: whoever asks is told so.
    let early = sender.deliver(&to, &[message(1, 3)]).await;
    assert!(matches!(early, Err(MeshError::Stream(_))), "{early:?}");
    receiver.serve_messages(Arc::clone(&mailbox) as Arc<dyn Mailboxes>);
    let lengths = [0, 1, 1024, 20_000, PAYLOAD_BYTES_MAX];
    for (sequence, len) in (1..).zip(lengths) {
        let said = sender.deliver(&to, &[message(sequence, len)]).await;
        assert_eq!(said.unwrap(), through(sequence));
    }
    let batch: Vec<_> = (6..=37).map(|sequence| message(sequence, 1000)).collect();
    assert_eq!(sender.deliver(&to, &batch).await.unwrap(), through(37));
    // What comes twice is said to be there.
    assert_eq!(sender.deliver(&to, &batch).await.unwrap(), through(37));
    let expected = (1..).zip(lengths).chain((6..=37).map(|s| (s, 1000)));
    assert_eq!(mailbox.take(), expected.collect::<Vec<_>>());
    let froms = mailbox.froms.lock().unwrap().clone();
    assert!(froms.iter().all(|from| *from == sender.local().id));
    // More than may be in flight, or nothing, is nothing that can be sent.
    let many: Vec<_> = (38..=70).map(|sequence| message(sequence, 0)).collect();
    for wrong in [&many[..], &[]] {
        let refused = sender.deliver(&to, wrong).await;
        assert!(
            matches!(refused, Err(MeshError::Oversized { .. })),
            "{refused:?}"
        );
    }
}

/// The stream that rested when the other side fell silent is of no use afterwards; the next exchange takes another.
#[tokio::test]
async fn an_exchange_that_is_broken_off_spoils_no_other() {
    let ([sender, receiver], _directories) = two().await;
    let to = receiver.local().id;
    let mailbox = Arc::new(Mailbox::default());
    receiver.serve_messages(Arc::clone(&mailbox) as Arc<dyn Mailboxes>);
    assert_eq!(
        sender.deliver(&to, &[message(1, 9)]).await.unwrap(),
        through(1)
    );
    *mailbox.open.lock().unwrap() = false;
    let broken = sender.deliver(&to, &[message(2, 9)]).await;
    assert!(matches!(broken, Err(MeshError::Stream(_))), "{broken:?}");
    *mailbox.open.lock().unwrap() = true;
    assert_eq!(
        sender.deliver(&to, &[message(2, 9)]).await.unwrap(),
        through(2)
    );
}

#[tokio::test]
async fn what_is_posted_arrives_in_order_and_is_answered() {
    let ([sender, receiver], _directories) = two().await;
    let to = receiver.local().id;
    let (here, there) = (Arc::new(Mailbox::default()), Arc::new(Mailbox::default()));
    assert!(
        sender.lane(&to).is_none(),
        "nobody hears what is said to it"
    );
    sender.serve_messages(Arc::clone(&here) as Arc<dyn Mailboxes>);
    receiver.serve_messages(Arc::clone(&there) as Arc<dyn Mailboxes>);
    let lane = lane(&sender, &to).await;
    let lengths = [0, 1, 1024, Lane::POSTED_BYTES_MAX];
    let mut posted = (1..=4000).map(|sequence| message(sequence, lengths[sequence as usize % 4]));
    let (mut next, mut waits) = (posted.next(), 0);
    while next.is_some() {
        // The lane takes a bounded part at once.
        if !lane.post(|| std::mem::replace(&mut next, posted.next())) {
            waits += 1;
            timeout(DEADLINE, here.heard.notified()).await.unwrap();
        }
    }
    assert!(waits > 0, "what the transport does not take is bounded");
    here.hears(Some(through(4000))).await;
    let expected = (1..=4000).map(|sequence| (sequence, lengths[sequence as usize % 4]));
    assert_eq!(there.take(), expected.collect::<Vec<_>>());
    let answers = here.said.lock().unwrap().len();
    assert!(answers < 4000, "{answers} answers: one stands for several");
    // A gap is said like an acknowledgement, and what takes time is left to an exchange.
    let mut later = [message(4002, 1)].into_iter();
    assert!(lane.post(|| later.next()));
    here.hears(Some(DeliveryReply::Gap { expected: 4001 }))
        .await;
    *there.open.lock().unwrap() = false;
    let mut closed = [message(4001, 1)].into_iter();
    assert!(lane.post(|| closed.next()));
    here.hears(None).await;
    let froms = there.froms.lock().unwrap().clone();
    assert!(froms.iter().all(|from| *from == sender.local().id));
}

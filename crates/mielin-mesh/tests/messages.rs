//! Messages between the mailboxes of two nodes, over loopback.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mielin_mesh::{
    BoxFuture, JoinRequest, Mailboxes, MeshConfig, MeshError, MeshService, create_mesh, join,
};
use mielin_mesh_core::delivery::{DeliveryReply, Envelope, Inbox, MessageKind};
use mielin_mesh_core::limits::PAYLOAD_BYTES_MAX;
use mielin_mesh_core::{AgentId, Epoch, NodeId, NodeRole};
use tempfile::TempDir;
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
}

impl Default for Mailbox {
    fn default() -> Mailbox {
        Mailbox {
            inbox: Mutex::new(Inbox::new(DESTINATION)),
            froms: Mutex::default(),
            open: Mutex::new(true),
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

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use mielin_mesh_core::delivery::MessageKind;
use mielin_mesh_core::{Epoch, NodeRole};
use mielin_mesh_wire::{
    Endpoint, Features, Incoming, JoinRequest, Liveness, WireEvent, create_mesh, join,
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};

use super::*;
use crate::config::MeshConfig;
use crate::service::MeshService;
use crate::serving::BoxFuture;

const DEADLINE: Duration = Duration::from_secs(120);

fn envelope(source: u8, sequence: u64) -> Envelope {
    Envelope {
        source: AgentId([source; 16]),
        source_epoch: Epoch(1),
        destination: AgentId([9; 16]),
        sequence,
        kind: MessageKind::Send,
        payload: Bytes::new(),
    }
}

fn said(source: u8, reply: Option<DeliveryReply>) -> Said {
    Said {
        source: AgentId([source; 16]),
        destination: AgentId([9; 16]),
        reply,
    }
}

fn through(through: u64) -> Option<DeliveryReply> {
    Some(DeliveryReply::Acknowledged { through })
}

#[test]
fn a_peer_says_something_only_about_what_it_was_sent_and_once() {
    let mut posts = Posts::default();
    assert!(!posts.hear(&said(1, through(0))), "nothing was posted");
    posts.note(&envelope(1, 4));
    posts.note(&envelope(1, 5));
    assert!(!posts.hear(&said(1, through(6))));
    assert!(!posts.hear(&said(2, through(5))));
    assert!(posts.hear(&said(1, through(4))));
    posts.note(&envelope(2, 1));
    assert!(posts.hear(&said(2, None)));
    assert!(!posts.hear(&said(2, Some(DeliveryReply::Ended))));
    posts.note(&envelope(2, 1));
    assert!(posts.hear(&said(2, through(1))));
    assert!(!posts.hear(&said(2, Some(DeliveryReply::Ended))));
    let unanswered: Vec<_> = posts.unanswered().collect();
    assert_eq!(unanswered, [(AgentId([1; 16]), AgentId([9; 16]))]);
}

/// When messages change from one lane to another, those on the new one may overtake.
#[test]
fn a_gap_that_is_said_twice_does_not_hide_the_acknowledgement() {
    let gap = Some(DeliveryReply::Gap { expected: 1 });
    let mut posts = Posts::default();
    posts.note(&envelope(1, 2));
    posts.note(&envelope(1, 3));
    assert!(posts.hear(&said(1, gap)));
    for sequence in 1..=3 {
        posts.note(&envelope(1, sequence));
    }
    assert!(posts.hear(&said(1, gap)));
    assert!(posts.hear(&said(1, through(3))));
    assert_eq!(posts.unanswered().count(), 0);
}

#[test]
fn pairs_are_bounded_and_those_that_were_answered_make_room() {
    let mut posts = Posts::default();
    for number in 0..PAIRS_MAX as u128 {
        assert!(posts.has_room());
        let source = AgentId(number.to_be_bytes());
        posts.note(&Envelope {
            source,
            ..envelope(0, 1)
        });
    }
    assert!(!posts.has_room());
    let one = Said {
        source: AgentId([0; 16]),
        ..said(0, None)
    };
    assert!(posts.hear(&one));
    assert!(posts.has_room());
    assert_eq!(posts.0.len(), PAIRS_MAX - 1);
}

/// Takes everything in.
#[derive(Default)]
struct Everything {
    taken: Mutex<Vec<u64>>,
    said: Mutex<Vec<Option<DeliveryReply>>>,
}

impl Mailboxes for Everything {
    fn deliver(
        &self,
        _: NodeId,
        _: AgentId,
        _: Vec<Envelope>,
    ) -> BoxFuture<'_, Option<DeliveryReply>> {
        Box::pin(std::future::ready(None))
    }

    fn deliver_now(&self, _: NodeId, envelope: Envelope) -> Option<DeliveryReply> {
        self.taken.lock().unwrap().push(envelope.sequence);
        through(envelope.sequence)
    }

    fn replied(&self, _: NodeId, _: AgentId, _: AgentId, reply: Option<DeliveryReply>) {
        self.said.lock().unwrap().push(reply);
    }
}

async fn until(mut is_so: impl FnMut() -> bool) {
    let mut look = interval(Duration::from_millis(5));
    let becomes_so = async {
        while !is_so() {
            look.tick().await;
        }
    };
    timeout(DEADLINE, becomes_so).await.unwrap();
}

/// Two connected nodes with mailboxes, that of the lower id first.
async fn two() -> ([(MeshService, Arc<Everything>); 2], [TempDir; 2]) {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let config = || {
        let mut config = MeshConfig::new("127.0.0.1:0".parse().unwrap());
        config.enable_mdns = false;
        config
    };
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
    let mut nodes = [founder, other.await.unwrap()].map(|mesh| {
        let mailboxes = Arc::new(Everything::default());
        mesh.serve_messages(Arc::clone(&mailboxes) as Arc<dyn Mailboxes>);
        (mesh, mailboxes)
    });
    nodes.sort_by_key(|(mesh, _)| mesh.local().id);
    let ids = [0, 1].map(|index: usize| nodes[index].0.local().id);
    until(|| {
        (0..2).all(|index| {
            nodes[index]
                .0
                .shared
                .endpoint
                .peer(&ids[1 - index])
                .is_some()
        })
    })
    .await;
    (nodes, directories)
}

/// The lanes of one node to another, as far as messages are posted on them.
fn lanes(mesh: &MeshService, to: &NodeId) -> Vec<Lane> {
    let slots = mesh.shared.lanes.lock();
    slots
        .get(to)
        .map(|slot| slot.lanes.clone())
        .unwrap_or_default()
}

#[tokio::test]
async fn a_lane_that_nobody_needs_ends_at_both_ends_and_another_is_opened() {
    let ([(lower, heard), (higher, taken)], _directories) = two().await;
    let (here, there) = (lower.local().id, higher.local().id);
    let endpoint = &lower.shared.endpoint;
    for sequence in 1..=2 {
        until(|| lower.lane(&there).is_some()).await;
        let lane = lower.lane(&there).unwrap();
        let mut one = [envelope(1, sequence)].into_iter();
        assert!(lane.post(|| one.next()));
        until(|| heard.said.lock().unwrap().len() == sequence as usize).await;
        // What has just been used stays.
        lower.shared.lanes.end_useless(endpoint);
        assert_eq!(lanes(&lower, &there).len(), 1);
        for _ in 0..IDLE_LOOKS {
            lower.shared.lanes.end_useless(endpoint);
        }
        assert!(lanes(&lower, &there).is_empty());
        let mut late = [envelope(1, 9)].into_iter();
        assert!(!lane.post(|| late.next()));
        until(|| lanes(&higher, &here).is_empty()).await;
        // The other side has finished, and so has this one: its task is gone.
        until(|| Arc::strong_count(&lane.0) == 1).await;
    }
    assert_eq!(*taken.taken.lock().unwrap(), [1, 2]);
    assert_eq!(*heard.said.lock().unwrap(), [through(1), through(2)]);
}

#[tokio::test]
async fn of_two_lanes_that_were_opened_at_once_both_ends_use_the_same() {
    let ([(lower, heard), (higher, heard_too)], _directories) = two().await;
    let (here, there) = (lower.local().id, higher.local().id);
    assert!(lower.lane(&there).is_none() && higher.lane(&here).is_none());
    until(|| lanes(&lower, &there).len() == 2 && lanes(&higher, &here).len() == 2).await;
    assert!(lower.lane(&there).unwrap().0.opened);
    assert!(!higher.lane(&here).unwrap().0.opened);
    let ends = [
        (&lower, there, &heard, &heard_too),
        (&higher, here, &heard_too, &heard),
    ];
    for (mesh, to, sender, receiver) in ends {
        // On the other one, too: it is served until it ends.
        for lane in lanes(mesh, &to) {
            let mut one = [envelope(1, 1)].into_iter();
            assert!(lane.post(|| one.next()));
        }
        until(|| sender.said.lock().unwrap().len() == 2).await;
        assert_eq!(*receiver.taken.lock().unwrap(), [1, 1]);
    }
}

/// A member without a mesh service.
struct Plain {
    id: NodeId,
    endpoint: Endpoint,
    events: mpsc::Receiver<WireEvent>,
}

impl Plain {
    /// The next lane that is opened to it.
    async fn opened(&mut self) -> Incoming {
        let opened = async {
            loop {
                match self.events.recv().await.unwrap() {
                    WireEvent::Stream(incoming) if incoming.stream.protocol() == LANE => {
                        return *incoming;
                    }
                    _ => {}
                }
            }
        };
        timeout(DEADLINE, opened).await.unwrap()
    }
}

/// A node with mailboxes, and a member without a mesh service that is connected with it.
async fn one_and_a_plain_member() -> ((MeshService, Arc<Everything>), Plain, [TempDir; 2]) {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let any = "127.0.0.1:0".parse().unwrap();
    let mut config = MeshConfig::new(any);
    config.enable_mdns = false;
    let founder = create_mesh(directories[0].path(), "founder", NodeRole::Core).unwrap();
    let mesh = MeshService::start(config, founder).await.unwrap();
    let mailboxes = Arc::new(Everything::default());
    mesh.serve_messages(Arc::clone(&mailboxes) as Arc<dyn Mailboxes>);
    let address = mesh.local().address;
    let token = mesh.authority().unwrap().issue_token(None, DEADLINE);
    let request = JoinRequest {
        address,
        token: Some(token.unwrap()),
        name: "plain".into(),
        role: NodeRole::Edge,
    };
    let credentials = join(directories[1].path(), request, |_| {}).await.unwrap();
    let liveness = Liveness {
        idle: DEADLINE,
        keep_alive: DEADLINE / 3,
        unused: DEADLINE,
    };
    let bound = Endpoint::bind(any, &credentials, liveness, Features::all()).await;
    let (endpoint, events) = bound.unwrap();
    let node = mesh.local().id;
    endpoint.connect(&node, address).await.unwrap();
    until(|| mesh.shared.endpoint.peer(&credentials.id()).is_some()).await;
    let plain = Plain {
        id: credentials.id(),
        endpoint,
        events,
    };
    ((mesh, mailboxes), plain, directories)
}

/// Posts until the transport takes no more; gives how many messages that were, and the payload of each.
fn fill(lane: &Lane) -> (u64, Bytes) {
    let payload = Bytes::from(vec![7; POSTED_BYTES_MAX]);
    let mut sequence = 0;
    while !lane.lock().blocked {
        sequence += 1;
        let payload = payload.clone();
        let message = Envelope {
            payload,
            ..envelope(1, sequence)
        };
        let mut one = [message].into_iter();
        lane.post(|| one.next());
    }
    (sequence, payload)
}

/// The peer says nothing, so that nothing but the transport itself can wake the lane.
#[tokio::test]
async fn what_the_transport_did_not_take_is_written_when_it_does() {
    let ((mesh, _), mut plain, _directories) = one_and_a_plain_member().await;
    assert!(mesh.lane(&plain.id).is_none());
    let mut stream = plain.opened().await.stream;
    until(|| mesh.lane(&plain.id).is_some()).await;
    let lane = mesh.lane(&plain.id).unwrap();
    let (sequence, payload) = fill(&lane);
    for expected in 1..=sequence {
        let frame = timeout(DEADLINE, stream.recv_frame(FRAME_LIMIT)).await;
        let frame = frame.unwrap().unwrap().unwrap();
        let mut rest = &frame.header[..];
        let parts: Vec<_> =
            std::iter::from_fn(|| (!rest.is_empty()).then(|| note::part(&mut rest))).collect();
        assert_eq!(parts, [Some(Part::Message(envelope(1, expected)))]);
        assert_eq!(frame.payload, payload);
    }
}

/// And of what was posted to it, the sender is told that it was not taken in.
#[tokio::test]
async fn who_refuses_a_lane_is_left_alone_for_a_while() {
    let ((mesh, heard), mut plain, _directories) = one_and_a_plain_member().await;
    let lanes = &mesh.shared.lanes;
    for round in 1..=2 {
        assert!(mesh.lane(&plain.id).is_none());
        let stream = plain.opened().await.stream;
        until(|| mesh.lane(&plain.id).is_some()).await;
        let lane = mesh.lane(&plain.id).unwrap();
        let mut one = [envelope(1, 1)].into_iter();
        assert!(lane.post(|| one.next()));
        stream.refuse_protocol();
        until(|| heard.said.lock().unwrap().len() == round).await;
        // Nothing else runs here meanwhile, but may have looked before.
        let opening = || lanes.lock().get(&plain.id).map(|slot| slot.opening);
        let mut looks = 0;
        while opening().is_some() {
            assert!(mesh.lane(&plain.id).is_none());
            assert_eq!(opening(), Some(false));
            lanes.end_useless(&mesh.shared.endpoint);
            looks += 1;
        }
        assert!((2..=REFUSED_LOOKS + 1).contains(&looks), "{looks} looks");
    }
    assert_eq!(*heard.said.lock().unwrap(), [None, None]);
}

/// Each may hold what its peer does not read.
#[tokio::test]
async fn a_peer_has_few_lanes_served_at_once() {
    let ((mesh, _), plain, _directories) = one_and_a_plain_member().await;
    let peer = plain.endpoint.peer(&mesh.local().id).unwrap();
    let (node, there) = (&mesh, plain.id);
    let served = |count| until(move || lanes(node, &there).len() == count);
    let mut opened = Vec::new();
    for count in 1..=SERVED_MAX {
        opened.push(peer.open(LANE).await.unwrap());
        served(count).await;
    }
    let mut surplus = peer.open(LANE).await.unwrap();
    let refused = timeout(DEADLINE, surplus.recv_frame(FRAME_LIMIT)).await;
    let refused = refused.unwrap();
    assert!(
        matches!(refused, Err(StreamError::UnknownProtocol { .. })),
        "{refused:?}"
    );
    opened.pop().unwrap().abandon();
    served(SERVED_MAX - 1).await;
    let _another = peer.open(LANE).await.unwrap();
    served(SERVED_MAX).await;
}

/// Each such lane would keep one of the places that exchanges need, too.
#[tokio::test]
async fn a_lane_that_the_peer_does_not_read_is_reset_and_not_opened_again() {
    let ((mesh, heard), mut plain, _directories) = one_and_a_plain_member().await;
    let lanes = &mesh.shared.lanes;
    assert!(mesh.lane(&plain.id).is_none());
    let mut unread = plain.opened().await.stream;
    until(|| mesh.lane(&plain.id).is_some()).await;
    let lane = mesh.lane(&plain.id).unwrap();
    fill(&lane);
    for _ in 0..=IDLE_LOOKS {
        lanes.end_useless(&mesh.shared.endpoint);
    }
    for _ in 0..=ENDING_LOOKS {
        assert!(Arc::strong_count(&lane.0) > 1);
        lanes.end_useless(&mesh.shared.endpoint);
    }
    until(|| Arc::strong_count(&lane.0) == 1).await;
    drop(lane);
    assert_eq!(*heard.said.lock().unwrap(), [None]);
    // It may read some of it before it hears of the reset.
    let read_all = async {
        while unread.recv_frame(FRAME_LIMIT).await?.is_some() {}
        Ok(())
    };
    let read = timeout(DEADLINE, read_all).await;
    assert!(
        matches!(read, Ok(Err(StreamError::Abandoned { .. }))),
        "{read:?}"
    );
    for _ in 0..=2 * REFUSED_LOOKS {
        assert!(mesh.lane(&plain.id).is_none());
        assert!(!lanes.lock()[&plain.id].opening);
        lanes.end_useless(&mesh.shared.endpoint);
    }
}

/// The peer ends it when it knows of the better connection, too. What it posts until then is taken in.
#[tokio::test]
async fn nothing_is_posted_on_a_lane_of_the_peer_when_another_connection_is_preferred() {
    let ((mesh, heard), plain, _directories) = one_and_a_plain_member().await;
    let peer = plain.endpoint.peer(&mesh.local().id).unwrap();
    let mut stream = peer.open(LANE).await.unwrap();
    until(|| !lanes(&mesh, &plain.id).is_empty()).await;
    let lane = mesh.lane(&plain.id).unwrap();
    let leave = |preferred: Option<&Peer>| {
        let mut slots = mesh.shared.lanes.lock();
        slots.get_mut(&plain.id).unwrap().leave_useless(preferred);
    };
    leave(mesh.shared.endpoint.peer(&plain.id).as_ref());
    assert_eq!(lanes(&mesh, &plain.id).len(), 1);
    leave(None);
    assert!(lanes(&mesh, &plain.id).is_empty());
    assert!(!lane.post(|| Some(envelope(1, 1))));
    let mut note = Vec::new();
    note::put_message(&mut note, &envelope(1, 7));
    stream.send_frame(&note, &[]).await.unwrap();
    let answer = timeout(DEADLINE, stream.recv_frame(FRAME_LIMIT)).await;
    let answer = answer.unwrap().unwrap().unwrap().header;
    let expected = Part::Said(said(1, through(7)));
    assert_eq!(note::part(&mut &answer[..]), Some(expected));
    assert_eq!(*heard.taken.lock().unwrap(), [7]);
}

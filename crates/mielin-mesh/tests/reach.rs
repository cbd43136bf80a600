//! Nodes that cannot be dialled, over loopback. What stands before them is a socket of the test: it swallows what
//! comes to the address that the node tells others, until the test opens it.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mielin_mesh::{
    BoxFuture, Dialling, Features, FrameLimit, JoinRequest, Lane, Mailboxes, MeshConfig, MeshError,
    MeshService, MeshStream, Path, Route, create_mesh, join, request_handler, stream_handler,
};
use mielin_mesh_core::delivery::{DeliveryReply, Envelope, MessageKind};
use mielin_mesh_core::routing::RouteRefusal;
use mielin_mesh_core::{AgentId, Epoch, MemberState, NodeId, NodeRole};
use mielin_mesh_wire::{Endpoint, Liveness, WireEvent};
use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, timeout};

const DEADLINE: Duration = Duration::from_secs(120);
const HOUR: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(30);
const ECHO: u16 = 100;
/// Streams whose frames come back.
const FRAMES: u16 = 101;

struct Node {
    mesh: MeshService,
    _dir: TempDir,
}

impl Node {
    fn id(&self) -> NodeId {
        self.mesh.local().id
    }

    fn new(mesh: MeshService, dir: TempDir) -> Node {
        mesh.serve(ECHO, request_handler(|_, bytes| async { Ok(bytes) }));
        let back = |_, mut stream: MeshStream| async move {
            while let Ok(Some(frame)) = stream.recv_frame(FrameLimit::default()).await {
                stream.send_frame_bytes(&[], frame.payload).await.unwrap();
            }
        };
        mesh.serve_streams(FRAMES, stream_handler(back));
        Node { mesh, _dir: dir }
    }

    async fn founder(role: NodeRole) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let credentials = create_mesh(dir.path(), "founder", role).unwrap();
        let mesh = MeshService::start(config(), credentials);
        Node::new(mesh.await.unwrap(), dir)
    }

    async fn admit(
        &self,
        name: &str,
        role: NodeRole,
        adapt: impl FnOnce(MeshConfig) -> MeshConfig,
    ) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let address = self.mesh.local().address;
        let authority = self.mesh.authority().unwrap();
        let request = JoinRequest {
            address,
            token: Some(authority.issue_token(None, HOUR).unwrap()),
            name: name.into(),
            role,
        };
        let credentials = join(dir.path(), request, |_| {}).await.unwrap();
        let config = adapt(config().bootstrap(address));
        let mesh = MeshService::start(config, credentials);
        Node::new(mesh.await.unwrap(), dir)
    }

    async fn behind(&self, name: &str, wall: &Wall) -> Node {
        let advertised = wall.address;
        self.admit(name, NodeRole::Edge, |config| MeshConfig {
            advertise_address: Some(advertised),
            ..config
        })
        .await
    }

    fn sees_alive(&self, other: &Node) -> bool {
        let members = self.mesh.members();
        let mut of = members.iter().filter(|m| m.identity.id == other.id());
        of.any(|m| m.state == MemberState::Alive)
    }

    async fn echo(&self, to: &Node, bytes: &Bytes) -> Result<(), MeshError> {
        let to = to.id();
        let answer = self.mesh.request(&to, ECHO, bytes.clone(), LIMIT);
        assert_eq!(answer.await?, *bytes);
        Ok(())
    }

    fn relay_to(&self, other: &Node) -> Option<NodeId> {
        match self.mesh.path(&other.id())? {
            Path::Relayed { relay, .. } => relay,
            Path::Direct { .. } => None,
        }
    }

    fn is_direct_to(&self, other: &Node) -> bool {
        matches!(self.mesh.path(&other.id()), Some(Path::Direct { .. }))
    }
}

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A node that is found by nothing but what a test tells of it.
fn config() -> MeshConfig {
    let mut config = MeshConfig::new(any());
    config.enable_mdns = false;
    config
}

/// Waits for a condition; polls, because some conditions concern several nodes.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        let mut look = interval(Duration::from_millis(10));
        while !condition() {
            look.tick().await;
        }
    };
    timeout(DEADLINE, wait)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// A socket at the address that a node tells others.
struct Wall {
    address: SocketAddr,
    open: watch::Sender<Option<SocketAddr>>,
}

impl Wall {
    async fn closed() -> Wall {
        let socket = UdpSocket::bind(any()).await.unwrap();
        let address = socket.local_addr().unwrap();
        let (open, opened) = watch::channel(None);
        tokio::spawn(guard(Arc::new(socket), opened));
        Wall { address, open }
    }

    /// From now on packets go through, as through a forwarded port.
    fn open_to(&self, node: &Node, port: u16) {
        assert_ne!(node.mesh.local().address.port(), port);
        self.open.send_replace(Some(([127, 0, 0, 1], port).into()));
    }
}

/// Swallows packets; once open, hands them on, and the answers back.
async fn guard(socket: Arc<UdpSocket>, open: watch::Receiver<Option<SocketAddr>>) {
    let mut inside: HashMap<SocketAddr, mpsc::Sender<Bytes>> = HashMap::new();
    let mut buffer = vec![0; 65536];
    while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
        let Some(to) = *open.borrow() else {
            continue;
        };
        let sender = inside.entry(from).or_insert_with(|| {
            let (sender, mut packets) = mpsc::channel::<Bytes>(1024);
            let back = Arc::clone(&socket);
            tokio::spawn(async move {
                let own = UdpSocket::bind(any()).await.unwrap();
                own.connect(to).await.unwrap();
                let mut answer = vec![0; 65536];
                loop {
                    tokio::select! {
                        Some(packet) = packets.recv() => { let _ = own.send(&packet).await; }
                        Ok(len) = own.recv(&mut answer) => {
                            let _ = back.send_to(&answer[..len], from).await;
                        }
                        else => return,
                    }
                }
            });
            sender
        });
        let _ = sender.try_send(Bytes::copy_from_slice(&buffer[..len]));
    }
}

/// A port for a node, since the test must know where a wall leads. Free a moment ago.
fn free_port() -> u16 {
    let udp = std::net::UdpSocket::bind(any()).unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = std::net::TcpListener::bind(address);
    drop(udp);
    tcp.map_or_else(|_| free_port(), |_| address.port())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_behind_walls_reach_each_other_through_relays_until_a_wall_opens() {
    let founder = Node::founder(NodeRole::Core).await;
    let relay = founder
        .admit("relay", NodeRole::Relay, |config| config)
        .await;
    let (left_wall, right_wall) = (Wall::closed().await, Wall::closed().await);
    let left = founder.behind("left", &left_wall).await;
    let port = free_port();
    let right = founder
        .admit("right", NodeRole::Edge, |config| MeshConfig {
            bind_address: ([127, 0, 0, 1], port).into(),
            advertise_address: Some(right_wall.address),
            ..config
        })
        .await;
    let all = [&founder, &relay, &left, &right];
    until("everybody is alive to everybody", || {
        all.iter()
            .all(|a| all.iter().all(|b| a.id() == b.id() || a.sees_alive(b)))
    })
    .await;

    // Both find out that nobody can dial them, register with both relays, and everybody learns it.
    for hidden in [&left, &right] {
        until("a node behind a wall is registered with both", || {
            let own = hidden.mesh.reachability();
            own.dialable == Some(false) && own.relays.len() == 2
        })
        .await;
        until("its relays are known", || {
            all.iter().all(|node| {
                let members = node.mesh.members();
                let mut of = members.iter().filter(|m| m.identity.id == hidden.id());
                of.any(|m| m.identity.relays.len() == 2)
            })
        })
        .await;
    }
    until("the others find that they can be dialled", || {
        [&founder, &relay]
            .iter()
            .all(|node| node.mesh.reachability().dialable == Some(true))
    })
    .await;

    let large = Bytes::from(vec![7; 2 << 20]);
    left.echo(&right, &large).await.unwrap();
    right.echo(&left, &large).await.unwrap();
    let first = left.relay_to(&right).expect("through a relay");
    assert!(
        founder
            .mesh
            .metrics()
            .contains("mielin_relayed_bytes_total")
    );

    // The relay in use goes without a word. When that is noticed the other takes over, and what was begun goes on.
    let small = Bytes::from_static(b"small");
    let mut stream = left.mesh.open_stream(&right.id(), FRAMES).await.unwrap();
    stream.send_frame_bytes(&[], small.clone()).await.unwrap();
    stream.recv_frame(FrameLimit::default()).await.unwrap();
    let [gone, stays] = if first == relay.id() {
        [&relay, &founder]
    } else {
        [&founder, &relay]
    };
    gone.mesh.shutdown().await;
    until("the other relay takes over", || {
        left.relay_to(&right) == Some(stays.id())
    })
    .await;
    stream.send_frame_bytes(&[], small.clone()).await.unwrap();
    let frame = timeout(DEADLINE, stream.recv_frame(FrameLimit::default())).await;
    assert_eq!(frame.unwrap().unwrap().unwrap().payload, small);
    left.echo(&right, &large).await.unwrap();
    assert_eq!(left.relay_to(&right), Some(stays.id()));

    right_wall.open_to(&right, port);
    until("the way is direct", || left.is_direct_to(&right)).await;
    left.echo(&right, &large).await.unwrap();
    right.echo(&left, &large).await.unwrap();
    until("it is so at both ends", || right.is_direct_to(&left)).await;
    for node in [&left, &right, stays] {
        node.mesh.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_relay_is_members_hand_messages_on() {
    let founder = Node::founder(NodeRole::Edge).await;
    let (left_wall, right_wall) = (Wall::closed().await, Wall::closed().await);
    let left = founder.behind("left", &left_wall).await;
    let right = founder.behind("right", &right_wall).await;
    until("everybody is known to everybody", || {
        left.sees_alive(&right) && right.sees_alive(&left)
    })
    .await;
    let seen_by = right.id();
    right.mesh.serve_routed(
        ECHO,
        request_handler(move |from: NodeId, bytes: Bytes| async move {
            assert_ne!(from, seen_by);
            Ok(Bytes::from([&from.0[..], &bytes].concat()))
        }),
    );
    let large = Bytes::from(vec![7; 1 << 20]);
    let small = Bytes::from_static(b"small");
    let there = right.id();
    let asked = left.mesh.request_routed(&there, ECHO, small, LIMIT);
    let (answer, hops) = asked.await.unwrap();
    assert_eq!(answer, [&left.id().0[..], b"small"].concat());
    let way: Vec<_> = hops.iter().map(|hop| hop.node).collect();
    assert_eq!(way, [founder.id(), right.id()]);
    assert!(hops[0].rtt_us >= hops[1].rtt_us);

    // An answer may not be as large as the question, and other protocols are not served.
    for (protocol, expected) in [
        (ECHO, RouteRefusal::Failed),
        (ECHO + 1, RouteRefusal::Unserved),
    ] {
        let asked = left
            .mesh
            .request_routed(&there, protocol, large.clone(), LIMIT);
        match asked.await {
            Err(MeshError::NotRouted { by, refusal, .. }) => {
                assert_eq!((by, refusal), (right.id(), expected));
            }
            other => panic!("{other:?}"),
        }
    }

    // What `mesh route` shows: there is no connection, and members hand it on.
    match left.mesh.route(&right.id(), LIMIT).await.unwrap() {
        Route::Routed { hops } => assert_eq!(hops.len(), 2),
        other => panic!("{other:?}"),
    }
    assert!(left.mesh.is_unreached(&right.id()));
    match left.mesh.route(&founder.id(), LIMIT).await.unwrap() {
        Route::Direct { address, .. } => assert_eq!(address, founder.mesh.local().address),
        other => panic!("{other:?}"),
    }
    // What the nodes themselves have to say goes the same way, so there may be more.
    let metrics = founder.mesh.metrics();
    let name = "mielin_routed_messages_total{part=\"forwarded\"} ";
    let forwarded = metrics.lines().find_map(|line| line.strip_prefix(name));
    assert!(forwarded.unwrap().parse::<u64>().unwrap() >= 4, "{metrics}");

    // The only way leads through the founder.
    founder.mesh.shutdown().await;
    until("the founder is gone", || {
        left.mesh.path(&founder.id()).is_none()
    })
    .await;
    let small = Bytes::from_static(b"small");
    match left
        .mesh
        .request_routed(&right.id(), ECHO, small, LIMIT)
        .await
    {
        Err(MeshError::NotRouted {
            refusal: RouteRefusal::NoWay,
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
    for node in [&left, &right] {
        node.mesh.shutdown().await;
    }
}

/// What was posted to a node, and what was said to what it has posted.
#[derive(Default)]
struct Posted {
    taken: Mutex<Vec<u64>>,
    through: Mutex<u64>,
}

impl Mailboxes for Posted {
    fn deliver(
        &self,
        _: NodeId,
        _: AgentId,
        _: Vec<Envelope>,
    ) -> BoxFuture<'_, Option<DeliveryReply>> {
        Box::pin(std::future::ready(None))
    }

    fn deliver_now(&self, _: NodeId, envelope: Envelope) -> Option<DeliveryReply> {
        let through = envelope.sequence;
        self.taken.lock().unwrap().push(through);
        Some(DeliveryReply::Acknowledged { through })
    }

    fn replied(&self, _: NodeId, _: AgentId, _: AgentId, reply: Option<DeliveryReply>) {
        match reply {
            Some(DeliveryReply::Acknowledged { through }) => {
                *self.through.lock().unwrap() = through
            }
            other => panic!("{other:?}"),
        }
    }
}

/// More than a circuit's window holds, in both directions at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_posted_through_a_relay() {
    const COUNT: u64 = 256;
    let founder = Node::founder(NodeRole::Core).await;
    let (left_wall, right_wall) = (Wall::closed().await, Wall::closed().await);
    let left = founder.behind("left", &left_wall).await;
    let right = founder.behind("right", &right_wall).await;
    until("their relay is known", || {
        let known = |node: &Node, other: &Node| {
            let members = node.mesh.members();
            let mut of = members.iter().filter(|m| m.identity.id == other.id());
            of.any(|m| m.identity.relays == [founder.id()])
        };
        known(&left, &right) && known(&right, &left)
    })
    .await;
    left.echo(&right, &Bytes::new()).await.unwrap();
    let ends = [(&left, &right), (&right, &left)].map(|(node, other)| {
        let posted = Arc::new(Posted::default());
        node.mesh
            .serve_messages(Arc::clone(&posted) as Arc<dyn Mailboxes>);
        (node, other.id(), posted)
    });
    let posting = |(node, to, posted): (&Node, NodeId, Arc<Posted>)| {
        let mesh = node.mesh.clone();
        async move {
            let mut next = 1;
            until("everything is answered", || {
                if let Some(lane) = mesh.lane(&to) {
                    lane.post(|| {
                        (next <= COUNT).then(|| {
                            next += 1;
                            message(next - 1)
                        })
                    });
                }
                *posted.through.lock().unwrap() == COUNT
            })
            .await;
        }
    };
    let [first, second] = ends.clone();
    // On the same lane: on two of them messages could overtake each other.
    let back = Arc::clone(&second.2);
    let both = async {
        until("the lane is there", || {
            !back.taken.lock().unwrap().is_empty()
        })
        .await;
        posting(second).await;
    };
    tokio::join!(posting(first), both);
    for (node, to, posted) in &ends {
        assert!(matches!(node.mesh.path(to), Some(Path::Relayed { .. })));
        let expected: Vec<u64> = (1..=COUNT).collect();
        assert_eq!(*posted.taken.lock().unwrap(), expected);
    }
    for node in [&left, &right, &founder] {
        node.mesh.shutdown().await;
    }
}

fn message(sequence: u64) -> Envelope {
    Envelope {
        source: AgentId([1; 16]),
        source_epoch: Epoch(1),
        destination: AgentId([2; 16]),
        sequence,
        kind: MessageKind::Send,
        payload: Bytes::from(vec![7; Lane::POSTED_BYTES_MAX]),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_relay_that_knows_the_node_there_is_a_typed_error() {
    let founder = Node::founder(NodeRole::Core).await;
    let near = founder.admit("near", NodeRole::Edge, |config| config).await;
    let wall = Wall::closed().await;
    let far = founder
        .admit("far", NodeRole::Edge, |config| MeshConfig {
            advertise_address: Some(wall.address),
            dialling: Dialling::Impossible,
            ..config
        })
        .await;
    until("its relay is known", || {
        let members = near.mesh.members();
        let mut of = members.iter().filter(|m| m.identity.id == far.id());
        of.any(|m| m.identity.relays == [founder.id()])
    })
    .await;
    let small = Bytes::from_static(b"small");
    near.echo(&far, &small).await.unwrap();
    far.mesh.shutdown().await;
    until("the connection is gone", || {
        near.mesh.path(&far.id()).is_none()
    })
    .await;
    match near.echo(&far, &small).await {
        Err(MeshError::NoPath {
            node, relays: 1, ..
        }) => assert_eq!(node, far.id()),
        other => panic!("{other:?}"),
    }
    for node in [&founder, &near] {
        node.mesh.shutdown().await;
    }
}

/// A member without a mesh service that is connected with `node`, and serves as little as it says.
async fn plain_member(
    node: &Node,
    name: &str,
    features: Features,
) -> (Endpoint, mpsc::Receiver<WireEvent>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let address = node.mesh.local().address;
    let authority = node.mesh.authority().unwrap();
    let request = JoinRequest {
        address,
        token: Some(authority.issue_token(None, HOUR).unwrap()),
        name: name.into(),
        role: NodeRole::Relay,
    };
    let credentials = join(dir.path(), request, |_| {}).await.unwrap();
    let liveness = Liveness {
        idle: LIMIT,
        keep_alive: LIMIT / 3,
        unused: HOUR,
    };
    let bound = Endpoint::bind(any(), &credentials, liveness, features).await;
    let (endpoint, events) = bound.unwrap();
    endpoint.connect(&node.id(), address).await.unwrap();
    (endpoint, events, dir)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_serves_no_circuits_is_asked_nothing_about_them() {
    const CIRCUIT: u16 = 7;
    let node = Node::founder(NodeRole::Core).await;
    let all = Features::all();
    let less = all.without(Features::CIRCUITS);
    let (_without, mut told_less, _dir) = plain_member(&node, "less", less).await;
    let (_with, mut told, _other_dir) = plain_member(&node, "all", all).await;
    let asked = |event: &WireEvent| match event {
        WireEvent::Stream(incoming) => incoming.stream.protocol() == CIRCUIT,
        _ => false,
    };
    // Both are connected; in each round the node asks all of its few peers whether they can dial it.
    let mut rounds = 0;
    while rounds < 2 {
        let event = timeout(DEADLINE, told.recv()).await.unwrap().unwrap();
        rounds += usize::from(asked(&event));
    }
    while let Ok(event) = told_less.try_recv() {
        assert!(!asked(&event), "{event:?}");
    }
}

//! Whole meshes of real nodes over loopback.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mielin_mesh::{
    Departure, Features, FrameLimit, JoinError, JoinRequest, MeshConfig, MeshError, MeshEvent,
    MeshService, Refusal, StreamError, WireError, create_mesh, join, load_credentials,
    request_handler, stream_handler,
};
use mielin_mesh_core::limits::PAYLOAD_BYTES_MAX;
use mielin_mesh_core::registry::Prefix;
use mielin_mesh_core::{
    AgentId, AgentState, Epoch, LocationRecord, MemberState, Name, NodeId, NodeRole,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{interval, sleep, timeout};

const DEADLINE: Duration = Duration::from_secs(120);
const HOUR: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(60);
const PROTOCOL: u16 = 100;

struct Node {
    mesh: MeshService,
    dir: TempDir,
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

impl Node {
    async fn founder() -> Node {
        let dir = tempfile::tempdir().unwrap();
        let credentials = create_mesh(dir.path(), "founder", NodeRole::Core).unwrap();
        let mesh = MeshService::start(config(), credentials).await.unwrap();
        Node { mesh, dir }
    }

    /// Joins by a token from this node.
    async fn admit(&self, name: &str, role: NodeRole) -> Node {
        self.admit_with(name, role, |config| config).await
    }

    async fn admit_with(
        &self,
        name: &str,
        role: NodeRole,
        adapt: impl FnOnce(MeshConfig) -> MeshConfig,
    ) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let address = self.mesh.local().address;
        let token = self
            .mesh
            .authority()
            .unwrap()
            .issue_token(None, HOUR)
            .unwrap();
        let request = JoinRequest {
            address,
            token: Some(token),
            name: name.into(),
            role,
        };
        let credentials = join(dir.path(), request, |_| {}).await.unwrap();
        let config = adapt(config().bootstrap(address));
        let mesh = MeshService::start(config, credentials).await.unwrap();
        Node { mesh, dir }
    }

    fn id(&self) -> NodeId {
        self.mesh.local().id
    }

    fn state_of(&self, node: NodeId) -> Option<MemberState> {
        let members = self.mesh.members();
        members
            .iter()
            .find(|m| m.identity.id == node)
            .map(|m| m.state)
    }
}

/// Three nodes that all see each other.
async fn three() -> [Node; 3] {
    let core = Node::founder().await;
    let relay = core.admit("relay", NodeRole::Relay).await;
    let edge = core.admit("edge", NodeRole::Edge).await;
    let nodes = [core, relay, edge];
    all_alive(&nodes).await;
    nodes
}

async fn all_alive(nodes: &[Node]) {
    until("everybody is alive to everybody", || {
        nodes.iter().all(|a| {
            nodes
                .iter()
                .all(|b| a.state_of(b.id()) == Some(MemberState::Alive))
        })
    })
    .await;
}

/// Waits for a condition; polls, because some conditions concern several nodes.
async fn until(what: &str, condition: impl Fn() -> bool) {
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

fn record(agent: u8, node: NodeId, epoch: u64) -> LocationRecord {
    LocationRecord {
        agent: AgentId([agent; 16]),
        name: Name::new(format!("agent-{agent}")).unwrap(),
        module: [7; 32],
        owner: node,
        started_ms: 0,
        node,
        epoch: Epoch(epoch),
        revision: 0,
        state: AgentState::Running,
    }
}

/// A conversation goes on while both ends get new certificates, and new connections are made with those.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_change_under_an_open_stream() {
    let [core, relay, _edge] = three().await;
    core.mesh.serve_streams(
        PROTOCOL,
        stream_handler(|_, mut stream| async move {
            while let Ok(Some(frame)) = stream.recv_frame(FrameLimit::default()).await {
                if stream.send_frame_bytes(&[], frame.payload).await.is_err() {
                    return;
                }
            }
        }),
    );
    until("the issuer is known", || {
        relay.mesh.issuer() == Some(core.id())
    })
    .await;
    let mut stream = relay.mesh.open_stream(&core.id(), PROTOCOL).await.unwrap();
    let files = || std::fs::read(relay.dir.path().join("identity/node.crt")).unwrap();
    for round in 0..3_u8 {
        let before = files();
        relay.mesh.certificates().renew().await.unwrap();
        core.mesh.certificates().renew().await.unwrap();
        assert_ne!(files(), before, "a new certificate is on disk");
        stream.send_frame(&[], &[round]).await.unwrap();
        let echo = timeout(DEADLINE, stream.recv_frame(FrameLimit::default())).await;
        assert_eq!(echo.unwrap().unwrap().unwrap().payload[..], [round]);
    }
    let left = relay
        .mesh
        .certificates()
        .expires()
        .await
        .duration_since(std::time::SystemTime::now());
    assert!(left.unwrap() > 89 * 24 * HOUR);
    assert!(!relay.mesh.certificates().renewal_due().await);
    let key = relay.dir.path().join("identity/node.key");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

/// A node whose certificate is to be renewed does not know yet, when it starts, who can do that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_near_its_end_is_renewed_as_soon_as_the_issuer_is_met() {
    let core = Node::founder().await;
    let dir = tempfile::tempdir().unwrap();
    let address = core.mesh.local().address;
    let token = core.mesh.authority().unwrap().issue_token(None, HOUR);
    let request = JoinRequest {
        address,
        token: Some(token.unwrap()),
        name: "edge".into(),
        role: NodeRole::Edge,
    };
    let credentials = join(dir.path(), request, |_| {}).await.unwrap();
    let certificate = || std::fs::read(dir.path().join("identity/node.crt")).unwrap();
    let joined = certificate();
    let config = MeshConfig {
        renew_below: 100 * 24 * HOUR,
        ..config().bootstrap(address)
    };
    let edge = MeshService::start(config, credentials).await.unwrap();
    until("a new certificate", || certificate() != joined).await;
    let ends = edge.certificates().expires().await;
    let ends = ends.duration_since(std::time::UNIX_EPOCH).unwrap();
    let said = format!("mielin_certificate_expires_seconds {}\n", ends.as_secs());
    until("its end is told", || edge.metrics().contains(&said)).await;
    edge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_form_a_mesh_and_a_node_that_leaves_is_gone() {
    let [core, relay, edge] = three().await;
    let roles: Vec<_> = edge
        .mesh
        .members()
        .iter()
        .map(|m| m.identity.role)
        .collect();
    for role in [NodeRole::Core, NodeRole::Relay, NodeRole::Edge] {
        assert!(roles.contains(&role));
    }
    for node in [&core, &relay, &edge] {
        until("the issuer is known", || {
            node.mesh.issuer() == Some(core.id())
        })
        .await;
    }
    relay.mesh.certificates().renew().await.unwrap();
    core.mesh.certificates().renew().await.unwrap();
    assert!(
        load_credentials(relay.dir.path())
            .unwrap()
            .unwrap()
            .authority()
            .is_none()
    );
    assert!(
        load_credentials(core.dir.path())
            .unwrap()
            .unwrap()
            .authority()
            .is_some()
    );

    let mut events = core.mesh.subscribe();
    let gone = edge.id();
    edge.mesh.depart(Departure::Left).await;
    let left = async {
        loop {
            if let MeshEvent::MemberChanged(member) = events.recv().await.unwrap()
                && member.identity.id == gone
            {
                assert_eq!(member.state, MemberState::Left);
                return;
            }
        }
    };
    timeout(DEADLINE, left).await.expect("the news of leaving");
    until("the others know", || {
        relay.state_of(gone) == Some(MemberState::Left)
    })
    .await;
    let refused = edge
        .mesh
        .request(&core.id(), PROTOCOL, Bytes::new(), LIMIT)
        .await;
    assert!(matches!(refused, Err(MeshError::ShutDown)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_says_so_and_is_alive_again_at_its_return() {
    let [core, relay, edge] = three().await;
    edge.mesh.announce(record(1, edge.id(), 1)).unwrap();
    edge.mesh.published(&AgentId([1; 16])).await;
    assert_eq!(agents(&core).await, [(AgentId([1; 16]), true)]);
    let gone = edge.id();
    let mut events = core.mesh.subscribe();
    let Node { mesh, dir } = edge;
    mesh.depart(Departure::Stopped).await;
    // It has waited until it was heard: both know now, without a suspicion.
    for node in [&core, &relay] {
        assert_eq!(node.state_of(gone), Some(MemberState::Stopped));
        let absence = node.mesh.absence(&gone).unwrap();
        assert_eq!(
            (absence.name.as_ref().map(Name::as_str), absence.state),
            (Some("edge"), MemberState::Stopped)
        );
    }
    // Its record is kept by others and outlives it.
    assert_eq!(agents(&core).await, [(AgentId([1; 16]), false)]);

    let credentials = load_credentials(dir.path()).unwrap().unwrap();
    let mesh = MeshService::start(config(), credentials).await.unwrap();
    let edge = Node { mesh, dir };
    let mut states = Vec::new();
    let back = async {
        while states.last() != Some(&MemberState::Alive) {
            if let MeshEvent::MemberChanged(member) = events.recv().await.unwrap()
                && member.identity.id == gone
            {
                states.push(member.state);
            }
        }
    };
    timeout(DEADLINE, back)
        .await
        .expect("the news of its return");
    assert_eq!(states, [MemberState::Stopped, MemberState::Alive]);
    all_alive(&[core, relay, edge]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_belongs_to_one_node_until_that_leaves() {
    let core = Node::founder().await;
    let edge = core.admit("edge", NodeRole::Edge).await;
    let token = core
        .mesh
        .authority()
        .unwrap()
        .issue_token(None, HOUR)
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ask = |name: &str| JoinRequest {
        address: core.mesh.local().address,
        token: Some(token.clone()),
        name: name.into(),
        role: NodeRole::Edge,
    };
    until("the member is known", || core.state_of(edge.id()).is_some()).await;
    for (name, state) in [
        ("founder", MemberState::Alive),
        ("edge", MemberState::Alive),
        ("edge", MemberState::Stopped),
    ] {
        if state == MemberState::Stopped {
            edge.mesh.depart(Departure::Stopped).await;
        }
        let refused = join(dir.path(), ask(name), |_| {}).await;
        assert!(
            matches!(&refused, Err(JoinError::NameTaken { name: taken, .. }) if *taken == *name),
            "{name} {state}: {refused:?}"
        );
    }
    let credentials = load_credentials(edge.dir.path()).unwrap().unwrap();
    let config = config().bootstrap(core.mesh.local().address);
    let back = MeshService::start(config, credentials).await.unwrap();
    // It can say farewell to those whom it knows.
    until("it is back", || {
        core.state_of(edge.id()) == Some(MemberState::Alive) && back.members().len() == 2
    })
    .await;
    back.depart(Departure::Left).await;
    // The refusals have not used the token up.
    join(dir.path(), ask("edge"), |_| {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_vanishes_is_suspected_then_dead_and_may_come_back() {
    let core = Node::founder().await;
    let relay = core.admit("relay", NodeRole::Relay).await;
    // A runtime of its own can be torn down like a process that is killed: its
    // sockets close and nothing is said to anybody.
    let victim = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let shared = Arc::new(core);
    let founder = Arc::clone(&shared);
    let joining = victim.spawn(async move { founder.admit("edge", NodeRole::Edge).await });
    let edge = joining.await.unwrap();
    let core = Arc::into_inner(shared).unwrap();
    let nodes = [core, relay, edge];
    all_alive(&nodes).await;
    let [core, relay, Node { mesh, dir }] = nodes;
    let gone = mesh.local().id;
    let mut events = core.mesh.subscribe();
    // A member is a connection first: make sure there is one.
    core.mesh.open_stream(&gone, PROTOCOL).await.unwrap();
    victim.shutdown_background();
    drop(mesh);
    // The transport and the group find out separately, in either order.
    let (mut lost, mut suspected, mut dead) = (false, false, false);
    let found_out = async {
        while !(lost && dead) {
            match events.recv().await.unwrap() {
                MeshEvent::PeerConnectionLost(node) if node == gone => lost = true,
                MeshEvent::MemberChanged(m) if m.identity.id == gone => {
                    suspected |= m.state == MemberState::Suspect;
                    dead |= m.state == MemberState::Dead;
                }
                _ => {}
            }
        }
    };
    timeout(DEADLINE, found_out)
        .await
        .expect("the news of death");
    assert!(suspected, "nobody is dead without having been suspected");
    until("the others know", || {
        relay.state_of(gone) == Some(MemberState::Dead)
    })
    .await;

    // It comes back knowing nobody but whom it remembers, on another port.
    let credentials = load_credentials(dir.path()).unwrap().unwrap();
    let mesh = MeshService::start(config(), credentials).await.unwrap();
    let edge = Node { mesh, dir };
    all_alive(&[core, relay, edge]).await;
}

/// The agents that a node lists, and whether it can reach them.
async fn agents(node: &Node) -> Vec<(AgentId, bool)> {
    let found = node.mesh.agents(Prefix::default()).await.unwrap();
    assert!(found.silent.is_empty());
    let agents = found.agents.iter();
    agents.map(|l| (l.record.agent, l.reachable)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_finds_an_agent_and_its_old_holder_is_fenced() {
    let [core, relay, edge] = three().await;
    let agent = AgentId([1; 16]);
    edge.mesh.announce(record(1, edge.id(), 1)).unwrap();
    assert!(
        edge.mesh.announce(record(1, core.id(), 1)).is_err(),
        "not the holder"
    );
    assert_eq!(relay.mesh.locate(&agent), None, "nobody is told unasked");
    edge.mesh.published(&agent).await;
    relay.mesh.look_up(&agent).await.unwrap();
    let location = relay.mesh.locate(&agent).unwrap();
    assert_eq!(location.record.node, edge.id());
    assert!(location.reachable);

    // The agent moves: the higher epoch wins, and those who keep the record tell the old holder.
    let mut edge_events = edge.mesh.subscribe();
    core.mesh.announce(record(1, core.id(), 2)).unwrap();
    let fenced = async {
        loop {
            if let MeshEvent::Fenced { agent, ours, by } = edge_events.recv().await.unwrap() {
                return (agent, ours, by.node);
            }
        }
    };
    let fenced = timeout(DEADLINE, fenced).await.unwrap();
    assert_eq!(fenced, (agent, Epoch(1), core.id()));
    core.mesh.published(&agent).await;
    let late = core.admit("late", NodeRole::Edge).await;
    let nodes = [core, relay, edge, late];
    all_alive(&nodes).await;
    for node in &nodes {
        node.mesh.look_up(&agent).await.unwrap();
        let found = node.mesh.locate(&agent).unwrap();
        assert_eq!(
            (found.record.node, found.record.epoch),
            (nodes[0].id(), Epoch(2))
        );
        assert_eq!(agents(node).await, [(agent, true)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_does_not_answer_is_named_in_the_listing() {
    let [core, relay, edge] = three().await;
    edge.mesh.announce(record(1, edge.id(), 1)).unwrap();
    core.mesh.announce(record(2, core.id(), 1)).unwrap();
    edge.mesh.published(&AgentId([1; 16])).await;
    // It vanishes, and is asked before anybody suspects it.
    let gone = edge.id();
    edge.mesh.shutdown().await;
    let found = relay.mesh.agents(Prefix::default()).await.unwrap();
    assert_eq!(found.silent, [gone]);
    let known: Vec<_> = found.agents.iter().map(|l| l.record.agent).collect();
    assert!(known.contains(&AgentId([2; 16])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_refused_limited_and_survive_panics() {
    let [core, relay, edge] = three().await;
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&dropped);
    let handler = request_handler(move |from: NodeId, request: Bytes| {
        let counter = Arc::clone(&counter);
        async move {
            match &request[..] {
                b"who" => Ok(from.0.to_vec().into()),
                b"no" => Err(Refusal::new(777, "not today")),
                b"panic" => panic!("on purpose"),
                b"huge" => Ok(vec![0; PAYLOAD_BYTES_MAX + 1].into()),
                b"never" => {
                    struct Dropped(Arc<AtomicUsize>);
                    impl Drop for Dropped {
                        fn drop(&mut self) {
                            self.0.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    let _dropped = Dropped(counter);
                    std::future::pending().await
                }
                _ => Ok(request),
            }
        }
    });
    core.mesh.serve(PROTOCOL, handler);
    let ask = |text: &'static [u8]| {
        let (mesh, core) = (edge.mesh.clone(), core.id());
        async move {
            mesh.request(&core, PROTOCOL, Bytes::from_static(text), LIMIT)
                .await
        }
    };
    assert_eq!(ask(b"who").await.unwrap(), edge.id().0[..]);
    let largest = Bytes::from(vec![5; PAYLOAD_BYTES_MAX]);
    let echoed = edge
        .mesh
        .request(&core.id(), PROTOCOL, largest.clone(), LIMIT)
        .await
        .unwrap();
    assert!(echoed == largest);
    let refused = ask(b"no").await;
    assert!(matches!(refused, Err(MeshError::Refused { refusal, .. }) if refusal.code == 777));
    for failing in [&b"panic"[..], b"huge"] {
        let refused = ask(failing).await;
        assert!(
            matches!(&refused, Err(MeshError::Refused { refusal, .. }) if refusal.code == Refusal::INTERNAL),
            "{refused:?}"
        );
    }
    let too_large = Bytes::from(vec![0; PAYLOAD_BYTES_MAX + 1]);
    let refused = edge
        .mesh
        .request(&core.id(), PROTOCOL, too_large, LIMIT)
        .await;
    assert!(matches!(refused, Err(MeshError::Oversized { .. })));
    let nobody = edge
        .mesh
        .request(&core.id(), 999, Bytes::new(), LIMIT)
        .await;
    assert!(matches!(
        nobody,
        Err(MeshError::Stream(StreamError::UnknownProtocol {
            protocol: 999,
            ..
        }))
    ));
    let unknown = edge
        .mesh
        .request(&NodeId([1; 32]), PROTOCOL, Bytes::new(), LIMIT)
        .await;
    assert!(matches!(unknown, Err(MeshError::UnknownNode(_))));
    let itself = edge
        .mesh
        .request(&edge.id(), PROTOCOL, Bytes::new(), LIMIT)
        .await;
    assert!(matches!(itself, Err(MeshError::IsLocal(_))));

    // A requester that gives up ends the handler.
    let short = Duration::from_millis(200);
    let late = edge
        .mesh
        .request(&core.id(), PROTOCOL, Bytes::from_static(b"never"), short)
        .await;
    assert!(matches!(late, Err(MeshError::Timeout { .. })));
    until("the handler was dropped", || {
        dropped.load(Ordering::SeqCst) == 1
    })
    .await;

    // Many at once, both ways, from everyone.
    let echo = request_handler(|_, request: Bytes| async move { Ok(request) });
    relay.mesh.serve(PROTOCOL, Arc::clone(&echo));
    edge.mesh.serve(PROTOCOL, echo);
    let mut asking = tokio::task::JoinSet::new();
    for index in 0..600_u32 {
        let nodes = [&core, &relay, &edge];
        let from = nodes[index as usize % 3].mesh.clone();
        let to = nodes[(index as usize + 1) % 3].id();
        asking.spawn(async move {
            let text = Bytes::from(format!("request {index}"));
            assert_eq!(
                from.request(&to, PROTOCOL, text.clone(), LIMIT)
                    .await
                    .unwrap(),
                text
            );
        });
    }
    while let Some(asked) = asking.join_next().await {
        asked.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_carry_bulk_and_end_with_their_node() {
    const TOTAL: usize = 64 << 20;
    let [core, _relay, edge] = three().await;
    core.mesh.serve_streams(
        PROTOCOL,
        stream_handler(|_, mut stream| async move {
            let (mut total, mut sum) = (0_u64, 0_u64);
            let mut buffer = vec![0; 256 * 1024];
            loop {
                match stream.read(&mut buffer).await {
                    Ok(0) => break,
                    Ok(len) => {
                        total += len as u64;
                        sum += buffer[..len].iter().map(|b| u64::from(*b)).sum::<u64>();
                    }
                    Err(_) => return,
                }
            }
            let answer = [total.to_be_bytes(), sum.to_be_bytes()].concat();
            let _ = stream.send_frame(b"sum", &answer).await;
            let _ = stream.finish();
        }),
    );
    let mut stream = edge.mesh.open_stream(&core.id(), PROTOCOL).await.unwrap();
    let block: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 255) as u8).collect();
    for _ in 0..TOTAL / block.len() {
        stream.write_all(&block).await.unwrap();
    }
    stream.finish().unwrap();
    let answer = timeout(LIMIT, stream.recv_frame(FrameLimit::default()))
        .await
        .unwrap();
    let answer = answer.unwrap().unwrap();
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    let expected = [(TOTAL as u64).to_be_bytes(), (64 * sum).to_be_bytes()].concat();
    assert_eq!(
        (&answer.header[..], &answer.payload[..]),
        (&b"sum"[..], &expected[..])
    );

    // A stream whose node goes down breaks at once, not after a timeout.
    let mut stream = edge.mesh.open_stream(&core.id(), PROTOCOL).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    core.mesh.shutdown().await;
    let broken = timeout(LIMIT, stream.recv_frame(FrameLimit::default()))
        .await
        .unwrap();
    assert!(
        matches!(
            broken,
            Err(StreamError::ConnectionLost(_) | StreamError::Abandoned { .. })
        ),
        "{broken:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_mesh_stays_outside() {
    let (ours, theirs) = (Node::founder().await, Node::founder().await);
    let dir = tempfile::tempdir().unwrap();
    let token = theirs
        .mesh
        .authority()
        .unwrap()
        .issue_token(None, HOUR)
        .unwrap();
    let request = JoinRequest {
        address: theirs.mesh.local().address,
        token: Some(token),
        name: "lost".into(),
        role: NodeRole::Edge,
    };
    let credentials = join(dir.path(), request, |_| {}).await.unwrap();
    // It is pointed at our mesh first and at its own second.
    let config = config()
        .bootstrap(ours.mesh.local().address)
        .bootstrap(theirs.mesh.local().address);
    let lost = Node {
        mesh: MeshService::start(config, credentials).await.unwrap(),
        dir,
    };
    all_alive(&[theirs, lost]).await;
    assert_eq!(ours.mesh.members().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_and_a_foreign_directory_are_typed_errors() {
    let node = Node::founder().await;
    let other = tempfile::tempdir().unwrap();
    let credentials = create_mesh(other.path(), "other", NodeRole::Core).unwrap();
    let taken = node.mesh.local().address;
    let refused = MeshService::start(MeshConfig::new(taken), credentials)
        .await
        .map(|_| ());
    assert!(
        matches!(refused, Err(MeshError::Wire(WireError::AddressInUse { address })) if address == taken),
        "{refused:?}"
    );
    std::fs::write(other.path().join("VERSION"), "99\n").unwrap();
    let refused = load_credentials(other.path()).map(|_| ());
    assert!(refused.unwrap_err().to_string().contains("has version 99"));
}

/// `localhost` may have two addresses, of which one answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_found_by_the_name_of_its_host() {
    let core = Node::founder().await;
    let port = core.mesh.local().address.port();
    let edge = core
        .admit_with("edge", NodeRole::Edge, |config| MeshConfig {
            bootstrap_nodes: vec![format!("localhost:{port}").parse().unwrap()],
            ..config
        })
        .await;
    all_alive(&[core, edge]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_nobody_uses_are_closed_and_nobody_is_suspected_for_it() {
    let unused_limit = Duration::from_millis(100);
    let adapt = |config| MeshConfig {
        unused_limit,
        ..config
    };
    let core = Node::founder().await;
    let one = core.admit_with("one", NodeRole::Edge, adapt).await;
    let two = core.admit_with("two", NodeRole::Edge, adapt).await;
    let nodes = [core, one, two];
    all_alive(&nodes).await;
    let [core, one, two] = nodes;
    let mut events = core.mesh.subscribe();
    let closed = || {
        let metrics = one.mesh.metrics();
        let name = "mielin_connections_closed_idle_total ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().parse::<u64>().unwrap()
    };
    let asking = async {
        // At ever other moments of a connection's end.
        for round in 0_u32.. {
            for node in [&core, &two] {
                one.mesh.ping(&node.id(), DEADLINE).await.unwrap();
                node.mesh.ping(&one.id(), DEADLINE).await.unwrap();
            }
            if closed() >= 12 {
                break;
            }
            sleep(unused_limit + Duration::from_millis(u64::from(round) * 7 % 50)).await;
        }
    };
    timeout(DEADLINE, asking)
        .await
        .expect("connections that end");
    while let Ok(event) = events.try_recv() {
        let bad = match &event {
            MeshEvent::MemberChanged(member) => member.state != MemberState::Alive,
            MeshEvent::PeerConnectionLost(_) => true,
            _ => false,
        };
        assert!(!bad, "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_gossip_stays_unknown() {
    let core = Node::founder().await;
    let silent = core
        .admit_with("silent", NodeRole::Edge, |config| MeshConfig {
            enable_gossip: false,
            ..config
        })
        .await;
    let normal = core.admit("normal", NodeRole::Edge).await;
    let nodes = [core, normal];
    all_alive(&nodes).await;
    assert_eq!(silent.mesh.members().len(), 1);
    assert_eq!(nodes[0].mesh.members().len(), 2);
    let refused = nodes[0].mesh.open_stream(&silent.id(), PROTOCOL).await;
    assert!(matches!(refused, Err(MeshError::UnknownNode(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_registry_neither_takes_nor_gives_records() {
    let core = Node::founder().await;
    let quiet = core
        .admit_with("quiet", NodeRole::Edge, |config| MeshConfig {
            enable_registry: false,
            ..config
        })
        .await;
    let normal = core.admit("normal", NodeRole::Edge).await;
    let nodes = [core, quiet, normal];
    all_alive(&nodes).await;
    let [core, quiet, normal] = nodes;
    quiet.mesh.announce(record(2, quiet.id(), 1)).unwrap();
    core.mesh.announce(record(1, core.id(), 1)).unwrap();
    core.mesh.published(&AgentId([1; 16])).await;
    let found = normal.mesh.agents(Prefix::default()).await.unwrap();
    let known: Vec<_> = found.agents.iter().map(|l| l.record.agent).collect();
    assert_eq!(known, [AgentId([1; 16])]);
    assert_eq!((found.silent, found.unlisted), (vec![], vec![quiet.id()]));
    assert!(quiet.mesh.locate(&AgentId([2; 16])).is_some(), "its own");
    let off = quiet.mesh.agents(Prefix::default()).await;
    assert!(matches!(off, Err(MeshError::RegistryOff)));
    let common = core.mesh.features(&quiet.id()).await.unwrap();
    assert_eq!(common, Features::all().without(Features::TABLE));
}

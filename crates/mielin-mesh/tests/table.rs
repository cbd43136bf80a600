//! The table of locations over loopback: what one node signs, every other finds, also when nodes vanish.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use mielin_mesh::{
    AgentLookup, Departure, JoinRequest, MeshConfig, MeshError, MeshService, create_mesh, join,
};
use mielin_mesh_core::kademlia::Key;
use mielin_mesh_core::limits::KADEMLIA_REPLICAS;
use mielin_mesh_core::{AgentId, AgentState, Epoch, LocationRecord, Name, NodeId, NodeRole};
use tempfile::TempDir;
use tokio::time::{interval, timeout};

const DEADLINE: Duration = Duration::from_secs(120);
const LIMIT: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

struct Node {
    mesh: MeshService,
    _dir: TempDir,
}

impl Node {
    fn id(&self) -> NodeId {
        self.mesh.local().id
    }
}

/// A node that is found by nothing but what a test tells of it.
fn config() -> MeshConfig {
    let mut config = MeshConfig::new("127.0.0.1:0".parse().unwrap());
    config.enable_mdns = false;
    config
}

async fn founder() -> Node {
    let dir = tempfile::tempdir().unwrap();
    let credentials = create_mesh(dir.path(), "founder", NodeRole::Core).unwrap();
    let mesh = MeshService::start(config(), credentials).await.unwrap();
    Node { mesh, _dir: dir }
}

async fn admitted(founder: &Node, name: &str, adapt: fn(MeshConfig) -> MeshConfig) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let address = founder.mesh.local().address;
    let token = founder.mesh.authority().unwrap().issue_token(None, HOUR);
    let request = JoinRequest {
        address,
        token: Some(token.unwrap()),
        name: name.into(),
        role: NodeRole::Edge,
    };
    let credentials = join(dir.path(), request, |_| {}).await.unwrap();
    let config = adapt(config().bootstrap(address));
    let mesh = MeshService::start(config, credentials).await.unwrap();
    Node { mesh, _dir: dir }
}

/// A mesh in which everybody knows everybody.
async fn mesh_of(count: usize) -> Vec<Node> {
    let mut nodes = vec![founder().await];
    for index in 1..count {
        let node = admitted(&nodes[0], &format!("node-{index}"), |config| config).await;
        nodes.push(node);
    }
    acquainted(&nodes).await;
    nodes
}

async fn acquainted(nodes: &[Node]) {
    let mut look = interval(Duration::from_millis(10));
    timeout(DEADLINE, async {
        while nodes
            .iter()
            .any(|node| node.mesh.members().len() < nodes.len())
        {
            look.tick().await;
        }
    })
    .await
    .expect("everybody is known to everybody");
}

fn record(agent: AgentId, node: NodeId) -> LocationRecord {
    LocationRecord {
        agent,
        name: Name::new("worker").unwrap(),
        module: [7; 32],
        owner: node,
        started_ms: 0,
        node,
        epoch: Epoch(2),
        revision: 0,
        state: AgentState::Running,
    }
}

/// Repeats a search until it says what is wanted: a record needs a moment to get where it is kept.
async fn found(node: &Node, agent: &AgentId, wanted: fn(&AgentLookup) -> bool) -> AgentLookup {
    let mut look = interval(Duration::from_millis(20));
    timeout(DEADLINE, async {
        loop {
            look.tick().await;
            let found = node.mesh.look_up(agent).await.unwrap();
            if wanted(&found) {
                return found;
            }
        }
    })
    .await
    .expect("the table answers in time")
}

/// The nodes that should keep a record, nearest first.
fn keepers(nodes: &[Node], agent: &AgentId) -> Vec<usize> {
    let key = Key::of_agent(agent);
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_by_key(|index| key.distance(&nodes[*index].id().into()));
    order.truncate(KADEMLIA_REPLICAS);
    order
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_found_when_two_of_three_keepers_die_at_once() {
    let nodes = mesh_of(6).await;
    let agent = AgentId([5; 16]);
    let keepers = keepers(&nodes, &agent);
    // Neither who publishes nor who asks keeps the record.
    let mut others = (0..nodes.len()).filter(|index| !keepers.contains(index));
    let mut other = || &nodes[others.next().expect("three nodes keep no record")];
    let (holder, asker) = (other(), other());
    holder.mesh.announce(record(agent, holder.id())).unwrap();

    let first = found(asker, &agent, |found| !found.records.is_empty()).await;
    assert_eq!(first.records[0].node, holder.id());
    assert_eq!(first.records[0].epoch, Epoch(2));
    let name = Name::new("worker").unwrap();
    let by_name = asker.mesh.look_up_name(&name).await.unwrap();
    assert_eq!(by_name.records, first.records);

    for index in &keepers[..2] {
        // Without a farewell, as when the machine fails.
        nodes[*index].mesh.shutdown().await;
    }
    let after = asker.mesh.look_up(&agent).await.unwrap();
    assert_eq!(after.records, first.records);

    holder.mesh.withdraw(&agent);
    found(asker, &agent, |found| found.records.is_empty()).await;
}

/// The value of one line of the metrics.
fn sample(node: &Node, line: &str) -> f64 {
    let text = node.mesh.metrics();
    let found = text.lines().find_map(|l| l.strip_prefix(line));
    let value = found.unwrap_or_else(|| panic!("no {line} in\n{text}"));
    value.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_follow_what_happens() {
    let nodes = mesh_of(3).await;
    let watched = &nodes[0];
    let empty = "mielin_lookups_total{outcome=\"empty\"}";
    let sent = "mielin_bytes_total{direction=\"sent\"}";
    assert_eq!(sample(watched, "mielin_members{state=\"alive\"}"), 3.0);
    assert_eq!(sample(watched, empty), 0.0);
    watched.mesh.look_up(&AgentId([9; 16])).await.unwrap();
    assert_eq!(sample(watched, empty), 1.0);

    let control = "mielin_class_bytes_total{class=\"control\",direction=\"received\"}";
    let before = (sample(watched, sent), sample(watched, control));
    let peer = nodes[1].id();
    watched.mesh.ping(&peer, LIMIT).await.unwrap();
    assert!(sample(watched, sent) > before.0);
    assert!(sample(watched, control) > before.1);
    assert!(sample(watched, "mielin_connections ") >= 1.0);
    let rtt = format!("mielin_peer_rtt_seconds{{node=\"{peer}\",name=\"node-1\"}}");
    assert!(sample(watched, &rtt) > 0.0);

    let before = sample(watched, sent);
    nodes[1].mesh.depart(Departure::Left).await;
    let mut look = interval(Duration::from_millis(10));
    timeout(DEADLINE, async {
        while sample(watched, "mielin_membership_changes_total{state=\"left\"}") != 1.0
            || watched.mesh.metrics().contains(&rtt)
        {
            look.tick().await;
        }
    })
    .await
    .expect("the departure is counted, and the connection gone");
    assert!(
        sample(watched, sent) >= before,
        "an ended connection counts"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_knows_an_agent_that_never_was() {
    let nodes = mesh_of(3).await;
    let found = nodes[1].mesh.look_up(&AgentId([9; 16])).await.unwrap();
    assert_eq!(found.records, []);
    let mut others: Vec<NodeId> = [&nodes[0], &nodes[2]].map(Node::id).into();
    others.sort_by_key(|id| Key::of_agent(&AgentId([9; 16])).distance(&(*id).into()));
    assert_eq!(found.closest, others);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_registry_takes_no_part_in_the_table() {
    let first = founder().await;
    let off = admitted(&first, "off", |config| MeshConfig {
        enable_registry: false,
        ..config
    })
    .await;
    let nodes = [first, off];
    acquainted(&nodes).await;
    let [first, off] = nodes;
    let agent = AgentId([1; 16]);
    let refused = off.mesh.look_up(&agent).await;
    assert!(
        matches!(refused, Err(MeshError::RegistryOff)),
        "{refused:?}"
    );
    // It is a member, but answers no search.
    off.mesh.ping(&first.id(), LIMIT).await.unwrap();
    let found = first.mesh.look_up(&agent).await.unwrap();
    assert_eq!((found.closest, found.records), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ping_measures_the_way_to_a_member_and_fails_for_others() {
    let nodes = mesh_of(2).await;
    let took = nodes[1].mesh.ping(&nodes[0].id(), LIMIT).await.unwrap();
    assert!(took > Duration::ZERO);
    let nobody = NodeId([1; 32]);
    let failed = nodes[1].mesh.ping(&nobody, LIMIT).await;
    assert!(matches!(failed, Err(MeshError::UnknownNode(id)) if id == nobody));
}

//! Nodes that are shut out of a mesh over loopback: at once, for good, and wherever they come from.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use mielin_mesh::{
    JoinError, JoinRequest, JoinToken, MeshConfig, MeshError, MeshService, Reason, WireError,
    create_mesh, join, load_credentials,
};
use mielin_mesh_core::{
    AgentId, AgentState, Epoch, LocationRecord, MemberState, Name, NodeId, NodeRole,
};
use tempfile::TempDir;
use tokio::time::{interval, timeout};

const DEADLINE: Duration = Duration::from_secs(120);
const LIMIT: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A node that is found by nothing but what a test tells of it.
fn config() -> MeshConfig {
    let mut config = MeshConfig::new("127.0.0.1:0".parse().unwrap());
    config.enable_mdns = false;
    config
}

async fn started(dir: &Path, founder: &MeshService) -> MeshService {
    let credentials = load_credentials(dir).unwrap().unwrap();
    let config = config().bootstrap(founder.local().address);
    MeshService::start(config, credentials).await.unwrap()
}

/// A mesh of a founder and others, each with the token by which it came.
struct Mesh {
    dirs: Vec<TempDir>,
    tokens: Vec<JoinToken>,
    nodes: Vec<MeshService>,
}

impl Mesh {
    async fn of(count: usize) -> Mesh {
        let dir = tempfile::tempdir().unwrap();
        let credentials = create_mesh(dir.path(), "founder", NodeRole::Core).unwrap();
        let founder = MeshService::start(config(), credentials).await.unwrap();
        let (mut dirs, mut nodes, mut tokens) = (vec![dir], vec![founder], Vec::new());
        for index in 1..count {
            let dir = tempfile::tempdir().unwrap();
            let authority = nodes[0].authority().unwrap();
            let token = authority.issue_token(None, HOUR).unwrap();
            ask(dir.path(), &nodes[0], &token, index).await.unwrap();
            nodes.push(started(dir.path(), &nodes[0]).await);
            dirs.push(dir);
            tokens.push(token);
        }
        let mesh = Mesh {
            dirs,
            tokens,
            nodes,
        };
        let everybody = |node: &MeshService| {
            let members = node.members();
            members
                .iter()
                .filter(|m| m.state == MemberState::Alive)
                .count()
                == count
        };
        until("everybody knows everybody", || {
            mesh.nodes.iter().all(everybody)
        })
        .await;
        mesh
    }

    fn id(&self, index: usize) -> NodeId {
        self.nodes[index].local().id
    }
}

async fn ask(
    dir: &Path,
    founder: &MeshService,
    token: &JoinToken,
    index: usize,
) -> Result<(), JoinError> {
    let request = JoinRequest {
        address: founder.local().address,
        token: Some(token.clone()),
        name: format!("node-{index}"),
        role: NodeRole::Edge,
    };
    join(dir, request, |_| {}).await.map(drop)
}

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

fn knows(node: &MeshService, revoked: NodeId) -> bool {
    node.revocations().iter().any(|one| one.node == revoked)
}

fn sees(node: &MeshService, other: NodeId) -> Option<MemberState> {
    let members = node.members();
    let seen = members.iter().find(|m| m.identity.id == other);
    seen.map(|m| m.state)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_shuts_a_revoked_node_out_at_once_and_for_good() {
    let mesh = Mesh::of(4).await;
    let [founder, one, other, thief] = mesh.nodes.as_slice() else {
        unreachable!("there are four");
    };
    let (thief_id, agent) = (mesh.id(3), AgentId([5; 16]));
    for node in [one, other] {
        thief.ping(&node.local().id, LIMIT).await.unwrap();
    }
    let record = LocationRecord {
        agent,
        name: Name::new("worker").unwrap(),
        module: [7; 32],
        owner: thief_id,
        started_ms: 0,
        node: thief_id,
        epoch: Epoch(9),
        revision: 0,
        state: AgentState::Running,
    };
    thief.announce(record).unwrap();
    thief.published(&agent).await;
    assert_eq!(one.look_up(&agent).await.unwrap().records.len(), 1);

    let reason = Reason::new("the laptop was stolen").unwrap();
    assert!(founder.revoke(&thief_id, reason.clone()).await.unwrap());
    assert!(!founder.revoke(&thief_id, reason.clone()).await.unwrap());
    until("all members have heard of it", || {
        [founder, one, other]
            .iter()
            .all(|node| knows(node, thief_id) && sees(node, thief_id) == Some(MemberState::Left))
    })
    .await;
    until("no connection with it is left", || {
        let mut nodes = [founder, one, other].into_iter();
        nodes.all(|node| node.path(&thief_id).is_none())
            && mesh.nodes[..3]
                .iter()
                .all(|n| thief.path(&n.local().id).is_none())
    })
    .await;
    let told = one.revocations();
    assert_eq!((told.len(), &told[0].reason), (1, &reason));
    assert_eq!(one.locate(&agent), None);
    assert_eq!(one.look_up(&agent).await.unwrap().records, []);

    // Neither side gets through to the other any more.
    let refused = one.ping(&thief_id, LIMIT).await;
    assert!(refused.is_err(), "{refused:?}");
    let refused = thief.ping(&mesh.id(1), LIMIT).await;
    let says_why = |error: &MeshError| error.to_string().contains("this node was revoked");
    assert!(refused.as_ref().is_err_and(says_why), "{refused:?}");
    let refused = thief.certificates().renew().await;
    assert!(refused.is_err(), "{refused:?}");

    // Nor after a restart, nor with the token by which it came, nor with a new one.
    thief.shutdown().await;
    let thief = started(mesh.dirs[3].path(), founder).await;
    let refused = thief.ping(&mesh.id(0), LIMIT).await;
    assert!(refused.is_err(), "{refused:?}");
    thief.shutdown().await;
    // What remains of its directory is its key.
    std::fs::remove_file(mesh.dirs[3].path().join("identity/node.crt")).unwrap();
    let fresh = founder
        .authority()
        .unwrap()
        .issue_token(None, HOUR)
        .unwrap();
    for token in [&mesh.tokens[2], &fresh] {
        let refused = ask(mesh.dirs[3].path(), founder, token, 3).await;
        assert!(
            matches!(refused, Err(JoinError::Revoked { node }) if node == thief_id),
            "{refused:?}"
        );
    }
    for member in [founder, one, other] {
        assert_eq!(sees(member, thief_id), Some(MemberState::Left));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_away_hears_of_it_on_return_and_nobody_forgets_it() {
    let mut mesh = Mesh::of(3).await;
    let revoked = mesh.id(1);
    mesh.nodes[2].shutdown().await;
    let reason = Reason::default();
    mesh.nodes[0].revoke(&revoked, reason).await.unwrap();
    // The founder comes back with what it has stored.
    mesh.nodes[0].shutdown().await;
    let credentials = load_credentials(mesh.dirs[0].path()).unwrap().unwrap();
    let again = MeshService::start(config(), credentials).await;
    mesh.nodes[0] = again.unwrap();
    assert!(knows(&mesh.nodes[0], revoked));

    mesh.nodes[2] = started(mesh.dirs[2].path(), &mesh.nodes[0]).await;
    until("the one that was away has heard of it", || {
        knows(&mesh.nodes[2], revoked)
    })
    .await;
    mesh.nodes[2].shutdown().await;
    mesh.nodes[2] = started(mesh.dirs[2].path(), &mesh.nodes[0]).await;
    assert!(knows(&mesh.nodes[2], revoked), "it was stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_node_learns_of_it_and_keeps_it_in_mind() {
    let mut mesh = Mesh::of(2).await;
    let thief_id = mesh.id(1);
    let reason = Reason::new("the laptop was stolen").unwrap();
    let [founder, thief] = mesh.nodes.as_slice() else {
        unreachable!("there are two");
    };
    // The one that was away, and hears it from whoever refuses it.
    thief.shutdown().await;
    founder.revoke(&thief_id, reason.clone()).await.unwrap();
    mesh.nodes[1] = started(mesh.dirs[1].path(), founder).await;
    until("it knows", || knows(&mesh.nodes[1], thief_id)).await;
    let thief = &mesh.nodes[1];
    assert_eq!(thief.revocations()[0].reason, reason);
    let refused = thief.ping(&mesh.id(0), LIMIT).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("this node was revoked"), "{refused}");
    thief.shutdown().await;
    let credentials = load_credentials(mesh.dirs[1].path()).unwrap().unwrap();
    assert!(credentials.revoked().contains(&thief_id), "it is stored");
    let thief = started(mesh.dirs[1].path(), &mesh.nodes[0]).await;
    assert!(knows(&thief, thief_id));

    // The founder knows what it was called, and says what became of it, after a restart too.
    mesh.nodes[0].shutdown().await;
    let credentials = load_credentials(mesh.dirs[0].path()).unwrap().unwrap();
    let founder = MeshService::start(config(), credentials).await.unwrap();
    let absence = founder.absence(&thief_id).unwrap();
    assert!(absence.revoked);
    assert_eq!(absence.name, Some(Name::new("node-1").unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_holder_of_the_root_revokes_and_never_itself() {
    let mesh = Mesh::of(2).await;
    let [founder, member] = mesh.nodes.as_slice() else {
        unreachable!("there are two");
    };
    let refused = member.revoke(&mesh.id(0), Reason::default()).await;
    assert!(matches!(refused, Err(MeshError::NotIssuer)), "{refused:?}");
    let refused = founder.revoke(&mesh.id(0), Reason::default()).await;
    assert!(matches!(refused, Err(MeshError::IsLocal(_))), "{refused:?}");
    assert_eq!(
        (founder.revocations(), member.revocations()),
        (vec![], vec![])
    );
    assert!(founder.ping(&mesh.id(1), LIMIT).await.is_ok());
    let unknown = NodeId([4; 32]);
    assert!(founder.revoke(&unknown, Reason::default()).await.unwrap());
    let refused = founder.ping(&unknown, LIMIT).await;
    assert!(
        matches!(
            refused,
            Err(MeshError::UnknownNode(_) | MeshError::Wire(WireError::Revoked { .. }))
        ),
        "{refused:?}"
    );
}

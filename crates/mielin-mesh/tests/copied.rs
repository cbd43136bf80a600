//! A copy of a node's data directory that runs beside it, over loopback.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use mielin_mesh::{
    Departure, JoinRequest, MeshConfig, MeshEvent, MeshService, create_mesh, join, load_credentials,
};
use mielin_mesh_core::{MemberState, NodeId, NodeRole};
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;
use tokio::time::{interval, timeout, timeout_at};

const DEADLINE: Duration = Duration::from_secs(120);
const HOUR: Duration = Duration::from_secs(3600);

/// A node that is found by nothing but what a test tells of it.
async fn started(dir: &Path, founder: Option<&MeshService>) -> MeshService {
    let credentials = load_credentials(dir).unwrap().unwrap();
    let mut config = MeshConfig::new("127.0.0.1:0".parse().unwrap());
    config.enable_mdns = false;
    if let Some(founder) = founder {
        config = config.bootstrap(founder.local().address);
    }
    MeshService::start(config, credentials).await.unwrap()
}

async fn admitted(founder: &MeshService, name: &str) -> (TempDir, MeshService) {
    let dir = tempfile::tempdir().unwrap();
    let token = founder.authority().unwrap().issue_token(None, HOUR);
    let request = JoinRequest {
        address: founder.local().address,
        token: Some(token.unwrap()),
        name: name.into(),
        role: NodeRole::Edge,
    };
    join(dir.path(), request, |_| {}).await.unwrap();
    let node = started(dir.path(), Some(founder)).await;
    (dir, node)
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_files(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
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

/// Whether a member changes in the eyes of a node within this time.
async fn changes_within(news: &mut Receiver<MeshEvent>, span: Duration) -> bool {
    let until = tokio::time::Instant::now() + span;
    while let Ok(Ok(event)) = timeout_at(until, news.recv()).await {
        if matches!(event, MeshEvent::MemberChanged(_)) {
            return true;
        }
    }
    false
}

/// Whether a node takes another for alive at an address.
fn sees(node: &MeshService, other: NodeId, at: &MeshService) -> bool {
    let members = node.members();
    let mut fitting = members.iter().filter(|m| m.identity.id == other);
    fitting.any(|m| m.state == MemberState::Alive && m.identity.address == at.local().address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_later_of_two_processes_with_one_key_gives_way_until_the_other_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    create_mesh(dir.path(), "founder", NodeRole::Core).unwrap();
    let founder = started(dir.path(), None).await;
    let (_one_dir, one) = admitted(&founder, "one").await;
    let (node_dir, node) = admitted(&founder, "node").await;
    let id = node.local().id;
    until("the mesh", || {
        [&founder, &one, &node]
            .iter()
            .all(|n| n.members().len() == 3)
    })
    .await;
    assert_eq!(node.copy(), None);

    let copied = tempfile::tempdir().unwrap();
    copy_files(node_dir.path(), copied.path());
    let copy = started(copied.path(), Some(&founder)).await;
    until("both know", || {
        let (here, there) = (node.copy(), copy.copy());
        here.is_some_and(|c| c.proved && !c.gives_way && c.address == copy.local().address)
            && there.is_some_and(|c| c.proved && c.gives_way && c.address == node.local().address)
    })
    .await;
    until("the members hold to the first", || {
        sees(&founder, id, &node) && sees(&one, id, &node)
    })
    .await;

    // What was under way between the two and the members when they found each other may still be missed by somebody,
    // who says so, and is refuted. Then nobody hears anything of anybody; two that overtake each other never rest.
    for member in [&founder, &one] {
        let mut news = member.subscribe();
        let at_rest = async { while changes_within(&mut news, Duration::from_secs(8)).await {} };
        timeout(DEADLINE, at_rest)
            .await
            .expect("the mesh comes to rest");
    }
    assert!(sees(&founder, id, &node) && sees(&one, id, &node));
    let healthy = |node: &MeshService| node.metrics().contains("\nmielin_local_health 0\n");
    until("the members are well", || {
        healthy(&founder) && healthy(&one)
    })
    .await;

    // The one that gave way takes the place of one that stops, and says nothing in its name before.
    node.depart(Departure::Stopped).await;
    until("the copy takes its place", || {
        copy.copy().is_none() && sees(&founder, id, &copy) && sees(&one, id, &copy)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_started_again_is_no_copy() {
    let dir = tempfile::tempdir().unwrap();
    create_mesh(dir.path(), "founder", NodeRole::Core).unwrap();
    let founder = started(dir.path(), None).await;
    let (node_dir, node) = admitted(&founder, "node").await;
    let id = node.local().id;
    until("the mesh", || sees(&founder, id, &node)).await;
    for _ in 0..3 {
        let again = tempfile::tempdir().unwrap();
        copy_files(node_dir.path(), again.path());
        // Like one that is killed it says nothing to anybody.
        node.shutdown().await;
        let node = started(again.path(), Some(&founder)).await;
        until("it is back", || sees(&founder, id, &node)).await;
        assert_eq!((node.copy(), founder.copy()), (None, None));
        node.shutdown().await;
    }
}

//! Agents that are hibernated, what wakes them, and nodes that are killed meanwhile.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use mielin_cells::{
    Cells, CellsConfig, CellsError, EXIT_LOST, EXIT_TERMINATED, ErrorKind, MoveOptions,
};
use mielin_mesh_core::{AgentId, AgentState};
use mielin_safepoint::ModuleHash;
use mielin_wasm::EngineKind;

use crate::copies;
use crate::nodes::{Node, ask, copy, mesh, plain_mesh, refused, shut_down, within};
use crate::programs;

/// Long enough for what does not wait, on a loaded machine.
const SOON: Duration = Duration::from_secs(20);

async fn state(node: &Node, agent: AgentId) -> AgentState {
    node.cells.inspect(agent).await.unwrap().state
}

fn snapshot(node: &Node, agent: AgentId) -> PathBuf {
    let agents = node.directory.path().join("cells/agents");
    agents.join(agent.to_string()).join("snapshot")
}

/// Makes of a node what its disk would be if it were killed now, and starts that.
async fn killed_and_restarted(node: Node, engine: EngineKind) -> Node {
    let aside = set_aside(&node);
    restarted_from(node, &aside, engine).await
}

/// What a node's disk has now.
fn set_aside(node: &Node) -> PathBuf {
    let aside = node.directory.path().join("aside");
    copy(&node.directory.path().join("cells"), &aside);
    aside
}

async fn restarted_from(node: Node, aside: &Path, engine: EngineKind) -> Node {
    node.cells.shutdown().await;
    let cells = node.directory.path().join("cells");
    std::fs::remove_dir_all(&cells).unwrap();
    std::fs::rename(aside, &cells).unwrap();
    let config = CellsConfig {
        data_dir: Some(cells),
        engine,
        ..CellsConfig::default()
    };
    let cells = Cells::start(config, node.mesh.clone()).await.unwrap();
    Node { cells, ..node }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hibernated_agent_is_woken_by_whatever_is_asked_of_it() {
    let nodes = plain_mesh(2).await;
    let agent = nodes[0].spawn(&programs::echo(), "echo").await;
    nodes[1].until(agent, |_, _| true).await;
    assert_eq!(ask(&nodes[1], agent, "one").await, "one");
    let asleep = |state: &AgentState, _| *state == AgentState::Hibernated;
    // Twice is once; from the node on which it is not.
    for _ in 0..2 {
        nodes[1].cells.hibernate(agent).await.unwrap();
        nodes[1].until(agent, asleep).await;
    }
    assert!(snapshot(&nodes[0], agent).exists());
    let report = nodes[1].cells.inspect(agent).await.unwrap();
    assert_eq!((report.memory_bytes, report.epoch.0), (4 << 16, 1));
    // What does not ask it anything lets it sleep.
    assert_eq!(nodes[1].stdout(agent).await, "one\n");
    assert!(matches!(
        refused(nodes[0].cells.remove(agent).await),
        CellsError::Alive(_)
    ));
    assert_eq!(state(&nodes[0], agent).await, AgentState::Hibernated);

    assert_eq!(ask(&nodes[1], agent, "two").await, "two");
    assert!(!snapshot(&nodes[0], agent).exists());
    assert_eq!(nodes[0].cells.inspect(agent).await.unwrap().epoch.0, 2);

    nodes[0].cells.hibernate(agent).await.unwrap();
    nodes[1].cells.resume(agent).await.unwrap();
    nodes[0]
        .until(agent, |state, _| *state == AgentState::Waiting)
        .await;
    nodes[0].cells.hibernate(agent).await.unwrap();
    nodes[1].cells.pause(agent).await.unwrap();
    nodes[0]
        .until(agent, |state, _| *state == AgentState::Paused)
        .await;
    // A paused one stays paused through its sleep, and has its message.
    nodes[0].cells.hibernate(agent).await.unwrap();
    nodes[1]
        .cells
        .send(agent, Bytes::from_static(b"three"))
        .await
        .unwrap();
    nodes[0]
        .until(agent, |state, _| *state == AgentState::Paused)
        .await;
    nodes[0].cells.hibernate(agent).await.unwrap();
    nodes[0].cells.resume(agent).await.unwrap();
    nodes[0].lines(agent, 3).await;

    nodes[0].cells.hibernate(agent).await.unwrap();
    let name = Some("copy".to_owned());
    let clone = nodes[0].cells.duplicate(agent, nodes[1].id(), name);
    assert_eq!(ask(&nodes[0], within(clone).await.unwrap(), "a").await, "a");
    nodes[0].cells.hibernate(agent).await.unwrap();
    let moved = nodes[0]
        .cells
        .migrate(agent, nodes[1].id(), MoveOptions::default(), None);
    within(moved).await.unwrap();
    assert_eq!(ask(&nodes[0], agent, "four").await, "four");
    nodes[0].cells.hibernate(agent).await.unwrap();
    nodes[0].cells.terminate(agent).await.unwrap();
    let end = within(nodes[0].cells.wait(agent)).await.unwrap();
    assert_eq!(end.exit_code, EXIT_TERMINATED);
    assert!(!snapshot(&nodes[1], agent).exists());
    assert_eq!(nodes[0].stdout(agent).await, "one\ntwo\nthree\nfour\n");
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computation_is_not_disturbed_by_hibernation() {
    let nodes = plain_mesh(1).await;
    let node = &nodes[0];
    let agent = node.spawn(&programs::compute(1 << 12, 1), "worker").await;
    for _ in 0..5 {
        node.cells.hibernate(agent).await.unwrap();
        assert_eq!(state(node, agent).await, AgentState::Hibernated);
        let before = node.stdout(agent).await.lines().count();
        node.cells.resume(agent).await.unwrap();
        node.lines(agent, before + 1).await;
    }
    node.cells
        .send(agent, Bytes::from_static(b"end"))
        .await
        .unwrap();
    assert_eq!(within(node.cells.wait(agent)).await.unwrap().exit_code, 7);
    let output = node.whole_stdout(agent).await;
    assert!(output == programs::computed(1 << 12, output.lines().count()));
    shut_down(nodes).await;
}

/// Its wait ends while it sleeps, while its node is down, and a little after.
#[tokio::test(flavor = "multi_thread")]
async fn a_hibernated_agent_wakes_at_the_end_of_its_wait() {
    let mut nodes = plain_mesh(1).await;
    let mut node = nodes.remove(0);
    let short = node.spawn(&programs::patient(300), "short").await;
    let long = node.spawn(&programs::patient(3_600_000), "long").await;
    for agent in [short, long] {
        node.lines(agent, 1).await;
        node.cells.hibernate(agent).await.unwrap();
    }
    assert_eq!(within(node.cells.wait(short)).await.unwrap().exit_code, 5);
    let restarted = node.spawn(&programs::patient(1_500), "restarted").await;
    node.lines(restarted, 1).await;
    node.cells.hibernate(restarted).await.unwrap();
    assert_eq!(state(&node, restarted).await, AgentState::Hibernated);
    // As if it had been written once more when the node was killed.
    let unfinished = snapshot(&node, long).with_extension("unfinished");
    std::fs::write(&unfinished, b"half").unwrap();
    node = killed_and_restarted(node, EngineKind::Wasmi).await;
    assert!(!unfinished.exists());
    assert_eq!(
        within(node.cells.wait(restarted)).await.unwrap().exit_code,
        5
    );
    assert_eq!(state(&node, long).await, AgentState::Hibernated);
    shut_down(vec![node]).await;
}

/// The program waits for a time by the clock that it sees, so that this does not stand still either.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_woken_early_waits_for_the_rest_only() {
    let nodes = plain_mesh(1).await;
    let node = &nodes[0];
    let began = std::time::Instant::now();
    let agent = node.spawn(&programs::patient(2_000), "patient").await;
    node.lines(agent, 1).await;
    node.cells.hibernate(agent).await.unwrap();
    let nothing = mielin_cells::LogKind::Stdout;
    let read = node
        .cells
        .read_log(agent, nothing, 6, Duration::from_millis(1_200));
    assert!(read.await.unwrap().bytes.is_empty());
    node.cells.resume(agent).await.unwrap();
    assert_eq!(within(node.cells.wait(agent)).await.unwrap().exit_code, 5);
    // With a clock that had stood still it would be 3.2 s.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(2_000), "{took:?}");
    assert!(took < Duration::from_millis(3_100), "{took:?}");
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hibernated_agent_outlives_stops_and_kills_of_its_node() {
    let nodes = plain_mesh(2).await;
    let [node, other] = <[Node; 2]>::try_from(nodes).ok().unwrap();
    let agent = node.spawn(&programs::echo(), "echo").await;
    other.until(agent, |_, _| true).await;
    let mut expected = String::new();
    let mut node = node;
    for (round, words) in ["one", "two", "three"].into_iter().enumerate() {
        assert_eq!(ask(&other, agent, words).await, words);
        expected.push_str(&format!("{words}\n"));
        // What waits in its mailbox sleeps with it.
        node.cells.pause(agent).await.unwrap();
        other
            .cells
            .send(agent, Bytes::from_static(b"waits"))
            .await
            .unwrap();
        expected.push_str("waits\n");
        node.cells.hibernate(agent).await.unwrap();
        let epoch = node.cells.inspect(agent).await.unwrap().epoch;
        let engine = [EngineKind::Wasmi, EngineKind::Wasmtime][round % 2];
        node = match round {
            1 => {
                assert_eq!(node.cells.shutdown().await, []);
                let config = CellsConfig {
                    data_dir: Some(node.directory.path().join("cells")),
                    ..CellsConfig::default()
                };
                let cells = Cells::start(config, node.mesh.clone()).await.unwrap();
                Node { cells, ..node }
            }
            _ => killed_and_restarted(node, engine).await,
        };
        let report = node.cells.inspect(agent).await.unwrap();
        assert_eq!(
            (report.state, report.epoch),
            (AgentState::Hibernated, epoch)
        );
        assert_eq!(report.mailbox_count, 1);
        assert_eq!(report.memory_bytes, 4 << 16);
        node.cells.resume(agent).await.unwrap();
    }
    assert_eq!(ask(&other, agent, "stop").await, "stop");
    expected.push_str("stop\n");
    assert_eq!(within(node.cells.wait(agent)).await.unwrap().exit_code, 0);
    assert_eq!(node.whole_stdout(agent).await, expected);
    shut_down(vec![node, other]).await;
}

/// Messages that it had sent, and nobody has taken in, go out while it sleeps, once.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_hibernated_agent_has_sent_arrives_once_through_a_kill() {
    let nodes = plain_mesh(2).await;
    let [mut node, other] = <[Node; 2]>::try_from(nodes).ok().unwrap();
    let echo = other.spawn(&programs::echo(), "echo").await;
    let announcer = node
        .spawn_granted(&programs::announcer(), "announcer", &["message"])
        .await;
    node.until(echo, |_, _| true).await;
    // Nobody takes messages in on the other node.
    other.cells.shutdown().await;
    let order = [&echo.0[..], &50_u64.to_le_bytes()].concat();
    node.cells.send(announcer, order.into()).await.unwrap();
    within(async {
        while node.cells.inspect(announcer).await.unwrap().counters.sent < 51 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    node.cells.hibernate(announcer).await.unwrap();
    node = killed_and_restarted(node, EngineKind::Wasmi).await;
    let config = CellsConfig {
        data_dir: Some(other.directory.path().join("cells")),
        ..CellsConfig::default()
    };
    let cells = Cells::start(config, other.mesh.clone()).await.unwrap();
    let other = Node { cells, ..other };
    within(other.cells.wait(echo)).await.unwrap();
    let numbers: String = (0..50).map(|number| format!("{number:016x}\n")).collect();
    assert_eq!(other.whole_stdout(echo).await, numbers + "stop\n");
    // The answers of the other one have woken it.
    within(node.cells.wait(announcer)).await.unwrap();
    shut_down(vec![node, other]).await;
}

/// Neither the agent nor its words come a second time from what was stored before it woke, even if the disk has
/// forgotten that this was deleted.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_has_woken_is_not_revived_from_its_sleep() {
    for forgotten in [false, true] {
        let mut nodes = plain_mesh(1).await;
        let node = nodes.remove(0);
        let agent = node.spawn(&programs::echo(), "echo").await;
        node.cells.hibernate(agent).await.unwrap();
        let path = snapshot(&node, agent);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(ask(&node, agent, "once").await, "once");
        assert!(!path.exists());
        if forgotten {
            std::fs::write(&path, bytes).unwrap();
        }
        let node = killed_and_restarted(node, EngineKind::Wasmtime).await;
        let end = within(node.cells.wait(agent)).await.unwrap();
        assert_eq!(end.exit_code, EXIT_LOST, "{end:?}");
        assert!(!path.exists());
        assert_eq!(node.whole_stdout(agent).await, "once\n");
        shut_down(vec![node]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_sleep_goes_on() {
    let nodes = mesh(1, |_, config| config.data_dir = None).await;
    let node = &nodes[0];
    let agent = node.spawn(&programs::echo(), "echo").await;
    let error = refused(node.cells.hibernate(agent).await);
    assert!(matches!(error, CellsError::NoDisk), "{error}");
    assert_eq!(ask(node, agent, "stop").await, "stop");
    within(node.cells.wait(agent)).await.unwrap();
    shut_down(nodes).await;

    // A directory in the way of the file.
    let nodes = plain_mesh(1).await;
    let node = &nodes[0];
    let agent = node.spawn(&programs::echo(), "echo").await;
    std::fs::create_dir_all(snapshot(node, agent)).unwrap();
    let error = refused(node.cells.hibernate(agent).await);
    assert!(matches!(error, CellsError::Io { .. }), "{error}");
    assert_eq!(ask(node, agent, "here").await, "here");
    std::fs::remove_dir(snapshot(node, agent)).unwrap();
    node.cells.hibernate(agent).await.unwrap();
    // What is stored is damaged: it cannot wake, and says so, and can be ended.
    let path = snapshot(node, agent);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = refused(node.cells.resume(agent).await);
    assert!(
        matches!(&error, CellsError::Unwakeable { path: damaged, .. } if *damaged == path),
        "{error}"
    );
    assert_eq!(state(node, agent).await, AgentState::Hibernated);
    node.cells.terminate(agent).await.unwrap();
    within(node.cells.wait(agent)).await.unwrap();
    let error = refused(node.cells.hibernate(agent).await);
    assert!(matches!(error, CellsError::Ended(_)), "{error}");
    shut_down(nodes).await;
}

/// What stands where an agent was stored is neither waited for nor read without end.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_stored_agent_is_not_read() {
    let nodes = plain_mesh(1).await;
    let node = &nodes[0];
    let agents = [
        node.spawn(&programs::echo(), "pipe").await,
        node.spawn(&programs::echo(), "endless").await,
        node.spawn(&programs::echo(), "sound").await,
    ];
    for agent in agents {
        node.cells.hibernate(agent).await.unwrap();
    }
    let [pipe, endless, sound] = agents;
    let spoil = |node: &Node| {
        let path = snapshot(node, pipe);
        std::fs::remove_file(&path).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let file = std::fs::File::create(snapshot(node, endless)).unwrap();
        file.set_len(1 << 40).unwrap();
    };
    // A reader that waits would keep the test from ending.
    let release = |node: &Node| {
        let mut options = std::fs::OpenOptions::new();
        drop(options.read(true).write(true).open(snapshot(node, pipe)));
    };
    // Where it is copied from there is nothing to wait for.
    let aside = set_aside(node);
    spoil(node);
    for agent in [pipe, endless] {
        let waking = tokio::time::timeout(SOON, node.cells.resume(agent)).await;
        release(node);
        let error = refused(waking.expect("it is waited for"));
        assert!(
            matches!(&error, CellsError::Unwakeable { path, .. } if *path == snapshot(node, agent)),
            "{error}"
        );
        assert_eq!(state(node, agent).await, AgentState::Hibernated);
    }

    let node = nodes.into_iter().next().unwrap();
    node.cells.shutdown().await;
    std::fs::remove_dir_all(node.directory.path().join("cells")).unwrap();
    std::fs::rename(&aside, node.directory.path().join("cells")).unwrap();
    spoil(&node);
    let config = CellsConfig {
        data_dir: Some(node.directory.path().join("cells")),
        ..CellsConfig::default()
    };
    let starting = tokio::time::timeout(SOON, Cells::start(config, node.mesh.clone())).await;
    release(&node);
    let cells = starting.expect("it is waited for").unwrap();
    let node = Node { cells, ..node };
    for agent in [pipe, endless] {
        let end = within(node.cells.wait(agent)).await.unwrap();
        let failure = end.failure.unwrap();
        assert!(failure.contains("could not be restored"), "{failure}");
        assert!(snapshot(&node, agent).symlink_metadata().is_ok());
    }
    assert_eq!(ask(&node, sound, "here").await, "here");
    shut_down(vec![node]).await;
}

/// The disk of its node has forgotten that it woke, and was moved away.
#[tokio::test(flavor = "multi_thread")]
async fn a_hibernated_agent_that_lives_elsewhere_is_given_up() {
    let nodes = plain_mesh(2).await;
    let [node, other] = <[Node; 2]>::try_from(nodes).ok().unwrap();
    let agent = node.spawn(&programs::echo(), "echo").await;
    node.cells.hibernate(agent).await.unwrap();
    let aside = set_aside(&node);
    let there = other.id();
    let moved = node
        .cells
        .migrate(agent, there, MoveOptions::default(), None);
    within(moved).await.unwrap();
    other.until(agent, |_, node| node == there).await;
    let node = restarted_from(node, &aside, EngineKind::Wasmtime).await;
    node.until(agent, |state, node| node == there && !state.is_final())
        .await;
    within(async {
        while snapshot(&node, agent).exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(ask(&node, agent, "stop").await, "stop");
    assert_eq!(other.whole_stdout(agent).await, "stop\n");
    shut_down(vec![node, other]).await;
}

/// What the node has kept is rewritten no more, so its agents outlive another rewriter. Other nodes do not take its word.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_another_rewriter_wakes_and_stays_where_it_is() {
    let nodes = plain_mesh(2).await;
    let agent = nodes[0].spawn(&programs::echo(), "echo").await;
    assert_eq!(ask(&nodes[0], agent, "one").await, "one");
    nodes[0].cells.hibernate(agent).await.unwrap();
    let kept = snapshot(&nodes[0], agent);
    let changed = copies::changed(&std::fs::read(&kept).unwrap(), |snapshot| {
        let mut sections = snapshot.host.iter_mut();
        let rewritten = sections.find(|section| section.name == "cells:rewritten");
        let bytes = &mut rewritten.unwrap().bytes;
        // A custom section at its end.
        bytes.extend([0, 2, 1, b'x']);
        snapshot.module = ModuleHash::of(bytes);
    });
    std::fs::write(&kept, changed).unwrap();
    assert_eq!(ask(&nodes[1], agent, "two").await, "two");
    let moved = nodes[0]
        .cells
        .migrate(agent, nodes[1].id(), MoveOptions::default(), None);
    let error = refused(within(moved).await);
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(
        error
            .to_string()
            .contains("another version of the rewriter"),
        "{error}"
    );
    assert_eq!(ask(&nodes[1], agent, "three").await, "three");
    shut_down(nodes).await;
}

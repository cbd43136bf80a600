//! Starting, pausing, ending.

use std::time::Duration;

use bytes::Bytes;
use mielin_cells::{
    Cells, CellsConfig, CellsError, EXIT_TERMINATED, EXIT_TRAPPED, LogKind, SpawnRequest,
};
use mielin_mesh_core::AgentState;

use crate::nodes::{PATIENCE, mesh, plain_mesh, refused, shut_down, within};
use crate::programs;

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_runs_ends_and_keeps_its_log_and_code() {
    let nodes = plain_mesh(2).await;
    let agent = nodes[0].spawn(&programs::hello(), "greeter").await;
    // The other node asks over the wire.
    for node in nodes.iter().rev() {
        node.until(agent, |state, _| {
            *state == AgentState::Ended { exit_code: 3 }
        })
        .await;
        assert_eq!(node.cells.resolve("greeter").unwrap(), agent);
        assert_eq!(node.cells.resolve(&agent.to_string()[..8]).unwrap(), agent);
        assert_eq!(within(node.cells.wait(agent)).await.unwrap().exit_code, 3);
        assert_eq!(node.whole_stdout(agent).await, "hello\n");
        let report = node.cells.inspect(agent).await.unwrap();
        assert_eq!(
            (report.name.as_str(), report.node, report.stdout_bytes),
            ("greeter", nodes[0].id(), 6)
        );
    }
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_loop_starves_nobody() {
    // One worker thread, so that the loops and the others can only take turns.
    let nodes = mesh(1, |_, config| config.workers = 1).await;
    let node = &nodes[0];
    let loops = [
        node.spawn(&programs::spin(), "a").await,
        node.spawn(&programs::spin(), "b").await,
    ];
    let hello = node.spawn(&programs::hello(), "hello").await;
    assert_eq!(within(node.cells.wait(hello)).await.unwrap().exit_code, 3);
    let echo = node.spawn(&programs::echo(), "echo").await;
    let reply = node
        .cells
        .request(echo, Bytes::from_static(b"hi"), PATIENCE)
        .await
        .unwrap();
    assert_eq!(&reply[..], b"hi");
    for agent in loops {
        assert_eq!(
            node.cells.inspect(agent).await.unwrap().state,
            AgentState::Running
        );
        node.cells.terminate(agent).await.unwrap();
        let end = within(node.cells.wait(agent)).await.unwrap();
        assert_eq!(end.exit_code, EXIT_TERMINATED);
    }
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_agent_stands_still_until_it_is_resumed() {
    let nodes = plain_mesh(2).await;
    let agent = nodes[0].spawn(&programs::compute(1024, 0), "worker").await;
    nodes[0].lines(agent, 2).await;
    // Paused and resumed from the other node.
    nodes[1].until(agent, |_, _| true).await;
    nodes[1].cells.pause(agent).await.unwrap();
    nodes[0]
        .until(agent, |state, _| *state == AgentState::Paused)
        .await;
    let before = nodes[0].stdout(agent).await;
    nodes[1]
        .cells
        .send(agent, Bytes::from_static(b"end"))
        .await
        .unwrap();
    let chunk = nodes[0]
        .cells
        .read_log(
            agent,
            LogKind::Stdout,
            before.len() as u64,
            Duration::from_millis(50),
        )
        .await
        .unwrap();
    assert!(
        chunk.bytes.is_empty() && !chunk.end,
        "it wrote while it was paused"
    );
    nodes[1].cells.resume(agent).await.unwrap();
    assert_eq!(
        within(nodes[1].cells.wait(agent)).await.unwrap().exit_code,
        7
    );
    let output = nodes[1].whole_stdout(agent).await;
    assert_eq!(output, programs::computed(1024, output.lines().count()));
    assert!(matches!(
        refused(nodes[1].cells.pause(agent).await),
        CellsError::Ended(_)
    ));
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_ends_the_agent_and_says_why() {
    let nodes = plain_mesh(1).await;
    let agent = nodes[0].spawn(&programs::trap(), "t").await;
    let end = within(nodes[0].cells.wait(agent)).await.unwrap();
    assert_eq!(end.exit_code, EXIT_TRAPPED);
    assert!(end.failure.unwrap().contains("zero"));
    let lines = nodes[0].cells.host_log(agent).await.unwrap();
    assert!(lines.iter().any(|line| line.level == "error"));
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_generated_and_unique() {
    let nodes = plain_mesh(2).await;
    let mut request = SpawnRequest::new(programs::spin());
    request.hint = Some("My Spin".to_owned());
    let agent = nodes[0].cells.spawn(request.clone()).await.unwrap();
    let name = nodes[0].cells.inspect(agent).await.unwrap().name;
    assert!(name.starts_with("my-spin-"), "{name}");
    // Also the other node knows that the name is taken.
    nodes[1].until(agent, |_, _| true).await;
    request.name = Some(name.clone());
    assert!(matches!(
        refused(nodes[1].cells.spawn(request.clone()).await),
        CellsError::NameTaken(_)
    ));
    nodes[0].cells.terminate(agent).await.unwrap();
    nodes[1].until(agent, |state, _| state.is_final()).await;
    let second = nodes[1].cells.spawn(request).await.unwrap();
    assert_eq!(
        nodes[1].cells.resolve(&name).unwrap(),
        second,
        "the living one goes before the ended one"
    );
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_outlive_their_nodes_process() {
    let mut nodes = plain_mesh(1).await;
    let node = nodes.remove(0);
    let worker = node.spawn(&programs::compute(1 << 12, 1), "worker").await;
    let echo = node.spawn(&programs::echo(), "echo").await;
    node.cells
        .send(echo, Bytes::from_static(b"before"))
        .await
        .unwrap();
    node.lines(echo, 1).await;
    node.lines(worker, 2).await;
    node.cells.pause(echo).await.unwrap();
    node.cells
        .send(echo, Bytes::from_static(b"in the mailbox"))
        .await
        .unwrap();
    node.cells.shutdown().await;
    let config = CellsConfig {
        data_dir: Some(node.directory.path().join("cells")),
        ..CellsConfig::default()
    };
    let cells = Cells::start(config, node.mesh.clone()).await.unwrap();
    let node = crate::nodes::Node { cells, ..node };
    assert_eq!(
        node.cells.inspect(echo).await.unwrap().state,
        AgentState::Paused
    );
    node.cells.resume(echo).await.unwrap();
    node.cells
        .send(echo, Bytes::from_static(b"stop"))
        .await
        .unwrap();
    assert_eq!(
        node.whole_stdout(echo).await,
        "before\nin the mailbox\nstop\n"
    );
    let lines = node.stdout(worker).await.lines().count();
    assert!(lines >= 2);
    node.lines(worker, lines + 1).await;
    node.cells
        .send(worker, Bytes::from_static(b"end"))
        .await
        .unwrap();
    within(node.cells.wait(worker)).await.unwrap();
    let output = node.whole_stdout(worker).await;
    assert!(output == programs::computed(1 << 12, output.lines().count()));
    shut_down(vec![node]).await;
}

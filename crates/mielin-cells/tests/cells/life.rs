//! Starting, pausing, ending.

use std::time::Duration;

use bytes::Bytes;
use mielin_cells::{
    Cells, CellsConfig, CellsError, EXIT_TERMINATED, EXIT_TRAPPED, LogKind, SpawnRequest,
};
use mielin_mesh_core::{AgentId, AgentState};
use redb::ReadableDatabase;

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
        assert_eq!(node.cells.resolve("greeter").await.unwrap(), agent);
        assert_eq!(
            node.cells.resolve(&agent.to_string()[..8]).await.unwrap(),
            agent
        );
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
    within(async {
        while nodes[1].cells.resolve(&name).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    request.name = Some(name.clone());
    assert!(matches!(
        refused(nodes[1].cells.spawn(request.clone()).await),
        CellsError::NameTaken(_)
    ));
    nodes[0].cells.terminate(agent).await.unwrap();
    nodes[1].until(agent, |state, _| state.is_final()).await;
    // The record of its end may come a little later than its node says so.
    let second = within(async {
        loop {
            match nodes[1].cells.spawn(request.clone()).await {
                Err(CellsError::NameTaken(_)) => tokio::task::yield_now().await,
                spawned => return spawned.unwrap(),
            }
        }
    })
    .await;
    assert_eq!(
        nodes[1].cells.resolve(&name).await.unwrap(),
        second,
        "the living one goes before the ended one"
    );
    nodes[1].cells.terminate(second).await.unwrap();
    nodes[0].until(second, |state, _| state.is_final()).await;
    for node in &nodes {
        assert_eq!(
            node.cells.resolve(&name).await.unwrap(),
            second,
            "the latest one"
        );
    }
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

/// Starts the cells of a node again, on the same mesh.
async fn again(node: crate::nodes::Node, ended_max: usize) -> crate::nodes::Node {
    node.cells.shutdown().await;
    let config = CellsConfig {
        data_dir: Some(node.directory.path().join("cells")),
        ended_max,
        ..CellsConfig::default()
    };
    let cells = Cells::start(config, node.mesh.clone()).await.unwrap();
    crate::nodes::Node { cells, ..node }
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_agents_are_bounded_and_the_oldest_goes_first() {
    let mut nodes = mesh(1, |_, config| config.ended_max = 3).await;
    let mut node = nodes.remove(0);
    let mut agents = Vec::new();
    for index in 0..5 {
        let agent = node.spawn(&programs::hello(), &format!("h{index}")).await;
        within(node.cells.wait(agent)).await.unwrap();
        agents.push(agent);
    }
    let directories = node.directory.path().join("cells/agents");
    for (ended_max, first) in [(3, 2), (2, 3)] {
        if ended_max == 2 {
            node = again(node, ended_max).await;
        }
        within(async {
            while node.cells.residents().len() > ended_max {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let mut kept: Vec<_> = node.cells.residents().iter().map(|a| a.agent).collect();
        let mut wanted = agents[first..].to_vec();
        kept.sort();
        wanted.sort();
        assert_eq!(kept, wanted);
        assert_eq!(std::fs::read_dir(&directories).unwrap().count(), ended_max);
    }
    shut_down(vec![node]).await;
}

/// Whether a ledger, which may have been copied in the middle of a change, has a record of the agent.
fn is_recorded(ledger: &std::path::Path, agent: AgentId) -> bool {
    const RECORDS: redb::TableDefinition<'_, [u8; 16], &[u8]> =
        redb::TableDefinition::new("records");
    let read = || -> Result<bool, redb::Error> {
        let database = redb::Database::open(ledger)?;
        let records = database.begin_read()?.open_table(RECORDS)?;
        Ok(records.get(agent.0)?.is_some())
    };
    read().unwrap_or(false)
}

/// The node was killed when it had handed its agent over, before it could clear its files away.
#[tokio::test(flavor = "multi_thread")]
async fn what_looks_lost_but_lives_elsewhere_is_given_up() {
    let mut nodes = plain_mesh(2).await;
    let agent = nodes[0].spawn(&programs::echo(), "echo").await;
    let own = nodes[0].directory.path().join("cells");
    let files = own.join("agents").join(agent.to_string());
    let (ledger, aside) = (own.join("ledger.redb"), own.join("aside"));
    // What a disk would have had if the node had been killed now.
    within(async {
        loop {
            std::fs::copy(&ledger, &aside).unwrap();
            if is_recorded(&aside, agent) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let target = nodes[1].id();
    let options = mielin_cells::MoveOptions::default();
    within(nodes[0].cells.migrate(agent, target, options, None))
        .await
        .unwrap();
    nodes[0].until(agent, |_, node| node == target).await;
    assert!(!files.exists());
    let node = nodes.remove(0);
    node.cells.shutdown().await;
    std::fs::create_dir(&files).unwrap();
    std::fs::rename(&aside, &ledger).unwrap();
    let node = again(node, 3).await;
    // Those who keep the newer record say so as soon as this node publishes its own.
    node.until(agent, |state, node| node == target && !state.is_final())
        .await;
    let report = node.cells.inspect(agent).await.unwrap();
    assert_eq!((report.node, report.state.is_final()), (target, false));
    assert!(!files.exists());
    node.cells.terminate(agent).await.unwrap();
    within(node.cells.wait(agent)).await.unwrap();
    node.cells.remove(agent).await.unwrap();
    nodes.push(node);
    shut_down(nodes).await;
}

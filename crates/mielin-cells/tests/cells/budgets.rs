//! Budgets of agents: what ends them, what holds them back, and that they go along.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mielin_cells::{
    AgentEnd, AgentReport, Cells, CellsConfig, CellsError, EXIT_OVER_BUDGET, EXIT_TERMINATED,
    MoveOptions, SpawnRequest,
};
use mielin_mesh_core::{AgentId, AgentState};
use mielin_wasm::EngineKind;

use crate::nodes::{Node, PATIENCE, mesh, plain_mesh, refused, shut_down, within};
use crate::programs;

const MILLISECOND: u64 = 1_000_000;

pub(crate) async fn report(node: &Node, agent: AgentId) -> AgentReport {
    within(node.cells.inspect(agent)).await.unwrap()
}

/// Looks at the agent until it is as it should be.
pub(crate) async fn until(
    node: &Node,
    agent: AgentId,
    is: impl Fn(&AgentReport) -> bool,
) -> AgentReport {
    within(async {
        loop {
            let report = node.cells.inspect(agent).await.unwrap();
            if is(&report) {
                return report;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// An agent that has just come may still be its source's.
async fn hibernate(node: &Node, agent: AgentId) {
    within(async {
        while let Err(error) = node.cells.hibernate(agent).await {
            assert!(matches!(error, CellsError::Busy { .. }), "{error}");
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn ask(node: &Node, agent: AgentId) {
    let words = Bytes::from_static(b"words");
    let answer = within(node.cells.request(agent, words.clone(), PATIENCE)).await;
    assert_eq!(answer.unwrap(), words);
}

fn assert_over(end: &AgentEnd, part: &str) {
    assert_eq!(end.exit_code, EXIT_OVER_BUDGET, "{end:?}");
    let failure = end.failure.as_deref().unwrap();
    assert_eq!(failure, format!("its budget {part} is used up"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_loop_ends_with_its_time_although_nobody_waits() {
    let nodes = mesh(2, |index, config| {
        config.engine = [EngineKind::Wasmtime, EngineKind::Wasmi][index];
    })
    .await;
    for (name, node) in ["first", "second"].into_iter().zip(&nodes) {
        let agent = node.spawn_within(&programs::spin(), name, "cpu=50ms").await;
        assert_over(&within(node.cells.wait(agent)).await.unwrap(), "cpu=50ms");
        let report = report(node, agent).await;
        assert!(
            matches!(&report.state, AgentState::Failed { reason } if reason.contains("cpu=50ms")),
            "{:?}",
            report.state
        );
        let used = report.counters.cpu_ns;
        assert!((50..1000).contains(&(used / MILLISECOND)), "{used} ns");
        let lines = node.cells.host_log(agent).await.unwrap();
        assert!(lines.iter().any(|line| line.text.contains("cpu=50ms")));
        // One without a budget is left in its turn, and seen all the same.
        let lonely = node
            .spawn(&programs::spin(), &format!("{name}-lonely"))
            .await;
        let seen = until(node, lonely, |report| {
            report.counters.cpu_ns > 20 * MILLISECOND
        })
        .await;
        assert_eq!(seen.counters.turns, 0);
    }
    shut_down(nodes).await;
}

/// One worker, so that an agent that were only asked to wait in its turn would keep the other from running.
#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_loop_gets_its_share_and_is_moved_all_the_same() {
    let nodes = mesh(2, |_, config| config.workers = 1).await;
    let began = Instant::now();
    let agent = nodes[0]
        .spawn_within(&programs::spin(), "spin", "cpu=10%")
        .await;
    for node in &nodes {
        let before = report(node, agent).await.counters;
        until(node, agent, |report| report.throttled).await;
        let wanted = before.cpu_ns + 160 * MILLISECOND;
        let after = until(node, agent, |report| report.counters.cpu_ns >= wanted).await;
        // What 100 ms give is saved up, and each turn may take some more before the clock has noticed: on a busy machine, tens of
        // milliseconds.
        let turns = after.counters.turns - before.turns;
        assert!(
            turns >= 3,
            "{turns} turns for {wanted} ns: it was not held back"
        );
        assert_eq!(after.state, AgentState::Running, "for the mesh");
        let hello = node.spawn(&programs::hello(), "hello").await;
        within(node.cells.wait(hello)).await.unwrap();
        node.cells.remove(hello).await.unwrap();
        let there = (node.id() == nodes[0].id()).then(|| nodes[1].id());
        if let Some(there) = there {
            let moved = node
                .cells
                .migrate(agent, there, MoveOptions::default(), None);
            within(moved).await.unwrap();
        }
    }
    let used = Duration::from_nanos(report(&nodes[1], agent).await.counters.cpu_ns);
    // A busy machine makes this only longer.
    assert!(
        used < began.elapsed() / 2,
        "{used:?} of {:?}",
        began.elapsed()
    );
    nodes[0].cells.terminate(agent).await.unwrap();
    let end = within(nodes[0].cells.wait(agent)).await.unwrap();
    assert_eq!(end.exit_code, EXIT_TERMINATED);
    shut_down(nodes).await;
}

/// It would go on in some hours.
#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_agent_can_be_paused_moved_copied_stored_and_ended_at_once() {
    let nodes = plain_mesh(2).await;
    let agent = nodes[0]
        .spawn_within(&programs::compute(1024, 0), "worker", "log=1/h")
        .await;
    until(&nodes[0], agent, |report| report.throttled).await;
    let output = nodes[0].stdout(agent).await;
    assert!(!output.is_empty());
    nodes[0].cells.pause(agent).await.unwrap();
    assert_eq!(report(&nodes[0], agent).await.state, AgentState::Paused);
    nodes[0].cells.resume(agent).await.unwrap();
    assert!(report(&nodes[0], agent).await.throttled);

    let moved = nodes[0]
        .cells
        .migrate(agent, nodes[1].id(), MoveOptions::default(), None);
    within(moved).await.unwrap();
    let there = until(&nodes[1], agent, |report| report.throttled).await;
    assert_eq!(there.budget.to_string(), "log=1/h");

    hibernate(&nodes[1], agent).await;
    assert_eq!(report(&nodes[1], agent).await.state, AgentState::Hibernated);
    nodes[1].cells.resume(agent).await.unwrap();
    assert!(report(&nodes[1], agent).await.throttled);

    let name = Some("copy".to_owned());
    let copy = within(nodes[1].cells.duplicate(agent, nodes[0].id(), name));
    let copy = copy.await.unwrap();
    assert!(report(&nodes[0], copy).await.throttled);
    // None of that has let it go on.
    assert_eq!(nodes[1].stdout(agent).await, output);
    for agent in [agent, copy] {
        nodes[0].cells.terminate(agent).await.unwrap();
        let end = within(nodes[0].cells.wait(agent)).await.unwrap();
        assert_eq!(end.exit_code, EXIT_TERMINATED);
    }
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_sends_what_it_may_and_is_ended_or_held_back() {
    let nodes = plain_mesh(1).await;
    let node = &nodes[0];
    let order = |to: AgentId, count: u64| {
        let order: Vec<u8> = [&to.0[..], &count.to_le_bytes()].concat();
        Bytes::from(order)
    };
    let echo = node.spawn(&programs::echo(), "echo").await;
    let talker = node
        .spawn_within(&programs::talker(), "talker", "messages=3")
        .await;
    node.cells.send(talker, order(echo, 9)).await.unwrap();
    assert_over(
        &within(node.cells.wait(talker)).await.unwrap(),
        "messages=3",
    );
    assert_eq!(report(node, talker).await.counters.sent, 3);
    node.lines(echo, 3).await;
    ask(node, echo).await;
    assert_eq!(node.stdout(echo).await.lines().count(), 4);

    // More than are saved up in a second: it has to wait for some of them, and sends every one.
    let patient = node
        .spawn_within(&programs::talker(), "patient", "messages=40/s")
        .await;
    let began = Instant::now();
    node.cells.send(patient, order(echo, 60)).await.unwrap();
    assert_eq!(within(node.cells.wait(patient)).await.unwrap().exit_code, 0);
    assert!(began.elapsed() >= Duration::from_millis(400));
    within(node.cells.wait(echo)).await.unwrap();
    assert_eq!(node.whole_stdout(echo).await.lines().count(), 4 + 60 + 1);

    // One that may not send for half an hour goes on with everything else.
    let other = node
        .spawn_within(&programs::announcer(), "slow", "messages=2/h")
        .await;
    let echo = node.spawn(&programs::echo(), "second").await;
    node.cells.send(other, order(echo, 5)).await.unwrap();
    let held = until(node, other, |report| report.throttled).await;
    assert_eq!(held.counters.sent, 1);
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_writes_and_calls_as_much_as_it_may() {
    let nodes = plain_mesh(1).await;
    let node = &nodes[0];
    let program = programs::compute(1024, 0);
    let writer = node.spawn_within(&program, "writer", "log=40").await;
    assert_over(&within(node.cells.wait(writer)).await.unwrap(), "log=40");
    let output = node.whole_stdout(writer).await;
    assert_eq!(output, programs::computed(1024, 3)[..40]);
    assert_eq!(report(node, writer).await.counters.log_bytes, 40);

    let caller = node.spawn_within(&program, "caller", "host-calls=10").await;
    assert_over(
        &within(node.cells.wait(caller)).await.unwrap(),
        "host-calls=10",
    );
    // Two for each line, and those between two polls.
    let calls = report(node, caller).await.counters.host_calls;
    assert!((11..=12).contains(&calls), "{calls}");

    let slow = node.spawn_within(&program, "slow", "host-calls=1/h").await;
    let held = until(node, slow, |report| report.throttled).await;
    assert!((1..=3).contains(&held.counters.host_calls), "{held:?}");
    // A call that waits is one, however often it is issued.
    let echo = node.spawn(&programs::echo(), "echo").await;
    for _ in 0..3 {
        ask(node, echo).await;
    }
    let waits = until(node, echo, |report| report.state == AgentState::Waiting).await;
    assert_eq!(waits.counters.host_calls, 3 * 3 + 1);
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_beyond_its_budget() {
    let nodes = plain_mesh(1).await;
    let node = &nodes[0];
    let agent = node
        .spawn_within(&programs::growing(), "growing", "memory=320KiB")
        .await;
    assert_eq!(within(node.cells.wait(agent)).await.unwrap().exit_code, 5);
    let report = report(node, agent).await;
    assert_eq!(report.memory_bytes_max, 320 << 10);
    let spending = report.spending();
    assert_eq!(spending[0].part, "memory=320KiB");
    assert_eq!(spending[0].used, Some((320 << 10, 320 << 10)));
    let mut request = SpawnRequest::new(programs::compute(1024, 1));
    request.budget = "memory=1MiB".parse().unwrap();
    let error = refused(node.cells.spawn(request.clone()).await);
    assert!(
        matches!(error, CellsError::MemoryBudget { budget, .. } if budget == 1 << 20),
        "{error}"
    );
    request.budget = "memory=4GiB".parse().unwrap();
    let error = refused(node.cells.spawn(request).await);
    assert!(
        matches!(error, CellsError::TooLarge { max, .. } if max == 512 << 20),
        "{error}"
    );
    shut_down(nodes).await;
}

/// Moved, hibernated, stored with its node, and copied: the sixth reply is too many wherever it is given.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_up_stays_so_through_all_that_happens_to_an_agent() {
    let mut nodes = mesh(2, |index, config| {
        config.engine = [EngineKind::Wasmtime, EngineKind::Wasmi][index];
    })
    .await;
    let budget = "memory=1MiB,cpu=1h,messages=5,log=1MiB/s";
    let agent = nodes[0]
        .spawn_within(&programs::echo(), "echo", budget)
        .await;
    ask(&nodes[0], agent).await;
    let moved = nodes[0]
        .cells
        .migrate(agent, nodes[1].id(), MoveOptions::default(), None);
    within(moved).await.unwrap();
    ask(&nodes[0], agent).await;
    hibernate(&nodes[1], agent).await;
    ask(&nodes[1], agent).await;
    let before = report(&nodes[1], agent).await;
    assert_eq!(before.budget.to_string(), budget);
    assert!(before.counters.cpu_ns > 0 && before.counters.log_bytes == 3 * 6);

    let node = nodes.pop().unwrap();
    node.cells.shutdown().await;
    let config = CellsConfig {
        data_dir: Some(node.directory.path().join("cells")),
        ..CellsConfig::default()
    };
    let cells = Cells::start(config, node.mesh.clone()).await.unwrap();
    let node = Node { cells, ..node };
    ask(&node, agent).await;
    let after = report(&node, agent).await;
    assert_eq!((&after.budget, after.counters.sent), (&before.budget, 4));
    assert!(after.counters.cpu_ns >= before.counters.cpu_ns);

    let checkpoint = within(node.cells.checkpoint(agent)).await.unwrap();
    let copy = nodes[0]
        .cells
        .restore(checkpoint, Some("copy".to_owned()))
        .await
        .unwrap();
    for (node, agent) in [(&node, agent), (&nodes[0], copy)] {
        ask(node, agent).await;
        let last = Bytes::from_static(b"too many");
        node.cells.send(agent, last).await.unwrap();
        let end = within(node.cells.wait(agent)).await.unwrap();
        assert_over(&end, "messages=5");
        let report = report(node, agent).await;
        assert_eq!(
            (report.counters.sent, report.budget),
            (5, before.budget.clone())
        );
    }
    nodes.push(node);
    shut_down(nodes).await;
}

/// The time is counted across the nodes.
#[tokio::test(flavor = "multi_thread")]
async fn the_time_that_was_used_before_a_move_counts_after_it() {
    let nodes = plain_mesh(2).await;
    let agent = nodes[0]
        .spawn_within(&programs::spin(), "spin", "cpu=400ms")
        .await;
    let half = |report: &AgentReport| report.counters.cpu_ns > 100 * MILLISECOND;
    let before = until(&nodes[0], agent, half).await.counters;
    let moved = nodes[0]
        .cells
        .migrate(agent, nodes[1].id(), MoveOptions::default(), None);
    let moved = within(moved).await;
    // Where the machine is slow it may have ended before.
    if let Ok(moved) = moved {
        assert_eq!(moved.to, nodes[1].id());
        let there = report(&nodes[1], agent).await.counters;
        assert!(there.cpu_ns >= before.cpu_ns, "{there:?} after {before:?}");
    }
    assert_over(
        &within(nodes[0].cells.wait(agent)).await.unwrap(),
        "cpu=400ms",
    );
    let after = report(&nodes[0], agent).await.counters;
    assert!(after.cpu_ns >= 400 * MILLISECOND && after.cpu_ns > before.cpu_ns);
    assert!(after.cpu_ns < 1400 * MILLISECOND, "{} ns", after.cpu_ns);
    shut_down(nodes).await;
}

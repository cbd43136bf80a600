//! Agents that compute while they move.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mielin_cells::{
    CellsError, LogKind, MoveOptions, MoveProbe, MoveReport, MoveSide, Packing, ProbeAnswer,
};
use mielin_mesh_core::{AgentState, MigrationPhase, MigrationStrategy};
use mielin_wasm::EngineKind;
use tokio::sync::mpsc;

use crate::nodes::{Node, PATIENCE, mesh, plain_mesh, refused, shut_down, within};
use crate::programs;

/// Moves a computing agent around and checks that every byte of its output is what an undisturbed run gives.
async fn compute_through(
    nodes: &[Node],
    words: u32,
    fill: u32,
    strategies: &[Option<MigrationStrategy>],
) -> Vec<MoveReport> {
    let agent = nodes[0]
        .spawn(&programs::compute(words, fill), "worker")
        .await;
    nodes[0].lines(agent, 1).await;
    let (mut written, mut reports) = (0, Vec::new());
    for (step, strategy) in strategies.iter().enumerate() {
        let target = &nodes[(step + 1) % nodes.len()];
        let options = MoveOptions {
            strategy: *strategy,
            ..MoveOptions::default()
        };
        let report = within(nodes[0].cells.migrate(agent, target.id(), options, None))
            .await
            .unwrap();
        assert_eq!(report.to, target.id());
        assert!(report.page_bytes > u64::from(fill) << 20, "{report:?}");
        assert!(report.bytes >= report.page_bytes_sent, "{report:?}");
        assert!(
            report.downtime_us > 0 && report.downtime_us <= report.total_us,
            "{report:?}"
        );
        if let Some(strategy) = strategy {
            assert_eq!(report.strategy, *strategy);
        }
        // Everything written so far is readable at the new node, and it goes on there.
        let lines = target.stdout(agent).await.lines().count();
        assert!(lines >= written);
        written = lines;
        target.lines(agent, written + 1).await;
        reports.push(report);
    }
    nodes[0]
        .cells
        .send(agent, Bytes::from_static(b"end"))
        .await
        .unwrap();
    assert_eq!(
        within(nodes[0].cells.wait(agent)).await.unwrap().exit_code,
        7
    );
    let output = nodes[0].whole_stdout(agent).await;
    let expected = programs::computed(words, output.lines().count());
    assert!(
        output == expected,
        "the output differs from an undisturbed run's"
    );
    reports
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computation_is_not_disturbed_by_stop_copy() {
    let nodes = plain_mesh(3).await;
    compute_through(&nodes, 1 << 12, 0, &[Some(MigrationStrategy::StopCopy); 6]).await;
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computation_is_not_disturbed_by_pre_copy() {
    let nodes = plain_mesh(3).await;
    compute_through(&nodes, 1 << 15, 4, &[Some(MigrationStrategy::PreCopy); 6]).await;
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computation_is_not_disturbed_by_post_copy() {
    let nodes = plain_mesh(3).await;
    let strategies = [Some(MigrationStrategy::PostCopy); 6];
    compute_through(&nodes, 1 << 15, 4, &strategies).await;
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computation_is_not_disturbed_by_hybrid() {
    let nodes = plain_mesh(3).await;
    let strategies = [Some(MigrationStrategy::Hybrid); 6];
    compute_through(&nodes, 1 << 19, 4, &strategies).await;
    shut_down(nodes).await;
}

/// Moves an agent to and fro by pre-copy, until `enough` of its reports, and ends it by a message; gives its exit code.
async fn to_and_fro(program: &[u8], mut enough: impl FnMut(&MoveReport) -> bool) -> i32 {
    let nodes = plain_mesh(2).await;
    let agent = nodes[0].spawn(program, "worker").await;
    within(nodes[0].cells.read_log(agent, LogKind::Stdout, 0, PATIENCE))
        .await
        .unwrap();
    let options = MoveOptions {
        strategy: Some(MigrationStrategy::PreCopy),
        ..MoveOptions::default()
    };
    let mut moves = 0;
    loop {
        let (from, to) = (&nodes[moves % 2], &nodes[(moves + 1) % 2]);
        let moving = from.cells.migrate(agent, to.id(), options, None);
        let report = within(moving).await.unwrap();
        moves += 1;
        if enough(&report) {
            break;
        }
        assert!(moves < 40, "what is looked for does not happen: {report:?}");
    }
    let last = &nodes[moves % 2];
    last.cells.send(agent, Bytes::new()).await.unwrap();
    let end = within(last.cells.wait(agent)).await.unwrap();
    shut_down(nodes).await;
    end.exit_code
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_and_stays_as_it_was_is_sent_once() {
    let code = to_and_fro(&programs::rewriting(), |report| {
        // The memory, and what else the program has written since: its message buffer and its frames.
        let pages: u64 = report.pages.iter().sum();
        assert!(pages < 1024 + 16, "{report:?}");
        // Page hashes do not find it in the first place.
        report.unchanged > 0 || report.tracker != "userfaultfd"
    })
    .await;
    assert_eq!(code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_zero_while_it_is_sent_is_zero_at_the_target() {
    let mut moves = 0;
    let code = to_and_fro(&programs::blinking(), |_| {
        moves += 1;
        moves == 8
    })
    .await;
    assert_eq!(code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computation_is_not_disturbed_by_packing() {
    let nodes = mesh(3, |_, config| config.packing = Packing::Always).await;
    let strategies = [MigrationStrategy::ALL, MigrationStrategy::ALL].concat();
    let strategies: Vec<_> = strategies.into_iter().map(Some).collect();
    for report in compute_through(&nodes, 1 << 19, 8, &strategies).await {
        // The 8 MiB that are filled have one word in each half of a page, and zeros else.
        let spared = report.page_bytes.checked_sub(report.page_bytes_sent);
        assert!(spared > Some(6 << 20), "{report:?}");
    }
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_outruns_the_link_is_restrained_and_let_go_again() {
    let breaks = Arc::new(AtomicBool::new(true));
    let probe = {
        let breaks = Arc::clone(&breaks);
        MoveProbe(Arc::new(move |side, _, phase| {
            // By then it is restrained, unless it had no time to write in.
            let late = side == MoveSide::Source && *phase == MigrationPhase::PreCopy(3);
            if late && breaks.swap(false, Ordering::Relaxed) {
                return ProbeAnswer::Drop;
            }
            ProbeAnswer::Continue
        }))
    };
    let nodes = mesh(2, |_, config| config.probe = Some(probe.clone())).await;
    let words = 1 << 19;
    let agent = nodes[0].spawn(&programs::compute(words, 0), "worker").await;
    nodes[0].lines(agent, 1).await;
    let options = MoveOptions {
        strategy: Some(MigrationStrategy::PreCopy),
        downtime: Some(Duration::from_nanos(1)),
    };
    let (mut at, mut throttled) = (0, 0);
    for _ in 0..20 {
        let target = &nodes[1 - at];
        match within(nodes[at].cells.migrate(agent, target.id(), options, None)).await {
            Ok(report) => {
                at = 1 - at;
                throttled = report.throttled_percent;
            }
            Err(error) => assert!(matches!(error, CellsError::RolledBack { .. }), "{error}"),
        }
        // It goes on wherever it is.
        let lines = nodes[at].stdout(agent).await.lines().count();
        nodes[at].lines(agent, lines + 5).await;
        if throttled > 0 && !breaks.load(Ordering::Relaxed) {
            break;
        }
    }
    assert!((50..=90).contains(&throttled), "{throttled}");
    assert!(!breaks.load(Ordering::Relaxed), "no move has broken");
    nodes[at].cells.send(agent, Bytes::new()).await.unwrap();
    within(nodes[at].cells.wait(agent)).await.unwrap();
    let output = nodes[at].whole_stdout(agent).await;
    assert!(output == programs::computed(words, output.lines().count()));
    shut_down(nodes).await;
}

/// A fresh instance at the target has the module's data where the agent has zeros, and zeros are not sent.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_has_cleared_stays_clear() {
    let nodes = mesh(2, |index, config| {
        config.engine = [EngineKind::Wasmtime, EngineKind::Wasmi][index];
    })
    .await;
    for (step, strategy) in MigrationStrategy::ALL.into_iter().enumerate() {
        let name = format!("cleared-{step}");
        let (from, to) = (&nodes[step % 2], &nodes[(step + 1) % 2]);
        let agent = from.spawn(&programs::cleared(), &name).await;
        within(from.cells.read_log(agent, LogKind::Stdout, 0, PATIENCE))
            .await
            .unwrap();
        let options = MoveOptions {
            strategy: Some(strategy),
            ..MoveOptions::default()
        };
        within(from.cells.migrate(agent, to.id(), options, None))
            .await
            .unwrap();
        to.cells.send(agent, Bytes::new()).await.unwrap();
        let end = within(to.cells.wait(agent)).await.unwrap();
        assert_eq!(end.exit_code, 0, "{strategy}");
    }
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computation_changes_engines() {
    let nodes = mesh(2, |index, config| {
        config.engine = if index == 0 {
            EngineKind::Wasmtime
        } else {
            EngineKind::Wasmi
        };
    })
    .await;
    compute_through(
        &nodes,
        1 << 15,
        2,
        &[
            None,
            None,
            Some(MigrationStrategy::StopCopy),
            Some(MigrationStrategy::PreCopy),
        ],
    )
    .await;
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_agent_stays_paused_and_progress_is_told() {
    let nodes = plain_mesh(2).await;
    let agent = nodes[0]
        .spawn(&programs::compute(1 << 12, 0), "worker")
        .await;
    nodes[0].lines(agent, 1).await;
    nodes[0].cells.pause(agent).await.unwrap();
    nodes[0]
        .until(agent, |state, _| *state == AgentState::Paused)
        .await;
    let (sender, mut progress) = mpsc::unbounded_channel();
    // Asked on the node that does not have it, so that the steps come over the wire.
    nodes[1].until(agent, |_, _| true).await;
    let target = nodes[1].id();
    within(
        nodes[1]
            .cells
            .migrate(agent, target, MoveOptions::default(), Some(sender)),
    )
    .await
    .unwrap();
    let mut phases = Vec::new();
    while let Some(step) = progress.recv().await {
        phases.push(step.phase);
    }
    for phase in [
        "planning",
        "preparing",
        "freezing",
        "transferring",
        "committing",
        "resuming",
        "complete",
    ] {
        assert!(
            phases.iter().any(|seen| seen == phase),
            "{phase} is missing in {phases:?}"
        );
    }
    nodes[0]
        .until(agent, |state, node| {
            *state == AgentState::Paused && node == target
        })
        .await;
    nodes[0].cells.resume(agent).await.unwrap();
    nodes[0]
        .cells
        .send(agent, Bytes::from_static(b"end"))
        .await
        .unwrap();
    within(nodes[0].cells.wait(agent)).await.unwrap();
    let output = nodes[0].whole_stdout(agent).await;
    assert_eq!(output, programs::computed(1 << 12, output.lines().count()));
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moving_agent_is_left_alone() {
    let nodes = plain_mesh(2).await;
    let agent = nodes[0]
        .spawn(&programs::compute(1 << 15, 8), "worker")
        .await;
    nodes[0].lines(agent, 1).await;
    let (sender, mut progress) = mpsc::unbounded_channel();
    let (cells, target) = (nodes[0].cells.clone(), nodes[1].id());
    let moving = tokio::spawn(async move {
        cells
            .migrate(agent, target, MoveOptions::default(), Some(sender))
            .await
    });
    within(progress.recv()).await.unwrap();
    // Whichever comes first, the move or the order: either it is refused or it is obeyed where the agent is then.
    let second = nodes[0]
        .cells
        .migrate(agent, target, MoveOptions::default(), None)
        .await;
    assert!(matches!(
        refused(second),
        CellsError::Busy { .. } | CellsError::SameNode { .. }
    ));
    within(moving).await.unwrap().unwrap();
    nodes[0].cells.terminate(agent).await.unwrap();
    assert_eq!(
        within(nodes[0].cells.wait(agent)).await.unwrap().exit_code,
        mielin_cells::EXIT_TERMINATED
    );
    shut_down(nodes).await;
}

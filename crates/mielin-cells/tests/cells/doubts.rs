//! Moves that break.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use mielin_cells::{Cells, CellsConfig, CellsError, MoveOptions, MoveProbe, MoveSide, ProbeAnswer};
use mielin_mesh::{FrameLimit, stream_handler};
use mielin_mesh_core::migration::QueryReply;
use mielin_mesh_core::{
    AgentId, AgentState, Epoch, LocationRecord, MigrationPhase, MigrationStrategy, Name, codec,
};
use tokio::sync::watch;

use crate::nodes::{Node, mesh, plain_mesh, refused, shut_down, within};
use crate::programs;

/// Agents that end in the middle of their moves, each a little later.
const ENDS: u32 = 24;

/// Whether a phase is the one that a test wants to break.
type Wanted = Option<(MoveSide, fn(&MigrationPhase) -> bool)>;

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_dies_before_the_hand_over_leaves_the_agent_at_its_source() {
    let wanted: Arc<Mutex<Wanted>> = Arc::default();
    let probe = {
        let wanted = Arc::clone(&wanted);
        MoveProbe(Arc::new(move |side, _, phase| {
            let mut wanted = wanted.lock().unwrap();
            match *wanted {
                Some((at, fits)) if at == side && fits(phase) => {
                    *wanted = None;
                    ProbeAnswer::Drop
                }
                _ => ProbeAnswer::Continue,
            }
        }))
    };
    let nodes = mesh(2, |_, config| config.probe = Some(probe.clone())).await;
    let agent = nodes[0]
        .spawn(&programs::compute(1 << 15, 2), "worker")
        .await;
    nodes[0].lines(agent, 1).await;
    let phases: [fn(&MigrationPhase) -> bool; 4] = [
        |phase| matches!(phase, MigrationPhase::Preparing),
        |phase| matches!(phase, MigrationPhase::PreCopy(2)),
        |phase| matches!(phase, MigrationPhase::Transferring),
        |phase| matches!(phase, MigrationPhase::Committing),
    ];
    let options = MoveOptions {
        strategy: Some(MigrationStrategy::PreCopy),
        ..MoveOptions::default()
    };
    for (index, fits) in phases.into_iter().enumerate() {
        for side in [MoveSide::Target, MoveSide::Source] {
            *wanted.lock().unwrap() = Some((side, fits));
            let error =
                refused(within(nodes[0].cells.migrate(agent, nodes[1].id(), options, None)).await);
            assert!(
                matches!(error, CellsError::RolledBack { .. }),
                "phase {index} at {side:?}: {error}"
            );
            assert!(
                wanted.lock().unwrap().is_none(),
                "phase {index} at {side:?} was not reached"
            );
            let lines = nodes[0].stdout(agent).await.lines().count();
            nodes[0].lines(agent, lines + 1).await;
            assert_eq!(
                nodes[0].cells.inspect(agent).await.unwrap().node,
                nodes[0].id()
            );
        }
    }
    // And then it still can move, and be talked to.
    within(nodes[0].cells.migrate(agent, nodes[1].id(), options, None))
        .await
        .unwrap();
    nodes[0]
        .cells
        .send(agent, Bytes::from_static(b"end"))
        .await
        .unwrap();
    within(nodes[0].cells.wait(agent)).await.unwrap();
    let output = nodes[0].whole_stdout(agent).await;
    assert!(
        output == programs::computed(1 << 15, output.lines().count()),
        "the output differs"
    );
    shut_down(nodes).await;
}

/// The source has said `Go` and hears nothing more: it keeps the agent frozen, also when the target is declared dead,
/// and says for whom it waits, until somebody says that the target has not got it.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_in_doubt_waits_until_somebody_recovers_it() {
    let (killed, mut dead) = tokio::sync::watch::channel(false);
    let probe = MoveProbe(Arc::new(move |side, _, phase| {
        if side == MoveSide::Target && *phase == MigrationPhase::Resuming {
            killed.send_replace(true);
            return ProbeAnswer::Kill;
        }
        ProbeAnswer::Continue
    }));
    let nodes = mesh(2, |_, config| config.probe = Some(probe.clone())).await;
    let agent = nodes[0]
        .spawn(&programs::compute(1 << 12, 0), "worker")
        .await;
    nodes[0].lines(agent, 1).await;
    let error = refused(within(nodes[0].cells.recover(agent)).await);
    assert!(matches!(error, CellsError::NotInDoubt(_)), "{error}");
    let (cells, target) = (nodes[0].cells.clone(), nodes[1].id());
    let moving = tokio::spawn(async move {
        cells
            .migrate(agent, target, MoveOptions::default(), None)
            .await
    });
    within(dead.wait_for(|dead| *dead)).await.unwrap();
    // Nobody answers there any more; now membership notices, too.
    nodes[1].mesh.shutdown().await;
    let error = refused(within(moving).await.unwrap());
    assert!(matches!(error, CellsError::InDoubt { .. }), "{error}");
    let report = nodes[0].cells.inspect(agent).await.unwrap();
    assert_eq!(report.state, AgentState::InDoubt);
    assert_eq!(report.waits_for, Some(target));
    within(nodes[0].cells.recover(agent)).await.unwrap();
    let lines = nodes[0].stdout(agent).await.lines().count();
    nodes[0].lines(agent, lines + 1).await;
    let report = nodes[0].cells.inspect(agent).await.unwrap();
    assert_eq!((report.epoch.0, report.waits_for), (3, None));
    nodes[0]
        .cells
        .send(agent, Bytes::from_static(b"end"))
        .await
        .unwrap();
    within(nodes[0].cells.wait(agent)).await.unwrap();
    let output = nodes[0].whole_stdout(agent).await;
    assert!(
        output == programs::computed(1 << 12, output.lines().count()),
        "the output differs"
    );
    shut_down(nodes).await;
}

/// The next life of a node's cells, which have shut down.
async fn start_again(node: &mut Node) {
    let config = CellsConfig {
        data_dir: Some(node.directory.path().join("cells")),
        ..CellsConfig::default()
    };
    let mesh = node.mesh.clone();
    node.cells = Cells::start(config, mesh).await.unwrap();
}

/// A node whose agent may live elsewhere stores what it has of it when it stops, and asks on when it is started again.
#[tokio::test(flavor = "multi_thread")]
async fn a_doubt_outlives_the_node() {
    let (killed, mut dead) = watch::channel(false);
    let probe = MoveProbe(Arc::new(move |side, _, phase| {
        let runs = matches!(phase, MigrationPhase::Resuming | MigrationPhase::PostCopy);
        if side == MoveSide::Target && runs {
            killed.send_replace(true);
            return ProbeAnswer::Kill;
        }
        ProbeAnswer::Continue
    }));
    for strategy in [MigrationStrategy::PreCopy, MigrationStrategy::PostCopy] {
        let mut nodes = mesh(2, |_, config| config.probe = Some(probe.clone())).await;
        dead.mark_unchanged();
        let agent = nodes[0]
            .spawn(&programs::compute(1 << 12, 0), "worker")
            .await;
        nodes[0].lines(agent, 1).await;
        let (cells, target) = (nodes[0].cells.clone(), nodes[1].id());
        let options = MoveOptions {
            strategy: Some(strategy),
            ..MoveOptions::default()
        };
        let moving = tokio::spawn(async move { cells.migrate(agent, target, options, None).await });
        within(dead.changed()).await.unwrap();
        nodes[1].mesh.shutdown().await;
        let error = refused(within(moving).await.unwrap());
        assert!(matches!(error, CellsError::InDoubt { .. }), "{error}");
        // Twice, because what is stored must still be there.
        for _ in 0..2 {
            assert_eq!(within(nodes[0].cells.shutdown()).await, []);
            start_again(&mut nodes[0]).await;
            let report = nodes[0].cells.inspect(agent).await.unwrap();
            let seen = (report.state, report.waits_for, report.epoch.0);
            assert_eq!(seen, (AgentState::InDoubt, Some(target), 1));
        }
        // Nothing wakes it.
        for error in [
            refused(nodes[0].cells.checkpoint(agent).await),
            refused(nodes[0].cells.resume(agent).await),
        ] {
            assert!(matches!(error, CellsError::InDoubt { .. }), "{error}");
        }
        let error = refused(nodes[0].cells.terminate(agent).await);
        assert!(matches!(error, CellsError::Busy { .. }), "{error}");
        within(nodes[0].cells.recover(agent)).await.unwrap();
        let lines = nodes[0].stdout(agent).await.lines().count();
        nodes[0].lines(agent, lines + 1).await;
        let report = nodes[0].cells.inspect(agent).await.unwrap();
        assert_eq!((report.epoch.0, report.waits_for), (3, None));
        let end = Bytes::from_static(b"end");
        nodes[0].cells.send(agent, end).await.unwrap();
        within(nodes[0].cells.wait(agent)).await.unwrap();
        let output = nodes[0].whole_stdout(agent).await;
        let expected = programs::computed(1 << 12, output.lines().count());
        assert!(output == expected, "the output differs");
        shut_down(nodes).await;
    }
}

/// A doubt of the node's last life ends with the target's answer, or with a record of the mesh that another node has the
/// agent: then nothing of it is left here.
#[tokio::test(flavor = "multi_thread")]
async fn a_doubt_that_has_outlived_the_node_ends_with_the_agent_elsewhere() {
    let (killed, mut dead) = watch::channel(false);
    let probe = MoveProbe(Arc::new(move |side, _, phase| {
        if side == MoveSide::Target && *phase == MigrationPhase::Resuming {
            killed.send_replace(true);
            return ProbeAnswer::Kill;
        }
        ProbeAnswer::Continue
    }));
    for answers in [true, false] {
        let mut nodes = mesh(2, |_, config| config.probe = Some(probe.clone())).await;
        dead.mark_unchanged();
        let agent = nodes[0]
            .spawn(&programs::compute(1 << 12, 0), "worker")
            .await;
        nodes[0].lines(agent, 1).await;
        let (cells, target) = (nodes[0].cells.clone(), nodes[1].id());
        let moving = tokio::spawn(async move {
            cells
                .migrate(agent, target, MoveOptions::default(), None)
                .await
        });
        within(dead.changed()).await.unwrap();
        nodes[0]
            .until(agent, |state, _| *state == AgentState::InDoubt)
            .await;
        assert_eq!(within(nodes[0].cells.shutdown()).await, []);
        let error = refused(within(moving).await.unwrap());
        assert!(matches!(error, CellsError::InDoubt { .. }), "{error}");
        start_again(&mut nodes[0]).await;
        let home = nodes[0].directory.path().join("cells/agents");
        let home = home.join(agent.to_string());
        assert!(home.exists());
        let report = nodes[0].cells.inspect(agent).await.unwrap();
        assert_eq!(
            (report.state, report.waits_for),
            (AgentState::InDoubt, Some(target))
        );
        if answers {
            // What moves and questions of what became of them are asked by.
            nodes[1].mesh.serve_streams(
                200,
                stream_handler(|_, stream| async move {
                    let (mut send, mut recv) = stream.split();
                    recv.recv_frame(FrameLimit::payload(0)).await.unwrap();
                    let reply = codec::encode(&QueryReply::Running { epoch: Epoch(2) });
                    send.send_frame(&reply, &[]).await.unwrap();
                    send.finish().unwrap();
                    let _ = send.delivered().await;
                }),
            );
        } else {
            nodes[1]
                .mesh
                .announce(LocationRecord {
                    agent,
                    name: Name::new("worker".to_owned()).unwrap(),
                    module: [7; 32],
                    owner: nodes[0].id(),
                    started_ms: 1,
                    node: target,
                    epoch: Epoch(2),
                    revision: 1,
                    state: AgentState::Running,
                })
                .unwrap();
        }
        within(async {
            while home.exists() || !nodes[0].cells.residents().is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let error = refused(within(nodes[0].cells.recover(agent)).await);
        assert!(!matches!(error, CellsError::InDoubt { .. }), "{error}");
        // And a later life does not bring it back.
        assert_eq!(within(nodes[0].cells.shutdown()).await, []);
        start_again(&mut nodes[0]).await;
        assert!(nodes[0].cells.residents().is_empty());
        shut_down(nodes).await;
    }
}

/// An agent that ends in the middle of its move does not go on, and nothing has failed. When that is noticed depends on
/// the moment: its memory is gone before its end is written down, and that before it is known.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_whose_agent_ends_says_so() {
    let (copying, mut reached) = watch::channel(0);
    let delay = Arc::new(Mutex::new(Duration::ZERO));
    // Nothing comes: it is the moment that is tried.
    let (_nobody, nothing) = mpsc::channel::<()>();
    let nothing = Mutex::new(nothing);
    let probe = {
        let delay = Arc::clone(&delay);
        MoveProbe(Arc::new(move |side, _, phase| {
            if side == MoveSide::Source && *phase == MigrationPhase::PreCopy(2) {
                copying.send_modify(|count| *count += 1);
                let _ = nothing.lock().unwrap().recv_timeout(*delay.lock().unwrap());
            }
            ProbeAnswer::Continue
        }))
    };
    let nodes = mesh(2, |_, config| config.probe = Some(probe.clone())).await;
    let options = MoveOptions {
        strategy: Some(MigrationStrategy::PreCopy),
        ..MoveOptions::default()
    };
    let mut ended = 0;
    for round in 0..ENDS {
        *delay.lock().unwrap() = Duration::from_micros(500) * round;
        let program = programs::compute(1 << 12, 4);
        let agent = nodes[0].spawn(&program, &format!("worker-{round}")).await;
        nodes[0].lines(agent, 1).await;
        let (cells, target) = (nodes[0].cells.clone(), nodes[1].id());
        let moving = tokio::spawn(async move { cells.migrate(agent, target, options, None).await });
        within(reached.wait_for(|count| *count > round))
            .await
            .unwrap();
        let end = Bytes::from_static(b"end");
        within(nodes[0].cells.send(agent, end)).await.unwrap();
        match within(moving).await.unwrap() {
            Ok(_) => {}
            Err(CellsError::Ended(_)) => ended += 1,
            Err(error) => panic!("round {round}: {error}"),
        }
        within(nodes[0].cells.wait(agent)).await.unwrap();
    }
    assert!(ended > 0, "no agent has ended before its move");
    shut_down(nodes).await;
}

/// The agent runs at the target, half of its memory is still at the source, and the stream breaks: the target gives its
/// copy up, and the source goes on with an agent that has done nothing since it was frozen.
#[tokio::test(flavor = "multi_thread")]
async fn a_post_copy_that_breaks_gives_the_agent_back() {
    let wanted: Arc<Mutex<Option<MoveSide>>> = Arc::default();
    let probe = {
        let wanted = Arc::clone(&wanted);
        MoveProbe(Arc::new(move |side, _, phase| {
            let mut wanted = wanted.lock().unwrap();
            if *wanted == Some(side) && *phase == MigrationPhase::PostCopy {
                *wanted = None;
                return ProbeAnswer::Drop;
            }
            ProbeAnswer::Continue
        }))
    };
    let nodes = mesh(2, |_, config| config.probe = Some(probe.clone())).await;
    let agent = nodes[0]
        .spawn(&programs::compute(1 << 15, 4), "worker")
        .await;
    nodes[0].lines(agent, 1).await;
    let options = MoveOptions {
        strategy: Some(MigrationStrategy::PostCopy),
        ..MoveOptions::default()
    };
    for (step, side) in [MoveSide::Source, MoveSide::Target].into_iter().enumerate() {
        *wanted.lock().unwrap() = Some(side);
        let error =
            refused(within(nodes[0].cells.migrate(agent, nodes[1].id(), options, None)).await);
        assert!(
            matches!(error, CellsError::RolledBack { .. }),
            "{side:?}: {error}"
        );
        assert_eq!(*wanted.lock().unwrap(), None, "{side:?} was not reached");
        let lines = nodes[0].stdout(agent).await.lines().count();
        nodes[0].lines(agent, lines + 1).await;
        let report = nodes[0].cells.inspect(agent).await.unwrap();
        assert_eq!(report.node, nodes[0].id());
        assert_eq!(report.epoch.0, 3 + 2 * step as u64);
        let from_target = nodes[1].cells.inspect(agent).await.unwrap();
        assert_eq!(from_target.node, nodes[0].id());
    }
    let report = within(nodes[0].cells.migrate(agent, nodes[1].id(), options, None))
        .await
        .unwrap();
    assert!(report.followed > 1_000, "{report:?}");
    nodes[0]
        .cells
        .send(agent, Bytes::from_static(b"end"))
        .await
        .unwrap();
    within(nodes[0].cells.wait(agent)).await.unwrap();
    let output = nodes[0].whole_stdout(agent).await;
    assert!(
        output == programs::computed(1 << 15, output.lines().count()),
        "the output differs"
    );
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_goes_down_during_moves_to_it_takes_no_agent_with_it() {
    let nodes = mesh(2, |_, config| config.move_timeout = Duration::from_secs(5)).await;
    let agent = nodes[0]
        .spawn(&programs::compute(1 << 15, 16), "worker")
        .await;
    nodes[0].lines(agent, 1).await;
    let (sender, mut progress) = tokio::sync::mpsc::unbounded_channel();
    let (cells, target) = (nodes[0].cells.clone(), nodes[1].id());
    let options = MoveOptions {
        strategy: Some(MigrationStrategy::PreCopy),
        ..MoveOptions::default()
    };
    let moving =
        tokio::spawn(async move { cells.migrate(agent, target, options, Some(sender)).await });
    within(async {
        while let Some(step) = progress.recv().await {
            if step.phase.starts_with("pre-copy") {
                return;
            }
        }
    })
    .await;
    nodes[1].mesh.shutdown().await;
    let error = refused(within(moving).await.unwrap());
    assert!(matches!(error, CellsError::RolledBack { .. }), "{error}");
    let lines = nodes[0].stdout(agent).await.lines().count();
    nodes[0].lines(agent, lines + 1).await;
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_target_refuses_and_the_agent_goes_on() {
    let nodes = mesh(2, |index, config| {
        config.agents_max = if index == 0 { 10 } else { 0 }
    })
    .await;
    let agent = nodes[0].spawn(&programs::echo(), "echo").await;
    let error = refused(
        within(
            nodes[0]
                .cells
                .migrate(agent, nodes[1].id(), MoveOptions::default(), None),
        )
        .await,
    );
    assert!(error.to_string().contains("refused"), "{error}");
    let reply = nodes[0]
        .cells
        .request(
            agent,
            Bytes::from_static(b"still here"),
            Duration::from_secs(30),
        )
        .await
        .unwrap();
    assert_eq!(&reply[..], b"still here");
    shut_down(nodes).await;
}

/// The module is known, the agent waits: what remains is the hand-over itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_agent_moves_and_hears_what_came_before_and_after() {
    let nodes = plain_mesh(2).await;
    let agent = nodes[0].spawn(&programs::echo(), "echo").await;
    nodes[1].until(agent, |_, _| true).await;
    for step in 0..4 {
        nodes[1]
            .cells
            .send(agent, Bytes::from(format!("{step}")))
            .await
            .unwrap();
        let target = nodes[(step + 1) % 2].id();
        within(
            nodes[0]
                .cells
                .migrate(agent, target, MoveOptions::default(), None),
        )
        .await
        .unwrap();
    }
    nodes[0]
        .cells
        .send(agent, Bytes::from_static(b"stop"))
        .await
        .unwrap();
    assert_eq!(nodes[0].whole_stdout(agent).await, "0\n1\n2\n3\nstop\n");
    shut_down(nodes).await;
}

/// Moves stand still when their agents are frozen, until the returned sender is dropped; the watch says that one does.
fn stuck_moves() -> (MoveProbe, watch::Receiver<bool>, mpsc::Sender<()>) {
    let (frozen, reached) = watch::channel(false);
    let (release, released) = mpsc::channel();
    let released = Mutex::new(released);
    let probe = MoveProbe(Arc::new(move |side, _, phase| {
        if side == MoveSide::Source && *phase == MigrationPhase::Transferring {
            frozen.send_replace(true);
            let _ = released.lock().unwrap().recv();
        }
        ProbeAnswer::Continue
    }));
    (probe, reached, release)
}

/// A move that is stuck costs its own agent, no other, and does not keep the node from stopping.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stop_loses_only_the_agent_that_a_move_holds() {
    let (probe, mut reached, release) = stuck_moves();
    let nodes = mesh(2, |_, config| config.probe = Some(probe.clone())).await;
    let program = programs::compute(1 << 12, 0);
    let (held, other) = (
        nodes[0].spawn(&program, "held").await,
        nodes[0].spawn(&program, "other").await,
    );
    nodes[0].lines(held, 1).await;
    nodes[0].lines(other, 1).await;
    let (cells, target) = (nodes[0].cells.clone(), nodes[1].id());
    let moving = tokio::spawn(async move {
        cells
            .migrate(held, target, MoveOptions::default(), None)
            .await
    });
    within(reached.wait_for(|reached| *reached)).await.unwrap();
    assert_eq!(within(nodes[0].cells.shutdown()).await, [held]);
    drop(release);
    within(moving).await.unwrap().unwrap();
    shut_down(nodes).await;
}

/// A stop waits for the move, which ends well: nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stop_lets_a_move_that_holds_its_agent_end() {
    let (probe, mut reached, release) = stuck_moves();
    let nodes = mesh(2, |_, config| config.probe = Some(probe.clone())).await;
    let program = programs::compute(1 << 12, 0);
    let (held, other) = (
        nodes[0].spawn(&program, "held").await,
        nodes[0].spawn(&program, "other").await,
    );
    nodes[0].lines(held, 1).await;
    let (cells, target) = (nodes[0].cells.clone(), nodes[1].id());
    let moving = tokio::spawn(async move {
        cells
            .migrate(held, target, MoveOptions::default(), None)
            .await
    });
    within(reached.wait_for(|reached| *reached)).await.unwrap();
    let cells = nodes[0].cells.clone();
    let stopping = tokio::spawn(async move { cells.shutdown().await });
    // The held one is waited for when the other is written.
    let agents = nodes[0].directory.path().join("cells/agents");
    let written = agents.join(other.to_string()).join("snapshot");
    within(async {
        while !written.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    drop(release);
    assert_eq!(within(stopping).await.unwrap(), []);
    within(moving).await.unwrap().unwrap();
    let there = nodes[1].cells.inspect(held).await.unwrap();
    assert_eq!(there.node, nodes[1].id());
    shut_down(nodes).await;
}

type Phases = Arc<Mutex<Vec<(MoveSide, MigrationPhase)>>>;

/// Three nodes and an agent that runs at the second one, whose source, the first, has died before it let go of it.
async fn left_by_its_source() -> (Vec<Node>, AgentId, Phases) {
    let phases = Phases::default();
    let (secured, mut is_secured) = watch::channel(false);
    let probe = {
        let phases = Arc::clone(&phases);
        MoveProbe(Arc::new(move |side, _, phase| {
            let mut phases = phases.lock().unwrap();
            let is_first = !phases.contains(&(side, phase.clone()));
            phases.push((side, phase.clone()));
            match (side, phase) {
                (MoveSide::Source, MigrationPhase::Securing) if is_first => ProbeAnswer::Kill,
                (MoveSide::Target, MigrationPhase::Securing) => {
                    secured.send_replace(true);
                    ProbeAnswer::Continue
                }
                _ => ProbeAnswer::Continue,
            }
        }))
    };
    let nodes = mesh(3, |_, config| config.probe = Some(probe.clone())).await;
    let agent = nodes[0]
        .spawn(&programs::compute(1 << 12, 0), "worker")
        .await;
    nodes[0].lines(agent, 1).await;
    let (cells, target) = (nodes[0].cells.clone(), nodes[1].id());
    let options = MoveOptions::default();
    let moving = async move { cells.migrate(agent, target, options, None).await };
    let secured = within(is_secured.wait_for(|is| *is));
    tokio::select! {
        _ = moving => panic!("the source is dead"),
        is_secured = secured => drop(is_secured.unwrap()),
    }
    (nodes, agent, phases)
}

const OVER: (MoveSide, MigrationPhase) = (MoveSide::Target, MigrationPhase::Complete);

/// The source dies when the agent runs at the target, which so does not hear that it has let go. If the agent went on at
/// once, and the target then died too, the source would be told that it was never there.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_goes_on_only_when_the_move_that_brought_it_is_over() {
    let (nodes, agent, phases) = left_by_its_source().await;
    let options = MoveOptions::default();
    within(nodes[1].cells.migrate(agent, nodes[2].id(), options, None))
        .await
        .unwrap();
    let seen = phases.lock().unwrap().clone();
    let over = seen.iter().position(|phase| *phase == OVER).unwrap();
    let begins = (MoveSide::Source, MigrationPhase::Planning);
    let begins = seen.iter().rposition(|phase| *phase == begins).unwrap();
    assert!(over < begins, "{seen:?}");
    shut_down(nodes).await;
}

/// Nor is it put to sleep before that, or refused to.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_sleeps_only_when_the_move_that_brought_it_is_over() {
    let (nodes, agent, phases) = left_by_its_source().await;
    within(nodes[1].cells.hibernate(agent)).await.unwrap();
    assert!(phases.lock().unwrap().contains(&OVER));
    shut_down(nodes).await;
}

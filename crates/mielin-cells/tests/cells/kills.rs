//! Targets that are processes of their own, and are killed in the middle of a move.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mielin_cells::{
    Cells, CellsConfig, CellsError, ErrorKind, MoveOptions, MoveProbe, MoveReport, MoveSide,
    ProbeAnswer,
};
use mielin_mesh_core::{
    AgentId, AgentState, MemberState, MigrationPhase, MigrationStrategy, NodeId,
};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::nodes::{Node, joined, plain_mesh, refused, rejoined, shut_down, within};
use crate::programs;

/// The table of the agents that move: 4 MiB, all of it written within a round, behind [`FILL`] MiB that are not.
const WORDS: u32 = 1 << 19;
const FILL: u32 = 8;

/// What the process of a target is told, by its environment.
const DIRECTORY: &str = "MIELIN_TEST_TARGET_DIRECTORY";
const ADDRESS: &str = "MIELIN_TEST_TARGET_ADDRESS";
const TOKEN: &str = "MIELIN_TEST_TARGET_TOKEN";
const NAME: &str = "MIELIN_TEST_TARGET_NAME";
const DIES_IN: &str = "MIELIN_TEST_TARGET_DIES_IN";

/// Not a test by itself: the tests below run this executable again, with only this in it, as the target of a move. It
/// kills its own process when the move comes to the phase that it was told.
#[tokio::test(flavor = "multi_thread")]
async fn the_process_of_a_target() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    let told = |name| std::env::var(name).unwrap();
    // Its parent holds the other end: without a parent it ends.
    let (parent, orphaned) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(parent);
    });
    let directory = Path::new(&directory);
    let address = told(ADDRESS).parse().unwrap();
    let own = directory.join("node");
    let mesh = if own.exists() {
        rejoined(&own, address).await
    } else {
        joined(&own, told(NAME), address, told(TOKEN).parse().unwrap()).await
    };
    let (wanted, agents) = (told(DIES_IN), directory.join("cells/agents"));
    let probe = {
        MoveProbe(Arc::new(move |side, agent, phase| {
            if side == MoveSide::Target && phase.to_string() == wanted {
                if *phase == MigrationPhase::Resuming {
                    has_run(&agents.join(agent.to_string()));
                }
                die();
            }
            ProbeAnswer::Continue
        }))
    };
    let config = CellsConfig {
        data_dir: Some(directory.join("cells")),
        probe: Some(probe),
        ..CellsConfig::default()
    };
    let _cells = Cells::start(config, mesh).await.unwrap();
    let _ = orphaned.await;
}

/// Waits until the copy of an agent that was just started here, whose files are these, has done something.
fn has_run(files: &Path) {
    let stdout = || std::fs::metadata(files.join("stdout")).map_or(0, |stdout| stdout.len());
    let before = stdout();
    while stdout() == before {
        std::thread::yield_now();
    }
}

/// A signal that cannot be caught: nothing is flushed, closed or said.
fn die() -> ! {
    let id = std::process::id().to_string();
    let _ = std::process::Command::new("kill")
        .args(["-KILL", &id])
        .status();
    loop {
        std::thread::park();
    }
}

/// A move to a process that dies.
struct Doomed {
    phase: &'static str,
    agent: AgentId,
    target: NodeId,
    moving: JoinHandle<Result<MoveReport, CellsError>>,
    /// Sends numbered messages until it is told to stop, and gives their count.
    sending: JoinHandle<Result<u64, CellsError>>,
    stop: tokio::sync::watch::Sender<bool>,
    directory: TempDir,
}

/// Runs a target and waits until both other nodes know it.
async fn target(nodes: &[Node], name: &str, directory: &Path, phase: &str) -> (Child, NodeId) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kills::the_process_of_a_target", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(ADDRESS, nodes[0].mesh.local().address.to_string())
        .env(TOKEN, nodes[0].token().to_string())
        .env(NAME, name)
        .env(DIES_IN, phase)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut id = None;
    for node in nodes {
        let mut events = node.mesh.subscribe();
        id = within(async {
            loop {
                let members = node.mesh.members();
                let found = members.iter().find(|member| {
                    member.identity.name.as_str() == name && member.state == MemberState::Alive
                });
                if let Some(member) = found {
                    return Some(member.identity.id);
                }
                let _ = tokio::time::timeout(Duration::from_millis(50), events.recv()).await;
            }
        })
        .await;
    }
    (child, id.unwrap())
}

/// Sends numbered messages, some forty in a second, until `stopped`, and then `stop`.
async fn send_numbers(
    sender: Cells,
    agent: AgentId,
    mut stopped: tokio::sync::watch::Receiver<bool>,
) -> Result<u64, CellsError> {
    let mut pace = tokio::time::interval(Duration::from_millis(25));
    let mut count = 0;
    while !*stopped.borrow_and_update() {
        let number = Bytes::from(count.to_string());
        match sender.send(agent, number).await {
            // On a slow machine the sender may lose patience while the agent is in doubt; the message stays on its way.
            Ok(_) | Err(CellsError::TimedOut { .. }) => count += 1,
            Err(error) => return Err(error),
        }
        pace.tick().await;
    }
    sender.send(agent, Bytes::from_static(b"stop")).await?;
    Ok(count)
}

/// Begins a move to a process of its own and sees that process die.
async fn doom(nodes: &[Node], strategy: MigrationStrategy, phase: &'static str) -> Doomed {
    let name = phase.replace(' ', "-");
    let directory = tempfile::tempdir().unwrap();
    let (mut child, target) = target(nodes, &name, directory.path(), phase).await;
    // Waiting for the process would close this, and the process would end by itself.
    let _lifeline = child.stdin.take();
    let agent = nodes[0].spawn(&programs::ledger(WORDS, FILL), &name).await;
    nodes[0].lines(agent, 1).await;
    nodes[1].until(agent, |_, _| true).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let sending = tokio::spawn(send_numbers(nodes[1].cells.clone(), agent, stopped));
    let cells = nodes[0].cells.clone();
    let options = MoveOptions {
        strategy: Some(strategy),
        ..MoveOptions::default()
    };
    let moving = tokio::spawn(async move { cells.migrate(agent, target, options, None).await });
    let status = within(child.wait()).await.unwrap();
    assert_eq!(status.signal(), Some(9), "{phase}: {status}");
    Doomed {
        phase,
        agent,
        target,
        moving,
        sending,
        stop,
        directory,
    }
}

/// Whether the agent runs at the target in this phase, and is not yet the target's own.
fn runs_in(phase: &str) -> bool {
    ["resuming", "post-copy", "securing"].contains(&phase)
}

/// The agent goes on at the source, can still move, and has missed nothing.
async fn goes_on(nodes: &[Node], doomed: Doomed, options: MoveOptions) {
    let (phase, agent) = (doomed.phase, doomed.agent);
    let error = refused(within(doomed.moving).await.unwrap());
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{phase}: {error}");
    match &error {
        CellsError::RolledBack { node, .. } => {
            assert_eq!(*node, doomed.target);
            assert!(
                error.to_string().ends_with("goes on at its source"),
                "{error}"
            );
        }
        // On a slow machine the asker may lose patience before the target is back.
        CellsError::InDoubt { .. } => assert!(runs_in(phase), "{phase}: {error}"),
        _ => panic!("{phase}: {error}"),
    }
    let lines = nodes[0].stdout(agent).await.lines().count();
    nodes[0].lines(agent, lines + 1).await;
    // The move may outlive the patience of whoever asked for it.
    let over =
        |state: &AgentState, _: NodeId| !matches!(state, AgentState::InDoubt | AgentState::Moving);
    nodes[0].until(agent, over).await;
    let report = nodes[0].cells.inspect(agent).await.unwrap();
    assert_eq!(report.node, nodes[0].id());
    // Before the hand-over nothing has changed; after it the next epoch belonged to the copy that is lost.
    let epoch = if runs_in(phase) { 3 } else { 1 };
    assert_eq!(
        (report.epoch.0, report.counters.moves),
        (epoch, 0),
        "{phase}"
    );

    within(nodes[0].cells.migrate(agent, nodes[1].id(), options, None))
        .await
        .unwrap();
    doomed.stop.send_replace(true);
    let count = within(doomed.sending).await.unwrap().unwrap();
    assert_eq!(
        within(nodes[0].cells.wait(agent)).await.unwrap().exit_code,
        7
    );
    let output = nodes[0].whole_stdout(agent).await;
    let (computed, heard): (Vec<&str>, Vec<&str>) =
        output.lines().partition(|line| line.len() == 16);
    let numbers: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    assert!(
        heard.split_last()
            == Some((
                &"stop",
                &numbers.iter().map(String::as_str).collect::<Vec<_>>()
            )),
        "{phase}: {count} messages were sent, and the agent heard {heard:?}"
    );
    assert!(
        computed.join("\n") + "\n" == programs::recorded(WORDS, computed.len()),
        "{phase}: the computation differs from an undisturbed one"
    );
}

/// The source has let go: the agent is lost with its only holder, and nobody runs it again. Its holder says so when it is
/// started again, although it was killed before it had written down that the source has let go.
async fn is_lost(nodes: &[Node], mut doomed: Doomed) {
    doomed.sending.abort();
    let report = within(&mut doomed.moving).await.unwrap().unwrap();
    assert_eq!(report.to, doomed.target);
    let (at_source, elsewhere) = tokio::join!(
        nodes[0].cells.inspect(doomed.agent),
        nodes[1].cells.inspect(doomed.agent)
    );
    for result in [at_source, elsewhere] {
        let error = refused(result);
        let node = match &error {
            CellsError::Gone(absence) => absence.node,
            CellsError::Unreachable { node, .. } => *node,
            _ => panic!("{error}"),
        };
        assert_eq!(node, doomed.target, "{error}");
    }
    let _again = restarted(nodes, &doomed).await;
    for node in nodes {
        let told = within(async {
            loop {
                match node.cells.send(doomed.agent, Bytes::new()).await {
                    Err(CellsError::Gone(_) | CellsError::OnItsWay { .. }) => {
                        tokio::task::yield_now().await;
                    }
                    told => break told,
                }
            }
        });
        let error = refused(told.await);
        assert!(matches!(error, CellsError::Ended(_)), "{error}");
        let end = within(node.cells.wait(doomed.agent)).await.unwrap();
        assert_eq!(end.exit_code, 129, "{:?}", end.failure);
        let listed = node.cells.agents().await.unwrap().agents;
        let listed = listed.iter().find(|agent| agent.agent == doomed.agent);
        assert_eq!(listed.map(|agent| agent.node), Some(doomed.target));
    }
}

/// What an agent did here before the target said so is not known to the target itself when it starts again: otherwise
/// it would report the end of an agent that goes on at the source.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_starts_again_claims_no_agent_that_it_had_not_said_to_run() {
    let nodes = plain_mesh(2).await;
    let strategy = MigrationStrategy::StopCopy;
    let doomed = doom(&nodes, strategy, "resuming").await;
    let _again = restarted(&nodes, &doomed).await;
    let options = MoveOptions {
        strategy: Some(strategy),
        ..MoveOptions::default()
    };
    goes_on(&nodes, doomed, options).await;
    shut_down(nodes).await;
}

/// The target of a move that was killed, running again.
async fn restarted(nodes: &[Node], doomed: &Doomed) -> Child {
    let name = doomed.phase.replace(' ', "-");
    let (again, id) = target(nodes, &name, doomed.directory.path(), "never").await;
    assert_eq!(id, doomed.target);
    again
}

/// Kills a target in each of these phases, of which the last is "complete"; it takes some seconds until a death is noticed, so the moves overlap.
async fn kill_in(strategy: MigrationStrategy, phases: &[&'static str]) {
    let nodes = plain_mesh(2).await;
    let mut doomed = Vec::new();
    for phase in phases {
        doomed.push(doom(&nodes, strategy, phase).await);
    }
    let options = MoveOptions {
        strategy: Some(strategy),
        ..MoveOptions::default()
    };
    let lost = doomed.pop().unwrap();
    assert_eq!(lost.phase, "complete");
    tokio::join!(is_lost(&nodes, lost), async {
        for doomed in doomed {
            // Whoever may run the agent must say that it does not.
            let again = match runs_in(doomed.phase) {
                true => Some(restarted(&nodes, &doomed).await),
                false => None,
            };
            goes_on(&nodes, doomed, options).await;
            drop(again);
        }
    });
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_killed_in_any_phase_of_pre_copy_takes_the_agent_only_if_it_owns_it() {
    // "pre-copy n": n - 1 rounds have arrived, and the target has not said so of the last.
    kill_in(
        MigrationStrategy::PreCopy,
        &[
            "preparing",
            "pre-copy 1",
            "pre-copy 2",
            "pre-copy 3",
            "transferring",
            "committing",
            "resuming",
            "securing",
            "complete",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_killed_in_any_phase_of_post_copy_takes_the_agent_only_if_it_owns_it() {
    kill_in(
        MigrationStrategy::PostCopy,
        &[
            "preparing",
            "committing",
            "post-copy",
            "securing",
            "complete",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_killed_in_any_phase_of_stop_copy_takes_the_agent_only_if_it_owns_it() {
    kill_in(
        MigrationStrategy::StopCopy,
        &[
            "preparing",
            "transferring",
            "committing",
            "resuming",
            "complete",
        ],
    )
    .await;
}

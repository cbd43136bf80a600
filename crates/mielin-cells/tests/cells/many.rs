//! More agents than keep their instance: nothing that is asked of one tells whether it has one.

use bytes::Bytes;
use mielin_cells::{Cells, CellsConfig, EXIT_TERMINATED, MoveOptions, SpawnRequest};
use mielin_mesh_core::{AgentId, AgentState, MigrationStrategy};
use mielin_wasm::EngineKind;
use tokio::task::JoinSet;

use crate::nodes::{Node, PATIENCE, mesh, shut_down, within};
use crate::programs;

/// Agents of the test for density, and those that keep their instance there.
const MANY: usize = 2000;
const LIVE: usize = 64;

const BOTH: [EngineKind; 2] = [EngineKind::Wasmtime, EngineKind::Wasmi];

async fn ask(node: &Node, agent: AgentId, words: impl Into<Bytes>) -> Bytes {
    let answer = node.cells.request(agent, words.into(), PATIENCE);
    within(answer).await.unwrap()
}

async fn state(node: &Node, agent: AgentId) -> AgentState {
    node.cells.inspect(agent).await.unwrap().state
}

/// So many nodes with an engine, on which so many agents keep their instance.
async fn nodes_of(count: usize, engine: EngineKind, live: usize) -> Vec<Node> {
    mesh(count, |_, config| {
        config.engine = engine;
        config.live_instances_max = live;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_beyond_those_that_keep_their_instance_answer_in_any_order() {
    for engine in BOTH {
        let nodes = nodes_of(1, engine, 3).await;
        let node = &nodes[0];
        let mut agents = Vec::new();
        for index in 0..12 {
            agents.push(
                node.spawn(&programs::echo(), &format!("echo-{index}"))
                    .await,
            );
        }
        for round in 0..3 {
            for (index, agent) in agents.iter().enumerate() {
                let words = format!("{round} of {index}");
                assert_eq!(ask(node, *agent, words.clone()).await, words);
            }
            agents.rotate_left(5);
            agents.swap(0, 7);
        }
        for agent in &agents {
            assert_eq!(node.stdout(*agent).await.lines().count(), 3);
            assert_eq!(&ask(node, *agent, "stop").await[..], b"stop");
            assert_eq!(within(node.cells.wait(*agent)).await.unwrap().exit_code, 0);
        }
        shut_down(nodes).await;
    }
}

/// A computation that waits after each line writes the same, whether or not it has an instance meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_computation_writes_the_same_with_and_without_rest() {
    const WORDS: u32 = 1 << 12;
    for engine in BOTH {
        for live in [0, 1, 1000] {
            let nodes = nodes_of(1, engine, live).await;
            let (node, mut agents) = (&nodes[0], Vec::new());
            for name in ["a", "b"] {
                agents.push(node.spawn(&programs::ledger(WORDS, 1), name).await);
            }
            for agent in &agents {
                node.lines(*agent, 6).await;
                let stop = node.cells.send(*agent, Bytes::from_static(b"stop"));
                stop.await.unwrap();
                assert_eq!(within(node.cells.wait(*agent)).await.unwrap().exit_code, 7);
                let output = node.whole_stdout(*agent).await;
                let output = output.strip_suffix("stop\n").unwrap();
                let expected = programs::recorded(WORDS, output.lines().count());
                assert!(output == expected, "{engine}, {live} live: {output}");
            }
            shut_down(nodes).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_asked_of_an_agent_at_rest_is_done() {
    for engine in BOTH {
        let nodes = nodes_of(2, engine, 0).await;
        let [here, there] = [&nodes[0], &nodes[1]];
        let agent = here.spawn(&programs::echo(), "echo").await;
        assert_eq!(&ask(there, agent, "one").await[..], b"one");
        here.until(agent, |state, _| *state == AgentState::Waiting)
            .await;
        let report = there.cells.inspect(agent).await.unwrap();
        assert_eq!(report.memory_bytes, 4 << 16);

        there.cells.pause(agent).await.unwrap();
        assert_eq!(state(here, agent).await, AgentState::Paused);
        here.cells.resume(agent).await.unwrap();
        let checkpoint = here.cells.checkpoint(agent).await.unwrap();
        let copy = there.cells.restore(checkpoint, Some("copy".to_owned()));
        assert_eq!(&ask(here, copy.await.unwrap(), "two").await[..], b"two");
        let clone = here.cells.duplicate(agent, there.id(), None);
        let clone = within(clone).await.unwrap();
        assert_eq!(&ask(here, clone, "three").await[..], b"three");

        here.cells.hibernate(agent).await.unwrap();
        assert_eq!(state(there, agent).await, AgentState::Hibernated);
        assert_eq!(&ask(there, agent, "four").await[..], b"four");
        for (index, strategy) in MigrationStrategy::ALL.into_iter().enumerate() {
            let target = [there, here][index % 2].id();
            let options = MoveOptions {
                strategy: Some(strategy),
                ..MoveOptions::default()
            };
            within(here.cells.migrate(agent, target, options, None))
                .await
                .unwrap();
            let words = format!("moved {index}");
            assert_eq!(ask(here, agent, words.clone()).await, words);
        }
        assert_eq!(
            here.stdout(agent).await.lines().count(),
            2 + MigrationStrategy::ALL.len()
        );

        let patient = here.spawn(&programs::patient(200), "patient").await;
        assert_eq!(within(here.cells.wait(patient)).await.unwrap().exit_code, 5);
        here.cells.terminate(agent).await.unwrap();
        let end = within(there.cells.wait(agent)).await.unwrap();
        assert_eq!(end.exit_code, EXIT_TERMINATED);
        shut_down(nodes).await;
    }
}

/// Agents that are at rest when their node stops go on when it starts again.
#[tokio::test(flavor = "multi_thread")]
async fn agents_at_rest_outlive_their_nodes_process() {
    let nodes = nodes_of(1, EngineKind::Wasmtime, 0).await;
    let node = nodes.into_iter().next().unwrap();
    let agent = node.spawn(&programs::echo(), "echo").await;
    assert_eq!(&ask(&node, agent, "one").await[..], b"one");
    assert_eq!(node.cells.shutdown().await, []);
    let config = CellsConfig {
        data_dir: Some(node.directory.path().join("cells")),
        live_instances_max: 0,
        ..CellsConfig::default()
    };
    let cells = Cells::start(config, node.mesh.clone()).await.unwrap();
    let node = Node { cells, ..node };
    assert_eq!(&ask(&node, agent, "two").await[..], b"two");
    assert_eq!(node.stdout(agent).await, "one\ntwo\n");
    shut_down(vec![node]).await;
}

/// What idle agents cost is bounded: neither a mapping nor a file each, and less memory than they have touched.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn many_idle_agents_have_neither_mappings_nor_files() {
    let lines = |path: &str| std::fs::read_to_string(path).unwrap().lines().count();
    let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let nodes = nodes_of(1, EngineKind::Wasmtime, LIVE).await;
    let (node, module) = (&nodes[0], Bytes::from(programs::echo()));
    let (mappings, open) = (lines("/proc/self/maps"), files());
    let mut spawning = JoinSet::new();
    let mut agents = Vec::new();
    for index in 0..MANY {
        let mut request = SpawnRequest::new(module.clone());
        request.name = Some(format!("idle-{index}"));
        let cells = node.cells.clone();
        spawning.spawn(async move { cells.spawn(request).await.unwrap() });
        while spawning.len() >= LIVE {
            agents.extend(spawning.join_next().await.unwrap());
        }
    }
    while let Some(agent) = spawning.join_next().await {
        agents.push(agent.unwrap());
    }
    for agent in &agents {
        assert_eq!(&ask(node, *agent, "here").await[..], b"here");
    }
    let waits = |state: &AgentState| *state == AgentState::Waiting;
    within(async {
        while !node
            .cells
            .residents()
            .iter()
            .all(|agent| waits(&agent.state))
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Other tests run beside this one, in the same process.
    let mappings = lines("/proc/self/maps").saturating_sub(mappings);
    let open = files().saturating_sub(open);
    assert!(mappings < MANY, "{mappings} mappings more");
    assert!(open < MANY / 2, "{open} files more");
    assert_eq!(node.cells.residents().len(), MANY);
    for agent in agents.iter().step_by(MANY / 20) {
        assert_eq!(node.stdout(*agent).await, "here\n");
    }
    // To store them all is another test's.
    for agent in agents {
        node.cells.terminate(agent).await.unwrap();
    }
    shut_down(nodes).await;
}

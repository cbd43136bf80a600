//! Bad input: a clear error and no damage.

use std::time::Duration;

use bytes::Bytes;
use mielin_cells::{CellsError, ErrorKind, LogKind, MoveOptions, SpawnRequest};
use mielin_mesh::{FrameLimit, stream_handler};
use mielin_mesh_core::{AgentId, AgentState, MigrationFrame, NodeId, codec};
use mielin_safepoint::InstrumentError;
use mielin_wasm::{EngineError, EngineKind, Limits};

use crate::nodes::{PATIENCE, mesh, plain_mesh, refused, shut_down, within};
use crate::programs;

#[tokio::test(flavor = "multi_thread")]
async fn bad_modules_are_refused() {
    let nodes = plain_mesh(1).await;
    let cells = &nodes[0].cells;
    let hello = programs::hello();
    let wat = |text: &str| wat::parse_str(text).unwrap();
    let bad = [
        b"garbage".to_vec(),
        Vec::new(),
        hello[..hello.len() / 2].to_vec(),
        wat("(module)"),
        wat(r#"(module (func (export "_start") (param i32)))"#),
    ];
    for module in bad {
        let error = refused(cells.spawn(SpawnRequest::new(module)).await);
        assert!(matches!(error, CellsError::BadModule(_)), "{error}");
        assert_eq!(error.kind(), ErrorKind::Refused);
    }
    let error = refused(cells.spawn(SpawnRequest::new(programs::deaf())).await);
    assert!(
        matches!(
            error,
            CellsError::BadModule(InstrumentError::AlreadyRewritten)
        ),
        "{error}"
    );
    let stranger =
        wat(r#"(module (import "env" "magic" (func)) (memory 1) (func (export "_start")))"#);
    let error = refused(cells.spawn(SpawnRequest::new(stranger)).await);
    assert!(
        matches!(&error, CellsError::Engine(EngineError::UnknownImport { name, .. }) if name == "magic"),
        "{error}"
    );
    assert!(cells.residents().is_empty());
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold() {
    let nodes = mesh(1, |_, config| {
        config.agents_max = 1;
        config.limits = Limits {
            module_bytes: 4096,
            input_bytes: 64,
            log_bytes: 40,
            memory_bytes: 1 << 20,
            ..Limits::default()
        };
    })
    .await;
    let cells = &nodes[0].cells;
    let mut large = SpawnRequest::new(vec![0; 5000]);
    assert!(matches!(
        refused(cells.spawn(large.clone()).await),
        CellsError::TooLarge {
            len: 5000,
            max: 4096,
            ..
        }
    ));
    large = SpawnRequest::new(programs::hello());
    large.stdin = Bytes::from(vec![0; 100]);
    assert!(matches!(
        refused(cells.spawn(large).await),
        CellsError::TooLarge { max: 64, .. }
    ));
    let mut zero = SpawnRequest::new(programs::hello());
    zero.args = vec!["a\0b".to_owned()];
    assert_eq!(refused(cells.spawn(zero).await).kind(), ErrorKind::Usage);
    let memory = SpawnRequest::new(programs::compute(1 << 18, 0));
    let error = refused(cells.spawn(memory).await);
    assert!(matches!(error, CellsError::Engine(_)), "{error}");
    let mut named = SpawnRequest::new(programs::hello());
    named.name = Some("No Name".to_owned());
    assert!(matches!(
        refused(cells.spawn(named).await),
        CellsError::BadName(_)
    ));
    // The log is cut at its limit; the program sees short writes and then no space.
    let agent = nodes[0].spawn(&programs::compute(1024, 0), "writer").await;
    let last = within(cells.read_log(agent, LogKind::Stdout, 39, PATIENCE))
        .await
        .unwrap();
    assert_eq!(last.bytes.len(), 1);
    assert!(matches!(
        refused(cells.spawn(SpawnRequest::new(programs::hello())).await),
        CellsError::Full { max: 1 }
    ));
    cells.send(agent, Bytes::from_static(b"end")).await.unwrap();
    within(cells.wait(agent)).await.unwrap();
    assert_eq!(
        nodes[0].stdout(agent).await,
        programs::computed(1024, 3)[..40]
    );
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_agents_and_nodes_and_senseless_moves() {
    let nodes = plain_mesh(2).await;
    let cells = &nodes[0].cells;
    let nobody = AgentId([7; 16]);
    assert_eq!(
        refused(cells.resolve("nobody").await).kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        refused(cells.resolve_node("nobody")).kind(),
        ErrorKind::NotFound
    );
    assert!(matches!(
        refused(cells.inspect(nobody).await),
        CellsError::AgentNotFound(_)
    ));
    assert!(matches!(
        refused(cells.send(nobody, Bytes::new()).await),
        CellsError::AgentNotFound(_)
    ));
    let (here, there, nowhere) = (nodes[0].id(), nodes[1].id(), NodeId([7; 32]));
    assert!(matches!(
        refused(
            cells
                .migrate(nobody, there, MoveOptions::default(), None)
                .await
        ),
        CellsError::AgentNotFound(_)
    ));
    let agent = nodes[0].spawn(&programs::spin(), "s").await;
    nodes[1].until(agent, |_, _| true).await;
    for node in &nodes {
        let migrate = |target| {
            node.cells
                .migrate(agent, target, MoveOptions::default(), None)
        };
        let error = refused(migrate(here).await);
        assert!(matches!(error, CellsError::SameNode { .. }), "{error}");
        let error = refused(migrate(nowhere).await);
        assert!(matches!(error, CellsError::NodeNotFound(_)), "{error}");
    }
    let huge = Bytes::from(vec![0; (16 << 20) + 1]);
    assert!(matches!(
        refused(cells.send(agent, huge).await),
        CellsError::TooLarge { .. }
    ));
    cells.terminate(agent).await.unwrap();
    within(cells.wait(agent)).await.unwrap();
    assert!(matches!(
        refused(
            cells
                .migrate(agent, there, MoveOptions::default(), None)
                .await
        ),
        CellsError::Ended(_)
    ));
    assert!(matches!(
        refused(cells.send(agent, Bytes::new()).await),
        CellsError::Ended(_)
    ));
    let echo = nodes[0].spawn(&programs::spin(), "deaf").await;
    let error = refused(
        cells
            .request(echo, Bytes::from_static(b"?"), Duration::from_millis(50))
            .await,
    );
    assert!(matches!(error, CellsError::TimedOut { .. }), "{error}");
    shut_down(nodes).await;
}

/// What an agent says of its own limits is a claim: they become this node's, and what it has must fit into them.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_arrives_gets_no_more_than_the_node_gives() {
    let small = Limits {
        memory_bytes: 1 << 20,
        table_elements: 100,
        message_bytes: 64,
        log_bytes: 2_000,
        input_bytes: 200,
        ..Limits::default()
    };
    let nodes = mesh(2, |index, config| {
        let boundless = Limits {
            memory_bytes: u64::MAX,
            table_elements: usize::MAX,
            message_bytes: usize::MAX,
            log_bytes: u64::MAX,
            input_bytes: usize::MAX,
            ..Limits::default()
        };
        config.limits = [boundless, small.clone()][index].clone();
    })
    .await;
    let (from, to) = (&nodes[0], &nodes[1]);
    let migrate = |agent| {
        within(
            from.cells
                .migrate(agent, to.id(), MoveOptions::default(), None),
        )
    };

    let mut echo = SpawnRequest::new(programs::echo());
    echo.stdin = Bytes::from(vec![b'.'; 100]);
    let mut budgeted = echo.clone();
    budgeted.grants = ["message".parse().unwrap()].into_iter().collect();
    budgeted.budget = "cpu=1h,log=64MiB,memory=256MiB".parse().unwrap();
    let agent = from.cells.spawn(budgeted).await.unwrap();
    migrate(agent).await.unwrap();
    let there = to.cells.inspect(agent).await.unwrap();
    assert_eq!(
        (there.node, there.memory_bytes_max, there.log_bytes_max),
        (to.id(), 1 << 20, 2_000)
    );
    // What it may use up in its life is as it was.
    let budget: Vec<String> = there.spending().into_iter().map(|part| part.part).collect();
    assert_eq!(budget, ["memory=256MiB", "cpu=1h", "log=64MiB"]);
    // It writes up to the limit and no further, and sends what a message here may be.
    for _ in 0..50 {
        let line = Bytes::from(vec![b'.'; 50]);
        within(to.cells.request(agent, line, PATIENCE))
            .await
            .unwrap();
    }
    let large = Bytes::from(vec![b'.'; 65]);
    let answer = to.cells.request(agent, large, Duration::from_millis(100));
    let error = refused(within(answer).await);
    assert!(matches!(error, CellsError::TimedOut { .. }), "{error}");
    assert_eq!(to.stdout(agent).await.len(), 2_000);

    let tables = r#"(module (memory (export "memory") 1) (table 101 funcref)
        (func (export "_start") (loop $again (br $again))))"#;
    let mut wordy = echo.clone();
    wordy.args = vec!["x".repeat(150)];
    let mut very_wordy = echo.clone();
    very_wordy.args = vec!["x".repeat(70_000)];
    let cases = [
        (
            SpawnRequest::new(programs::compute(1 << 17, 0)),
            1,
            "memory",
        ),
        (
            SpawnRequest::new(programs::compute(1 << 8, 0)),
            200,
            "the agent's log is",
        ),
        (
            SpawnRequest::new(wat::parse_str(tables).unwrap()),
            0,
            "table",
        ),
        (wordy, 0, "the agent's input is 259 bytes; at most 200"),
        (very_wordy, 0, "the agent's input is"),
    ];
    for (index, (mut request, lines, expected)) in cases.into_iter().enumerate() {
        request.name = Some(format!("large-{index}"));
        let agent = from.cells.spawn(request).await.unwrap();
        from.lines(agent, lines).await;
        if expected.contains("input") {
            // So that there is a log, which goes ahead of what is refused.
            let line = Bytes::from_static(b"line");
            within(from.cells.request(agent, line, PATIENCE))
                .await
                .unwrap();
        }
        let error = refused(migrate(agent).await);
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        // It goes on here, and nothing of it is left there.
        if lines > 0 {
            from.lines(agent, lines + 1).await;
        }
        assert!(!to.cells.residents().iter().any(|left| left.agent == agent));
        let home = to
            .directory
            .path()
            .join("cells/agents")
            .join(agent.to_string());
        // The target says no before it tidies up.
        within(async {
            while home.exists() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        from.cells.terminate(agent).await.unwrap();
    }
    shut_down(nodes).await;
}

/// What a target says last counts, also when it stops reading before it says it.
#[tokio::test(flavor = "multi_thread")]
async fn the_reason_for_which_a_target_breaks_off_is_told() {
    let nodes = plain_mesh(2).await;
    let (from, to) = (&nodes[0], &nodes[1]);
    // Frames are those of `moving::frames`, whose header for a message of the protocol has the number 1.
    const MOVES: u16 = 200;
    const CORE: u32 = 1;
    let deaf = stream_handler(|_, stream| async move {
        let (mut send, mut recv) = stream.split();
        recv.recv_frame(FrameLimit::payload(1 << 20)).await.unwrap();
        drop(recv);
        let accept = MigrationFrame::Accept {
            need_module: true,
            post_copy: false,
        };
        let failed = MigrationFrame::Failed {
            reason: "the sky is falling".to_owned(),
        };
        for frame in [accept, failed] {
            let header = codec::encode(&(CORE, frame));
            send.send_frame(&header, &[]).await.unwrap();
        }
        send.finish().unwrap();
        let _ = send.delivered().await;
    });
    to.mesh.serve_streams(MOVES, deaf);
    let mut request = SpawnRequest::new(programs::echo());
    // Far more than the transport takes before it is read.
    request.args = (0..64).map(|_| "x".repeat(1 << 17)).collect();
    let agent = from.cells.spawn(request).await.unwrap();
    let moving = from
        .cells
        .migrate(agent, to.id(), MoveOptions::default(), None);
    let error = refused(within(moving).await);
    assert!(error.to_string().contains("the sky is falling"), "{error}");
    let line = Bytes::from_static(b"still here");
    within(from.cells.request(agent, line, PATIENCE))
        .await
        .unwrap();
    shut_down(nodes).await;
}

/// Engines differ in what they take, and one that translated a function when it is first called would find out when the
/// agent has left its source.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_stays_whose_module_the_other_engine_does_not_take() {
    let nodes = mesh(2, |index, config| {
        config.engine = [EngineKind::Wasmtime, EngineKind::Wasmi][index];
    })
    .await;
    let module = programs::large_when_told();
    let request = SpawnRequest::new(module.clone());
    let error = refused(nodes[1].cells.spawn(request).await);
    assert!(
        matches!(error, CellsError::Engine(EngineError::Refused { .. })),
        "{error}"
    );
    let agent = nodes[0].spawn(&module, "large").await;
    nodes[0]
        .until(agent, |state, _| *state == AgentState::Waiting)
        .await;
    let moved = nodes[0]
        .cells
        .migrate(agent, nodes[1].id(), MoveOptions::default(), None);
    let error = refused(within(moved).await);
    assert!(
        error.to_string().contains("wasmi refuses the module"),
        "{error}"
    );
    let report = nodes[0].cells.inspect(agent).await.unwrap();
    assert_eq!((report.state, report.epoch.0), (AgentState::Waiting, 1));
    nodes[0]
        .cells
        .send(agent, Bytes::from_static(b"now"))
        .await
        .unwrap();
    assert_eq!(
        within(nodes[0].cells.wait(agent)).await.unwrap().exit_code,
        5
    );
    shut_down(nodes).await;
}

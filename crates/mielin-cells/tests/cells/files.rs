//! Agents with files: these go with them, while they are written and while they are open.

use bytes::Bytes;
use mielin_cells::{Cells, CellsConfig, MoveOptions};
use mielin_mesh_core::{AgentId, MigrationStrategy};
use mielin_wasm::EngineKind;

use crate::nodes::{Node, PATIENCE, mesh, shut_down, within};

/// The sample agent `notebook`, which keeps files open.
fn notebook() -> Vec<u8> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../agents/prebuilt/notebook.wasm"
    );
    std::fs::read(path).unwrap()
}

async fn ask(node: &Node, agent: AgentId, command: &str) -> String {
    let command = Bytes::copy_from_slice(command.as_bytes());
    let answer = node.cells.request(agent, command, PATIENCE).await.unwrap();
    String::from_utf8(answer.to_vec()).unwrap()
}

/// Two nodes of different engines.
async fn unlike_nodes() -> Vec<Node> {
    mesh(2, |index, config| {
        config.engine = [EngineKind::Wasmtime, EngineKind::Wasmi][index];
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn files_move_while_they_are_open_and_written() {
    let nodes = unlike_nodes().await;
    let grants = ["data:32MiB"];
    let agent = nodes[0].spawn_granted(&notebook(), "notes", &grants).await;
    assert_eq!(ask(&nodes[0], agent, "fill large 8192").await, "filled");
    assert_eq!(ask(&nodes[0], agent, "add open before").await, "7");
    assert_eq!(ask(&nodes[0], agent, "move open renamed").await, "moved");
    assert_eq!(ask(&nodes[0], agent, "add gone kept").await, "5");
    assert_eq!(ask(&nodes[0], agent, "remove gone").await, "removed");
    nodes[1].until(agent, |_, _| true).await;

    // Somebody has lines written all the time.
    let sender = nodes[1].cells.clone();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writing = tokio::spawn(async move {
        let mut count = 0;
        while !*stopped.borrow() {
            let line = Bytes::from(format!("add lines {count}"));
            sender.request(agent, line, PATIENCE).await.unwrap();
            count += 1;
        }
        count
    });
    let mut report = None;
    for step in 0..6 {
        let options = MoveOptions {
            strategy: Some([MigrationStrategy::StopCopy, MigrationStrategy::PreCopy][step / 2 % 2]),
            ..MoveOptions::default()
        };
        let target = nodes[(step + 1) % 2].id();
        let moved = within(nodes[0].cells.migrate(agent, target, options, None)).await;
        report = Some(moved.unwrap());
    }
    stop.send_replace(true);
    let count = writing.await.unwrap();
    assert!(count > 0 && report.is_some());

    let lines: String = (0..count).map(|line| format!("{line}\n")).collect();
    assert_eq!(ask(&nodes[1], agent, "read lines").await, lines);
    // What was opened under a name is still that file, under its new name and under none.
    assert_eq!(ask(&nodes[1], agent, "add open after").await, "13");
    assert_eq!(
        ask(&nodes[1], agent, "read renamed").await,
        "before\nafter\n"
    );
    assert_eq!(ask(&nodes[1], agent, "read gone").await, "kept\n");
    assert_eq!(ask(&nodes[1], agent, "list").await, "large lines renamed");
    let large = ask(&nodes[1], agent, "read large").await;
    let expected = (0..8192).flat_map(|part| [b'a' + (part % 26) as u8; 1024]);
    assert!(large.bytes().eq(expected));
    assert_eq!(ask(&nodes[0], agent, "stop").await, "bye");
    let ended = within(nodes[0].cells.wait(agent)).await.unwrap();
    assert_eq!(ended.exit_code, 0);
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_outlive_their_nodes_process() {
    let mut nodes = mesh(1, |_, _| {}).await;
    let node = nodes.remove(0);
    let agent = node.spawn_granted(&notebook(), "notes", &["data"]).await;
    assert_eq!(ask(&node, agent, "fill large 3000").await, "filled");
    assert_eq!(ask(&node, agent, "add open before").await, "7");
    assert_eq!(ask(&node, agent, "move open renamed").await, "moved");
    node.cells.shutdown().await;
    let config = CellsConfig {
        data_dir: Some(node.directory.path().join("cells")),
        engine: EngineKind::Wasmi,
        ..CellsConfig::default()
    };
    let cells = Cells::start(config, node.mesh.clone()).await.unwrap();
    let node = Node { cells, ..node };
    assert_eq!(ask(&node, agent, "add open after").await, "13");
    assert_eq!(ask(&node, agent, "read renamed").await, "before\nafter\n");
    assert_eq!(ask(&node, agent, "size large").await, "3072000");
    let report = node.cells.inspect(agent).await.unwrap();
    assert_eq!(report.grants.to_string(), "data:64MiB");
    shut_down(vec![node]).await;
}

/// An agent whose grant was left out does nothing on anybody's disk.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_grant_there_are_no_files() {
    let nodes = mesh(1, |_, _| {}).await;
    let agent = nodes[0].spawn(&notebook(), "notes").await;
    let ended = within(nodes[0].cells.wait(agent)).await.unwrap();
    assert_eq!(ended.exit_code, 1);
    shut_down(nodes).await;
}

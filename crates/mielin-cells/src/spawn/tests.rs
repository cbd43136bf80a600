#![allow(clippy::unwrap_used)]

use crate::checkpoint::{Naming, restore, take};
use crate::config::CellsConfig;
use crate::ledger::tests::Disk;
use crate::operations::terminate;
use crate::post::tests::{founded, until};

use super::*;

const WAITING: &str = r#"(module
    (import "mielin" "receive" (func $receive (param i32 i32 i64 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (drop (call $receive
            (i32.const 1024) (i32.const 64) (i64.const -1) (i32.const 16)))))"#;

fn called(name: &str) -> SpawnRequest {
    let mut request = SpawnRequest::new(wat::parse_str(WAITING).unwrap());
    request.name = Some(name.to_owned());
    request
}

/// Nobody would know of such an agent after a crash. What has happened all the same is written when there is room,
/// although nothing else is.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_new_only_where_that_can_be_written_down() {
    let [mesh, cells] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let disk = Disk::default();
    let config = CellsConfig {
        data_dir: Some(cells.path().to_path_buf()),
        ..CellsConfig::default()
    };
    let started = Node::start_with(config, founded(&mesh).await, disk.ledger(cells.path()));
    let node = started.await.unwrap();
    let ends = || {
        let entries = node.ledger.entries().unwrap().into_iter();
        let ends = entries.map(|(agent, entry)| (agent, entry.record.unwrap().unwrap().has_end()));
        ends.collect::<Vec<_>>()
    };
    let agent = spawn(&node, called("first")).await.unwrap();
    assert_eq!(ends(), [(agent, false)]);
    let cell = node.here(&agent).unwrap();
    let copy = take(&node, &cell).await.unwrap();

    disk.refuse(usize::MAX);
    let naming = Naming::Chosen("second".to_owned());
    for refused in [
        spawn(&node, called("second")).await,
        restore(&node, copy.clone(), naming).await,
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(error, CellsError::Ledger { .. }), "{error}");
    }
    terminate(&cell).await.unwrap();
    assert!(cell.end().is_some());
    let residents: Vec<_> = node.residents().into_iter().map(|one| one.agent).collect();
    assert_eq!(residents, [agent]);

    disk.refuse(0);
    until(|| ends() == [(agent, true)]).await;
    let second = spawn(&node, called("second")).await.unwrap();
    assert!(ends().contains(&(second, false)));
    node.shutdown().await;
    node.mesh.shutdown().await;
}

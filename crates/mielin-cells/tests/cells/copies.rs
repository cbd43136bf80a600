//! Copies of agents: checkpoints, and new agents that are made of them.

use bytes::Bytes;
use mielin_cells::{CellsError, CheckpointError, EXIT_TRAPPED, ErrorKind, MoveOptions};
use mielin_mesh_core::{AgentId, AgentState};
use mielin_safepoint::{InstrumentError, ModuleHash, Snapshot, SnapshotError, SnapshotLimits, abi};
use mielin_wasm::{EngineError, EngineKind, HostState, Limits};

use crate::budgets::{report, until};
use crate::nodes::{Node, PATIENCE, mesh, plain_mesh, refused, shut_down, within};
use crate::programs;

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
    let answer = within(node.cells.request(agent, command, PATIENCE)).await;
    String::from_utf8(answer.unwrap().to_vec()).unwrap()
}

/// A checkpoint with something in it changed, and its hash made right again.
pub(crate) fn changed(checkpoint: &[u8], change: impl FnOnce(&mut Snapshot)) -> Bytes {
    let limits = SnapshotLimits {
        host_bytes: 1 << 30,
        ..SnapshotLimits::default()
    };
    let mut snapshot = Snapshot::decode(checkpoint, &limits).unwrap();
    change(&mut snapshot);
    snapshot.encode().into()
}

/// In the middle of a computation, on the other engine, and on the other node than where it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_agent_goes_on_where_the_checkpoint_stood_and_so_does_the_original() {
    let nodes = mesh(2, |index, config| {
        config.engine = [EngineKind::Wasmtime, EngineKind::Wasmi][index];
    })
    .await;
    let agent = nodes[0]
        .spawn(&programs::compute(1 << 12, 1), "worker")
        .await;
    nodes[0].lines(agent, 3).await;
    nodes[1].until(agent, |_, _| true).await;
    let before = nodes[0].stdout(agent).await.lines().count();
    let checkpoint = within(nodes[1].cells.checkpoint(agent)).await.unwrap();
    // The original has its name, and nobody else gets it.
    let error = refused(nodes[1].cells.restore(checkpoint.clone(), None).await);
    assert!(
        matches!(&error, CellsError::NameTaken(name) if name == "worker"),
        "{error}"
    );
    let name = Some("again".to_owned());
    let copy = nodes[1].cells.restore(checkpoint, name).await.unwrap();
    assert_ne!(copy, agent);
    let report = nodes[1].cells.inspect(copy).await.unwrap();
    assert_eq!(
        (report.name.as_str(), report.node, report.epoch.0),
        ("again", nodes[1].id(), 1)
    );
    assert_eq!(report.engine, EngineKind::Wasmi);
    for agent in [agent, copy] {
        nodes[0].lines(agent, 2).await;
        nodes[0]
            .cells
            .send(agent, Bytes::from_static(b"end"))
            .await
            .unwrap();
        assert_eq!(
            within(nodes[0].cells.wait(agent)).await.unwrap().exit_code,
            7
        );
    }
    let whole = nodes[0].whole_stdout(agent).await;
    assert!(whole == programs::computed(1 << 12, whole.lines().count()));
    // The log is not copied: it begins with a line that came after the checkpoint.
    let rest = nodes[0].whole_stdout(copy).await;
    let first = rest.lines().next().unwrap();
    let reached = whole.lines().count() + rest.lines().count();
    let expected = programs::computed(1 << 12, reached);
    let at = expected.lines().position(|line| line == first).unwrap();
    assert!(at >= before, "line {at} was written before the checkpoint");
    assert!(
        expected
            .lines()
            .skip(at)
            .zip(rest.lines())
            .all(|(a, b)| a == b)
    );
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_has_the_files_and_an_address_and_messages_of_its_own() {
    let nodes = plain_mesh(1).await;
    let node = &nodes[0];
    let agent = node
        .spawn_granted(&notebook(), "notes", &["data:8MiB"])
        .await;
    assert_eq!(ask(node, agent, "add list milk").await, "5");
    // Messages that wait for the original are its alone.
    node.cells.pause(agent).await.unwrap();
    let waiting = Bytes::from_static(b"add list bread");
    node.cells.send(agent, waiting).await.unwrap();
    let checkpoint = within(node.cells.checkpoint(agent)).await.unwrap();
    assert_eq!(
        node.cells.inspect(agent).await.unwrap().state,
        AgentState::Paused
    );
    node.cells.resume(agent).await.unwrap();
    assert_eq!(ask(node, agent, "read list").await, "milk\nbread\n");
    node.cells.terminate(agent).await.unwrap();
    within(node.cells.wait(agent)).await.unwrap();
    // Its name is free, and it had not come to its end.
    let copy = node.cells.restore(checkpoint.clone(), None).await.unwrap();
    let report = node.cells.inspect(copy).await.unwrap();
    assert_eq!((report.name.as_str(), report.mailbox_count), ("notes", 0));
    assert_eq!(report.grants.to_string(), "data:8MiB");
    assert_eq!(ask(node, copy, "read list").await, "milk\n");
    // What it holds of itself says who it is now.
    let again = within(node.cells.checkpoint(copy)).await.unwrap();
    let host = |bytes: &Bytes| {
        let mut address = None;
        changed(bytes, |snapshot| {
            let of_program = snapshot.host.iter().filter(|s| s.name.starts_with("wasm."));
            let sections: Vec<_> = of_program.cloned().collect();
            address = Some(HostState::from_sections(&sections).unwrap().address);
        });
        address.unwrap()
    };
    assert_eq!((host(&checkpoint).0, host(&again).0), (agent.0, copy.0));
    shut_down(nodes).await;
}

/// Whether bytes are refused as they should be, and no agent is left behind.
async fn check(node: &Node, bytes: impl Into<Bytes>, expected: impl Fn(&CellsError) -> bool) {
    let name = Some("bad".to_owned());
    let error = refused(within(node.cells.restore(bytes.into(), name)).await);
    assert!(expected(&error), "{error:?}");
    assert_eq!(node.cells.residents().len(), 1, "{error}");
}

fn snapshot_error(wanted: impl Fn(&SnapshotError) -> bool) -> impl Fn(&CellsError) -> bool {
    move |error| matches!(error, CellsError::Checkpoint(CheckpointError::Snapshot(inner)) if wanted(inner))
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_checkpoints_are_refused_and_no_agent_is_left_behind() {
    let nodes = mesh(1, |_, config| {
        config.limits.memory_bytes = 1 << 20;
    })
    .await;
    let node = &nodes[0];
    let agent = node.spawn(&programs::echo(), "echo").await;
    assert_eq!(ask(node, agent, "hello").await, "hello");
    let good = within(node.cells.checkpoint(agent)).await.unwrap();

    let nothing = |error: &CellsError| {
        matches!(
            error,
            CellsError::Checkpoint(CheckpointError::NotACheckpoint)
        )
    };
    for bytes in [&b""[..], b"garbage", &good[1..]] {
        check(node, bytes.to_vec(), nothing).await;
    }
    for len in [9, 10, 60, 5_000, good.len() / 2, good.len() - 1] {
        let cut = snapshot_error(|error| *error == SnapshotError::Truncated);
        check(node, good.slice(..len), cut).await;
    }
    for at in [12, 30, 44, good.len() / 2, good.len() - 1] {
        let mut flipped = good.to_vec();
        flipped[at] ^= 1;
        check(
            node,
            flipped,
            snapshot_error(|error| *error == SnapshotError::Hash),
        )
        .await;
    }
    let mut newer = good.to_vec();
    newer[8] += 1;
    let version = snapshot_error(|error| matches!(error, SnapshotError::Version { .. }));
    check(node, newer, version).await;
    let mut claims = good.to_vec();
    claims[52..56].fill(0xff);
    let end = claims.len() - 32;
    let hash = ModuleHash::of(&claims[..end]).0;
    claims[end..].copy_from_slice(&hash);
    check(
        node,
        claims,
        snapshot_error(|error| *error == SnapshotError::Truncated),
    )
    .await;

    let other = changed(&good, |snapshot| snapshot.module = ModuleHash([7; 32]));
    check(node, other, |error| {
        matches!(error, CellsError::OtherRewriter { .. })
    })
    .await;
    let large = changed(&good, |snapshot| snapshot.memory_bytes = 2 << 20);
    check(
        node,
        large,
        snapshot_error(
            |error| matches!(error, SnapshotError::Limit { limit, .. } if *limit == 1 << 20),
        ),
    )
    .await;
    let small = changed(&good, |snapshot| {
        snapshot.memory_bytes = 65536;
        snapshot.pages.retain(|page| page.index < 16);
    });
    check(node, small, |error| {
        matches!(
            error,
            CellsError::Checkpoint(CheckpointError::Unfit(EngineError::Execution { .. }))
        )
    })
    .await;
    let globals = changed(&good, |snapshot| {
        snapshot.globals.push(mielin_safepoint::GlobalValue::I32(1))
    });
    check(node, globals, |error| {
        matches!(
            error,
            CellsError::Checkpoint(CheckpointError::Unfit(EngineError::Execution { .. }))
        )
    })
    .await;
    let frames = changed(&good, |snapshot| {
        snapshot.frames = vec![0; (abi::FRAMES_PAGES * 65536) as usize]
    });
    check(
        node,
        frames,
        snapshot_error(|error| {
            matches!(
                error,
                SnapshotError::Limit {
                    what: "bytes of frames",
                    ..
                }
            )
        }),
    )
    .await;
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_with_foreign_parts_are_refused() {
    let nodes = plain_mesh(1).await;
    let node = &nodes[0];
    let agent = node.spawn(&programs::echo(), "echo").await;
    assert_eq!(ask(node, agent, "hello").await, "hello");
    let good = within(node.cells.checkpoint(agent)).await.unwrap();
    let without = changed(&good, |snapshot| {
        snapshot.host.retain(|s| s.name != "cells:module")
    });
    check(node, without, |error| {
        matches!(
            error,
            CellsError::Checkpoint(CheckpointError::Section("cells:module"))
        )
    })
    .await;
    for section in ["cells:about", "cells:module"] {
        let other = changed(&good, |snapshot| {
            let found = snapshot.host.iter_mut().find(|s| s.name == section);
            found.unwrap().version = 9;
        });
        check(node, other, |error| {
            matches!(
                error,
                CellsError::Checkpoint(CheckpointError::Version { found: 9, .. })
            )
        })
        .await;
    }
    let about = changed(&good, |snapshot| {
        let found = snapshot.host.iter_mut().find(|s| s.name == "cells:about");
        found.unwrap().bytes = vec![0xff; 20];
    });
    check(node, about, |error| {
        matches!(
            error,
            CellsError::Checkpoint(CheckpointError::Malformed { .. })
        )
    })
    .await;
    let named = changed(&good, |snapshot| {
        let found = snapshot.host.iter_mut().find(|s| s.name == "cells:about");
        let bytes = &mut found.unwrap().bytes;
        let name = bytes.windows(4).position(|window| window == b"echo");
        bytes[name.unwrap()] = b'/';
    });
    check(node, named, |error| {
        matches!(error, CellsError::Checkpoint(CheckpointError::Name(name)) if name == "/cho")
            && error.kind() == ErrorKind::Refused
    })
    .await;
    let host = changed(&good, |snapshot| {
        snapshot.host.retain(|s| s.name != "wasm.run")
    });
    check(node, host, |error| {
        matches!(
            error,
            CellsError::Checkpoint(CheckpointError::Unfit(EngineError::State(_)))
        )
    })
    .await;
    // A program that may do more than the agent.
    let granted = changed(&good, |snapshot| {
        let of_program = |s: &mielin_safepoint::HostSection| s.name.starts_with("wasm.");
        let sections: Vec<_> = snapshot
            .host
            .iter()
            .filter(|s| of_program(s))
            .cloned()
            .collect();
        let mut state = HostState::from_sections(&sections).unwrap();
        state.grants = ["clock".parse().unwrap()].into_iter().collect();
        snapshot.host.retain(|s| !of_program(s));
        snapshot.host.extend(state.to_sections());
    });
    check(node, granted, |error| {
        matches!(error, CellsError::Checkpoint(CheckpointError::Grants))
    })
    .await;
    let module = |hash: ModuleHash, bytes: &[u8]| {
        changed(&good, |snapshot| {
            snapshot.module = hash;
            let found = snapshot.host.iter_mut().find(|s| s.name == "cells:module");
            found.unwrap().bytes = bytes.to_vec();
        })
    };
    // A module that says that it comes to safepoints, and does not.
    let deaf = programs::deaf();
    check(node, module(ModuleHash::of(&deaf), &deaf), |error| {
        matches!(
            error,
            CellsError::BadModule(InstrumentError::AlreadyRewritten)
        )
    })
    .await;
    // Another program than the one whose state this is, and one that does not become what the state is of.
    let plain = programs::compute(1 << 18, 0);
    let other = mielin_safepoint::instrument(&plain).unwrap();
    check(node, module(other.hash(), &plain), |error| {
        matches!(error, CellsError::Checkpoint(CheckpointError::Unfit(_)))
    })
    .await;
    check(
        node,
        module(ModuleHash([7; 32]), &plain),
        |error| matches!(error, CellsError::OtherRewriter { found, .. } if *found == other.hash()),
    )
    .await;
    shut_down(nodes).await;
}

/// The stack is read by ordinary code of the sandbox: a hostile one harms nobody but its own program.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_frames_concern_the_copy_alone() {
    let nodes = plain_mesh(1).await;
    let node = &nodes[0];
    let agent = node.spawn(&programs::echo(), "echo").await;
    assert_eq!(ask(node, agent, "hello").await, "hello");
    let worker = node.spawn(&programs::compute(1 << 10, 1), "worker").await;
    node.lines(worker, 1).await;
    let spin = node.spawn(&programs::spin(), "spin").await;
    let mut trapped = 0;
    for original in [agent, worker, spin] {
        within(node.cells.pause(original)).await.unwrap();
        let good = within(node.cells.checkpoint(original)).await.unwrap();
        let used = report(node, original).await.counters.cpu_ns;
        for fill in [0, 1, 2, 3, 0x10, 0x7f, 0x80, 0xff] {
            let hostile = changed(&good, |snapshot| snapshot.frames.fill(fill));
            let name = Some(format!("hostile-{original}-{fill}"));
            let copy = node.cells.restore(hostile, name).await.unwrap();
            // It traps, or does whatever it does, and can be ended.
            until(node, copy, |report| {
                report.counters.cpu_ns > used || report.state.is_final()
            })
            .await;
            let asked = node.cells.terminate(copy).await;
            assert!(
                matches!(asked, Ok(()) | Err(CellsError::Ended(_))),
                "{asked:?}"
            );
            let end = within(node.cells.wait(copy)).await.unwrap();
            trapped += u32::from(end.exit_code == EXIT_TRAPPED);
        }
    }
    assert!(trapped > 0, "none of them was nonsense");
    within(node.cells.resume(agent)).await.unwrap();
    assert_eq!(ask(node, agent, "still here").await, "still here");
    shut_down(nodes).await;
}

/// Limits are the smaller ones of the checkpoint's and the node's.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_grants_a_copy_no_more_than_a_new_agent() {
    let nodes = mesh(2, |index, config| {
        let module_bytes = [64 << 20, 1_600][index];
        let log_bytes = [64 << 20, 40][index];
        config.limits = Limits {
            module_bytes,
            log_bytes,
            ..Limits::default()
        };
    })
    .await;
    let agent = nodes[0].spawn(&programs::echo(), "echo").await;
    let checkpoint = within(nodes[0].cells.checkpoint(agent)).await.unwrap();
    let name = Some("copy".to_owned());
    let error = refused(nodes[1].cells.restore(checkpoint, name.clone()).await);
    assert!(
        matches!(error, CellsError::TooLarge { max: 1_600, .. }),
        "{error}"
    );
    let tiny = nodes[0].spawn(&programs::spin(), "spin").await;
    let checkpoint = within(nodes[0].cells.checkpoint(tiny)).await.unwrap();
    let copy = nodes[1].cells.restore(checkpoint, name).await.unwrap();
    assert_eq!(
        nodes[1].cells.inspect(copy).await.unwrap().log_bytes_max,
        40
    );
    // One that has ended cannot be copied, one that moves neither.
    nodes[0].cells.terminate(tiny).await.unwrap();
    within(nodes[0].cells.wait(tiny)).await.unwrap();
    let error = refused(nodes[0].cells.checkpoint(tiny).await);
    assert!(matches!(error, CellsError::Ended(_)), "{error}");
    let moved = nodes[0]
        .cells
        .migrate(agent, nodes[1].id(), MoveOptions::default(), None);
    let error = refused(within(moved).await);
    assert!(matches!(error, CellsError::RolledBack { .. }), "{error}");
    shut_down(nodes).await;
}

/// From each of three nodes, of an agent on one of them to each: the one that has it, the one that asks, and another.
#[tokio::test(flavor = "multi_thread")]
async fn a_clone_goes_on_beside_the_original_on_whichever_node() {
    let nodes = mesh(3, |index, config| {
        config.engine = [
            EngineKind::Wasmtime,
            EngineKind::Wasmi,
            EngineKind::Wasmtime,
        ][index];
    })
    .await;
    // 9 MiB, so that it crosses in many pieces.
    let agent = nodes[0]
        .spawn(&programs::ledger(1 << 12, 9), "worker")
        .await;
    nodes[0].lines(agent, 1).await;
    for node in &nodes {
        node.until(agent, |_, _| true).await;
    }
    let mut copies = Vec::new();
    for target in &nodes {
        let made = nodes[1].cells.duplicate(agent, target.id(), None);
        let copy = within(made).await.unwrap();
        let report = target.cells.inspect(copy).await.unwrap();
        assert_eq!((report.node, report.epoch.0), (target.id(), 1));
        assert!(report.name.starts_with("worker-"), "{}", report.name);
        copies.push(copy);
    }
    for agent in [&[agent][..], &copies].concat() {
        nodes[2].lines(agent, 1).await;
        nodes[2]
            .cells
            .send(agent, Bytes::from_static(b"stop"))
            .await
            .unwrap();
        assert_eq!(
            within(nodes[2].cells.wait(agent)).await.unwrap().exit_code,
            7
        );
        let output = nodes[2].whole_stdout(agent).await;
        let computed = output.strip_suffix("stop\n").unwrap();
        assert!(
            programs::recorded(1 << 12, 5_000).contains(computed),
            "it is not a part of the computation"
        );
    }
    let error = refused(nodes[1].cells.duplicate(agent, nodes[2].id(), None).await);
    assert!(matches!(error, CellsError::Ended(_)), "{error}");
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_is_refused_by_the_node_that_it_is_for() {
    let nodes = mesh(2, |index, config| config.agents_max = [8, 1][index]).await;
    let agent = nodes[0].spawn(&programs::echo(), "echo").await;
    let there = nodes[1].id();
    let named = |name: &str| {
        nodes[0]
            .cells
            .duplicate(agent, there, Some(name.to_owned()))
    };
    assert!(matches!(
        refused(named("no name").await),
        CellsError::BadName(_)
    ));
    assert!(matches!(
        refused(named("echo").await),
        CellsError::NameTaken(_)
    ));
    let nowhere = nodes[0]
        .cells
        .duplicate(agent, mielin_mesh_core::NodeId([7; 32]), None);
    assert!(matches!(
        refused(nowhere.await),
        CellsError::NodeNotFound(_)
    ));
    let copy = within(named("copy")).await.unwrap();
    assert_eq!(ask(&nodes[0], copy, "hello").await, "hello");
    let error = refused(within(named("another")).await);
    assert!(
        error.to_string().contains("already holds 1 agents"),
        "{error}"
    );
    assert_eq!(ask(&nodes[1], agent, "still here").await, "still here");
    shut_down(nodes).await;
}

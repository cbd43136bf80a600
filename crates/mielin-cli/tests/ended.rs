//! What is left of agents when they have ended: after restarts, after a kill, and until somebody removes it.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, TableDefinition};
use serde_json::Value;
use support::{Node, sample, until};

/// Founds a node whose directory outlives it.
fn found(data: &Path) -> Node {
    Node::run(data, &["mesh", "start", "--bind", "127.0.0.1:0"])
}

fn again(data: &Path) -> Node {
    Node::run(data, &["daemon", "--bind", "127.0.0.1:0"])
}

fn kill(mut node: Node) {
    node.signal("-KILL");
    node.ended();
}

fn directory(data: &Path, agent: &str) -> PathBuf {
    data.join("agents").join(agent)
}

const RECORDS: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("records");

/// The database of what the node knows of its agents.
fn ledger(data: &Path) -> PathBuf {
    data.join("ledger.redb")
}

fn key(agent: &str) -> [u8; 16] {
    u128::from_str_radix(agent, 16).unwrap().to_be_bytes()
}

/// Whether there is a record of the agent. The node may run: a copy of the file is looked at, which may be in the middle
/// of a change.
fn is_recorded(data: &Path, agent: &str) -> bool {
    let copy = data.with_extension("copy");
    fs::copy(ledger(data), &copy).unwrap();
    let read = || -> Result<bool, redb::Error> {
        let database = Database::open(&copy)?;
        let records = database.begin_read()?.open_table(RECORDS)?;
        Ok(records.get(key(agent))?.is_some())
    };
    read().unwrap_or(false)
}

/// A program as a file.
fn program(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
    path.display().to_string()
}

/// Reads the clock without being allowed to, says so on both streams, and traps.
const DENIED: &str = r#"(module
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "said\n")
  (func (export "_start")
    (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 0)))
    (i32.store (i32.const 16) (i32.const 64))
    (i32.store (i32.const 20) (i32.const 5))
    (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 32)))
    (drop (call $write (i32.const 2) (i32.const 16) (i32.const 1) (i32.const 32)))
    unreachable))"#;

/// Everything that anybody can ask about an ended agent.
fn seen(node: &Node, agent: &str) -> (Value, Vec<u8>, Vec<u8>, Vec<u8>) {
    let mut details = node.json(&["agent", "inspect", agent]);
    // The member's name is news of the mesh.
    details.as_object_mut().unwrap().remove("node_name");
    (
        details,
        node.mielin(&["agent", "wait", agent]).ok(),
        node.mielin(&["agent", "logs", agent]).ok(),
        node.mielin(&["agent", "logs", "-f", "--stderr", agent])
            .ok(),
    )
}

#[test]
fn ended_agents_are_found_after_a_kill_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = found(&data);
    let hello = node.spawn(&[&sample("hello.wasm"), "--name", "greeter", "--", "one"]);
    let denied = program(dir.path(), "denied.wasm", DENIED);
    node.spawn(&[&denied, "--name", "denied"]);
    node.spawn(&[&sample("counter.wasm"), "--name", "counter"]);
    node.mielin(&["agent", "terminate", "counter"]).ok();
    let names = ["greeter", "denied", "counter"];
    for name in names {
        node.json(&["agent", "wait", name]);
    }
    let before = names.map(|name| seen(&node, name));
    assert_eq!(before[0].0["state"], "ended");
    assert_eq!(before[1].0["state"], "failed");
    assert_eq!(before[1].0["denied"], 1);
    assert_eq!(before[1].0["host_log"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&before[1].2[..], &before[1].3[..]),
        (&b"said\n"[..], &b"said\n"[..])
    );
    assert_eq!(before[2].1, b"137 (terminated)\n");
    kill(node);

    let node = again(&data);
    assert_eq!(names.map(|name| seen(&node, name)), before, "after a kill");
    let list = node.json(&["agent", "list"]);
    assert_eq!(list["agents"].as_array().unwrap().len(), 3);
    assert_eq!(node.mielin(&["agent", "send", "greeter", "x"]).code(), 3);
    assert_eq!(node.mielin(&["agent", "terminate", &hello]).code(), 3);
    // An ended agent gives its name free.
    node.spawn(&[&sample("hello.wasm"), "--name", "greeter"]);
    node.json(&["agent", "wait", "greeter"]);
    node.mielin(&["agent", "remove", &hello]).ok();
    node.stop();
    let node = again(&data);
    assert_eq!(seen(&node, "denied"), before[1], "after a clean stop");
    assert_ne!(node.json(&["agent", "inspect", "greeter"])["agent"], *hello);
    assert_eq!(node.mielin(&["agent", "logs", &hello]).code(), 4);
}

#[test]
fn what_a_killed_node_lost_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = found(&data);
    let agent = node.spawn(&[&sample("digest.wasm"), "--name", "digest", "--", "6000000"]);
    until("the record and the log", || {
        let log = node.mielin(&["agent", "logs", "--stderr", "digest"]).ok();
        (is_recorded(&data, &agent) && log.ends_with(b"\n")).then_some(())
    });
    // As an agent leaves them that was on its way here.
    let half = directory(&data, &"ab".repeat(16));
    fs::create_dir(&half).unwrap();
    fs::write(half.join("stdout"), "half").unwrap();
    kill(node);

    for _ in 0..2 {
        let node = again(&data);
        let details = node.json(&["agent", "inspect", "digest"]);
        assert_eq!(details["state"], "failed");
        let wait = String::from_utf8(node.mielin(&["agent", "wait", "digest"]).ok()).unwrap();
        assert!(wait.starts_with("129 (lost"), "{wait}");
        let lines = details["host_log"].as_array().unwrap();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            !node
                .mielin(&["agent", "logs", "--stderr", "digest"])
                .ok()
                .is_empty()
        );
        assert!(!half.exists());
        kill(node);
    }
    let node = again(&data);
    node.mielin(&["agent", "remove", "digest"]).ok();
    assert!(!directory(&data, &agent).exists());
}

#[test]
fn removing_works_from_every_node_and_only_after_the_end() {
    let core = Node::found("core");
    let edge = core.join("edge", "edge");
    core.sees(2);
    edge.sees(2);
    let agent = edge.spawn(&[&sample("digest.wasm"), "--name", "digest", "--", "6000000"]);
    for node in [&edge, &core] {
        let refused = node.mielin(&["agent", "remove", "digest", "-o", "json"]);
        assert_eq!(refused.code(), 3, "{}", refused.stderr());
        let error: Value = serde_json::from_str(&refused.stderr()).unwrap();
        assert_eq!(error["error"]["code"], "refused");
        let hint = error["error"]["hint"].as_str().unwrap();
        assert!(hint.contains("agent terminate"), "{hint}");
    }
    // What it writes makes its directory.
    until("a line in its log", || {
        directory(&edge.dir, &agent).exists().then_some(())
    });
    // Right after one another, as a script does it.
    core.mielin(&["agent", "terminate", "digest"]).ok();
    core.mielin(&["agent", "remove", "digest"]).ok();
    assert!(!directory(&edge.dir, &agent).exists());
    for node in [&edge, &core] {
        until("the news of the removal", || {
            let list = node.json(&["agent", "list"]);
            list["agents"].as_array().unwrap().is_empty().then_some(())
        });
        for command in ["logs", "wait", "remove", "inspect"] {
            let gone = node.mielin(&["agent", command, &agent]);
            assert_eq!(gone.code(), 4, "{command}: {}", gone.stderr());
        }
    }
}

#[test]
fn an_agent_that_moves_leaves_no_files_and_takes_its_logs_along() {
    let core = Node::found("core");
    let edge = core.join("edge", "edge");
    core.sees(2);
    edge.sees(2);
    let agent = edge.spawn(&[&sample("digest.wasm"), "--name", "digest", "--", "6000000"]);
    let log = |node: &Node| node.mielin(&["agent", "logs", "--stderr", "digest"]).ok();
    let homes = [&edge, &core];
    let mut written = until("the first line", || {
        Some(log(&edge)).filter(|log| !log.is_empty())
    });
    for (from, to) in [(0, 1), (1, 0), (0, 1)] {
        homes[from].json(&["agent", "migrate", "digest", homes[to].id()]);
        assert!(!directory(&homes[from].dir, &agent).exists());
        for home in homes {
            let more = log(home);
            assert!(more.starts_with(&written), "from its first byte on");
            written = more;
        }
    }
    edge.mielin(&["agent", "terminate", "digest"]).ok();
    edge.mielin(&["agent", "remove", "digest"]).ok();
    for home in homes {
        assert_eq!(fs::read_dir(home.dir.join("agents")).unwrap().count(), 0);
    }
}

#[test]
fn records_that_cannot_be_read_stop_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = found(&data);
    let spoil: [fn(Vec<u8>) -> Vec<u8>; 4] = [
        |_| Vec::new(),
        |bytes| bytes[..bytes.len() / 2].to_vec(),
        |_| vec![0xff; 8 << 20],
        |mut bytes| {
            bytes[40] ^= 1;
            bytes
        },
    ];
    let agents: Vec<String> = (0..=spoil.len())
        .map(|_| {
            let agent = node.spawn(&[&sample("hello.wasm")]);
            node.json(&["agent", "wait", &agent]);
            agent
        })
        .collect();
    node.stop();
    let change = Database::open(ledger(&data))
        .unwrap()
        .begin_write()
        .unwrap();
    {
        let mut records = change.open_table(RECORDS).unwrap();
        for (agent, spoil) in agents.iter().zip(spoil) {
            let record = records.remove(key(agent)).unwrap();
            let record = spoil(record.unwrap().value().to_vec());
            records.insert(key(agent), &record[..]).unwrap();
        }
    }
    change.commit().unwrap();
    fs::create_dir(directory(&data, "not-an-id")).unwrap();
    fs::write(directory(&data, &"cd".repeat(16)), "a file").unwrap();
    let node = again(&data);
    let list = node.json(&["agent", "list"]);
    assert_eq!(list["agents"].as_array().unwrap().len(), 1);
    assert_eq!(node.json(&["agent", "wait", &agents[4]])["exit_code"], 0);
    for agent in &agents[..4] {
        assert!(is_recorded(&data, agent), "it is left alone");
    }
    node.spawn(&[&sample("hello.wasm")]);
}

#[test]
fn a_log_that_is_cut_off_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::found("alone");
    // 65 times one mebibyte.
    let flood = program(
        dir.path(),
        "flood.wasm",
        r#"(module
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 17)
          (func (export "_start") (local $left i32)
            (local.set $left (i32.const 65))
            (i32.store (i32.const 0) (i32.const 65536))
            (i32.store (i32.const 4) (i32.const 1048576))
            (loop $again
              (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))
              (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))"#,
    );
    node.spawn(&[&flood, "--name", "flood"]);
    assert_eq!(node.json(&["agent", "wait", "flood"])["exit_code"], 0);
    let details = node.json(&["agent", "inspect", "flood"]);
    let lines = details["host_log"].as_array().unwrap();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0]["text"]
            .as_str()
            .unwrap()
            .contains("stdout is full")
    );
    let logs = node.mielin(&["agent", "logs", "flood"]);
    assert!(
        logs.stderr().contains("the log is full"),
        "{}",
        logs.stderr()
    );
    assert_eq!(logs.ok().len(), 64 << 20);
    let other = node.mielin(&["agent", "logs", "--stderr", "flood"]);
    assert_eq!(other.stderr(), "");
}

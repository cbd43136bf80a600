//! Daemons that are killed while an agent moves to them.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use support::{DEADLINE, Node, mielin, sample, until};

/// Where in a move, whose length depends on the machine, the kills fall.
const SEED: u64 = 0x6d69_656c_696e_0002;

/// The next of a row of numbers (xorshift of 64 bits, Marsaglia 2003).
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Moves an agent to a node, and kills the node after `moment` or when the move is over.
fn kill_during_move(source: &Node, agent: &str, target: &mut Node, moment: Duration) -> Output {
    let moving = mielin()
        .arg("--data-dir")
        .arg(&source.dir)
        .args(["agent", "migrate", agent, target.id()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (sender, over) = mpsc::channel();
    std::thread::spawn(move || sender.send(moving.wait_with_output().unwrap()));
    let early = over.recv_timeout(moment).ok();
    target.signal("-KILL");
    assert!(!target.ended().success());
    early.unwrap_or_else(|| over.recv().unwrap())
}

#[test]
fn a_daemon_that_is_killed_at_any_moment_takes_no_agent_with_it_that_it_does_not_own() {
    let core = Node::found("core");
    let healthy = core.join("healthy", "core");
    let (mut random, mut stayed) = (SEED, 0);
    // The first one dies before it can have heard anything.
    for (round, moment_ms_max) in [1, 80, 160].into_iter().enumerate() {
        let name = format!("doomed-{round}");
        let mut doomed = core.join(&name, "edge");
        let id = doomed.id().to_owned();
        until("the new member", || {
            let status = core.json(&["mesh", "status"]);
            let members = status["members"].as_array().unwrap();
            let known = |member: &&serde_json::Value| {
                member["node"] == id.as_str() && member["state"] == "alive"
            };
            members.iter().find(known).map(|_| ())
        });
        let agent = core.spawn(&[&sample("counter.wasm"), "--name", &format!("agent-{round}")]);
        let ask =
            |words: &str| core.json(&["agent", "send", &agent, words, "--wait"])["reply"].clone();
        assert_eq!(ask("before"), "1: before");
        let moment = Duration::from_millis(next(&mut random) % moment_ms_max);
        let output = kill_during_move(&core, &agent, &mut doomed, moment);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            // It owned the agent by then.
            Some(0) => assert_eq!(core.mielin(&["agent", "inspect", &agent]).code(), 5),
            Some(5) => {
                stayed += 1;
                let known = ["goes on at its source", "in doubt", "does not answer"];
                assert!(known.iter().any(|words| said.contains(words)), "{said}");
                assert_eq!(ask("after"), "2: after");
                core.json(&["agent", "migrate", &agent, healthy.id()]);
                assert_eq!(ask("elsewhere"), "3: elsewhere");
            }
            code => panic!("after {moment:?}: exit code {code:?}: {said}"),
        }
    }
    assert!(stayed > 0, "no kill came before the end of its move");
}

/// Fills 128 MiB of memory, which take their time to follow it, says so, and goes on.
fn large() -> Vec<u8> {
    wat::parse_str(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 2048)
        (func (export "_start") (local $at i32)
            (loop $fill
                (i64.store (local.get $at) (i64.mul (i64.extend_i32_u (local.get $at)) (i64.const 0x9e3779b97f4a7c15)))
                (local.set $at (i32.add (local.get $at) (i32.const 8)))
                (br_if $fill (i32.lt_u (local.get $at) (i32.const 0x8000000))))
            (i32.store (i32.const 0) (i32.const 16))
            (i32.store (i32.const 4) (i32.const 1))
            (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (loop $again (br $again))))"#,
    )
    .unwrap()
}

/// Whoever asked for a move waits no longer than 10 s for the outcome of one in doubt, which lasts until somebody ends it.
#[test]
fn a_move_in_doubt_does_not_keep_its_caller() {
    let core = Node::found("core");
    let other = core.join("other", "core");
    let dir = tempfile::tempdir().unwrap();
    let module = dir.path().join("large.wasm");
    std::fs::write(&module, large()).unwrap();
    for (asked, name) in [(&core, "here"), (&other, "there")] {
        let mut doomed = core.join(&format!("{name}-doomed"), "edge");
        until("the new member", || {
            let alive = |node: &Node| node.state_of(doomed.id()).as_deref() == Some("alive");
            (alive(&core) && alive(&other)).then_some(())
        });
        core.spawn(&[module.to_str().unwrap(), "--name", name]);
        until("it has filled its memory", || {
            let output = core.mielin(&["agent", "logs", name]).ok();
            (!output.is_empty()).then_some(())
        });
        until("the agent to be found", || {
            let found = asked.mielin(&["agent", "inspect", name]);
            (found.code() == 0).then_some(())
        });
        // What the command sends, because it shows phases only at a terminal.
        let mut socket = UnixStream::connect(asked.dir.join("control.sock")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let request = serde_json::json!({ "node": doomed.id(), "strategy": "post-copy" });
        let request = request.to_string();
        let line = format!("POST /v1/agents/{name}/migrate HTTP/1.1\r\nhost: mielin");
        let head = format!("{line}\r\ncontent-type: application/json");
        let len = request.len();
        write!(socket, "{head}\r\ncontent-length: {len}\r\n\r\n{request}").unwrap();
        let mut lines = BufReader::new(socket).lines().map(Result::unwrap);
        let begun = lines.find(|line| line.contains(r#""phase":"post-copy""#));
        doomed.signal("-KILL");
        assert!(begun.is_some(), "no pages followed");
        assert!(!doomed.ended().success());
        let error = lines.find(|line| line.contains(r#""error""#)).unwrap();
        assert!(error.contains("is in doubt"), "{error}");
        assert!(error.contains(r#""unreachable""#), "{error}");
        let inspected = core.json(&["agent", "inspect", name]);
        assert_eq!(inspected["state"], "in-doubt", "{inspected}");
    }
}

#[test]
fn a_hibernated_agent_outlives_a_daemon_that_is_killed() {
    let core = Node::found("core");
    let mut edge = core.join("edge", "edge");
    let agent = edge.spawn(&[&sample("counter.wasm"), "--name", "counter"]);
    let ask = |words: &str| core.json(&["agent", "send", &agent, words, "--wait"])["reply"].clone();
    let state = |node: &Node| {
        let list = node.json(&["agent", "list"]);
        list["agents"][0]["state"].as_str().unwrap().to_owned()
    };
    for round in 0..3 {
        assert_eq!(ask("a"), format!("{}: a", 2 * round + 1));
        let asleep = core.json(&["agent", "hibernate", "counter"]);
        assert_eq!(asleep["agent"], agent);
        assert_eq!(state(&edge), "hibernated");
        edge.signal("-KILL");
        assert!(!edge.ended().success());
        edge = Node::run(&edge.dir.clone(), &["daemon"]).keeping(edge);
        assert_eq!(state(&edge), "hibernated");
        until("its node", || (state(&core) == "hibernated").then_some(()));
        assert_eq!(ask("b"), format!("{}: b", 2 * round + 2));
        assert_eq!(state(&edge), "waiting");
    }
    // One that is awake is lost, and does not come back from where it slept.
    edge.signal("-KILL");
    assert!(!edge.ended().success());
    edge = Node::run(&edge.dir.clone(), &["daemon"]).keeping(edge);
    assert_eq!(state(&edge), "failed");
    assert_eq!(edge.json(&["agent", "wait", "counter"])["exit_code"], 129);
    let refused = edge.mielin(&["agent", "hibernate", "counter"]);
    assert_eq!(refused.code(), 3);
    assert_eq!(edge.mielin(&["agent", "hibernate", "nobody"]).code(), 4);
}

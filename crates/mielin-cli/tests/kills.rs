//! Daemons that are killed while an agent moves to them.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::{Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use support::{Node, mielin, sample, until};

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

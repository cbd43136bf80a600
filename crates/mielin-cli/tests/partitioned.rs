//! What five hosts say of their mesh before, while and after two of them are cut off from the others: network namespaces
//! on a link, and the real executable on each.
//!
//! Needs Linux, `ip` and root. Nothing of this machine's own network is touched.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use support::link::{Link, address};
use support::{Node, sample, until};
use tempfile::TempDir;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// The hosts that are cut off from the others.
const OUTER: [usize; 2] = [3, 4];

/// State by name, as `mesh status` has it.
fn states(node: &Node) -> BTreeMap<String, String> {
    let status = node.json(&["mesh", "status"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let members = status["members"].as_array().unwrap().iter();
    members
        .map(|member| (text(&member["name"]), text(&member["state"])))
        .collect()
}

/// What a node at this host should say of all while the hosts are separated.
fn separated(host: usize) -> BTreeMap<String, String> {
    let near = |other: &usize| OUTER.contains(other) == OUTER.contains(&host);
    let state = |other| if near(&other) { "alive" } else { "dead" };
    let states = (0..NAMES.len()).map(|other| (NAMES[other].to_owned(), state(other).to_owned()));
    states.collect()
}

/// Waits until a node takes those on the other side for dead: it has suspected them first.
fn suspects_before_it_buries(node: &Node, host: usize) {
    let expected = separated(host);
    let mut seen = BTreeSet::new();
    until("the others to be dead", || {
        let states = states(node);
        assert_eq!(states.len(), NAMES.len());
        let done = states == expected;
        seen.extend(states.into_values());
        done.then_some(())
    });
    assert!(
        seen.iter().eq(["alive", "dead", "suspect"]),
        "{}: {seen:?}",
        NAMES[host]
    );
}

/// The agents' states by name, as `agent list` has them.
fn agents(node: &Node) -> BTreeMap<String, String> {
    let list = node.json(&["agent", "list"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let agents = list["agents"].as_array().unwrap().iter();
    agents
        .map(|agent| (text(&agent["name"]), text(&agent["state"])))
        .collect()
}

/// Both agents are found, asked and shown from everywhere.
fn is_whole(nodes: &[Node]) {
    for node in nodes {
        node.sees(NAMES.len());
    }
    for (from, to) in [(0, 3), (4, 1)] {
        let (node, name) = (&nodes[from], NAMES[to]);
        // After a partition a connection from before it may end under a ping.
        until("every ping to be answered", || {
            let pings = node.json(&["mesh", "ping", name, "--count", "3"]);
            (pings["answered"] == 3).then_some(())
        });
        // After a partition a relay may have been quicker at first.
        until("a direct way", || {
            let route = node.json(&["mesh", "route", name]);
            let ping = node.json(&["mesh", "ping", name, "--count", "1"]);
            let direct = ping["address"] == format!("{}:9000", address(to));
            (route["kind"] == "direct" && direct).then_some(())
        });
        let peers = node.json(&["mesh", "peers"]);
        let peers = peers["peers"].as_array().unwrap();
        assert_eq!(peers.len(), NAMES.len() - 1);
        let peer = peers.iter().find(|peer| peer["name"] == name).unwrap();
        assert_eq!(peer["path"]["kind"], "direct", "{peer}");
    }
    for node in [&nodes[0], &nodes[4]] {
        for (agent, host) in [("inner", 1), ("outer", 3)] {
            let found = until("the agent to be found", || {
                let ran = node.mielin(&["mesh", "lookup", agent, "-o", "json"]);
                (ran.code() == 0).then(|| ran.json())
            });
            assert_eq!(found["agents"][0]["at"]["name"], NAMES[host], "{found}");
            until("an answer", || node.reply(agent, "hello"));
        }
        until("the agents to be listed", || {
            let agents = agents(node);
            let listed = agents.len() == 2 && agents.values().all(|state| state != "unreachable");
            listed.then_some(())
        });
    }
}

/// A command that concerns the other side fails, and says who is gone and what to look at.
#[track_caller]
fn is_refused(node: &Node, args: &[&str], name: &str) {
    let ran = node.mielin(args);
    assert_eq!(ran.code(), 5, "{args:?}: {}", ran.stderr());
    let said = ran.stderr();
    assert!(said.contains(name) && said.contains("dead"), "{said}");
    assert!(
        said.contains("hint: ") && said.contains("network"),
        "{said}"
    );
}

#[test]
fn five_hosts_say_what_is_so_while_two_of_them_are_cut_off() {
    let link = Link::new(NAMES.len());
    let dirs: [TempDir; NAMES.len()] = NAMES.map(|_| tempfile::tempdir().unwrap());
    let bind = ["--bind", "0.0.0.0:9000"];
    let first = format!("{}:9000", address(0));
    let mut nodes: Vec<Node> = Vec::new();
    for (host, name) in NAMES.into_iter().enumerate() {
        let token = nodes.first().map(Node::token);
        let how = match &token {
            None => vec!["mesh", "start"],
            Some(token) => vec!["mesh", "join", &first, "--token", token],
        };
        let line = [&how[..], &bind, &["--name", name]].concat();
        let node = link.node(host, &dirs[host].path().join("data"), &line);
        assert_eq!(node.address(), format!("{}:9000", address(host)));
        nodes.push(node);
    }
    nodes[1].spawn(&[&sample("counter.wasm"), "--name", "inner"]);
    nodes[3].spawn(&[&sample("counter.wasm"), "--name", "outer"]);
    is_whole(&nodes);

    link.part(&OUTER);
    // Both sides at once: who waits for one may miss what passes on the other.
    std::thread::scope(|scope| {
        for (node, host) in [(&nodes[0], 0), (&nodes[4], 4)] {
            scope.spawn(move || suspects_before_it_buries(node, host));
        }
        // Before anybody knows, a ping across fails too.
        let ping = nodes[2].mielin(&["mesh", "ping", "e", "--count", "1"]);
        assert_eq!(ping.code(), 5);
        assert!(ping.stderr().contains("node e ("), "{}", ping.stderr());
    });
    for (host, node) in nodes.iter().enumerate() {
        until("each to see its side alone", || {
            (states(node) == separated(host)).then_some(())
        });
    }
    for (from, to) in [(0, 3), (1, 4), (3, 0), (4, 2)] {
        let (node, name) = (&nodes[from], NAMES[to]);
        is_refused(node, &["mesh", "ping", name], name);
        is_refused(node, &["mesh", "route", name], name);
        let peers = node.json(&["mesh", "peers"]);
        let mut peers = peers["peers"].as_array().unwrap().iter();
        let peer = peers.find(|peer| peer["name"] == name).unwrap();
        assert_eq!(
            (&peer["state"], &peer["path"]),
            (&"dead".into(), &Value::Null)
        );
    }
    for (node, near, far, name) in [
        (&nodes[0], "inner", "outer", "d"),
        (&nodes[4], "outer", "inner", "b"),
    ] {
        let agents = agents(node);
        assert_eq!(agents[far], "unreachable", "{agents:?}");
        assert_ne!(agents[near], "unreachable", "{agents:?}");
        until("an answer on this side", || {
            node.reply(near, "still there?")
        });
        // Whoever keeps its record says so too.
        let found = node.mielin(&["mesh", "lookup", far, "-o", "json"]);
        let unreachable = || found.stdout().contains("\"state\":\"unreachable\"");
        assert!(found.code() == 4 || unreachable(), "{}", found.stdout());
        let send = ["agent", "send", far, "meanwhile", "--wait"];
        is_refused(node, &send, name);
        assert!(
            node.mielin(&send)
                .stderr()
                .contains("the message was not sent")
        );
    }
    let pings = nodes[4].json(&["mesh", "ping", "d", "--count", "1"]);
    assert_eq!(pings["answered"], 1, "{pings}");

    link.heal(&OUTER);
    is_whole(&nodes);
}

//! Nodes that nobody can dial, on hosts of their own behind a firewall or an address translation: network namespaces on a
//! link, and nftables.
//!
//! Needs Linux, `ip`, `nft` and root. Nothing of this machine's own network is touched.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]
#![allow(clippy::print_stdout, reason = "it says what was measured")]

mod support;

use std::time::Instant;

use serde_json::Value;
use support::link::{INNER, Link, address};
use support::{Node, sample, until};
use tempfile::TempDir;

/// Rounds of the agent that is moved while it runs: some seconds of work.
const LONG: &str = "4000000";

/// The hosts.
const CORE: usize = 0;
const RELAY: usize = 1;
const NEAR: usize = 2;
const HIDDEN: usize = 3;

/// Nothing that the hidden host has not asked for comes in, and nothing at all from the near one: else it would be asked,
/// as both try to reach each other.
fn wall(link: &Link) {
    let near = address(NEAR);
    link.firewall(
        HIDDEN,
        &format!(
            "table inet wall {{
                chain input {{
                    type filter hook input priority 0; policy drop;
                    iif lo accept
                    ip saddr {near} drop
                    ct state established,related accept
                }}
            }}"
        ),
    );
}

/// How one node says that another is connected with it.
fn path(from: &Node, to: &Node) -> Value {
    let peers = from.json(&["mesh", "peers"]);
    let mut peers = peers["peers"].as_array().unwrap().iter();
    let peer = peers.find(|peer| peer["node"] == to.id());
    peer.map(|peer| peer["path"].clone()).unwrap_or_default()
}

/// The relay that `mesh route` shows; nothing if the way is another.
fn relay(from: &Node, to: &Node) -> Option<String> {
    let ran = from.mielin(&["mesh", "route", to.id(), "-o", "json"]);
    let route: Value = serde_json::from_str(&ran.stdout()).ok()?;
    let is_relayed = route["kind"] == "relayed" && route["rtt_us"].as_u64()? > 0;
    let relay = route["relay"]["node"].as_str().map(str::to_owned);
    relay.filter(|_| is_relayed)
}

/// Says how long things take on a way; `--nocapture` shows it.
fn measure(way: &str, from: &Node, to: &Node, moved: &Value) {
    let pings = from.json(&["mesh", "ping", to.id(), "--count", "200"]);
    // It names the way that it went.
    let relayed = way != "direct";
    assert_eq!(pings["relay"].is_object(), relayed, "{pings}");
    assert_eq!(pings["address"].is_null(), relayed, "{pings}");
    let [min, median, max] = ["min", "median", "max"].map(|of| &pings[format!("rtt_{of}_us")]);
    let (downtime, total, bytes) = (&moved["downtime_us"], &moved["total_us"], &moved["bytes"]);
    println!("{way}: round trip {min} / {median} / {max} us (min / median / max)");
    println!("{way}: a move of {bytes} bytes took {total} us, of them {downtime} stopped");
}

#[test]
fn a_node_behind_a_firewall_is_reached_through_relays_until_the_firewall_opens() {
    let link = Link::new(4);
    let dirs: [TempDir; 4] = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let dir = |host: usize| dirs[host].path().join("data");

    wall(&link);
    let bind = |host| format!("{}:9000", address(host));
    let core_bind = bind(CORE);
    let start = ["mesh", "start", "--bind", &core_bind, "--name", "core"];
    let core = link.node(CORE, &dir(CORE), &start);
    let join = |host, at: &str, name: &str, role: &str| {
        let (token, bind) = (core.token(), bind(host));
        let line = [
            "mesh", "join", at, "--token", &token, "--bind", &bind, "--name", name, "--role", role,
        ];
        link.node(host, &dir(host), &line)
    };
    let relaying = join(RELAY, &core_bind, "relay", "relay");
    let near = join(NEAR, &core_bind, "near", "edge");
    // The hidden node knows the relay only.
    let hidden = join(HIDDEN, &bind(RELAY), "hidden", "edge");
    for node in [&core, &relaying, &near, &hidden] {
        node.sees(4);
    }

    // It finds out that it cannot be dialled, and everybody learns its relays.
    until("two relays are advertised", || {
        let peers = near.json(&["mesh", "peers"]);
        let mut peers = peers["peers"].as_array().unwrap().iter();
        let hidden = peers.find(|peer| peer["node"] == hidden.id())?;
        (hidden["relays"].as_array().unwrap().len() == 2).then_some(())
    });
    let first = until("the way through a relay", || relay(&near, &hidden));
    until("the other end sees it too", || relay(&hidden, &near));

    // Messages, and a running agent, go there and back.
    near.spawn(&[&sample("counter.wasm"), "--name", "counter"]);
    let input = dirs[NEAR].path().join("input.txt");
    std::fs::write(&input, "to be or not to be").unwrap();
    let stdin = input.to_str().unwrap();
    let digest = sample("digest.wasm");
    for name in ["traveller", "homebody"] {
        near.spawn(&[&digest, "--name", name, "--stdin", stdin, "--", LONG]);
    }
    assert_eq!(near.reply("counter", "a").unwrap(), "1: a\n");
    for (agent, strategy) in [("counter", "stop-copy"), ("traveller", "pre-copy")] {
        let line = ["agent", "migrate", agent, "hidden", "--strategy", strategy];
        let moved = near.json(&line);
        assert_eq!(moved["to"], hidden.id());
    }
    assert_eq!(near.reply("counter", "b").unwrap(), "2: b\n");
    assert_eq!(path(&near, &hidden)["kind"], "relayed");
    assert_eq!(hidden.reply("counter", "c").unwrap(), "3: c\n");
    let back = hidden.json(&["agent", "migrate", "traveller", "near"]);
    assert_eq!(back["to"], near.id());
    assert_eq!(path(&near, &hidden)["kind"], "relayed");
    measure("relayed", &near, &hidden, &back);
    for agent in ["traveller", "homebody"] {
        assert_eq!(near.json(&["agent", "wait", agent])["exit_code"], 0);
    }
    let log = |agent: &str| near.mielin(&["agent", "logs", agent]).ok();
    assert_eq!(log("traveller"), log("homebody"));

    // The relay in use is killed; the other takes over.
    let (gone, stays) = if first == core.id() {
        (core, &relaying)
    } else {
        assert_eq!(first, relaying.id());
        (relaying, &core)
    };
    let metrics = gone.mielin(&["mesh", "metrics"]).stdout();
    let carried = metrics
        .lines()
        .find(|l| l.starts_with("mielin_relayed_bytes_total "));
    assert!(!carried.unwrap().ends_with(" 0"), "{carried:?}");
    gone.signal("-KILL");
    let killed = Instant::now();
    drop(gone);
    until("the other relay takes over", || {
        relay(&near, &hidden).filter(|relay| relay == stays.id())
    });
    let answer = until("an answer over the other relay", || {
        near.reply("counter", "d")
    });
    assert!(answer.ends_with(": d\n"), "{answer}");
    let passed = killed.elapsed();
    println!("an answer over the other relay {passed:?} after the kill");

    // The firewall opens, and the way becomes direct, at both ends.
    link.firewall(HIDDEN, "");
    for (from, to) in [(&near, &hidden), (&hidden, &near)] {
        until("a direct way", || {
            (path(from, to)["kind"] == "direct").then_some(())
        });
    }
    let route = near.json(&["mesh", "route", hidden.id()]);
    assert_eq!(route["kind"], "direct");
    assert!(near.reply("counter", "e").unwrap().ends_with(": e\n"));
    let back = near.json(&["agent", "migrate", "counter", "near"]);
    assert_eq!(back["to"], near.id());
    // It need not come to its end.
    let longer = format!("{LONG}000");
    near.spawn(&[&digest, "--name", "direct", "--stdin", stdin, "--", &longer]);
    let there = near.json(&["agent", "migrate", "direct", "hidden"]);
    measure("direct", &near, &hidden, &there);
}

#[test]
fn where_no_relay_is_members_hand_messages_to_agents_on() {
    let link = Link::new(4);
    let dirs: [TempDir; 4] = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let dir = |host: usize| dirs[host].path().join("data");
    wall(&link);
    let bind = |host| format!("{}:9000", address(host));
    let core_bind = bind(CORE);
    let start = [
        "mesh", "start", "--bind", &core_bind, "--name", "middle", "--role", "edge",
    ];
    let middle = link.node(CORE, &dir(CORE), &start);
    let join = |host, name: &str| {
        let (token, bind) = (middle.token(), bind(host));
        let line = [
            "mesh", "join", &core_bind, "--token", &token, "--bind", &bind, "--name", name,
            "--role", "edge",
        ];
        link.node(host, &dir(host), &line)
    };
    let (near, hidden) = (join(NEAR, "near"), join(HIDDEN, "hidden"));
    for node in [&middle, &near, &hidden] {
        node.sees(3);
    }
    let route = near.json(&["mesh", "route", "hidden"]);
    assert_eq!(route["kind"], "routed");
    let hops = route["hops"].as_array().unwrap().iter();
    let hops: Vec<_> = hops.map(|hop| hop["node"].as_str().unwrap()).collect();
    assert_eq!(hops, [middle.id(), hidden.id()]);

    hidden.spawn(&[&sample("counter.wasm"), "--name", "counter"]);
    let answer = until("an answer by way of the members", || {
        near.reply("counter", "a")
    });
    assert!(answer.ends_with(": a\n"), "{answer}");
    assert!(path(&near, &hidden).is_null());
}

/// The sockets are of IPv6, the hosts have addresses of IPv4 only.
#[test]
fn nodes_that_listen_on_both_families_are_dialled_and_relayed_where_there_is_one() {
    let link = Link::new(4);
    let dirs: [TempDir; 4] = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let dir = |host: usize| dirs[host].path().join("data");
    wall(&link);
    let bind = "[::]:9000";
    let start = ["mesh", "start", "--bind", bind, "--name", "core"];
    let core = link.node(CORE, &dir(CORE), &start);
    let join = |host, name: &str| {
        let (token, at) = (core.token(), core.address());
        let line = [
            "mesh", "join", at, "--token", &token, "--bind", bind, "--name", name, "--role", "edge",
        ];
        link.node(host, &dir(host), &line)
    };
    let (near, hidden) = (join(NEAR, "near"), join(HIDDEN, "hidden"));
    for (node, host) in [(&core, CORE), (&near, NEAR), (&hidden, HIDDEN)] {
        assert_eq!(node.address(), format!("{}:9000", address(host)));
        node.sees(3);
    }
    let by = until("the way through the relay", || relay(&near, &hidden));
    assert_eq!(by, core.id());
    near.spawn(&[&sample("counter.wasm"), "--name", "counter"]);
    near.json(&["agent", "migrate", "counter", "hidden"]);
    assert_eq!(near.reply("counter", "a").unwrap(), "1: a\n");
    assert_eq!(path(&near, &hidden)["kind"], "relayed");
}

/// Two hosts behind routers that give each destination another port. Both have the same address, where nobody else finds
/// them; neither can dial the other, and both meet at a relay.
#[test]
fn nodes_behind_two_address_translations_speak_and_move_through_a_relay() {
    let mut link = Link::new(4);
    let hosts = [2, 3].map(|router| link.host_behind(router));
    let dirs: [TempDir; 4] = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let dir = |node: usize| dirs[node].path().join("data");
    let core_bind = format!("{}:9000", address(CORE));
    let start = [
        "mesh", "start", "--bind", &core_bind, "--name", "core", "--role", "edge",
    ];
    let core = link.node(CORE, &dir(0), &start);
    let join = |host, node, bind: &str, name: &str, role: &str| {
        let token = core.token();
        let line = [
            "mesh", "join", &core_bind, "--token", &token, "--bind", bind, "--name", name,
            "--role", role,
        ];
        link.node(host, &dir(node), &line)
    };
    let relaying = join(
        RELAY,
        1,
        &format!("{}:9000", address(RELAY)),
        "relay",
        "relay",
    );
    let inner = format!("{INNER}:9000");
    let left = join(hosts[0], 2, &inner, "left", "edge");
    let right = join(hosts[1], 3, &inner, "right", "edge");
    for node in [&core, &relaying, &left, &right] {
        node.sees(4);
    }
    for (from, to) in [(&left, &right), (&right, &left)] {
        let by = until("the way through the relay", || relay(from, to));
        assert_eq!(by, relaying.id());
    }
    // What each advertises is its own address to the other, and nobody's on the link, where their routers' are seen.
    assert_eq!([left.address(), right.address()], [&inner, &inner]);
    for (node, router) in [(&left, 2), (&right, 3)] {
        let route = core.json(&["mesh", "route", node.id()]);
        let seen = route["address"].as_str().unwrap();
        assert!(seen.starts_with(&format!("{}:", address(router))), "{seen}");
    }

    left.spawn(&[&sample("counter.wasm"), "--name", "counter"]);
    assert_eq!(right.reply("counter", "a").unwrap(), "1: a\n");
    let moved = left.json(&["agent", "migrate", "counter", "right"]);
    assert_eq!(moved["to"], right.id());
    assert_eq!(left.reply("counter", "b").unwrap(), "2: b\n");
    let moved = left.json(&["agent", "migrate", "counter", "left"]);
    assert_eq!(moved["to"], left.id());
    assert_eq!(right.reply("counter", "c").unwrap(), "3: c\n");
    for (from, to) in [(&left, &right), (&right, &left)] {
        assert_eq!(path(from, to)["kind"], "relayed");
    }
    measure("between two translations", &left, &right, &moved);
}

//! Meshes of processes on hosts of their own: network namespaces on a link.
//!
//! Needs Linux, `ip` and root (`cargo xtask test` says so where one is missing).
//! The program is its own harness, because it is the program of the nodes too;
//! an argument that is no option chooses the cases whose names contain it.
#![allow(clippy::unwrap_used)]
#![allow(
    clippy::print_stdout,
    reason = "a test harness reports to its terminal, and a node to its test"
)]

mod link;
mod node;

use std::panic::catch_unwind;
use std::process::ExitCode;

use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::link::{Link, v4, v6};
use crate::node::{MDNS, Node, be, mesh_of};

type Case = (&'static str, fn(&Runtime));

const CASES: &[Case] = &[
    ("five hosts find each other", five_hosts_find_each_other),
    (
        "a partition is seen and heals",
        a_partition_is_seen_and_heals,
    ),
    ("two meshes ignore each other", two_meshes_ignore_each_other),
    (
        "addresses change under connections",
        addresses_change_under_connections,
    ),
    ("a relay carries bulk", a_relay_carries_bulk),
    ("the first is found over IPv6", the_first_is_found_over_ipv6),
    (
        "nodes on a link find each other",
        nodes_on_a_link_find_each_other,
    ),
    ("nodes on loopback keep to it", nodes_on_loopback_keep_to_it),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = Runtime::new().unwrap();
    if arguments.first().is_some_and(|first| first == node::ROLE) {
        runtime.block_on(be(&arguments[1..]));
        return ExitCode::SUCCESS;
    }
    let chosen = |name: &str| {
        let mut words = arguments.iter().filter(|word| !word.starts_with('-'));
        words.all(|word| name.contains(word.as_str()))
    };
    let mut failed = 0;
    for (name, case) in CASES.iter().filter(|(name, _)| chosen(name)) {
        let outcome = catch_unwind(|| case(&runtime));
        println!(
            "{name} ... {}",
            if outcome.is_ok() { "ok" } else { "FAILED" }
        );
        failed += usize::from(outcome.is_err());
    }
    ExitCode::from(u8::from(failed > 0))
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Five nodes on five hosts, of which four know one address: that of the first.
fn five(runtime: &Runtime, link: &Link) -> (Vec<Node>, Vec<TempDir>) {
    let directories = runtime.block_on(mesh_of(&NAMES));
    let first = format!("{}:9000", v4(0));
    let mut nodes = Vec::new();
    for (host, directory) in directories.iter().enumerate() {
        let bootstrap = [first.as_str()];
        let known = if host == 0 { &[][..] } else { &bootstrap[..] };
        nodes.push(Node::start(link, host, directory, "0.0.0.0:9000", known));
    }
    for node in &mut nodes {
        node.sees(&NAMES.map(|name| (name, "alive")));
    }
    (nodes, directories)
}

fn five_hosts_find_each_other(runtime: &Runtime) {
    let link = Link::new(5);
    let (mut nodes, _directories) = five(runtime, &link);
    nodes.pop().unwrap().kill();
    for node in &mut nodes {
        node.sees_one("e", "dead");
        node.sees(&NAMES.map(|name| (name, if name == "e" { "dead" } else { "alive" })));
    }
}

fn a_partition_is_seen_and_heals(runtime: &Runtime) {
    let link = Link::new(5);
    let (mut nodes, _directories) = five(runtime, &link);
    link.part(&[3, 4]);
    nodes[0].sees_one("d", "suspect");
    nodes[4].sees_one("a", "suspect");
    let (inner, outer) = (["a", "b", "c"], ["d", "e"]);
    for (host, node) in nodes.iter_mut().enumerate() {
        let near = if host < 3 { &inner[..] } else { &outer[..] };
        let state = |name| {
            (
                name,
                if near.contains(&name) {
                    "alive"
                } else {
                    "dead"
                },
            )
        };
        node.sees(&NAMES.map(state));
    }
    link.heal(&[3, 4]);
    for node in &mut nodes {
        node.sees(&NAMES.map(|name| (name, "alive")));
    }
}

/// First the host of a node that has dialled gets another address, then the one of the node that was dialled by all.
fn addresses_change_under_connections(runtime: &Runtime) {
    let link = Link::new(3);
    let names = ["a", "b", "c"];
    let directories = runtime.block_on(mesh_of(&names));
    let first = format!("{}:9000", v4(0));
    let mut nodes = Vec::new();
    for (host, directory) in directories.iter().enumerate() {
        let bootstrap = [first.as_str()];
        let known = if host == 0 { &[][..] } else { &bootstrap[..] };
        nodes.push(Node::start(&link, host, directory, "0.0.0.0:9000", known));
    }
    for node in &mut nodes {
        node.sees(&names.map(|name| (name, "alive")));
    }
    for (from, node) in nodes.iter_mut().enumerate() {
        let others = names.iter().enumerate().filter(|(to, _)| *to != from);
        assert!(others.map(|(_, name)| name).all(|name| node.pings(name)));
    }
    for (moved, address) in [(1, "10.77.0.101"), (0, "10.77.0.102")] {
        link.readdress(moved, &v4(moved), address);
        for (host, node) in nodes.iter_mut().enumerate() {
            if host != moved {
                node.sees_at(names[moved], &format!("{address}:9000"));
            }
        }
        for other in (0..3).filter(|other| *other != moved) {
            assert!(nodes[other].pings(names[moved]), "to {}", names[moved]);
            assert!(nodes[moved].pings(names[other]), "from {}", names[moved]);
        }
    }
    // Until its death is known, connections that could not go on are silent for too long.
    nodes.pop().unwrap().kill();
    for node in &mut nodes {
        node.sees(&[("a", "alive"), ("b", "alive"), ("c", "dead")]);
        assert_eq!(node.lost(), ["c"]);
    }
}

/// Two nodes that cannot speak to each other do so by way of the third, until they can. Says how fast that goes.
fn a_relay_carries_bulk(runtime: &Runtime) {
    let link = Link::new(3);
    link.wall([1, 2], true);
    let names = ["relay", "b", "c"];
    let directories = runtime.block_on(mesh_of(&names));
    let first = format!("{}:9000", v4(0));
    let mut nodes = Vec::new();
    for (host, directory) in directories.iter().enumerate() {
        let bootstrap = [first.as_str()];
        let known = if host == 0 { &[][..] } else { &bootstrap[..] };
        nodes.push(Node::start(&link, host, directory, "0.0.0.0:9000", known));
    }
    for node in &mut nodes {
        node.sees(&names.map(|name| (name, "alive")));
    }
    for wanted in ["relayed", "direct"] {
        let took = loop {
            let (way, took) = nodes[1].pushes("c");
            if way == wanted {
                break took;
            }
            assert_eq!(way, "relayed");
        };
        println!(
            "64 MiB {wanted}: {:.0} MB/s",
            67.108_864 / took.as_secs_f64()
        );
        if wanted == "relayed" {
            link.wall([1, 2], false);
        }
    }
}

/// Each second node is pointed at the other mesh first.
fn two_meshes_ignore_each_other(runtime: &Runtime) {
    let link = Link::new(4);
    let ours = runtime.block_on(mesh_of(&["a", "b"]));
    let theirs = runtime.block_on(mesh_of(&["x", "y"]));
    let at = |host| format!("{}:9000", v4(host));
    let start = |host, directory, bootstrap: &[&str]| {
        Node::start(&link, host, directory, "0.0.0.0:9000", bootstrap)
    };
    let mut a = start(0, &ours[0], &[]);
    let mut x = start(1, &theirs[0], &[]);
    let mut b = start(2, &ours[1], &[&at(1), &at(0)]);
    let mut y = start(3, &theirs[1], &[&at(0), &at(1)]);
    for node in [&mut a, &mut b] {
        node.sees(&[("a", "alive"), ("b", "alive")]);
    }
    for node in [&mut x, &mut y] {
        node.sees(&[("x", "alive"), ("y", "alive")]);
    }
    assert_eq!(a.knows(), ["a", "b"]);
    assert_eq!(x.knows(), ["x", "y"]);
}

fn the_first_is_found_over_ipv6(runtime: &Runtime) {
    let link = Link::new(3);
    let directories = runtime.block_on(mesh_of(&["a", "b", "c"]));
    let first = format!("[{}]:9000", v6(0));
    let mut nodes = Vec::new();
    for (host, directory) in directories.iter().enumerate() {
        let known = if host == 0 {
            vec![]
        } else {
            vec![first.as_str()]
        };
        nodes.push(Node::start(&link, host, directory, "[::]:9000", &known));
    }
    for node in &mut nodes {
        node.sees(&["a", "b", "c"].map(|name| (name, "alive")));
    }
}

/// Nobody knows an address, and two meshes share the link. One node has it switched off: the others do not find it,
/// and it finds nobody.
fn nodes_on_a_link_find_each_other(runtime: &Runtime) {
    let link = Link::new(7);
    let ours = runtime.block_on(mesh_of(&["a", "b", "c", "off"]));
    let theirs = runtime.block_on(mesh_of(&["x", "y"]));
    let start = |host, directory, bind, settings: &[&str]| {
        Node::start(&link, host, directory, bind, settings)
    };
    let mut off = start(6, &ours[3], "0.0.0.0:9000", &[]);
    let mut a = start(0, &ours[0], "0.0.0.0:9000", &[MDNS]);
    let mut x = start(1, &theirs[0], "[::]:9000", &[MDNS]);
    let mut b = start(2, &ours[1], "0.0.0.0:9000", &[MDNS]);
    let mut y = start(3, &theirs[1], "[::]:9000", &[MDNS]);
    let mut c = start(4, &ours[2], &format!("{}:9000", v4(4)), &[MDNS]);
    for node in [&mut a, &mut b, &mut c] {
        node.sees(&["a", "b", "c"].map(|name| (name, "alive")));
    }
    for node in [&mut x, &mut y] {
        node.sees(&["x", "y"].map(|name| (name, "alive")));
    }
    assert_eq!(a.knows(), ["a", "b", "c"]);
    assert_eq!(x.knows(), ["x", "y"]);
    assert_eq!(off.knows(), ["off"]);
}

/// Two meshes on the loopback interface of one host, whose link carries nothing; a node of the first one on another host
/// hears of nobody. One on loopback has it switched off.
fn nodes_on_loopback_keep_to_it(runtime: &Runtime) {
    let link = Link::new(2);
    link.without_v6(0);
    let ours = runtime.block_on(mesh_of(&["a", "b", "elsewhere", "off"]));
    let theirs = runtime.block_on(mesh_of(&["x", "y"]));
    let start = |host, directory, bind, settings: &[&str]| {
        Node::start(&link, host, directory, bind, settings)
    };
    let mut elsewhere = start(1, &ours[2], "0.0.0.0:9000", &[MDNS]);
    let before = link.sent(0);
    let mut off = start(0, &ours[3], "127.0.0.1:0", &[]);
    let mut a = start(0, &ours[0], "127.0.0.1:0", &[MDNS]);
    let mut x = start(0, &theirs[0], "[::1]:0", &[MDNS]);
    let mut b = start(0, &ours[1], "127.0.0.1:0", &[MDNS]);
    let mut y = start(0, &theirs[1], "[::1]:0", &[MDNS]);
    for node in [&mut a, &mut b] {
        node.sees(&["a", "b"].map(|name| (name, "alive")));
    }
    for node in [&mut x, &mut y] {
        node.sees(&["x", "y"].map(|name| (name, "alive")));
    }
    assert_eq!(link.sent(0), before, "packets left the machine");
    assert_eq!(a.knows(), ["a", "b"]);
    assert_eq!(x.knows(), ["x", "y"]);
    assert_eq!(off.knows(), ["off"]);
    assert_eq!(elsewhere.knows(), ["elsewhere"]);
}

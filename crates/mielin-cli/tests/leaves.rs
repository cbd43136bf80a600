//! `mielin mesh leaf`: what microcontrollers are given, and refused.

#![allow(clippy::unwrap_used)]

#[expect(dead_code, reason = "another crate's tests use the rest")]
#[path = "../../mielin-cells/tests/cells/soft_leaf.rs"]
mod soft_leaf;
mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use mielin_mesh_core::leaf::Admission;
use mielin_page::{PAGE_BYTES, Page};
use soft_leaf::SoftLeaf;
use support::{Node, run_in};

const HOSTING: [&str; 4] = ["--role", "relay", "--leaf-udp", "127.0.0.1:0"];

#[test]
fn a_leaf_is_admitted_with_a_page_of_its_own_and_removed() {
    let node = Node::found_with("host", &HOSTING);
    let file = node.dir.join("greenhouse.page");
    let path = file.to_str().unwrap();
    let added = node.json(&["mesh", "leaf", "add", "greenhouse", "--page", path]);
    assert_eq!(
        support::keys(&added),
        ["admission", "name", "number", "page"]
    );
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!(bytes.len(), PAGE_BYTES);
    let page = Page::decode(&bytes).unwrap();
    assert_eq!(page.name(), "greenhouse");
    let admission: Admission = added["admission"].as_str().unwrap().parse().unwrap();
    assert_eq!(page.admission().to_string(), admission.to_string());
    // Nobody else has its key and its seed, and nobody else can read them.
    let mode = std::os::unix::fs::MetadataExt::mode(&file.metadata().unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let other = node.dir.join("other.page");
    node.json(&[
        "mesh",
        "leaf",
        "add",
        "cellar",
        "--page",
        other.to_str().unwrap(),
    ]);
    let cellar = Page::decode(&std::fs::read(&other).unwrap()).unwrap();
    assert_ne!(cellar.key().as_bytes(), page.key().as_bytes());
    assert_ne!(cellar.seed(), page.seed());

    // Without a page its maker makes the key.
    let bare = node.mielin(&["mesh", "leaf", "add", "roof"]);
    assert!(bare.stdout().trim().parse::<Admission>().is_ok());

    let names = |list: &serde_json::Value| -> Vec<String> {
        let leaves = list["leaves"].as_array().unwrap().iter();
        leaves
            .map(|leaf| {
                assert_eq!(leaf["state"], "awaited");
                leaf["name"].as_str().unwrap().to_owned()
            })
            .collect()
    };
    let list = node.json(&["mesh", "leaf", "list"]);
    assert_eq!(names(&list), ["greenhouse", "cellar", "roof"]);
    let awaited = node.mielin(&["mesh", "ping", "cellar"]);
    assert_eq!(awaited.code(), 4);
    let why = awaited.stderr();
    assert!(
        why.contains("the leaf `cellar` has never been here"),
        "{why}"
    );
    node.json(&["mesh", "leaf", "remove", "cellar"]);
    let list = node.json(&["mesh", "leaf", "list"]);
    assert_eq!(names(&list), ["greenhouse", "roof"]);
    // Who looks for a leaf that does not appear sees what has come.
    let [way] = list["ways"].as_array().unwrap().as_slice() else {
        panic!("{list}");
    };
    assert_eq!(way["kind"], "udp");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .send_to(b"noise", way["way"].as_str().unwrap())
        .unwrap();
    let dropped = support::until("the noise is counted", || {
        let list = node.json(&["mesh", "leaf", "list"]);
        (list["ways"][0]["dropped"] == 1).then_some(list)
    });
    assert_eq!(dropped["ways"][0]["packets"], 0);
    assert!(dropped["ways"][0]["last_dropped"].is_string(), "{dropped}");
    let text = node.mielin(&["mesh", "leaf", "list"]);
    assert!(text.stdout().contains("1 dropped"), "{}", text.stdout());
    node.stop();
}

#[test]
fn nobody_is_admitted_for_whom_no_page_can_be_made() {
    let node = Node::found_with("host", &HOSTING);
    let page = node.dir.join("page");
    let page = page.to_str().unwrap();
    let long = "greenhouse-behind-the-house-of-the-gardener";
    let refused = node.mielin(&["mesh", "leaf", "add", long, "--page", page]);
    assert_eq!(refused.code(), 2, "{}", refused.stderr());
    let refused = node.mielin(&["mesh", "leaf", "add", "a", "--page", "/nowhere/page"]);
    assert_ne!(refused.code(), 0);
    assert!(refused.stderr().contains("/nowhere/page"));
    let list = node.json(&["mesh", "leaf", "list"]);
    assert_eq!(list["leaves"].as_array().map(Vec::len), Some(0));
    // A page is left as it was, whoever wants its place, and a name is given once.
    node.json(&["mesh", "leaf", "add", "shed", "--page", page]);
    let before = std::fs::read(page).unwrap();
    let refused = node.mielin(&["mesh", "leaf", "add", "barn", "--page", page]);
    assert_eq!(refused.code(), 3, "{}", refused.stderr());
    assert_eq!(std::fs::read(page).unwrap(), before);
    let other = format!("{page}-of-another");
    let refused = node.mielin(&["mesh", "leaf", "add", "shed", "--page", &other]);
    assert_eq!(refused.code(), 3, "{}", refused.stderr());
    assert!(!std::path::Path::new(&other).exists());
    node.stop();
}

#[test]
fn a_node_that_hosts_no_leaves_says_how_to() {
    let node = Node::found("plain");
    let refused = node.mielin(&["mesh", "leaf", "add", "shed"]);
    assert_eq!(refused.code(), 3);
    assert!(
        refused.stderr().contains("--leaf-udp"),
        "{}",
        refused.stderr()
    );
    let elsewhere = tempfile::tempdir().unwrap();
    let udp = ["--leaf-udp", "127.0.0.1:0"];
    let edge = [&["mesh", "start", "--role", "edge"], &udp[..]].concat();
    assert_eq!(run_in(&elsewhere.path().join("data"), &edge).code(), 3);
    node.stop();
}

/// A process that does not outlive the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is said to a command that no leaf can follow.
fn refused(node: &Node, args: &[&str], because: &str) {
    let ran = node.mielin(args);
    assert_eq!(ran.code(), 3, "{args:?}: {}", ran.stderr());
    assert!(ran.stderr().contains(because), "{args:?}: {}", ran.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_leaf_is_no_member_for_is_refused_and_its_agents_are_not_forgotten() {
    let lines = tempfile::tempdir().unwrap();
    let line = lines.path().join("line");
    let serial = format!("unix:{}", line.display());
    let node = Node::found_with("host", &["--role", "relay", "--leaf-serial", &serial]);
    let added = node.json(&["mesh", "leaf", "add", "soft"]);
    let admission: Admission = added["admission"].as_str().unwrap().parse().unwrap();
    let _leaf = SoftLeaf::start(&admission, 7, &line);
    let state = |node: &Node, wanted: &str| {
        let list = node.json(&["mesh", "leaf", "list"]);
        (list["leaves"][0]["state"] == wanted && list["leaves"][0]["ready"] != false).then_some(())
    };
    support::until("the leaf is there", || state(&node, "connected"));
    let sensor = support::sample("sensor.wasm");
    let agent = node.spawn(&[
        &sensor, "--name", "sensor", "--allow", "sensor", "--allow", "actuator",
    ]);
    support::until("it is on the leaf", || {
        let moved = node.mielin(&["agent", "migrate", "sensor", "soft"]);
        (moved.code() == 0).then_some(())
    });

    refused(&node, &["mesh", "ping", "soft"], "soft is a leaf");
    refused(&node, &["mesh", "revoke", "soft"], "soft is a leaf");
    refused(&node, &["mesh", "leaf", "remove", "soft"], "--force");
    let elsewhere = "move it to a node first";
    refused(&node, &["agent", "hibernate", "sensor"], elsewhere);
    refused(&node, &["agent", "clone", "sensor"], elsewhere);
    // Where a leaf of that name is awaited it is found on its host all the same.
    let other = node.join_with("other", "relay", &["--leaf-udp", "127.0.0.1:0"]);
    other.json(&["mesh", "leaf", "add", "soft"]);
    refused(&other, &["mesh", "ping", "soft"], "soft is a leaf");
    let number = other.mielin(&["mesh", "ping", "1"]);
    assert!(
        number.stderr().contains("no node is called `1`"),
        "{}",
        number.stderr()
    );
    other.stop();
    // Longer than the link carries, and longer than the program takes: it passes it over.
    let long = "x".repeat(1000);
    assert_eq!(
        node.reply("sensor", &long).unwrap().trim(),
        "a message has at most 256 bytes"
    );
    assert!(node.reply("sensor", "?").is_some());

    // It says so where it cannot reach them; and it is killed then, which they outlive.
    let dir = node.dir.clone();
    let kept = node.stop();
    let mut without = support::mielin();
    without.args(["mesh", "start", "--no-leaves", "--mdns", "off"]);
    without.arg("--data-dir").arg(&dir).stdout(Stdio::null());
    let mut without = Killed(without.stderr(Stdio::piped()).spawn().unwrap());
    let log = BufReader::new(without.0.stderr.take().unwrap());
    let (warned, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let of_one = |line: &String| line.contains("hosts leaves again") && line.ends_with(": 1");
        let _ = warned.send(log.lines().map_while(Result::ok).find(of_one));
    });
    let line = seen.recv_timeout(support::DEADLINE);
    assert!(line.unwrap().is_some(), "it ends, and has said nothing");
    let home = run_in(&dir, &["agent", "migrate", "sensor", "host"]);
    assert_eq!(home.code(), 3);
    assert!(
        home.stderr().contains("hosts no leaves"),
        "{}",
        home.stderr()
    );
    drop(without);

    let node = Node::run(&dir, &["mesh", "start", "--leaf-serial", &serial]);
    support::until("the leaf is there again", || state(&node, "connected"));
    node.json(&["agent", "migrate", "sensor", "host"]);
    let report = node.json(&["agent", "inspect", &agent]);
    assert_eq!(report["node"], node.id());
    node.json(&["mesh", "leaf", "remove", "soft"]);
    node.stop();
    drop(kept);
}

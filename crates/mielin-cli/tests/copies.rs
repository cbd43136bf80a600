//! Copies of agents from the command line: files, and agents that are made of them.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use support::{Node, keys, sample};

fn ask(node: &Node, agent: &str, words: &str) -> String {
    let answer = node.json(&["agent", "send", agent, words, "--wait"]);
    answer["reply"].as_str().unwrap().to_owned()
}

#[test]
fn a_checkpoint_is_a_private_file_and_becomes_an_agent() {
    let first = Node::found("first");
    let second = first.join("second", "core");
    first.spawn(&[&sample("counter.wasm"), "--name", "counter"]);
    assert_eq!(ask(&first, "counter", "one"), "1: one");
    let path = first.dir.join("counter.checkpoint");
    let file = path.to_str().unwrap();
    fs::write(&path, "in the way").unwrap();
    // From the node on which it is not.
    let line = ["-o", "json", "agent", "checkpoint", "counter", "-o", file];
    let written = second.mielin(&line).json();
    assert_eq!(keys(&written), ["bytes", "file"]);
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.len(), written["bytes"].as_u64().unwrap());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(ask(&first, "counter", "two"), "2: two");

    let taken = second.mielin(&["agent", "restore", file]);
    assert_eq!(taken.code(), 3);
    assert!(taken.stderr().contains("--name"), "{}", taken.stderr());
    let line = ["agent", "restore", file, "--name", "copy"];
    let restored = second.json(&line);
    assert_eq!(keys(&restored), ["agent"]);
    assert_eq!(ask(&first, "copy", "b"), "2: b");
    assert_eq!(ask(&first, "counter", "three"), "3: three");

    // Nothing is left of attempts that fail.
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none");
    let line = [
        "agent",
        "checkpoint",
        "nobody",
        "-o",
        none.to_str().unwrap(),
    ];
    assert_eq!(first.mielin(&line).code(), 4);
    let directory = [
        "agent",
        "checkpoint",
        "copy",
        "-o",
        folder.path().to_str().unwrap(),
    ];
    assert_eq!(first.mielin(&directory).code(), 2);
    let below = none.join("file");
    let line = ["agent", "checkpoint", "copy", "-o", below.to_str().unwrap()];
    assert_eq!(first.mielin(&line).code(), 4);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let cut = first.mielin(&["agent", "restore", file]);
    assert_eq!(cut.code(), 3);
    assert!(cut.stderr().contains("cut off"), "{}", cut.stderr());
    let module = first.mielin(&["agent", "restore", &sample("counter.wasm")]);
    assert_eq!(module.code(), 3);
    assert!(
        module.stderr().contains("not a checkpoint"),
        "{}",
        module.stderr()
    );
    assert_eq!(
        first
            .mielin(&["agent", "restore", none.to_str().unwrap()])
            .code(),
        4
    );
}

#[test]
fn a_clone_lives_on_the_node_that_is_named() {
    let first = Node::found("first");
    let second = first.join("second", "core");
    first.spawn(&[&sample("counter.wasm"), "--name", "counter"]);
    assert_eq!(ask(&first, "counter", "one"), "1: one");
    let here = second.json(&["agent", "clone", "counter"]);
    assert_eq!(keys(&here), ["agent"]);
    let there = second.json(&["agent", "clone", "counter", "first", "--name", "there"]);
    for (clone, node) in [(here, "second"), (there, "first")] {
        let agent = clone["agent"].as_str().unwrap();
        let details = first.json(&["agent", "inspect", agent]);
        assert_eq!(details["node_name"], node);
        assert_eq!(ask(&first, agent, "b"), "2: b");
    }
    assert_eq!(ask(&second, "counter", "two"), "2: two");
    let taken = second.mielin(&["agent", "clone", "counter", "--name", "there"]);
    assert_eq!(taken.code(), 3);
    assert!(taken.stderr().contains("--name"), "{}", taken.stderr());
    assert_eq!(
        second
            .mielin(&["agent", "clone", "counter", "nowhere"])
            .code(),
        4
    );
}

#[test]
fn a_node_that_takes_no_moves_takes_no_clones_of_others() {
    let first = Node::found("first");
    let folder = tempfile::tempdir().unwrap();
    let token = first.token();
    let joining = [
        &first.joining(&token)[..],
        &["--name", "closed", "--migration", "off"],
    ];
    let closed = Node::run(&folder.path().join("data"), &joining.concat());
    first.spawn(&[&sample("counter.wasm"), "--name", "counter"]);
    first.sees(2);
    let refused = first.mielin(&["agent", "clone", "counter", "closed"]);
    assert_eq!(refused.code(), 3);
    assert!(
        refused.stderr().contains("switched off"),
        "{}",
        refused.stderr()
    );
    // Its own user may.
    closed.spawn(&[&sample("counter.wasm"), "--name", "own"]);
    closed.json(&["agent", "clone", "own"]);
}

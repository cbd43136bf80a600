//! Copies of agents from the command line: files, and agents that are made of them.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};

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
    let line = ["agent", "restore", "-", "--name", "piped"];
    support::run_in_with(&first.dir, &line, fs::File::open(&path).unwrap()).ok();
    assert_eq!(ask(&second, "piped", "b"), "2: b");

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

/// Only a file is replaced: a link still leads where it led, and a pipe is written to.
#[test]
fn a_checkpoint_goes_to_what_is_there() {
    let node = Node::found("alone");
    node.spawn(&[&sample("counter.wasm"), "--name", "counter"]);
    assert_eq!(ask(&node, "counter", "one"), "1: one");
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let checkpoint = |name: &str| {
        let path = at(name);
        let line = ["agent", "checkpoint", "counter", "-o"];
        node.mielin(&[&line[..], &[path.to_str().unwrap()]].concat())
    };
    let mut copies = 0;
    let mut is_whole = |bytes: &[u8]| {
        let file = at("read");
        fs::write(&file, bytes).unwrap();
        copies += 1;
        let name = format!("copy-{copies}");
        let line = ["agent", "restore", file.to_str().unwrap(), "--name", &name];
        node.mielin(&line).ok();
        assert_eq!(ask(&node, &name, "b"), "2: b");
    };

    fs::write(at("file"), "in the way").unwrap();
    symlink("file", at("link")).unwrap();
    symlink("absent", at("dangling")).unwrap();
    for (link, file) in [("link", "file"), ("dangling", "absent")] {
        checkpoint(link).ok();
        assert_eq!(fs::read_link(at(link)).unwrap().to_str(), Some(file));
        is_whole(&fs::read(at(file)).unwrap());
    }

    let made = std::process::Command::new("mkfifo")
        .arg(at("pipe"))
        .status();
    assert!(made.unwrap().success());
    let pipe = at("pipe");
    let reading = std::thread::spawn(move || fs::read(pipe).unwrap());
    checkpoint("pipe").ok();
    assert!(
        fs::symlink_metadata(at("pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    is_whole(&reading.join().unwrap());

    symlink("/dev/null", at("null")).unwrap();
    checkpoint("null").ok();
    assert!(
        fs::metadata(at("null"))
            .unwrap()
            .file_type()
            .is_char_device()
    );

    symlink("around", at("around")).unwrap();
    assert_ne!(checkpoint("around").code(), 0);

    // What is said about it does not stand in its way, under whichever name.
    symlink("/proc/self/fd/1", at("stdout")).unwrap();
    for name in ["-", at("stdout").to_str().unwrap()] {
        let ran = node.mielin(&["-o", "json", "agent", "checkpoint", "counter", "-o", name]);
        let said: serde_json::Value = serde_json::from_str(&ran.stderr()).unwrap();
        assert_eq!(said["file"], "standard output");
        let bytes = ran.ok();
        assert_eq!(said["bytes"], bytes.len());
        is_whole(&bytes);
    }
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

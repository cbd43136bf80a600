//! A JavaScript engine, compiled from C that knows nothing of agents, is moved while it runs a script.
//!
//! `cargo xtask quickjs` makes the engine, so `cargo xtask test` runs this, and plain `cargo test` does not.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use support::{Node, until};

/// Enough that the script is far from its end after the tenth move.
const ROUNDS: &str = "800";

/// A file that is there, by its path from the root of the repository.
fn file(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join(path).display().to_string();
    assert!(
        Path::new(&path).exists(),
        "{path} is missing: `cargo xtask quickjs` builds the engine"
    );
    path
}

/// Spawns the script at a node. QuickJS gives itself up where there is no clock.
fn spawn(node: &Node, name: &str) -> String {
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or("target".into());
    let engine = file(&format!("{target}/xtask/quickjs/qjs.wasm"));
    let script = file("agents/quickjs/mixture.js");
    let line = ["--name", name, "--allow", "clock", "--stdin", &script];
    node.spawn(&[&[&engine[..]], &line[..], &["--", ROUNDS]].concat())
}

fn stdout(node: &Node, agent: &str) -> String {
    String::from_utf8(node.mielin(&["agent", "logs", agent]).ok()).unwrap()
}

#[test]
fn javascript_is_moved_ten_times_between_engines() {
    let compiled = Node::found_with("compiled", &["--engine", "wasmtime"]);
    let interpreted = compiled.join_with("interpreted", "core", &["--engine", "wasmi"]);
    let stayed = spawn(&compiled, "stayed");
    assert_eq!(compiled.json(&["agent", "wait", &stayed])["exit_code"], 0);
    let expected = stdout(&compiled, &stayed);
    assert_eq!(
        expected.lines().count(),
        1 + ROUNDS.parse::<usize>().unwrap()
    );

    let moved = spawn(&compiled, "moved");
    let mut lines = 0;
    for (number, strategy) in [
        "stop-copy",
        "post-copy",
        "pre-copy",
        "hybrid",
        "auto",
        "pre-copy",
        "hybrid",
        "auto",
        "post-copy",
        "stop-copy",
    ]
    .into_iter()
    .enumerate()
    {
        // It has gone on where it is.
        lines = until("another line", || {
            let now = stdout(&compiled, &moved).lines().count();
            (now > lines).then_some(now)
        });
        let to = [&interpreted, &compiled][number % 2];
        let line = ["agent", "migrate", &moved, to.id(), "--strategy", strategy];
        let report = compiled.json(&line);
        assert_eq!(report["to"], to.id(), "{strategy}");
        println!("{strategy} at line {lines}: {report}");
    }
    assert!(
        stdout(&compiled, &moved).lines().count() < expected.lines().count(),
        "the script ended before its tenth move did: it needs more rounds"
    );
    assert_eq!(compiled.json(&["agent", "wait", &moved])["exit_code"], 0);
    let got = stdout(&compiled, &moved);
    let differing = expected.lines().zip(got.lines()).find(|(a, b)| a != b);
    assert!(got == expected, "not what it prints unmoved: {differing:?}");
}

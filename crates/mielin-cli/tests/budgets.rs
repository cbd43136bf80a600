//! Budgets from the command line, and the table of what agents use up.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;
use support::{Node, keys, mielin, run, sample, until};

/// A file with a program that never ends and calls nobody.
fn spin(node: &Node) -> String {
    let module = wat::parse_str(
        r#"(module (memory (export "memory") 1) (func (export "_start") (loop $again (br $again))))"#,
    );
    let path = node.dir.join("spin.wasm");
    fs::write(&path, module.unwrap()).unwrap();
    path.display().to_string()
}

#[test]
fn a_loop_is_ended_when_its_time_is_used_up() {
    let node = Node::found("alone");
    node.spawn(&[
        &spin(&node),
        "--name",
        "spin",
        "--budget",
        "cpu=60ms,memory=1MiB",
    ]);
    assert_eq!(node.json(&["agent", "wait", "spin"])["exit_code"], 152);
    let said = String::from_utf8(node.mielin(&["agent", "wait", "spin"]).ok()).unwrap();
    assert_eq!(said, "152 (its budget cpu=60ms is used up)\n");
    let agent = node.json(&["agent", "inspect", "spin"]);
    assert!(agent["cpu_us"].as_u64().unwrap() >= 60_000, "{agent}");
    assert_eq!(agent["memory_bytes_max"], 1 << 20);
    assert_eq!(agent["budgets"][0]["budget"], "memory=1MiB");
    let time = &agent["budgets"][1];
    assert_eq!(keys(time), ["budget", "max", "used"]);
    assert_eq!(
        (&time["budget"], &time["max"]),
        (&"cpu=60ms".into(), &60_000_000.into())
    );
    assert!(time["used"].as_u64() >= time["max"].as_u64(), "{time}");
    let text = String::from_utf8(node.mielin(&["agent", "inspect", "spin"]).ok()).unwrap();
    assert!(
        text.contains("budgets: memory=1MiB (6%) cpu=60ms (1"),
        "{text}"
    );
}

#[test]
fn the_table_shows_who_uses_what_on_which_node() {
    let first = Node::found("first");
    let mut second = first.join("second", "core");
    let spin = spin(&first);
    first.spawn(&[&spin, "--name", "busy"]);
    first.spawn(&[
        &spin, "--name", "slow", "--budget", "cpu=5%", "--budget", "cpu=1h",
    ]);
    second.spawn(&[&sample("counter.wasm"), "--name", "counter"]);
    assert_eq!(
        second.json(&["agent", "send", "counter", "one", "--wait"])["reply"],
        "1: one"
    );
    until("all are listed", || {
        let list = first.json(&["agent", "list"]);
        (list["agents"].as_array()?.len() == 3).then_some(())
    });
    let top = first.json(&["agent", "top", "--once"]);
    assert_eq!(keys(&top), ["agents", "interval_ms"]);
    let of = |name: &str| -> Value {
        let agents = top["agents"].as_array().unwrap();
        agents
            .iter()
            .find(|agent| agent["name"] == name)
            .unwrap()
            .clone()
    };
    let (busy, slow, counter) = (of("busy"), of("slow"), of("counter"));
    assert_eq!(top["agents"][0], busy, "the busiest comes first");
    assert_eq!(
        keys(&busy),
        [
            "agent",
            "budgets",
            "cpu_percent",
            "cpu_us",
            "host_calls",
            "log_bytes",
            "memory_bytes",
            "memory_bytes_max",
            "messages_received",
            "messages_sent",
            "name",
            "node",
            "state",
            "throttled",
        ]
    );
    // Its turn has not ended yet, for nobody else waits for a thread.
    assert!(busy["cpu_us"].as_u64() > slow["cpu_us"].as_u64(), "{top}");
    assert!(
        busy["cpu_percent"].as_f64() > slow["cpu_percent"].as_f64(),
        "{top}"
    );
    assert_eq!(slow["budgets"][0]["budget"], "cpu=1h");
    assert_eq!(keys(&slow["budgets"][1]), ["budget"]);
    assert_eq!(counter["node"]["name"], "second");
    assert_eq!(
        (
            &counter["messages_received"],
            &counter["messages_sent"],
            &counter["state"]
        ),
        (&1.into(), &1.into(), &"waiting".into())
    );
    let table = first
        .mielin(&["agent", "top", "--once", "--sort", "name"])
        .ok();
    let table = String::from_utf8(table).unwrap();
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("3 agents, "), "{table}");
    assert!(lines[2].starts_with("NAME     STATE"), "{table}");
    let names = lines[3..]
        .iter()
        .map(|line| line.split(' ').next().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["busy", "counter", "slow"]);
    assert!(
        table.contains("cpu=1h (0%) cpu=5%") && !table.contains('\x1b'),
        "{table}"
    );

    // Without --once it goes on, one line of JSON each second.
    let mut watching = mielin()
        .arg("--data-dir")
        .arg(&first.dir)
        .args(["agent", "top", "-o", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    for line in lines.take(2) {
        let top: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!(top["agents"].as_array().unwrap().len(), 3);
    }
    watching.kill().unwrap();
    watching.wait().unwrap();
    // Of a node that is gone nothing is known, and its agents are not left out.
    second.signal("-KILL");
    second.ended();
    let top = first.json(&["agent", "top", "--once", "--sort", "node"]);
    let agents = top["agents"].as_array().unwrap();
    let gone = agents
        .iter()
        .find(|agent| agent["name"] == "counter")
        .unwrap();
    assert_eq!(
        (&gone["state"], &gone["cpu_percent"]),
        (&"unreachable".into(), &Value::Null)
    );
    assert_eq!(
        keys(gone),
        ["agent", "cpu_percent", "name", "node", "state"]
    );
    assert_eq!(top["silent"], serde_json::json!([gone["node"]["node"]]));
}

#[test]
fn budgets_that_are_none_are_refused_with_what_to_write() {
    let node = Node::found("alone");
    let hello = sample("hello.wasm");
    for (budget, says) in [
        ("cpu", "write WHAT=AMOUNT"),
        (
            "time=1s",
            "there are cpu, memory, messages, log and host-calls",
        ),
        (
            "cpu=10",
            "a time with ms, s, m or h, such as 10s, or a share",
        ),
        ("", "`` is not a budget"),
        ("cpu=150%", "1% to 100%"),
        ("cpu=0s", "`0s` is not an amount of cpu"),
        ("messages=-1", "such as 1000 or 5M"),
        ("messages=10/d", "such as 100/s (or /m, /h)"),
        ("log=1MB", "a size, such as 64KiB or 1MiB"),
        ("memory=lots", "a size, such as 64MiB"),
        ("memory=1KiB/s", "a size, such as 64MiB"),
        ("host-calls=99999999999999999999", "such as 1000 or 5M"),
        ("cpu=1s,cpu=2s", "two budgets for cpu"),
    ] {
        let ran = node.mielin(&["agent", "spawn", &hello, "--budget", budget]);
        assert_eq!(ran.code(), 2, "{budget}: {}", ran.stderr());
        let stderr = ran.stderr();
        assert!(
            stderr.contains(says) && stderr.contains("\n  hint: "),
            "{budget}: {stderr}"
        );
    }
    let twice = [
        "agent", "spawn", &hello, "--budget", "log=1", "--budget", "log=2",
    ];
    assert!(node.mielin(&twice).stderr().contains("two budgets for log"));
    for (budget, says) in [
        ("memory=2GiB", "at most 536870912 are allowed"),
        (
            "memory=1KiB",
            "hint: give it at least --budget memory=128KiB",
        ),
    ] {
        let ran = node.mielin(&["agent", "spawn", &hello, "--budget", budget]);
        assert_eq!(ran.code(), 3, "{}", ran.stderr());
        assert!(ran.stderr().contains(says), "{}", ran.stderr());
    }
    assert_eq!(
        node.json(&["agent", "list"])["agents"],
        serde_json::json!([])
    );
    assert_eq!(run(&["agent", "top", "--sort", "beauty"]).code(), 2);
    let nowhere = node.dir.join("nowhere");
    let ran = support::run_in(&nowhere, &["agent", "top"]);
    assert_eq!(ran.code(), 5, "{}", ran.stderr());
}

//! `mielin demo`, to its end and broken off.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{mielin, until};

#[test]
fn the_demo_moves_everything_and_cleans_up() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("input.txt");
    fs::write(&input, "a rose is a rose is a rose").unwrap();
    let temporary = dir.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let output = mielin()
        .args(["demo", "-o", "json", "--input"])
        .arg(&input)
        .env("TMPDIR", &temporary)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = &report["checks"];
    assert_eq!(
        (&checks["ok"], &checks["digest_equal"]),
        (&true.into(), &true.into())
    );
    assert!(checks["messages"]["sent"].as_u64().unwrap() >= 40);
    assert_eq!(checks["messages"]["sent"], checks["messages"]["answered"]);
    let way: Vec<String> = report["moves"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            format!("{} {} {}", row["name"], row["from_name"], row["to_name"]).replace('"', "")
        })
        .collect();
    assert_eq!(
        way,
        [
            "digest edge relay",
            "counter edge relay",
            "digest relay core",
            "counter relay core"
        ]
    );
    assert_eq!(
        fs::read_dir(&temporary).unwrap().count(),
        0,
        "nothing is left behind"
    );
}

/// How long the digest takes is a guess; a wrong one costs time and nothing else.
#[test]
fn a_digest_that_is_done_too_soon_starts_again_with_more_to_do() {
    let output = mielin()
        .args(["demo", "-o", "json", "--rounds", "500000"])
        .args(["--input", env!("CARGO_MANIFEST_PATH")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["moves"].as_array().unwrap().len(), 4);
    assert!(report["rounds"].as_u64().unwrap() > 500_000);
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = mielin()
        .args(["demo", "--input", env!("CARGO_MANIFEST_PATH")])
        .env("TMPDIR", dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut progress = BufReader::new(demo.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("moving both") {
        line.clear();
        assert!(
            progress.read_line(&mut line).unwrap() > 0,
            "the demo ended before it moved anything"
        );
    }
    assert!(
        Command::new("kill")
            .args(["-INT", &demo.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    let status = until("the end of the demo", || demo.try_wait().unwrap());
    assert_eq!(status.code(), Some(3));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

//! The whole path of an agent over real daemons: started, talked to, moved, ended.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use support::{Node, keys, mielin, sample, until};

/// Rounds of the digest that take some seconds.
const LONG: &str = "6000000";

#[test]
fn an_agent_runs_to_its_end() {
    let node = Node::found("alone");
    let agent = node.spawn(&[
        &sample("hello.wasm"),
        "--name",
        "greeter",
        "--",
        "one",
        "two",
    ]);
    assert_eq!(agent.len(), 32);
    let ended = node.json(&["agent", "wait", "greeter"]);
    assert_eq!(keys(&ended), ["exit_code"]);
    assert_eq!(ended["exit_code"], 0);
    let log = node.mielin(&["agent", "logs", &agent[..8]]).ok();
    assert!(!log.is_empty());
    assert_eq!(
        node.mielin(&["agent", "logs", "-f", &agent]).ok(),
        log,
        "following ends with the agent"
    );
    let list = node.json(&["agent", "list"]);
    assert_eq!(keys(&list), ["agents"]);
    let line = &list["agents"][0];
    assert_eq!(keys(line), ["agent", "name", "node", "state"]);
    assert_eq!(
        (&line["name"], &line["state"], &line["node"]),
        (&"greeter".into(), &"ended".into(), &node.id().into())
    );
}

#[test]
fn input_and_output_are_kept_byte_for_byte() {
    let node = Node::found("alone");
    let input = node.dir.join("input.txt");
    fs::write(&input, "the cat and the dog\n").unwrap();
    let from_file = node.spawn(&[
        &sample("digest.wasm"),
        "--stdin",
        input.to_str().unwrap(),
        "--",
        "10",
    ]);
    node.json(&["agent", "wait", &from_file]);
    let log = String::from_utf8(node.mielin(&["agent", "logs", &from_file]).ok()).unwrap();
    assert!(log.starts_with("bytes    20\n"), "{log}");
    assert!(log.contains("       2 the\n"), "{log}");
    let progress =
        String::from_utf8(node.mielin(&["agent", "logs", "--stderr", &from_file]).ok()).unwrap();
    assert!(progress.contains("round 10 of 10"), "{progress}");

    let mut spawning = mielin()
        .arg("--data-dir")
        .arg(&node.dir)
        .args([
            "agent",
            "spawn",
            &sample("digest.wasm"),
            "--stdin",
            "-",
            "--",
            "10",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    spawning
        .stdin
        .take()
        .unwrap()
        .write_all(b"the cat and the dog\n")
        .unwrap();
    let output = spawning.wait_with_output().unwrap();
    let piped = String::from_utf8(output.stdout).unwrap();
    node.json(&["agent", "wait", piped.trim()]);
    assert_eq!(
        node.mielin(&["agent", "logs", piped.trim()]).ok(),
        log.as_bytes()
    );
}

#[test]
fn files_go_with_their_agent() {
    let first = Node::found("first");
    let second = first.join("second", "core");
    let line = [
        &sample("notebook.wasm"),
        "--name",
        "notes",
        "--allow",
        "data:8MiB",
    ];
    first.spawn(&line);
    let ask = |node: &Node, command: &str| {
        let answer = node.json(&["agent", "send", "notes", command, "--wait"]);
        answer["reply"].as_str().unwrap().to_owned()
    };
    assert_eq!(ask(&first, "add list milk"), "5");
    assert_eq!(ask(&first, "fill large 4096"), "filled");
    first.json(&["agent", "migrate", "notes", "second"]);
    let agent = second.json(&["agent", "inspect", "notes"]);
    assert_eq!(
        (&agent["grants"], &agent["node_name"]),
        (&"data:8MiB".into(), &"second".into())
    );
    assert_eq!(ask(&second, "add list bread"), "11");
    assert_eq!(ask(&second, "read list"), "milk\nbread\n");
    // What is left of 8 MiB, beside a block for the list, is less than this.
    let full = ask(&second, "fill large 4096");
    assert!(full.contains("No space left on device"), "{full}");
    let outside = second.dir.to_str().unwrap();
    for path in ["../../etc/passwd", "/etc/passwd", outside] {
        let answer = ask(&second, &format!("read {path}"));
        assert!(answer.starts_with("error: "), "{path}: {answer}");
    }
}

#[test]
fn an_agent_answers_is_paused_and_ended() {
    let node = Node::found("alone");
    node.spawn(&[&sample("counter.wasm"), "--name", "counter"]);
    assert_eq!(
        node.json(&["agent", "send", "counter", "one", "--wait"])["reply"],
        "1: one"
    );
    assert!(node.json(&["agent", "send", "counter", "two"])["sequence"].is_u64());
    assert_eq!(
        node.mielin(&["agent", "send", "counter", "three", "--wait"])
            .ok(),
        b"3: three\n"
    );

    node.mielin(&["agent", "pause", "counter"]).ok();
    until("the pause", || {
        (node.json(&["agent", "inspect", "counter"])["state"] == "paused").then_some(())
    });
    let late = node.mielin(&[
        "agent",
        "send",
        "counter",
        "four",
        "--wait",
        "--timeout",
        "1s",
    ]);
    assert_eq!(late.code(), 5, "{}", late.stderr());
    node.mielin(&["agent", "resume", "counter"]).ok();
    assert_eq!(
        node.json(&["agent", "send", "counter", "five", "--wait"])["reply"],
        "5: five"
    );

    node.mielin(&["agent", "terminate", "counter"]).ok();
    assert_eq!(node.json(&["agent", "wait", "counter"])["exit_code"], 137);
    let refused = node.mielin(&["agent", "send", "counter", "six"]);
    assert_eq!(refused.code(), 3, "{}", refused.stderr());
}

#[test]
fn agents_move_while_they_work_and_every_node_knows() {
    let core = Node::found("core");
    let edge = core.join("edge", "edge");
    core.sees(2);
    edge.sees(2);
    let input = edge.dir.join("input.txt");
    fs::write(&input, "to be or not to be").unwrap();
    let stdin = input.to_str().unwrap();
    edge.spawn(&[
        &sample("digest.wasm"),
        "--name",
        "traveller",
        "--stdin",
        stdin,
        "--",
        LONG,
    ]);
    edge.spawn(&[&sample("counter.wasm"), "--name", "counter"]);
    assert_eq!(
        edge.json(&["agent", "send", "counter", "a", "--wait"])["reply"],
        "1: a"
    );

    for (agent, strategy) in [("traveller", "pre-copy"), ("counter", "stop-copy")] {
        let moved = edge.json(&["agent", "migrate", agent, "core", "--strategy", strategy]);
        assert_eq!(
            keys(&moved),
            [
                "agent",
                "bytes",
                "downtime_us",
                "faults",
                "followed",
                "from",
                "page_bytes",
                "page_bytes_sent",
                "pages",
                "phases",
                "rounds",
                "strategy",
                "target_resume_us",
                "throttled_percent",
                "to",
                "total_us",
                "tracker",
                "unchanged"
            ]
        );
        assert_eq!(
            (&moved["from"], &moved["to"]),
            (&edge.id().into(), &core.id().into())
        );
        assert_eq!(moved["strategy"], strategy);
        assert!(moved["downtime_us"].as_u64().unwrap() <= moved["total_us"].as_u64().unwrap());
        assert!(moved["bytes"].as_u64().unwrap() > 0);
    }
    assert_eq!(
        edge.json(&["agent", "send", "counter", "b", "--wait"])["reply"],
        "2: b"
    );
    assert_eq!(
        core.json(&["agent", "send", "counter", "c", "--wait"])["reply"],
        "3: c"
    );
    for node in [&core, &edge] {
        let at_core = || {
            let list = node.json(&["agent", "list"]);
            let agents = list["agents"].as_array().unwrap();
            (agents.len() == 2 && agents.iter().all(|agent| agent["node"] == core.id()))
                .then_some(())
        };
        until("the news of the moves", at_core);
    }
    // It can be commanded and read from either node, from its first byte on.
    let back = core.json(&["agent", "migrate", "traveller", edge.id()]);
    assert_eq!(back["to"], edge.id());
    core.spawn(&[
        &sample("digest.wasm"),
        "--name",
        "homebody",
        "--stdin",
        stdin,
        "--",
        LONG,
    ]);
    for agent in ["traveller", "homebody"] {
        assert_eq!(core.json(&["agent", "wait", agent])["exit_code"], 0);
    }
    for stream in [&["agent", "logs"][..], &["agent", "logs", "--stderr"]] {
        let line = |agent| [stream, &[agent]].concat();
        let stayed = core.mielin(&line("homebody")).ok();
        for node in [&core, &edge] {
            assert_eq!(node.mielin(&line("traveller")).ok(), stayed);
        }
    }
}

#[test]
fn what_one_node_answered_for_the_others_know() {
    let core = Node::found("core");
    let edge = core.join("edge", "edge");
    // No waiting for membership or news: whoever asks at once is answered too.
    for round in 0..5 {
        let name = format!("hello-{round}");
        edge.spawn(&[&sample("hello.wasm"), "--name", &name]);
        assert_eq!(core.json(&["agent", "wait", &name])["exit_code"], 0);
    }
}

#[test]
fn agents_of_a_node_that_is_gone_are_refused_with_its_name_and_not_waited_for() {
    let core = Node::found("core");
    let edge = core.join("edge", "edge");
    core.spawn(&[&sample("counter.wasm"), "--name", "here"]);
    edge.spawn(&[&sample("counter.wasm"), "--name", "there"]);
    core.sees(2);
    core.json(&["agent", "send", "there", "x", "--wait"]);
    let refused = |says: &str| {
        for line in [
            &["agent", "inspect", "there"][..],
            &["agent", "wait", "there"],
            &["agent", "logs", "-f", "there"],
            &["agent", "pause", "there"],
            &["agent", "send", "there", "x"],
            &["agent", "send", "there", "x", "--wait"],
            &["agent", "migrate", "there", "core"],
            &["agent", "migrate", "here", "edge"],
        ] {
            let ran = core.mielin(line);
            assert_eq!(ran.code(), 5, "{line:?}: {}", ran.stderr());
            let stderr = ran.stderr();
            assert!(
                stderr.contains("node edge (") && stderr.contains(says),
                "{line:?}: {stderr}"
            );
        }
        let list = core.json(&["agent", "list"]);
        let agents = list["agents"].as_array().unwrap();
        let states: Vec<_> = agents.iter().map(|agent| agent["state"].clone()).collect();
        assert_eq!(states, ["waiting", "unreachable"]);
    };
    let (id, dir) = (edge.id().to_owned(), edge.dir.clone());
    let _kept = edge.stop();
    refused("was stopped");
    let mut edge = Node::run(&dir, &["daemon", "--bind", "127.0.0.1:0"]);
    core.sees(2);
    // It brought its agent back, which answers as if nothing had been.
    until("the agent's return", || {
        let ran = core.mielin(&["agent", "send", "there", "y", "--wait"]);
        (ran.stdout() == "2: y\n").then_some(())
    });
    // A command that waits is told, too, when membership has decided.
    let mut waiting = mielin()
        .arg("--data-dir")
        .arg(&core.dir)
        .args(["agent", "wait", "there"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    edge.signal("-KILL");
    edge.ended();
    let status = until("the end of waiting", || waiting.try_wait().unwrap());
    assert_eq!(status.code(), Some(5));
    until("the node's death", || {
        (core.state_of(&id).as_deref() == Some("dead")).then_some(())
    });
    refused("was declared dead");
}

/// Whoever is told that a message was not sent sends it again; whoever is told that it was does not.
#[test]
fn a_sender_is_told_the_truth_of_a_message_to_a_node_that_is_gone_and_comes_back() {
    let core = Node::found("core");
    let edge = core.join("edge", "edge");
    let id = edge.id().to_owned();
    core.sees(2);
    edge.spawn(&[&sample("counter.wasm"), "--name", "there"]);
    edge.signal("-STOP");
    let sent = [
        "agent",
        "send",
        "there",
        "one",
        "--wait",
        "--timeout",
        "60s",
    ];
    let ran = core.mielin(&sent);
    assert_eq!(ran.code(), 5, "{}", ran.stderr());
    assert!(
        ran.stderr().contains("the message was sent before"),
        "{}",
        ran.stderr()
    );
    for refused in [
        &["agent", "send", "there", "none", "--wait"][..],
        &["agent", "send", "there", "none"],
    ] {
        let ran = core.mielin(refused);
        assert_eq!(ran.code(), 5, "{}", ran.stderr());
        let said = ran.stderr();
        assert!(said.contains("the message was not sent"), "{said}");
    }
    edge.signal("-CONT");
    until("the node's return", || {
        (core.state_of(&id).as_deref() == Some("alive")).then_some(())
    });
    let sent = [
        "agent",
        "send",
        "there",
        "two",
        "--wait",
        "--timeout",
        "60s",
    ];
    assert_eq!(core.json(&sent)["reply"], "2: two");
}

#[test]
fn following_a_log_shows_bytes_as_they_come() {
    let node = Node::found("alone");
    node.spawn(&[&sample("digest.wasm"), "--name", "digest", "--", LONG]);
    let mut following = mielin()
        .arg("--data-dir")
        .arg(&node.dir)
        .args(["agent", "logs", "--follow", "--stderr", "digest"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    lines.read_line(&mut line).unwrap();
    assert!(line.contains("round"), "{line}");
    let state = node.json(&["agent", "inspect", "digest"])["state"].clone();
    assert_eq!(
        state, "running",
        "the log arrived before the agent had ended"
    );
    node.mielin(&["agent", "terminate", "digest"]).ok();
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert!(following.wait().unwrap().success());
}

#[test]
fn agents_survive_a_restart_of_their_node() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = Node::run(&data, &["mesh", "start", "--bind", "127.0.0.1:0"]);
    node.spawn(&[&sample("counter.wasm"), "--name", "counter"]);
    assert_eq!(
        node.json(&["agent", "send", "counter", "a", "--wait"])["reply"],
        "1: a"
    );
    node.stop();
    let node = Node::run(&data, &["daemon", "--bind", "127.0.0.1:0"]);
    assert_eq!(
        node.json(&["agent", "send", "counter", "b", "--wait"])["reply"],
        "2: b"
    );
}

/// From when a node begins to bring its agents back they are on the disk no more.
#[test]
fn agents_survive_starts_that_fail_and_one_that_is_told_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = Node::run(&data, &["mesh", "start", "--bind", "127.0.0.1:0"]);
    node.spawn(&[&sample("counter.wasm"), "--name", "counter"]);
    let count = |node: &Node, answer: &str| {
        let sent = node.json(&["agent", "send", "counter", "a", "--wait"]);
        assert_eq!(sent["reply"], answer);
    };
    count(&node, "1: a");
    node.stop();
    let daemon = |stdout: Stdio| {
        let mut command = support::mielin();
        let options = ["daemon", "--bind", "127.0.0.1:0", "--mdns", "off"];
        command.args(options).arg("--data-dir").arg(&data);
        command.stdout(stdout).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let failed = |child: std::process::Child, why: &str| {
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && stderr.contains(why), "{stderr}");
    };
    let full = std::fs::File::options().write(true).open("/dev/full");
    failed(daemon(full.unwrap().into()), "standard output");
    let socket = data.join("control.sock");
    std::fs::create_dir(&socket).unwrap();
    failed(daemon(Stdio::null()), "remove it");
    std::fs::remove_dir(&socket).unwrap();
    // It opens its socket before it touches its agents.
    let mut child = daemon(Stdio::null());
    support::until("its socket", || socket.exists().then_some(()));
    let pid = child.id().to_string();
    let told = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(told.unwrap().success());
    let ended = support::until("its end", || child.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
    let node = Node::run(&data, &["daemon", "--bind", "127.0.0.1:0"]);
    count(&node, "2: a");
}

#[test]
fn an_instrumented_file_is_the_module_that_agents_run() {
    let node = Node::found("alone");
    let out = node.dir.join("hello.resumable.wasm");
    let hello = sample("hello.wasm");
    node.mielin(&["wasm", "instrument", &hello, "-o", out.to_str().unwrap()])
        .ok();
    // Through pipes it is the same, and what is said about it does not stand in its way.
    let piped = |line: &[&str]| {
        let stdin = std::fs::File::open(&hello).unwrap();
        support::run_in_with(&node.dir, line, stdin)
    };
    let ran = piped(&["-o", "json", "wasm", "instrument", "-", "-o", "-"]);
    let said: serde_json::Value = serde_json::from_str(&ran.stderr()).unwrap();
    let bytes = std::fs::read(&out).unwrap();
    assert_eq!(said["bytes"], bytes.len());
    assert!(ran.ok() == bytes, "it is another one");
    let agent = node.spawn(&[&hello]);
    assert_eq!(
        node.json(&["agent", "inspect", &agent])["module"],
        said["module"]
    );
    // That it comes to safepoints, a node knows only of what it has rewritten itself.
    let refused = node.mielin(&["agent", "spawn", out.to_str().unwrap()]);
    assert_eq!(refused.code(), 3, "{}", refused.stderr());
    assert!(
        refused
            .stderr()
            .contains("as it was before `mielin wasm instrument`")
    );
}

#[test]
fn a_move_that_was_asked_for_and_not_done_is_named() {
    let here = Node::found("here");
    // Its engine does not let memory follow.
    let interpreted = here.join_with("interpreted", "core", &["--engine", "wasmi"]);
    here.spawn(&[&sample("counter.wasm"), "--name", "counter"]);
    let line = [
        "agent",
        "migrate",
        "counter",
        "interpreted",
        "--strategy",
        "post-copy",
    ];
    let moved = here.json(&line);
    assert_eq!(moved["to"], interpreted.id());
    assert_eq!(
        (&moved["strategy"], &moved["asked"]),
        (&"pre-copy".into(), &"post-copy".into())
    );
    let back = here.json(&[
        "agent",
        "migrate",
        "counter",
        "here",
        "--strategy",
        "pre-copy",
    ]);
    assert!(back["asked"].is_null(), "{back}");
}

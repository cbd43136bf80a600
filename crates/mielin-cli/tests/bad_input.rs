//! Whatever is wrong is said, with an exit code of its class and without damage.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::net::{TcpListener, UdpSocket};

use serde_json::Value;
use support::{Node, Ran, run, run_in, run_in_with, sample, until};

const USAGE: i32 = 2;
const REFUSED: i32 = 3;
const NOT_FOUND: i32 = 4;
const UNREACHABLE: i32 = 5;

/// Checks the exit code, and that a person is told this.
#[track_caller]
fn check(ran: &Ran, code: i32, says: &str) {
    assert_eq!(ran.code(), code, "{}", ran.stderr());
    let stderr = ran.stderr();
    assert!(stderr.contains(says), "`{says}` is missing in: {stderr}");
    // Ours have hints, those of the command-line parser point to the help or to what is possible.
    assert!(
        ["\n  hint: ", "try '--help'"]
            .iter()
            .any(|next| stderr.contains(next)),
        "what to do is missing in: {stderr}"
    );
    assert_eq!(ran.stdout(), "");
}

#[test]
fn command_lines() {
    for (line, says) in [
        (&["mesh", "stat"][..], "unrecognized subcommand"),
        (&["agent", "migrate", "a"], "NODE"),
        (
            &["agent", "migrate", "a", "b", "--strategy", "hope"],
            "invalid value 'hope'",
        ),
        (
            &["agent", "migrate", "a", "b", "--downtime-ms", "abc"],
            "`abc` is not a number of milliseconds; write a whole number",
        ),
        (
            &["agent", "migrate", "a", "b", "--downtime-ms", "-1"],
            "`-1` is not a number of milliseconds; write a whole number",
        ),
        (&["mesh", "token", "--ttl", "soon"], "not a span of time"),
        (&["mesh", "token", "--ttl", "31d"], "at most 30d"),
        (&["mesh", "token", "--uses", "0"], "1..=100"),
        (&["mesh", "approve", ""], "NODE"),
        (&["mesh", "revoke", ""], "NODE"),
        (&["agent", "inspect", ""], "AGENT"),
        (&["agent", "logs", ""], "AGENT"),
        (&["agent", "send", "", "x"], "AGENT"),
        (&["agent", "migrate", "a", ""], "NODE"),
        (&["mesh", "start", "--engine", "v8"], "wasmtime or wasmi"),
        (&["daemon", "--agents-max", "0"], "1..=131072"),
        (&["daemon", "--agents-max", "many"], "invalid"),
        (&["daemon", "--agents-max", "-5"], "1..=131072"),
        (&["daemon", "--agents-max", "1000000"], "1..=131072"),
        (&["daemon", "--live-instances-max", "16001"], "0..=16000"),
        (&["mesh", "start", "--bind", "here"], "invalid"),
        (&["agent", "spawn", "a.wasm", "--env", "X"], "NAME=VALUE"),
    ] {
        check(&run(line), USAGE, says);
    }
    let failure = run(&["-o", "json", "mesh", "stat"]);
    assert_eq!(failure.code(), USAGE);
    let document: Value = serde_json::from_str(&failure.stderr()).unwrap();
    assert_eq!(document["error"]["code"], "usage");
}

#[test]
fn no_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for command in [
        &["mesh", "status"][..],
        &["mesh", "leave"],
        &["agent", "list"],
        &["agent", "wait", "x"],
        &["agent", "spawn", &sample("hello.wasm")],
    ] {
        check(&run_in(&data, command), UNREACHABLE, "no daemon is running");
    }
    check(&run_in(&data, &["daemon"]), NOT_FOUND, "belongs to no node");
    let failure = run_in(&data, &["mesh", "status", "-o", "json"]);
    let document: Value = serde_json::from_str(&failure.stderr()).unwrap();
    assert_eq!(document["error"]["code"], "unreachable");
    assert!(
        document["error"]["hint"]
            .as_str()
            .unwrap()
            .contains("mielin mesh start")
    );
    assert!(!data.exists(), "asking made no directory");
}

#[test]
fn agents_and_nodes() {
    let node = Node::found("home");
    let counter = node.spawn(&[&sample("counter.wasm"), "--name", "counter"]);
    let unknown = "0123456789abcdef0123456789abcdef";
    for (line, code, says) in [
        (&["agent", "inspect", "nobody"][..], NOT_FOUND, "nobody"),
        (&["agent", "logs", unknown], NOT_FOUND, unknown),
        (
            &["agent", "wait", "../../v1/node"],
            NOT_FOUND,
            "../../v1/node",
        ),
        (&["agent", "terminate", "nobody"], NOT_FOUND, "agent list"),
        (&["agent", "send", "nobody", "x"], NOT_FOUND, "nobody"),
        (&["agent", "migrate", "nobody", "home"], NOT_FOUND, "nobody"),
        (
            &["agent", "migrate", "counter", "nowhere"],
            NOT_FOUND,
            "nowhere",
        ),
        (
            &["agent", "migrate", "counter", "home"],
            REFUSED,
            "already on node",
        ),
        (&["mesh", "approve", "nobody"], NOT_FOUND, "nobody"),
    ] {
        check(&node.mielin(line), code, says);
    }
    for (name, code, says) in [
        ("counter", REFUSED, "taken"),
        ("No Name", USAGE, "not a name"),
    ] {
        let line = ["agent", "spawn", &sample("counter.wasm"), "--name", name];
        check(&node.mielin(&line), code, says);
    }
    assert_eq!(
        node.json(&["agent", "send", "counter", "alive", "--wait"])["reply"],
        "1: alive"
    );
    assert_eq!(
        node.json(&["agent", "list"])["agents"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        node.json(&["agent", "list"])["agents"][0]["agent"],
        counter.as_str()
    );
}

/// Data beyond the end of the memory.
const BEYOND: &str = r#"(module (memory (export "memory") 1) (data (i32.const 65530) "beyond the end")
    (func (export "_start")))"#;

#[test]
fn modules_and_inputs() {
    let node = Node::found("home");
    let file = |name: &str, bytes: &[u8]| {
        let path = node.dir.join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let hello = fs::read(sample("hello.wasm")).unwrap();
    let foreign = wat::parse_str(
        r#"(module (import "env" "launch" (func)) (memory (export "memory") 1) (func (export "_start") call 0))"#,
    );
    let beyond = wat::parse_str(BEYOND);
    let modules = [
        (
            file("garbage.wasm", b"this is not wasm"),
            "not a WebAssembly module",
        ),
        (file("rubbish.wasm", b"\0asm\x01\0\0\0rubbish"), "refused"),
        (file("cut.wasm", &hello[..hello.len() / 2]), "refused"),
        (file("empty.wasm", b""), "not a WebAssembly module"),
        (
            file(
                "library.wasm",
                &wat::parse_str("(module (memory (export \"memory\") 1))").unwrap(),
            ),
            "_start",
        ),
        (file("foreign.wasm", &foreign.unwrap()), "launch"),
        (file("beyond.wasm", &beyond.unwrap()), "out of bounds"),
        (
            file(
                "large.wasm",
                &wat::parse_str(
                    "(module (memory (export \"memory\") 60000) (func (export \"_start\")))",
                )
                .unwrap(),
            ),
            "limit",
        ),
    ];
    for (module, says) in &modules {
        check(&node.mielin(&["agent", "spawn", module]), REFUSED, says);
    }
    let hello = sample("hello.wasm");
    let (hello, dir) = (hello.as_str(), node.dir.to_str().unwrap());
    for (rest, code, says) in [
        (&["/nowhere/x.wasm"][..], NOT_FOUND, "/nowhere/x.wasm"),
        (&[dir], USAGE, dir),
        (&[hello, "--stdin", "/nowhere/in"], NOT_FOUND, "/nowhere/in"),
        (&[hello, "--stdin", dir], USAGE, dir),
        (&[hello, "--allow", "everything"], USAGE, "everything"),
        (&[hello, "--allow", "data:513MiB"], USAGE, "at most 512MiB"),
        (&[hello, "--allow", "data:/etc"], USAGE, "data:/etc"),
        (&[hello, "--allow", "message:nobody"], NOT_FOUND, "nobody"),
    ] {
        let line = [&["agent", "spawn"][..], rest].concat();
        check(&node.mielin(&line), code, says);
    }
    let endless = "/dev/zero";
    for (line, says) in [
        (
            &["agent", "spawn", endless][..],
            "a module has at most 64.0 MiB",
        ),
        (
            &["agent", "spawn", hello, "--stdin", endless],
            "a program's input has at most 48.0 MiB",
        ),
        (
            &["wasm", "instrument", endless, "-o", "/nowhere/out"],
            "a module has at most 64.0 MiB",
        ),
    ] {
        check(&node.mielin(line), REFUSED, says);
    }
    for (line, says) in [
        (
            &["agent", "spawn", hello, "--stdin", "-"][..],
            "a program's input has at most 48.0 MiB",
        ),
        (
            &["agent", "send", "nobody", "-"],
            "a message has at most 16.0 MiB",
        ),
    ] {
        let stdin = fs::File::open(endless).unwrap();
        check(&run_in_with(&node.dir, line, stdin), REFUSED, says);
    }
    let out = node.dir.join("out.wasm");
    let line = [
        "wasm",
        "instrument",
        &modules[2].0,
        "-o",
        out.to_str().unwrap(),
    ];
    check(&node.mielin(&line), REFUSED, "cannot be made resumable");
    assert!(!out.exists());
    let line = ["wasm", "instrument", hello, "-o", out.to_str().unwrap()];
    assert_eq!(node.mielin(&line).code(), 0);
    let line = [
        &["wasm", "instrument", out.to_str().unwrap()][..],
        &["-o", "/nowhere/out"],
    ];
    check(&node.mielin(&line.concat()), REFUSED, "use it as it is");
    assert_eq!(
        node.json(&["agent", "list"])["agents"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
}

#[test]
fn tokens() {
    let core = Node::found("core");
    let other = Node::found("other");
    let dir = tempfile::tempdir().unwrap();
    let join = |name: &str, token: &str| run_in(&dir.path().join(name), &core.joining(token));
    let token = core.token();
    check(
        &join("garbage", "sesame"),
        USAGE,
        "not a complete join token",
    );
    check(
        &join("cut", &token[..token.len() - 9]),
        USAGE,
        "not a complete join token",
    );
    check(&join("foreign", &other.token()), REFUSED, "another mesh");

    let data = dir.path().join("first");
    let first = Node::run(&data, &core.joining(&token));
    core.sees(2);
    check(&join("second", &token), REFUSED, "already used");
    drop(first);

    let token_with = |option: [&str; 2]| {
        let issued = core.json(&[["mesh", "token"], option].concat());
        issued["token"].as_str().unwrap().to_owned()
    };
    let short = token_with(["--ttl", "1s"]);
    // Joining for another reason than time would use it up, so time is waited for by a clock alone.
    let until_expired = std::time::Instant::now() + std::time::Duration::from_millis(2100);
    until("the token's end", || {
        (std::time::Instant::now() > until_expired).then_some(())
    });
    check(&join("late", &short), REFUSED, "expired");

    let twice = token_with(["--uses", "2"]);
    for node in ["third", "fourth"] {
        let _joined = Node::run(&dir.path().join(node), &core.joining(&twice));
    }
    check(&join("fifth", &twice), REFUSED, "already used");

    let relay = token_with(["--role", "relay"]);
    let line = [&core.joining(&relay)[..], &["--role", "core"]].concat();
    check(&run_in(&dir.path().join("role"), &line), REFUSED, "role");
}

#[test]
fn only_the_founder_admits() {
    let core = Node::found("core");
    let edge = core.join("edge", "edge");
    for command in ["token", "approve"] {
        let refused = edge.mielin(&["mesh", command]);
        check(&refused, REFUSED, "only the node that founded the mesh");
    }
}

#[test]
fn addresses() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let start = |address: &str| run_in(&data, &["mesh", "start", "--bind", address]);
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    check(&start(&address), REFUSED, "in use");
    check(
        &start("[fe80::1]:9000"),
        REFUSED,
        "one address on each link",
    );
    let elsewhere = start("203.0.113.77:9000");
    check(&elsewhere, REFUSED, "not an address of this machine");

    // Nothing was founded there, so the same directory may join, and a token is used by none
    // that cannot listen.
    let core = Node::found("core");
    let token = core.token();
    let line = [
        &["mesh", "join", core.address(), "--token", &token][..],
        &["--bind", &address],
    ];
    check(&run_in(&data, &line.concat()), REFUSED, "in use");
    let _joined = Node::run(&data, &core.joining(&token));
    core.sees(2);

    let data = dir.path().join("other");
    let join = |address: &str| run_in(&data, &["mesh", "join", address]);
    check(&join("somewhere"), USAGE, "HOST:PORT");
    check(&join("127.0.0.1:99999"), USAGE, "between 1 and 65535");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let closed = closed.unwrap().to_string();
    check(&join(&closed), UNREACHABLE, &closed);
    check(
        &join(&closed),
        UNREACHABLE,
        "nobody listens on that TCP port",
    );
}

#[test]
fn data_directories() {
    const START: [&str; 4] = ["mesh", "start", "--bind", "127.0.0.1:0"];
    let node = Node::found("home");
    for command in [&["daemon"][..], &["mesh", "start"]] {
        let refused = run_in(&node.dir, command);
        check(&refused, REFUSED, "is using the data directory");
    }

    let dir = tempfile::tempdir().unwrap();
    let newer = dir.path().join("newer");
    fs::create_dir(&newer).unwrap();
    fs::write(newer.join("VERSION"), "99\n").unwrap();
    check(&run_in(&newer, &START), REFUSED, "version 99");
    fs::write(newer.join("VERSION"), b"\x1b[31m\xff").unwrap();
    let says = "says \"\\u{1b}[31m\\u{fffd}\", which is no version";
    check(&run_in(&newer, &START), REFUSED, says);
    let file = newer.join("VERSION");
    for path in [&file, &file.join("below")] {
        for line in [&START[..], &["mesh", "status"]] {
            check(&run_in(path, line), USAGE, "not a directory");
        }
    }

    let foreign = dir.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.txt"), "x").unwrap();
    check(&run_in(&foreign, &START), REFUSED, "not a data directory");
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1, "left as it was");

    let edge = node.join("edge", "edge");
    let data = edge.dir.clone();
    let _kept = edge.stop();
    let join = ["mesh", "join", node.address()];
    let token = Node::found("elsewhere").token();
    for (line, says) in [
        (&["mesh", "start"][..], "another node founded"),
        (
            &[&join[..], &["--role", "core"]].concat(),
            "certificate fixes",
        ),
        (&[&join[..], &["--token", &token]].concat(), "another mesh"),
    ] {
        check(&run_in(&data, line), REFUSED, says);
    }
}

/// Whoever could not dial the member later is told before it asks for anything.
#[test]
fn a_member_of_another_address_family_costs_no_token() {
    let dir = tempfile::tempdir().unwrap();
    let founding = ["mesh", "start", "--bind", "[::1]:0", "--name", "core"];
    let core = Node::run(&dir.path().join("core"), &founding);
    let token = core.token();
    let data = dir.path().join("data");
    let join = ["mesh", "join", core.address(), "--token", &token];
    for bind in ["127.0.0.1:0", "0.0.0.0:0"] {
        let refused = run_in(
            &data,
            &[&join[..], &["--bind", bind, "--stop-on-stdin-end"]].concat(),
        );
        check(&refused, USAGE, "is an IPv6 address");
        assert!(refused.stderr().contains("--bind '[::]:0'"));
    }
    let _joined = Node::run(&data, &[&join[..], &["--bind", "[::]:0"]].concat());
    core.sees(2);
}

#[test]
fn a_name_that_was_damaged_can_be_repaired() {
    let node = Node::found("home");
    let (dir, _kept) = (node.dir.clone(), node.stop());
    let file = dir.join("identity/name");
    for broken in ["", "two words"] {
        fs::write(&file, broken).unwrap();
        let refused = run_in(&dir, &["daemon"]);
        check(&refused, 1, file.to_str().unwrap());
        assert!(!refused.stderr().contains("another --name"));
    }
    fs::write(&file, "repaired\n").unwrap();
    let node = Node::run(&dir, &["daemon"]);
    assert_eq!(node.ready["name"], "repaired");
}

#[test]
fn the_demo_needs_its_input() {
    check(
        &run(&["demo", "--input", "/nowhere/README.md"]),
        NOT_FOUND,
        "--input FILE",
    );
    let endless = run(&["demo", "--input", "/dev/zero"]);
    check(&endless, REFUSED, "a program's input has at most 48.0 MiB");
}

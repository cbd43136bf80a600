//! The whole path of a user over real daemons: a mesh, its members, and nodes that come and go.

#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::Value;
use support::{Node, keys, mielin, mielin_by, run, run_in, sample, until};

#[test]
fn a_mesh_of_three_knows_itself() {
    let core = Node::found("core");
    let relay = core.join("relay", "relay");
    let edge = core.join("edge", "edge");
    for node in [&core, &relay, &edge] {
        node.sees(3);
        let status = node.json(&["mesh", "status"]);
        assert_eq!(keys(&status), ["members", "name", "node", "role"]);
        assert_eq!(status["node"], node.id());
        for member in status["members"].as_array().unwrap() {
            assert_eq!(keys(member), ["address", "name", "node", "role", "state"]);
            assert_eq!(member["name"], member["role"]);
            assert_eq!(member["node"].as_str().unwrap().len(), 64);
        }
        for peer in node.json(&["mesh", "peers"])["peers"].as_array().unwrap() {
            node.mielin(&[
                "mesh",
                "ping",
                peer["node"].as_str().unwrap(),
                "--count",
                "1",
            ])
            .ok();
        }
        let peers = node.json(&["mesh", "peers"]);
        let peers = peers["peers"].as_array().unwrap();
        assert_eq!(peers.len(), 2);
        for peer in peers {
            let expected = [
                "address", "features", "name", "node", "path", "relays", "role", "state", "version",
            ];
            assert_eq!(keys(peer), expected);
            assert_eq!(peer["version"], env!("CARGO_PKG_VERSION"));
            let features = peer["features"].as_array().unwrap();
            assert!(features.contains(&"migration".into()), "{features:?}");
            assert_eq!(peer["relays"].as_array().unwrap().len(), 0);
        }
        let route = node.json(&["mesh", "route", peers[0]["node"].as_str().unwrap()]);
        assert_eq!(keys(&route), ["address", "kind", "name", "node", "rtt_us"]);
        assert_eq!(route["kind"], "direct");
        assert_eq!(route["address"], peers[0]["address"]);
    }
    let text = edge.mielin(&["mesh", "status"]).ok();
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.contains("NAME") && text.contains("relay") && text.contains("alive"),
        "{text}"
    );
}

/// `localhost` may have two addresses; the member listens on one of them.
#[test]
fn a_node_joins_and_comes_back_by_the_name_of_a_host() {
    let core = Node::found("core");
    let (_, port) = core.address().rsplit_once(':').unwrap();
    let member = format!("localhost:{port}");
    let token = core.json(&["mesh", "token"])["token"].clone();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("edge");
    let join = ["mesh", "join", &member, "--bind", "127.0.0.1:0"];
    let edge = Node::run(
        &data,
        &[&join[..], &["--token", token.as_str().unwrap()]].concat(),
    );
    edge.sees(2);
    drop(edge);
    let settings = std::fs::read_to_string(data.join("node.json")).unwrap();
    assert!(settings.contains(&member), "{settings}");
    std::fs::remove_file(data.join("peers")).unwrap();
    // The name is all that is left of the others.
    Node::run(&data, &["daemon"]).sees(2);
}

#[test]
fn a_revoked_node_is_shut_out_and_listed() {
    let core = Node::found("core");
    let edge = core.join("edge", "edge");
    let thief = core.join("thief", "edge");
    for node in [&core, &edge, &thief] {
        node.sees(3);
    }
    let refused = edge.mielin(&["mesh", "revoke", "thief"]);
    assert_eq!(refused.code(), 3);
    let said = refused.stderr();
    assert!(said.contains("founded the mesh can revoke"), "{said}");
    assert!(said.contains("founding node, core ("), "{said}");
    assert_eq!(core.mielin(&["mesh", "revoke", "core"]).code(), 3);
    let revoke = ["mesh", "revoke", "thief", "--reason", "stolen"];
    let revoked = core.json(&revoke);
    assert_eq!(keys(&revoked), ["name", "new", "node"]);
    assert_eq!(
        (&revoked["node"], &revoked["new"]),
        (&thief.id().into(), &true.into())
    );
    assert_eq!(core.json(&["mesh", "revoke", thief.id()])["new"], false);
    for node in [&core, &edge] {
        until("the member sees it revoked", || {
            (node.state_of(thief.id())? == "revoked").then_some(())
        });
        let metrics = node.mielin(&["mesh", "metrics"]).stdout();
        for count in ["{state=\"revoked\"} 1", "{state=\"left\"} 0"] {
            let line = format!("\nmielin_members{count}\n");
            assert!(metrics.contains(&line), "{metrics}");
        }
        let listed = node.json(&["mesh", "revoke"]);
        let listed = listed["revoked"].as_array().unwrap();
        assert_eq!(keys(&listed[0]), ["name", "node", "reason", "revoked_ms"]);
        assert_eq!((listed.len(), &listed[0]["reason"]), (1, &"stolen".into()));
    }
    let refused = until("the thief is refused", || {
        let refused = thief.mielin(&["mesh", "ping", "edge", "--count", "1"]);
        (refused.code() == 3).then_some(refused)
    });
    assert!(
        refused.stderr().contains("was revoked"),
        "{}",
        refused.stderr()
    );
    // It knows, and says so.
    let own = until("the thief knows", || {
        let own = thief.json(&["mesh", "status"])["revoked"].clone();
        own.is_object().then_some(own)
    });
    assert_eq!(keys(&own), ["reason", "revoked_ms"]);
    assert_eq!(own["reason"], "stolen");
    assert_eq!(thief.state_of(thief.id()).as_deref(), Some("revoked"));
    let info = thief.json(&["node", "info"]);
    assert_eq!(info["node"]["revoked"], own);
    for command in [["mesh", "status"], ["node", "info"]] {
        let text = thief.mielin(&command).stdout();
        assert!(text.contains("this node was revoked (stolen)"), "{text}");
    }
    // Whoever asks for it is told, also by a node that has started anew since.
    let (id, dir) = (core.id().to_owned(), core.dir.clone());
    let _kept = core.stop();
    let core = Node::run(&dir, &["daemon", "--bind", "127.0.0.1:0"]);
    assert_eq!(core.id(), id);
    assert_eq!(
        core.json(&["mesh", "revoke"])["revoked"][0]["name"],
        "thief"
    );
    for node in [&core, &edge] {
        for (command, whom) in [("ping", "thief"), ("route", thief.id())] {
            let refused = node.mielin(&["mesh", command, whom]);
            assert_eq!(refused.code(), 3, "{}", refused.stderr());
            let said = refused.stderr();
            assert!(said.contains("was revoked"), "{said}");
            assert!(said.contains("--data-dir"), "{said}");
        }
    }
    let dir = thief.dir.clone();
    let _thief = thief.stop();
    let token = core.token();
    let refused = run_in(&dir, &core.joining(&token));
    assert_eq!(refused.code(), 3, "{}", refused.stderr());
    assert!(
        refused.stderr().contains("was revoked"),
        "{}",
        refused.stderr()
    );
}

#[test]
fn a_node_that_cannot_log_goes_on_as_any_other() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("data");
    let run = |args: &[&str]| {
        let full_disk = ["-c", "exec \"$0\" \"$@\" 2>/dev/full"];
        Node::run_by(mielin_by("sh", &full_disk), &dir, args)
    };
    let core = run(&["mesh", "start", "--bind", "127.0.0.1:0", "--name", "core"]);
    let thief = core.join("thief", "edge");
    core.sees(2);
    assert_eq!(core.json(&["mesh", "revoke", "thief"])["new"], true);
    core.stop();
    let core = run(&["daemon", "--bind", "127.0.0.1:0"]);
    let listed = core.json(&["mesh", "revoke"]);
    assert_eq!(listed["revoked"][0]["node"], thief.id(), "{listed}");
}

#[test]
fn what_is_switched_off_is_off_and_stays_so() {
    let core = Node::found("core");
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("edge");
    let token = core.token();
    let off = ["--migration", "off", "--registry", "off", "--mdns", "off"];
    let edge = Node::run(&data, &[&core.joining(&token)[..], &off].concat());
    core.sees(2);
    edge.sees(2);
    let agent = core.spawn(&[&sample("counter.wasm"), "--name", "counter"]);
    let into = core.mielin(&["agent", "migrate", &agent, edge.id()]);
    assert_eq!(into.code(), 3);
    assert!(
        into.stderr().contains("moves are switched off"),
        "{}",
        into.stderr()
    );
    let looked_up = edge.mielin(&["mesh", "lookup", "counter"]);
    assert_eq!(looked_up.code(), 3);
    assert!(
        looked_up.stderr().contains("registry"),
        "{}",
        looked_up.stderr()
    );
    // What it cannot know it does not say.
    let unheard = edge.mielin(&["agent", "send", &agent, "hello"]);
    assert_eq!(unheard.code(), 3, "{}", unheard.stderr());
    edge.spawn(&[&sample("counter.wasm"), "--name", "own"]);
    let names = |list: &Value| {
        let agents = list["agents"].as_array().unwrap().iter();
        agents
            .map(|agent| agent["name"].clone())
            .collect::<Vec<_>>()
    };
    let here = edge.json(&["agent", "list"]);
    assert_eq!(names(&here), ["own"]);
    assert_eq!(here["unlisted"], serde_json::json!([core.id()]));
    let there = core.json(&["agent", "list"]);
    assert_eq!(names(&there), ["counter"]);
    assert_eq!(there["unlisted"], serde_json::json!([edge.id()]));
    assert!(there["silent"].is_null(), "{there}");
    assert_eq!(edge.reply("own", "a").unwrap(), "1: a\n");
    let info = edge.json(&["node", "info"]);
    assert_eq!(
        info["node"]["off"],
        serde_json::json!(["mdns", "registry", "migration"])
    );
    // It is remembered.
    drop(edge);
    let edge = Node::run(&data, &["daemon"]);
    edge.sees(2);
    let again = core.mielin(&["agent", "migrate", &agent, edge.id()]);
    assert!(
        again.stderr().contains("moves are switched off"),
        "{}",
        again.stderr()
    );
    drop(edge);
    let edge = Node::run(&data, &["daemon", "--migration", "on"]);
    edge.sees(2);
    core.mielin(&["agent", "migrate", &agent, edge.id()]).ok();
}

#[test]
fn members_are_pinged_and_agents_looked_up() {
    let core = Node::found("core");
    let edge = core.join("edge", "edge");
    core.sees(2);
    edge.sees(2);
    let pings = edge.json(&["mesh", "ping", "core", "--count", "3"]);
    assert_eq!(pings["node"], core.id());
    assert_eq!((&pings["sent"], &pings["answered"]), (&3.into(), &3.into()));
    assert!(pings["rtt_min_us"].as_u64().unwrap() > 0);
    let itself = edge.mielin(&["mesh", "ping", "edge"]);
    assert_eq!(itself.code(), 2);
    assert!(itself.stderr().contains("itself"), "{}", itself.stderr());
    assert_eq!(edge.mielin(&["mesh", "ping", "nobody"]).code(), 4);

    let metrics = String::from_utf8(edge.mielin(&["mesh", "metrics"]).ok()).unwrap();
    let alive = "\nmielin_members{state=\"alive\"} 2\n";
    assert!(metrics.contains(alive), "{metrics}");

    let agent = core.spawn(&[&sample("counter.wasm"), "--name", "worker"]);
    let by_id = until("the table knows it", || {
        let found = edge.mielin(&["mesh", "lookup", &agent, "-o", "json"]);
        (found.code() == 0).then(|| found.json())
    });
    let found = &by_id["agents"][0];
    assert_eq!(found["agent"], agent.as_str());
    assert_eq!(found["at"]["name"], "core");
    let by_name = edge.json(&["mesh", "lookup", "worker"]);
    assert_eq!(by_name["agents"], by_id["agents"]);
    assert_eq!(edge.mielin(&["mesh", "lookup", "nobody"]).code(), 4);
}

#[test]
fn the_control_socket_is_private() {
    let node = Node::found("private");
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&node.dir), 0o700);
    assert_eq!(mode(&node.dir.join("control.sock")), 0o600);
}

/// Everything below a folder that others than its owner may use.
fn open_to_others(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path());
    let found = entries.flat_map(|path| {
        let metadata = std::fs::metadata(&path).unwrap();
        let below = metadata.is_dir().then(|| open_to_others(&path));
        let open = metadata.permissions().mode() & 0o077 != 0;
        let below = below.into_iter().flatten();
        below.chain(open.then_some(path)).collect::<Vec<_>>()
    });
    found.collect()
}

#[test]
fn what_a_node_keeps_is_its_users_alone() {
    let node = Node::found("private");
    node.spawn(&[&sample("counter.wasm"), "--name", "stored"]);
    let nothing: [std::path::PathBuf; 0] = [];
    assert_eq!(open_to_others(&node.dir), nothing);
    let dir = node.dir.clone();
    let _kept = node.stop();
    let stored = std::fs::read_dir(dir.join("agents")).unwrap();
    assert_eq!(stored.count(), 1);
    assert_eq!(open_to_others(&dir), nothing);
    let key = dir.join("identity/node.key");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o666)).unwrap();
    let _again = Node::run(&dir, &["daemon", "--bind", "127.0.0.1:0"]);
    assert_eq!(open_to_others(&dir), nothing);
}

#[test]
fn a_deep_data_directory_works() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a-directory-with-a-long-name/".repeat(8));
    let node = Node::run(&deep, &["mesh", "start", "--bind", "127.0.0.1:0"]);
    assert!(
        deep.as_os_str().len() > 108,
        "longer than the path of a socket may be"
    );
    node.sees(1);
}

#[test]
fn a_node_joins_by_approval() {
    let core = Node::found("core");
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("asker");
    let address = core.address().to_owned();
    let asker = std::thread::spawn(move || {
        Node::run(
            &data,
            &[
                "mesh",
                "join",
                &address,
                "--bind",
                "127.0.0.1:0",
                "--name",
                "asker",
            ],
        )
    });
    let waiting = until("the request to join", || {
        let pending = core.json(&["mesh", "approve"]);
        pending["pending"].as_array().unwrap().first().cloned()
    });
    assert_eq!(waiting["name"], "asker");
    let id = waiting["node"].as_str().unwrap();
    let approved = core.json(&["mesh", "approve", &id[..10]]);
    assert_eq!(approved["node"], id);
    let asker = asker.join().unwrap();
    assert_eq!(asker.id(), id);
    core.sees(2);
    asker.sees(2);
}

#[test]
fn sigterm_stops_cleanly_and_daemon_comes_back() {
    let core = Node::found("core");
    let edge = core.join("edge", "edge");
    core.sees(2);
    let (id, address, dir) = (
        edge.id().to_owned(),
        edge.address().to_owned(),
        edge.dir.clone(),
    );
    let _kept = edge.stop();
    assert!(!dir.join("control.sock").exists());
    // It has waited until the others had heard: nobody has to suspect it first.
    assert_eq!(core.state_of(&id).as_deref(), Some("stopped"));
    // It keeps the port that it was given by the system only if it asks for it, so ask.
    let edge = Node::run(&dir, &["daemon", "--bind", &address]);
    assert_eq!(edge.id(), id);
    assert_eq!(edge.address(), address);
    edge.sees(2);
    core.sees(2);
}

#[test]
fn a_socket_left_by_a_killed_daemon_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut node = Node::run(&data, &["mesh", "start", "--bind", "127.0.0.1:0"]);
    let id = node.id().to_owned();
    node.signal("-KILL");
    assert!(!node.ended().success());
    assert!(data.join("control.sock").exists());
    assert_eq!(node.mielin(&["mesh", "status"]).code(), 5);
    let again = Node::run(
        &data,
        &[
            "mesh",
            "start",
            "--bind",
            "127.0.0.1:0",
            "--name",
            "renamed",
        ],
    );
    assert_eq!(again.id(), id);
    assert_eq!(again.json(&["mesh", "status"])["name"], "renamed");
}

#[test]
fn joining_again_just_starts() {
    let core = Node::found("core");
    let edge = core.join("edge", "edge");
    let (id, dir) = (edge.id().to_owned(), edge.dir.clone());
    let _kept = edge.stop();
    let edge = Node::run(
        &dir,
        &["mesh", "join", core.address(), "--bind", "127.0.0.1:0"],
    );
    assert_eq!(edge.id(), id);
    edge.sees(2);
}

#[test]
fn leaving_takes_a_node_out_of_the_mesh() {
    let core = Node::found("core");
    let mut edge = core.join("edge", "edge");
    core.sees(2);
    edge.mielin(&["mesh", "leave"]).ok();
    assert_eq!(core.state_of(edge.id()).as_deref(), Some("left"));
    // The daemon has ended by then: another one can have its directory at once.
    let again = Node::run(&edge.dir, &["daemon", "--bind", "127.0.0.1:0"]);
    assert!(edge.ended().success());
    assert_eq!(again.id(), edge.id());
    core.sees(2);
}

#[test]
fn a_name_is_borne_by_one_node() {
    let core = Node::found("core");
    let edge = core.join("edge", "edge");
    core.sees(2);
    let (id, token) = (edge.id().to_owned(), core.token());
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("other");
    let join_as = |name| {
        let line = [&core.joining(&token)[..], &["--name", name]].concat();
        run_in(&other, &line)
    };
    for name in ["core", "edge"] {
        let refused = join_as(name);
        assert_eq!(refused.code(), 3, "{}", refused.stderr());
        assert!(refused.stderr().contains("--name"), "{}", refused.stderr());
    }
    // A node that is stopped keeps its name, for itself.
    let kept = edge.dir.clone();
    let _kept = edge.stop();
    let refused = join_as("edge");
    assert_eq!(refused.code(), 3, "{}", refused.stderr());
    let edge = Node::run(&kept, &["daemon", "--bind", "127.0.0.1:0"]);
    assert_eq!((edge.id(), &edge.ready["name"]), (&*id, &"edge".into()));
    core.sees(2);
    // One that has left does not, and the token is still good.
    edge.mielin(&["mesh", "leave"]).ok();
    let line = [&core.joining(&token)[..], &["--name", "edge"]].concat();
    let other = Node::run(&other, &line);
    assert_ne!(other.id(), id);
    core.sees(2);
    // Neither of two on one machine has to be named.
    let two = [core.token(), core.token()].map(|token| {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::run(&dir.path().join("data"), &core.joining(&token));
        (node, dir)
    });
    assert_ne!(two[0].0.ready["name"], two[1].0.ready["name"]);
}

#[test]
fn a_node_does_not_outlive_its_parent_when_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = mielin()
        .args([
            "mesh",
            "start",
            "--bind",
            "127.0.0.1:0",
            "--stop-on-stdin-end",
            "--data-dir",
        ])
        .arg(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdin.take());
    let status = until("the end of the daemon", || child.try_wait().unwrap());
    assert!(status.success());
}

#[test]
fn node_info_works_with_and_without_a_daemon() {
    let node = Node::found("info");
    let info = node.json(&["node", "info"]);
    assert_eq!(info["node"]["node"], node.id());
    assert!(info["machine"]["cores"].as_u64().unwrap() >= 1);
    let dir = node.dir.clone();
    let _kept = node.stop();
    let info = run(&[
        "node",
        "info",
        "-o",
        "json",
        "--data-dir",
        dir.to_str().unwrap(),
    ])
    .json();
    assert!(info["node"].is_null());
}

#[test]
fn a_node_takes_on_what_it_was_told_to_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let start = ["mesh", "start", "--bind", "127.0.0.1:0"];
    let node = Node::run(&data, &[&start[..], &["--agents-max", "1"]].concat());
    let limits = node.json(&["node", "info"])["node"]["limits"].clone();
    let expected = serde_json::json!({ "agents_max": 1, "live_instances_max": 256 });
    assert_eq!(limits, expected);
    node.spawn(&[&sample("counter.wasm")]);
    let ran = node.mielin(&["agent", "spawn", &sample("counter.wasm")]);
    assert_eq!(ran.code(), 3);
    let stderr = ran.stderr();
    assert!(stderr.contains("already holds 1 agents"), "{stderr}");
    node.stop();
    let line = [
        "daemon",
        "--bind",
        "127.0.0.1:0",
        "--live-instances-max",
        "0",
    ];
    let node = Node::run(&data, &line);
    let text = String::from_utf8(node.mielin(&["node", "info"]).ok()).unwrap();
    let expected = "1 agents, of which 0 stay ready to run while they do not";
    assert!(text.contains(expected), "{text}");
    let agents = node.json(&["agent", "list"])["agents"].clone();
    let name = agents[0]["name"].as_str().unwrap().to_owned();
    let answer = node.json(&["agent", "send", &name, "hello", "--wait"]);
    assert_eq!(answer["reply"], "1: hello");
}

/// What a node says in its log that a shell lets have so many files.
fn said_with(limit: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let script = format!("ulimit {limit}; exec \"$0\" \"$@\"");
    let ran = support::mielin_by("sh", &["-c", &script])
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .args(["mesh", "start", "--bind", "127.0.0.1:0"])
        .args(["--mdns", "off", "--stop-on-stdin-end"])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    String::from_utf8(ran.stderr).unwrap()
}

#[test]
fn a_node_may_have_as_many_files_as_the_system_allows() {
    let said = said_with("-Sn 300");
    assert!(said.contains("files may be open"), "{said}");
    assert!(!said.contains("at most 300 files"), "{said}");
    let said = said_with("-n 300");
    assert!(
        said.contains("at most 300 files may be open, which is few"),
        "{said}"
    );
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = String::from_utf8(run(&["completions", shell]).ok()).unwrap();
        assert!(script.contains("migrate"), "{shell}");
        let json = run(&["completions", shell, "-o", "json"]).json();
        assert_eq!(json, serde_json::json!({ "script": script }), "{shell}");
    }
}

#[test]
fn a_copied_data_directory_that_runs_too_is_named_and_a_restart_is_none() {
    let core = Node::found("core");
    let mut edge = core.join("edge", "edge");
    core.sees(2);
    let status = |node: &Node| node.json(&["mesh", "status"]);
    // A crash, and the same again at once.
    edge.signal("-KILL");
    edge.ended();
    let (dir, _kept) = (edge.dir.clone(), edge);
    let edge = Node::run(&dir, &["daemon", "--bind", "127.0.0.1:0"]);
    until("it is back", || {
        let status = status(&core);
        let members = status["members"].as_array().unwrap();
        let mut alive = members.iter().filter(|m| m["state"] == "alive");
        alive.any(|m| m["address"] == edge.address()).then_some(())
    });
    edge.sees(2);
    assert_eq!(
        keys(&status(&edge)),
        ["members", "name", "node", "role"],
        "nothing is wrong"
    );

    let copied = tempfile::tempdir().unwrap();
    let copied = copied.path().join("copy");
    let done = std::process::Command::new("cp")
        .arg("-a")
        .args([&dir, &copied])
        .status();
    assert!(done.unwrap().success());
    let copy = Node::run(&copied, &["daemon", "--bind", "127.0.0.1:0"]);
    for (node, other, gives_way) in [(&edge, &copy, false), (&copy, &edge, true)] {
        let seen = until("the other process", || {
            let seen = status(node)["copy"].clone();
            seen.is_object().then_some(seen)
        });
        assert_eq!(keys(&seen), ["address", "gives_way", "proved"]);
        assert_eq!(seen["address"], other.address());
        assert_eq!(
            (&seen["gives_way"], &seen["proved"]),
            (&gives_way.into(), &true.into())
        );
        for command in [["mesh", "status"], ["node", "info"]] {
            let text = node.mielin(&command).stdout();
            assert!(text.contains("a directory of its own"), "{text}");
        }
    }
}

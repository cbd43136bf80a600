//! Agents that come from a bare node, and go to one: a file is all that both have in common. The bare node has only what
//! `mielin-wasm` and `mielin-safepoint` offer without a standard library.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use mielin_cells::{Budget, CellsError, CheckpointError, Counters, SpawnRequest};
use mielin_mesh_core::AgentId;
use mielin_safepoint::{HostSection, ModuleHash, SnapshotLimits, instrument};
use mielin_wasm::{
    Address, Capability, Checkpoint, EngineError, EngineKind, Grants, HostState, Instance, Level,
    Limits, LogError, LogStream, MessageKind, NoRandomBytes, Outcome, Platform, Receive, Received,
    SendError, Services, engine,
};

use crate::budgets::report;
use crate::nodes::{Node, mesh, plain_mesh, refused, shut_down, within};
use crate::programs;

/// A machine whose clock goes on by a microsecond whenever it is read, without random numbers.
#[derive(Debug, Default)]
struct Board(AtomicU64);

static BOARD: Board = Board(AtomicU64::new(0));

impl Platform for Board {
    fn monotonic_ns(&self) -> u64 {
        self.0.fetch_add(1_000, Ordering::Relaxed)
    }

    fn realtime_ns(&self) -> u64 {
        0
    }

    fn fill_random(&self, _: &mut [u8]) -> Result<(), NoRandomBytes> {
        Err(NoRandomBytes {
            reason: "this board has no generator".into(),
        })
    }
}

/// What a bare node does for a program: it keeps what it writes, stops it after so many lines, and has a message for it
/// after one more.
#[derive(Default)]
struct Console {
    stdout: Mutex<String>,
    stderr: Mutex<String>,
    stop_after: usize,
}

impl Console {
    fn after(lines: usize) -> Arc<Console> {
        Arc::new(Console {
            stop_after: lines,
            ..Console::default()
        })
    }

    fn written(stream: &Mutex<String>) -> String {
        stream.lock().unwrap().clone()
    }

    fn lines(&self) -> usize {
        let streams = [&self.stdout, &self.stderr].into_iter();
        streams
            .map(|stream| Console::written(stream).lines().count())
            .sum()
    }
}

impl Services for Console {
    fn write_log(&self, stream: LogStream, bytes: &[u8]) -> Result<usize, LogError> {
        let stream = match stream {
            LogStream::Stdout => &self.stdout,
            LogStream::Stderr => &self.stderr,
        };
        let text = std::str::from_utf8(bytes).unwrap();
        stream.lock().unwrap().push_str(text);
        Ok(bytes.len())
    }

    fn log(&self, _: Level, _: &str) {}

    fn send(&self, _: Address, _: MessageKind, _: &[u8]) -> Result<u64, SendError> {
        Err(SendError::Unknown)
    }

    fn receive(&self, _: usize) -> Receive {
        if self.lines() <= self.stop_after {
            return Receive::Empty;
        }
        Receive::Message(Received {
            from: Address([1; 16]),
            sequence: 1,
            kind: MessageKind::Message,
            payload: b"end".to_vec(),
        })
    }

    fn denied(&self, _: &Capability, _: &'static str) {}

    fn called(&self) -> bool {
        self.lines() >= self.stop_after
    }
}

/// An instance of a plain module, which the bare node rewrites itself.
fn bare(plain: &[u8], host: HostState, console: &Arc<Console>) -> Box<dyn Instance> {
    let module = instrument(plain).unwrap();
    let prepared = engine(EngineKind::Wasmi).unwrap().prepare(&module, None);
    let services = Arc::clone(console) as Arc<dyn Services>;
    let made = prepared
        .unwrap()
        .instantiate(host, services, &Limits::default());
    made.unwrap()
}

/// The sample agent `digest`, which computes for long without a call of its host.
fn digest() -> Vec<u8> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../agents/prebuilt/digest.wasm"
    );
    std::fs::read(path).unwrap()
}

const ROUNDS: &str = "2000";
const INPUT: &[u8] = b"a bare node counts words, and a bare node counts rounds";

/// A file from a bare node: `digest` in the middle of its rounds, with these grants.
fn file(grants: &[&str]) -> (Bytes, AgentId) {
    let plain = digest();
    let address = AgentId([9; 16]);
    let grants: Grants = grants.iter().map(|grant| grant.parse().unwrap()).collect();
    let host = HostState::on(&BOARD, Address(address.0))
        .with_args(["digest", ROUNDS])
        .with_stdin(INPUT)
        .with_grants(grants);
    // After the first line and 6 of 20 parts of the work.
    let console = Console::after(7);
    let mut agent = bare(&plain, host, &console);
    assert_eq!(agent.run(), Outcome::Stopped);
    assert_eq!(Console::written(&console.stdout), "");
    let checkpoint = Checkpoint {
        snapshot: agent.snapshot(),
        module: plain,
        others: Vec::new(),
    };
    (checkpoint.encode().into(), address)
}

/// The same with something in it changed.
fn changed(file: &[u8], change: impl FnOnce(&mut Checkpoint)) -> Bytes {
    let mut checkpoint = Checkpoint::decode(file, &SnapshotLimits::default()).unwrap();
    change(&mut checkpoint);
    checkpoint.encode().into()
}

async fn code(node: &Node, agent: AgentId) -> i32 {
    within(node.cells.wait(agent)).await.unwrap().exit_code
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bare_node_has_begun_ends_on_a_host_as_if_it_had_begun_there() {
    let nodes = mesh(1, |_, config| {
        config.engine = EngineKind::Wasmtime;
        config.limits.log_bytes = 4_000;
    })
    .await;
    let node = &nodes[0];
    let mut whole = SpawnRequest::new(digest());
    whole.args = vec![ROUNDS.to_owned()];
    whole.stdin = Bytes::from_static(INPUT);
    let whole = node.cells.spawn(whole).await.unwrap();
    let expected = node.whole_stdout(whole).await;
    assert_eq!((code(node, whole).await, expected.lines().count()), (0, 13));

    let (file, address) = file(&["clock", "message"]);
    let agent = node.cells.restore(file.clone(), None).await.unwrap();
    assert_ne!(agent, address, "it has an address of its own");
    assert_eq!(node.whole_stdout(agent).await, expected);
    assert_eq!(code(node, agent).await, 0);
    let said = report(node, agent).await;
    // As of a new agent of which nothing was asked, but for what it may do.
    let name = format!("agent-{}", &agent.to_string()[..4]);
    assert_eq!((said.name, said.epoch.0), (name, 1));
    assert_eq!(said.grants.to_string(), "clock,message");
    assert_eq!(said.log_bytes_max, 4_000);
    assert_eq!(said.budget, Budget::default());
    assert_eq!((said.counters.moves, said.counters.received), (0, 0));
    let again = Some("again".to_owned());
    let again = node.cells.restore(file, again).await.unwrap();
    assert_eq!(node.whole_stdout(again).await, expected);
    assert_eq!(report(node, again).await.name, "again");
    shut_down(nodes).await;
}

/// There and back: the bare node does not know what the node has noted about the agent, and keeps it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_has_begun_goes_on_on_a_bare_node_and_comes_back() {
    let nodes = mesh(1, |_, config| config.engine = EngineKind::Wasmtime).await;
    let node = &nodes[0];
    let plain = programs::compute(1 << 10, 1);
    let agent = node.spawn_within(&plain, "worker", "cpu=100s").await;
    node.lines(agent, 3).await;
    within(node.cells.pause(agent)).await.unwrap();
    let file = within(node.cells.checkpoint(agent)).await.unwrap();
    let before = node.stdout(agent).await;
    let counted = report(node, agent).await.counters;

    let checkpoint = Checkpoint::decode(&file, &SnapshotLimits::default()).unwrap();
    let (snapshot, others) = (&checkpoint.snapshot, &checkpoint.others);
    assert!(checkpoint.module == plain);
    let module = instrument(&checkpoint.module).unwrap();
    assert_eq!(module.hash(), snapshot.module);
    let names: Vec<_> = others.iter().map(|other| other.name.as_str()).collect();
    assert_eq!(names, ["cells:about"]);
    let console = Console::after(2);
    let nobody = HostState::on(&BOARD, Address::default());
    let mut there = bare(&checkpoint.module, nobody, &console);
    there.load(snapshot).unwrap();
    assert_eq!(there.host().address.0, agent.0);
    assert_eq!(there.host().grants.to_string(), "message");
    assert_eq!(there.run(), Outcome::Stopped);
    let meanwhile = Console::written(&console.stdout);
    let file = Checkpoint {
        snapshot: there.snapshot(),
        ..checkpoint
    };
    let file = file.encode().into();
    // It could as well have come to its end there.
    assert_eq!(finish(&mut *there), 7);

    within(node.cells.terminate(agent)).await.unwrap();
    code(node, agent).await;
    let copy = node.cells.restore(file, None).await.unwrap();
    let said = report(node, copy).await;
    assert_eq!((said.name.as_str(), said.epoch.0), ("worker", 1));
    assert_eq!(said.grants.to_string(), "message");
    assert_eq!(said.budget.to_string(), "cpu=100s");
    assert!(said.counters.cpu_ns >= counted.cpu_ns && counted != Counters::default());
    node.lines(copy, 2).await;
    let end = Bytes::from_static(b"end");
    node.cells.send(copy, end).await.unwrap();
    assert_eq!(code(node, copy).await, 7);
    let after = node.whole_stdout(copy).await;
    let all = [before, meanwhile, after].concat();
    assert!(all == programs::computed(1 << 10, all.lines().count()));
    shut_down(nodes).await;
}

/// Runs until the program has ended of its own accord.
fn finish(instance: &mut dyn Instance) -> i32 {
    loop {
        match instance.run() {
            Outcome::Stopped => {}
            Outcome::Exited(code) => return code,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_files_of_bare_nodes_are_refused_and_no_agent_is_left_behind() {
    let nodes = mesh(1, |_, config| config.limits.input_bytes = 80).await;
    let node = &nodes[0];
    let (good, _) = file(&["clock"]);
    let check = async |file: Bytes, name: Option<&str>, is_expected: fn(&CellsError) -> bool| {
        let restored = node.cells.restore(file, name.map(str::to_owned));
        let error = refused(within(restored).await);
        assert!(is_expected(&error), "{error:?}");
        assert_eq!(node.cells.residents().len(), 0, "{error}");
    };
    // Before the node knows the module of that hash: then it has no need of the one in the file.
    let other = changed(&good, |checkpoint| checkpoint.module = programs::spin());
    check(other, None, |error| {
        matches!(error, CellsError::OtherRewriter { .. })
    })
    .await;
    let add = |name: &str| {
        let section = HostSection {
            name: name.to_owned(),
            version: Checkpoint::VERSION,
            bytes: good[..40].to_vec(),
        };
        changed(&good, |checkpoint| checkpoint.others.push(section))
    };
    check(add("cells:about"), None, |error| {
        let reason = checkpoint_error(error);
        matches!(reason, Some(CheckpointError::Malformed { .. }))
    })
    .await;
    for own in ["cells:inbox", "cells:outbox", "cells:else"] {
        check(add(own), None, |error| {
            matches!(checkpoint_error(error), Some(CheckpointError::Unknown))
        })
        .await;
    }
    // What only a node keeps for itself, without what it knows about it.
    check(add("cells:rewritten"), None, |error| {
        let reason = checkpoint_error(error);
        matches!(reason, Some(CheckpointError::Section("cells:about")))
    })
    .await;
    check(add("cells:module"), None, |error| {
        let reason = checkpoint_error(error);
        matches!(reason, Some(CheckpointError::Section("cells:module")))
    })
    .await;
    // What the program says of itself is all that is known: without it, twice, or with grants that are none.
    let lacking = changed(&good, |checkpoint| {
        let host = &mut checkpoint.snapshot.host;
        host.retain(|section| section.name != "wasm.program");
    });
    let twice = changed(&good, |checkpoint| {
        let host = &mut checkpoint.snapshot.host;
        host.extend_from_within(..1);
    });
    let nonsense = changed(&good, |checkpoint| {
        let bytes = &mut checkpoint.snapshot.host[0].bytes;
        let at = bytes.windows(5).position(|window| window == b"clock");
        bytes[at.unwrap()] = b'b';
    });
    for file in [lacking, twice, nonsense] {
        check(file, None, |error| {
            let reason = checkpoint_error(error);
            matches!(reason, Some(CheckpointError::Unfit(EngineError::State(_))))
        })
        .await;
    }
    let deaf = changed(&good, |checkpoint| {
        checkpoint.module = programs::deaf();
        checkpoint.snapshot.module = ModuleHash::of(&checkpoint.module);
    });
    check(deaf, None, |error| {
        matches!(error, CellsError::BadModule(_))
    })
    .await;
    check(good.clone(), Some("no name"), |error| {
        matches!(error, CellsError::BadName(_))
    })
    .await;
    // The node's limits are those of the agent.
    let talkative = changed(&good, |checkpoint| {
        let host = HostState::from_sections_on(&BOARD, &checkpoint.snapshot.host).unwrap();
        checkpoint.snapshot.host = host
            .with_env(["A=a word more than it may have"])
            .to_sections();
    });
    check(talkative, None, |error| {
        let over = |reason: &CheckpointError| {
            matches!(
                reason,
                CheckpointError::Unfit(EngineError::OverLimit { limit: 80, .. })
            )
        };
        checkpoint_error(error).is_some_and(over)
    })
    .await;
    shut_down(nodes).await;
}

fn checkpoint_error(error: &CellsError) -> Option<&CheckpointError> {
    match error {
        CellsError::Checkpoint(error) => Some(error),
        _ => None,
    }
}

/// From there on it is an agent like any other, with the grants that its program said.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_a_bare_node_is_moved_and_checkpointed_like_any_other() {
    let nodes = plain_mesh(2).await;
    let plain = programs::compute(1 << 10, 0);
    let console = Console::after(1);
    let host = HostState::on(&BOARD, Address([3; 16])).with_args(["compute"]);
    let grants: Grants = ["message".parse().unwrap()].into_iter().collect();
    let mut begun = bare(&plain, host.with_grants(grants), &console);
    assert_eq!(begun.run(), Outcome::Stopped);
    let file = Checkpoint {
        snapshot: begun.snapshot(),
        module: plain,
        others: Vec::new(),
    };
    let file = file.encode().into();
    let agent = nodes[0].cells.restore(file, None).await.unwrap();
    nodes[0].lines(agent, 1).await;
    let options = mielin_cells::MoveOptions::default();
    let moved = nodes[0].cells.migrate(agent, nodes[1].id(), options, None);
    within(moved).await.unwrap();
    let said = report(&nodes[1], agent).await;
    assert_eq!(
        (said.epoch.0, said.grants.to_string()),
        (2, "message".to_owned())
    );
    let known = within(nodes[1].cells.checkpoint(agent)).await.unwrap();
    let known = Checkpoint::decode(&known, &SnapshotLimits::default()).unwrap();
    assert_eq!(known.others.len(), 1);
    let end = Bytes::from_static(b"end");
    nodes[0].cells.send(agent, end).await.unwrap();
    assert_eq!(code(&nodes[1], agent).await, 7);
    let rest = nodes[1].whole_stdout(agent).await;
    let all = Console::written(&console.stdout) + &rest;
    assert!(all == programs::computed(1 << 10, all.lines().count()));
    shut_down(nodes).await;
}

//! What the integration tests share: a node that remembers, and short ways to make an instance.
#![allow(dead_code, clippy::unwrap_used, unreachable_pub)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use mielin_safepoint::Resumable;
use mielin_wasm::{
    Address, Capability, EngineKind, Grants, HostState, Instance, Level, Limits, LogError,
    LogStream, MessageKind, Outcome, Receive, Received, SendError, Services, engine,
};

pub const BOTH: [EngineKind; 2] = [EngineKind::Wasmtime, EngineKind::Wasmi];

/// A node that keeps what a program does, and gives it what a test put there.
#[derive(Default)]
pub struct Node {
    pub state: Mutex<NodeState>,
}

#[derive(Default)]
pub struct NodeState {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub lines: Vec<(Level, String)>,
    pub sent: Vec<(Address, MessageKind, Vec<u8>)>,
    pub mailbox: VecDeque<Received>,
    pub denied: Vec<(Capability, &'static str)>,
    /// So many sends are refused for lack of room before one is taken.
    pub full_for: usize,
}

impl Node {
    pub fn stdout(&self) -> String {
        String::from_utf8(self.state.lock().unwrap().stdout.clone()).unwrap()
    }

    pub fn put(&self, from: u8, sequence: u64, payload: &[u8]) {
        self.state.lock().unwrap().mailbox.push_back(Received {
            from: Address([from; 16]),
            sequence,
            kind: MessageKind::Message,
            payload: payload.to_vec(),
        });
    }
}

impl Services for Node {
    fn write_log(&self, stream: LogStream, bytes: &[u8]) -> Result<usize, LogError> {
        let mut state = self.state.lock().unwrap();
        match stream {
            LogStream::Stdout => state.stdout.extend_from_slice(bytes),
            LogStream::Stderr => state.stderr.extend_from_slice(bytes),
        }
        Ok(bytes.len())
    }

    fn log(&self, level: Level, message: &str) {
        self.state
            .lock()
            .unwrap()
            .lines
            .push((level, message.into()));
    }

    fn send(&self, to: Address, kind: MessageKind, payload: &[u8]) -> Result<u64, SendError> {
        let mut state = self.state.lock().unwrap();
        if state.full_for > 0 {
            state.full_for -= 1;
            return Err(SendError::Full);
        }
        state.sent.push((to, kind, payload.to_vec()));
        Ok(state.sent.len() as u64)
    }

    fn receive(&self, max_len: usize) -> Receive {
        let mut state = self.state.lock().unwrap();
        match state.mailbox.front() {
            None => Receive::Empty,
            Some(message) if message.payload.len() > max_len => Receive::TooLarge {
                len: message.payload.len(),
            },
            Some(_) => Receive::Message(state.mailbox.pop_front().unwrap()),
        }
    }

    fn denied(&self, capability: &Capability, call: &'static str) {
        self.state.lock().unwrap().denied.push((*capability, call));
    }
}

/// A rewritten module from text.
pub fn module(wat: &str) -> Resumable {
    mielin_safepoint::instrument(&wat::parse_str(wat).unwrap()).unwrap()
}

pub fn host() -> HostState {
    HostState::new(Address([7; 16])).with_args(["program"])
}

pub fn all_grants() -> Grants {
    ["clock", "random", "message"]
        .into_iter()
        .map(|text| text.parse().unwrap())
        .collect()
}

pub fn instance_with(
    kind: EngineKind,
    module: &Resumable,
    host: HostState,
    node: &Arc<Node>,
) -> Box<dyn Instance> {
    let prepared = engine(kind).unwrap().prepare(module, None).unwrap();
    prepared
        .instantiate(
            host,
            Arc::clone(node) as Arc<dyn Services>,
            &Limits::default(),
        )
        .unwrap()
}

pub fn instance(kind: EngineKind, wat: &str) -> Box<dyn Instance> {
    instance_with(kind, &module(wat), host(), &Arc::new(Node::default()))
}

/// Runs until the program has ended, however often it stops or blocks in between.
pub fn finish(instance: &mut dyn Instance) -> Outcome {
    loop {
        match instance.run() {
            Outcome::Stopped => {}
            Outcome::Blocked(wait) => {
                let deadline = wait.deadline_ns.expect("nobody will send anything");
                std::thread::sleep(instance.host().until(deadline));
            }
            ended => return ended,
        }
    }
}

//! Host functions on a plain slice of memory: results, errors, capabilities and hostile pointers.
#![allow(clippy::unwrap_used)]

mod devices;
mod files;
mod messages;
mod program;
mod streams;
mod tensor;
mod time;

use std::collections::VecDeque;
use std::sync::Mutex;

use super::*;
use crate::services::{
    Actuated, Discarded, Level, LogError, LogStream, MessageKind, Reading, Receive, Received,
    SendError, Sensed,
};
use crate::{Address, Grants, Target};

const MEMORY: usize = 65536;
const END: u32 = MEMORY as u32;
const BAD_FD: u32 = 3;

/// A node with a log of limited size and a mailbox.
#[derive(Default)]
struct Desk {
    log: Mutex<Vec<(LogStream, Vec<u8>)>>,
    log_left: Mutex<usize>,
    lines: Mutex<Vec<(Level, String)>>,
    mailbox: Mutex<VecDeque<Received>>,
    sent: Mutex<Vec<(Address, MessageKind, Vec<u8>)>>,
    send_error: Mutex<Option<SendError>>,
    denied: Mutex<Vec<(Capability, &'static str)>>,
    /// What sensor 2 has measured, and which of its readings the program is done with.
    readings: Mutex<VecDeque<Reading>>,
    done_with: Mutex<u64>,
    /// What actuator 3 answers next, and what it was set to.
    answer: Mutex<Option<Actuated>>,
    set: Mutex<Vec<i64>>,
    calls: Mutex<usize>,
    /// From which call on the program shall leave.
    leaves_at: Option<usize>,
}

impl Services for Desk {
    fn write_log(&self, stream: LogStream, bytes: &[u8]) -> Result<usize, LogError> {
        let mut left = self.log_left.lock().unwrap();
        if *left == 0 {
            return Err(LogError::Full);
        }
        let taken = bytes.len().min(*left);
        *left -= taken;
        self.log
            .lock()
            .unwrap()
            .push((stream, bytes[..taken].to_vec()));
        Ok(taken)
    }

    fn log(&self, level: Level, message: &str) {
        self.lines.lock().unwrap().push((level, message.into()));
    }

    fn send(&self, to: Address, kind: MessageKind, payload: &[u8]) -> Result<u64, SendError> {
        if let Some(error) = *self.send_error.lock().unwrap() {
            return Err(error);
        }
        let mut sent = self.sent.lock().unwrap();
        sent.push((to, kind, payload.to_vec()));
        Ok(sent.len() as u64)
    }

    fn receive(&self, max_len: usize) -> Receive {
        let mut mailbox = self.mailbox.lock().unwrap();
        match mailbox.front() {
            None => Receive::Empty,
            Some(message) if message.payload.len() > max_len => Receive::TooLarge {
                len: message.payload.len(),
            },
            Some(_) => Receive::Message(mailbox.pop_front().unwrap()),
        }
    }

    fn discard(&self, longer_than: usize) -> Option<Discarded> {
        let mut mailbox = self.mailbox.lock().unwrap();
        let message = mailbox.pop_front_if(|message| message.payload.len() > longer_than)?;
        Some(Discarded {
            from: message.from,
            sequence: message.sequence,
            kind: message.kind,
            len: message.payload.len(),
        })
    }

    fn sense(&self, sensor: u8, after: u64) -> Sensed {
        if sensor != 2 {
            return Sensed::Absent;
        }
        *self.done_with.lock().unwrap() = after;
        let mut readings = self.readings.lock().unwrap();
        readings.retain(|reading| reading.number > after);
        readings
            .front()
            .map_or(Sensed::NotYet, |reading| Sensed::Reading(*reading))
    }

    fn actuate(&self, actuator: u8, value: i64) -> Actuated {
        if actuator != 3 {
            return Actuated::Absent;
        }
        let answer = self.answer.lock().unwrap().unwrap_or(Actuated::Done);
        if answer == Actuated::Done {
            self.set.lock().unwrap().push(value);
        }
        answer
    }

    fn denied(&self, capability: &Capability, call: &'static str) {
        self.denied.lock().unwrap().push((*capability, call));
    }

    fn called(&self) -> bool {
        let mut calls = self.calls.lock().unwrap();
        *calls += 1;
        self.leaves_at.is_some_and(|at| *calls >= at)
    }
}

/// A program's memory and state, on which host functions are called one by one.
struct Bench {
    memory: Vec<u8>,
    context: Context,
    desk: Arc<Desk>,
}

impl Bench {
    fn new(grants: &[&str]) -> Self {
        let desk = Arc::new(Desk {
            log_left: Mutex::new(1 << 20),
            ..Desk::default()
        });
        let grants: Grants = grants.iter().map(|text| text.parse().unwrap()).collect();
        let host = HostState::new(Address([7; 16])).with_grants(grants);
        let services = Arc::clone(&desk) as Arc<dyn Services>;
        let limits = Limits {
            message_bytes: 1000,
            ..Limits::default()
        };
        let mut context = Context::new(host, services, &limits);
        context.stop = Some(StopHandle::gone());
        Self {
            memory: vec![0; MEMORY],
            context,
            desk,
        }
    }

    /// The errno of a call; the program must not be suspended.
    fn call(&mut self, body: impl Fn(&mut Call<'_>) -> Result<(), Errno>) -> u32 {
        let (reply, suspended) = self.context.call(&mut self.memory, body);
        assert!(!suspended, "{:?}", self.context.waiting);
        assert_eq!(self.context.host.pending, None);
        reply.unwrap()
    }

    /// What a call that suspends the program waits for.
    fn blocks(&mut self, body: impl Fn(&mut Call<'_>) -> Result<(), Errno>) -> Wait {
        let (_, suspended) = self.context.call(&mut self.memory, body);
        assert!(suspended, "it did not block");
        assert!(self.context.host.pending.is_some());
        self.context.waiting.unwrap()
    }

    fn put(&mut self, at: u32, bytes: &[u8]) {
        self.memory[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    fn vectors(&mut self, at: u32, vectors: &[(u32, u32)]) {
        for (index, (pointer, len)) in (0..).zip(vectors) {
            self.put(at + 8 * index, &pointer.to_le_bytes());
            self.put(at + 8 * index + 4, &len.to_le_bytes());
        }
    }

    fn u32(&self, at: u32) -> u32 {
        u32::from_le_bytes(self.memory[at as usize..][..4].try_into().unwrap())
    }

    fn u64(&self, at: u32) -> u64 {
        u64::from_le_bytes(self.memory[at as usize..][..8].try_into().unwrap())
    }

    fn logged(&self) -> Vec<(LogStream, Vec<u8>)> {
        std::mem::take(&mut *self.desk.log.lock().unwrap())
    }
}

fn errno(errno: Errno) -> u32 {
    errno as u32
}

#[test]
fn a_call_that_waits_is_noted_once() {
    let mut bench = Bench::new(&[]);
    for _ in 0..3 {
        bench.blocks(|call| mielin::receive(call, 100, 10, 1_000_000_000, 200));
    }
    assert_eq!(*bench.desk.calls.lock().unwrap(), 1);
    bench.desk.mailbox.lock().unwrap().push_back(Received {
        from: Address([1; 16]),
        sequence: 1,
        kind: MessageKind::Message,
        payload: vec![5],
    });
    bench.call(|call| mielin::receive(call, 100, 10, 1_000_000_000, 200));
    assert_eq!(*bench.desk.calls.lock().unwrap(), 1);
    bench.call(|call| mielin::receive(call, 100, 10, 0, 200));
    assert_eq!(*bench.desk.calls.lock().unwrap(), 2);
}

#[test]
fn a_program_leaves_after_the_call_for_which_the_node_says_so_and_goes_on_after_it() {
    let wat = r#"(module
        (import "mielin" "abi_version" (func $call (result i32)))
        (memory (export "memory") 1)
        (func (export "_start") (local $i i32)
            (loop $again
                (drop (call $call))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $i) (i32.const 6))))))"#;
    let module = mielin_safepoint::instrument(&wat::parse_str(wat).unwrap()).unwrap();
    for kind in [crate::EngineKind::Wasmtime, crate::EngineKind::Wasmi] {
        let prepared = crate::engine(kind).unwrap().prepare(&module, None).unwrap();
        let host = HostState::new(Address::default());
        let desk = Arc::new(Desk {
            leaves_at: Some(4),
            ..Desk::default()
        });
        let services = Arc::clone(&desk) as Arc<dyn Services>;
        let limits = Limits::default();
        let mut instance = prepared.instantiate(host, services, &limits).unwrap();
        // The poll of the loop comes before the next call.
        for calls in [4, 5] {
            assert_eq!(instance.run(), crate::Outcome::Stopped, "{kind}");
            assert_eq!(*desk.calls.lock().unwrap(), calls, "{kind}");
        }
        assert_eq!(instance.run(), crate::Outcome::Exited(0), "{kind}");
        assert_eq!(*desk.calls.lock().unwrap(), 6, "{kind}");
    }
}

#[test]
fn every_function_of_the_list_links_on_both_engines() {
    use super::table::{HOST_FUNCTIONS, Number};
    let name = |number: &Number| match number {
        Number::I32 => "i32",
        Number::I64 => "i64",
    };
    let mut imports = String::new();
    for function in HOST_FUNCTIONS {
        let list = |numbers: &[Number]| numbers.iter().map(name).collect::<Vec<_>>().join(" ");
        imports.push_str(&format!(
            "(import \"{}\" \"{}\" (func (param {}) (result {})))\n",
            function.module,
            function.name,
            list(function.parameters),
            list(function.results)
        ));
    }
    let wasi = HOST_FUNCTIONS
        .iter()
        .filter(|function| function.module != "mielin")
        .count();
    assert_eq!((wasi, HOST_FUNCTIONS.len()), (46, 65));
    let wat =
        format!(r#"(module {imports} (memory (export "memory") 1) (func (export "_start")))"#);
    let module = mielin_safepoint::instrument(&wat::parse_str(wat).unwrap()).unwrap();
    for kind in [crate::EngineKind::Wasmtime, crate::EngineKind::Wasmi] {
        let prepared = crate::engine(kind).unwrap().prepare(&module, None).unwrap();
        let host = HostState::new(Address::default());
        let desk = Arc::new(Desk::default());
        let mut instance = prepared
            .instantiate(host, desk, &Limits::default())
            .unwrap();
        assert_eq!(instance.run(), crate::Outcome::Exited(0), "{kind}");
    }
}

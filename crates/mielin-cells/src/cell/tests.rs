#![allow(clippy::unwrap_used)]

use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use mielin_mesh_core::delivery::{MessageKind, Outbox};
use mielin_mesh_core::{AgentId, Epoch, Instant as MeshInstant, NodeId};
use mielin_safepoint::Resumable;
use mielin_wasm::{
    Address, EngineError, EngineKind, Grants, HostState, Instance, Limits, NotWoken, Rested,
    Services,
};
use tokio::sync::mpsc;

use super::*;
use crate::config::CellsConfig;
use crate::logs::Home;
use crate::modules::Modules;
use crate::report::HostLine;
use crate::spawn::host_calls;
use crate::stored::Stored;

/// Counts messages at 2048; ends with 9 when none comes in time, which is what `$patience` says.
fn counting(patience_ns: i64) -> String {
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
        (import "mielin" "receive" (func $receive (param i32 i32 i64 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "_start")
            (loop $again
                (if (call $receive (i32.const 1024) (i32.const 64) (i64.const {patience_ns}) (i32.const 16))
                    (then (call $proc_exit (i32.const 9))))
                (i32.store (i32.const 2048) (i32.add (i32.load (i32.const 2048)) (i32.const 1)))
                (br $again))))"#
    )
}

/// A compiled module for which there is no room so many times. Counts the instances that are made of it.
struct Scarce {
    prepared: Arc<dyn Prepared>,
    refusals: AtomicUsize,
    refused: AtomicUsize,
    woken: AtomicUsize,
}

impl Scarce {
    fn new(text: &str, refusals: usize) -> Arc<Scarce> {
        Arc::new(Scarce {
            prepared: prepared(text),
            refusals: AtomicUsize::new(refusals),
            refused: AtomicUsize::new(0),
            woken: AtomicUsize::new(0),
        })
    }
}

impl Prepared for Scarce {
    fn module(&self) -> &Resumable {
        self.prepared.module()
    }

    fn instantiate(
        &self,
        host: HostState,
        services: Arc<dyn Services>,
        limits: &Limits,
    ) -> Result<Box<dyn Instance>, EngineError> {
        self.prepared.instantiate(host, services, limits)
    }

    fn rested(
        &self,
        host: HostState,
        services: Arc<dyn Services>,
        limits: &Limits,
    ) -> Result<Rested, EngineError> {
        self.prepared.rested(host, services, limits)
    }

    fn wake(&self, rested: Rested) -> Result<Box<dyn Instance>, Box<NotWoken>> {
        let less = |refusals: usize| refusals.checked_sub(1);
        let refused = self
            .refusals
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        match refused {
            Ok(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(Box::new(NotWoken {
                    rested,
                    error: EngineError::Grow { bytes: 1 << 30 },
                }))
            }
            Err(_) => {
                self.woken.fetch_add(1, Ordering::Relaxed);
                self.prepared.wake(rested)
            }
        }
    }
}

/// A compiled module.
pub(crate) fn prepared(text: &str) -> Arc<dyn Prepared> {
    let module = wat::parse_str(text).unwrap().into();
    let modules = Modules::open(&CellsConfig::default()).unwrap();
    let prepared = modules.prepare(&module, EngineKind::Wasmtime, &Limits::default());
    prepared.unwrap()
}

/// One thread for agents, on which a turn is longer than any test; so many of them have an instance while they rest.
pub(crate) fn scheduler(live_max: usize) -> Scheduler {
    Scheduler::start(1, Duration::from_secs(3600), 1 << 20, live_max).unwrap()
}

/// A new agent of a module, started.
pub(crate) fn agent_of(prepared: Arc<dyn Prepared>, scheduler: &Scheduler) -> Arc<Cell> {
    agent_at(prepared, scheduler, None)
}

/// The same with a place where it is kept.
pub(crate) fn agent_at(
    prepared: Arc<dyn Prepared>,
    scheduler: &Scheduler,
    home: Option<Home>,
) -> Arc<Cell> {
    let identity = Identity {
        id: home.as_ref().map_or_else(AgentId::new, |home| home.agent),
        name: "tested".to_owned(),
        owner: NodeId([0; 32]),
        grants: Grants::default(),
        limits: Limits::default(),
        budget: Budget::default(),
        started_ms: 0,
    };
    let logs = Arc::new(Logs::new(home));
    let post = Arc::new(Post::new(identity.id, Epoch(1), 1024));
    let tally = Arc::<Tally>::default();
    let services = host_calls(&identity, &logs, &post, &tally);
    let host = HostState::new(Address(identity.id.0));
    let rested = prepared.rested(host, services, &identity.limits).unwrap();
    let parts = Parts {
        epoch: Epoch(1),
        engine: EngineKind::Wasmtime,
        prepared,
        logs,
        post,
        tally,
        program: Program::Rested(Box::new(rested)),
        paused: false,
        settled: true,
        identity,
    };
    let cell = Cell::new(parts, scheduler.clone(), mpsc::unbounded_channel().0);
    cell.start();
    cell
}

pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

pub(super) fn place(cell: &Cell) -> Place {
    lock(&cell.turn).place
}

/// Whether it stands there with an instance, or without.
fn is(cell: &Cell, place: Place, live: bool) -> bool {
    let turn = lock(&cell.turn);
    let has_instance = matches!(turn.program, Some(Program::Live(_)));
    turn.program.is_some() && turn.place == place && has_instance == live
}

fn until_rested(cell: &Cell) {
    until("it does not rest", || is(cell, Place::Waiting, false));
}

/// Puts messages into its mailbox, and says so.
struct Sender(Outbox);

impl Sender {
    fn new() -> Sender {
        Sender(Outbox::new(AgentId([9; 16])))
    }

    fn send(&mut self, cell: &Arc<Cell>) {
        let now = MeshInstant::START;
        let message = Bytes::from_static(b"message");
        let outbox = &mut self.0;
        let pushed = outbox.push(Epoch(1), cell.id(), MessageKind::Send, message);
        let envelopes = outbox.begin_exchange(now, &cell.id()).unwrap();
        let reply = cell.post.accept(envelopes, &cell.tally.received);
        outbox.handle_reply(now, &cell.id(), reply);
        outbox.end_exchange(&cell.id());
        assert!(pushed.is_ok() && outbox.is_empty());
        cell.message_arrived();
    }
}

/// What it has counted; whoever asks holds it for that.
async fn counted(cell: &Arc<Cell>) -> u8 {
    let held = cell.hold_live().await.unwrap();
    held.instance().memory()[2048]
}

#[tokio::test]
async fn an_agent_that_waits_rests_and_wakes_for_each_message() {
    let scheduler = scheduler(0);
    let cell = agent_of(prepared(&counting(-1)), &scheduler);
    let mut sender = Sender::new();
    for count in 0..4 {
        until_rested(&cell);
        assert_eq!(cell.memory_bytes(), 65536);
        assert_eq!(counted(&cell).await, count);
        until_rested(&cell);
        sender.send(&cell);
        until("it does not take it", || cell.post.mailbox_is_empty());
    }
    until_rested(&cell);
    cell.kill().unwrap();
    assert_eq!(cell.end().unwrap().exit_code, EXIT_TERMINATED);
    assert_eq!(cell.memory_bytes(), 65536);
    scheduler.close();
}

#[test]
fn those_that_were_active_last_keep_their_instance() {
    let scheduler = scheduler(2);
    let prepared = prepared(&counting(-1));
    let cells = [0, 1, 2, 3].map(|_| {
        let cell = agent_of(Arc::clone(&prepared), &scheduler);
        until("it does not wait", || place(&cell) == Place::Waiting);
        cell
    });
    let live = |expected: [bool; 4]| {
        until("others are live", || {
            let mut all = cells.iter().zip(expected);
            all.all(|(cell, live)| is(cell, Place::Waiting, live))
        });
    };
    live([false, false, true, true]);
    let mut sender = Sender::new();
    sender.send(&cells[2]);
    live([false, false, true, true]);
    sender.send(&cells[0]);
    live([true, false, true, false]);
    // One that ends makes room for another.
    cells[2].kill().unwrap();
    assert_eq!(scheduler.live().len(), 1);
    sender.send(&cells[1]);
    until("others are live", || is(&cells[1], Place::Waiting, true));
    assert!(is(&cells[0], Place::Waiting, true));
    assert_eq!(scheduler.live().len(), 2);
    scheduler.close();
}

/// Writes a word to each page of 20 MiB, and waits for messages.
const WIDE: &str = r#"(module
    (import "mielin" "receive" (func $receive (param i32 i32 i64 i32) (result i32)))
    (memory (export "memory") 320)
    (func (export "_start") (local $at i32)
        (loop $fill
            (i32.store (local.get $at) (i32.const 7))
            (local.set $at (i32.add (local.get $at) (i32.const 4096)))
            (br_if $fill (i32.lt_u (local.get $at) (i32.const 20971520))))
        (loop $again
            (drop (call $receive (i32.const 1024) (i32.const 64) (i64.const -1) (i32.const 16)))
            (br $again))))"#;

#[test]
fn one_that_cannot_rest_is_asked_once_for_each_turn() {
    let scheduler = scheduler(1);
    let prepared = prepared(WIDE);
    let cells = [0, 1, 2, 3].map(|_| agent_of(Arc::clone(&prepared), &scheduler));
    let stand = |live: usize| {
        until("they do not wait", || {
            let mut cells = cells.iter();
            cells.all(|cell| is(cell, Place::Waiting, true)) && scheduler.live().len() == live
        });
    };
    // Those that were asked are not asked again.
    stand(1);
    scheduler.live().trim();
    stand(1);
    // One that has had a turn is.
    Sender::new().send(&cells[0]);
    until("it does not take it", || cells[0].post.mailbox_is_empty());
    stand(1);
    scheduler.close();
}

/// Waits for messages with 6 MiB that a node must look at before it can give the instance back.
const SLOW_TO_REST: &str = r#"(module
    (import "mielin" "receive" (func $receive (param i32 i32 i64 i32) (result i32)))
    (memory (export "memory") 100)
    (func (export "_start")
        (memory.fill (i32.const 4096) (i32.const 1) (i32.const 6291456))
        (loop $again
            (drop (call $receive (i32.const 1024) (i32.const 64) (i64.const -1) (i32.const 16)))
            (i32.store (i32.const 2048) (i32.add (i32.load (i32.const 2048)) (i32.const 1)))
            (br $again))))"#;

/// How often something comes to it, and how often at most until it has come at the right moment.
const ROUNDS: u32 = 20;
const ROUNDS_MAX: u32 = 400;

#[tokio::test]
async fn what_comes_while_an_agent_is_put_to_rest_is_not_missed() {
    let scheduler = scheduler(0);
    let cell = agent_of(prepared(SLOW_TO_REST), &scheduler);
    let mut sender = Sender::new();
    until_rested(&cell);
    let being_rested = || lock(&cell.turn).resting != Resting::No;
    // Or has been, while this thread did not look.
    let is_over = || cell.post.mailbox_is_empty() && is(&cell, Place::Waiting, false);
    let until_resting = || until("it is not put to rest", || being_rested() || is_over());
    let mut hits = 0;
    let mut count = 0;
    for round in 0..ROUNDS_MAX {
        if round >= ROUNDS && hits > 0 {
            break;
        }
        sender.send(&cell);
        count += 1;
        until_resting();
        match round % 4 {
            0 => {
                sender.send(&cell);
                count += 1;
            }
            1 => {
                cell.pause().unwrap();
                sender.send(&cell);
                count += 1;
                cell.unpause().unwrap();
            }
            2 => assert_eq!(counted(&cell).await, count),
            _ => assert_eq!(cell.memory_bytes(), 100 << 16),
        }
        hits += usize::from(being_rested());
        until_rested(&cell);
        until("it does not take it", || cell.post.mailbox_is_empty());
        until_rested(&cell);
        assert_eq!(counted(&cell).await, count, "{round}");
        until_rested(&cell);
    }
    assert!(hits > 0, "nothing came while it was put to rest");
    sender.send(&cell);
    until_resting();
    cell.kill().unwrap();
    until("it does not end", || cell.end().is_some());
    assert_eq!(cell.end().unwrap().exit_code, EXIT_TERMINATED);
    scheduler.close();
}

#[tokio::test]
async fn what_cannot_be_woken_can_be_stored_and_given_up() {
    let scheduler = scheduler(0);
    let scarce = Scarce::new(&counting(-1), 0);
    let cell = agent_of(Arc::clone(&scarce) as Arc<dyn Prepared>, &scheduler);
    until_rested(&cell);
    Sender::new().send(&cell);
    until("it does not take it", || cell.post.mailbox_is_empty());
    until_rested(&cell);
    scarce.refusals.store(usize::MAX, Ordering::Relaxed);
    assert!(cell.hold_live().await.is_err());
    let held = cell.hold().await.unwrap();
    let bytes = Stored::whole(&cell, &held).unwrap().encode();
    held.retire();
    assert!(!cell.lives());
    let stored = Stored::decode(&bytes, 1 << 20).unwrap();
    let host = HostState::new(Address(cell.id().0));
    let services = host_calls(&cell.identity, &cell.logs, &cell.post, &cell.tally);
    let limits = Limits::default();
    let made = scarce.instantiate(host, services, &limits);
    let mut instance = made.unwrap();
    let grants = Some(&cell.identity.grants);
    stored.load(&mut *instance, grants).unwrap();
    assert_eq!(instance.memory()[2048], 1);
    scheduler.close();
}

#[test]
fn agents_that_want_to_run_keep_their_instance() {
    let spin = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $again (br $again))))"#;
    let module = Scarce::new(spin, 0);
    let scheduler = Scheduler::start(1, Duration::from_millis(1), 1 << 20, 1).unwrap();
    let cells =
        [0, 1, 2, 3].map(|_| agent_of(Arc::clone(&module) as Arc<dyn Prepared>, &scheduler));
    until("they do not run", || {
        let turns = |cell: &Arc<Cell>| cell.tally.turns.load(Ordering::Relaxed);
        cells.iter().all(|cell| turns(cell) > 5)
    });
    assert_eq!(module.woken.load(Ordering::Relaxed), cells.len());
    for cell in &cells {
        cell.kill().unwrap();
    }
    scheduler.close();
}

#[test]
fn a_wait_ends_at_rest() {
    let scheduler = scheduler(0);
    let cell = agent_of(prepared(&counting(50_000_000)), &scheduler);
    until("its wait does not end", || cell.end().is_some());
    assert_eq!(cell.end().unwrap().exit_code, 9);
    // It was woken for that.
    assert!(cell.tally.turns.load(Ordering::Relaxed) >= 2);
    scheduler.close();
}

#[test]
fn an_agent_at_rest_can_be_paused_and_ended() {
    let scheduler = scheduler(0);
    let cell = agent_of(prepared(&counting(-1)), &scheduler);
    let mut sender = Sender::new();
    until_rested(&cell);
    cell.pause().unwrap();
    assert!(is(&cell, Place::Paused, false));
    sender.send(&cell);
    assert!(is(&cell, Place::Paused, false));
    cell.unpause().unwrap();
    until_rested(&cell);
    assert!(cell.post.mailbox_is_empty());
    cell.pause().unwrap();
    cell.kill().unwrap();
    assert_eq!(cell.end().unwrap().exit_code, EXIT_TERMINATED);
    scheduler.close();
}

#[tokio::test]
async fn what_an_operation_has_claimed_keeps_its_instance_until_it_is_let_go() {
    let scheduler = scheduler(0);
    let prepared = prepared(&counting(-1));
    let cell = agent_of(Arc::clone(&prepared), &scheduler);
    until_rested(&cell);
    let claim = cell.claim("a test").unwrap();
    let mut held = cell.hold_live().await.unwrap();
    assert_eq!(place(&cell), Place::Held);
    let tracker = held.instance_mut().track().unwrap();
    drop(held);
    until("it does not wait", || is(&cell, Place::Waiting, true));
    drop(tracker);
    let mut sender = Sender::new();
    sender.send(&cell);
    until("it does not wait", || is(&cell, Place::Waiting, true));
    drop(claim);
    // It is looked at again when somebody else has had a turn.
    until_rested(&agent_of(prepared, &scheduler));
    until_rested(&cell);
    assert_eq!(counted(&cell).await, 1);
    scheduler.close();
}

#[tokio::test]
async fn an_agent_for_which_there_is_no_room_goes_on_when_there_is() {
    let scheduler = scheduler(0);
    let scarce = Scarce::new(&counting(-1), 1);
    let cell = agent_of(Arc::clone(&scarce) as Arc<dyn Prepared>, &scheduler);
    until("it does not wait for room", || {
        !cell.logs.lines().is_empty()
    });
    let line = &cell.logs.lines()[0].text;
    assert!(line.contains("cannot grow to 1073741824 bytes"), "{line}");
    until_rested(&cell);
    // Whoever wants it learns why he does not get it, and it goes on.
    scarce.refusals.store(1, Ordering::Relaxed);
    let error = cell.hold_live().await.err().unwrap();
    until_rested(&cell);
    assert!(cell.hold().await.is_ok(), "it can be had as it is");
    assert!(
        matches!(error, CellsError::Engine(EngineError::Grow { .. })),
        "{error}"
    );
    until_rested(&cell);
    assert_eq!(counted(&cell).await, 0);
    // It can be ended, whether or not there is room.
    until_rested(&cell);
    scarce.refusals.store(usize::MAX, Ordering::Relaxed);
    Sender::new().send(&cell);
    // The second time, because the first was in its log already when it was held.
    let turns = || scarce.refused.load(Ordering::Relaxed);
    let before = turns();
    until("it does not try again", || {
        turns() > before + 1 && is(&cell, Place::Waiting, false)
    });
    let noted = |line: &&HostLine| line.text.contains("cannot go on");
    assert_eq!(cell.logs.lines().iter().filter(noted).count(), 1);
    cell.kill().unwrap();
    assert_eq!(cell.end().unwrap().exit_code, EXIT_TERMINATED);
    scheduler.close();
}

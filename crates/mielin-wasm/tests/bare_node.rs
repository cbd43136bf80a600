//! A program on a bare node: only what the crate offers without a standard library, with a clock that the test winds and
//! random bytes that it chooses. What ran there goes on under a host's wasmtime, and comes back.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mielin_safepoint::{Resumable, Snapshot, SnapshotLimits};
use mielin_wasm::{
    Address, EngineError, EngineKind, HostState, Instance, Limits, NoRandomBytes, Outcome,
    Platform, Services, StateError, Trap, TrapKind, engine,
};
use support::{Node, all_grants, module};

/// Draws 16 random bytes, then works on them for 50,000 turns. Every 1,000 turns it asks for the time, which must not
/// have gone back, and after the first half of them it sleeps for a millisecond. Prints what has come of the bytes.
const PROGRAM: &str = r#"(module
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  ;; A monotonic, relative subscription at 128: a millisecond.
  (data (i32.const 144) "\01\00\00\00\00\00\00\00\40\42\0f\00\00\00\00\00")
  ;; What is written: 16 bytes at 0.
  (data (i32.const 64) "\00\00\00\00\10\00\00\00")
  (func $check (param i32) (if (local.get 0) (then unreachable)))
  (func (export "_start") (local $turn i32) (local $last i64)
    (call $check (call $random (i32.const 0) (i32.const 16)))
    (loop $again
      (i64.store (i32.const 0)
        (i64.mul (i64.xor (i64.load (i32.const 0)) (i64.load (i32.const 8))) (i64.const 0x9e3779b97f4a7c15)))
      (i64.store (i32.const 8)
        (i64.add (i64.rotl (i64.load (i32.const 8)) (i64.const 13)) (i64.extend_i32_u (local.get $turn))))
      ;; A page that is written only here, and far from the rest.
      (i32.store (i32.const 90000) (local.get $turn))
      (if (i32.eqz (i32.rem_u (local.get $turn) (i32.const 1000)))
        (then
          (call $check (call $time (i32.const 1) (i64.const 0) (i32.const 80)))
          (call $check (i64.lt_u (i64.load (i32.const 80)) (local.get $last)))
          (local.set $last (i64.load (i32.const 80)))))
      (if (i32.eq (local.get $turn) (i32.const 25000))
        (then (call $check (call $poll (i32.const 128) (i32.const 192) (i32.const 1) (i32.const 96)))))
      (local.set $turn (i32.add (local.get $turn) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $turn) (i32.const 50000))))
    (call $check (call $write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 72)))))"#;

/// A machine whose time passes only when it is told to, and whose random bytes count.
#[derive(Debug, Default)]
struct Board {
    now_ns: AtomicU64,
    given: AtomicU64,
}

impl Board {
    /// One that stays for as long as the process.
    fn new() -> &'static Self {
        Box::leak(Box::default())
    }
}

impl Platform for Board {
    fn monotonic_ns(&self) -> u64 {
        self.now_ns.load(Ordering::Relaxed)
    }

    fn realtime_ns(&self) -> u64 {
        0
    }

    fn fill_random(&self, out: &mut [u8]) -> Result<(), NoRandomBytes> {
        for byte in out {
            *byte = self.given.fetch_add(1, Ordering::Relaxed) as u8;
        }
        Ok(())
    }

    fn sleep(&self, at_most: Duration) {
        let ns = at_most.as_nanos() as u64;
        self.now_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

/// What the program does to the bytes that a board gives first.
fn expected() -> Vec<u8> {
    let bytes: [u8; 16] = std::array::from_fn(|index| index as u8);
    let [mut a, mut b] = [0, 8].map(|at| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()));
    for turn in 0..50_000 {
        a = (a ^ b).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        b = b.rotate_left(13).wrapping_add(turn);
    }
    [a.to_le_bytes(), b.to_le_bytes()].concat()
}

fn state(board: &'static dyn Platform) -> HostState {
    HostState::on(board, Address([7; 16])).with_grants(all_grants())
}

fn instance(
    kind: EngineKind,
    module: &Resumable,
    host: HostState,
    node: &Arc<Node>,
) -> Box<dyn Instance> {
    let services = Arc::clone(node) as Arc<dyn Services>;
    let prepared = engine(kind).unwrap().prepare(module, None).unwrap();
    prepared
        .instantiate(host, services, &Limits::default())
        .unwrap()
}

/// Turns of the loop that it has done.
fn turns(instance: &dyn Instance) -> u32 {
    let at = 90_000..90_004;
    u32::from_le_bytes(instance.memory()[at].try_into().unwrap())
}

/// From one safepoint to the next, this many times.
fn step(instance: &mut dyn Instance, count: u32) {
    for _ in 0..count {
        instance.stop_handle().request();
        assert_eq!(instance.run(), Outcome::Stopped);
    }
}

/// As bytes, to another machine.
fn carry(from: &dyn Instance, to: &mut dyn Instance) {
    let bytes = from.snapshot().encode();
    let snapshot = Snapshot::decode(&bytes, &SnapshotLimits::default()).unwrap();
    to.load(&snapshot).unwrap();
    // It is the same in the same form.
    let mut again = to.snapshot();
    let clock = |snapshot: &Snapshot| {
        let run = snapshot.host.iter().find(|it| it.name == "wasm.run");
        u64::from_le_bytes(run.unwrap().bytes[..8].try_into().unwrap())
    };
    assert!(clock(&again) >= clock(&snapshot));
    // But for the clock, which runs on.
    for (section, sent) in again.host.iter_mut().zip(&snapshot.host) {
        if section.name == "wasm.run" {
            section.bytes[..8].copy_from_slice(&sent.bytes[..8]);
        }
    }
    assert!(again.encode() == bytes);
}

#[test]
fn a_program_with_less_room_for_frames_is_the_same_program() {
    let module = module(PROGRAM);
    let small = Resumable::unvalidated(module.bytes().to_vec()).unwrap();
    let small = small.with_frames_pages(1);
    assert_eq!((small.hash(), small.frames_pages()), (module.hash(), 1));
    assert_eq!(small.manifest(), module.manifest());
    let node = Arc::new(Node::default());
    let board = Board::new();

    let mut first = instance(EngineKind::Wasmi, &small, state(board), &node);
    step(&mut *first, 10_000);
    let hosted = HostState::new(Address::default());
    let mut second = instance(EngineKind::Wasmtime, &module, hosted, &node);
    carry(&*first, &mut *second);
    drop(first);
    step(&mut *second, 3000);
    let mut third = instance(EngineKind::Wasmi, &small, state(board), &node);
    carry(&*second, &mut *third);
    let Outcome::Blocked(wait) = third.run() else {
        panic!("it sleeps after {} turns", turns(&*third));
    };
    board.sleep(third.host().until(wait.deadline_ns.unwrap()));
    assert_eq!(third.run(), Outcome::Exited(0));
    assert_eq!(node.state.lock().unwrap().stdout, expected());
}

/// Calls itself 2,000 deep, with at least 40 bytes to keep in each, and waits there for a message.
const DEEP: &str = r#"(module
  (import "mielin" "receive" (func $receive (param i32 i32 i64 i32) (result i32)))
  (memory (export "memory") 1)
  (func $down (param i32) (param i64 i64 i64 i64) (result i64)
    (if (local.get 0)
      (then (drop (call $down (i32.sub (local.get 0) (i32.const 1))
        (local.get 1) (local.get 2) (local.get 3) (local.get 4))))
      (else (drop (call $receive (i32.const 0) (i32.const 16) (i64.const -1) (i32.const 64)))))
    (i64.add (i64.add (local.get 1) (local.get 2)) (i64.add (local.get 3) (local.get 4))))
  (func (export "_start")
    (drop (call $down (i32.const 2000) (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4)))))"#;

#[test]
fn frames_that_do_not_fit_end_the_program() {
    let deep = module(DEEP);
    let node = Arc::new(Node::default());
    let board = Board::new();
    let mut roomy = instance(EngineKind::Wasmi, &deep, state(board), &node);
    assert!(matches!(roomy.run(), Outcome::Blocked(_)));
    let small = deep.with_frames_pages(1);
    let mut small = instance(EngineKind::Wasmi, &small, state(board), &node);
    let full = Outcome::Trapped(Trap::from(TrapKind::FramesFull));
    assert_eq!(small.run(), full);
}

#[test]
fn a_program_goes_from_a_bare_node_to_wasmtime_in_mid_loop_and_back() {
    let module = module(PROGRAM);
    let (bare, host) = (Arc::new(Node::default()), Arc::new(Node::default()));
    let board = Board::new();

    let mut first = instance(EngineKind::Wasmi, &module, state(board), &bare);
    step(&mut *first, 10_000);
    let done = turns(&*first);
    assert!(0 < done && done < 25_000, "{done}");
    assert_eq!(first.host().now_ns(), 0, "nobody has wound its clock");

    let hosted = HostState::new(Address::default());
    let mut second = instance(EngineKind::Wasmtime, &module, hosted, &host);
    carry(&*first, &mut *second);
    drop(first);
    step(&mut *second, 3000);
    assert!(turns(&*second) > done);

    // Back: the clock goes on from the host's, however far this machine's own is.
    board.now_ns.store(1 << 50, Ordering::Relaxed);
    let other = HostState::on(board, Address::default());
    let mut third = instance(EngineKind::Wasmi, &module, other, &bare);
    carry(&*second, &mut *third);
    drop(second);
    assert!(third.host().now_ns() < 1 << 50);
    let Outcome::Blocked(wait) = third.run() else {
        panic!("it sleeps after {} turns", turns(&*third));
    };
    assert_eq!(turns(&*third), 25_000);
    let left = third.host().until(wait.deadline_ns.unwrap());
    assert_eq!(left, Duration::from_millis(1));
    assert_eq!(third.run(), Outcome::Blocked(wait), "no time has passed");
    board.sleep(left);
    assert_eq!(third.run(), Outcome::Exited(0));
    assert_eq!(bare.state.lock().unwrap().stdout, expected());
}

#[test]
fn a_plain_program_sleeps_on_its_platform() {
    let wasm = wat::parse_str(PROGRAM).unwrap();
    for kind in [EngineKind::Wasmi, EngineKind::Wasmtime] {
        let (board, node) = (Board::new(), Arc::new(Node::default()));
        let plain = engine(kind).unwrap().prepare_plain(&wasm).unwrap();
        let services = Arc::clone(&node) as Arc<dyn Services>;
        let outcome = plain.run(state(board), services, &Limits::default());
        assert_eq!(outcome.unwrap(), Outcome::Exited(0));
        assert_eq!(board.monotonic_ns(), 1_000_000, "the time that it slept");
        assert_eq!(node.state.lock().unwrap().stdout, expected());
    }
}

/// A machine whose clock was set back, and which has no random bytes.
#[derive(Debug, Default)]
struct Broken {
    asked: AtomicU64,
}

impl Platform for Broken {
    fn monotonic_ns(&self) -> u64 {
        1000_u64.saturating_sub(self.asked.fetch_add(1, Ordering::Relaxed))
    }

    fn realtime_ns(&self) -> u64 {
        0
    }

    fn fill_random(&self, _: &mut [u8]) -> Result<(), NoRandomBytes> {
        Err(NoRandomBytes {
            reason: "there is no generator".into(),
        })
    }
}

#[test]
fn a_platform_without_random_bytes_is_an_error_and_one_that_goes_back_none() {
    let broken: &'static Broken = Box::leak(Box::default());
    let node = Arc::new(Node::default());
    let mut program = instance(EngineKind::Wasmi, &module(PROGRAM), state(broken), &node);
    let refused = program.track().map(|_| ()).unwrap_err();
    assert!(matches!(refused, EngineError::Entropy(_)), "{refused}");
    assert_eq!(
        refused.to_string(),
        "the machine gave no random bytes: there is no generator"
    );
    assert_eq!(program.host().now_ns(), 0);
    let trapped = Outcome::Trapped(Trap::from(TrapKind::Unreachable));
    assert_eq!(program.run(), trapped, "the program sees the error");
    let nothing = HostState::from_sections_on(broken, &[]).map(|_| ());
    assert!(matches!(nothing, Err(StateError::Missing { .. })));
}

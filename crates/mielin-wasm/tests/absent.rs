//! A program runs while pages of its memory are still to come.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant as Clock};

use mielin_safepoint::PAGE_SIZE;
use mielin_wasm::{
    AbsentPages, EngineError, EngineKind, Instance, Limits, Outcome, TrackError, engine,
};
use support::{Node, host, instance, module};

const PAGES: u32 = 128;

/// Adds up the first bytes of all 128 pages from the last to the first, writes the whole memory to its log by one call,
/// and exits with the sum.
const SUM: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 8)
    (data (i32.const 12) "\ff")
    (func (export "_start") (local $page i32) (local $sum i32)
        (local.set $page (i32.const 128))
        (loop $next
            (local.set $page (i32.sub (local.get $page) (i32.const 1)))
            (local.set $sum (i32.add (local.get $sum)
                (i32.load8_u (i32.mul (local.get $page) (i32.const 4096)))))
            (br_if $next (local.get $page)))
        (i32.store (i32.const 0) (i32.const 65536))
        (i32.store (i32.const 4) (i32.const 262144))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
        (call $exit (local.get $sum))))"#;

/// Serves pages as they are wanted, until the program has ended. Gives those that were wanted.
fn serve(
    absent: &mut dyn AbsentPages,
    over: impl Fn() -> bool,
    byte: impl Fn(u32) -> u8,
) -> Vec<u32> {
    let deadline = Clock::now() + Duration::from_secs(60);
    let mut served = Vec::new();
    while !over() {
        assert!(Clock::now() < deadline, "the program waits: {served:?}");
        for index in absent.wanted().unwrap() {
            served.push(index);
            let placed = absent.place(index, &[[byte(index); PAGE_SIZE]]).unwrap();
            assert_eq!(placed, 1, "page {index} was absent");
        }
        thread::yield_now();
    }
    served
}

fn needs_userfaultfd() -> bool {
    let works = engine(EngineKind::Wasmtime).unwrap().lets_follow();
    assert!(works, "this machine has no userfaultfd for ordinary users");
    works
}

#[test]
fn a_program_waits_for_what_it_touches_and_gets_it() {
    assert!(needs_userfaultfd());
    let node = Arc::new(Node::default());
    let prepared = engine(EngineKind::Wasmtime)
        .unwrap()
        .prepare(&module(SUM), None)
        .unwrap();
    let mut instance = prepared
        .instantiate(host(), node.clone(), &Limits::default())
        .unwrap();
    // Pages 1, 5 and 6, and the last 110. The others are zero, whether the kernel has them or not.
    let runs = [(1, 1), (5, 2), (18, 110)];
    let mut absent = instance.let_follow(&runs).unwrap();
    assert_eq!(absent.count(), 113);
    let running = thread::spawn(move || {
        let outcome = instance.run();
        (outcome, instance)
    });
    let served = serve(
        &mut *absent,
        || running.is_finished(),
        |index| u8::from(index % 64 == 5),
    );
    let (outcome, instance) = running.join().unwrap();
    // Pages 5, 69.
    assert_eq!(outcome, Outcome::Exited(2));
    assert_eq!(served.len(), 113, "each of them once: {served:?}");
    assert_eq!(served[0], 127, "in the order of the program");
    assert_eq!(absent.count(), 0);
    // The kernel has read all of it, too.
    let log = node.stdout().into_bytes();
    assert_eq!(log.len(), 262_144);
    assert_eq!(log, instance.memory()[65_536..65_536 + 262_144]);
}

#[test]
fn what_is_said_to_be_zero_is_and_takes_no_memory_before_it_is_touched() {
    assert!(needs_userfaultfd());
    let mut instance = instance(EngineKind::Wasmtime, SUM);
    let mut absent = instance.let_follow(&[(0, PAGES)]).unwrap();
    let running = thread::spawn(move || {
        let outcome = instance.run();
        (outcome, instance)
    });
    let deadline = Clock::now() + Duration::from_secs(60);
    let mut named = Vec::new();
    while !running.is_finished() {
        assert!(Clock::now() < deadline, "the program waits: {named:?}");
        for index in absent.wanted().unwrap() {
            match index % 64 {
                5 => assert_eq!(absent.place(index, &[[1; PAGE_SIZE]]).unwrap(), 1),
                // With some that nobody waits for yet, some that came already, and some beyond the end.
                63 => absent.place_zeros(index - 13, 20).unwrap(),
                _ => absent.place_zeros(index, 1).unwrap(),
            }
            named.push(index);
        }
        thread::yield_now();
    }
    // Pages 5, 69.
    let (outcome, instance) = running.join().unwrap();
    assert_eq!(outcome, Outcome::Exited(2));
    drop(instance);
    let expected = (0..PAGES).filter(|index| !(50..63).contains(&(index % 64)));
    assert!(named.iter().rev().copied().eq(expected), "{named:?}");
    assert_eq!(absent.count(), 0);

    let mut instance = support::instance(EngineKind::Wasmtime, SUM);
    instance.clear();
    let mut absent = instance.let_follow(&[(3, PAGES - 3)]).unwrap();
    absent.place(9, &[[1; PAGE_SIZE]]).unwrap();
    absent.place_zeros(0, PAGES).unwrap();
    assert_eq!(absent.count(), 0);
    assert_eq!(instance.touched_pages(), [9]);
    drop(instance);
    let gone = absent.place_zeros(0, 1);
    assert!(matches!(gone, Err(TrackError::Gone)), "{gone:?}");
}

#[test]
fn pages_come_twice_in_runs_or_never() {
    assert!(needs_userfaultfd());
    let mut instance = instance(EngineKind::Wasmtime, SUM);
    let mut absent = instance.let_follow(&[(2, 6), (10, 1)]).unwrap();
    // A run with pages that are not absent: those keep what they have.
    let pages = [[3; PAGE_SIZE]; 4];
    assert_eq!(absent.place(0, &pages).unwrap(), 2);
    assert_eq!(absent.place(0, &pages).unwrap(), 0);
    assert_eq!(
        absent.place(PAGES - 2, &pages).unwrap(),
        0,
        "beyond the end"
    );
    assert_eq!(absent.place(u32::MAX, &pages).unwrap(), 0);
    assert_eq!(absent.count(), 5);
    let memory = instance.memory();
    assert_eq!(
        memory[..16],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0, 0]
    );
    assert_eq!(memory[2 * PAGE_SIZE..4 * PAGE_SIZE], [3; 2 * PAGE_SIZE]);
    // Whoever gives up lets the program go on.
    let running = thread::spawn(move || instance.run());
    while absent.wanted().unwrap().is_empty() {
        thread::yield_now();
    }
    drop(absent);
    assert!(matches!(running.join().unwrap(), Outcome::Exited(_)));
}

#[test]
fn the_instance_may_be_gone_and_runs_may_be_wrong() {
    assert!(needs_userfaultfd());
    let mut here = instance(EngineKind::Wasmtime, SUM);
    for wrong in [(PAGES, 1), (PAGES - 1, 2), (1, u32::MAX)] {
        let result = here.let_follow(&[wrong]).map(|_| ());
        assert!(
            matches!(result, Err(EngineError::PageRange { .. })),
            "{wrong:?}"
        );
    }
    let mut absent = here.let_follow(&[(0, PAGES)]).unwrap();
    drop(here);
    let placed = absent.place(0, &[[1; PAGE_SIZE]]);
    assert!(matches!(placed, Err(TrackError::Gone)), "{placed:?}");
    // An interpreter's memory is not the kernel's business.
    let mut there = instance(EngineKind::Wasmi, SUM);
    assert!(!engine(EngineKind::Wasmi).unwrap().lets_follow());
    let result = there.let_follow(&[(0, 1)]).map(|_| ());
    assert!(matches!(
        result,
        Err(EngineError::Follow(TrackError::Unsupported))
    ));
}

/// What the program zeroed and the source did not send.
#[test]
fn a_cleared_instance_holds_no_data_segments() {
    for kind in support::BOTH {
        let mut instance: Box<dyn Instance> = instance(kind, SUM);
        assert_eq!(instance.memory()[12], 255, "{kind}");
        instance.clear();
        assert_eq!(instance.memory()[12], 0, "{kind}");
    }
}

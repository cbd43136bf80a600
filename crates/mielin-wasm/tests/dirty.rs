//! Dirty tracking: a copy that is kept up to date by harvests alone equals the memory.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mielin_wasm::{DirtyTracker, EngineKind, Instance, Outcome, TrackError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use support::{BOTH, instance};

const PAGE: usize = 4096;
const DEADLINE: Duration = Duration::from_secs(60);

/// Writes bytes at pseudo-random places for ever and grows its memory now and then.
const SCRIBBLER: &str = r#"(module (memory (export "memory") 16 64)
    (func (export "_start") (local $x i32) (local $n i32)
        (local.set $x (i32.const 2463534242))
        (loop $again
            (local.set $x (i32.xor (local.get $x) (i32.shl (local.get $x) (i32.const 13))))
            (local.set $x (i32.xor (local.get $x) (i32.shr_u (local.get $x) (i32.const 17))))
            (local.set $x (i32.xor (local.get $x) (i32.shl (local.get $x) (i32.const 5))))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (if (i32.eqz (i32.and (local.get $n) (i32.const 1023)))
                (then (drop (memory.grow (i32.const 1)))))
            (i32.store8
                (i32.rem_u (local.get $x) (i32.shl (memory.size) (i32.const 16)))
                (local.get $n))
            (br $again))))"#;

/// What a target would hold: pages from harvests, and nothing else.
#[derive(Default)]
struct Copy {
    bytes: Vec<u8>,
}

impl Copy {
    fn update(&mut self, tracker: &mut dyn DirtyTracker, parked: Option<&dyn Instance>) -> usize {
        let pages = tracker.harvest(parked).unwrap();
        assert!(
            pages.is_sorted_by(|one, other| one < other),
            "ascending, each once"
        );
        let mut read = vec![[0; PAGE]; pages.len()];
        tracker.read_many(&pages, parked, &mut read).unwrap();
        for (index, page) in pages.iter().zip(&read) {
            let start = *index as usize * PAGE;
            if self.bytes.len() < start + PAGE {
                self.bytes.resize(start + PAGE, 0);
            }
            self.bytes[start..][..PAGE].copy_from_slice(page);
        }
        pages.len()
    }

    fn check(&mut self, instance: &dyn Instance, place: &str) {
        self.bytes.resize(instance.memory().len(), 0);
        let pages = self.bytes.chunks(PAGE).zip(instance.memory().chunks(PAGE));
        let wrong: Vec<usize> = pages
            .enumerate()
            .filter(|(_, (copy, page))| copy != page)
            .map(|(index, _)| index)
            .collect();
        assert_eq!(
            wrong,
            [] as [usize; 0],
            "{place}: pages that no harvest gave"
        );
    }
}

fn model(kind: EngineKind) -> &'static str {
    let mut random = StdRng::seed_from_u64(7);
    let mut instance = instance(kind, SCRIBBLER);
    instance.write_page(3, &[5; PAGE]).unwrap();
    let mut tracker = instance.track().unwrap();
    let backend = tracker.backend();
    let mut copy = Copy::default();
    for round in 0..60 {
        let steps = random.random_range(0..200);
        for _ in 0..steps {
            instance.stop_handle().request();
            assert_eq!(instance.run(), Outcome::Stopped);
        }
        if round % 7 == 0 {
            let index = random.random_range(0..16);
            instance.write_page(index, &[round; PAGE]).unwrap();
        }
        copy.update(&mut *tracker, Some(&*instance));
        let place = format!("{kind}, {backend}, round {round}");
        copy.check(&*instance, &place);
        assert_eq!(
            tracker.harvest(Some(&*instance)).unwrap(),
            [],
            "{place}: harvested twice"
        );
    }
    assert!(instance.memory_bytes() > 16 * 65536, "it has grown");
    backend
}

#[test]
fn a_copy_kept_by_harvests_equals_the_memory() {
    for kind in BOTH {
        model(kind);
    }
}

#[test]
fn page_hashes_can_be_forced() {
    if std::env::var_os("MIELIN_DIRTY").is_some_and(|backend| backend == "page-hash") {
        assert_eq!(model(EngineKind::Wasmtime), "page-hash");
        return;
    }
    let again = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "page_hashes_can_be_forced"])
        .env("MIELIN_DIRTY", "page-hash")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(
        again.status.success() && output.contains("1 passed"),
        "{output}"
    );
}

#[test]
fn a_running_program_is_copied_and_then_only_the_rest() {
    let mut instance = instance(EngineKind::Wasmtime, SCRIBBLER);
    let mut tracker = instance.track().unwrap();
    if !tracker.concurrent() {
        return;
    }
    let mut copy = Copy::default();
    let begun = Instant::now();
    for round in 0..20 {
        let stop = instance.stop_handle();
        let over = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&over);
        let running = thread::spawn(move || {
            assert_eq!(instance.run(), Outcome::Stopped);
            noted.store(true, Ordering::Release);
            instance
        });
        // Until it has begun, and then while it writes.
        while copy.update(&mut *tracker, None) == 0 {
            assert!(begun.elapsed() < DEADLINE, "it must begin");
            thread::yield_now();
        }
        for _ in 0..5 {
            copy.update(&mut *tracker, None);
        }
        assert!(!over.load(Ordering::Acquire), "it runs all the while");
        stop.request();
        instance = running.join().unwrap();
        copy.update(&mut *tracker, None);
        copy.check(&*instance, &format!("round {round}"));
    }
}

#[test]
fn untouched_pages_are_neither_reported_nor_made() {
    let wat = r#"(module (memory (export "memory") 1024)
        (data (i32.const 40960) "x")
        (func (export "_start") (i32.store (i32.const 33554432) (i32.const 1))))"#;
    for kind in BOTH {
        let mut instance = instance(kind, wat);
        let mut tracker = instance.track().unwrap();
        assert_eq!(tracker.harvest(Some(&*instance)).unwrap(), [10], "{kind}");
        assert_eq!(instance.run(), Outcome::Exited(0));
        assert_eq!(tracker.harvest(Some(&*instance)).unwrap(), [8192], "{kind}");
        assert_eq!(tracker.harvest(Some(&*instance)).unwrap(), []);
        let mut page = [1; PAGE];
        tracker.read(16_384, Some(&*instance), &mut page).unwrap();
        assert_eq!(page, [0; PAGE], "beyond the end there are zeros");
    }
}

#[test]
fn after_the_instance_there_is_nothing_to_read() {
    for kind in BOTH {
        let mut instance = instance(kind, SCRIBBLER);
        let mut tracker = instance.track().unwrap();
        tracker.harvest(Some(&*instance)).unwrap();
        drop(instance);
        let mut page = [0; PAGE];
        let (harvest, read) = (tracker.harvest(None), tracker.read(0, None, &mut page));
        if tracker.concurrent() {
            assert!(matches!(harvest, Err(TrackError::Gone)), "{harvest:?}");
            assert!(matches!(read, Err(TrackError::Gone)), "{read:?}");
        } else {
            assert!(
                matches!(harvest, Err(TrackError::NeedsParked)),
                "{harvest:?}"
            );
            assert!(matches!(read, Err(TrackError::NeedsParked)), "{read:?}");
        }
    }
}

#[test]
fn a_second_tracker_works_beside_the_first_and_after_it() {
    for kind in BOTH {
        let mut instance = instance(kind, SCRIBBLER);
        instance.write_page(2, &[1; PAGE]).unwrap();
        let mut first = instance.track().unwrap();
        first.harvest(Some(&*instance)).unwrap();
        let mut second = instance.track().unwrap();
        assert!(second.harvest(Some(&*instance)).unwrap().contains(&2));
        drop(first);
        drop(second);
        let mut third = instance.track().unwrap();
        assert!(
            third.harvest(Some(&*instance)).unwrap().contains(&2),
            "{kind}"
        );
    }
}

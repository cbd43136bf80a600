//! What the engines cost: preparing a module, spawning a cached one, a time slice, dirty pages.
//!
//! `cargo xtask bench engine` runs it; times are medians where a step is repeated.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use mielin_wasm::engine;
use support::{BOTH, Node, host, instance, instance_with, module};

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn timed<T>(runs: usize, mut body: impl FnMut() -> T) -> Duration {
    let times = (0..runs).map(|_| {
        let start = Instant::now();
        std::hint::black_box(body());
        start.elapsed()
    });
    median(times.collect())
}

fn main() {
    let digest = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../agents/prebuilt/digest.wasm"
    );
    let digest = mielin_safepoint::instrument(&std::fs::read(digest).unwrap()).unwrap();
    let large = module(
        r#"(module (memory (export "memory") 1024) (func (export "_start") (loop $l (br $l))))"#,
    );
    for kind in BOTH {
        let start = Instant::now();
        let prepared = engine(kind).unwrap().prepare(&digest, None).unwrap();
        println!(
            "{kind}: prepare digest ({} bytes) {:?}",
            digest.bytes().len(),
            start.elapsed()
        );
        println!(
            "{kind}: prepare again {:?}",
            timed(100, || engine(kind).unwrap().prepare(&digest, None))
        );
        drop(prepared);
        let node = Arc::new(Node::default());
        let make = || instance_with(kind, &digest, host(), &node);
        println!(
            "{kind}: spawn a cached digest (instantiate and drop) {:?}",
            timed(200, make)
        );
        let mut slices = instance(
            kind,
            r#"(module (memory (export "memory") 1)
            (func (export "_start") (loop $l (br $l))))"#,
        );
        let slice = || {
            slices.stop_handle().request();
            slices.run()
        };
        println!(
            "{kind}: resume and stop at the next safepoint {:?}",
            timed(1000, slice)
        );

        let mut instance = instance_with(kind, &large, host(), &node);
        let fill = || {
            for index in 0..16384 {
                instance
                    .write_page(index, &[index as u8 | 1; 4096])
                    .unwrap();
            }
        };
        println!("{kind}: write 64 MiB {:?}", timed(1, fill));
        let mut tracker = instance.track().unwrap();
        let backend = tracker.backend();
        println!(
            "{kind}: {backend}: first harvest {:?}",
            timed(1, || tracker.harvest(Some(&*instance)))
        );
        for pages in [0, 164, 1638, 8192] {
            let mut times = Vec::new();
            for round in 0..20 {
                for page in 0..pages {
                    let index = (page * 16384 / pages) as u32;
                    instance.write_page(index, &[round + 2; 4096]).unwrap();
                }
                let start = Instant::now();
                let found = tracker.harvest(Some(&*instance)).unwrap();
                times.push(start.elapsed());
                assert_eq!(found.len(), pages);
            }
            println!(
                "{kind}: {backend}: harvest of {pages} pages {:?}",
                median(times)
            );
        }
        let all: Vec<u32> = (0..16384).collect();
        let mut out = vec![[0; 4096]; all.len()];
        let read = || tracker.read_many(&all, Some(&*instance), &mut out);
        println!("{kind}: {backend}: read 64 MiB {:?}", timed(5, read));
        println!(
            "{kind}: snapshot of 64 MiB {:?}",
            timed(3, || instance.snapshot().pages.len())
        );
    }
}

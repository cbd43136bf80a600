//! libFuzzer's way into the target `snapshot`.
#![no_main]

#[path = "../../crates/mielin-safepoint/tests/fuzz/snapshot.rs"]
mod snapshot;

#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    snapshot::TARGET.check(input);
});

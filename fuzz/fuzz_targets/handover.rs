//! libFuzzer's way into the target `handover`.
#![no_main]

#[path = "../../crates/mielin-mesh-core/tests/fuzz/handover.rs"]
mod handover;

#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    handover::TARGET.check(input);
});

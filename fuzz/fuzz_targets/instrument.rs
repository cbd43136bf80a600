//! libFuzzer's way into the target `instrument`.
#![no_main]

#[path = "../../crates/mielin-safepoint/tests/fuzz/instrument.rs"]
mod instrument;

#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    instrument::TARGET.check(input);
});

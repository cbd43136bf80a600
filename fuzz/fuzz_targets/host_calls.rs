//! libFuzzer's way into the target `host_calls`.
#![no_main]

#[path = "../../crates/mielin-wasm/tests/fuzz/host_calls.rs"]
mod host_calls;

#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    host_calls::TARGET.check(input);
});

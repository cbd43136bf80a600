//! libFuzzer's way into the target `host_state`.
#![no_main]

#[path = "../../crates/mielin-wasm/tests/fuzz/host_state.rs"]
mod host_state;

#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    host_state::TARGET.check(input);
});

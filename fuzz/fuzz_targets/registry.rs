//! libFuzzer's way into the target `registry`.
#![no_main]

#[path = "../../crates/mielin-mesh-core/tests/fuzz/registry.rs"]
mod registry;

#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    registry::TARGET.check(input);
});

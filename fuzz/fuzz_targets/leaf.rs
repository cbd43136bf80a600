//! libFuzzer's way into the target `leaf`.
#![no_main]

#[path = "../../crates/mielin-mesh-core/tests/fuzz/leaf.rs"]
mod leaf;

#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    leaf::TARGET.check(input);
});

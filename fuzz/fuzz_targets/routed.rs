//! libFuzzer's way into the target `routed`.
#![no_main]

#[path = "../../crates/mielin-mesh-core/tests/fuzz/routed.rs"]
mod routed;

#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    routed::TARGET.check(input);
});

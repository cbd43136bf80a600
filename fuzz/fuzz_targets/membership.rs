//! libFuzzer's way into the target `membership`.
#![no_main]

#[path = "../../crates/mielin-mesh-core/tests/fuzz/membership.rs"]
mod membership;

#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    membership::TARGET.check(input);
});

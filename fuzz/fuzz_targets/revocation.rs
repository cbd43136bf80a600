//! libFuzzer's way into the target `revocation`.
#![no_main]

#[path = "../../crates/mielin-mesh-core/tests/fuzz/revocation.rs"]
mod revocation;

#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    revocation::TARGET.check(input);
});

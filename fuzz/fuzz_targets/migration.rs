//! libFuzzer's way into the target `migration`.
#![no_main]

#[path = "../../crates/mielin-mesh-core/tests/fuzz/migration.rs"]
mod migration;

#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    migration::TARGET.check(input);
});

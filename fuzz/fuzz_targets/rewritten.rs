//! libFuzzer's way into the target `rewritten`.
#![no_main]

#[path = "../../crates/mielin-safepoint/tests/fuzz/rewritten.rs"]
mod rewritten;

#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    rewritten::TARGET.check(input);
});

//! libFuzzer's way into the target `token`.
#![no_main]

#[path = "../../crates/mielin-mesh-wire/tests/fuzz/token.rs"]
mod token;

#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    token::TARGET.check(input);
});

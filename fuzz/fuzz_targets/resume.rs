//! libFuzzer's way into the target `resume`.
#![no_main]

#[path = "../../crates/mielin-wasm/tests/fuzz/resume.rs"]
mod resume;

#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    resume::TARGET.check(input);
});

//! libFuzzer's way into the target `wire_types`.
#![no_main]

#[path = "../../crates/mielin-mesh-core/tests/fuzz/wire_types.rs"]
mod wire_types;

#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    wire_types::TARGET.check(input);
});

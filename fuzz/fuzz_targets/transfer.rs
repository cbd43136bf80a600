//! libFuzzer's way into the target `transfer`.
#![no_main]

#[path = "../../os/transfer/tests/fuzz/transfer.rs"]
mod transfer;

#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    transfer::TARGET.check(input);
});

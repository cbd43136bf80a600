//! libFuzzer's way into the target `mailbox`.
#![no_main]

#[path = "../../crates/mielin-mesh-core/tests/fuzz/mailbox.rs"]
mod mailbox;

#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    mailbox::TARGET.check(input);
});

//! What a network brings: the corpus of `fuzz/corpus` and mutations of it.

#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

mod transfer;

#[test]
fn transfer() {
    transfer::TARGET.replay();
}

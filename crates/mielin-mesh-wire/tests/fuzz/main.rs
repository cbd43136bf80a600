//! Join tokens from anybody: the corpus of `fuzz/corpus` and mutations of it.

#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

mod token;

#[test]
fn token() {
    token::TARGET.replay();
}

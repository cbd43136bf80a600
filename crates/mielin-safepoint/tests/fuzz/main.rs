//! Snapshots and modules from anybody: the corpora of `fuzz/corpus` and mutations of them.

#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

mod instrument;
mod rewritten;
mod snapshot;

#[test]
fn instrument() {
    instrument::TARGET.replay();
}

#[test]
fn rewritten() {
    rewritten::TARGET.replay();
}

#[test]
fn snapshot() {
    snapshot::TARGET.replay();
}

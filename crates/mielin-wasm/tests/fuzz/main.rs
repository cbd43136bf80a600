//! Host state and whole programs from anybody, and host calls with hostile pointers: the corpora of
//! `fuzz/corpus` and mutations of them.

#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

mod host_calls;
mod host_state;
mod resume;

#[test]
fn host_calls() {
    host_calls::TARGET.replay();
}

#[test]
fn host_state() {
    host_state::TARGET.replay();
}

#[test]
fn resume() {
    resume::TARGET.replay();
}

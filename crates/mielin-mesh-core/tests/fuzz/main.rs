//! What peers say to the cores, and mailboxes from a snapshot: the corpora of `fuzz/corpus` and
//! mutations of them.

#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;

mod handover;
mod leaf;
mod leaf_memory;
mod mailbox;
mod membership;
mod migration;
mod registry;
mod revocation;
mod routed;
mod wire_types;

#[test]
fn handover() {
    handover::TARGET.replay();
}

#[test]
fn leaf() {
    leaf::TARGET.replay();
}

#[test]
fn a_leaf_fits_its_memory() {
    leaf_memory::check();
}

#[test]
fn mailbox() {
    mailbox::TARGET.replay();
}

#[test]
fn membership() {
    membership::TARGET.replay();
}

#[test]
fn migration() {
    migration::TARGET.replay();
}

#[test]
fn registry() {
    registry::TARGET.replay();
}

#[test]
fn revocation() {
    revocation::TARGET.replay();
}

#[test]
fn routed() {
    routed::TARGET.replay();
}

#[test]
fn wire_types() {
    wire_types::TARGET.replay();
}

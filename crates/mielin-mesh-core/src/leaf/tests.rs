#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod cases;
mod forms;
mod standard;
mod streams;
mod world;

use super::SecretKey;

const MESH: [u8; 32] = [0x3e; 32];

fn key(number: u8) -> SecretKey {
    SecretKey::from_bytes([number; 32])
}

/// Drivers keep both ends in tasks that move between threads.
#[test]
fn both_ends_may_cross_threads() {
    const fn check<T: Send + Sync>() {}
    check::<super::Leaf>();
    check::<super::LeafHost<core::net::SocketAddr>>();
}

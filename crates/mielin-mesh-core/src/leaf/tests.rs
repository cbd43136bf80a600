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

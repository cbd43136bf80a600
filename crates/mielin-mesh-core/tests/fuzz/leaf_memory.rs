//! What a leaf has in memory at most.
#![allow(clippy::unwrap_used)]

use core::cell::RefCell;
use core::time::Duration;

use mielin_fuzz::Target;
use mielin_mesh_core::Instant;
use mielin_mesh_core::leaf::{
    Admission, Leaf, LeafHost, LeafNumber, MESSAGE_BYTES_MAX, PACKET_BYTES_MAX, SecretKey,
};

/// The heap of a leaf, where pointers have 64 bits; with 32 it is less.
const TARGET: Target = Target {
    name: "leaf_memory",
    mutations: 0,
    fixed_bytes: 6 << 10,
    bytes_per_byte: 0,
    run: full,
    seeds: Vec::new,
};

const NUMBER: LeafNumber = LeafNumber(1);

std::thread_local! {
    /// What the host says to the leaf, found out beforehand, so that the host's memory does not count.
    static FROM_HOST: RefCell<Vec<Vec<u8>>> = RefCell::new(from_host());
}

pub(crate) fn check() {
    FROM_HOST.with_borrow(|_| ());
    TARGET.check(&[]);
}

fn leaf() -> Leaf {
    let admission = Admission {
        number: NUMBER,
        mesh: [9; 32],
        host: SecretKey::from_bytes([1; 32]).public(),
        secret: [5; 32],
    };
    Leaf::new(SecretKey::from_bytes([3; 32]), admission, [4; 32])
}

/// An answer, and as many messages as go out at once.
fn from_host() -> Vec<Vec<u8>> {
    let mut host = LeafHost::new(SecretKey::from_bytes([1; 32]), [9; 32], [2; 32]);
    host.admit(NUMBER, [5; 32], None).unwrap();
    for _ in 0..4 {
        host.send(NUMBER, &[2; MESSAGE_BYTES_MAX]).unwrap();
    }
    let (now, mut leaf, mut said) = (Instant::START, leaf(), Vec::new());
    let mut buffer = [0; PACKET_BYTES_MAX];
    leaf.handle_timeout(now);
    loop {
        if let Some(packet) = leaf.poll_transmit(now, &mut buffer) {
            host.handle_packet(now, (), packet).unwrap();
        } else if let Some((_, packet)) = host.poll_transmit(now, &mut buffer) {
            leaf.handle_packet(now, packet).unwrap();
            said.push(packet.to_vec());
        } else {
            return said;
        }
    }
}

/// A leaf with everything that it can hold: all messages out and in, a connection, and the next handshake.
fn full(_: &[u8]) -> bool {
    let (mut now, mut leaf) = (Instant::START, leaf());
    let mut buffer = [0; PACKET_BYTES_MAX];
    leaf.handle_timeout(now);
    FROM_HOST.with_borrow(|from_host| {
        for packet in from_host {
            while leaf.poll_transmit(now, &mut buffer).is_some() {}
            leaf.handle_packet(now, packet).unwrap();
        }
    });
    while leaf.send(&[1; MESSAGE_BYTES_MAX]).is_ok() {}
    // Nobody answers, so it makes a handshake while it holds all of that.
    let mut hellos = 0;
    for _ in 0..60 {
        now = now + Duration::from_secs(1);
        leaf.handle_timeout(now);
        while let Some(packet) = leaf.poll_transmit(now, &mut buffer) {
            hellos += u32::from(packet[0] == 0x11);
        }
    }
    assert!(hellos > 2 && leaf.unacknowledged() == 4);
    assert_eq!(core::iter::from_fn(|| leaf.take()).count(), 4);
    true
}

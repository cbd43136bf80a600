//! Membership datagrams: whatever peers say, a node stays itself, alive, and within the size of a
//! datagram.
#![allow(clippy::unwrap_used)]

use core::time::Duration;

use mielin_fuzz::{Seed, Step, Steps, Target};
use mielin_mesh_core::limits::{CODEC_BYTES_MAX, MEMBERSHIP_DATAGRAM_BYTES_MAX};
use mielin_mesh_core::{
    Departure, Identity, Instant, MemberState, Membership, MembershipError, MembershipEvent, Name,
    NodeId, NodeRole, Preset,
};

pub(crate) const TARGET: Target = Target {
    name: "membership",
    mutations: 6_000,
    // What the codec's limit lets a length claim, and the tables of a young group.
    fixed_bytes: CODEC_BYTES_MAX + (256 << 10),
    bytes_per_byte: 1024,
    run,
    seeds,
};

/// A datagram from the node that it names as its sender, which is not this one.
const DATAGRAM: u8 = 0;
/// A datagram from another node than the one that it names.
const SPOOFED: u8 = 1;
/// Time passes: as many tenths of a second as there are bytes.
const TIME: u8 = 2;
/// The connection to the node whose id this is broke.
const LOST: u8 = 3;

const STEPS_MAX: usize = 64;

fn identity(number: u8) -> Identity {
    Identity {
        id: NodeId([number; 32]),
        name: Name::new(format!("node-{number}")).unwrap(),
        role: NodeRole::Core,
        address: ([127, 0, 0, 1], 9000 + u16::from(number)).into(),
        generation: 1_000,
        departed: None,
        revision: 0,
        relays: Vec::new(),
    }
}

/// A datagram begins with its kind, then its source, and that with the node's id.
fn source(datagram: &[u8]) -> Option<NodeId> {
    id_at_the_front(datagram.get(1..)?)
}

fn id_at_the_front(bytes: &[u8]) -> Option<NodeId> {
    bytes.first_chunk().copied().map(NodeId)
}

fn run(input: &[u8]) -> bool {
    let local = identity(0);
    let mut node = Membership::new(local.clone(), Preset::Lan, 1).unwrap();
    let (mut now, mut understood) = (Instant::START, false);
    let mut generation = local.generation;
    for (kind, bytes) in Steps::new(input).take(STEPS_MAX) {
        match kind {
            DATAGRAM => {
                let Some(from) = source(bytes).filter(|from| *from != local.id) else {
                    continue;
                };
                understood |= node.handle_datagram(now, from, bytes).is_ok();
            }
            SPOOFED => {
                let mut from = source(bytes).unwrap_or(NodeId([1; 32]));
                from.0[0] ^= 1;
                let refused = node.handle_datagram(now, from, bytes).unwrap_err();
                assert!(matches!(
                    refused,
                    MembershipError::Malformed | MembershipError::Spoofed { .. }
                ));
            }
            TIME => {
                now = now + Duration::from_millis(100) * bytes.len() as u32;
                node.handle_timeout(now);
            }
            LOST => {
                if let Some(peer) = id_at_the_front(bytes) {
                    node.connection_lost(now, &peer);
                }
            }
            _ => {}
        }
        let itself = node.local();
        assert_eq!((itself.id, &itself.name), (local.id, &local.name));
        assert!(itself.departed.is_none() && itself.generation >= generation);
        generation = itself.generation;
        let members = node.members();
        assert!(members.is_sorted_by(|a, b| a.identity.id < b.identity.id));
        let alive = node.member(&local.id).map(|member| member.state);
        assert_eq!(alive, Some(MemberState::Alive));
        while let Some(sent) = node.poll_transmit() {
            assert!(sent.bytes.len() <= MEMBERSHIP_DATAGRAM_BYTES_MAX);
            assert_ne!(sent.to, local.id);
        }
        while let Some(event) = node.poll_event() {
            if let MembershipEvent::MemberChanged(member) = event {
                assert_ne!(member.identity.id, local.id);
            }
        }
    }
    understood
}

/// What two nodes say to the local one while a group forms, one of them leaves, and the local one is
/// suspected.
fn seeds() -> Vec<Seed> {
    let local = identity(0);
    let mut group: Vec<Membership> = (0..3)
        .map(|number| Membership::new(identity(number), Preset::Lan, number.into()).unwrap())
        .collect();
    let (mut now, mut heard) = (Instant::START, Vec::new());
    group[1].announce(now, local.id, local.address);
    group[2].announce(now, local.id, local.address);
    for round in 0..60 {
        if round == 50 {
            group[2].depart(now, Departure::Left);
        }
        while let Some((from, sent)) = (0..3).find_map(|from| {
            let sent = group[from].poll_transmit()?;
            Some((NodeId([from as u8; 32]), sent))
        }) {
            if sent.to == local.id {
                heard.push(sent.bytes.clone());
            }
            let to = &mut group[usize::from(sent.to.0[0])];
            to.handle_datagram(now, from, &sent.bytes).unwrap();
        }
        now = now + Duration::from_millis(100);
        for node in &mut group {
            node.handle_timeout(now);
        }
    }
    let tenths = [0; 40];
    let steps = |datagrams: &[Vec<u8>]| {
        let mut steps: Vec<Step<'_>> = Vec::new();
        for datagram in datagrams {
            steps.extend([(DATAGRAM, datagram.as_slice()), (TIME, &tenths[..3])]);
        }
        steps.extend([
            (LOST, &[1; 32][..]),
            (TIME, &tenths[..]),
            (TIME, &tenths[..]),
        ]);
        Steps::write(&steps)
    };
    let last = heard.len().saturating_sub(6);
    vec![
        Seed::good("two-join", steps(&heard[..2])),
        Seed::good("probes", steps(&heard[2..10])),
        Seed::good("one-leaves", steps(&heard[last..])),
        Seed::good("comparison", steps(&comparison())),
        Seed::bad("spoofed", Steps::write(&[(SPOOFED, &heard[0])])),
        Seed::bad("cut-off", Steps::write(&[(DATAGRAM, &heard[0][..60])])),
    ]
}

/// What a node says to the local one that knows somebody more, when after its announcement all gossip is lost.
fn comparison() -> Vec<Vec<u8>> {
    let mut group: Vec<Membership> = (0..3)
        .map(|number| Membership::new(identity(number), Preset::Lan, number.into()).unwrap())
        .collect();
    let (mut now, mut heard) = (Instant::START, Vec::new());
    for (from, to) in [(2, 1), (1, 0)] {
        let known = identity(to);
        group[from].announce(now, known.id, known.address);
        let hello = group[from].poll_transmit().unwrap().bytes;
        let id = NodeId([from as u8; 32]);
        group[usize::from(to)]
            .handle_datagram(now, id, &hello)
            .unwrap();
        if to == 0 {
            heard.push(hello);
        }
    }
    while heard.len() < 4 {
        while let Some((from, sent)) = (0..3).find_map(|from| {
            let sent = group[from].poll_transmit()?;
            Some((NodeId([from as u8; 32]), sent))
        }) {
            // The first byte is 0 where it is foca's, which is lost but for the answers to announcements.
            if sent.bytes[0] == 0 && now > Instant::START {
                continue;
            }
            if sent.to == NodeId([0; 32]) {
                heard.push(sent.bytes.clone());
            }
            let to = &mut group[usize::from(sent.to.0[0])];
            to.handle_datagram(now, from, &sent.bytes).unwrap();
        }
        now = now + Duration::from_millis(100);
        for node in &mut group {
            node.handle_timeout(now);
        }
    }
    heard
}

#![allow(clippy::unwrap_used)]

use mielin_fuzz::{Seed, Target};
use mielin_mesh_core::NodeId;
use mielin_mesh_core::limits::CODEC_BYTES_MAX;
use mielin_safepoint::HostSection;

use super::*;

fn stored(messages: bool) -> Stored {
    let identity = Identity {
        id: AgentId([7; 16]),
        name: "worker".to_owned(),
        owner: NodeId([1; 32]),
        grants: ["clock".parse().unwrap()].into_iter().collect(),
        limits: Limits::default(),
        budget: "cpu=10s,log=1KiB/s".parse().unwrap(),
        started_ms: 5,
    };
    let line = HostLine {
        time_ms: 1,
        level: "warn".to_owned(),
        text: "denied".to_owned(),
    };
    let module = Bytes::from_static(b"a module");
    Stored {
        about: Some(About {
            identified: Identified::new(&identity),
            epoch: 3,
            paused: true,
            tallied: Tallied::sample(),
            lines: vec![wire::Line::new(&line)],
            sleep: messages.then_some(Sleep {
                since_ms: 8,
                left_ms: Some(9),
            }),
        }),
        snapshot: Snapshot {
            module: ModuleHash::of(&module),
            memory_bytes: 65536,
            pages: Vec::new(),
            globals: Vec::new(),
            frames: vec![6; 16],
            host: vec![HostSection {
                name: "wasm.run".to_owned(),
                version: 1,
                bytes: vec![1],
            }],
        },
        module,
        stay: messages.then_some(StayRecord {
            leaf: [7; 32],
            number: 3,
            epoch: 9,
            hold: StayHold::Taken { epoch: 10 },
            taken: 4,
            posted: 5,
            sequence: 6,
        }),
        device: messages.then_some(Device {
            leaf: NodeId([7; 32]),
            returns: true,
        }),
        own: messages.then(|| Own {
            rewritten: Bytes::from_static(b"a resumable module"),
            outbox: Bytes::from_static(b"out"),
            inbox: Bytes::from_static(b"in"),
        }),
    }
}

/// A copy of an agent of which no node of a mesh knows.
fn of_a_bare_node() -> Stored {
    Stored {
        about: None,
        ..stored(false)
    }
}

fn accepted(bytes: &[u8]) -> bool {
    let Ok(stored) = Stored::decode(bytes, 1 << 20) else {
        return false;
    };
    let again = stored.encode();
    let twice = Stored::decode(&again, 1 << 20).unwrap().encode();
    assert_eq!(twice, again);
    true
}

/// Stored agents and copies, also with the hash that they should have.
const STORED: Target = Target {
    name: "stored",
    mutations: 20_000,
    // What the codec's limit lets a length claim.
    fixed_bytes: CODEC_BYTES_MAX + (64 << 10),
    bytes_per_byte: 64,
    run: |bytes| {
        if let Some((content, _)) = bytes.split_last_chunk::<32>() {
            accepted(&[content, &ModuleHash::of(content).0].concat());
        }
        accepted(bytes)
    },
    seeds: || {
        let changed = |change: fn(&mut Snapshot)| {
            let mut snapshot =
                Snapshot::decode(&stored(true).encode(), &SnapshotLimits::default()).unwrap();
            change(&mut snapshot);
            snapshot.encode()
        };
        let twice = changed(|snapshot| snapshot.host.push(snapshot.host[1].clone()));
        let unknown = changed(|snapshot| snapshot.host[0].name = "cells:else".to_owned());
        let half = changed(|snapshot| snapshot.host.retain(|section| section.name != INBOX));
        let unknown_but_kept =
            changed(|snapshot| snapshot.host.retain(|section| section.name != ABOUT));
        vec![
            Seed::good("whole", stored(true).encode()),
            Seed::good("copy", stored(false).encode()),
            Seed::good("of-a-bare-node", of_a_bare_node().encode()),
            Seed::bad("twice", twice),
            Seed::bad("unknown-section", unknown),
            Seed::bad("without-inbox", half),
            Seed::bad("kept-and-unknown", unknown_but_kept),
        ]
    },
};

#[test]
fn hostile_stored_agents() {
    STORED.replay();
}

/// What is a copy cannot take the place of the agent, whether or not it says who it is.
#[test]
fn a_node_takes_no_copy_for_what_it_has_kept() {
    let kept = Stored::decode_kept(&stored(true).encode()).unwrap();
    assert_eq!(kept.about().unwrap().epoch(), Epoch(3));
    for copy in [stored(false), of_a_bare_node()] {
        let bytes = copy.encode();
        let refused = Stored::decode_kept(&bytes).err().unwrap();
        assert!(matches!(refused, CheckpointError::Copy), "{refused}");
        let taken = Stored::decode(&bytes, 1 << 20).unwrap();
        assert!(taken.own.is_none());
    }
    let mut unknown = stored(true);
    unknown.about = None;
    let bytes = unknown.encode();
    for refused in [Stored::decode(&bytes, 1 << 20), Stored::decode_kept(&bytes)] {
        let refused = refused.err().unwrap();
        assert!(
            matches!(refused, CheckpointError::Section(ABOUT)),
            "{refused}"
        );
    }
}

/// What another node wrote is read here, and the other way round: the form is the same by the byte.
#[test]
fn a_checkpoint_is_what_every_node_reads() {
    let bytes = stored(false).encode();
    let mut checkpoint = Checkpoint::decode(&bytes, &SnapshotLimits::default()).unwrap();
    assert_eq!(checkpoint.module, b"a module");
    let names = |snapshot: &Snapshot| {
        let names = snapshot.host.iter().map(|section| section.name.clone());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(&checkpoint.snapshot), ["wasm.run"]);
    let whole = Snapshot::decode(&bytes, &SnapshotLimits::default()).unwrap();
    assert_eq!(names(&whole), ["wasm.run", ABOUT, Checkpoint::MODULE]);
    assert_eq!(checkpoint.clone().encode(), bytes);
    assert!(checkpoint.take(ABOUT).unwrap().is_some());
    assert_eq!(checkpoint.encode(), of_a_bare_node().encode());
}

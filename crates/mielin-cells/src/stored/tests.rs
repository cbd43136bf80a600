#![allow(clippy::unwrap_used)]

use mielin_fuzz::{Seed, Target};
use mielin_mesh_core::NodeId;
use mielin_mesh_core::limits::CODEC_BYTES_MAX;

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
        about: About {
            identified: Identified::new(&identity),
            epoch: 3,
            paused: true,
            tallied: Tallied::sample(),
            lines: vec![wire::Line::new(&line)],
            sleep: messages.then_some(Sleep {
                since_ms: 8,
                left_ms: Some(9),
            }),
        },
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
        own: messages.then(|| Own {
            rewritten: Bytes::from_static(b"a resumable module"),
            outbox: Bytes::from_static(b"out"),
            inbox: Bytes::from_static(b"in"),
        }),
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
        vec![
            Seed::good("whole", stored(true).encode()),
            Seed::good("copy", stored(false).encode()),
            Seed::bad("twice", twice),
            Seed::bad("unknown-section", unknown),
            Seed::bad("without-inbox", half),
        ]
    },
};

#[test]
fn hostile_stored_agents() {
    STORED.replay();
}

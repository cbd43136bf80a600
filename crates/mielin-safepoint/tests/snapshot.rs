//! The snapshot format: what is written is read, and nothing else is.
#![allow(clippy::unwrap_used)]

use mielin_safepoint::{
    GlobalValue, HostSection, ModuleHash, PAGE_SIZE, Page, Snapshot, SnapshotError, SnapshotLimits,
};
use proptest::prelude::*;

fn page(index: u32, fill: u8) -> Page {
    Page {
        index,
        bytes: Box::new([fill; PAGE_SIZE]),
    }
}

fn global() -> impl Strategy<Value = GlobalValue> {
    prop_oneof![
        any::<i32>().prop_map(GlobalValue::I32),
        any::<i64>().prop_map(GlobalValue::I64),
        any::<u32>().prop_map(GlobalValue::F32),
        any::<u64>().prop_map(GlobalValue::F64),
        any::<u128>().prop_map(GlobalValue::V128),
    ]
}

prop_compose! {
    fn snapshot()(
        module in any::<[u8; 32]>(),
        pages in prop::collection::btree_map(0u32..32, 1u8.., 0..5),
        globals in prop::collection::vec(global(), 0..6),
        frames in prop::collection::vec(any::<[u8; 8]>(), 0..10),
        host in prop::collection::vec(("[a-zé]{0,8}", any::<u16>(), prop::collection::vec(any::<u8>(), 0..40)), 0..4),
    ) -> Snapshot {
        Snapshot {
            module: ModuleHash(module),
            memory_bytes: 2 * 65536,
            pages: pages.into_iter().map(|(index, fill)| page(index, fill)).collect(),
            globals,
            frames: frames.concat(),
            host: host.into_iter().map(|(name, version, bytes)| HostSection { name, version, bytes }).collect(),
        }
    }
}

/// The same bytes with a hash that matches.
fn rehash(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len() - 32;
    let hash = ModuleHash::of(&bytes[..end]);
    bytes[end..].copy_from_slice(&hash.0);
    bytes
}

proptest! {
    #[test]
    fn what_is_written_is_read(snapshot in snapshot()) {
        let bytes = snapshot.encode();
        prop_assert_eq!(Snapshot::decode(&bytes, &SnapshotLimits::default()).unwrap(), snapshot);
    }

    #[test]
    fn every_flipped_bit_is_noticed(snapshot in snapshot(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut bytes = snapshot.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        prop_assert!(Snapshot::decode(&bytes, &SnapshotLimits::default()).is_err());
    }

    /// With a matching hash the parser itself is reached; what it accepts is canonical.
    #[test]
    fn damaged_bytes_with_a_good_hash_are_errors_or_canonical(
        snapshot in snapshot(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = snapshot.encode();
        for (at, value) in changes {
            // Mostly into the headers: pages are large and any content is fine there.
            let at = at.index(bytes.len().min(200));
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() - 32) + 32);
        }
        let bytes = rehash(bytes);
        if let Ok(decoded) = Snapshot::decode(&bytes, &SnapshotLimits::default()) {
            prop_assert_eq!(decoded.encode(), bytes);
        }
    }

    #[test]
    fn garbage_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Snapshot::decode(&bytes, &SnapshotLimits::default()).is_err());
        let mut magic = b"MIELSNAP\x01\0\0\0".to_vec();
        magic.extend_from_slice(&bytes);
        magic.extend_from_slice(&[0; 32]);
        let _ = Snapshot::decode(&rehash(magic), &SnapshotLimits::default());
    }
}

fn small() -> Snapshot {
    Snapshot {
        module: ModuleHash([7; 32]),
        memory_bytes: 65536,
        pages: vec![page(1, 1), page(3, 2)],
        globals: vec![GlobalValue::I32(5)],
        frames: vec![1; 16],
        host: vec![HostSection {
            name: "wasi".into(),
            version: 2,
            bytes: vec![1, 2],
        }],
    }
}

fn decode(bytes: &[u8]) -> Result<Snapshot, SnapshotError> {
    Snapshot::decode(bytes, &SnapshotLimits::default())
}

#[test]
fn zero_pages_are_left_out_and_refused() {
    let mut snapshot = small();
    snapshot.pages.insert(1, page(2, 0));
    assert_eq!(decode(&snapshot.encode()).unwrap(), small());
    let mut bytes = small().encode();
    bytes[52 + 4 + 4..][..PAGE_SIZE].fill(0);
    assert!(matches!(
        decode(&rehash(bytes)),
        Err(SnapshotError::Malformed(_))
    ));
}

#[test]
fn each_damage_has_its_error() {
    let good = small().encode();
    assert_eq!(decode(&good[1..]), Err(SnapshotError::NotASnapshot));
    assert_eq!(decode(b""), Err(SnapshotError::NotASnapshot));
    assert_eq!(decode(&good[..9]), Err(SnapshotError::Truncated));
    for len in 9..good.len() {
        assert_eq!(decode(&good[..len]), Err(SnapshotError::Truncated), "{len}");
    }
    let mut newer = good.clone();
    newer[8] = 2;
    assert_eq!(
        decode(&newer),
        Err(SnapshotError::Version {
            found: 2,
            expected: 1
        })
    );
    let mut longer = good.clone();
    longer.push(0);
    assert!(matches!(
        decode(&rehash(longer)),
        Err(SnapshotError::Malformed(_))
    ));
    for pages in [
        vec![page(3, 1), page(1, 1)],
        vec![page(1, 1), page(1, 1)],
        vec![page(16, 1)],
    ] {
        let snapshot = Snapshot { pages, ..small() };
        assert!(matches!(
            decode(&snapshot.encode()),
            Err(SnapshotError::Malformed(_))
        ));
    }
}

#[test]
fn limits_hold_before_anything_is_allocated() {
    let bytes = small().encode();
    let full = SnapshotLimits::default();
    for (what, limits) in [
        (
            "bytes of memory",
            SnapshotLimits {
                memory_bytes: 65535,
                ..full.clone()
            },
        ),
        (
            "globals",
            SnapshotLimits {
                globals: 0,
                ..full.clone()
            },
        ),
        (
            "bytes of frames",
            SnapshotLimits {
                frames_bytes: 15,
                ..full.clone()
            },
        ),
        (
            "host sections",
            SnapshotLimits {
                host_sections: 0,
                ..full.clone()
            },
        ),
        (
            "bytes of host state",
            SnapshotLimits {
                host_bytes: 1,
                ..full.clone()
            },
        ),
    ] {
        match Snapshot::decode(&bytes, &limits) {
            Err(SnapshotError::Limit { what: found, .. }) => assert_eq!(found, what),
            other => panic!("{what}: {other:?}"),
        }
    }
    // A claimed count of pages beyond the bytes that follow.
    let mut claims = bytes;
    claims[52..56].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(decode(&rehash(claims)), Err(SnapshotError::Truncated));
}

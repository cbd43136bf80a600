//! Snapshots: what is decoded is encoded to the same bytes.
#![allow(clippy::unwrap_used)]

use mielin_fuzz::{Seed, Target};
use mielin_safepoint::{
    Execution, GlobalValue, HostSection, ModuleHash, PAGE_SIZE, Page, Snapshot, SnapshotLimits,
};

pub(crate) const TARGET: Target = Target {
    name: "snapshot",
    mutations: 20_000,
    fixed_bytes: 4096,
    // The pages and everything else once, the bytes that were encoded again, and a vector's growth.
    bytes_per_byte: 32,
    run,
    seeds,
};

fn run(bytes: &[u8]) -> bool {
    let limits = SnapshotLimits::default();
    if let Ok(execution) = Execution::decode(bytes, &limits) {
        assert_eq!(execution.encode(), bytes);
    }
    let accepted = is_canonical(bytes, &limits);
    // A change almost never meets the hash, so what lies behind it is tried with the right one.
    if let Some((content, _)) = bytes.split_last_chunk::<32>() {
        is_canonical(&sealed(content), &limits);
    }
    accepted
}

fn is_canonical(bytes: &[u8], limits: &SnapshotLimits) -> bool {
    let decoded = Snapshot::decode(bytes, limits);
    if let Ok(snapshot) = &decoded {
        assert_eq!(snapshot.encode(), bytes);
    }
    decoded.is_ok()
}

fn sealed(content: &[u8]) -> Vec<u8> {
    [content, &ModuleHash::of(content).0].concat()
}

fn seeds() -> Vec<Seed> {
    let page = |index, fill| Page {
        index,
        bytes: Box::new([fill; PAGE_SIZE]),
    };
    let section = |name: &str, bytes: &[u8]| HostSection {
        name: name.into(),
        version: 1,
        bytes: bytes.into(),
    };
    let empty = Snapshot {
        module: ModuleHash([7; 32]),
        memory_bytes: 0,
        pages: Vec::new(),
        globals: Vec::new(),
        frames: Vec::new(),
        host: Vec::new(),
    };
    let full = Snapshot {
        memory_bytes: 2 * 65536,
        pages: vec![page(1, 1), page(31, 2)],
        globals: vec![
            GlobalValue::I32(-1),
            GlobalValue::I64(2),
            GlobalValue::F32(3),
            GlobalValue::F64(4),
            GlobalValue::V128(5),
        ],
        frames: vec![6; 64],
        host: vec![section("wasm.program", b"abc"), section("other", b"")],
        ..empty.clone()
    };
    let without_pages = Snapshot {
        pages: Vec::new(),
        ..full.clone()
    };
    let page_outside = Snapshot {
        memory_bytes: 65536,
        ..full.clone()
    };
    let mut claims_pages = empty.encode();
    claims_pages.truncate(claims_pages.len() - 32);
    // The page count stands behind magic, version, reserved, module and memory size.
    claims_pages[52..56].fill(0xff);
    let mut other_version = without_pages.encode();
    other_version[8] = 2;
    vec![
        Seed::good("empty", empty.encode()),
        Seed::good("two-pages", full.encode()),
        Seed::good("no-pages", without_pages.encode()),
        Seed::bad("page-outside", page_outside.encode()),
        Seed::bad("claims-4-billion-pages", sealed(&claims_pages)),
        Seed::bad("version-2", other_version),
    ]
}

//! Modules that claim to be rewritten: what is accepted keeps its bytes and its name.
#![allow(clippy::unwrap_used)]

use mielin_fuzz::{Seed, Target};
use mielin_safepoint::{ModuleHash, Resumable, instrument};

pub(crate) const TARGET: Target = Target {
    name: "rewritten",
    mutations: 5_000,
    // The validator's own: a function may declare 50,000 locals in a few bytes.
    fixed_bytes: 4 << 20,
    bytes_per_byte: 512,
    run,
    seeds,
};

fn run(bytes: &[u8]) -> bool {
    let unvalidated = Resumable::unvalidated(bytes.to_vec());
    let Ok(module) = Resumable::from_rewritten(bytes.to_vec()) else {
        return false;
    };
    let unvalidated = unvalidated.unwrap();
    assert_eq!(unvalidated.manifest(), module.manifest());
    let small = unvalidated.with_frames_pages(3);
    assert_eq!(small.hash(), module.hash());
    let differ = small.bytes().iter().zip(bytes).filter(|(a, b)| a != b);
    assert_eq!((differ.count(), small.bytes().len()), (2, bytes.len()));
    assert_eq!(module.bytes(), bytes);
    assert_eq!(module.hash(), ModuleHash::of(bytes));
    true
}

fn seeds() -> Vec<Seed> {
    let wasm = |text: &str| wat::parse_str(text).unwrap();
    let plain = wasm(
        r#"(module
            (import "mielin" "abi_version" (func $version (result i32)))
            (memory (export "memory") 1)
            (global (mut i32) (i32.const 3)) (global (mut f64) (f64.const 3))
            (func (export "_start") (local i64)
              (loop $l (br_if $l (i32.and (call $version) (i32.wrap_i64 (local.get 0)))))))"#,
    );
    let rewritten = instrument(&plain).unwrap().bytes().to_vec();
    let mut two_versions = rewritten.clone();
    two_versions.extend_from_slice(b"\0\x15\x10mielin.safepoint\x01\0\0\0");
    let only_version = [
        b"\0asm\x01\0\0\0".as_slice(),
        b"\0\x15\x10mielin.safepoint\x01\0\0\0",
    ]
    .concat();
    // A section of the kind `id`, with nothing behind its claim of a million entries.
    let claims = |id: u8| [b"\0asm\x01\0\0\0".as_slice(), &[id, 4, 0xc0, 0x84, 0x3d, 0]].concat();
    vec![
        Seed::bad("claims-a-million-types", claims(1)),
        Seed::bad("claims-a-million-imports", claims(2)),
        Seed::bad("claims-a-million-exports", claims(7)),
        Seed::good("globals-and-an-import", rewritten),
        Seed::bad("plain", plain),
        Seed::bad("two-versions", two_versions),
        Seed::bad("nothing-but-a-version", only_version),
    ]
}

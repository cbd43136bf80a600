//! Agents on the move over a link that is slower than the compressor: network namespaces, and the kernel's token bucket.
//!
//! Needs Linux, `ip`, `tc` and root. Nothing of this machine's own network is touched.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod support;

use support::link::{Link, address};
use support::{Node, until};

/// Bytes of memory that are in use.
const USED: u64 = 8 << 20;

/// Fills its memory, says so, and counts in one word of it for ever. What it fills it with is `value`, made of `$x`, which
/// is another pseudo-random number each time.
fn filler(value: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") {pages})
        (func (export "_start")
            (local $at i32) (local $x i64)
            (local.set $x (i64.const 0x9e3779b97f4a7c15))
            (loop $fill
                (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 13))))
                (local.set $x (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 7))))
                (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 17))))
                (i64.store (local.get $at) {value})
                (local.set $at (i32.add (local.get $at) (i32.const 8)))
                (br_if $fill (i32.lt_u (local.get $at) (i32.const {USED}))))
            (i32.store (i32.const 0) (i32.const 16))
            (i32.store (i32.const 4) (i32.const 1))
            (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (loop $again
                (i64.store (i32.const 24) (i64.add (i64.load (i32.const 24)) (i64.const 1)))
                (br $again))))"#,
        pages = USED >> 16,
    );
    wat::parse_str(&text).unwrap()
}

#[test]
fn what_shrinks_is_compressed_on_a_slow_link_and_what_does_not_goes_as_it_is() {
    let link = Link::new(2);
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let bind = |host: usize| format!("{}:9000", address(host));
    let one = ["mesh", "start", "--bind", &bind(0), "--name", "one"];
    let one = link.node(0, &dirs[0].path().join("data"), &one);
    let (token, at, own) = (one.token(), bind(0), bind(1));
    let line = [
        "mesh", "join", &at, "--token", &token, "--bind", &own, "--name", "two",
    ];
    let two = link.node(1, &dirs[1].path().join("data"), &line);
    link.slow_down(0, "100mbit");
    // One word in eight is a number below 65,536: about a fifth by LZ4.
    let shrinks = "(i64.and (local.get $x) (i64.extend_i32_u
        (select (i32.const 0xffff) (i32.const 0) (i32.eqz (i32.and (local.get $at) (i32.const 63))))))";
    let shrunk = moved_bytes(&one, &two, "shrinks", &filler(shrinks));
    let plain = moved_bytes(&one, &two, "noise", &filler("(local.get $x)"));
    assert!(shrunk < USED / 3, "{shrunk}");
    assert!((USED..USED + USED / 8).contains(&plain), "{plain}");
}

/// What was sent of such an agent.
fn moved_bytes(one: &Node, two: &Node, name: &str, module: &[u8]) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.wasm");
    std::fs::write(&file, module).unwrap();
    let file = file.to_str().unwrap();
    one.mielin(&["agent", "spawn", file, "--name", name]).ok();
    until("it has filled its memory", || {
        let output = one.mielin(&["agent", "logs", name]).ok();
        (!output.is_empty()).then_some(())
    });
    let moved = one.json(&["agent", "migrate", name, "two"]);
    assert_eq!(moved["strategy"], "pre-copy", "{moved}");
    two.mielin(&["agent", "terminate", name]).ok();
    moved["bytes"].as_u64().unwrap()
}

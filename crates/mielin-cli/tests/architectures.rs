//! A mesh of two processor architectures, x86-64 and 64-bit Arm, between which programs move while they run.
//!
//! The Arm node is this project's own executable, cross-compiled and run by QEMU's user mode. `cargo xtask aarch64`
//! and `cargo xtask quickjs` make what is needed, so `cargo xtask test` runs this, and plain `cargo test` does not.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::Command;

use support::{Node, executable_by, sample, until};

/// Enough that the script is far from its end after the tenth move.
const ROUNDS: &str = "800";
/// Rounds of the sample `digest` that keep it busy while it moves.
const BUSY: &str = "4000000";

/// A file that is there, by its path from the root of the repository.
fn file(path: &str, made_by: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join(path).display().to_string();
    assert!(
        Path::new(&path).exists(),
        "{path} is missing: `{made_by}` builds it"
    );
    path
}

/// A file that is there, by its path from the folder of what xtask builds.
fn built(path: &str, made_by: &str) -> String {
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or("target".into());
    file(&format!("{target}/xtask/{path}"), made_by)
}

/// The executable for Arm, run by QEMU.
fn mielin_on_arm() -> Command {
    let program = built(
        "aarch64/aarch64-unknown-linux-gnu/emulated/mielin",
        "cargo xtask aarch64",
    );
    executable_by(
        "qemu-aarch64-static",
        &["-L", "/usr/aarch64-linux-gnu"],
        &program,
    )
}

fn on_arm(founder: &Node, name: &str, further: &[&str]) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let token = founder.token();
    let line = [&founder.joining(&token)[..], &["--name", name], further].concat();
    let node = Node::run_by(mielin_on_arm(), &dir.path().join("data"), &line);
    node.owning(dir)
}

fn stdout(node: &Node, agent: &str) -> Vec<u8> {
    node.mielin(&["agent", "logs", agent]).ok()
}

/// Waits until the agent has written more lines than before, and says how many.
fn another_line(node: &Node, agent: &str, before: usize) -> usize {
    until("another line", || {
        let output = stdout(node, agent);
        let now = output.iter().filter(|byte| **byte == b'\n').count();
        (now > before).then_some(now)
    })
}

fn ends_well(node: &Node, agent: &str) -> Vec<u8> {
    assert_eq!(node.json(&["agent", "wait", agent])["exit_code"], 0);
    stdout(node, agent)
}

/// What `node info` says of the processor under an emulator that plays this one.
fn machine(mut emulated: Command, model: &str) -> serde_json::Value {
    let dir = tempfile::tempdir().unwrap();
    let output = emulated
        // As QEMU wants it in the environment, for either of its programs.
        .env("QEMU_CPU", model)
        .arg("--data-dir")
        .arg(dir.path())
        .args(["node", "info", "-o", "json"])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{model}: {error}");
    let info: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    info["machine"].clone()
}

/// That the processor has the one features and not the others.
fn has(machine: &serde_json::Value, model: &str, there: &[&str], absent: &[&str]) {
    let features: Vec<&str> = machine["features"]
        .as_array()
        .unwrap()
        .iter()
        .map(|feature| feature.as_str().unwrap())
        .collect();
    for feature in there {
        assert!(
            features.contains(feature),
            "{model} has no {feature}: {features:?}"
        );
    }
    for feature in absent {
        assert!(
            !features.contains(feature),
            "{model} has {feature}: {features:?}"
        );
    }
}

/// What each emulated processor is found to be. That of QEMU 7.2 saves no AVX-512, so Skylake's has none.
#[test]
fn processors_are_recognised_for_what_they_are() {
    let old = ["aes", "neon", "pmull", "sha1", "sha2", "crc"];
    let newer = ["fp16", "dotprod", "rdm", "lse", "rcpc"];
    let newest = [
        "bf16", "i8mm", "fhm", "fcma", "sve2", "sve-i8mm", "sve-bf16", "sme",
    ];
    let on_arm = |model: &str,
                  name: Option<&str>,
                  vector_bits: Option<u32>,
                  there: &[&[&str]],
                  absent: &[&[&str]]| {
        let machine = machine(mielin_on_arm(), model);
        assert_eq!(machine["architecture"], "aarch64");
        assert_eq!(machine["model"].as_str(), name, "{model}");
        assert_eq!(
            machine["vector_bits"].as_u64(),
            vector_bits.map(u64::from),
            "{model}"
        );
        has(
            &machine,
            model,
            &there.concat(),
            &[&absent.concat()[..], &["avx2", "v", "fpu"]].concat(),
        );
    };
    on_arm(
        "cortex-a53",
        Some("Cortex-A53"),
        None,
        &[&old],
        &[&newer, &newest, &["sve"]],
    );
    on_arm(
        "neoverse-n1",
        Some("Neoverse-N1"),
        None,
        &[&old, &newer],
        &[&newest, &["sve"]],
    );
    on_arm(
        "a64fx",
        Some("A64FX"),
        Some(512),
        &[&old, &["sve", "fcma", "lse"]],
        &[&["sve2", "dotprod", "sme"]],
    );
    on_arm(
        "max,sve-default-vector-length=16",
        None,
        Some(128),
        &[&old, &newer, &newest],
        &[],
    );
    on_arm(
        "max,sve=off",
        None,
        None,
        &[&old, &newer, &["bf16", "i8mm"]],
        &[&["sve", "sve2", "sve-i8mm"]],
    );

    let avx = ["avx", "avx2", "fma", "f16c"];
    let avx512 = ["avx512f", "avx512bw", "avx512vnni", "amx-tile"];
    let bits = ["bmi1", "bmi2", "lzcnt", "movbe"];
    let on_x86 = |model: &str, there: &[&[&str]], absent: &[&[&str]]| {
        let program = executable_by("qemu-x86_64-static", &[], env!("CARGO_BIN_EXE_mielin"));
        let machine = machine(program, model);
        assert_eq!(machine["architecture"], "x86_64");
        has(
            &machine,
            model,
            &there.concat(),
            &[&absent.concat()[..], &["neon", "v"]].concat(),
        );
    };
    on_x86(
        "qemu64",
        &[&["sse", "sse2", "sse3"]],
        &[&avx, &avx512, &bits, &["sse4.2", "aes"]],
    );
    on_x86(
        "Nehalem",
        &[&["ssse3", "sse4.1", "sse4.2", "popcnt"]],
        &[&avx, &avx512, &bits],
    );
    on_x86(
        "Haswell",
        &[&avx, &bits, &["aes", "pclmulqdq"]],
        &[&avx512, &["adx"]],
    );
    on_x86("Skylake-Server", &[&avx, &bits, &["adx"]], &[&avx512]);
    on_x86("Haswell,xsave=off", &[&bits, &["sse4.2"]], &[&avx, &avx512]);
}

#[test]
fn busy_programs_and_their_files_move_between_architectures() {
    let here = Node::found("here");
    let compiled = on_arm(&here, "arm-compiled", &[]);
    let interpreted = on_arm(&here, "arm-interpreted", &["--engine", "wasmi"]);
    here.sees(3);
    let digest = sample("digest.wasm");
    let text = here.dir.join("input.txt");
    std::fs::write(&text, "to be or not to be").unwrap();
    let text = text.to_str().unwrap();
    // A move is not to wait for an emulated compiler: the native code is made before.
    for node in [&compiled, &interpreted] {
        let agent = node.spawn(&[&digest, "--stdin", text, "--", "1"]);
        ends_well(node, &agent);
    }
    let spawn = |name: &str| here.spawn(&[&digest, "--name", name, "--stdin", text, "--", BUSY]);
    let expected = ends_well(&here, &spawn("stayed"));
    let moved = spawn("moved");
    for node in [&compiled, &here, &interpreted, &compiled, &here] {
        let report = here.json(&["agent", "migrate", &moved, node.id()]);
        assert_eq!(report["to"], node.id());
        println!("{report}");
    }
    assert!(ends_well(&here, &moved) == expected);

    here.spawn(&[
        &sample("notebook.wasm"),
        "--name",
        "notes",
        "--allow",
        "data:1MiB",
    ]);
    let ask = |text: &str| here.reply("notes", text).unwrap().trim_end().to_owned();
    assert_eq!(ask("add list milk"), "5");
    here.json(&["agent", "migrate", "notes", compiled.id()]);
    assert_eq!(ask("add list bread"), "11");
    here.json(&["agent", "migrate", "notes", here.id()]);
    assert_eq!(ask("read list"), "milk\nbread");
}

/// Instructions on numbers whose result processors are free to choose, or have chosen differently: each gives 16 bytes.
fn numbers() -> String {
    const NAN32: &str = "(f32.load (i32.const 0))";
    const NAN64: &str = "(f64.load (i32.const 16))";
    const NANS: &str = "(v128.load (i32.const 0))";
    const WIDE_NANS: &str = "(v128.load (i32.const 16))";
    let mut results = Vec::new();
    for (ty, lanes, nan, nans) in [
        ("f32", "f32x4", NAN32, NANS),
        ("f64", "f64x2", NAN64, WIDE_NANS),
    ] {
        for name in ["sqrt", "ceil", "floor", "trunc", "nearest", "neg", "abs"] {
            results.push(format!("({lanes}.splat ({ty}.{name} {nan}))"));
            results.push(format!("({lanes}.{name} {nans})"));
        }
        let others = format!("({lanes}.splat ({ty}.const 1))");
        for name in ["add", "sub", "mul", "div", "min", "max"] {
            results.push(format!("({lanes}.{name} {nans} {others})"));
            results.push(format!("({lanes}.{name} {others} {nans})"));
            results.push(format!(
                "({lanes}.splat ({ty}.{name} {nan} ({ty}.const 1)))"
            ));
        }
        let zeros = format!("({lanes}.splat ({ty}.const 0))");
        results.push(format!("({lanes}.div {zeros} {zeros})"));
        results.push(format!("({lanes}.sqrt (v128.not {zeros}))"));
        results.push(format!("({lanes}.min {zeros} ({lanes}.neg {zeros}))"));
    }
    results.push(format!("(f64x2.splat (f64.promote_f32 {NAN32}))"));
    results.push(format!("(f32x4.splat (f32.demote_f64 {NAN64}))"));
    results.push(format!("(i32x4.trunc_sat_f32x4_s {NANS})"));
    results.push(format!("(i32x4.trunc_sat_f64x2_u_zero {WIDE_NANS})"));
    results.push(format!("(i64x2.splat (i64.trunc_sat_f32_s {NAN32}))"));
    let bytes = results.len() * 16;
    let stores = results
        .iter()
        .enumerate()
        .map(|(index, result)| format!("(v128.store (i32.const {}) {result})\n", 64 + 16 * index));
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\34\12\b0\ff\34\12\b0\7f\34\12\90\ff\34\12\b0\ff\78\56\00\00\00\00\f4\ff\78\56\00\00\00\00\f4\7f")
        (data (i32.const 48) "\40\00\00\00")
        (func (export "_start") {}
            (i32.store (i32.const 52) (i32.const {bytes}))
            (drop (call $write (i32.const 1) (i32.const 48) (i32.const 1) (i32.const 56)))))"#,
        stores.collect::<String>()
    )
}

#[test]
fn numbers_have_the_same_bits_everywhere() {
    let compiled = Node::found("here");
    let interpreted = compiled.join_with("interpreted", "core", &["--engine", "wasmi"]);
    let nodes = [
        on_arm(&compiled, "arm-compiled", &[]),
        on_arm(&compiled, "arm-interpreted", &["--engine", "wasmi"]),
        interpreted,
        compiled,
    ];
    let module = nodes[0].dir.join("numbers.wasm");
    std::fs::write(&module, wat::parse_str(numbers()).unwrap()).unwrap();
    let results = nodes.each_ref().map(|node| {
        let agent = node.spawn(&[module.to_str().unwrap()]);
        ends_well(node, &agent)
    });
    assert!(results[0].len() > 1000);
    for result in &results[1..] {
        let pairs = results[0].chunks(16).zip(result.chunks(16));
        let differing = pairs.enumerate().find(|(_, (first, other))| first != other);
        assert!(*result == results[0], "{differing:x?}");
    }
}

#[test]
fn javascript_is_moved_ten_times_between_engines_and_architectures() {
    let engine = built("quickjs/qjs.wasm", "cargo xtask quickjs");
    let script = file("agents/quickjs/mixture.js", "git");
    // QuickJS gives itself up where there is no clock.
    let spawn = |node: &Node, name: &str, rounds: &str| {
        let line = ["--name", name, "--allow", "clock", "--stdin", &script];
        node.spawn(&[&[&engine[..]], &line[..], &["--", rounds]].concat())
    };
    let compiled = Node::found("compiled");
    let interpreted = compiled.join_with("interpreted", "core", &["--engine", "wasmi"]);
    let arm = on_arm(&compiled, "arm", &[]);
    compiled.sees(3);
    // A move does not wait for as long as an emulated compiler takes, so the native code is made before.
    ends_well(&arm, &spawn(&arm, "first", "1"));
    let expected = ends_well(&compiled, &spawn(&compiled, "stayed", ROUNDS));
    assert_eq!(
        expected.split(|byte| *byte == b'\n').count(),
        2 + ROUNDS.parse::<usize>().unwrap()
    );

    let moved = spawn(&compiled, "moved", ROUNDS);
    let mut lines = 0;
    for (to, strategy) in [
        (&arm, "stop-copy"),
        (&interpreted, "post-copy"),
        (&compiled, "pre-copy"),
        (&arm, "hybrid"),
        (&interpreted, "auto"),
        (&compiled, "post-copy"),
        (&arm, "pre-copy"),
        (&interpreted, "hybrid"),
        (&arm, "auto"),
        (&compiled, "stop-copy"),
    ] {
        // It has gone on where it is.
        lines = another_line(&compiled, &moved, lines);
        let line = ["agent", "migrate", &moved, to.id(), "--strategy", strategy];
        let report = compiled.json(&line);
        assert_eq!(report["to"], to.id(), "{strategy}");
        println!("{strategy} at line {lines}: {report}");
    }
    assert!(
        stdout(&compiled, &moved).len() < expected.len(),
        "the script ended before its tenth move did: it needs more rounds"
    );
    let got = ends_well(&compiled, &moved);
    let lines = |output: &[u8]| {
        String::from_utf8_lossy(output)
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let pairs = lines(&expected).into_iter().zip(lines(&got));
    let differing = pairs.clone().find(|(a, b)| a != b);
    assert!(got == expected, "not what it prints unmoved: {differing:?}");
}

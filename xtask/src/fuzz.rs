//! `cargo xtask fuzz`: runs a fuzz target for a while, with new inputs every time.
//!
//! A target whose decoder is public runs under libFuzzer, which looks for inputs by the code that
//! they reach. That takes a C++ compiler, once, and nothing that a stable compiler does not have: the
//! coverage is LLVM's own. A target that only its crate can reach runs as its ordinary test, which
//! then goes on with mutations of the corpus for the time that it is given.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command::{capture, run as run_command};
use crate::workspace::Workspace;

/// What `fuzz` is told.
#[derive(Args)]
pub(crate) struct Options {
    /// Which target: a folder of fuzz/corpus, or `all`
    target: String,
    /// How long, for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Mutate the corpus without regard to coverage, also where libFuzzer could be used
    #[arg(long)]
    mutate: bool,
    /// Write the inputs that the target's own code makes into its corpus, and run once
    #[arg(long, conflicts_with = "seconds")]
    seeds: bool,
}

/// A target, and where its body is.
struct Target {
    name: &'static str,
    package: &'static str,
    place: Place,
}

/// Where the test of a target is.
enum Place {
    /// In `tests/fuzz`, where libFuzzer's program finds it too.
    Fuzz,
    /// Among the library's own, with this path.
    Library(&'static str),
    /// Among those of the package's only program.
    Program(&'static str),
}

impl Target {
    /// Whether others than its crate reach its decoder, and so libFuzzer's program.
    fn is_public(&self) -> bool {
        matches!(self.place, Place::Fuzz)
    }
}

const fn public(name: &'static str, package: &'static str) -> Target {
    Target {
        name,
        package,
        place: Place::Fuzz,
    }
}

const fn private(name: &'static str, package: &'static str, test: &'static str) -> Target {
    Target {
        name,
        package,
        place: Place::Library(test),
    }
}

const fn in_program(name: &'static str, package: &'static str, test: &'static str) -> Target {
    Target {
        name,
        package,
        place: Place::Program(test),
    }
}

const TARGETS: [Target; 41] = [
    private("acpi", "mielin-hal", "acpi::tests::hostile_tables"),
    in_program("api", "mielin-cli", "daemon::answer::tests::api"),
    private(
        "archive",
        "mielin-kernel",
        "archive::tests::hostile_archives",
    ),
    private("batch", "mielin-mesh", "messages::tests::batch"),
    private("certificate", "mielin-mesh-wire", "hostile::certificate"),
    private("circuit", "mielin-mesh-wire", "hostile::circuit"),
    private("data", "mielin-wasm", "filesystem::tests::hostile::data"),
    private(
        "device_tree",
        "mielin-hal",
        "device_tree::tests::hostile_trees",
    ),
    private(
        "executable",
        "mielin-kernel",
        "executable::tests::hostile_executables",
    ),
    private("frames", "mielin-mesh-wire", "hostile::frames"),
    private("handed_on", "mielin-mesh", "messages::tests::handed_on"),
    public("handover", "mielin-mesh-core"),
    private("hello", "mielin-mesh-wire", "hostile::hello"),
    public("host_calls", "mielin-wasm"),
    public("host_state", "mielin-wasm"),
    public("instrument", "mielin-safepoint"),
    private(
        "introduction",
        "mielin-mesh-wire",
        "introduction::tests::introduction",
    ),
    private(
        "join_messages",
        "mielin-mesh-wire",
        "hostile::join_messages",
    ),
    public("leaf", "mielin-mesh-core"),
    private(
        "leaves",
        "mielin-cells",
        "lodging::directory::tests::leaves",
    ),
    private(
        "loopback",
        "mielin-mesh",
        "discovery::local::loopback::tests::loopback",
    ),
    public("mailbox", "mielin-mesh-core"),
    public("membership", "mielin-mesh-core"),
    public("migration", "mielin-mesh-core"),
    private("moves", "mielin-cells", "moving::frames::tests::moves"),
    private("node_files", "mielin-mesh-wire", "hostile::node_files"),
    private("note", "mielin-mesh", "messages::lane::note::tests::note"),
    private("operations", "mielin-cells", "wire::tests::operations"),
    private("record", "mielin-cells", "record::tests::hostile_records"),
    public("registry", "mielin-mesh-core"),
    private("response", "mielin-mesh", "serving::tests::response"),
    public("resume", "mielin-wasm"),
    public("revocation", "mielin-mesh-core"),
    public("rewritten", "mielin-safepoint"),
    public("routed", "mielin-mesh-core"),
    private("safetensors", "embed", "safetensors::tests::hostile_files"),
    public("snapshot", "mielin-safepoint"),
    private(
        "stored",
        "mielin-cells",
        "stored::tests::hostile_stored_agents",
    ),
    public("token", "mielin-mesh-wire"),
    public("transfer", "mielin-transfer"),
    public("wire_types", "mielin-mesh-core"),
];

/// What cargo-fuzz passes too, but for the sanitizers, which need a nightly compiler. Overflow is
/// checked, because it is where a hostile number goes wrong first.
const FLAGS: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cdebug-assertions -Coverflow-checks";

/// Runs one target, or all of them.
///
/// # Errors
/// There is no such target, it cannot be built, or it broke a promise: the input is then kept in
/// `fuzz/artifacts`.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let wanted = |target: &&Target| options.target == "all" || options.target == target.name;
    let targets: Vec<&Target> = TARGETS.iter().filter(wanted).collect();
    if targets.is_empty() {
        let names = TARGETS.map(|target| target.name).join(", ");
        bail!(
            "there is no target `{}`; there are {names}, and all",
            options.target
        );
    }
    for target in targets {
        if !target.is_public() || options.mutate || options.seeds {
            replay(workspace, target, options)?;
        } else {
            explore(workspace, target, options.seconds)?;
        }
    }
    Ok(())
}

/// The target's ordinary test, with more time.
fn replay(workspace: &Workspace, target: &Target, options: &Options) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--quiet", "--package", target.package]);
    if options.seeds {
        cargo.env("MIELIN_FUZZ_SEEDS", "1");
    } else {
        cargo.env("MIELIN_FUZZ_SECONDS", options.seconds.to_string());
    }
    match target.place {
        Place::Library(test) => cargo.args(["--lib", "--", "--exact", test]),
        Place::Program(test) => cargo.args(["--bins", "--", "--exact", test]),
        Place::Fuzz => cargo.args(["--test", "fuzz", "--", "--exact", target.name]),
    };
    run_command(&mut cargo)
}

/// The target under libFuzzer. What it finds worth keeping stays in the build output; the corpus is
/// read and not changed.
fn explore(workspace: &Workspace, target: &Target, seconds: u32) -> Result<()> {
    let folder = workspace.root().join("fuzz");
    let output = workspace.output().join("fuzz");
    let host = host(workspace)?;
    let mut cargo = workspace.cargo();
    cargo
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", &output)
        .env("RUSTFLAGS", FLAGS)
        // With a target named, build scripts and macros are compiled without the flags.
        .args([
            "build",
            "--release",
            "--target",
            &host,
            "--bin",
            target.name,
        ]);
    run_command(&mut cargo).context(
        "libFuzzer's program was not built; it takes a C++ compiler, and `--mutate` does without",
    )?;
    let found = output.join("corpus").join(target.name);
    let artifacts = folder.join("artifacts").join(target.name);
    for folder in [&found, &artifacts] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut fuzzer = Command::new(output.join(host).join("release").join(target.name));
    fuzzer
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-timeout=20", "-rss_limit_mb=2048", "-max_len=65536"])
        .arg("-print_final_stats=1")
        .arg(found)
        .arg(folder.join("corpus").join(target.name));
    run_command(&mut fuzzer)
}

/// The triple of this machine.
fn host(workspace: &Workspace) -> Result<String> {
    let mut rustc = Command::new("rustc");
    rustc.current_dir(workspace.root()).arg("-vV");
    let version = capture(&mut rustc)?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_target_has_a_corpus_and_every_public_one_a_program() {
        let workspace = Workspace::find();
        let folder = workspace.root().join("fuzz");
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let mut corpora: Vec<String> = fs::read_dir(folder.join("corpus"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        corpora.sort();
        assert_eq!(corpora, TARGETS.map(|target| target.name));
        for target in TARGETS {
            let named = manifest.contains(&format!("name = \"{}\"", target.name));
            assert_eq!(named, target.is_public(), "{}", target.name);
            let program = folder.join(format!("fuzz_targets/{}.rs", target.name));
            assert_eq!(program.exists(), named, "{}", target.name);
        }
    }

    #[test]
    fn the_table_says_where_each_target_is() {
        let readme = Workspace::find().root().join("fuzz/README.md");
        let readme = fs::read_to_string(readme).unwrap();
        let rows = readme.lines().filter(|line| line.starts_with("| `"));
        assert_eq!(rows.clone().count(), TARGETS.len());
        for target in TARGETS {
            let begins = format!("| `{}` |", target.name);
            let row = rows.clone().find(|row| row.starts_with(&begins)).unwrap();
            assert!(row.contains(&format!("| `{}`, ", target.package)), "{row}");
            assert_eq!(row.ends_with("`tests/fuzz` |"), target.is_public(), "{row}");
        }
    }

    #[test]
    fn the_corpora_are_small_and_their_files_are_named() {
        let workspace = Workspace::find();
        // What a fuzzer has left there under names of its own is not part of the repository.
        let mut git = Command::new("git");
        git.current_dir(workspace.root())
            .args(["ls-files", "fuzz/corpus"]);
        let mut bytes = 0;
        for path in capture(&mut git).unwrap().lines() {
            let name = path.rsplit('/').next().unwrap_or_default();
            let named = name.starts_with("ok-") || name.starts_with("bad-");
            assert!(named, "{path} does not say what must become of it");
            bytes += fs::metadata(workspace.root().join(path)).unwrap().len();
        }
        assert!(bytes < 256 << 10, "{bytes} bytes");
    }
}

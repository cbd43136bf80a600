//! `cargo xtask bench`: builds a benchmark with optimisation and passes its
//! standard output through unchanged, so that `-o json` is the benchmark's own.

use clap::{Args, ValueEnum};

use anyhow::Result;

use crate::command;
use crate::workspace::Workspace;

/// What `bench` is told.
#[derive(Args)]
pub(crate) struct Options {
    /// Which benchmark
    benchmark: Benchmark,
    /// Arguments of the benchmark itself, such as `-o json`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Benchmark {
    /// Run time and size of rewritten modules, as ratios to the plain ones
    Safepoint,
    /// Downtime of moves by memory size and strategy, against plain stop-copy
    Migrate,
    /// Time until the demo's first agent runs, and its moves
    Spawn,
    /// Preparing and spawning modules, time slices and dirty pages, on each engine
    Engine,
}

impl Benchmark {
    /// Package, then cargo's choice of program in it, then arguments that come first.
    fn program(
        self,
    ) -> (
        &'static str,
        &'static [&'static str],
        &'static [&'static str],
    ) {
        match self {
            Self::Safepoint => ("mielin-safepoint", &["--example", "overhead"], &[]),
            Self::Migrate => ("mielin-cells", &["--example", "migrate_bench"], &[]),
            Self::Spawn => ("mielin-cli", &["--bin", "mielin"], &["demo"]),
            Self::Engine => ("mielin-wasm", &["--example", "figures"], &[]),
        }
    }
}

/// Runs one benchmark in release mode.
///
/// # Errors
/// The build or the benchmark failed.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let (package, program, first) = options.benchmark.program();
    let mut cargo = workspace.cargo();
    cargo.args(["run", "--release", "--quiet", "--package", package]);
    cargo
        .args(program)
        .arg("--")
        .args(first)
        .args(&options.arguments);
    command::run(&mut cargo)
}

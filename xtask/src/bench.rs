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
    /// Cargo's choice of program, where it is built, and arguments that come first.
    fn program(self) -> ([&'static str; 2], &'static str, &'static [&'static str]) {
        match self {
            Self::Safepoint => (["--example", "overhead"], "examples/overhead", &[]),
            Self::Migrate => (
                ["--example", "migrate_bench"],
                "examples/migrate_bench",
                &[],
            ),
            Self::Spawn => (["--bin", "mielin"], "mielin", &["demo"]),
            Self::Engine => (["--example", "figures"], "examples/figures", &[]),
        }
    }
}

/// Runs one benchmark in release mode.
///
/// # Errors
/// The build or the benchmark failed.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let (choice, program, first) = options.benchmark.program();
    // The features of dependencies follow from the packages that are built together: with
    // `--workspace` they are the same for every benchmark, and compiled once.
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--release", "--quiet", "--workspace"]);
    command::run(cargo.args(choice))?;
    let program = workspace.target().join("release").join(program);
    let mut benchmark = std::process::Command::new(program);
    benchmark.current_dir(workspace.root());
    command::run(benchmark.args(first).args(&options.arguments))
}

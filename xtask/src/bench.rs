//! `cargo xtask bench`: builds a benchmark with optimisation and passes its
//! standard output through unchanged, so that `-o json` is the benchmark's own.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, ValueEnum};

use anyhow::Result;

use crate::agents;
use crate::command;
use crate::minilm;
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
    /// What 100,000 idle agents of one node cost, beside instances that are kept
    Density,
    /// The mesh's wire beside TCP, TLS and raw quinn, two processes on loopback
    Mesh,
    /// Kernels of mielin-tensor beside those of others and the limits of the machine
    Tensor,
    /// Matrices from an agent, by the node's kernels and in WebAssembly, beside native code
    AgentTensor,
    /// Vectors of 100 sentences by `embed` beside onnxruntime, on one thread
    Embed,
}

/// The workspace of the benchmark that brings its rivals, which the main one does not.
pub(crate) const TENSOR: &str = "bench/tensor";

impl Benchmark {
    /// The features of dependencies follow from the packages that are built together: with
    /// `--workspace` they are the same for every benchmark that needs an engine, and compiled
    /// once. The wire and the sentences need none.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Mesh => &["--package", "mielin-mesh"],
            Self::Tensor => &["--locked"],
            Self::Embed => &["--package", "embed"],
            _ => &["--workspace"],
        }
    }

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
            Self::Density => (["--example", "density"], "examples/density", &[]),
            Self::Mesh => (["--example", "mesh_bench"], "examples/mesh_bench", &[]),
            Self::Tensor => (["--bin", "mielin-tensor-bench"], "mielin-tensor-bench", &[]),
            Self::AgentTensor => (["--example", "agent_tensor"], "examples/agent_tensor", &[]),
            Self::Embed => (["--bin", "embed"], "embed", &[]),
        }
    }
}

/// Runs one benchmark in release mode.
///
/// # Errors
/// The build or the benchmark failed.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let (choice, program, first) = options.benchmark.program();
    let (mut cargo, target) = match options.benchmark {
        Benchmark::Tensor => on_tensor(workspace),
        _ => (workspace.cargo(), workspace.target().to_owned()),
    };
    cargo.args(["build", "--release", "--quiet"]);
    cargo.args(options.benchmark.packages());
    command::run(cargo.args(choice))?;
    let program = target.join("release").join(program);
    let mut benchmark = match options.benchmark {
        Benchmark::Mesh => on_one_processor(&program),
        Benchmark::Embed => minilm::benchmark(workspace, &program)?,
        _ => Command::new(program),
    };
    if let Benchmark::Safepoint = options.benchmark {
        let coremark = agents::build_one(workspace, "coremark")?;
        benchmark.arg("--coremark").arg(coremark);
    }
    if let Benchmark::AgentTensor = options.benchmark {
        let kernels = agents::build_vectors(workspace, "kernels")?;
        benchmark.arg("--agent").arg(kernels);
    }
    benchmark.current_dir(workspace.root());
    command::run(benchmark.args(first).args(&options.arguments))
}

/// Cargo in the workspace of the tensor benchmark, and where it builds.
pub(crate) fn on_tensor(workspace: &Workspace) -> (Command, PathBuf) {
    let target = workspace.output().join("bench-tensor");
    let mut cargo = workspace.cargo();
    cargo.current_dir(workspace.root().join(TENSOR));
    cargo.env("CARGO_TARGET_DIR", &target);
    (cargo, target)
}

/// Two processes that wait for each other are measured alike only when they share a processor.
/// Where `taskset` is missing the benchmark runs on all, and says so in its result.
fn on_one_processor(program: &Path) -> Command {
    let has_taskset = Command::new("taskset")
        .arg("--version")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !has_taskset {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", "0"]).arg(program);
    command
}

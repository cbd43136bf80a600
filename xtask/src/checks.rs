//! The two sequences: `test`, and `ci` around it.

use std::ffi::OsString;
use std::num::NonZero;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::command::run;
use crate::workspace::Workspace;
use crate::{
    aarch64, agents, bare, bench, faults, firmware, kernels, licences, macos, minilm, os, probe,
    quickjs, tidy, trials,
};

/// Times the steps of a sequence and says at the end where the time went.
struct Steps {
    done: Vec<(&'static str, Duration)>,
}

impl Steps {
    fn new() -> Self {
        Self { done: Vec::new() }
    }

    fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        eprintln!("== {name}");
        let start = Instant::now();
        work().with_context(|| format!("step `{name}`"))?;
        self.done.push((name, start.elapsed()));
        Ok(())
    }

    fn report(&self) {
        eprintln!("== all steps passed");
        for (name, time) in &self.done {
            eprintln!("{:>8.1} s  {name}", time.as_secs_f64());
        }
    }
}

/// Everything that is proved by running: the agents from source, and all tests.
///
/// # Errors
/// The first step that failed.
pub(crate) fn test(workspace: &Workspace) -> Result<()> {
    let mut steps = Steps::new();
    test_steps(workspace, &mut steps)?;
    steps.report();
    Ok(())
}

fn test_steps(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.step("agents from source", || agents::build_and_check(workspace))?;
    steps.step("tests of the agents", || {
        run(on_agents(workspace).arg("test").arg("--quiet"))
    })?;
    steps.step("tests of the workspace", || {
        run(workspace.cargo().env(TEST_THREADS, test_threads()).args([
            "test",
            "--workspace",
            "--locked",
        ]))
    })?;
    steps.step("tests of the tensor benchmark, without the rivals", || {
        let test = ["test", "--quiet", "--no-default-features", "--locked"];
        run(bench::on_tensor(workspace).0.args(test))
    })?;
    steps.step(
        "vectors of sentences beside onnxruntime's, and an agent's",
        || minilm::check(workspace),
    )?;
    steps.step("crates without a standard library", || {
        bare::check(workspace)
    })?;
    steps.step("what asks macOS", || macos::check(workspace))?;
    steps.step("a firmware on bare machines", || probe::check(workspace))?;
    steps.step(
        "the runtime of microcontrollers and the microkernel on their machines, and a node for another",
        || {
            aarch64::setup(workspace)?;
            // Half of the time the trials leave a processor idle: one linker, or one library, is all that they wait for.
            thread::scope(|scope| {
                let node = scope.spawn(|| aarch64::build(workspace));
                let tried = trials::run(firmware::trials(workspace).chain(os::trials(workspace)));
                let built = node.join();
                tried?;
                built
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                    .map(drop)
            })
        },
    )?;
    steps.step("an agent that leaves a dying sensor", || {
        firmware::example(workspace)
    })?;
    steps.step("QuickJS for two architectures", || {
        quickjs::build(workspace).map(drop)
    })?;
    steps.step("moves between architectures", || {
        let test = ["test", "--workspace", "--locked", "--test", "architectures"];
        run(workspace.cargo().args(test))
    })?;
    steps.step(
        "tensor kernels watched, on 64-bit Arm and in WebAssembly",
        || kernels::run(workspace),
    )?;
    steps.step("a sample of the fault matrix", || faults::sample(workspace))
}

/// Everything that a change must pass, the cheap steps first. All of it is in
/// the dev profile, so that dependencies are compiled once and checked once.
///
/// # Errors
/// The first step that failed.
pub(crate) fn ci(workspace: &Workspace) -> Result<()> {
    let mut steps = Steps::new();
    steps.step("format", || {
        run(workspace.cargo().args(["fmt", "--all", "--check"]))?;
        run(on_agents(workspace).args(["fmt", "--all", "--check"]))?;
        run(bench::on_tensor(workspace)
            .0
            .args(["fmt", "--all", "--check"]))?;
        for bare in [
            "firmware",
            "os/probe",
            "os/kernel",
            "os/user",
            os::uefi::LOADER,
        ] {
            let mut on_bare = workspace.cargo();
            on_bare.current_dir(workspace.root().join(bare));
            run(on_bare.args(["fmt", "--all", "--check"]))?;
        }
        Ok(())
    })?;
    steps.step("tidy", || tidy::run(workspace))?;
    steps.step("deny", || licences::run(workspace))?;
    steps.step("clippy", || {
        let clippy = ["clippy", "--all-targets", "--locked"];
        let deny_warnings = ["--", "-D", "warnings"];
        run(workspace
            .cargo()
            .args(clippy)
            .args(["--workspace", "--test", "architectures"])
            .args(deny_warnings))?;
        run(on_agents(workspace).args(clippy).args(deny_warnings))?;
        // The rivals take minutes to compile and call nothing that changes here.
        run(bench::on_tensor(workspace)
            .0
            .args(clippy)
            .arg("--no-default-features")
            .args(deny_warnings))
    })?;
    steps.step("documentation", || {
        let mut doc = workspace.cargo();
        doc.env("RUSTDOCFLAGS", "-D warnings");
        // With the examples, so that dependencies have the features that clippy looked at, and are not looked at again.
        let targets = ["--lib", "--bins", "--examples"];
        run(doc
            .args(["doc", "--workspace", "--no-deps", "--locked"])
            .args(targets))
    })?;
    test_steps(workspace, &mut steps)?;
    steps.report();
    Ok(())
}

/// What says how many tests of a program run at once.
const TEST_THREADS: &str = "RUST_TEST_THREADS";
/// Tests for each processor: most of them wait for packets, clocks and other programs.
const TESTS_PER_PROCESSOR: usize = 2;

/// As many as were asked for, or as keep the processors busy.
fn test_threads() -> OsString {
    let chosen = std::env::var_os(TEST_THREADS);
    chosen.unwrap_or_else(|| {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        (TESTS_PER_PROCESSOR * processors).to_string().into()
    })
}

/// Cargo in the agents' workspace, for this machine rather than for WebAssembly.
fn on_agents(workspace: &Workspace) -> Command {
    let mut cargo = workspace.cargo();
    cargo
        .current_dir(workspace.root().join("agents"))
        .env("CARGO_TARGET_DIR", workspace.output().join("agents-host"));
    cargo
}

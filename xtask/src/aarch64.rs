//! Builds the node for 64-bit Arm Linux, so that a mesh of two architectures can be tested on one machine.
//!
//! C parts and linking are a cross compiler's work; the program runs under QEMU's user mode, which
//! translates its instructions and passes its system calls on.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{capture, run as run_command};
use crate::toolchain::{self, Target, clean_environment};
use crate::workspace::Workspace;

const C_COMPILER: &str = "aarch64-linux-gnu-gcc";
const ARCHIVER: &str = "aarch64-linux-gnu-ar";
const EMULATOR: &str = "qemu-aarch64-static";
/// Has all that the kernels can use, also FEAT_I8MM.
const NEWEST: &str = "max";
/// With FEAT_DotProd but not FEAT_I8MM, and with neither.
const OLDER: [&str; 2] = ["neoverse-n1", "cortex-a53"];
/// The tests that go other ways on those, by parts of their names.
const ON_BYTES: [&str; 2] = ["bytes", "quantised"];

/// Builds it, and prints the path of the program.
///
/// # Errors
/// A compiler or the emulator is missing and cannot be installed here, or the build failed.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    println!("{}", build(workspace)?.display());
    Ok(())
}

/// Sees to it that what building takes is there.
///
/// # Errors
/// As for [`run`].
pub(crate) fn setup(workspace: &Workspace) -> Result<()> {
    cargo(workspace).map(drop)
}

/// Builds it.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    let (mut cargo, output) = cargo(workspace)?;
    cargo.args([
        "build",
        "--locked",
        "--package",
        "mielin-cli",
        "--bin",
        "mielin",
    ]);
    run_command(cargo.args(["--profile", PROFILE]))?;
    Ok(output.join(PROFILE).join("mielin"))
}

/// Runs the unit tests of the tensor kernels on an emulated processor, and those that multiply bytes on others, too.
///
/// # Errors
/// As for [`run`], or a test failed.
pub(crate) fn test_kernels(workspace: &Workspace) -> Result<()> {
    test_on(workspace, NEWEST, &[])?;
    for model in OLDER {
        test_on(workspace, model, &ON_BYTES)?;
    }
    Ok(())
}

fn test_on(workspace: &Workspace, model: &str, names: &[&str]) -> Result<()> {
    let (mut cargo, _) = cargo(workspace)?;
    let runner = format!("{EMULATOR} -L /usr/aarch64-linux-gnu -cpu {model}");
    cargo
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", runner)
        .args(["test", "--locked", "--package", "mielin-tensor", "--lib"])
        .arg("--")
        .args(names);
    run_command(&mut cargo)
}

/// Cargo for this target, and the folder in which it puts its profiles.
fn cargo(workspace: &Workspace) -> Result<(Command, PathBuf)> {
    for program in [C_COMPILER, ARCHIVER, EMULATOR] {
        if let Err(why) = capture(Command::new(program).arg("--version")) {
            Target::Aarch64.install(&format!("no tools for 64-bit Arm ({why:#})"))?;
        }
    }
    let rust = toolchain::setup_rust(workspace, Target::Aarch64)?;
    let output = workspace.output().join("aarch64");
    std::fs::create_dir_all(&output).with_context(|| output.display().to_string())?;
    let triple = Target::Aarch64.triple();
    let mut cargo = Command::new(&rust.cargo);
    clean_environment(&mut cargo)
        .current_dir(workspace.root())
        .env("RUSTC", &rust.rustc)
        .env("CARGO_TARGET_DIR", &output)
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", C_COMPILER)
        .env("CC_aarch64_unknown_linux_gnu", C_COMPILER)
        .env("AR_aarch64_unknown_linux_gnu", ARCHIVER)
        .env("CARGO_BUILD_TARGET", triple);
    Ok((cargo, output.join(triple)))
}

/// Optimised a little: unoptimised it would be ten to fifty times slower under emulation, and with all
/// optimisation building it took half of the time of all checks.
const PROFILE: &str = "emulated";

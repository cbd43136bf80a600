//! Runs the tests of the tensor kernels where their vectors are emulated, or an engine's: on 64-bit Arm, and in WebAssembly.

use std::process::Command;

use anyhow::Result;

use crate::aarch64;
use crate::command::run as run_command;
use crate::toolchain::{self, TARGET, Target, clean_environment};
use crate::workspace::Workspace;

/// On both.
///
/// # Errors
/// A compiler or an emulator is missing and cannot be installed here, or a test failed.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    aarch64::test_kernels(workspace)?;
    test_in_wasm(workspace)
}

/// With vectors of 128 bits, under this workspace's own engine.
pub(crate) fn test_in_wasm(workspace: &Workspace) -> Result<()> {
    let engine = ["build", "--locked", "--workspace", "--example", "run_plain"];
    run_command(workspace.cargo().args(engine))?;
    let engine = workspace.root().join("target/debug/examples/run_plain");
    let rust = toolchain::setup_rust(workspace, Target::Wasm)?;
    let mut cargo = Command::new(&rust.cargo);
    clean_environment(&mut cargo)
        .current_dir(workspace.root())
        .env("RUSTC", &rust.rustc)
        .env("CARGO_TARGET_DIR", workspace.output().join("kernels"))
        .env("CARGO_INCREMENTAL", "0")
        .env(
            "RUSTFLAGS",
            // Threads, which Debian's wasi-libc has not got, and which these tests do not start.
            "-Ctarget-feature=+simd128 -Clink-arg=--unresolved-symbols=ignore-all",
        )
        .env("CARGO_TARGET_WASM32_WASIP1_RUNNER", engine)
        .args(["test", "--locked", "--package", "mielin-tensor", "--lib"])
        .args(["--target", TARGET]);
    run_command(&mut cargo)
}

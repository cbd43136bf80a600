//! Runs the tests of the tensor kernels where their vectors are emulated, or an engine's: on 64-bit Arm, and in WebAssembly; and
//! here, with every access watched, as those of the microcontrollers' runtime.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::aarch64;
use crate::command::{capture, run as run_command};
use crate::toolchain::{self, TARGET, Target, clean_environment};
use crate::workspace::Workspace;

/// Where the sanitizer's runtime is known to be, and what it is called.
const HOST: &str = "x86_64-unknown-linux-gnu";
const SANITIZER: &str = "librustc-stable_rt.asan.a";

/// On both, and on this machine with AddressSanitizer.
///
/// # Errors
/// A compiler or an emulator is missing and cannot be installed here, or a test failed.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    test_sanitized(workspace)?;
    aarch64::test_kernels(workspace)?;
    test_in_wasm(workspace)
}

/// Whether all that is read and written belongs to somebody is watched (Serebryany et al., *AddressSanitizer*, USENIX ATC 2012).
fn test_sanitized(workspace: &Workspace) -> Result<()> {
    let libraries = capture(Command::new("rustc").args(["--print", "target-libdir"]))?;
    let runtime = Path::new(libraries.trim()).join(SANITIZER);
    if !runtime.exists() {
        eprintln!(
            "AddressSanitizer is left out: {} is missing, which rustup's compilers for {HOST} have",
            runtime.display()
        );
        return Ok(());
    }
    let mut cargo = workspace.cargo();
    clean_environment(&mut cargo)
        .env("CARGO_TARGET_DIR", workspace.output().join("sanitized"))
        .env("CARGO_INCREMENTAL", "0")
        // What builds with it is not stable.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Zsanitizer=address")
        // A test asks for more memory than there is, and wants to be told.
        .env("ASAN_OPTIONS", "allocator_may_return_null=1:detect_leaks=0")
        // The kernels, and the pools and queues of microcontrollers' memory.
        .args(["test", "--locked", "--lib", "--package", "mielin-tensor"])
        .args(["--package", "mielin-rt", "--target", HOST]);
    run_command(&mut cargo)
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

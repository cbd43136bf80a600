//! Checks that the crates at the bottom build where there is no operating system and no standard library.

use std::process::Command;

use anyhow::Result;

use crate::command::run;
use crate::toolchain;
use crate::workspace::Workspace;

/// A kernel's three architectures, and the smallest and a larger microcontroller.
const TARGETS: [&str; 5] = [
    "x86_64-unknown-none",
    "aarch64-unknown-none",
    "riscv64gc-unknown-none-elf",
    "thumbv6m-none-eabi",
    "thumbv7em-none-eabihf",
];

/// Type-checks them, with the parts of the library that they use, which are built from source.
///
/// # Errors
/// The source of the library is missing and cannot be installed here, or a crate does not build.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let (cargo, rustc) = toolchain::setup_source()?;
    for target in TARGETS {
        let mut command = Command::new(&cargo);
        toolchain::clean_environment(&mut command)
            .current_dir(workspace.root())
            .env("RUSTC", &rustc)
            // What builds the library from its source is not stable.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", "-Dwarnings")
            .env("CARGO_TARGET_DIR", workspace.output().join("bare"))
            .args(["check", "--quiet", "--locked", "-Zbuild-std=core,alloc"])
            .args(["--package", "mielin-hal", "--package", "mielin-tensor"])
            .args(["--no-default-features", "--target", target]);
        run(&mut command)?;
    }
    Ok(())
}

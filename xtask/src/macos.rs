//! Checks that what asks macOS builds. No Mac is needed: nothing is linked, and nothing is run.

use std::process::Command;

use anyhow::Result;

use crate::command::run;
use crate::toolchain::{self, Target};
use crate::workspace::Workspace;

/// Type-checks the crate that asks the system, with the bindings of Apple's libraries.
///
/// # Errors
/// There is no library for the target and none can be made here, or the crate does not build.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let rust = toolchain::setup_rust(workspace, Target::Macos)?;
    let mut command = Command::new(&rust.cargo);
    toolchain::clean_environment(&mut command)
        .current_dir(workspace.root())
        .env("RUSTC", &rust.rustc)
        .env("RUSTFLAGS", "-Dwarnings")
        .env("CARGO_TARGET_DIR", workspace.output().join("macos"))
        .args(["check", "--quiet", "--locked"])
        .args([
            "--package",
            "mielin-hal",
            "--target",
            Target::Macos.triple(),
        ]);
    run(&mut command)
}

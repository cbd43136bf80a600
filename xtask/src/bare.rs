//! Checks that what runs on bare machines builds where there is no operating system and no standard library.

use std::process::Command;

use anyhow::Result;

use crate::command::run;
use crate::toolchain;
use crate::workspace::Workspace;

/// Targets for which no image of this repository is compiled (`cargo xtask os`, `firmware` and `probe` build the others), and the crates
/// that run on them: a processor with vectors at a kernel's disposal, the smallest microcontroller, and boards without a
/// unit for floats. Those of one line are checked at once: the library of one target is work for one processor.
const TARGETS: [(&[&str], &[&str]); 3] = [
    (
        &[
            "aarch64-unknown-none",
            "thumbv6m-none-eabi",
            "thumbv7em-none-eabi",
        ],
        &["mielin-hal", "mielin-tensor"],
    ),
    (
        &["thumbv7em-none-eabi", "thumbv8m.main-none-eabi"],
        &["mielin-rt"],
    ),
    (&["thumbv7em-none-eabi"], &["mielin-mesh-core"]),
];

/// Type-checks them, with the parts of the library that they use, which are built from source.
///
/// # Errors
/// The source of the library is missing and cannot be installed here, or a crate does not build.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let (cargo, rustc) = toolchain::setup_source()?;
    for (targets, packages) in TARGETS {
        let mut command = Command::new(&cargo);
        toolchain::clean_environment(&mut command)
            .current_dir(workspace.root())
            .env("RUSTC", &rustc)
            // What builds the library from its source is not stable.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", "-Dwarnings")
            .env("CARGO_TARGET_DIR", workspace.output().join("bare"))
            .args(["check", "--quiet", "--locked", "-Zbuild-std=core,alloc"])
            .args(packages.iter().flat_map(|package| ["--package", package]))
            .arg("--no-default-features")
            .args(targets.iter().flat_map(|target| ["--target", target]));
        run(&mut command)?;
    }
    Ok(())
}

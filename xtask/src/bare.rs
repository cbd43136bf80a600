//! Checks that what runs on bare machines builds where there is no operating system and no standard library.

use std::process::Command;

use anyhow::Result;

use crate::command::run;
use crate::toolchain;
use crate::workspace::Workspace;

/// A kernel's three architectures.
const KERNELS: [&str; 3] = [
    "x86_64-unknown-none",
    "aarch64-unknown-none",
    "riscv64gc-unknown-none-elf",
];
/// The smallest microcontroller, and larger ones that can be leaves of a mesh: it takes atomics that exchange.
const MICROCONTROLLERS: [(&str, &[&str]); 3] = [
    ("thumbv6m-none-eabi", &[]),
    ("thumbv7m-none-eabi", &LEAVES),
    ("thumbv7em-none-eabihf", &LEAVES),
];

/// Boards without a unit for floats, whose compilers are others than those of the firmware's boards, which have one.
const SOFT_FLOATS: [&str; 2] = ["thumbv7em-none-eabi", "thumbv8m.main-none-eabi"];

/// What is built for all of them.
const EVERYWHERE: [&str; 2] = ["mielin-hal", "mielin-tensor"];
/// What firmware stands on.
const RUNTIME: [&str; 1] = ["mielin-rt"];
/// What links a leaf to its host.
const LEAVES: [&str; 1] = ["mielin-mesh-core"];
/// What runs agents, which need megabytes, and brings them in and out.
const AGENTS: [&str; 3] = ["mielin-safepoint", "mielin-wasm", "mielin-transfer"];

/// Type-checks them, with the parts of the library that they use, which are built from source.
///
/// # Errors
/// The source of the library is missing and cannot be installed here, or a crate does not build.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let (cargo, rustc) = toolchain::setup_source()?;
    let kernels = KERNELS.map(|target| (target, &EVERYWHERE[..], &AGENTS[..]));
    let boards = MICROCONTROLLERS.map(|(target, more)| (target, &EVERYWHERE[..], more));
    let soft_floats = SOFT_FLOATS.map(|target| (target, &RUNTIME[..], &[][..]));
    for (target, packages, more) in kernels.into_iter().chain(boards).chain(soft_floats) {
        let packages = packages.iter().chain(more);
        let mut command = Command::new(&cargo);
        toolchain::clean_environment(&mut command)
            .current_dir(workspace.root())
            .env("RUSTC", &rustc)
            // What builds the library from its source is not stable.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", "-Dwarnings")
            .env("CARGO_TARGET_DIR", workspace.output().join("bare"))
            .args(["check", "--quiet", "--locked", "-Zbuild-std=core,alloc"])
            .args(packages.flat_map(|package| ["--package", package]))
            .args(["--no-default-features", "--target", target]);
        run(&mut command)?;
    }
    Ok(())
}

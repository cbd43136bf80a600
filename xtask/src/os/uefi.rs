//! A PC that starts from UEFI: OVMF, and a disk with the loader (`os/uefi`), which has the kernel in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::machine::Variant;
use crate::command::run;
use crate::toolchain;
use crate::workspace::Workspace;

/// The loader's workspace.
pub(crate) const LOADER: &str = "os/uefi";
const TARGET: &str = "x86_64-unknown-uefi";

/// OVMF: what is executed, and its variables as they are at first.
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// What firmware starts from a disk of which it knows nothing else (UEFI Specification 2.10, 3.5.1.1).
const DEFAULT_PROGRAM: &str = "EFI/BOOT/BOOTX64.EFI";

/// The machine. It has no network, from which firmware would start, too.
pub(super) const MACHINE: Variant = Variant {
    name: "x86_64 q35, UEFI",
    arguments: &[
        "-machine", "q35", "-cpu", "max", "-m", "256M", "-nic", "none",
    ],
};

const DISK: &str = "disk";
const VARIABLES_COPY: &str = "variables.fd";

/// Builds the loader with a kernel in it, and gives a folder with a disk and new variables. A warning fails it.
///
/// # Errors
/// The compiler or OVMF is missing and cannot be installed here, it does not build, or the file system fails.
pub(super) fn build(workspace: &Workspace, kernel: &Path) -> Result<PathBuf> {
    toolchain::setup_firmware(&[FIRMWARE, VARIABLES])?;
    let built = workspace.output().join("os/uefi");
    let mut cargo = toolchain::bare_cargo(workspace, TARGET)?;
    cargo
        .current_dir(workspace.root().join(LOADER))
        .env("RUSTFLAGS", "-Dwarnings")
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_TARGET_DIR", &built)
        .env("MIELIN_KERNEL", kernel)
        .args(["build", "--quiet", "--release", "--locked"])
        .args(["--target", TARGET]);
    run(&mut cargo)?;
    let loader = built.join(TARGET).join("release/mielin-uefi.efi");
    let folder = kernel.with_extension("uefi");
    for (from, to) in [
        (loader.as_path(), folder.join(DISK).join(DEFAULT_PROGRAM)),
        (Path::new(VARIABLES), folder.join(VARIABLES_COPY)),
    ] {
        let parent = to.parent().unwrap_or(&folder);
        fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        fs::copy(from, &to).with_context(|| format!("copying {}", from.display()))?;
    }
    Ok(folder)
}

/// Tells QEMU of firmware and disk in such a folder.
pub(super) fn attach(command: &mut Command, folder: &Path) {
    let flash = "if=pflash,format=raw";
    // QEMU makes a file system of the folder; its disks must be writable, and this one is private.
    let disk = format!("format=raw,file=fat:rw:{}", folder.join(DISK).display());
    let variables = folder.join(VARIABLES_COPY);
    command
        .args(["-drive", &format!("{flash},readonly=on,file={FIRMWARE}")])
        .args(["-drive", &format!("{flash},file={}", variables.display())])
        .args(["-drive", &disk]);
}

/// What the loader works out, tested here.
///
/// # Errors
/// A test fails.
pub(super) fn check(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo
        .current_dir(workspace.root().join(LOADER))
        .env("CARGO_TARGET_DIR", workspace.output().join("os/uefi-host"));
    run(cargo.args(["test", "--quiet", "--lib", "--locked"]))
}

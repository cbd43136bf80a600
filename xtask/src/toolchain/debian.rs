//! Debian's packages with the compilers for other targets.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{capture, run};

/// rustc and cargo with the WebAssembly back end and the library's source, the
/// linkers, and C.
pub(super) const WASM: [&str; 9] = [
    "rustc-web",
    "cargo-web",
    "rust-web-src",
    "rust-web-llvm",
    "lld-22",
    "wasi-libc",
    "clang",
    "lld",
    "libclang-rt-14-dev-wasm32",
];

/// The same compiler, a C compiler and linker for 64-bit Arm, and what runs its programs here.
pub(super) const AARCH64: [&str; 6] = [
    "rustc-web",
    "cargo-web",
    "rust-web-src",
    "gcc-aarch64-linux-gnu",
    "libc6-dev-arm64-cross",
    "qemu-user-static",
];

/// The same compiler alone: what it builds for macOS is not linked.
pub(super) const MACOS: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// A compiler and a linker for bare machines.
pub(super) const BARE: [&str; 5] = [
    "rustc-web",
    "cargo-web",
    "rust-web-src",
    "rust-web-llvm",
    "lld-22",
];

/// QEMU's machines, and the firmware of RISC-V's.
pub(super) const EMULATORS: [&str; 4] = [
    "qemu-system-misc",
    "qemu-system-arm",
    "qemu-system-x86",
    "opensbi",
];

/// UEFI for QEMU's PCs.
pub(super) const FIRMWARE: [&str; 1] = ["ovmf"];

/// Installs the packages, if this process is root on a Debian system. `others` is what to do elsewhere.
///
/// # Errors
/// It is not, or apt-get failed; `why` and the command to type are in the message.
pub(super) fn install(why: &str, packages: &[&str], others: &str) -> Result<()> {
    let is_root = capture(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if !is_root || !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "{why}\n\
             {others}\n\
             On Debian, as root: `apt-get install --no-install-recommends {}`.\n\
             Then run the same command again.",
            packages.join(" ")
        )
    }
    eprintln!("{why}: installing Debian's packages");
    // The package lists of a fresh machine are empty or old; an update that
    // fails matters only if the installation then fails too.
    if let Err(error) = run(apt_get().arg("update")) {
        eprintln!("note: {error:#}");
    }
    run(apt_get()
        .args(["install", "-y", "--no-install-recommends"])
        .args(packages))
    .with_context(|| why.to_owned())
}

/// What it says goes to standard error: standard output is for what the command at hand was asked.
fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .stdout(std::io::stderr())
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-q", "-o", "DPkg::Lock::Timeout=600"]);
    command
}

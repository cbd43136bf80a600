//! Debian's packages with the compilers for WebAssembly.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::cannot_install;
use crate::command::{capture, run};

/// rustc and cargo with the WebAssembly back end and the library's source, the
/// linkers, and C.
const PACKAGES: [&str; 9] = [
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

/// Installs the packages, if this process is root on a Debian system.
///
/// # Errors
/// It is not, or apt-get failed; `why` and the command to type are in the message.
pub(super) fn install(why: &str) -> Result<()> {
    let command = format!(
        "apt-get install --no-install-recommends {}",
        PACKAGES.join(" ")
    );
    let is_root = capture(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if !is_root || !Path::new("/usr/bin/apt-get").exists() {
        return cannot_install(why, &command);
    }
    eprintln!("{why}: installing Debian's packages");
    // The package lists of a fresh machine are empty or old; an update that
    // fails matters only if the installation then fails too.
    if let Err(error) = run(apt_get().arg("update")) {
        eprintln!("note: {error:#}");
    }
    run(apt_get()
        .args(["install", "-y", "--no-install-recommends"])
        .args(PACKAGES))
    .with_context(|| why.to_owned())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-q", "-o", "DPkg::Lock::Timeout=600"]);
    command
}

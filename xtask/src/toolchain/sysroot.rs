//! A standard library for another target, built from the source that Debian's
//! compiler ships.
//!
//! An empty crate is built with `-Zbuild-std`; the libraries that this leaves
//! behind, the target's start files and the distribution's own host library make
//! a sysroot, and a wrapper around rustc names it. From then on a plain
//! `cargo build --target …` works with no unstable flag. The library's own
//! dependencies come from the source package too, so that nothing is fetched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Rust, Target, clean_environment, first_line};
use crate::command::{capture, run};
use crate::workspace::Workspace;

const RUSTC: &str = "/usr/bin/rustc";
const CARGO: &str = "/usr/bin/cargo";
/// The linker that this compiler calls for WebAssembly.
const LINKER: &str = "/usr/bin/rust-lld";
const WASI_LIBC: &str = "/usr/lib/wasm32-wasi";
/// Counts changes of the recipe below; a sysroot of another recipe is not used.
const RECIPE: u32 = 2;

impl Target {
    /// The parts of the library that are built, with the way in which they end after a panic.
    fn parts(self) -> &'static str {
        match self {
            Self::Wasm => "std,panic_abort,test",
            Self::Aarch64 => "std,panic_unwind,test",
            Self::Macos => "std,panic_unwind",
        }
    }

    /// How much they are optimised: what is not run need not be fast, and is built in less than half of the time.
    fn optimisation(self) -> &'static str {
        match self {
            Self::Wasm | Self::Aarch64 => "3",
            Self::Macos => "0",
        }
    }

    /// The folder whose start files and C library a program of this target is linked with, where
    /// rustc rather than a C compiler links it.
    fn libc(self) -> Option<&'static Path> {
        match self {
            Self::Wasm => Some(Path::new(WASI_LIBC)),
            Self::Aarch64 | Self::Macos => None,
        }
    }
}

/// The cargo and the compiler from whose library the sysroots are built.
pub(super) fn with_source() -> (PathBuf, PathBuf) {
    (CARGO.into(), RUSTC.into())
}

/// The first thing that the build lacks, if it lacks any.
pub(super) fn missing(target: Target) -> Option<String> {
    let source = PathBuf::from("/usr/lib/rustlib/src/rust/library/std/Cargo.toml");
    let mut needed = vec![PathBuf::from(RUSTC), CARGO.into(), source];
    if let Some(libc) = target.libc() {
        // `exists` follows links: rust-lld is a dangling link until lld-22 is installed.
        needed.extend([PathBuf::from(LINKER), libc.join("libc.a")]);
    }
    needed
        .into_iter()
        .find(|path| !path.exists())
        .map(|path| format!("{} is missing", path.display()))
}

/// The same for a bare machine, whose programs rustc links itself.
pub(super) fn missing_for_bare() -> Option<String> {
    let linker = || (!Path::new(LINKER).exists()).then(|| format!("{LINKER} is missing"));
    missing(Target::Aarch64).or_else(linker)
}

/// Gives the compiler with the cached sysroot, or builds that first (under a minute).
///
/// # Errors
/// The build failed, or the file system did.
pub(super) fn find_or_build(workspace: &Workspace, target: Target) -> Result<Rust> {
    let verbose = capture(Command::new(RUSTC).arg("-vV"))?;
    let distribution =
        PathBuf::from(capture(Command::new(RUSTC).args(["--print", "sysroot"]))?.trim());
    let library_source = distribution.join("lib/rustlib/src/rust");
    let libc = match target.libc() {
        Some(folder) => {
            let libc = fs::read(folder.join("libc.a")).context("wasi-libc")?;
            format!("wasi-libc {}", &blake3::hash(&libc).to_hex()[..16])
        }
        None => "no libc".to_owned(),
    };

    let base = workspace.output().join("sysroot");
    fs::create_dir_all(&base)?;
    let parts = target.parts();
    let key = format!("{RECIPE} {target} {parts} {libc} {verbose}");
    let key = blake3::hash(key.as_bytes()).to_hex();
    let sysroot = base.join(&key[..16]);
    let rustc = sysroot.join("rustc");
    let complete = sysroot.join("complete");

    // Two builds at once would tread on each other; the second waits and finds it done.
    let lock = fs::File::create(base.join("lock"))?;
    lock.lock().context("locking the sysroot")?;
    if !complete.exists() {
        eprintln!("building the standard library for {target} (once per compiler)");
        let build = base.join("build");
        remove_if_there(&build)?;
        remove_if_there(&sysroot)?;
        build_library(target, &build, &library_source)?;
        assemble(target, &build, &sysroot, &distribution)?;
        write_wrapper(&rustc, &sysroot)?;
        fs::write(&complete, &verbose)?;
        remove_if_there(&build)?;
    }
    Ok(Rust {
        cargo: CARGO.into(),
        rustc,
        library_source,
        version: first_line(&verbose),
        library: format!("built from source by recipe {RECIPE}, {libc}"),
    })
}

/// Builds std, and all that it stands on, as dependencies of an empty crate.
fn build_library(target: Target, build: &Path, library_source: &Path) -> Result<()> {
    fs::create_dir_all(build.join("src"))?;
    fs::write(build.join("src/lib.rs"), "#![no_std]\n")?;
    fs::write(
        build.join("Cargo.toml"),
        "[package]\nname = \"empty\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n",
    )?;
    let vendored = library_source.join("library/vendor");
    let mut cargo = Command::new(CARGO);
    clean_environment(&mut cargo)
        .current_dir(build)
        .env("RUSTC", RUSTC)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", build.join("target"))
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", target.optimisation())
        // Bitcode, so that the agents can be optimised together with it.
        .env(
            "RUSTFLAGS",
            format!(
                "-Cembed-bitcode=yes --remap-path-prefix={}=/rust",
                library_source.display()
            ),
        )
        .args([
            "build",
            "--quiet",
            "--release",
            &format!("-Zbuild-std={}", target.parts()),
            "--target",
            target.triple(),
        ]);
    if vendored.exists() {
        cargo
            .arg("--offline")
            .args(["--config", "source.crates-io.replace-with='vendored'"])
            .args([
                "--config",
                &format!("source.vendored.directory='{}'", vendored.display()),
            ]);
    }
    run(&mut cargo)
}

/// Puts the built libraries beside links to the distribution's own.
fn assemble(target: Target, build: &Path, sysroot: &Path, distribution: &Path) -> Result<()> {
    let rustlib = sysroot.join("lib/rustlib");
    let library = rustlib.join(target.triple()).join("lib");
    let self_contained = library.join("self-contained");
    fs::create_dir_all(&self_contained)?;
    let built = build.join("target").join(target.triple());

    let mut copied = 0;
    for file in files_in(&built.join("release/deps"))? {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.ends_with(".rlib") && !name.starts_with("libempty-") {
            fs::copy(&file, library.join(&name))?;
            copied += 1;
        }
    }
    ensure!(copied > 0, "the build left no library behind");
    if let Some(libc) = target.libc() {
        for file in files_in(libc)? {
            if file
                .extension()
                .is_some_and(|extension| extension == "o" || extension == "a")
            {
                fs::copy(
                    &file,
                    self_contained.join(file.file_name().unwrap_or_default()),
                )?;
            }
        }
    }
    let theirs = distribution.join("lib/rustlib");
    for file in files_in(&theirs)? {
        let name = file.file_name().unwrap_or_default();
        if name != target.triple() {
            link(&file, &rustlib.join(name))?;
        }
    }
    Ok(())
}

fn write_wrapper(rustc: &Path, sysroot: &Path) -> Result<()> {
    let script = format!(
        "#!/bin/sh\nexec {RUSTC} --sysroot '{}' \"$@\"\n",
        sysroot.display()
    );
    fs::write(rustc, script)?;
    make_executable(rustc)
}

#[cfg(unix)]
fn link(original: &Path, link: &Path) -> Result<()> {
    std::os::unix::fs::symlink(original, link).with_context(|| link.display().to_string())
}

#[cfg(unix)]
fn make_executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(
        file,
        fs::Permissions::from_mode(0o755),
    )?)
}

#[cfg(not(unix))]
fn link(_original: &Path, _link: &Path) -> Result<()> {
    anyhow::bail!("this sysroot is made from Debian's packages only")
}

#[cfg(not(unix))]
fn make_executable(_file: &Path) -> Result<()> {
    anyhow::bail!("this sysroot is made from Debian's packages only")
}

fn files_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn remove_if_there(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| directory.display().to_string())
        }
        _ => Ok(()),
    }
}

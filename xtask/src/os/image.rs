//! The kernel's file, with programs in it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use mielin_kernel::archive::{FILE_ALIGN, write_head};

use super::Arch;
use crate::command::run;
use crate::toolchain;
use crate::workspace::Workspace;

impl Arch {
    /// What the kernel is compiled for: without floating-point numbers.
    fn kernel_target(self) -> &'static str {
        match self {
            Self::Riscv64 => "riscv64gc-unknown-none-elf",
            Self::Aarch64 => "aarch64-unknown-none-softfloat",
            Self::X86_64 => "x86_64-unknown-none",
        }
    }

    /// What rustc is told for the kernel. On x86-64 code is longer, so that it is optimised for size, to stay below 64 KiB: what is fast
    /// is marked in the source.
    fn kernel_flags(self) -> &'static str {
        match self {
            Self::Riscv64 | Self::Aarch64 => "-Dwarnings",
            Self::X86_64 => "-Dwarnings -Copt-level=s",
        }
    }

    /// What programs are compiled for. On 64-bit Arm the compiler would use vector registers wherever it likes, also in threads
    /// that have not asked for them, and then those fault.
    fn program_target(self) -> &'static str {
        match self {
            Self::Riscv64 => "riscv64gc-unknown-none-elf",
            Self::Aarch64 => "aarch64-unknown-none-softfloat",
            Self::X86_64 => "x86_64-unknown-none",
        }
    }
}

/// Where programs are built.
pub(crate) const PROGRAMS: &str = "os/programs";

/// A file's name, and what is in it.
type File = (String, Vec<u8>);

/// Builds programs of `os/user`, and the kernel with them, the first one as its first program. A warning fails it.
///
/// # Errors
/// The compiler is missing and cannot be installed here, or something does not build.
pub(super) fn build(workspace: &Workspace, arch: Arch, programs: &[&str]) -> Result<PathBuf> {
    let files = compile(workspace, arch, programs)?;
    kernel(workspace, arch, &programs.join("-"), &files)
}

/// Programs of the system; the first one starts the others.
const SYSTEM: [&str; 7] = [
    "root", "console", "net", "pages", "agents", "transfer", "shell",
];
/// The program in which agents run.
const AGENT: &str = "agent";
/// Sample agents that come with the system, with the manifests in `os/system`.
const SAMPLES: [&str; 3] = ["hello", "counter", "digest"];
/// What else the agent server has from `os/system`.
const INPUTS: [&str; 1] = ["digest.txt"];

/// Builds the whole system: the kernel, all servers, and agents that can be started.
///
/// # Errors
/// As for [`build`].
pub(super) fn system(workspace: &Workspace, arch: Arch) -> Result<PathBuf> {
    system_with(workspace, arch, "system", AGENT)
}

/// Builds the system with a program in place of the agents' that tries to break out.
///
/// # Errors
/// As for [`build`].
pub(super) fn hostile(workspace: &Workspace, arch: Arch) -> Result<PathBuf> {
    system_with(workspace, arch, "hostile", "rogue")
}

fn system_with(workspace: &Workspace, arch: Arch, name: &str, agent: &str) -> Result<PathBuf> {
    let read =
        |path: PathBuf| fs::read(&path).with_context(|| format!("reading {}", path.display()));
    let programs = [&SYSTEM[..], &[agent]].concat();
    let mut files = compile(workspace, arch, &programs)?;
    let mut agents = files.split_off(SYSTEM.len());
    for (name, _) in &mut agents {
        AGENT.clone_into(name);
    }
    let (prebuilt, about) = (
        workspace.root().join("agents/prebuilt"),
        workspace.root().join("os/system"),
    );
    for sample in SAMPLES {
        let (module, manifest) = (format!("{sample}.wasm"), format!("{sample}.manifest"));
        agents.push((module.clone(), read(prebuilt.join(module))?));
        agents.push((manifest.clone(), read(about.join(manifest))?));
    }
    for input in INPUTS {
        agents.push((input.to_owned(), read(about.join(input))?));
    }
    files.push(("files".to_owned(), archive(&agents)?));
    kernel(workspace, arch, name, &files)
}

/// Builds programs of `os/user`.
fn compile(workspace: &Workspace, arch: Arch, programs: &[&str]) -> Result<Vec<File>> {
    let built = workspace.output().join(PROGRAMS);
    let target = arch.program_target();
    let mut cargo = toolchain::bare_cargo(workspace, target)?;
    cargo
        .current_dir(workspace.root().join("os/user"))
        .env("RUSTFLAGS", "-Dwarnings")
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_TARGET_DIR", &built)
        .args(["build", "--quiet", "--release", "--locked"])
        .args(["--target", target]);
    for program in programs {
        cargo.args(["--bin", program]);
    }
    run(&mut cargo)?;
    let mut files = Vec::new();
    for program in programs {
        let path = built.join(target).join("release").join(program);
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        files.push(((*program).to_owned(), bytes));
    }
    Ok(files)
}

/// Builds the kernel with these files, as an image of this name.
fn kernel(workspace: &Workspace, arch: Arch, name: &str, files: &[File]) -> Result<PathBuf> {
    let output = workspace.output().join("os");
    let archive = archive(files)?;
    let name = format!("{}-{name}", arch.name());
    let archive_path = output.join(format!("{name}.archive"));
    // An archive that is the same is not written, so that the kernel is not built again.
    if fs::read(&archive_path).ok().as_ref() != Some(&archive) {
        fs::write(&archive_path, &archive)
            .with_context(|| format!("writing {}", archive_path.display()))?;
    }

    let target = arch.kernel_target();
    let built = output.join("kernel");
    let mut cargo = toolchain::bare_cargo(workspace, target)?;
    cargo
        .current_dir(workspace.root().join("os/kernel"))
        .env("RUSTFLAGS", arch.kernel_flags())
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_TARGET_DIR", &built)
        .env("MIELIN_ARCHIVE", &archive_path)
        .args(["build", "--quiet", "--release", "--locked"])
        .args(["--target", target]);
    run(&mut cargo)?;
    let kernel = built.join(target).join("release/mielin-os-kernel");
    let image = output.join(format!("{name}.elf"));
    fs::copy(&kernel, &image).with_context(|| format!("copying {}", kernel.display()))?;
    Ok(image)
}

/// The bytes of an archive.
fn archive(files: &[File]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let lens = files
        .iter()
        .map(|(name, content)| (name.as_str(), content.len() as u64));
    write_head(lens, |part| bytes.extend_from_slice(part))
        .map_err(|error| anyhow!("these files make no archive: {error:?}"))?;
    for (_, content) in files {
        bytes.resize(bytes.len().next_multiple_of(FILE_ALIGN), 0);
        bytes.extend_from_slice(content);
    }
    Ok(bytes)
}

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

/// Builds programs of `os/user`, and the kernel with them, the first one as its first program. A warning fails it.
///
/// # Errors
/// The compiler is missing and cannot be installed here, or something does not build.
pub(super) fn build(workspace: &Workspace, arch: Arch, programs: &[&str]) -> Result<PathBuf> {
    let output = workspace.output().join("os");
    let built = output.join("programs");
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
        files.push((*program, bytes));
    }
    let archive = archive(&files)?;
    let name = format!("{}-{}", arch.name(), programs.join("-"));
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
fn archive(files: &[(&str, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let lens = files
        .iter()
        .map(|(name, content)| (*name, content.len() as u64));
    write_head(lens, |part| bytes.extend_from_slice(part))
        .map_err(|error| anyhow!("these files make no archive: {error:?}"))?;
    for (_, content) in files {
        bytes.resize(bytes.len().next_multiple_of(FILE_ALIGN), 0);
        bytes.extend_from_slice(content);
    }
    Ok(bytes)
}

//! The compilers that build agents: Rust for `wasm32-wasip1`, and clang with wasi-libc.
//!
//! Two worlds are served. Where rustup has the target, rustup's compiler is
//! used as it is. Elsewhere Debian's packages give a compiler with every LLVM
//! back end and the library's source, but no built library for the target;
//! [`sysroot`] builds that library once and caches it.

mod debian;
mod sysroot;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::capture;
use crate::workspace::Workspace;

/// The Rust target of every agent.
pub(crate) const TARGET: &str = "wasm32-wasip1";

/// A target for which this machine's compiler may have no library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Agents.
    Wasm,
    /// Nodes on another architecture.
    Aarch64,
    /// What asks another operating system, which is only looked at by the compiler.
    Macos,
}

impl Target {
    /// Its name for rustc.
    pub(crate) fn triple(self) -> &'static str {
        match self {
            Self::Wasm => TARGET,
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
            Self::Macos => "aarch64-apple-darwin",
        }
    }

    /// Installs what building for it needs, or says what to install.
    pub(crate) fn install(self, why: &str) -> Result<()> {
        let (packages, also) = match self {
            Self::Wasm => (
                &debian::WASM[..],
                ", and for C set WASI_SDK_PATH to a wasi-sdk",
            ),
            Self::Aarch64 => (
                &debian::AARCH64[..],
                ", and install aarch64-linux-gnu-gcc, its libc, and qemu-aarch64-static",
            ),
            Self::Macos => (&debian::MACOS[..], ""),
        };
        let others = format!("With rustup: `rustup target add {self}`{also}.");
        debian::install(why, packages, &others)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.triple())
    }
}

/// Everything that building the agents needs.
pub(crate) struct Toolchain {
    /// Rust for [`TARGET`].
    pub(crate) rust: Rust,
    /// C for WASI.
    pub(crate) c: C,
}

/// A Rust compiler that has a library for [`TARGET`].
pub(crate) struct Rust {
    /// The cargo that goes with the compiler.
    pub(crate) cargo: PathBuf,
    /// The compiler, or a wrapper that gives it its sysroot.
    pub(crate) rustc: PathBuf,
    /// Where the standard library's source stands in messages, to be remapped.
    pub(crate) library_source: PathBuf,
    /// First line of `rustc --version`.
    pub(crate) version: String,
    /// Where the standard library came from, as one line that two equal builds share.
    pub(crate) library: String,
}

/// A C compiler for WASI with its libc.
pub(crate) struct C {
    /// The program.
    pub(crate) clang: PathBuf,
    /// Arguments that choose target and libc.
    pub(crate) arguments: Vec<String>,
    /// First line of `clang --version`.
    pub(crate) version: String,
    /// First line of the linker's version.
    pub(crate) linker: String,
    /// Which wasi-libc: its content's hash.
    pub(crate) libc: String,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Rust:   {} ({})",
            self.rust.version,
            self.rust.rustc.display()
        )?;
        writeln!(f, "        library for {TARGET}: {}", self.rust.library)?;
        writeln!(f, "C:      {} ({})", self.c.version, self.c.clang.display())?;
        write!(f, "        {}, wasi-libc {}", self.c.linker, self.c.libc)
    }
}

/// Finds the compilers, and makes what can be made: installs Debian's packages
/// (as root only) and builds the library for [`TARGET`]. Does nothing that was
/// done before.
///
/// # Errors
/// Something is missing that this process may not install; the message carries
/// the command that installs it.
pub(crate) fn setup(workspace: &Workspace) -> Result<Toolchain> {
    let c = setup_c(workspace)?;
    let rust = setup_rust(workspace, Target::Wasm)?;
    Ok(Toolchain { rust, c })
}

/// The same for Rust alone.
pub(crate) fn setup_rust(workspace: &Workspace, target: Target) -> Result<Rust> {
    if let Some(rust) = Rust::from_rustup(workspace, target)? {
        return Ok(rust);
    }
    if let Some(missing) = sysroot::missing(target) {
        let why = format!("no Rust compiler with {target} ({missing})");
        target.install(&why)?;
    }
    sysroot::find_or_build(workspace, target)
}

/// A cargo and a compiler with the source of its library, from which parts of that can be built for any target.
pub(crate) fn setup_source() -> Result<(PathBuf, PathBuf)> {
    if let Some(missing) = sysroot::missing(Target::Aarch64) {
        let why = format!("no Rust compiler with the source of its library ({missing})");
        Target::Aarch64.install(&why)?;
    }
    Ok(sysroot::with_source())
}

/// A cargo that builds programs for a bare target: the one on PATH if its compiler has the target's library, else
/// Debian's, which builds that from its source.
pub(crate) fn bare_cargo(workspace: &Workspace, triple: &str) -> Result<Command> {
    let rustc = std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
    if library_of(&rustc, triple, "libcore-")?.is_some() {
        let mut cargo = workspace.cargo();
        clean_environment(&mut cargo).env("RUSTC", rustc);
        return Ok(cargo);
    }
    if let Some(missing) = sysroot::missing_for_bare() {
        let why = format!("no Rust compiler with {triple} ({missing})");
        let others = format!("With rustup: `rustup target add {triple}`.");
        debian::install(&why, &debian::BARE, &others)?;
    }
    let (cargo, rustc) = sysroot::with_source();
    let mut cargo = Command::new(cargo);
    clean_environment(&mut cargo)
        .env("RUSTC", rustc)
        // What builds the library from its source is not stable.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_UNSTABLE_BUILD_STD", "core,alloc");
    Ok(cargo)
}

/// Sees to it that these programs of QEMU are there.
pub(crate) fn setup_emulators<'a>(programs: impl IntoIterator<Item = &'a &'a str>) -> Result<()> {
    for program in programs {
        if let Err(why) = capture(Command::new(program).arg("--version")) {
            let others = "Install QEMU 7.2 or later with its machines for Arm, RISC-V and x86.";
            let why = format!("no {program} ({why:#})");
            debian::install(&why, &debian::EMULATORS, others)?;
        }
    }
    Ok(())
}

/// Sees to it that the files of OVMF are there, the UEFI firmware of QEMU's PCs.
pub(crate) fn setup_firmware(files: &[&str]) -> Result<()> {
    for file in files {
        if !Path::new(file).exists() {
            let why = format!("no UEFI firmware for QEMU ({file} is missing)");
            debian::install(&why, &debian::FIRMWARE, "Install OVMF there.")?;
        }
    }
    Ok(())
}

/// The same for C alone.
pub(crate) fn setup_c(workspace: &Workspace) -> Result<C> {
    match C::find(workspace) {
        Ok(c) => Ok(c),
        Err(why) => {
            let why = format!("no C compiler for WASI ({why:#})");
            Target::Wasm.install(&why)?;
            C::find(workspace)
        }
    }
}

impl Rust {
    /// The compiler on PATH, if the target is installed.
    fn from_rustup(workspace: &Workspace, target: Target) -> Result<Option<Self>> {
        let rustc = std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
        let triple = target.triple();
        if library_of(&rustc, triple, "libstd-")?.is_none() {
            return Ok(None);
        }
        let version = capture(Command::new(&rustc).arg("--version"))?
            .trim()
            .to_owned();
        let sysroot = capture(Command::new(&rustc).args(["--print", "sysroot"]))?;
        Ok(Some(Self {
            cargo: workspace.cargo().get_program().into(),
            rustc,
            library_source: Path::new(sysroot.trim()).join("lib/rustlib/src/rust"),
            version,
            library: "as distributed with the compiler".to_owned(),
        }))
    }
}

/// The folder of a compiler's libraries for a target, if one of them has a name that begins so.
fn library_of(rustc: &Path, triple: &str, begin: &str) -> Result<Option<PathBuf>> {
    let folder =
        capture(Command::new(rustc).args(["--print", "target-libdir", "--target", triple]))?;
    let folder = PathBuf::from(folder.trim());
    let Ok(entries) = std::fs::read_dir(&folder) else {
        return Ok(None);
    };
    let has_it = entries
        .filter_map(Result::ok)
        .any(|entry| entry.file_name().to_string_lossy().starts_with(begin));
    Ok(has_it.then_some(folder))
}

impl C {
    /// The SDK that `WASI_SDK_PATH` names, else clang on PATH with a libc in
    /// the system's folders; proved by linking a program.
    fn find(workspace: &Workspace) -> Result<Self> {
        let (clang, arguments) = match std::env::var_os("WASI_SDK_PATH").map(PathBuf::from) {
            Some(sdk) => (
                sdk.join("bin/clang"),
                vec![
                    "--target=wasm32-wasi".to_owned(),
                    format!("--sysroot={}", sdk.join("share/wasi-sysroot").display()),
                ],
            ),
            None => (
                PathBuf::from("clang"),
                vec!["--target=wasm32-wasi".to_owned()],
            ),
        };
        let output = workspace.output();
        std::fs::create_dir_all(&output).with_context(|| output.display().to_string())?;
        let probe = output.join(format!("probe-{}.c", std::process::id()));
        let module = probe.with_extension("wasm");
        std::fs::write(
            &probe,
            "#include <stdio.h>\nint main(void) { return puts(\"\") < 0; }\n",
        )?;
        let linked = capture(
            Command::new(&clang)
                .args(&arguments)
                .arg(&probe)
                .arg("-o")
                .arg(&module),
        );
        for file in [&probe, &module] {
            // The probe of a failed link has no module to remove.
            let _ = std::fs::remove_file(file);
        }
        linked?;

        let ask = |question: &str| capture(Command::new(&clang).args(&arguments).arg(question));
        let libc_path = ask("--print-file-name=libc.a")?;
        let libc = std::fs::read(libc_path.trim())
            .with_context(|| format!("wasi-libc at {}", libc_path.trim()))?;
        let linker_path = ask("--print-prog-name=wasm-ld")?;
        Ok(Self {
            version: first_line(&ask("--version")?),
            linker: first_line(&capture(Command::new(linker_path.trim()).arg("--version"))?),
            libc: blake3::hash(&libc).to_hex()[..16].to_owned(),
            clang,
            arguments,
        })
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// Takes out of a command's environment what would change the bytes of a
/// build: flags, profiles, wrappers and target folders of the calling cargo.
pub(crate) fn clean_environment(command: &mut Command) -> &mut Command {
    const PREFIXES: [&str; 5] = [
        "CARGO_PROFILE_",
        "CARGO_BUILD_",
        "CARGO_TARGET_",
        "CARGO_ENCODED_",
        "CARGO_PKG_",
    ];
    const NAMES: [&str; 8] = [
        "RUSTFLAGS",
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_BOOTSTRAP",
        "CARGO_INCREMENTAL",
        "SOURCE_DATE_EPOCH",
        "CARGO",
    ];
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if NAMES.contains(&text.as_ref()) || PREFIXES.iter().any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    command
}

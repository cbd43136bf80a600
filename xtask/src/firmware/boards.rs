//! The boards, and how an image is built for one and run on it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::command::run;
use crate::toolchain;
use crate::workspace::Workspace;

/// Where images are built.
pub(crate) const IMAGES: &str = "firmware";

const EMULATOR: &str = "qemu-system-arm";

/// A board with a Cortex-M of which QEMU has a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Board {
    /// BBC micro:bit: Cortex-M0, 16 KiB of RAM
    Microbit,
    /// Stellaris LM3S6965: Cortex-M3, 64 KiB of RAM
    Lm3s6965evb,
    /// Arm MPS2 with the image AN386: Cortex-M4
    #[value(name = "mps2-an386")]
    Mps2An386,
    /// Arm MPS2 with the image AN505: Cortex-M33
    #[value(name = "mps2-an505")]
    Mps2An505,
}

impl Board {
    pub(super) const ALL: [Self; 4] = [
        Self::Microbit,
        Self::Lm3s6965evb,
        Self::Mps2An386,
        Self::Mps2An505,
    ];

    /// What it is called, also by QEMU.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Microbit => "microbit",
            Self::Lm3s6965evb => "lm3s6965evb",
            Self::Mps2An386 => "mps2-an386",
            Self::Mps2An505 => "mps2-an505",
        }
    }

    /// Whether it has the memory and the second UART that an image with a link needs.
    pub(super) fn is_leaf(self) -> bool {
        self.page_address().is_some()
    }

    /// Where the page is that says who the board is (`firmware/board/src/devices/mps2.rs`), as QEMU's devices see it, which on the AN505 know the aliases that
    /// are not secure.
    fn page_address(self) -> Option<u32> {
        match self {
            Self::Microbit | Self::Lm3s6965evb => None,
            Self::Mps2An386 | Self::Mps2An505 => Some(0x003f_f000),
        }
    }

    fn target(self) -> &'static str {
        match self {
            Self::Microbit => "thumbv6m-none-eabi",
            Self::Lm3s6965evb => "thumbv7m-none-eabi",
            Self::Mps2An386 => "thumbv7em-none-eabihf",
            Self::Mps2An505 => "thumbv8m.main-none-eabihf",
        }
    }
}

/// Builds an image. A warning fails it.
///
/// # Errors
/// The compiler is missing and cannot be installed here, or the image does not build.
pub(super) fn build(workspace: &Workspace, board: Board, image: &str) -> Result<PathBuf> {
    build_with(workspace, board, image, None)
}

/// The same, with a sensor that repeats these readings, if the image has one.
///
/// # Errors
/// As for [`build`].
pub(super) fn build_with(
    workspace: &Workspace,
    board: Board,
    image: &str,
    readings: Option<&Path>,
) -> Result<PathBuf> {
    let output = workspace.output().join(IMAGES);
    let target = board.target();
    let mut cargo = toolchain::bare_cargo(workspace, target)?;
    cargo
        .current_dir(workspace.root().join("firmware"))
        .env("RUSTFLAGS", flags(workspace)?)
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_TARGET_DIR", &output)
        .args(["build", "--quiet", "--release", "--locked"])
        // By its package, so that it has the features that it asks for, and no others.
        .args(["--package", &format!("mielin-firmware-{image}")])
        .args(["--target", target, "--bin", image]);
    if let Some(readings) = readings {
        cargo.env("MIELIN_READINGS", readings);
    }
    run(&mut cargo)?;
    let built = output.join(target).join("release").join(image);
    if readings.is_none() {
        return Ok(built);
    }
    // The next build has others.
    let copy = output.join(target).join(format!("{image}-with-readings"));
    std::fs::copy(&built, &copy).with_context(|| built.display().to_string())?;
    Ok(copy)
}

/// A warning is an error. Panics say where they come from: from the same place, in the same number of bytes, wherever the checkout and cargo's folder are.
pub(crate) fn flags(workspace: &Workspace) -> Result<String> {
    let home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cargo"),
    };
    let mut flags = "-Dwarnings".to_owned();
    let mut remap = |from: &Path, to: &str| {
        flags += &format!(" --remap-path-prefix={}={to}", from.display());
    };
    remap(workspace.root(), "mielin");
    // One folder for each registry.
    let registries = home.join("registry/src");
    for registry in std::fs::read_dir(&registries).into_iter().flatten() {
        remap(&registry?.path(), "registry");
    }
    Ok(flags)
}

/// The command that runs an image. An instruction takes a nanosecond, so that the clocks of a board agree with each other however busy the
/// host is; what ends an image is semihosting.
///
/// # Errors
/// QEMU is missing and cannot be installed here.
pub(super) fn command(board: Board, image: &Path) -> Result<Command> {
    toolchain::setup_emulators(&[EMULATOR])?;
    let mut command = Command::new(EMULATOR);
    command
        .args(["-machine", board.name(), "-icount", "shift=0"])
        .args(["-semihosting-config", "enable=on,target=native"])
        .args(["-display", "none", "-monitor", "none"])
        .arg("-kernel")
        .arg(image);
    Ok(command)
}

/// The Unix socket that is a board's serial line.
#[derive(Clone, Copy)]
pub(super) struct Ends<'p> {
    pub(super) line: &'p Path,
    /// The emulator listens there; otherwise somebody does.
    pub(super) listens: bool,
}

/// The same for an image with a link: the first UART is the line, the second one is the emulator's standard
/// output. Without a page the board has none.
///
/// # Errors
/// As for [`command`], and for a board that cannot have a link.
pub(super) fn leaf_command(
    board: Board,
    image: &Path,
    ends: Ends<'_>,
    page: Option<&Path>,
) -> Result<Command> {
    let mut command = command(board, image)?;
    let line = ends.line.display();
    let socket = match ends.listens {
        true => format!("socket,id=line,server=on,wait=off,path={line}"),
        false => format!("socket,id=line,server=off,path={line}"),
    };
    command.args(["-chardev", &socket, "-serial", "chardev:line"]);
    command.args(["-serial", "stdio"]);
    if let Some(page) = page {
        let at = board.page_address().context("the board has no page")?;
        let page = page.display();
        command.args([
            "-device",
            &format!("loader,file={page},addr={at:#x},force-raw=on"),
        ]);
    }
    Ok(command)
}

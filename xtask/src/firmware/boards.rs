//! The boards, and how an image is built for one and run on it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;

use crate::command::run;
use crate::toolchain;
use crate::workspace::Workspace;

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
    let output = workspace.output().join("firmware");
    let target = board.target();
    let mut cargo = toolchain::bare_cargo(workspace, target)?;
    cargo
        .current_dir(workspace.root().join("firmware"))
        .env("RUSTFLAGS", "-Dwarnings")
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_TARGET_DIR", &output)
        .args(["build", "--quiet", "--release", "--locked"])
        .args(["--target", target, "--bin", image]);
    run(&mut cargo)?;
    Ok(output.join(target).join("release").join(image))
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

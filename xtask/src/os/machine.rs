//! The machines that QEMU makes, and what their ends mean.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{Arch, uefi};
use crate::command::display;
use crate::emulator::Running;
use crate::toolchain;

/// How long a machine may run.
const PATIENCE: Duration = Duration::from_secs(300);

/// A machine of an architecture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variant {
    /// What it is.
    pub(super) name: &'static str,
    /// What QEMU is told.
    pub(super) arguments: &'static [&'static str],
}

/// The machines on which the test suite runs. The first is the one that instructions are counted on.
pub(super) fn variants(arch: Arch) -> &'static [Variant] {
    match arch {
        Arch::Riscv64 => &[
            Variant {
                name: "riscv64 virt",
                arguments: &["-machine", "virt", "-cpu", "rv64", "-m", "128M"],
            },
            Variant {
                name: "riscv64 virt without Sstc, 1 GiB",
                arguments: &["-machine", "virt", "-cpu", "rv64,sstc=off", "-m", "1G"],
            },
        ],
        Arch::Aarch64 => &[
            Variant {
                name: "aarch64 virt, Cortex-A57, GICv2",
                arguments: &["-machine", "virt", "-cpu", "cortex-a57", "-m", "128M"],
            },
            Variant {
                name: "aarch64 virt, GICv3",
                arguments: &["-machine", "virt,gic-version=3", "-cpu", "max", "-m", "1G"],
            },
        ],
        Arch::X86_64 => &[
            Variant {
                name: "x86_64 q35",
                arguments: &["-machine", "q35", "-cpu", "max", "-m", "128M"],
            },
            Variant {
                name: "x86_64 q35, Sandy Bridge, 1 GiB",
                arguments: &["-machine", "q35", "-cpu", "SandyBridge", "-m", "1G"],
            },
        ],
    }
}

impl Arch {
    fn emulator(self) -> &'static str {
        match self {
            Self::Riscv64 => "qemu-system-riscv64",
            Self::Aarch64 => "qemu-system-aarch64",
            Self::X86_64 => "qemu-system-x86_64",
        }
    }

    /// How the machine says how it ended.
    fn end(self) -> &'static [&'static str] {
        match self {
            Self::Riscv64 => &[],
            Self::Aarch64 => &["-semihosting-config", "enable=on,target=native"],
            Self::X86_64 => &["-device", "isa-debug-exit,iobase=0xf4,iosize=4"],
        }
    }

    /// The exit status of a machine on which all went well.
    pub(super) fn success(self) -> i32 {
        match self {
            Self::Riscv64 | Self::Aarch64 => 0,
            // The device gives twice the code and one more.
            Self::X86_64 => 33,
        }
    }
}

/// The machine on which the whole system runs.
pub(super) fn for_system(arch: Arch) -> Variant {
    match arch {
        Arch::Riscv64 => Variant {
            name: "riscv64 virt, 512 MiB",
            arguments: &["-machine", "virt", "-cpu", "rv64", "-m", "512M"],
        },
        Arch::Aarch64 => Variant {
            name: "aarch64 virt, Cortex-A57, 512 MiB",
            arguments: &["-machine", "virt", "-cpu", "cortex-a57", "-m", "512M"],
        },
        Arch::X86_64 => Variant {
            name: "x86_64 q35, 512 MiB",
            arguments: &["-machine", "q35", "-cpu", "max", "-m", "512M"],
        },
    }
}

/// What QEMU calls the network of a guest.
pub(super) const NETWORK: &str = "wire";

/// What QEMU is told so that a guest has a card on [`NETWORK`].
pub(super) fn card(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::Riscv64 | Arch::Aarch64 => &[
            "-global",
            "virtio-mmio.force-legacy=false",
            "-device",
            "virtio-net-device,netdev=wire",
        ],
        Arch::X86_64 => &["-device", "virtio-net-pci,netdev=wire,disable-legacy=on"],
    }
}

/// The command that runs an image: a kernel, or the folder of a disk that has one ([`uefi::build`]).
///
/// # Errors
/// QEMU is missing and cannot be installed here.
pub(super) fn command(arch: Arch, variant: &Variant, image: &Path) -> Result<Command> {
    let emulator = arch.emulator();
    toolchain::setup_emulators(&[emulator])?;
    let mut command = Command::new(emulator);
    command
        .args(variant.arguments)
        .args(arch.end())
        .args(["-display", "none", "-no-reboot"]);
    if image.is_dir() {
        uefi::attach(&mut command, image);
    } else {
        command.arg("-kernel").arg(image);
    }
    Ok(command)
}

/// How the machine's clock goes: by the instructions that it executes, so that a run is the same however busy the host is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Clock {
    /// A nanosecond for each.
    Counting,
    /// Eight, and time in which nobody runs passes at once.
    Testing,
}

/// Runs an image and shows what it prints, line by line, until it ends.
///
/// # Errors
/// It ends with a failure, or does not end in time.
pub(super) fn watch(
    arch: Arch,
    variant: &Variant,
    image: &Path,
    clock: Clock,
    see: &mut dyn FnMut(&str),
) -> Result<()> {
    let mut command = command(arch, variant, image)?;
    command.arg("-icount").arg(match clock {
        Clock::Counting => "shift=0",
        Clock::Testing => "shift=3,sleep=off",
    });
    command.args(["-monitor", "none", "-serial", "stdio"]);
    let line = display(&command);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut machine = Running::start(&mut command)?;
    let lines = machine.lines()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) => see(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => bail!("`{line}` did not end in {PATIENCE:?}"),
        }
    }
    let status = machine.0.wait()?;
    match status.code() {
        Some(code) if code == arch.success() => Ok(()),
        _ => bail!("{} has failed ({status}): `{line}`", variant.name),
    }
}

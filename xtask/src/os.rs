//! `cargo xtask os`: builds the microkernel with its programs, and runs it under QEMU.
//!
//! - [`image`]: what is built: programs, the archive of them, and the kernel around it.
//! - [`machine`]: the machines, and how to see from outside whether all went well.
//! - [`uefi`]: a PC that starts the same kernel from UEFI.
//! - [`system`]: the whole system, for a person and for the tests.
//! - [`peer`]: the other end of its network; [`host`]: a node of the host, with which it exchanges agents.
//! - [`count`]: the kernel's instructions, and the limits that they keep; [`boot`]: those before the first program.

mod boot;
mod count;
mod host;
mod image;
mod machine;
mod peer;
mod system;
pub(crate) mod uefi;

use std::path::Path;
use std::thread::{self, ScopedJoinHandle};

use anyhow::Result;
use clap::ValueEnum;

use crate::workspace::Workspace;

/// What `os` is told.
#[derive(clap::Subcommand)]
pub(crate) enum Task {
    /// Build the kernel and the test suite, and run that in user mode; the exit status says whether all passed
    Test(Machine),
    /// Try the whole system: services that fail, sample agents, the network, and agents that cross to a node of this host and back
    System(Machine),
    /// Run the system for a person: a console where agents can be started, frozen and stopped
    #[command(after_help = "\
Examples:
  cargo xtask os run --arch riscv64

Type `help` there. Control-A and then x ends it, as `shutdown` does.")]
    Run(Machine),
    /// Count the kernel's instructions for what seL4 was measured with, and say whether they keep their limits
    Count(count::Options),
}

/// What is run.
#[derive(clap::Args)]
pub(crate) struct Machine {
    /// The architecture
    #[arg(long)]
    arch: Arch,
}

/// What the kernel can be built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    Riscv64,
    Aarch64,
    #[value(name = "x86_64")]
    X86_64,
}

impl Arch {
    const ALL: [Self; 3] = [Self::Riscv64, Self::Aarch64, Self::X86_64];

    fn name(self) -> &'static str {
        match self {
            Self::Riscv64 => "riscv64",
            Self::Aarch64 => "aarch64",
            Self::X86_64 => "x86_64",
        }
    }
}

/// Does what was asked for.
///
/// # Errors
/// A compiler or QEMU is missing and cannot be installed here, something does not build, or the machine says that not all
/// went well.
pub(crate) fn run(workspace: &Workspace, task: &Task) -> Result<()> {
    match task {
        Task::Test(machine) => test(workspace, machine.arch),
        Task::System(machine) => system::check(workspace, machine.arch),
        Task::Run(machine) => system::run(workspace, machine.arch),
        Task::Count(options) => count::run(workspace, options),
    }
}

/// All machines, for `cargo xtask test`.
///
/// # Errors
/// As for [`run`].
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    uefi::check(workspace)?;
    let try_out = |arch| {
        test(workspace, arch)?;
        count::check(workspace, arch)
    };
    // An emulator has one thread, so that what is for the next architecture is built meanwhile.
    thread::scope(|scope| {
        let mut running: Option<ScopedJoinHandle<'_, Result<()>>> = None;
        for arch in Arch::ALL {
            build(workspace, arch)?;
            end(running.take())?;
            running = Some(scope.spawn(move || try_out(arch)));
        }
        end(running)
    })
}

/// Builds what is tried out on an architecture, in the order in which programs are the same.
fn build(workspace: &Workspace, arch: Arch) -> Result<()> {
    image::build(workspace, arch, &["suite"])?;
    image::build(workspace, arch, &["count"])?;
    image::system(workspace, arch).map(|_| ())
}

fn end(running: Option<ScopedJoinHandle<'_, Result<()>>>) -> Result<()> {
    match running.map(ScopedJoinHandle::join) {
        None => Ok(()),
        Some(Ok(result)) => result,
        Some(Err(panic)) => std::panic::resume_unwind(panic),
    }
}

fn test(workspace: &Workspace, arch: Arch) -> Result<()> {
    let image = image::build(workspace, arch, &["suite"])?;
    for variant in machine::variants(arch) {
        test_on(arch, variant, &image)?;
    }
    if arch == Arch::X86_64 {
        let disk = uefi::build(workspace, &image)?;
        test_on(arch, &uefi::MACHINE, &disk)?;
    }
    system::check(workspace, arch)
}

fn test_on(arch: Arch, variant: &machine::Variant, image: &Path) -> Result<()> {
    eprintln!("os: the test suite on {}", variant.name);
    let clock = machine::Clock::Testing;
    machine::watch(arch, variant, image, clock, &mut |line| println!("{line}"))
}

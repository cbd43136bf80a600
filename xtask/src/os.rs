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

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ValueEnum;

use self::host::Host;
pub(crate) use self::image::PROGRAMS;
use crate::trials::Trial;
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
        Task::Test(Machine { arch }) => {
            test(*arch, &Images::build(workspace, *arch)?)?;
            SystemImages::build(workspace, *arch)?.check(workspace, *arch)
        }
        Task::System(Machine { arch }) => {
            SystemImages::build(workspace, *arch)?.check(workspace, *arch)
        }
        Task::Run(machine) => system::run(workspace, machine.arch),
        Task::Count(options) => count::run(workspace, options),
    }
}

/// The architecture on which `cargo xtask test` lets agents run and cross. On the others it is the same code, and takes minutes
/// to compile for each.
const AGENTS_ON: Arch = Arch::Riscv64;

/// All machines, for `cargo xtask test`.
pub(crate) fn trials(workspace: &Workspace) -> impl Iterator<Item = Trial<'_>> {
    Arch::ALL.into_iter().map(move |arch| -> Trial<'_> {
        Box::new(move || {
            if arch == Arch::X86_64 {
                uefi::check(workspace)?;
            }
            let images = Images::build(workspace, arch)?;
            let count = image::build(workspace, arch, &["count"])?;
            let system = SystemImages::build_for_trials(workspace, arch)?;
            Ok(Box::new(move || {
                test(arch, &images)?;
                count::check(workspace, arch, &count)?;
                system.check(workspace, arch)
            }))
        })
    })
}

/// What is tried out on an architecture.
struct Images {
    suite: PathBuf,
    /// A disk from which a PC with UEFI starts the suite.
    disk: Option<PathBuf>,
}

impl Images {
    fn build(workspace: &Workspace, arch: Arch) -> Result<Self> {
        let suite = image::build(workspace, arch, &["suite"])?;
        let disk = (arch == Arch::X86_64).then(|| uefi::build(workspace, &suite));
        Ok(Self {
            disk: disk.transpose()?,
            suite,
        })
    }
}

/// The system, as it is tried.
struct SystemImages {
    /// With agents.
    whole: Option<PathBuf>,
    /// With a program in their place that tries to break out.
    hostile: PathBuf,
}

impl SystemImages {
    fn build(workspace: &Workspace, arch: Arch) -> Result<Self> {
        Host::build(workspace)?;
        Ok(Self {
            whole: Some(image::system(workspace, arch)?),
            hostile: image::hostile(workspace, arch)?,
        })
    }

    /// As much of it as `cargo xtask test` tries on this architecture.
    fn build_for_trials(workspace: &Workspace, arch: Arch) -> Result<Self> {
        if arch == AGENTS_ON {
            return Self::build(workspace, arch);
        }
        Ok(Self {
            whole: None,
            hostile: image::hostile(workspace, arch)?,
        })
    }

    fn check(&self, workspace: &Workspace, arch: Arch) -> Result<()> {
        let name = arch.name();
        match &self.whole {
            Some(system) => system::check(workspace, arch, system)?,
            None => eprintln!(
                "os: agents on {name} are left out here; `cargo xtask os system --arch {name}` tries them"
            ),
        }
        system::check_walls(arch, &self.hostile)
    }
}

fn test(arch: Arch, images: &Images) -> Result<()> {
    for variant in machine::variants(arch) {
        test_on(arch, variant, &images.suite)?;
    }
    if let Some(disk) = &images.disk {
        test_on(arch, &uefi::MACHINE, disk)?;
    }
    Ok(())
}

fn test_on(arch: Arch, variant: &machine::Variant, image: &Path) -> Result<()> {
    eprintln!("os: the test suite on {}", variant.name);
    let clock = machine::Clock::Testing;
    machine::watch(arch, variant, image, clock, &mut |line| println!("{line}"))
}

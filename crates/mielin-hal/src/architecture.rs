//! The instruction-set architecture that this program was compiled for, which is the one it runs on.

use core::fmt;

/// An instruction-set architecture on which a node or an agent can live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// 64-bit x86 (AMD64, Intel 64).
    X86_64,
    /// 64-bit Arm, including Apple silicon.
    Aarch64,
    /// 32-bit Arm, from Cortex-M to Cortex-A.
    Arm,
    /// 64-bit RISC-V.
    RiscV64,
    /// 32-bit RISC-V.
    RiscV32,
    /// 32-bit WebAssembly: the caller is itself an agent.
    Wasm32,
    /// Anything else that the compiler can target.
    Other,
}

/// The architecture of the running machine.
///
/// A program can only run on the architecture it was compiled for, so the answer is settled at
/// compile time. Under binary translation (Rosetta, qemu-user) it names the translated architecture.
///
/// ```
/// let architecture = mielin_hal::detect_architecture();
/// println!("Running on: {architecture:?}");
/// ```
#[must_use]
pub const fn detect_architecture() -> Architecture {
    if cfg!(target_arch = "x86_64") {
        Architecture::X86_64
    } else if cfg!(target_arch = "aarch64") {
        Architecture::Aarch64
    } else if cfg!(target_arch = "arm") {
        Architecture::Arm
    } else if cfg!(target_arch = "riscv64") {
        Architecture::RiscV64
    } else if cfg!(target_arch = "riscv32") {
        Architecture::RiscV32
    } else if cfg!(target_arch = "wasm32") {
        Architecture::Wasm32
    } else {
        Architecture::Other
    }
}

impl Architecture {
    /// The name that target triples use, such as `x86_64` or `aarch64`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
            Self::Arm => "arm",
            Self::RiscV64 => "riscv64",
            Self::RiscV32 => "riscv32",
            Self::Wasm32 => "wasm32",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

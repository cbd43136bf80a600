//! Ending a machine whose debugger, or emulator, listens.
//!
//! Source: Arm, Semihosting for AArch32 and AArch64, 2.0, "SYS_EXIT_EXTENDED".

use super::instructions;
use super::kernel::Kernel;
use crate::shutdown::{Outcome, Shutdown};

const SYS_EXIT_EXTENDED: u32 = 0x20;
const STOPPED_APPLICATION_EXIT: usize = 0x2_0026;

/// The debugger. Without one the request is a fault, which a Cortex-M locks up by if it has no handler: only under an emulator or with a
/// debugger attached, or where the kernel knows what the fault means.
#[derive(Debug)]
pub struct Semihosting {
    kernel: Kernel,
}

impl Semihosting {
    /// Takes it that one is attached.
    #[must_use]
    pub const fn new(kernel: Kernel) -> Self {
        Self { kernel }
    }
}

impl Shutdown for Semihosting {
    fn shut_down(&mut self, outcome: Outcome) {
        let status = match outcome {
            Outcome::Success => 0,
            Outcome::Failure => 1,
        };
        let arguments = [STOPPED_APPLICATION_EXIT, status];
        instructions::semihosting(self.kernel, SYS_EXIT_EXTENDED, &arguments);
    }
}

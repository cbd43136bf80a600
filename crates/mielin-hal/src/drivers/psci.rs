//! Calls to the firmware, or the hypervisor, of 64-bit Arm machines.
//!
//! Source: Arm Power State Coordination Interface, DEN 0022, "SYSTEM_OFF".

use super::instructions::{Conduit, psci_call};
use super::kernel::Kernel;
use crate::shutdown::{Outcome, Shutdown};

const SYSTEM_OFF: u32 = 0x8400_0008;

/// Who answers to PSCI. It cannot be told why a machine is switched off.
#[derive(Debug)]
pub struct Psci {
    kernel: Kernel,
    conduit: Conduit,
}

impl Psci {
    /// `conduit` is the `method` of the device tree's node `psci`.
    #[must_use]
    pub const fn new(kernel: Kernel, conduit: Conduit) -> Self {
        Self { kernel, conduit }
    }
}

impl Shutdown for Psci {
    fn shut_down(&mut self, _outcome: Outcome) {
        psci_call(self.kernel, self.conduit, SYSTEM_OFF);
    }
}

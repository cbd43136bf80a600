//! Calls to RISC-V's firmware.
//!
//! Source: RISC-V Supervisor Binary Interface Specification 1.0.0, chapters 3, 6 (Timer) and 10 (System Reset).

use super::instructions::sbi_call;
use super::kernel::Kernel;
use crate::shutdown::{Outcome, Shutdown};

const EXTENSION_TIME: usize = 0x5449_4d45;
const SET_TIMER: usize = 0;
const EXTENSION_RESET: usize = 0x5352_5354;
const SYSTEM_RESET: usize = 0;

const TYPE_SHUTDOWN: usize = 0;
const REASON_NONE: usize = 0;
const REASON_SYSTEM_FAILURE: usize = 1;

/// The firmware below a supervisor.
#[derive(Clone, Copy, Debug)]
pub struct Sbi {
    kernel: Kernel,
}

impl Sbi {
    /// The firmware that started this kernel.
    #[must_use]
    pub const fn new(kernel: Kernel) -> Self {
        Self { kernel }
    }

    /// Has the timer's interrupt come when the clock says `at`; takes back one that is pending.
    pub(super) fn set_timer(self, at: u64) {
        sbi_call(self.kernel, EXTENSION_TIME, SET_TIMER, [at as usize, 0]);
    }
}

/// By the extension System Reset.
impl Shutdown for Sbi {
    fn shut_down(&mut self, outcome: Outcome) {
        let reason = match outcome {
            Outcome::Success => REASON_NONE,
            Outcome::Failure => REASON_SYSTEM_FAILURE,
        };
        sbi_call(
            self.kernel,
            EXTENSION_RESET,
            SYSTEM_RESET,
            [TYPE_SHUTDOWN, reason],
        );
    }
}

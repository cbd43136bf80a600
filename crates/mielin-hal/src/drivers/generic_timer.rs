//! The timer of 64-bit Arm processors.
//!
//! Source: Arm Architecture Reference Manual for A-profile, DDI 0487, D11 "The Generic Timer in AArch64 state", D19.12.

use super::instructions as counter;
use super::kernel::Kernel;
use crate::timer::Timer;

/// The virtual counter, with alarms that come as the virtual timer's interrupt: usually line 27, the third of the device
/// tree's `timer` node. It stays asserted until the alarm is cleared or a later one is set.
#[derive(Debug)]
pub struct GenericTimer {
    kernel: Kernel,
    frequency_hz: u64,
}

impl GenericTimer {
    /// Reads the rate that firmware has written down. `None` if it has not.
    #[must_use]
    pub fn new(kernel: Kernel) -> Option<Self> {
        let frequency_hz = counter::counter_frequency(kernel);
        (frequency_hz != 0).then_some(Self {
            kernel,
            frequency_hz,
        })
    }
}

impl Timer for GenericTimer {
    fn frequency_hz(&self) -> u64 {
        self.frequency_hz
    }

    fn now(&mut self) -> u64 {
        counter::counter(self.kernel)
    }

    fn set_alarm(&mut self, at: u64) {
        counter::set_counter_alarm(self.kernel, Some(at));
    }

    fn clear_alarm(&mut self) {
        counter::set_counter_alarm(self.kernel, None);
    }
}

//! The clock of a RISC-V machine, and the alarm of a supervisor.
//!
//! Sources: The RISC-V Instruction Set Manual, volume I, "Zicntr" (`time`); volume II, "Sstc" (`stimecmp`); the SBI
//! specification 1.0.0, chapter 6.

use super::instructions;
use super::kernel::Kernel;
use super::sbi::Sbi;
use crate::timer::Timer;

/// Who rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// The firmware, which every machine can.
    Firmware,
    /// The processor, by the extension [`CpuFeature::Sstc`](crate::CpuFeature::Sstc).
    Processor,
}

/// The time counter, with alarms that come as the supervisor's timer interrupt.
#[derive(Debug)]
pub struct SupervisorTimer {
    kernel: Kernel,
    frequency_hz: u64,
    alarm: Alarm,
}

impl SupervisorTimer {
    /// `frequency_hz` is `/cpus/timebase-frequency` of the device tree.
    #[must_use]
    pub const fn new(kernel: Kernel, frequency_hz: u64, alarm: Alarm) -> Self {
        Self {
            kernel,
            frequency_hz,
            alarm,
        }
    }

    fn ring(&mut self, at: u64) {
        match self.alarm {
            Alarm::Firmware => Sbi::new(self.kernel).set_timer(at),
            Alarm::Processor => instructions::set_time_compare(self.kernel, at),
        }
    }
}

impl Timer for SupervisorTimer {
    fn frequency_hz(&self) -> u64 {
        self.frequency_hz
    }

    fn now(&mut self) -> u64 {
        instructions::time(self.kernel)
    }

    fn set_alarm(&mut self, at: u64) {
        self.ring(at);
        instructions::accept_timer_interrupts(self.kernel, true);
    }

    fn clear_alarm(&mut self) {
        instructions::accept_timer_interrupts(self.kernel, false);
        // Never.
        self.ring(u64::MAX);
    }
}

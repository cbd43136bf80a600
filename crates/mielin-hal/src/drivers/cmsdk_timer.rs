//! The timer of Arm's Cortex-M System Design Kit, which the MPS2 boards have.
//!
//! Source: Arm Cortex-M System Design Kit Technical Reference Manual, DDI 0479, 4.1 "APB timer".

use super::registers::Registers;
use crate::timer::SleepClock;

const CONTROL: usize = 0x00;
const VALUE: usize = 0x04;
const RELOAD: usize = 0x08;
const INTERRUPT: usize = 0x0c;

/// CTRL: it counts.
const RUNS: u32 = 1 << 0;
/// CTRL: reaching 0 is an interrupt.
const INTERRUPTS: u32 = 1 << 3;

/// A CMSDK timer: counts down at the rate of its clock, and interrupts at 0.
#[derive(Debug)]
pub struct CmsdkTimer {
    registers: Registers,
    frequency_hz: u32,
    begun_with: u32,
}

impl CmsdkTimer {
    /// Stops it. `frequency_hz` is that of its clock, which only the board's makers know.
    #[must_use]
    pub fn new(mut registers: Registers, frequency_hz: u32) -> Self {
        registers.write32(CONTROL, 0);
        registers.write32(INTERRUPT, 1);
        Self {
            registers,
            frequency_hz,
            begun_with: 0,
        }
    }
}

impl SleepClock for CmsdkTimer {
    fn frequency_hz(&self) -> u32 {
        self.frequency_hz
    }

    fn begin(&mut self, ticks: u32) {
        self.begun_with = ticks.max(1);
        // At 0 it begins again with all it has, and so goes on to count when nobody looks.
        self.registers.write32(RELOAD, u32::MAX);
        self.registers.write32(VALUE, self.begun_with);
        self.registers.write32(INTERRUPT, 1);
        self.registers.write32(CONTROL, RUNS | INTERRUPTS);
    }

    fn end(&mut self) -> u32 {
        self.registers.write32(CONTROL, 0);
        let left = self.registers.read32(VALUE);
        let passed = match self.registers.read32(INTERRUPT) & 1 {
            0 => self.begun_with.saturating_sub(left),
            // It went on below 0.
            _ => self.begun_with.saturating_add(left.wrapping_neg()),
        };
        self.registers.write32(INTERRUPT, 1);
        passed
    }
}

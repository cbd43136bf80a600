//! The first timer of Nordic's nRF51, which has 32 bits.
//!
//! Source: Nordic Semiconductor, nRF51 Series Reference Manual 3.0, "Timer/Counter (TIMER)".

use super::registers::Registers;
use crate::timer::SleepClock;

const TASK_START: usize = 0x000;
const TASK_STOP: usize = 0x004;
const TASK_CLEAR: usize = 0x00c;
const TASK_CAPTURE_1: usize = 0x044;
const EVENT_COMPARE_0: usize = 0x140;
const INTERRUPTS_ON: usize = 0x304;
const BIT_MODE: usize = 0x508;
const PRESCALER: usize = 0x510;
const COMPARE_0: usize = 0x540;
const COMPARE_1: usize = 0x544;

/// INTENSET: the counter has reached COMPARE_0.
const COMPARED_0: u32 = 1 << 16;
/// BITMODE: it counts to 2³².
const BITS_32: u32 = 3;
/// Counts at 16 MHz divided by two to the power of this.
const DIVIDED_BY_16: u32 = 4;

/// The nRF51's TIMER0, as a clock of 1 MHz.
#[derive(Debug)]
pub struct NrfTimer {
    registers: Registers,
}

impl NrfTimer {
    /// Stops it.
    #[must_use]
    pub fn new(mut registers: Registers) -> Self {
        registers.write32(TASK_STOP, 1);
        registers.write32(BIT_MODE, BITS_32);
        registers.write32(PRESCALER, DIVIDED_BY_16);
        registers.write32(INTERRUPTS_ON, COMPARED_0);
        Self { registers }
    }
}

impl SleepClock for NrfTimer {
    fn frequency_hz(&self) -> u32 {
        1_000_000
    }

    fn begin(&mut self, ticks: u32) {
        self.registers.write32(TASK_CLEAR, 1);
        self.registers.write32(EVENT_COMPARE_0, 0);
        self.registers.write32(COMPARE_0, ticks.max(1));
        self.registers.write32(TASK_START, 1);
    }

    fn end(&mut self) -> u32 {
        self.registers.write32(TASK_CAPTURE_1, 1);
        self.registers.write32(TASK_STOP, 1);
        self.registers.write32(EVENT_COMPARE_0, 0);
        self.registers.read32(COMPARE_1)
    }
}

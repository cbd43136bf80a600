//! The watchdog of Arm's Cortex-M System Design Kit, which the MPS2 boards and the LM3S6965 have.
//!
//! Sources: Arm Cortex-M System Design Kit Technical Reference Manual, DDI 0479, 4.5 "APB watchdog"; LM3S6965 data sheet, "Watchdog Timer".

use super::registers::Registers;

const LOAD: usize = 0x000;
const CONTROL: usize = 0x008;
const INTERRUPT_CLEAR: usize = 0x00c;
const LOCK: usize = 0xc00;

/// WDOGCONTROL: it counts, and the first time that it reaches 0 is an interrupt.
const RUNS: u32 = 1 << 0;
/// WDOGCONTROL: the second time is a reset.
const RESETS: u32 = 1 << 1;
/// WDOGLOCK: other registers may be written.
const UNLOCKED: u32 = 0x1acc_e551;

/// A CMSDK watchdog: when it is not fed it interrupts once (on the MPS2 boards that is an NMI), and then resets the processor.
#[derive(Debug)]
pub struct CmsdkWatchdog {
    registers: Registers,
}

impl CmsdkWatchdog {
    /// Starts it: it interrupts when it was not fed for `ticks` of its clock, and resets after as many again.
    #[must_use]
    pub fn new(mut registers: Registers, ticks: u32) -> Self {
        registers.write32(LOCK, UNLOCKED);
        registers.write32(LOAD, ticks.max(1));
        registers.write32(CONTROL, RUNS | RESETS);
        registers.write32(LOCK, 0);
        Self { registers }
    }

    /// Begins to count anew.
    pub fn feed(&mut self) {
        self.registers.write32(LOCK, UNLOCKED);
        // Whatever is written takes the interrupt back and loads the counter.
        self.registers.write32(INTERRUPT_CLEAR, 1);
        self.registers.write32(LOCK, 0);
    }
}

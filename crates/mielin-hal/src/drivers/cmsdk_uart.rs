//! The UART of Arm's Cortex-M System Design Kit, which the MPS2 boards have.
//!
//! Source: Arm Cortex-M System Design Kit Technical Reference Manual, DDI 0479, 4.3 "APB UART".

use super::registers::Registers;
use crate::console::Console;

const DATA: usize = 0x00;
const STATE: usize = 0x04;
const CONTROL: usize = 0x08;
const INTERRUPT_CLEAR: usize = 0x0c;
const RATE_DIVIDER: usize = 0x10;

/// STATE: the transmit buffer is full.
const TRANSMIT_FULL: u32 = 1 << 0;
/// STATE: a byte has come.
const RECEIVE_FULL: u32 = 1 << 1;
/// CTRL: transmitter and receiver are on, interrupts off.
const ON: u32 = 1 << 0 | 1 << 1;
/// CTRL: a byte that comes is an interrupt.
const RECEIVE_INTERRUPT: u32 = 1 << 3;
/// INTCLEAR: the interrupt for a byte that has come.
const RECEIVED: u32 = 1 << 1;
/// The least that the manual allows.
const RATE_DIVIDER_MIN: u32 = 16;

/// A CMSDK UART.
#[derive(Debug)]
pub struct CmsdkUart {
    registers: Registers,
}

impl CmsdkUart {
    /// Switches it on: a bit takes `divider` clocks of the peripheral bus, at least 16.
    #[must_use]
    pub fn new(mut registers: Registers, divider: u32) -> Self {
        registers.write32(RATE_DIVIDER, divider.max(RATE_DIVIDER_MIN));
        registers.write32(CONTROL, ON);
        Self { registers }
    }

    /// Whether it interrupts when a byte has come. One that was there before is no interrupt any more when this is switched on again: whoever does that reads it.
    pub fn interrupt_when_readable(&mut self, on: bool) {
        let interrupt = if on { RECEIVE_INTERRUPT } else { 0 };
        self.registers.write32(CONTROL, ON | interrupt);
        if !on {
            // The control register says only whether what comes from now on is an interrupt; the byte that is there can still be read.
            self.registers.write32(INTERRUPT_CLEAR, RECEIVED);
        }
    }
}

impl Console for CmsdkUart {
    fn write_byte(&mut self, byte: u8) {
        while self.registers.read32(STATE) & TRANSMIT_FULL != 0 {
            core::hint::spin_loop();
        }
        self.registers.write32(DATA, byte.into());
    }

    fn read_byte(&mut self) -> Option<u8> {
        let full = self.registers.read32(STATE) & RECEIVE_FULL != 0;
        full.then(|| {
            // Before the byte is read: one that comes after it interrupts again.
            self.registers.write32(INTERRUPT_CLEAR, RECEIVED);
            self.registers.read32(DATA) as u8
        })
    }
}

//! The UART of Arm's boards.
//!
//! Source: Arm PrimeCell UART (PL011) Technical Reference Manual, DDI 0183, chapter 3 "Programmers Model".

use super::registers::Registers;
use crate::console::Console;

const DATA: usize = 0x00;
const FLAGS: usize = 0x18;
const CONTROL: usize = 0x30;
const INTERRUPT_MASK: usize = 0x38;

/// UARTFR: nothing has come.
const RECEIVE_EMPTY: u32 = 1 << 4;
/// UARTFR: no room for a byte.
const TRANSMIT_FULL: u32 = 1 << 5;
/// UARTIMSC: something has come.
const RECEIVE_INTERRUPT: u32 = 1 << 4;
/// UARTCR: the UART, its transmitter and its receiver are on.
const ON: u32 = 1 << 0 | 1 << 8 | 1 << 9;

/// A PL011. Rate and format of the line stay as firmware has set them.
#[derive(Debug)]
pub struct Pl011 {
    registers: Registers,
}

impl Pl011 {
    /// Switches it on, and its interrupts off.
    #[must_use]
    pub fn new(mut registers: Registers) -> Self {
        registers.write32(INTERRUPT_MASK, 0);
        registers.write32(CONTROL, ON);
        Self { registers }
    }

    /// Whether it interrupts while a byte has come and was not read.
    pub fn interrupt_when_readable(&mut self, on: bool) {
        let mask = if on { RECEIVE_INTERRUPT } else { 0 };
        self.registers.write32(INTERRUPT_MASK, mask);
    }
}

impl Console for Pl011 {
    fn write_byte(&mut self, byte: u8) {
        while self.registers.read32(FLAGS) & TRANSMIT_FULL != 0 {
            core::hint::spin_loop();
        }
        self.registers.write32(DATA, byte.into());
    }

    fn read_byte(&mut self) -> Option<u8> {
        let empty = self.registers.read32(FLAGS) & RECEIVE_EMPTY != 0;
        // Above the byte stand errors of its transmission (3.3.1).
        (!empty).then(|| self.registers.read32(DATA) as u8)
    }
}

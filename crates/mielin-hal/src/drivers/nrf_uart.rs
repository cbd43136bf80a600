//! The UART of Nordic's nRF51, which the first BBC micro:bit has.
//!
//! Source: Nordic Semiconductor, nRF51 Series Reference Manual 3.0, "Universal Asynchronous
//! Receiver/Transmitter (UART)".

use super::registers::Registers;
use crate::console::Console;

const TASK_START_RECEIVE: usize = 0x000;
const TASK_START_TRANSMIT: usize = 0x008;
const EVENT_RECEIVED: usize = 0x108;
const EVENT_SENT: usize = 0x11c;
const INTERRUPTS_ON: usize = 0x304;
const INTERRUPTS_OFF: usize = 0x308;
const ENABLE: usize = 0x500;
const RECEIVE: usize = 0x518;
const TRANSMIT: usize = 0x51c;

/// INTENSET, INTENCLR: a byte has come.
const RECEIVED: u32 = 1 << 2;
/// ENABLE: on.
const ON: u32 = 4;

/// An nRF51 UART. Pins and rate stay as they were chosen before.
#[derive(Debug)]
pub struct NrfUart {
    registers: Registers,
}

impl NrfUart {
    /// Switches it on and starts both directions.
    #[must_use]
    pub fn new(mut registers: Registers) -> Self {
        registers.write32(ENABLE, ON);
        registers.write32(EVENT_SENT, 0);
        registers.write32(TASK_START_TRANSMIT, 1);
        registers.write32(TASK_START_RECEIVE, 1);
        Self { registers }
    }

    /// Whether it interrupts while a byte has come and was not read.
    pub fn interrupt_when_readable(&mut self, on: bool) {
        let register = if on { INTERRUPTS_ON } else { INTERRUPTS_OFF };
        self.registers.write32(register, RECEIVED);
    }
}

impl Console for NrfUart {
    fn write_byte(&mut self, byte: u8) {
        // The event says that the byte was sent, not that there is room: it is awaited after each.
        self.registers.write32(TRANSMIT, byte.into());
        while self.registers.read32(EVENT_SENT) == 0 {
            core::hint::spin_loop();
        }
        self.registers.write32(EVENT_SENT, 0);
    }

    fn read_byte(&mut self) -> Option<u8> {
        if self.registers.read32(EVENT_RECEIVED) == 0 {
            return None;
        }
        // The event is cleared first: it comes again if another byte is waiting.
        self.registers.write32(EVENT_RECEIVED, 0);
        Some(self.registers.read32(RECEIVE) as u8)
    }
}

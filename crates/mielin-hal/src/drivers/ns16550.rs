//! The UART of the first PCs, and of RISC-V's usual boards.
//!
//! Source: National Semiconductor, PC16550D data sheet (1995), 8.0 "Registers".

use super::registers::Registers;
use crate::console::Console;

const RECEIVE_TRANSMIT: usize = 0;
const INTERRUPT_ENABLE: usize = 1;
const INTERRUPT_IDENT_FIFO_CONTROL: usize = 2;
const MODEM_CONTROL: usize = 4;
const LINE_STATUS: usize = 5;

/// LSR: a byte has come.
const DATA_READY: u8 = 1 << 0;
/// LSR: the transmitter takes a byte.
const TRANSMIT_EMPTY: u8 = 1 << 5;
/// IER: an interrupt while a received byte was not read.
const ENABLE_RECEIVED: u8 = 1 << 0;
/// IER: an interrupt when the transmitter takes a byte.
const ENABLE_TRANSMIT_EMPTY: u8 = 1 << 1;
/// MCR, OUT2: on PCs, the UART's interrupts get out of it.
const OUTPUT_2: u8 = 1 << 3;
/// FCR: FIFOs on, and emptied.
const FIFO_ON: u8 = 0b111;

/// Registers of a byte each, wherever they are.
pub trait ByteRegisters {
    /// Reads register `index`.
    fn read(&self, index: usize) -> u8;

    /// Writes register `index`.
    fn write(&mut self, index: usize, value: u8);
}

/// One byte after the other, in memory.
impl ByteRegisters for Registers {
    fn read(&self, index: usize) -> u8 {
        self.read8(index)
    }

    fn write(&mut self, index: usize, value: u8) {
        self.write8(index, value);
    }
}

/// One port after the other.
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
impl ByteRegisters for super::instructions::Ports {
    fn read(&self, index: usize) -> u8 {
        self.read8(index as u16)
    }

    fn write(&mut self, index: usize, value: u8) {
        self.write8(index as u16, value);
    }
}

/// A 16550. Rate and format of the line stay as firmware has set them.
#[derive(Debug)]
pub struct Ns16550<R> {
    registers: R,
}

impl<R: ByteRegisters> Ns16550<R> {
    /// Switches its FIFOs on and its interrupts off.
    pub fn new(mut registers: R) -> Self {
        registers.write(INTERRUPT_ENABLE, 0);
        registers.write(INTERRUPT_IDENT_FIFO_CONTROL, FIFO_ON);
        Self { registers }
    }

    /// Whether it interrupts when it takes another byte, and in no other case.
    pub fn interrupt_when_writable(&mut self, on: bool) {
        self.interrupt_when(ENABLE_TRANSMIT_EMPTY, on);
    }

    /// Whether it interrupts while a byte has come and was not read, and in no other case.
    pub fn interrupt_when_readable(&mut self, on: bool) {
        self.interrupt_when(ENABLE_RECEIVED, on);
    }

    fn interrupt_when(&mut self, cause: u8, on: bool) {
        let enabled = if on { cause } else { 0 };
        let modem = self.registers.read(MODEM_CONTROL);
        self.registers.write(MODEM_CONTROL, modem | OUTPUT_2);
        self.registers.write(INTERRUPT_ENABLE, enabled);
    }
}

impl<R: ByteRegisters> Console for Ns16550<R> {
    fn write_byte(&mut self, byte: u8) {
        while self.registers.read(LINE_STATUS) & TRANSMIT_EMPTY == 0 {
            core::hint::spin_loop();
        }
        self.registers.write(RECEIVE_TRANSMIT, byte);
    }

    fn read_byte(&mut self) -> Option<u8> {
        let ready = self.registers.read(LINE_STATUS) & DATA_READY != 0;
        ready.then(|| self.registers.read(RECEIVE_TRANSMIT))
    }
}

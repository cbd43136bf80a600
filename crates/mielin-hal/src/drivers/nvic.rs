//! The interrupt controller within Cortex-M processors.
//!
//! Sources: Armv6-M Architecture Reference Manual, B3.4; Armv7-M, B3.4; Armv8-M, NVIC_ISER, NVIC_ICER,
//! NVIC_ISPR and ICSR.

use super::instructions::system_control_space;
use super::kernel::Kernel;
use super::registers::Registers;
use crate::interrupts::InterruptController;

/// In the System Control Space.
const SET_ENABLE: usize = 0x100;
const CLEAR_ENABLE: usize = 0x180;
const SET_PENDING: usize = 0x200;
const ICSR: usize = 0xd04;

/// ICSR.VECTACTIVE: the exception that is being handled.
const VECTOR_ACTIVE: u32 = 0x1ff;
/// Exceptions before the first external interrupt.
const SYSTEM_EXCEPTIONS: u32 = 16;
/// As many as the vector table has at most (Armv7-M, B1.5.3).
const LINES_MAX: u32 = 496;

/// The NVIC. A line is the number of an external interrupt, from 0; the exceptions of the processor itself, SysTick
/// among them, are none of its lines.
#[derive(Debug)]
pub struct Nvic {
    registers: Registers,
}

impl Nvic {
    /// The controller of this processor, as it is.
    #[must_use]
    pub fn new(kernel: Kernel) -> Self {
        Self {
            registers: system_control_space(kernel),
        }
    }

    /// Has the line interrupt as if its device had asked for it.
    pub fn pend(&mut self, line: u32) {
        self.set_bit(SET_PENDING, line);
    }

    /// A one sets or clears what the register is about, a zero changes nothing.
    fn set_bit(&mut self, register: usize, line: u32) {
        if line < LINES_MAX {
            let word = 4 * (line / 32) as usize;
            self.registers.write32(register + word, 1 << (line % 32));
        }
    }
}

impl InterruptController for Nvic {
    fn enable(&mut self, line: u32) {
        self.set_bit(SET_ENABLE, line);
    }

    fn disable(&mut self, line: u32) {
        self.set_bit(CLEAR_ENABLE, line);
    }

    /// The processor has chosen already, and says which one it handles.
    fn claim(&mut self) -> Option<u32> {
        (self.registers.read32(ICSR) & VECTOR_ACTIVE).checked_sub(SYSTEM_EXCEPTIONS)
    }

    /// The processor notices itself that the handler returns.
    fn complete(&mut self, _line: u32) {}
}

//! The device by which a program under test ends its machine: `sifive,test1` of device trees, which QEMU's RISC-V
//! boards have.
//!
//! Source: `include/hw/misc/sifive_test.h` of QEMU, after SiFive's test finisher.

use super::registers::Registers;
use crate::shutdown::{Outcome, Shutdown};

const FINISHER: usize = 0;
const PASS: u32 = 0x5555;
/// With a code in the upper half, which becomes QEMU's exit status.
const FAIL: u32 = 0x3333;
const FAIL_CODE: u32 = 1;

/// The test finisher.
#[derive(Debug)]
pub struct SifiveTest {
    registers: Registers,
}

impl SifiveTest {
    /// The device at these registers.
    #[must_use]
    pub const fn new(registers: Registers) -> Self {
        Self { registers }
    }
}

impl Shutdown for SifiveTest {
    fn shut_down(&mut self, outcome: Outcome) {
        let word = match outcome {
            Outcome::Success => PASS,
            Outcome::Failure => FAIL_CODE << 16 | FAIL,
        };
        self.registers.write32(FINISHER, word);
    }
}

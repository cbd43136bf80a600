//! The interrupt controller of RISC-V's boards.
//!
//! Source: RISC-V Platform-Level Interrupt Controller Specification 1.0.0, chapters 3 to 8.

use super::registers::Registers;
use crate::interrupts::InterruptController;

const PRIORITY: usize = 0x0000;
const ENABLE: usize = 0x2000;
const ENABLE_BYTES_PER_CONTEXT: usize = 0x80;
const CONTEXT: usize = 0x20_0000;
const CONTEXT_BYTES: usize = 0x1000;
/// Within a context.
const THRESHOLD: usize = 0;
const CLAIM_COMPLETE: usize = 4;

/// Above the threshold 0.
const PRIORITY_LOWEST: u32 = 1;

/// A PLIC, as one of its contexts sees it. A line is the number of an interrupt source, from 1.
#[derive(Debug)]
pub struct Plic {
    registers: Registers,
    context: usize,
    sources: u32,
}

impl Plic {
    /// Takes a context, which is a processor in one of its modes, with the threshold 0. Which one is whose stands in the
    /// device tree, as the order of `interrupts-extended`; the number of sources is `riscv,ndev`.
    #[must_use]
    pub fn new(registers: Registers, context: usize, sources: u32) -> Self {
        // The architecture has 1,024, of which 0 is none (chapter 3).
        let sources = sources.min(1023);
        let mut plic = Self {
            registers,
            context,
            sources,
        };
        let threshold = plic.in_context(THRESHOLD);
        plic.registers.write32(threshold, 0);
        plic
    }

    fn in_context(&self, offset: usize) -> usize {
        CONTEXT + self.context * CONTEXT_BYTES + offset
    }

    /// Sets or clears the line's enable bit.
    fn set_enabled(&mut self, line: u32, on: bool) {
        let word = 4 * (line / 32) as usize;
        let offset = ENABLE + self.context * ENABLE_BYTES_PER_CONTEXT + word;
        let bit = 1 << (line % 32);
        let others = self.registers.read32(offset) & !bit;
        self.registers
            .write32(offset, if on { others | bit } else { others });
    }

    /// Whether there is such a line.
    #[must_use]
    pub fn has(&self, line: u32) -> bool {
        (1..=self.sources).contains(&line)
    }
}

impl InterruptController for Plic {
    fn enable(&mut self, line: u32) {
        if self.has(line) {
            // In this order: QEMU looks at a line that is pending already when its priority is written, and not when it is
            // enabled.
            self.set_enabled(line, true);
            self.registers
                .write32(PRIORITY + 4 * line as usize, PRIORITY_LOWEST);
        }
    }

    fn disable(&mut self, line: u32) {
        if self.has(line) {
            self.set_enabled(line, false);
        }
    }

    fn claim(&mut self) -> Option<u32> {
        let line = self.registers.read32(self.in_context(CLAIM_COMPLETE));
        (line != 0).then_some(line)
    }

    fn complete(&mut self, line: u32) {
        let offset = self.in_context(CLAIM_COMPLETE);
        self.registers.write32(offset, line);
    }
}

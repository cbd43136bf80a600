//! Arm's generic interrupt controller, version 2.
//!
//! Source: Arm Generic Interrupt Controller Architecture Specification, version 2.0, IHI 0048, chapters 3 and 4.

use super::registers::Registers;
use crate::interrupts::InterruptController;

/// Of the distributor.
const DISTRIBUTOR_CONTROL: usize = 0x000;
const TYPE: usize = 0x004;
const SET_ENABLE: usize = 0x100;
const CLEAR_ENABLE: usize = 0x180;
const PRIORITY: usize = 0x400;
const TARGETS: usize = 0x800;

/// Of the interface of a processor.
const CONTROL: usize = 0x00;
const PRIORITY_MASK: usize = 0x04;
const ACKNOWLEDGE: usize = 0x0c;
const END: usize = 0x10;

const ON: u32 = 1;
/// In the middle; the mask lets everything above the lowest through.
const PRIORITY_MIDDLE: u8 = 0x80;
const PRIORITY_MASK_ALL: u32 = 0xff;

/// INTIDs: 0 to 15 come from other processors, to 31 from the processor's own devices, from 32 on from shared ones.
const PRIVATE_FIRST: u32 = 16;
const SHARED_FIRST: u32 = 32;
/// From here on they say that there is none (3.2).
const SPECIAL_FIRST: u32 = 1020;
/// GICC_IAR: the INTID.
const INTID: u32 = 0x3ff;

/// A GICv2, as one processor sees it. A line is an INTID from 16 on: a private interrupt of the device tree is 16 more
/// than there, a shared one 32 more.
#[derive(Debug)]
pub struct GicV2 {
    distributor: Registers,
    interface: Registers,
    lines: u32,
    /// The bit of this processor in GICD_ITARGETSR; 0 where there is only one.
    this_processor: u8,
}

impl GicV2 {
    /// Switches both on, for this processor and with all lines as they are.
    #[must_use]
    pub fn new(mut distributor: Registers, mut interface: Registers) -> Self {
        let lines = 32 * ((distributor.read32(TYPE) & 0x1f) + 1);
        // Of the private lines the register tells who asks (4.3.12).
        let this_processor = distributor.read8(TARGETS);
        distributor.write32(DISTRIBUTOR_CONTROL, ON);
        interface.write32(PRIORITY_MASK, PRIORITY_MASK_ALL);
        interface.write32(CONTROL, ON);
        Self {
            distributor,
            interface,
            lines: lines.min(SPECIAL_FIRST),
            this_processor,
        }
    }

    /// Whether there is such a line.
    #[must_use]
    pub fn has(&self, line: u32) -> bool {
        (PRIVATE_FIRST..self.lines).contains(&line)
    }

    /// A one sets or clears what the register is about, a zero changes nothing.
    fn set_bit(&mut self, register: usize, line: u32) {
        let word = 4 * (line / 32) as usize;
        self.distributor.write32(register + word, 1 << (line % 32));
    }
}

impl InterruptController for GicV2 {
    fn enable(&mut self, line: u32) {
        if !self.has(line) {
            return;
        }
        let byte = line as usize;
        self.distributor.write8(PRIORITY + byte, PRIORITY_MIDDLE);
        if line >= SHARED_FIRST && self.this_processor != 0 {
            self.distributor.write8(TARGETS + byte, self.this_processor);
        }
        self.set_bit(SET_ENABLE, line);
    }

    fn disable(&mut self, line: u32) {
        if self.has(line) {
            self.set_bit(CLEAR_ENABLE, line);
        }
    }

    fn claim(&mut self) -> Option<u32> {
        let line = self.interface.read32(ACKNOWLEDGE) & INTID;
        (line < SPECIAL_FIRST).then_some(line)
    }

    fn complete(&mut self, line: u32) {
        self.interface.write32(END, line);
    }
}

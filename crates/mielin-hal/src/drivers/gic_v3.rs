//! Arm's generic interrupt controller, version 3.
//!
//! Source: Arm Generic Interrupt Controller Architecture Specification, versions 3 and 4, IHI 0069, the chapters on
//! physical interrupts and on the programmers' model.

use super::instructions as icc;
use super::kernel::Kernel;
use super::registers::Registers;
use crate::interrupts::InterruptController;

/// Of the distributor.
const CONTROL: usize = 0x0000;
const TYPE: usize = 0x0004;
const ROUTE: usize = 0x6000;
/// Of the distributor for shared lines, and of a redistributor's second frame for private ones.
const GROUP: usize = 0x0080;
const SET_ENABLE: usize = 0x0100;
const CLEAR_ENABLE: usize = 0x0180;
const PRIORITY: usize = 0x0400;
/// Of a redistributor's first frame.
const WAKER: usize = 0x0014;
const REDISTRIBUTOR_TYPE: usize = 0x0008;
const REDISTRIBUTOR_AFFINITY: usize = 0x000c;

/// Two frames of 64 KiB.
const REDISTRIBUTOR_BYTES: usize = 0x2_0000;
const SECOND_FRAME: usize = 0x1_0000;

/// GICD_CTLR with one security state: routing by affinity, and group 1 on; a write goes on.
const AFFINITY_ROUTING: u32 = 1 << 4;
const GROUP_1_ON: u32 = 1 << 1;
const WRITE_PENDING: u32 = 1 << 31;
/// GICR_TYPER: no redistributor comes after it in this region.
const LAST: u32 = 1 << 4;
/// GICR_WAKER.
const PROCESSOR_SLEEPS: u32 = 1 << 1;
const CHILDREN_SLEEP: u32 = 1 << 2;

const PRIORITY_MIDDLE: u8 = 0x80;
/// INTIDs, as in version 2.
const PRIVATE_FIRST: u32 = 16;
const SHARED_FIRST: u32 = 32;
const SPECIAL_FIRST: u32 = 1020;

/// A GICv3, as one processor sees it, in a machine with one security state. Lines are numbered as those of
/// [`GicV2`](super::GicV2).
#[derive(Debug)]
pub struct GicV3 {
    kernel: Kernel,
    distributor: Registers,
    redistributors: Registers,
    /// Where this processor's redistributor begins among them.
    own: usize,
    /// This processor, as GICD_IROUTER names it.
    affinity: u64,
    lines: u32,
}

impl GicV3 {
    /// Switches it on, for this processor, with all lines as they are. `None` if the region has no redistributor for this
    /// processor.
    #[must_use]
    pub fn new(
        kernel: Kernel,
        mut distributor: Registers,
        mut redistributors: Registers,
    ) -> Option<Self> {
        let affinity = icc::affinity(kernel);
        let own = own_redistributor(&redistributors, affinity)?;
        distributor.write32(CONTROL, AFFINITY_ROUTING | GROUP_1_ON);
        while distributor.read32(CONTROL) & WRITE_PENDING != 0 {
            core::hint::spin_loop();
        }
        // It is woken first (GICR_WAKER).
        let awake = redistributors.read32(own + WAKER) & !PROCESSOR_SLEEPS;
        redistributors.write32(own + WAKER, awake);
        while redistributors.read32(own + WAKER) & CHILDREN_SLEEP != 0 {
            core::hint::spin_loop();
        }
        icc::switch_on_interface(kernel);
        let lines = 32 * ((distributor.read32(TYPE) & 0x1f) + 1);
        Some(Self {
            kernel,
            distributor,
            redistributors,
            own,
            affinity,
            lines: lines.min(SPECIAL_FIRST),
        })
    }

    /// Whether there is such a line.
    #[must_use]
    pub fn has(&self, line: u32) -> bool {
        (PRIVATE_FIRST..self.lines).contains(&line)
    }

    /// The registers of a line's kind, and the offset at which they begin.
    fn of(&mut self, line: u32) -> (&mut Registers, usize) {
        match line {
            ..SHARED_FIRST => (&mut self.redistributors, self.own + SECOND_FRAME),
            _ => (&mut self.distributor, 0),
        }
    }
}

/// Where the redistributor of the processor with this affinity begins.
fn own_redistributor(redistributors: &Registers, affinity: u64) -> Option<usize> {
    // Aff3 to Aff0, a byte each (GICR_TYPER, MPIDR_EL1).
    let wanted = (affinity >> 32 & 0xff) << 24 | affinity & 0xff_ffff;
    let mut at = 0;
    while at + REDISTRIBUTOR_BYTES <= redistributors.len() {
        if u64::from(redistributors.read32(at + REDISTRIBUTOR_AFFINITY)) == wanted {
            return Some(at);
        }
        if redistributors.read32(at + REDISTRIBUTOR_TYPE) & LAST != 0 {
            return None;
        }
        at += REDISTRIBUTOR_BYTES;
    }
    None
}

impl InterruptController for GicV3 {
    fn enable(&mut self, line: u32) {
        if !self.has(line) {
            return;
        }
        let affinity = self.affinity;
        let word = 4 * (line / 32) as usize;
        let bit = 1 << (line % 32);
        let (registers, base) = self.of(line);
        let groups = registers.read32(base + GROUP + word) | bit;
        registers.write32(base + GROUP + word, groups);
        registers.write8(base + PRIORITY + line as usize, PRIORITY_MIDDLE);
        if line >= SHARED_FIRST {
            let route = base + ROUTE + 8 * line as usize;
            registers.write32(route, affinity as u32);
            registers.write32(route + 4, (affinity >> 32) as u32);
        }
        registers.write32(base + SET_ENABLE + word, bit);
    }

    fn disable(&mut self, line: u32) {
        if self.has(line) {
            let (registers, base) = self.of(line);
            let word = 4 * (line / 32) as usize;
            registers.write32(base + CLEAR_ENABLE + word, 1 << (line % 32));
        }
    }

    fn claim(&mut self) -> Option<u32> {
        let line = icc::acknowledge(self.kernel);
        (line < SPECIAL_FIRST).then_some(line)
    }

    fn complete(&mut self, line: u32) {
        icc::end_of_interrupt(self.kernel, line);
    }
}

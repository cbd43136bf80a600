//! The interrupt controller of PCs, by which devices reach local APICs.
//!
//! Source: Intel 82093AA I/O Advanced Programmable Interrupt Controller (IOAPIC) data sheet (order number 290566), 3.0 to
//! 3.2.4; Intel ICH9 data sheet, 13.5.

use super::registers::Registers;
use crate::interrupts::{Polarity, Trigger};

/// Which register is seen in the window.
const SELECT: usize = 0x00;
const WINDOW: usize = 0x10;

const VERSION: u32 = 0x01;
/// Two registers for each line: how it interrupts, and whom.
const REDIRECTION: u32 = 0x10;

/// The vector, delivery as it is (000), to an id (physical, 0) stand at 0, 8 and 11.
const LOW_ACTIVE: u32 = 1 << 13;
const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
const DESTINATION: u32 = 24;

/// The first vector that is no exception.
const VECTOR_MIN: u8 = 32;
/// [`LocalApic`](super::LocalApic) has the last one for interrupts that went away.
const VECTOR_MAX: u8 = 254;

/// An I/O APIC all of whose lines come to one local APIC. Line `n` interrupts as vector `first_vector + n`.
///
/// It only sends: which interrupt is being served, and that it was, are matters of the local APIC
/// (`LocalApic::in_service` and `complete`), which tells this one about those that are levels. So it is no
/// [`InterruptController`](crate::InterruptController), but a part of one.
///
/// Lines are counted from its own first; in [`Madt`](crate::acpi::Madt) their numbers are those of the machine.
#[derive(Debug)]
pub struct IoApic {
    registers: Registers,
    lines: u32,
    first_vector: u8,
    destination: u8,
}

impl IoApic {
    /// Takes a controller, and masks its lines, which are edges to high until [`IoApic::configure`] says otherwise. Its lines
    /// get vectors from `first_vector` (at least 32) on; those for which there is none below 255 are not used. They come to
    /// the local APIC with the id `destination`.
    #[must_use]
    pub fn new(registers: Registers, first_vector: u8, destination: u8) -> Self {
        let first_vector = first_vector.max(VECTOR_MIN);
        let mut apic = Self {
            registers,
            lines: 0,
            first_vector,
            destination,
        };
        // The number of the last one.
        let there = (apic.read(VERSION) >> 16 & 0xff) + 1;
        for line in 0..there {
            apic.write(REDIRECTION + 2 * line, MASKED);
        }
        let vectors = u32::from(VECTOR_MAX) + 1 - u32::from(first_vector);
        apic.lines = there.min(vectors);
        for line in 0..apic.lines {
            apic.configure(line, Trigger::Edge, Polarity::High);
        }
        apic
    }

    /// How many lines there are.
    #[must_use]
    pub const fn lines(&self) -> u32 {
        self.lines
    }

    /// Says how a line interrupts, and masks it. Lines that there are not are ignored, also by the other functions.
    pub fn configure(&mut self, line: u32, trigger: Trigger, polarity: Polarity) {
        let Some(vector) = self.vector(line) else {
            return;
        };
        let whom = u32::from(self.destination) << DESTINATION;
        // Masked first, so that nothing goes where it went before.
        self.write(
            REDIRECTION + 2 * line,
            redirection(vector, trigger, polarity),
        );
        self.write(REDIRECTION + 2 * line + 1, whom);
    }

    /// Lets the line interrupt.
    pub fn enable(&mut self, line: u32) {
        self.set_masked(line, false);
    }

    /// Lets it no longer. An edge that comes meanwhile is lost.
    pub fn disable(&mut self, line: u32) {
        self.set_masked(line, true);
    }

    /// The vector as which a line interrupts.
    #[must_use]
    pub fn vector(&self, line: u32) -> Option<u8> {
        if line >= self.lines {
            return None;
        }
        u8::try_from(u32::from(self.first_vector) + line).ok()
    }

    /// The line that interrupts as this vector.
    #[must_use]
    pub fn line(&self, vector: u8) -> Option<u32> {
        let line = u32::from(vector.checked_sub(self.first_vector)?);
        (line < self.lines).then_some(line)
    }

    fn set_masked(&mut self, line: u32, masked: bool) {
        if line >= self.lines {
            return;
        }
        let register = REDIRECTION + 2 * line;
        let others = self.read(register) & !MASKED;
        self.write(register, if masked { others | MASKED } else { others });
    }

    fn read(&mut self, register: u32) -> u32 {
        self.registers.write32(SELECT, register);
        self.registers.read32(WINDOW)
    }

    fn write(&mut self, register: u32, value: u32) {
        self.registers.write32(SELECT, register);
        self.registers.write32(WINDOW, value);
    }
}

/// The lower register of a line that is masked.
pub(super) const fn redirection(vector: u8, trigger: Trigger, polarity: Polarity) -> u32 {
    let trigger = match trigger {
        Trigger::Edge => 0,
        Trigger::Level => LEVEL,
    };
    let polarity = match polarity {
        Polarity::High => 0,
        Polarity::Low => LOW_ACTIVE,
    };
    MASKED | trigger | polarity | vector as u32
}

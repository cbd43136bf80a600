//! The interrupt controller and the timer within x86-64 processors.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 3A, chapter "Advanced Programmable
//! Interrupt Controller (APIC)": "Local APIC", "APIC Timer", "Handling Interrupts"; volume 3B, "Time-Stamp Counter".

use super::instructions::{set_deadline, time_stamp};
use super::kernel::Kernel;
use super::pit::{self, Pit};
use super::registers::Registers;
use crate::interrupts::InterruptController;
use crate::timer::Timer;

const ID: usize = 0x020;
const TASK_PRIORITY: usize = 0x080;
const END_OF_INTERRUPT: usize = 0x0b0;
const SPURIOUS: usize = 0x0f0;
const IN_SERVICE: usize = 0x100;
const REQUESTED: usize = 0x200;
const COMMAND: usize = 0x300;
const LOCAL_TIMER: usize = 0x320;
/// The two pins, by which the 8259s came in, and its own errors.
const OTHER_SOURCES: [usize; 3] = [0x350, 0x360, 0x370];
const INITIAL_COUNT: usize = 0x380;
const CURRENT_COUNT: usize = 0x390;
const DIVIDE: usize = 0x3e0;

/// SVR: the APIC is on.
const ON: u32 = 1 << 8;
/// Local vector table: no interrupt from it.
const MASKED: u32 = 1 << 16;
/// Local vector table of the timer: it takes a time, not a count.
const DEADLINE: u32 = 0b10 << 17;
/// Interrupt command: to the processor that writes it, as an edge.
const TO_ITSELF: u32 = 0b01 << 18 | 1 << 14;
/// Divide configuration: by 16.
const BY_16: u32 = 0b0011;
/// The vector of interrupts that went away before they were served.
const SPURIOUS_VECTOR: u32 = 0xff;

/// The rates are measured for 2 ms, which is right to a thousandth, some times, of which the shortest was disturbed least.
const MEASURED: u16 = (pit::FREQUENCY_HZ / 500) as u16;
const MEASUREMENTS: u32 = 5;

/// A local APIC in the mode in which its registers lie in memory, with the time-stamp counter as its clock. It has one
/// line, [`LocalApic::TIMER`], which its alarms use; those of devices come by way of an [`IoApic`](super::IoApic).
///
/// The clock counts right where the time-stamp counter has a constant rate: as CPUID leaf 0x8000_0007 says (EDX bit 8), or
/// as it is in an emulator.
#[derive(Debug)]
pub struct LocalApic {
    kernel: Kernel,
    registers: Registers,
    timer_vector: u8,
    clock_hz: u64,
    /// What its timer counts while the clock ticks once, in 2^-32, rounded up.
    counts_per_tick: u64,
    takes_times: bool,
}

impl LocalApic {
    /// Its timer's line.
    pub const TIMER: u32 = 0;

    /// Switches it on, with every vector let through and its other sources (pins, errors) masked, and measures both of its rates against `pit`, which takes 10 ms. Its timer interrupts as
    /// `timer_vector`, from 32 on; interrupts that are not to be served come as vector 255.
    #[must_use]
    pub fn new(kernel: Kernel, mut registers: Registers, timer_vector: u8, pit: &mut Pit) -> Self {
        registers.write32(SPURIOUS, ON | SPURIOUS_VECTOR);
        registers.write32(TASK_PRIORITY, 0);
        for source in OTHER_SOURCES {
            let others = registers.read32(source);
            registers.write32(source, others | MASKED);
        }
        registers.write32(LOCAL_TIMER, MASKED | u32::from(timer_vector));
        registers.write32(DIVIDE, BY_16);
        let mut apic = Self {
            kernel,
            registers,
            timer_vector,
            clock_hz: 0,
            counts_per_tick: 0,
            takes_times: false,
        };
        let measured = (0..MEASUREMENTS).map(|_| apic.measure(pit)).min();
        let (clock_ticks, alarm_ticks) = measured.unwrap_or_default();
        apic.clock_hz = clock_ticks * pit::FREQUENCY_HZ / u64::from(MEASURED);
        apic.counts_per_tick = (alarm_ticks << 32).div_ceil(clock_ticks.max(1));
        apic
    }

    /// Has alarms come by the clock itself, on processors that can
    /// ([`Supervisor::tsc_deadline`](crate::x86::Supervisor::tsc_deadline)).
    pub fn take_times(&mut self) {
        self.takes_times = true;
        let others = self.registers.read32(LOCAL_TIMER);
        self.registers.write32(LOCAL_TIMER, others | DEADLINE);
    }

    /// Has a vector, from 32 on, come to this processor.
    pub fn send_to_itself(&mut self, vector: u8) {
        self.registers
            .write32(COMMAND, TO_ITSELF | u32::from(vector));
    }

    /// Whether an interrupt waits to be served.
    #[must_use]
    pub fn has_request(&self) -> bool {
        // The first 32 vectors are exceptions.
        (1..8).any(|word| self.registers.read32(REQUESTED + word * 0x10) != 0)
    }

    /// What both count while the other timer does.
    fn measure(&mut self, pit: &mut Pit) -> (u64, u64) {
        self.registers.write32(INITIAL_COUNT, u32::MAX);
        let begin = self.now();
        pit.wait(MEASURED);
        let left = self.registers.read32(CURRENT_COUNT);
        let clock_ticks = self.now() - begin;
        self.registers.write32(INITIAL_COUNT, 0);
        (clock_ticks, u64::from(u32::MAX - left))
    }

    /// Its id, by which an I/O APIC or another processor sends it interrupts.
    #[must_use]
    pub fn id(&self) -> u8 {
        (self.registers.read32(ID) >> 24) as u8
    }

    /// In a handler: the vector that is being served, which is the highest of those that were begun. `None` if none was. Ended
    /// by [`InterruptController::complete`], whichever it was.
    #[must_use]
    pub fn in_service(&self) -> Option<u8> {
        (0..8).rev().find_map(|word: u8| {
            let bits = self.registers.read32(IN_SERVICE + usize::from(word) * 0x10);
            let highest = bits.checked_ilog2()?;
            Some(word * 32 + highest as u8)
        })
    }

    fn set_mask(&mut self, mask: u32) {
        let mode = if self.takes_times { DEADLINE } else { 0 };
        let vector = u32::from(self.timer_vector);
        self.registers.write32(LOCAL_TIMER, mask | mode | vector);
    }
}

impl InterruptController for LocalApic {
    fn enable(&mut self, line: u32) {
        if line == Self::TIMER {
            self.set_mask(0);
        }
    }

    fn disable(&mut self, line: u32) {
        if line == Self::TIMER {
            self.set_mask(MASKED);
        }
    }

    fn claim(&mut self) -> Option<u32> {
        let vector = usize::from(self.timer_vector);
        // 32 vectors in every fourth word.
        let word = self.registers.read32(IN_SERVICE + vector / 32 * 0x10);
        (word >> (vector % 32) & 1 != 0).then_some(Self::TIMER)
    }

    fn complete(&mut self, _line: u32) {
        self.registers.write32(END_OF_INTERRUPT, 0);
    }
}

impl Timer for LocalApic {
    fn frequency_hz(&self) -> u64 {
        self.clock_hz
    }

    fn now(&mut self) -> u64 {
        time_stamp(self.kernel)
    }

    fn set_alarm(&mut self, at: u64) {
        if self.takes_times {
            // 0 would stop the timer.
            return set_deadline(self.kernel, at.max(1));
        }
        let ticks = at.saturating_sub(self.now());
        let count = (u128::from(ticks) * u128::from(self.counts_per_tick)) >> 32;
        // Later than that it comes too early. 0 would stop the timer, too.
        let count = u32::try_from(count + 1).unwrap_or(u32::MAX);
        self.registers.write32(INITIAL_COUNT, count);
    }

    fn clear_alarm(&mut self) {
        match self.takes_times {
            true => set_deadline(self.kernel, 0),
            false => self.registers.write32(INITIAL_COUNT, 0),
        }
    }
}

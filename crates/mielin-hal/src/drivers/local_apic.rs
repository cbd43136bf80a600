//! The interrupt controller and the timer within x86-64 processors.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 3A, chapter "Advanced Programmable
//! Interrupt Controller (APIC)": "Local APIC", "APIC Timer", "Handling Interrupts"; volume 3B, "Time-Stamp Counter".

use super::instructions::time_stamp;
use super::kernel::Kernel;
use super::pit::{self, Pit};
use super::registers::Registers;
use crate::interrupts::InterruptController;
use crate::timer::Timer;

const ID: usize = 0x020;
const END_OF_INTERRUPT: usize = 0x0b0;
const SPURIOUS: usize = 0x0f0;
const IN_SERVICE: usize = 0x100;
const LOCAL_TIMER: usize = 0x320;
const INITIAL_COUNT: usize = 0x380;
const CURRENT_COUNT: usize = 0x390;
const DIVIDE: usize = 0x3e0;

/// SVR: the APIC is on.
const ON: u32 = 1 << 8;
/// Local vector table: no interrupt from it.
const MASKED: u32 = 1 << 16;
/// Divide configuration: by 16.
const BY_16: u32 = 0b0011;
/// The vector of interrupts that went away before they were served.
const SPURIOUS_VECTOR: u32 = 0xff;

/// The rates are measured for 10 ms, some times, of which the shortest was disturbed least.
const MEASURED: u16 = (pit::FREQUENCY_HZ / 100) as u16;
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
    alarm_hz: u64,
}

impl LocalApic {
    /// Its timer's line.
    pub const TIMER: u32 = 0;

    /// Switches it on, and measures both of its rates against `pit`, which takes 50 ms. Its timer interrupts as
    /// `timer_vector`, from 32 on; interrupts that are not to be served come as vector 255.
    #[must_use]
    pub fn new(kernel: Kernel, mut registers: Registers, timer_vector: u8, pit: &mut Pit) -> Self {
        registers.write32(SPURIOUS, ON | SPURIOUS_VECTOR);
        registers.write32(LOCAL_TIMER, MASKED | u32::from(timer_vector));
        registers.write32(DIVIDE, BY_16);
        let mut apic = Self {
            kernel,
            registers,
            timer_vector,
            clock_hz: 0,
            alarm_hz: 0,
        };
        let measured = (0..MEASUREMENTS).map(|_| apic.measure(pit)).min();
        let (clock_ticks, alarm_ticks) = measured.unwrap_or_default();
        let in_a_second = |ticks| ticks * pit::FREQUENCY_HZ / u64::from(MEASURED);
        apic.clock_hz = in_a_second(clock_ticks);
        apic.alarm_hz = in_a_second(alarm_ticks);
        apic
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
        let vector = u32::from(self.timer_vector);
        self.registers.write32(LOCAL_TIMER, mask | vector);
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
        let ticks = u128::from(at.saturating_sub(self.now()));
        let clock_hz = u128::from(self.clock_hz.max(1));
        let count = (ticks * u128::from(self.alarm_hz)).div_ceil(clock_hz);
        // 0 would stop the timer.
        let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
        self.registers.write32(INITIAL_COUNT, count);
    }

    fn clear_alarm(&mut self) {
        self.registers.write32(INITIAL_COUNT, 0);
    }
}

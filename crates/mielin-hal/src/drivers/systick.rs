//! The timer within Cortex-M processors.
//!
//! Sources: Armv6-M Architecture Reference Manual, B3.3; Armv7-M, B3.3; Armv8-M, "The System Timer, SysTick".

use super::instructions::system_control_space;
use super::kernel::Kernel;
use super::registers::Registers;
use crate::timer::Timer;

/// In the System Control Space.
const CONTROL: usize = 0x010;
const RELOAD: usize = 0x014;
const CURRENT: usize = 0x018;
const ICSR: usize = 0xd04;

/// SYST_CSR: the counter runs, by the processor's clock.
const RUNS: u32 = 1 << 0 | 1 << 2;
/// SYST_CSR: reaching 0 is an exception.
const INTERRUPTS: u32 = 1 << 1;
/// SYST_CSR: it has reached 0 since this was last read.
const REACHED_ZERO: u32 = 1 << 16;
/// ICSR.PENDSTCLR: the exception that is pending is taken back.
const CLEAR_PENDING: u32 = 1 << 25;
/// The counter has 24 bits.
const RELOAD_MAX: u32 = 0xff_ffff;

/// SysTick, as a clock of 64 bits. The hardware remembers only that a period has passed, not how many:
/// [`Timer::now`] has to be called at least once in 2²⁴ ticks, or an alarm be set, whose handler calls it.
///
/// An alarm comes as exception 15, after 2²⁴ ticks at the latest, and again in as many ticks until it is cleared or a
/// new one is set. Setting one loses the ticks that this takes, some tens.
#[derive(Debug)]
pub struct SysTick {
    registers: Registers,
    frequency_hz: u64,
    reload: u32,
    /// The ticks before the period that runs.
    before: u64,
    last: u64,
}

impl SysTick {
    /// Starts it. `frequency_hz` is that of the processor's clock, which only the board's makers know.
    #[must_use]
    pub fn new(kernel: Kernel, frequency_hz: u64) -> Self {
        let mut systick = Self {
            registers: system_control_space(kernel),
            frequency_hz,
            reload: RELOAD_MAX,
            before: 0,
            last: 0,
        };
        systick.start(RELOAD_MAX, 0);
        systick
    }

    /// Counts down from `reload`, again and again.
    fn start(&mut self, reload: u32, interrupts: u32) {
        self.reload = reload;
        self.registers.write32(CONTROL, 0);
        self.registers.write32(RELOAD, reload);
        // Whatever is written clears the counter and the flag; the next tick loads the counter.
        self.registers.write32(CURRENT, 0);
        self.registers.write32(CONTROL, RUNS | interrupts);
    }

    fn has_reached_zero(&self) -> bool {
        self.registers.read32(CONTROL) & REACHED_ZERO != 0
    }

    /// Begins a period anew, with what has passed until here kept.
    fn restart(&mut self, reload: u32, interrupts: u32) {
        self.before = self.now();
        self.start(reload, interrupts);
    }
}

impl Timer for SysTick {
    fn frequency_hz(&self) -> u64 {
        self.frequency_hz
    }

    fn now(&mut self) -> u64 {
        let period = u64::from(self.reload) + 1;
        let in_period = loop {
            if self.has_reached_zero() {
                self.before += period;
            }
            // 0 is where a period begins: the flag is set when the counter gets there.
            let in_period = match self.registers.read32(CURRENT) {
                0 => 0,
                left => period - u64::from(left),
            };
            if !self.has_reached_zero() {
                break in_period;
            }
            // The counter was read on one side of its end or on the other.
            self.before += period;
        };
        // QEMU stops at 0 until it gets around to setting the flag.
        self.last = self.last.max(self.before + in_period);
        self.last
    }

    fn set_alarm(&mut self, at: u64) {
        let ticks = at.saturating_sub(self.now()).clamp(1, RELOAD_MAX.into());
        let reload = u32::try_from(ticks).unwrap_or(RELOAD_MAX);
        self.restart(reload, INTERRUPTS);
    }

    fn clear_alarm(&mut self) {
        self.restart(RELOAD_MAX, 0);
        self.registers.write32(ICSR, CLEAR_PENDING);
    }
}

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
/// The counter is loaded with the next tick of its clock, which is slower than the processor on some chips; then a new RELOAD is for the period after this one.
const LOADED_WITHIN: u32 = 1000;
/// The counter has 24 bits.
const RELOAD_MAX: u32 = 0xff_ffff;

/// SysTick, as a clock of 64 bits. The hardware remembers only that a period has passed, not how many:
/// [`Timer::now`] has to be called at least once in 2²⁴ ticks, or an alarm be set, whose handler calls it.
///
/// An alarm comes as exception 15, after 2²⁴ ticks at the latest, and then again every 2²⁴ ticks until it is cleared. While one is
/// set, a handler that calls [`Timer::now`] keeps the time, whatever else the program does.
#[derive(Debug)]
pub struct SysTick {
    registers: Registers,
    frequency_hz: u64,
    /// With what the period began that runs. Only this one may be short, because an alarm ends it: those that follow are as long as can be, so that an
    /// alarm whose handler comes late has missed none.
    reload: u32,
    /// With what the next one will begin, if nothing is done about it.
    next_reload: u32,
    /// The counter has been seen counting in this period.
    loaded: bool,
    /// The period may have begun with this instead, because the one before ended when the next was being lengthened: the counter shows it.
    doubt: Option<u32>,
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
            next_reload: RELOAD_MAX,
            loaded: false,
            doubt: None,
            before: 0,
            last: 0,
        };
        systick.begin(RELOAD_MAX, 0);
        systick
    }

    /// Begins a period, and returns what the counter had left of the one before.
    fn begin(&mut self, reload: u32, interrupts: u32) -> u32 {
        self.registers.write32(RELOAD, reload);
        // Nothing stands between these two: what passes between them is lost to the clock.
        let left = self.registers.read32(CURRENT);
        // Whatever is written clears the counter and the flag; the next tick loads the counter.
        self.registers.write32(CURRENT, 0);
        self.registers.write32(CONTROL, RUNS | interrupts);
        self.reload = reload;
        self.next_reload = reload;
        self.loaded = false;
        self.doubt = None;
        for _ in 0..LOADED_WITHIN {
            if self.lengthen_next() {
                break;
            }
        }
        left
    }

    /// Makes the next period as long as can be, once the counter has been loaded for this one. If it takes too long (QEMU's does when its
    /// machine is busy) that is done with the next look at the clock.
    fn lengthen_next(&mut self) -> bool {
        if self.next_reload != RELOAD_MAX {
            self.look();
            if !self.loaded {
                return false;
            }
            self.registers.write32(RELOAD, RELOAD_MAX);
            self.next_reload = RELOAD_MAX;
        }
        true
    }

    /// A period has ended.
    fn end_period(&mut self) {
        self.before += u64::from(self.reload) + 1;
        let ended = self.reload;
        self.reload = self.next_reload;
        self.loaded = false;
        self.doubt = (ended != self.reload).then_some(ended);
        self.lengthen_next();
    }

    /// What is left of the period.
    fn look(&mut self) -> u32 {
        let left = self.registers.read32(CURRENT);
        if left != 0 {
            self.loaded = true;
            if let Some(short) = self.doubt.take().filter(|short| left <= *short) {
                self.reload = short;
            }
        }
        left
    }

    fn has_reached_zero(&self) -> bool {
        self.registers.read32(CONTROL) & REACHED_ZERO != 0
    }

    /// Begins a period anew, with what has passed until here kept but for the ticks between reading the counter and clearing it: some
    /// instructions, so that the clock hardly loses time by its alarms.
    fn restart(&mut self, reload: u32, interrupts: u32) {
        let known = self.now() - self.before;
        let period = u64::from(self.doubt.unwrap_or(self.reload)) + 1;
        let loaded = self.loaded;
        let left = u64::from(self.begin(reload, interrupts));
        self.before += match left {
            // The counter has not been loaded since this period began.
            0 if known == 0 && !loaded => 0,
            0 => period,
            left if period.saturating_sub(left) >= known => period - left,
            // The period ended before the counter was read, and the next one had begun, with the new length.
            left => period + (u64::from(reload) + 1).saturating_sub(left),
        };
    }

    /// Stops it, because the processor is going to sleep so deeply that its clock stops.
    pub fn stop(&mut self) {
        self.before = self.now();
        self.registers.write32(CONTROL, 0);
        self.registers.write32(ICSR, CLEAR_PENDING);
    }

    /// Goes on after [`SysTick::stop`], with an interrupt at the end of each period.
    pub fn resume(&mut self) {
        self.begin(RELOAD_MAX, INTERRUPTS);
    }

    /// While it was stopped, so many ticks have passed, by another clock.
    pub fn advance(&mut self, ticks: u64) {
        self.before += ticks;
    }
}

impl Timer for SysTick {
    fn frequency_hz(&self) -> u64 {
        self.frequency_hz
    }

    fn now(&mut self) -> u64 {
        let in_period = loop {
            if self.has_reached_zero() {
                self.end_period();
            }
            // 0 is where a period begins: the flag is set when the counter gets there.
            let in_period = match self.look() {
                0 => 0,
                left => (u64::from(self.reload) + 1).saturating_sub(left.into()),
            };
            if !self.has_reached_zero() {
                break in_period;
            }
            // The counter was read on one side of its end or on the other.
            self.end_period();
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

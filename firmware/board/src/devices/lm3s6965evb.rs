//! Stellaris LM3S6965.

use mielin_hal::drivers::{CmsdkTimer, CmsdkWatchdog, Pl011, Registers};
use mielin_rt::{ModeCost, PowerModes, WakeSources};

/// What keeps time in deep sleep: this board has nothing that QEMU has a model of.
pub type SleepClock = CmsdkTimer;
/// What resets the processor.
pub type Watchdog = CmsdkWatchdog;
pub(crate) type Uart = Pl011;

/// The board's name.
pub const NAME: &str = "lm3s6965evb";
/// The rate of the processor's clock.
pub const CLOCK_HZ: u32 = 12_500_000;
pub(crate) const SERIAL_LINE: u32 = 5;
pub(crate) const SLEEP_LINE: Option<u32> = None;

pub(crate) const WATCHDOG_LINE: Option<u32> = Some(18);

/// An exception takes 12 clocks (Cortex-M3 Technical Reference Manual, "Exceptions").
pub const MODES: PowerModes = PowerModes {
    sleep: ModeCost {
        enter_ticks: 1,
        leave_ticks: 12,
        wakes: WakeSources::ANY,
    },
    deep_sleep: None,
};

/// RCC, and its value after a reset (data sheet, "System Control"). QEMU's clocks run only from the first write on.
const RUN_MODE_CLOCK: usize = 0x400f_e060;
const RUN_MODE_CLOCK_RESET: u32 = 0x078e_3ad1;

fn start_clock() {
    // SAFETY: the register of this board's system control that chooses the clock, of which only it is used.
    let mut clock = unsafe { Registers::new(RUN_MODE_CLOCK, 4) };
    clock.write32(0, RUN_MODE_CLOCK_RESET);
}

pub(crate) fn uart() -> Uart {
    start_clock();
    // SAFETY: the board has this UART there, and only `Serial` takes it, or who reports a crash and never returns.
    Pl011::new(unsafe { Registers::new(0x4000_c000, 0x1000) })
}

pub(crate) fn sleep_clock() -> Option<SleepClock> {
    // Before SysTick begins to count.
    start_clock();
    None
}

/// How long a tick of the clock for deep sleep is, in nanoseconds.
pub const SLEEP_TICK_NS: u64 = 0;

/// Another timer of the board, for tests of the clocks: there is none.
#[must_use]
pub fn witness() -> Option<SleepClock> {
    None
}

pub(crate) fn watchdog(ms: u32) -> Option<Watchdog> {
    // SAFETY: the board has its watchdog there, and its driver does nothing that two of it could disagree on.
    let registers = unsafe { Registers::new(0x4000_0000, 0x1000) };
    // The first half of the time ends with an interrupt, the second with a reset.
    Some(CmsdkWatchdog::new(
        registers,
        (CLOCK_HZ / 2000).saturating_mul(ms),
    ))
}

pub(crate) fn feed(watchdog: &mut Watchdog) {
    watchdog.feed();
}

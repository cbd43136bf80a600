//! BBC micro:bit, with Nordic's nRF51822.

use core::convert::Infallible;

use mielin_hal::drivers::{NrfTimer, NrfUart, Registers};
use mielin_rt::{ModeCost, PowerModes, WakeSources};

/// What keeps time in deep sleep.
pub type SleepClock = NrfTimer;
/// What resets the processor: QEMU has no model of this board's.
pub type Watchdog = Infallible;
pub(crate) type Uart = NrfUart;

/// The board's name.
pub const NAME: &str = "microbit";
/// The rate of the processor's clock.
pub const CLOCK_HZ: u32 = 16_000_000;
pub(crate) const SERIAL_LINE: u32 = 2;
pub(crate) const SLEEP_LINE: Option<u32> = Some(8);

pub(crate) const WATCHDOG_LINE: Option<u32> = None;

/// An exception takes 16 clocks (Cortex-M0 Technical Reference Manual, "Exceptions"). For deep sleep there are also the instructions that
/// hand the time over to the other clock and back, counted in the suite, and a tick of that clock.
pub const MODES: PowerModes = PowerModes {
    sleep: ModeCost {
        enter_ticks: 1,
        leave_ticks: 16,
        wakes: WakeSources::ANY,
    },
    deep_sleep: Some(ModeCost {
        enter_ticks: 600,
        leave_ticks: 600 + 16,
        wakes: WakeSources::ANY,
    }),
};

pub(crate) fn uart() -> Uart {
    // SAFETY: the board has this UART there, and only `Serial` takes it, or who reports a crash and never returns.
    NrfUart::new(unsafe { Registers::new(0x4000_2000, 0x1000) })
}

pub(crate) fn sleep_clock() -> Option<SleepClock> {
    // SAFETY: the board has this timer there, and only `Board::take` takes it, once.
    Some(NrfTimer::new(unsafe {
        Registers::new(0x4000_8000, 0x1000)
    }))
}

/// How long a tick of the clock for deep sleep is, in nanoseconds.
pub const SLEEP_TICK_NS: u64 = 1_000;

/// Another timer of the board, for tests of the clocks: there is none.
#[must_use]
pub fn witness() -> Option<SleepClock> {
    None
}

pub(crate) fn watchdog(_: u32) -> Option<Watchdog> {
    None
}

pub(crate) fn feed(watchdog: &mut Watchdog) {
    match *watchdog {}
}

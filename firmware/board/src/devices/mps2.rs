//! Arm's MPS2 with the images AN386 and AN505, the latter by its secure aliases.

use mielin_hal::drivers::{CmsdkTimer, CmsdkUart, CmsdkWatchdog, Registers};
use mielin_rt::{ModeCost, PowerModes, WakeSources};

/// What keeps time in deep sleep.
pub type SleepClock = CmsdkTimer;
/// What resets the processor.
pub type Watchdog = CmsdkWatchdog;
pub(crate) type Uart = CmsdkUart;

#[cfg(board = "mps2_an386")]
mod at {
    pub(super) const UART: usize = 0x4000_4000;
    pub(super) const CONSOLE: usize = 0x4000_5000;
    /// The last 4 KiB of the static RAM that is in the place of flash.
    pub(super) const PAGE: usize = 0x003f_f000;
    pub(super) const TIMER: usize = 0x4000_0000;
    pub(super) const TIMER_HZ: u32 = super::CLOCK_HZ;
    pub(super) const WITNESS: usize = 0x4000_1000;
    pub(super) const WATCHDOG: usize = 0x4000_8000;
}

#[cfg(board = "mps2_an505")]
mod at {
    pub(super) const UART: usize = 0x5020_0000;
    pub(super) const CONSOLE: usize = 0x5020_1000;
    /// The last 4 KiB of the static RAM that is in the place of flash.
    pub(super) const PAGE: usize = 0x103f_f000;
    /// The timer of the slow clock.
    pub(super) const TIMER: usize = 0x5002_f000;
    pub(super) const TIMER_HZ: u32 = 32_000;
    /// Its first timer of the other clock.
    pub(super) const WITNESS: usize = 0x5000_0000;
    pub(super) const WATCHDOG: usize = 0x5008_1000;
}

/// The board's name.
#[cfg(board = "mps2_an386")]
pub const NAME: &str = "mps2-an386";
/// The board's name.
#[cfg(board = "mps2_an505")]
pub const NAME: &str = "mps2-an505";

/// The rate of the processor's clock.
#[cfg(board = "mps2_an386")]
pub const CLOCK_HZ: u32 = 25_000_000;
/// The rate of the processor's clock.
#[cfg(board = "mps2_an505")]
pub const CLOCK_HZ: u32 = 20_000_000;

/// The UART's line for bytes that have come.
#[cfg(board = "mps2_an386")]
pub(crate) const SERIAL_LINE: u32 = 0;
#[cfg(board = "mps2_an505")]
pub(crate) const SERIAL_LINE: u32 = 32;
/// The line of the timer for deep sleep.
#[cfg(board = "mps2_an386")]
pub(crate) const SLEEP_LINE: Option<u32> = Some(8);
#[cfg(board = "mps2_an505")]
pub(crate) const SLEEP_LINE: Option<u32> = Some(2);

/// It interrupts as an NMI.
pub(crate) const WATCHDOG_LINE: Option<u32> = None;

/// An exception takes 12 clocks (Cortex-M4 and Cortex-M33 Technical Reference Manuals, "Exceptions"). For deep sleep there are also the
/// instructions that hand the time over to the other clock and back, counted in the suite, and a tick of that clock.
pub const MODES: PowerModes = PowerModes {
    sleep: ModeCost {
        enter_ticks: 1,
        leave_ticks: 12,
        wakes: WakeSources::ANY,
    },
    deep_sleep: Some(ModeCost {
        enter_ticks: 300,
        leave_ticks: 300 + CLOCK_HZ / at::TIMER_HZ,
        wakes: WakeSources::ANY,
    }),
};

/// How long a tick of the clock for deep sleep is, in nanoseconds.
pub const SLEEP_TICK_NS: u64 = 1_000_000_000 / at::TIMER_HZ as u64;

/// Where the page is that says who the board is: `memory/mps2_*.x` leaves it out of what the linker has.
pub(crate) const PAGE: usize = at::PAGE;

pub(crate) fn uart() -> Uart {
    // SAFETY: the board has this UART there, with 4 KiB of registers, and only `Serial` takes it, or who reports a crash and never returns.
    let registers = unsafe { Registers::new(at::UART, 0x1000) };
    CmsdkUart::new(registers, CLOCK_HZ / 115_200)
}

/// The second UART.
pub(crate) fn console() -> Uart {
    // SAFETY: as above; only `Console` takes it, or who reports a crash and never returns.
    let registers = unsafe { Registers::new(at::CONSOLE, 0x1000) };
    CmsdkUart::new(registers, CLOCK_HZ / 115_200)
}

pub(crate) fn sleep_clock() -> Option<SleepClock> {
    // SAFETY: the board has this timer there, and only `Board::take` takes it, once.
    let registers = unsafe { Registers::new(at::TIMER, 0x1000) };
    Some(CmsdkTimer::new(registers, at::TIMER_HZ))
}

/// Another timer of the board, for tests of the clocks; `None` where there is none.
#[must_use]
pub fn witness() -> Option<CmsdkTimer> {
    // SAFETY: the board has this timer there, and nothing else uses it.
    let registers = unsafe { Registers::new(at::WITNESS, 0x1000) };
    Some(CmsdkTimer::new(registers, CLOCK_HZ))
}

pub(crate) fn watchdog(ms: u32) -> Option<Watchdog> {
    // SAFETY: the board has its watchdog there, and its driver does nothing that two of it could disagree on.
    let registers = unsafe { Registers::new(at::WATCHDOG, 0x1000) };
    // The first half of the time ends with an interrupt, the second with a reset.
    Some(CmsdkWatchdog::new(
        registers,
        (CLOCK_HZ / 2000).saturating_mul(ms),
    ))
}

pub(crate) fn feed(watchdog: &mut Watchdog) {
    watchdog.feed();
}

//! Where the devices are, one module for each board.
//!
//! Addresses, lines and rates: the nRF51822's product specification; the LM3S6965's data sheet (QEMU divides 200 MHz by 16, where a board has
//! an oscillator of about 12 MHz); Arm's application notes AN386 (25 MHz) and AN505 (20 MHz, and 32,768 Hz for the slow clock, of which QEMU makes
//! 32,000).
#![allow(unsafe_code)]

#[cfg(board = "lm3s6965evb")]
#[path = "devices/lm3s6965evb.rs"]
mod of_board;
#[cfg(board = "microbit")]
#[path = "devices/microbit.rs"]
mod of_board;
#[cfg(any(board = "mps2_an386", board = "mps2_an505"))]
#[path = "devices/mps2.rs"]
mod of_board;

pub use of_board::{CLOCK_HZ, MODES, NAME, SLEEP_TICK_NS, SleepClock, Watchdog, witness};
#[cfg(mps2)]
pub(crate) use of_board::{PAGE, console};
pub(crate) use of_board::{
    SERIAL_LINE, SLEEP_LINE, Uart, WATCHDOG_LINE, feed, sleep_clock, uart, watchdog,
};

//! A node on a microcontroller, as a state machine without a processor: what the firmware in `firmware/node` does, but for its
//! devices. It is given bytes, the time, and turns, and says what goes out and when it wants to be called again; so all of it is tested on hosts.
//!
//! - [`Line`] is the link to the mesh on a serial line: frames in and out, and sleep when nothing is under way.
//! - `Agents` (feature `engine`) runs agents in slices of time, each of which ends between two turns of a loop.
//! - [`Readings`] keeps what a sensor measured, [`Recording`] is a sensor that repeats a series.
//! - [`BatteryModel`] is a battery that boards under an emulator do not have; [`mielin_rt::BatteryMonitor`] decides what follows from its charge.
//! - [`Entropy`] makes random bytes of a seed and a count of starts.
//!
//! What is not here: interrupts, clocks, UARTs, the memory of boards, and what a page says.
//!
//! # Features
//!
//! - `engine` (default): what runs agents. Without it there is the line alone, for the smallest boards.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod battery;
mod entropy;
mod line;
mod sensor;

pub use battery::{BatteryModel, BatteryTraits, ModelChange};
pub use entropy::Entropy;
pub use line::{DOZE_MAX, Line, LineEvent, QUIET_BEFORE_DOZE};
pub use sensor::{READINGS_MAX, Reading, Readings, Recording};

//! A node on a microcontroller, as a state machine without a processor: what the firmware in `firmware/node` does, but for its
//! devices. It is given bytes, the time, and turns, and says what goes out and when it wants to be called again; so all of it is tested on hosts.
//!
//! - [`Line`] is the link to the mesh on a serial line: frames in and out, and sleep when nothing is under way.
//! - `Node` (feature `engine`) is all above the line: what the host says and what follows from it. `Agents` runs agents in turns, each of which ends between two
//!   turns of a loop.
//! - [`Readings`] keeps what a sensor measured, [`Recording`] is a sensor that repeats a series, [`Devices`] has all of them, and actuators.
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

#[cfg(feature = "engine")]
mod agents;
mod battery;
mod devices;
mod entropy;
mod line;
#[cfg(feature = "engine")]
mod node;
mod sensor;

#[cfg(feature = "engine")]
pub use agents::{AGENTS_MAX, Agents, MEMORY_BYTES_MAX, MODULE_BYTES_MAX, Room, Turn, Unfit};
pub use battery::{BatteryModel, BatteryTraits, ModelChange};
pub use devices::{Devices, Set};
pub use entropy::Entropy;
pub use line::{DOZE_MAX, Line, LineEvent, QUIET_BEFORE_DOZE};
#[cfg(feature = "engine")]
pub use node::{BATTERY_PERIOD, Node, Parts, Report};
pub use sensor::{READINGS_MAX, Reading, Readings, Recording};

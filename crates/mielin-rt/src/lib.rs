//! The runtime of microcontrollers with a Cortex-M processor: what a firmware stands on that sleeps whenever it can, watches its battery,
//! and loses neither time nor what happened meanwhile.
//!
//! - [`EmbeddedRuntime`] is the loop around a firmware's [`Firmware::step`]: it hands over what has happened, and rests in the deepest
//!   [`PowerMode`] from which the processor is back in time. [`Usage`] says how long it was in which.
//! - [`MemoryPool`] gives memory until it is reset, [`BlockPool`] gives blocks that come back; both can be `static`.
//! - [`Queue`] and [`Signals`] are what interrupts and the loop share; [`Timers`] what the loop waits for.
//! - [`BatteryMonitor`] says when it is time to leave, [`Watch`] feeds a watchdog only while everything is alive, [`CrashReport`] says
//!   after a reset what went wrong before it.
//!
//! Everything but the module `cortex_m` is a plain state machine, which is tested on hosts; that module is the processor, and is there on
//! bare-metal targets only. Nothing here allocates, and nothing knows an agent, a network or a board.
//!
//! There is one loop and no executor of asynchronous tasks. What a node on a microcontroller does are state machines that take bytes and
//! the time and say when they want to be called again (the link to its relay, its agent's time slices, its sensors), so the loop calls
//! them, takes the earliest of those times, and rests. An executor would keep a waker for each of them, and would still have to be
//! told by a hook how deep it may sleep, which follows from all that is waited for at once.
//!
//! ```
//! use mielin_rt::{BatteryMonitor, BatteryEvent, MemoryPool};
//! use mielin_hal::{BatteryStatus, Charge};
//!
//! static POOL: MemoryPool<256> = MemoryPool::new();
//! let samples: &mut [u16] = POOL.slice(16, 0_u16).unwrap();
//! samples[0] = 812;
//!
//! let mut monitor = BatteryMonitor::new();
//! let status = |percent| Some(BatteryStatus { percent, charge: Charge::Discharging });
//! assert_eq!(monitor.read(status(20)), None);
//! assert_eq!(monitor.read(status(19)), Some(BatteryEvent::Low));
//! ```

#![no_std]

#[cfg(test)]
extern crate std;

mod battery;
mod blocks;
mod crash;
mod kept;
mod pool;
mod power;
mod queue;
mod runtime;
mod timers;
mod watch;

#[cfg(all(target_arch = "arm", target_os = "none"))]
pub mod cortex_m;

pub use battery::{BatteryEvent, BatteryMonitor, RECOVERED_PERCENT, UNREADABLE_MAX};
pub use blocks::{Block, BlockPool, FreeError};
pub use crash::{CrashCause, CrashReport, Registers};
pub use kept::Kept;
pub use pool::{Exhausted, MemoryPool};
pub use power::{ModeCost, PowerMode, PowerModes, Transition, Usage, WakeSources};
pub use queue::{Queue, Signals};
pub use runtime::{EmbeddedRuntime, Firmware, Machine, Next, Wake};
pub use timers::{TimerId, Timers};
pub use watch::Watch;

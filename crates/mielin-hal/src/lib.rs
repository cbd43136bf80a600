//! Which machine is this: the architecture, the processor features that really work here, processors and caches,
//! memory and power; and, for a kernel, the devices without which it cannot begin.
//!
//! This floor has no threads, and without `std` allocates nothing. Facts come from the processor and from the operating system, by the
//! way that each of them documents; what nobody says is `None`, never a guess.
//!
//! | type | what it tells |
//! |---|---|
//! | [`Architecture`] | by [`detect_architecture`]: the instruction set that this program runs on |
//! | [`HardwareCapabilities`] | the features that may be used, and the length of scalable vectors |
//! | [`Topology`] | processors, cores, caches, clock rates |
//! | [`Memory`] | how much there is, and in which pages |
//! | [`PowerStatus`] | mains or battery, and its charge |
//! | [`DeviceTree`] | what firmware tells a kernel of its machine; on PCs [`acpi`] does |
//!
//! A kernel meets its devices through four small traits, [`Console`], [`Timer`], [`InterruptController`] and
//! [`Shutdown`]; [`drivers`] implements them. How its page tables have to look, [`paging`] knows.
//!
//! ```
//! use mielin_hal::{CpuFeature, HardwareCapabilities, Topology, detect_architecture};
//!
//! let machine = HardwareCapabilities::detect();
//! assert_eq!(machine.architecture(), detect_architecture());
//! if machine.has(CpuFeature::Avx2) {
//!     // A kernel written for AVX2 may run.
//! }
//! if let Some(cache) = Topology::detect().data_cache(2) {
//!     println!("blocks of {} bytes fit", cache.size_bytes);
//! }
//! ```
//!
//! The modules [`x86`], [`aarch64`], [`riscv`] and [`cortex_m`] know what registers and lists mean, on every host:
//! a kernel or a loader can ask about another machine than its own. What matters to a kernel only stands in
//! [`x86::Supervisor`] and [`aarch64::Supervisor`]; on RISC-V it is among the features of [`riscv::Isa`].
//!
//! # Features
//!
//! - `std` (default): asks the operating system. Without it only the processor is asked.
//! - `privileged`: the program runs in a privileged mode, so that without `std` identification registers of 64-bit Arm
//!   may be read. In a program that does not, reading them is an undefined instruction.

#![cfg_attr(not(feature = "std"), no_std)]

#[cfg(all(test, not(feature = "std")))]
extern crate std;

mod architecture;
mod features;

pub mod aarch64;
pub mod cortex_m;
pub mod riscv;
pub mod x86;

pub mod acpi;
pub mod drivers;
pub mod paging;

mod ask;
mod capabilities;
mod console;
mod device_tree;
mod few;
mod interrupts;
#[cfg(all(feature = "std", target_os = "linux"))]
mod linux;
#[cfg(all(feature = "std", any(test, target_os = "macos")))]
mod macos;
mod memory;
mod power;
mod shutdown;
mod timer;
mod topology;

pub use architecture::{Architecture, detect_architecture};
pub use capabilities::HardwareCapabilities;
pub use console::{Console, Text};
pub use device_tree::{DeviceTree, DeviceTreeError, Node};
pub use features::{CpuFeature, FeatureSet};
pub use few::Few;
pub use interrupts::{InterruptController, Polarity, Trigger};
pub use memory::Memory;
pub use power::{BatteryStatus, Charge, LOW_BATTERY_PERCENT, PowerSource, PowerStatus};
pub use shutdown::{Outcome, Shutdown};
pub use timer::{SleepClock, Timer};
pub use topology::{Cache, CacheKind, Frequency, Model, Topology};

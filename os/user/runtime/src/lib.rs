//! What a program of the microkernel is made with: its system calls as typed functions, and what the first thread is told.
//!
//! Every authority is a capability, which a program names by its address in the thread's own node ([`Cap`]). The types in
//! [`objects`] say what kind of object is meant; the kernel looks whether that is true.

#![no_std]

pub mod agents;
pub mod boot;
pub mod bytes;
pub mod console;
mod devices;
pub mod line;
pub mod net;
pub mod objects;
pub mod pages;
pub mod process;
pub mod services;
pub mod supplies;
pub mod system_call;
pub mod threads;

pub mod start;
pub mod startup;

pub use boot::Information;
pub use mielin_kernel::abi;
pub use mielin_kernel::abi::{Error, FaultKind, MessageInfo, ObjectKind, Rights, ThreadSlot};
pub use objects::Cap;
pub use process::{LoadError, Program};
pub use startup::Startup;
pub use supplies::Supplies;

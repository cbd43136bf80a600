//! The portable core of the microkernel: what objects are, who has which authority over them, how messages pass, and who runs.
//!
//! Everything that is not here is a program's: drivers, servers, policy. The model is seL4's: memory is given to programs as
//! [untyped](Capability::Untyped), and they say what becomes of it, so the kernel has no heap and cannot run out of memory.
//! All authority is in [capabilities](Capability), which are made only from others, and can be taken back with all that was made
//! of them.
//!
//! | object | |
//! |---|---|
//! | untyped | memory that can become objects |
//! | [`Slot`]s, in nodes | places for capabilities |
//! | [`Endpoint`], [`Reply`] | where threads meet for messages, and the obligation to answer one |
//! | [`Notification`], [`Queue`] | signals and messages that nobody waits for |
//! | [`Thread`], [`SchedulingContext`] | who runs, and for how long |
//! | [`AddressSpace`], tables, frames | what a thread sees of memory |
//! | interrupts, I/O ports | devices |
//!
//! The core is a state machine in safe code: a port (in `os/kernel`) calls [`Kernel::system_call`], [`Kernel::interrupt`],
//! [`Kernel::fault`] and [`Kernel::tick`], and then has the thread run that [`Kernel::current`] names. What it needs of its machine is
//! the trait [`Machine`]. Programs see [`abi`] and [`registers`] only.
//!
//! `docs/KERNEL.md` states what always holds, what checks it, and what nobody has proved.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod reference;

pub mod abi;
pub mod archive;
pub mod registers;

mod capability;
mod objects;
mod thread;

mod machine;

mod derivation;
mod lines;

mod alarms;
mod budget;

mod kernel;

mod fast;
mod ipc;
mod notifications;
mod queues;

mod invoke;
mod removal;
mod spaces;
mod untyped;

mod boot;
mod executable;

mod inspect;

pub use boot::{Boot, BootError, Given, Region};
pub use capability::{Capability, FrameForm};
pub use executable::{Executable, ExecutableError, Segment};
pub use inspect::queue_slot;
pub use kernel::{Kernel, LINES_MAX, Request, SPACES_MAX};
pub use lines::PRIORITIES;
pub use machine::{Machine, Page};
pub use objects::{
    Above, AddressSpace, Endpoint, Entry, Line, Link, Notification, Object, Queue, REFILLS_MAX,
    Refill, Reply, SchedulingContext, Slot, Waiting,
};
pub use reference::{OBJECTS_END, Ref, UNIT_BYTES};
pub use thread::{FLOATS_AT, FLOATS_BYTES, Fault, Registers, State, Thread, slot as thread_slot};

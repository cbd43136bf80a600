//! Threads in a program's own address space.
#![allow(unsafe_code)]

use mielin_kernel::abi::{Error, Rights, ThreadSlot};
use mielin_kernel::registers;

use crate::boot::Buffer;
use crate::objects::{Frame, SchedulingContext, SchedulingControl, Thread};
use crate::supplies::Supplies;

const STACK_PAGES: u64 = 4;

/// A thread that shares node and address space with the one that has made it.
#[derive(Clone, Copy, Debug)]
pub struct Spawned {
    /// The thread.
    pub thread: Thread,
    /// Its message buffer.
    pub buffer: Buffer,
    /// The page of the buffer.
    pub buffer_frame: Frame,
    /// The end of its stack.
    pub stack_top: u64,
}

/// What a thread begins with: a function that does not return, and gets a number.
pub type Entry = extern "C" fn(u64) -> !;

impl Supplies {
    /// Makes a thread that will run `entry`, once it is resumed and has time.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn spawn(&mut self, entry: Entry, argument: u64) -> Result<Spawned, Error> {
        let thread = self.thread()?;
        let stack = self.memory(STACK_PAGES)?;
        let frame = self.frame()?;
        let at = self.addresses(4096);
        self.map(frame, self.space(), at, Rights::READ.or(Rights::WRITE))?;
        thread.equip(ThreadSlot::Node, self.node().0, 0)?;
        thread.equip(ThreadSlot::AddressSpace, self.space().0, 0)?;
        thread.equip(ThreadSlot::Buffer, frame.0, 0)?;
        let top = stack + (STACK_PAGES << 12);
        thread.write_register(registers::PROGRAM_COUNTER, entry as usize as u64)?;
        // On x86-64 a function finds a return address at its stack pointer.
        let shift = if cfg!(target_arch = "x86_64") { 8 } else { 0 };
        thread.write_register(registers::STACK_POINTER, top - shift)?;
        thread.write_register(registers::ARGUMENTS[0], argument)?;
        Ok(Spawned {
            thread,
            // SAFETY: the page was mapped there for this.
            buffer: unsafe { Buffer::at(core::ptr::with_exposed_provenance_mut(at as usize)) },
            buffer_frame: frame,
            stack_top: top,
        })
    }

    /// Gives a thread a priority and a time slice of its own, and lets it run.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn run(
        &mut self,
        thread: Thread,
        control: SchedulingControl,
        priority: u8,
        slice: u64,
    ) -> Result<SchedulingContext, Error> {
        thread.set_priority(priority, control, true)?;
        let context = self.context()?;
        control.configure(context, slice, 0)?;
        context.bind(Some(thread))?;
        thread.resume()?;
        Ok(context)
    }
}

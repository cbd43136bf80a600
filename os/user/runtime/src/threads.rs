//! Threads: what one needs to run.

use mielin_kernel::abi::{Error, Rights, ThreadSlot};
use mielin_kernel::registers;

use crate::objects::{AddressSpace, Frame, Node, SchedulingContext, SchedulingControl, Thread};
use crate::supplies::Supplies;

const STACK_PAGES: u64 = 4;

/// A thread that has a node, an address space, a buffer and a stack.
#[derive(Clone, Copy, Debug)]
pub struct Spawned {
    /// The thread.
    pub thread: Thread,
    /// Its node.
    pub node: Node,
    /// The page of the buffer.
    pub buffer_frame: Frame,
    /// Where the thread sees its buffer.
    pub buffer_address: u64,
    /// The end of its stack.
    pub stack_top: u64,
}

/// What a thread begins with: a function that does not return, and gets a number and the address of the thread's buffer.
pub type Entry = extern "C" fn(u64, u64) -> !;

impl Supplies {
    /// Makes a thread in this address space that will run `entry`, once it is resumed and has time. It sees the capabilities
    /// of `node`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn spawn(&mut self, node: Node, entry: Entry, argument: u64) -> Result<Spawned, Error> {
        let space = self.space();
        // An empty page lies below the stack, and one below the buffer.
        let stack = self.addresses((STACK_PAGES + 2) << 12);
        let buffer = stack + ((STACK_PAGES + 1) << 12);
        self.equip_thread(space, node, stack, buffer, entry as usize as u64, argument)
    }

    /// Makes a thread with a new stack and a new buffer at these addresses of a space.
    pub(crate) fn equip_thread(
        &mut self,
        space: AddressSpace,
        node: Node,
        stack: u64,
        buffer: u64,
        entry: u64,
        argument: u64,
    ) -> Result<Spawned, Error> {
        let thread = self.thread()?;
        let rights = Rights::READ.or(Rights::WRITE);
        for page in 0..STACK_PAGES {
            let frame = self.frame()?;
            self.map(frame, space, stack + (page << 12), rights)?;
        }
        let frame = self.frame()?;
        self.map(frame, space, buffer, rights)?;
        thread.equip(ThreadSlot::Node, node.0, 0)?;
        thread.equip(ThreadSlot::AddressSpace, space.0, 0)?;
        thread.equip(ThreadSlot::Buffer, frame.0, 0)?;
        let spawned = Spawned {
            thread,
            node,
            buffer_frame: frame,
            buffer_address: buffer,
            stack_top: stack + (STACK_PAGES << 12),
        };
        spawned.set_entry(entry, argument)?;
        Ok(spawned)
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
        thread.set_priority(priority, control, false)?;
        let context = self.context()?;
        control.configure(context, slice, 0)?;
        context.bind(Some(thread))?;
        thread.resume()?;
        Ok(context)
    }
}

impl Spawned {
    /// Where the thread goes on: at a function that gets a number and the address of the buffer, with an empty stack.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_entry(&self, entry: u64, argument: u64) -> Result<(), Error> {
        let thread = self.thread;
        thread.write_register(registers::PROGRAM_COUNTER, entry)?;
        // On x86-64 a function finds a return address at its stack pointer.
        let shift = if cfg!(target_arch = "x86_64") { 8 } else { 0 };
        thread.write_register(registers::STACK_POINTER, self.stack_top - shift)?;
        thread.write_register(registers::ARGUMENTS[0], argument)?;
        thread.write_register(registers::ARGUMENTS[1], self.buffer_address)
    }
}

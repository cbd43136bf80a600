//! Threads: what one needs to run.

use mielin_kernel::abi::{Error, Rights, ThreadSlot};
use mielin_kernel::registers;

use crate::objects::{AddressSpace, Frame, Node, SchedulingContext, SchedulingControl, Thread};
use crate::supplies::Supplies;

/// Pages of a thread's stack.
pub(crate) const STACK_PAGES: u64 = 4;
/// Pages of the stack of a program's first thread.
pub(crate) const FIRST_STACK_PAGES: u64 = 16;

/// Where a thread's stack is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stack {
    /// So many pages, that are still to be mapped, from here on.
    New(u64, u64),
    /// Somebody sees to its pages; it ends here.
    There(u64),
}

/// Where a thread has what is its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Of this space,
    pub(crate) space: AddressSpace,
    /// its stack,
    pub(crate) stack: Stack,
    /// and of the buffer's page.
    pub(crate) buffer: u64,
}

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
        let place = Place {
            space,
            stack: Stack::New(STACK_PAGES, stack),
            buffer,
        };
        self.equip_thread(node, place, entry as usize as u64, argument)
    }

    /// Makes a thread with a new stack and a new buffer at these addresses of a space.
    pub(crate) fn equip_thread(
        &mut self,
        node: Node,
        place: Place,
        entry: u64,
        argument: u64,
    ) -> Result<Spawned, Error> {
        let Place {
            space,
            stack,
            buffer,
        } = place;
        let thread = self.thread()?;
        let rights = Rights::READ.or(Rights::WRITE);
        let stack_top = match stack {
            Stack::New(pages, first) => {
                for page in 0..pages {
                    let frame = self.frame()?;
                    self.map(frame, space, first + (page << 12), rights)?;
                }
                first + (pages << 12)
            }
            Stack::There(top) => top,
        };
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
            stack_top,
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

//! What the core asks of the machine below it.

use core::cell::Cell;

use mielin_hal::paging::PageTables;

use crate::objects::Object;
use crate::reference::Ref;
use crate::thread::Thread;

/// A page of memory as words: a table of the MMU, or a page of a program that holds message buffers.
pub type Page = [Cell<u64>; 512];

/// The part of a kernel that is not portable: memory, the MMU, time, interrupts.
///
/// `Mmu` is the form of its tables. The kernel has one processor, so none of this is ever called twice at once.
pub trait Machine {
    /// The form of the MMU's tables.
    type Mmu: PageTables;

    /// The object at this address.
    ///
    /// It was made there by [`Machine::place`] and not removed since. The core promises that; tests hold it to it.
    fn object<T: Object>(&self, at: Ref<T>) -> &T;

    /// Makes memory a new `T`. The memory belongs to nobody else: it was cut from an untyped, and holds no object.
    fn place<T: Object>(&self, at: Ref<T>);

    /// Ends an object. Its memory is nobody's until it is placed again.
    fn remove<T: Object>(&self, at: Ref<T>);

    /// Zeroes memory that is to become a program's, or a table of the MMU. Both addresses are multiples of 4,096.
    fn clear(&self, address: u64, bytes: u64);

    /// The clock, in ticks.
    fn now(&self) -> u64;

    /// Has the alarm come at this time, or at once if it has passed; a new one takes the place of the last.
    fn set_alarm(&self, at: u64);

    /// Whether something waits to be served that could make another thread run. Long operations stop for it.
    fn interrupted(&self) -> bool;

    /// Puts into a cleared table what every address space has in its root: the kernel's own part.
    fn begin_root(&self, root: Ref<Page>);

    /// Makes these tables the ones that are used; 0 stands for none of any program's.
    fn load_root(&self, value: u64);

    /// Forgets what is remembered of a page of an address space.
    fn flush_page(&self, identifier: u16, at: u64);

    /// Forgets all that is remembered of an address space.
    fn flush_space(&self, identifier: u16);

    /// Has instructions that were written to this memory be seen by whoever executes it.
    fn publish_code(&self, address: u64, bytes: u64);

    /// Lets an interrupt line come, or not.
    fn enable_line(&self, line: u32, on: bool);

    /// Whether there is such a line, for programs to have.
    fn has_line(&self, line: u32) -> bool;

    /// Reads or writes an I/O port, on machines that have them: `None` where there are none. `width` is 1, 2 or 4 bytes.
    fn port(&self, port: u16, width: u8, write: Option<u32>) -> Option<u32>;

    /// Ends the machine; whoever watches it gets to know whether all went well. That it returns means that it cannot.
    fn shut_down(&self, success: bool);

    /// This thread is new: nothing that its memory held before is to be in its registers, or in what a port keeps beside them.
    fn begin_thread(&self, thread: Ref<Thread>);

    /// This thread is no more: nothing of it may be kept in registers.
    fn forget(&self, thread: Ref<Thread>);
}

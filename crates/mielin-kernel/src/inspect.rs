//! What whoever inspects a kernel can ask beyond what its objects say: who is in which line. It changes nothing.

use crate::kernel::{Kernel, LINES_MAX};
use crate::machine::Machine;
use crate::objects::{AddressSpace, Line, Notification, Queue, Slot};
use crate::queues;
use crate::reference::Ref;
use crate::thread::Thread;

impl<M: Machine> Kernel<M> {
    /// Those who would run with this priority, but for the current thread.
    pub fn runnable(&self, priority: u8) -> &Line {
        self.runnable.line(priority)
    }

    /// The highest priority of those in line, as the kernel remembers it. `None` if there is nobody.
    pub fn runnable_top(&self) -> Option<u8> {
        self.runnable.top()
    }

    /// The threads that wait for a moment, and these moments, in the order of the heap: nobody before who is above him.
    pub fn waiting_for_moments(&self) -> impl Iterator<Item = (Ref<Thread>, u64)> + '_ {
        let mut next = self.alarms.first(&self.machine).map(|(first, _)| first);
        core::iter::from_fn(move || {
            let thread = next?;
            let links = &self.object(thread).heap;
            next = links.child.get().or_else(|| self.after_in_heap(thread));
            Some((thread, links.at.get()))
        })
    }

    /// Who follows those below a thread in the heap.
    fn after_in_heap(&self, mut thread: Ref<Thread>) -> Option<Ref<Thread>> {
        loop {
            let links = &self.object(thread).heap;
            if let Some(sibling) = links.sibling.get() {
                return Some(sibling);
            }
            // Back to the first of the siblings, and up.
            loop {
                let before = self.object(thread).heap.before.get()?;
                let first = self.object(before).heap.child.get() == Some(thread);
                thread = before;
                if first {
                    break;
                }
            }
        }
    }

    /// The first node without a capability that still has capabilities in its slots.
    pub fn dying(&self) -> Option<Ref<Slot>> {
        self.dying.get()
    }

    /// The address space with this identifier.
    pub fn space(&self, identifier: u16) -> Option<Ref<AddressSpace>> {
        self.spaces.get(usize::from(identifier))?.get()
    }

    /// The slot with the notification that an interrupt line raises, and whether somebody has the line.
    pub fn interrupt_line(&self, line: u32) -> Option<(Ref<Slot>, bool)> {
        if line >= LINES_MAX {
            return None;
        }
        Some((self.line(line)?, self.claimed[line as usize].get()))
    }

    /// What the MMU's root register was set to.
    pub fn loaded_root(&self) -> u64 {
        self.loaded.get()
    }

    /// Until when the time was charged to whoever had it.
    pub fn charged_until(&self) -> u64 {
        self.since.get()
    }

    /// When the machine's alarm comes, as far as the kernel knows.
    pub fn alarm_at(&self) -> u64 {
        self.alarm.get()
    }
}

impl Line {
    /// The last of them.
    pub fn last(&self) -> Option<Ref<Thread>> {
        self.last.get()
    }
}

impl Thread {
    /// Who is before it in its line.
    pub fn before(&self) -> Option<Ref<Thread>> {
        self.before.get()
    }

    /// What it waits for.
    pub fn notification(&self) -> Option<Ref<Notification>> {
        self.notification.get()
    }

    /// What it sees of memory.
    pub fn space(&self) -> Option<Ref<AddressSpace>> {
        self.space.get()
    }

    /// The physical address of its message buffer.
    pub fn buffer(&self) -> Option<u64> {
        Some(self.buffer.get()).filter(|at| *at != 0)
    }

    /// Of the message that it sends: the badge, whether it is to be answered, and whether capabilities may go with it.
    pub fn message(&self) -> (u64, bool, bool) {
        (self.badge.get(), self.calls.get(), self.grants.get())
    }
}

impl AddressSpace {
    /// The MMU's root register for it; 0 while it has no table.
    pub fn root_value(&self) -> u64 {
        self.value.get()
    }
}

/// A slot of a queue: 0 for the notification that is raised when it has something, 1 for the one when it has room again.
#[must_use]
pub fn queue_slot(queue: Ref<Queue>, which: u64) -> Ref<Slot> {
    queues::slot(queue, which)
}

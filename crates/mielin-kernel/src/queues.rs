//! Queues: messages that nobody waits for. A full queue takes nothing, so that whoever fills it has to wait; an empty one
//! gives nothing. Two notifications tell when that changes.

use crate::abi::{Error, MessageInfo, REGISTER_WORDS, Rights};
use crate::capability::Capability;
use crate::kernel::{Kernel, Request, Served};
use crate::machine::Machine;
use crate::objects::{Entry, QUEUE_ENTRIES_AT, QUEUE_ENTRY_BYTES, QUEUE_SLOTS, Queue, Slot};
use crate::reference::{Ref, UNIT_BYTES};
use crate::registers;
use crate::thread::Thread;

/// The slot of the notification that is raised when the queue has something.
pub(crate) const HAS_MESSAGE: u64 = 0;
/// The slot of the one that is raised when a full queue has room again.
pub(crate) const HAS_ROOM: u64 = 1;

const SLOT_UNITS: i32 = (crate::abi::SLOT_BYTES / UNIT_BYTES) as i32;

/// A slot of a queue.
pub(crate) fn slot(queue: Ref<Queue>, which: u64) -> Ref<Slot> {
    queue.offset((which as i32 - QUEUE_SLOTS as i32) * SLOT_UNITS)
}

/// The queue whose memory begins at `base`.
pub(crate) fn in_memory(base: u64) -> Option<Ref<Queue>> {
    Ref::at(base + QUEUE_SLOTS * crate::abi::SLOT_BYTES)
}

/// How many messages fit into a queue of 2^bits bytes.
pub(crate) fn capacity(bits: u8) -> u32 {
    (((1 << bits) - QUEUE_ENTRIES_AT) / QUEUE_ENTRY_BYTES) as u32
}

/// A place for a message.
pub(crate) fn entry(queue: Ref<Queue>, index: u32) -> Ref<Entry> {
    let first = (QUEUE_ENTRIES_AT - QUEUE_SLOTS * crate::abi::SLOT_BYTES) / UNIT_BYTES;
    let units = first + u64::from(index) * (QUEUE_ENTRY_BYTES / UNIT_BYTES);
    queue.offset(units as i32)
}

impl<M: Machine> Kernel<M> {
    pub(crate) fn push(&self, thread: Ref<Thread>, request: &Request) -> Served {
        let Capability::Queue {
            queue,
            rights,
            badge,
        } = self.capability_at(thread, request.capability)?
        else {
            return Err(Error::WrongKind.into());
        };
        if !rights.has(Rights::WRITE) {
            return Err(Error::Denied.into());
        }
        // What does not travel in registers does not fit.
        if !request.info.is_short() {
            return Err(Error::InvalidArgument.into());
        }
        let object = self.object(queue);
        let (len, capacity) = (object.len.get(), object.capacity.get());
        if len == capacity {
            return Err(Error::Full.into());
        }
        let last = self.object(entry(queue, (object.head.get() + len) % capacity));
        last.info.set(request.info.0);
        last.badge.set(badge);
        for (place, word) in last.words.iter().zip(request.words) {
            place.set(word);
        }
        object.len.set(len + 1);
        if len == 0 {
            self.raise_slot(slot(queue, HAS_MESSAGE));
        }
        Ok(())
    }

    pub(crate) fn pop(&self, thread: Ref<Thread>, request: &Request) -> Served {
        let Capability::Queue { queue, rights, .. } =
            self.capability_at(thread, request.capability)?
        else {
            return Err(Error::WrongKind.into());
        };
        if !rights.has(Rights::READ) {
            return Err(Error::Denied.into());
        }
        let object = self.object(queue);
        let (len, capacity) = (object.len.get(), object.capacity.get());
        if len == 0 {
            return Err(Error::Empty.into());
        }
        let first = self.object(entry(queue, object.head.get()));
        let to = self.object(thread).registers();
        let info = MessageInfo(first.info.get());
        to.set(
            registers::INFO,
            MessageInfo::new(info.label(), info.words().min(REGISTER_WORDS)).0,
        );
        to.set(registers::BADGE, first.badge.get());
        for (register, word) in registers::WORDS.into_iter().zip(&first.words) {
            to.set(register, word.get());
        }
        object.head.set((object.head.get() + 1) % capacity);
        object.len.set(len - 1);
        if len == capacity {
            self.raise_slot(slot(queue, HAS_ROOM));
        }
        Ok(())
    }

    fn raise_slot(&self, slot: Ref<Slot>) {
        if let Capability::Notification {
            notification,
            badge,
            ..
        } = self.object(slot).capability()
        {
            self.signal(notification, badge);
        }
    }
}

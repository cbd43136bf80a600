//! Threads: what they consist of.

use core::cell::Cell;

use crate::abi::{FaultKind, SLOT_BYTES, ThreadSlot};
use crate::objects::{
    AddressSpace, Endpoint, Notification, Object, Reply, SchedulingContext, Slot,
};
use crate::reference::{Ref, UNIT_BYTES};
use crate::registers;

/// The bytes in front of a thread in its memory, which are its slots.
pub(crate) const SLOTS_BYTES: u64 = 8 * SLOT_BYTES;

/// Where the port may keep the floating-point registers, from the beginning of the [`Thread`], and how many bytes there are.
pub const FLOATS_AT: u64 = 768;
/// The bytes for them.
pub const FLOATS_BYTES: u64 = 2048 - SLOTS_BYTES - FLOATS_AT;

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing, until it is resumed.
    Inactive,
    /// It runs, or would if it had time and the processor.
    Ready,
    /// It waits for somebody to take its message.
    Sending,
    /// It waits for a message.
    Receiving,
    /// Its message was taken; it waits for the answer.
    Called,
    /// It waits for a notification.
    Waiting,
}

/// What a thread has done that it cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// The address, or what the processor says of it.
    pub address: u64,
    /// 0 for a read, 1 for a write, 2 for an instruction.
    pub access: u8,
}

/// A thread's registers while it does not run.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Registers {
    words: [Cell<u64>; registers::COUNT],
}

impl Registers {
    /// The register with an index of [`registers`](crate::registers).
    ///
    /// # Panics
    /// If there is none.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, index: usize) -> u64 {
        self.words[index].get()
    }

    /// Sets it.
    ///
    /// # Panics
    /// If there is none.
    #[inline(always)]
    pub fn set(&self, index: usize, value: u64) {
        self.words[index].set(value);
    }
}

/// Where a thread is in the heap of those that wait for a moment.
#[derive(Debug)]
pub(crate) struct HeapLinks {
    pub(crate) child: Cell<Option<Ref<Thread>>>,
    pub(crate) sibling: Cell<Option<Ref<Thread>>>,
    /// The sibling before it, or its parent.
    pub(crate) before: Cell<Option<Ref<Thread>>>,
    pub(crate) at: Cell<u64>,
    pub(crate) linked: Cell<bool>,
}

/// A thread. Its registers come first: ports know that.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Thread {
    registers: Registers,
    pub(crate) space: Cell<Option<Ref<AddressSpace>>>,
    pub(crate) uses_floats: Cell<bool>,
    pub(crate) state: Cell<State>,
    pub(crate) priority: Cell<u8>,
    /// It waits in the line of those who would run.
    pub(crate) queued: Cell<bool>,
    /// Whether the message that it sends is to be answered.
    pub(crate) calls: Cell<bool>,
    /// Whether capabilities may go with it.
    pub(crate) grants: Cell<bool>,
    pub(crate) count: Cell<u32>,
    pub(crate) before: Cell<Option<Ref<Thread>>>,
    pub(crate) after: Cell<Option<Ref<Thread>>>,
    /// Where it sends to or receives from.
    pub(crate) endpoint: Cell<Option<Ref<Endpoint>>>,
    /// What it waits for.
    pub(crate) notification: Cell<Option<Ref<Notification>>>,
    /// The badge of the capability by which it sends.
    pub(crate) badge: Cell<u64>,
    pub(crate) context: Cell<Option<Ref<SchedulingContext>>>,
    /// While it receives, the reply object that it has at hand; while it waits for an answer, the one that owes it.
    pub(crate) reply: Cell<Option<Ref<Reply>>>,
    /// The notification that it gets as a message.
    pub(crate) bound: Cell<Option<Ref<Notification>>>,
    /// The physical address of its message buffer; 0 if it has none.
    pub(crate) buffer: Cell<u64>,
    pub(crate) fault: Cell<Option<Fault>>,
    pub(crate) heap: HeapLinks,
}

const _: () = assert!(size_of::<Thread>() as u64 <= FLOATS_AT);

impl Object for Thread {
    fn fresh() -> Self {
        Self {
            registers: Registers {
                words: [const { Cell::new(0) }; registers::COUNT],
            },
            space: Cell::new(None),
            uses_floats: Cell::new(false),
            state: Cell::new(State::Inactive),
            priority: Cell::new(0),
            queued: Cell::new(false),
            calls: Cell::new(false),
            grants: Cell::new(false),
            count: Cell::new(0),
            before: Cell::new(None),
            after: Cell::new(None),
            endpoint: Cell::new(None),
            notification: Cell::new(None),
            badge: Cell::new(0),
            context: Cell::new(None),
            reply: Cell::new(None),
            bound: Cell::new(None),
            buffer: Cell::new(0),
            fault: Cell::new(None),
            heap: HeapLinks {
                child: Cell::new(None),
                sibling: Cell::new(None),
                before: Cell::new(None),
                at: Cell::new(0),
                linked: Cell::new(false),
            },
        }
    }
}

impl Thread {
    /// Its registers while it does not run.
    #[inline(always)]
    pub fn registers(&self) -> &Registers {
        &self.registers
    }

    /// Whether it uses the floating-point unit.
    #[inline(always)]
    pub fn uses_floats(&self) -> bool {
        self.uses_floats.get()
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        self.state.get()
    }

    /// Its priority.
    pub fn priority(&self) -> u8 {
        self.priority.get()
    }

    /// Whether it waits in the line of those who would run.
    pub fn queued(&self) -> bool {
        self.queued.get()
    }

    /// How many capabilities there are for it.
    pub fn count(&self) -> u32 {
        self.count.get()
    }

    /// Who is behind it in its line.
    pub fn after(&self) -> Option<Ref<Thread>> {
        self.after.get()
    }

    /// The time that it has, if it has any.
    pub fn context(&self) -> Option<Ref<SchedulingContext>> {
        self.context.get()
    }

    /// The reply object that it has at hand, or that owes it an answer.
    pub fn reply(&self) -> Option<Ref<Reply>> {
        self.reply.get()
    }

    /// The notification that it gets as a message.
    pub fn bound(&self) -> Option<Ref<Notification>> {
        self.bound.get()
    }

    /// Where it sends to or receives from.
    pub fn endpoint(&self) -> Option<Ref<Endpoint>> {
        self.endpoint.get()
    }

    /// When it is woken, if it waits for a moment.
    pub fn alarm(&self) -> Option<u64> {
        self.heap.linked.get().then(|| self.heap.at.get())
    }

    /// What it has done that it cannot go on.
    pub fn fault(&self) -> Option<Fault> {
        self.fault.get()
    }
}

/// A slot of a thread.
#[must_use]
#[inline(always)]
pub fn slot(thread: Ref<Thread>, which: ThreadSlot) -> Ref<Slot> {
    let bytes = which as u64 * SLOT_BYTES;
    thread.offset(-(((SLOTS_BYTES - bytes) / UNIT_BYTES) as i32))
}

/// The thread to whom this slot belongs, if its memory begins at `base`.
pub(crate) fn in_memory(base: u64) -> Option<Ref<Thread>> {
    Ref::at(base + SLOTS_BYTES)
}

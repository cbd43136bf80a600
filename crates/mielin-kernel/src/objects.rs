//! The objects, but for [threads](crate::thread): what they consist of. What they do is in the modules of the kernel.
//!
//! All fields are cells, so that the kernel can look at several objects while it changes one.

use core::cell::Cell;

use crate::abi::REGISTER_WORDS;
use crate::capability::Capability;
use crate::machine::Page;
use crate::reference::Ref;
use crate::thread::Thread;

/// What a [`Machine`](crate::Machine) can keep at an address.
pub trait Object: Sized + 'static {
    /// A new one.
    fn fresh() -> Self;
}

/// Where a slot is in the derivation tree, beside whom.
///
/// The children of a slot are a list. Its first and last link say who the parent is, so that a slot without siblings knows it, and
/// a slot can go away in constant time whoever was derived from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It is a root.
    Nobody,
    /// This is the next one in the list.
    Sibling(Ref<Slot>),
    /// The list ends here, and this is its parent.
    Parent(Ref<Slot>),
}

/// A [`Link`] in 32 bits: slots are at multiples of 32 bytes, which leaves a bit to tell parents.
#[derive(Debug)]
struct PackedLink(Cell<u32>);

impl PackedLink {
    fn get(&self) -> Link {
        let packed = self.0.get();
        match core::num::NonZeroU32::new(packed & !1) {
            None => Link::Nobody,
            Some(units) if packed & 1 == 0 => Link::Sibling(Ref::from_units(units)),
            Some(units) => Link::Parent(Ref::from_units(units)),
        }
    }

    fn set(&self, link: Link) {
        self.0.set(match link {
            Link::Nobody => 0,
            Link::Sibling(slot) => slot.units().get(),
            Link::Parent(slot) => slot.units().get() | 1,
        });
    }
}

/// A place for a capability, and for its place in the derivation tree: [`SLOT_BYTES`](crate::abi::SLOT_BYTES).
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Slot {
    capability: Cell<Capability>,
    before: PackedLink,
    after: PackedLink,
    first: Cell<Option<Ref<Slot>>>,
    last: Cell<Option<Ref<Slot>>>,
}

const _: () = assert!(size_of::<Slot>() as u64 == crate::abi::SLOT_BYTES);

impl Object for Slot {
    #[inline]
    fn fresh() -> Self {
        Self {
            capability: Cell::new(Capability::Null),
            before: PackedLink(Cell::new(0)),
            after: PackedLink(Cell::new(0)),
            first: Cell::new(None),
            last: Cell::new(None),
        }
    }
}

impl Slot {
    /// What it holds.
    #[inline(always)]
    pub fn capability(&self) -> Capability {
        self.capability.get()
    }

    /// Whether it holds nothing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        matches!(self.capability.get(), Capability::Null)
    }

    /// Who is before it in the list of its parent's children.
    pub fn before(&self) -> Link {
        self.before.get()
    }

    /// Who is behind it.
    pub fn after(&self) -> Link {
        self.after.get()
    }

    /// The first that was derived from it.
    pub fn first_child(&self) -> Option<Ref<Slot>> {
        self.first.get()
    }

    /// The last one.
    pub fn last_child(&self) -> Option<Ref<Slot>> {
        self.last.get()
    }

    pub(crate) fn set(&self, capability: Capability) {
        self.capability.set(capability);
    }

    pub(crate) fn set_before(&self, link: Link) {
        self.before.set(link);
    }

    pub(crate) fn set_after(&self, link: Link) {
        self.after.set(link);
    }

    pub(crate) fn set_first_child(&self, child: Option<Ref<Slot>>) {
        self.first.set(child);
    }

    pub(crate) fn set_last_child(&self, child: Option<Ref<Slot>>) {
        self.last.set(child);
    }
}

/// A table of the MMU, or a page with message buffers. It comes cleared ([`Machine::clear`](crate::Machine::clear)).
impl Object for Page {
    fn fresh() -> Self {
        [const { Cell::new(0) }; 512]
    }
}

/// Threads in a row.
#[derive(Debug)]
pub struct Line {
    pub(crate) first: Cell<Option<Ref<Thread>>>,
    pub(crate) last: Cell<Option<Ref<Thread>>>,
}

impl Line {
    pub(crate) const fn empty() -> Self {
        Self {
            first: Cell::new(None),
            last: Cell::new(None),
        }
    }

    /// The first of them.
    #[inline(always)]
    pub fn first(&self) -> Option<Ref<Thread>> {
        self.first.get()
    }
}

/// For what threads wait at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Nobody waits.
    Nobody,
    /// To send.
    Senders,
    /// To receive.
    Receivers,
}

/// Where threads meet for messages.
#[derive(Debug)]
pub struct Endpoint {
    pub(crate) count: Cell<u32>,
    pub(crate) waiting: Cell<Waiting>,
    pub(crate) line: Line,
}

impl Object for Endpoint {
    fn fresh() -> Self {
        Self {
            count: Cell::new(0),
            waiting: Cell::new(Waiting::Nobody),
            line: Line::empty(),
        }
    }
}

impl Endpoint {
    /// How many capabilities there are for it.
    pub fn count(&self) -> u32 {
        self.count.get()
    }

    /// For what threads wait here.
    pub fn waiting(&self) -> Waiting {
        self.waiting.get()
    }

    /// Those threads.
    pub fn line(&self) -> &Line {
        &self.line
    }
}

/// Bits that can be raised and waited for.
#[derive(Debug)]
pub struct Notification {
    pub(crate) count: Cell<u32>,
    pub(crate) raised: Cell<u64>,
    pub(crate) line: Line,
    /// The thread that gets it as a message, whatever it receives from.
    pub(crate) bound: Cell<Option<Ref<Thread>>>,
}

impl Object for Notification {
    fn fresh() -> Self {
        Self {
            count: Cell::new(0),
            raised: Cell::new(0),
            line: Line::empty(),
            bound: Cell::new(None),
        }
    }
}

impl Notification {
    /// How many capabilities there are for it.
    pub fn count(&self) -> u32 {
        self.count.get()
    }

    /// The bits that are raised.
    pub fn raised(&self) -> u64 {
        self.raised.get()
    }

    /// Who waits for them.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// The thread that gets it as a message, whatever it receives from.
    pub fn bound(&self) -> Option<Ref<Thread>> {
        self.bound.get()
    }
}

/// Slots that a queue has in front of its own fields, for the notifications that it raises: when it has something, and when
/// it has room again.
pub(crate) const QUEUE_SLOTS: u64 = 2;

/// Where the messages of a queue begin, from the beginning of its memory, and how long each is.
pub(crate) const QUEUE_ENTRIES_AT: u64 = 128;
pub(crate) const QUEUE_ENTRY_BYTES: u64 = 64;

/// A bounded queue of messages.
#[derive(Debug)]
pub struct Queue {
    pub(crate) count: Cell<u32>,
    pub(crate) capacity: Cell<u32>,
    pub(crate) head: Cell<u32>,
    pub(crate) len: Cell<u32>,
}

impl Object for Queue {
    fn fresh() -> Self {
        Self {
            count: Cell::new(0),
            capacity: Cell::new(0),
            head: Cell::new(0),
            len: Cell::new(0),
        }
    }
}

impl Queue {
    /// How many capabilities there are for it.
    pub fn count(&self) -> u32 {
        self.count.get()
    }

    /// How many messages it can hold.
    pub fn capacity(&self) -> u32 {
        self.capacity.get()
    }

    /// How many it holds.
    pub fn len(&self) -> u32 {
        self.len.get()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len.get() == 0
    }
}

/// A message in a queue.
#[derive(Debug)]
pub struct Entry {
    pub(crate) info: Cell<u64>,
    pub(crate) badge: Cell<u64>,
    pub(crate) words: [Cell<u64>; REGISTER_WORDS],
}

impl Object for Entry {
    fn fresh() -> Self {
        Self {
            info: Cell::new(0),
            badge: Cell::new(0),
            words: [const { Cell::new(0) }; REGISTER_WORDS],
        }
    }
}

/// Which pages a thread sees.
#[derive(Debug)]
pub struct AddressSpace {
    pub(crate) count: Cell<u32>,
    /// What the MMU knows it by; never 0.
    pub(crate) identifier: Cell<u16>,
    pub(crate) root: Cell<Option<Ref<Page>>>,
    /// The MMU's root register for it; 0 while it has no table.
    pub(crate) value: Cell<u64>,
}

impl Object for AddressSpace {
    fn fresh() -> Self {
        Self {
            count: Cell::new(0),
            identifier: Cell::new(0),
            root: Cell::new(None),
            value: Cell::new(0),
        }
    }
}

impl AddressSpace {
    /// How many capabilities there are for it.
    pub fn count(&self) -> u32 {
        self.count.get()
    }

    /// What the MMU knows it by.
    pub fn identifier(&self) -> u16 {
        self.identifier.get()
    }

    /// Its first table.
    pub fn root(&self) -> Option<Ref<Page>> {
        self.root.get()
    }
}

/// What is above a reply in the stack of those who lent their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Above {
    /// The caller has lent no time, or has lost it.
    Nothing,
    /// A reply to somebody whom the time was lent on to.
    Reply(Ref<Reply>),
    /// Nothing: its caller is the last who lent this time.
    Top(Ref<SchedulingContext>),
}

/// The obligation to answer a caller.
#[derive(Debug)]
pub struct Reply {
    pub(crate) count: Cell<u32>,
    pub(crate) caller: Cell<Option<Ref<Thread>>>,
    /// Who has the object at hand to receive with.
    pub(crate) receiver: Cell<Option<Ref<Thread>>>,
    pub(crate) above: Cell<Above>,
    pub(crate) below: Cell<Option<Ref<Reply>>>,
}

impl Object for Reply {
    fn fresh() -> Self {
        Self {
            count: Cell::new(0),
            caller: Cell::new(None),
            receiver: Cell::new(None),
            above: Cell::new(Above::Nothing),
            below: Cell::new(None),
        }
    }
}

impl Reply {
    /// How many capabilities there are for it.
    pub fn count(&self) -> u32 {
        self.count.get()
    }

    /// Who waits for the answer.
    pub fn caller(&self) -> Option<Ref<Thread>> {
        self.caller.get()
    }

    /// Who waits for a message, to be answered by this.
    pub fn receiver(&self) -> Option<Ref<Thread>> {
        self.receiver.get()
    }

    /// What is above it in the stack of lenders.
    pub fn above(&self) -> Above {
        self.above.get()
    }

    /// What is below it.
    pub fn below(&self) -> Option<Ref<Reply>> {
        self.below.get()
    }
}

/// Parts into which a budget can be split: a power of two.
pub const REFILLS_MAX: usize = 8;

/// A part of a budget, and when it can be used.
#[derive(Debug)]
pub struct Refill {
    pub(crate) at: Cell<u64>,
    pub(crate) ticks: Cell<u64>,
}

/// Time on the processor: a budget in each period, by the rules of a sporadic server.
#[derive(Debug)]
pub struct SchedulingContext {
    pub(crate) count: Cell<u32>,
    /// Index of the first refill.
    pub(crate) head: Cell<u8>,
    /// How many there are; 0 if it was never configured.
    pub(crate) len: Cell<u8>,
    pub(crate) thread: Cell<Option<Ref<Thread>>>,
    /// The last who lent it.
    pub(crate) top: Cell<Option<Ref<Reply>>>,
    pub(crate) budget: Cell<u64>,
    /// 0 if the budget is a time slice.
    pub(crate) period: Cell<u64>,
    pub(crate) consumed: Cell<u64>,
    pub(crate) refills: [Refill; REFILLS_MAX],
}

impl Object for SchedulingContext {
    fn fresh() -> Self {
        Self {
            count: Cell::new(0),
            head: Cell::new(0),
            len: Cell::new(0),
            thread: Cell::new(None),
            top: Cell::new(None),
            budget: Cell::new(0),
            period: Cell::new(0),
            consumed: Cell::new(0),
            refills: [const {
                Refill {
                    at: Cell::new(0),
                    ticks: Cell::new(0),
                }
            }; REFILLS_MAX],
        }
    }
}

const _: () = assert!(size_of::<SchedulingContext>() <= 256);
const _: () = assert!(size_of::<Endpoint>() <= 32);
const _: () = assert!(size_of::<Notification>() <= 64);
const _: () = assert!(size_of::<Reply>() <= 64);
const _: () = assert!(size_of::<AddressSpace>() <= 32);
const _: () = assert!(size_of::<Queue>() as u64 + QUEUE_SLOTS * 32 <= QUEUE_ENTRIES_AT);
const _: () = assert!(size_of::<Entry>() as u64 <= QUEUE_ENTRY_BYTES);

impl SchedulingContext {
    /// How many capabilities there are for it.
    pub fn count(&self) -> u32 {
        self.count.get()
    }

    /// Who has its time now.
    pub fn thread(&self) -> Option<Ref<Thread>> {
        self.thread.get()
    }

    /// The last who lent it.
    pub fn top(&self) -> Option<Ref<Reply>> {
        self.top.get()
    }

    /// Ticks in a period, or in a slice.
    pub fn budget(&self) -> u64 {
        self.budget.get()
    }

    /// The period in ticks; 0 if the budget is a time slice.
    pub fn period(&self) -> u64 {
        self.period.get()
    }

    /// Ticks that were used since it was last asked.
    pub fn consumed(&self) -> u64 {
        self.consumed.get()
    }
}

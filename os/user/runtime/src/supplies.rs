//! Slots, memory and addresses that a program has for itself.

use mielin_kernel::abi::{Error, ObjectKind, Rights};

use crate::boot::Information;
use crate::devices::DeviceParts;
use crate::objects::{
    AddressSpace, Cap, Endpoint, Frame, Node, Notification, PageTable, Queue, Reply,
    SchedulingContext, Thread, Untyped,
};

/// What is left of slots of a node, of an untyped, and of the addresses of a space. Taken one after the other, and not
/// given back: whoever wants memory again revokes an untyped.
#[derive(Clone, Debug)]
pub struct Supplies {
    node: Node,
    space: AddressSpace,
    untyped: Untyped,
    /// The address of a slot of the node is `base`, and the slot's index from bit `shift` on.
    base: u64,
    shift: u32,
    next_slot: u64,
    slots_end: u64,
    next_address: u64,
    /// What became of device memory of which pages were taken.
    pub(crate) devices: DeviceParts,
}

impl Supplies {
    /// What the first thread has: its node, its space, and the largest piece of memory.
    ///
    /// # Panics
    /// If there is no memory.
    #[must_use]
    pub fn of_first_thread(information: Information) -> Self {
        let memory = information.untypeds().filter(|untyped| !untyped.device);
        let largest = memory.max_by_key(|untyped| untyped.bits);
        let untyped = largest.expect("the kernel gives memory").untyped;
        Self {
            node: information.node(),
            space: information.space(),
            untyped,
            base: 0,
            shift: 0,
            next_slot: information.free_slot(),
            slots_end: 1 << information.node_bits(),
            next_address: information.free_address().next_multiple_of(1 << 21),
            devices: DeviceParts::NONE,
        }
    }

    /// What a program has whose empty slots and addresses begin there.
    pub(crate) fn of_program(
        node: Node,
        space: AddressSpace,
        untyped: Untyped,
        slots: core::ops::Range<u64>,
        addresses: u64,
    ) -> Self {
        Self {
            node,
            space,
            untyped,
            base: 0,
            shift: 0,
            next_slot: slots.start,
            slots_end: slots.end,
            next_address: addresses.next_multiple_of(1 << 21),
            devices: DeviceParts::NONE,
        }
    }

    /// The same slots and addresses with other memory.
    #[must_use]
    pub fn with_memory(self, untyped: Untyped) -> Self {
        Self { untyped, ..self }
    }

    /// A node of its own for further objects: 2^bits slots of it, with the same addresses and another piece of memory. What is
    /// taken of it leaves these supplies as they are, so that it can be taken again when that memory was revoked. `slot` is where
    /// the node itself goes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn within(&self, untyped: Untyped, slot: u64, bits: u8) -> Result<Self, Error> {
        untyped.retype(ObjectKind::Node, bits, 1, self.node, slot)?;
        let Cap(base) = self.cap(slot);
        Ok(Self {
            node: Node(Cap(base)),
            space: self.space,
            untyped,
            base,
            shift: self.shift + self.bits(),
            next_slot: 1,
            slots_end: 1 << bits,
            next_address: self.next_address,
            devices: DeviceParts::NONE,
        })
    }

    /// What somebody else has in a node of 2^bits slots, whose capability is in these supplies' node: memory and an address space in its slots,
    /// and empty ones from `first` on.
    #[must_use]
    pub fn of_others(&self, node: Node, bits: u8, memory: u64, space: u64, first: u64) -> Self {
        Self {
            node,
            space: AddressSpace(self.cap_within(node, space)),
            untyped: Untyped(self.cap_within(node, memory)),
            base: node.0.0,
            shift: self.shift + self.bits(),
            next_slot: first,
            slots_end: 1 << bits,
            next_address: 0,
            devices: DeviceParts::NONE,
        }
    }

    fn bits(&self) -> u32 {
        self.slots_end.ilog2()
    }

    /// The address of the capability in a slot of the node.
    #[must_use]
    pub fn cap(&self, slot: u64) -> Cap {
        Cap(self.base | slot << self.shift)
    }

    /// The address of the capability in a slot of a node whose own capability is in these supplies' node.
    #[must_use]
    pub fn cap_within(&self, node: Node, slot: u64) -> Cap {
        Cap(node.0.0 | slot << (self.shift + self.bits()))
    }

    /// The index of the slot that an address of [`Supplies::cap`] means.
    #[must_use]
    pub fn index(&self, cap: Cap) -> u64 {
        cap.0 >> self.shift
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> Node {
        self.node
    }

    /// The address space.
    #[must_use]
    pub fn space(&self) -> AddressSpace {
        self.space
    }

    /// The memory.
    #[must_use]
    pub fn untyped(&self) -> Untyped {
        self.untyped
    }

    /// An empty slot.
    ///
    /// # Errors
    /// [`Error::NoMemory`] if there is none left.
    pub fn slot(&mut self) -> Result<u64, Error> {
        self.slots(1)
    }

    /// The first of some empty slots in a row.
    ///
    /// # Errors
    /// [`Error::NoMemory`] if there are not so many left.
    pub fn slots(&mut self, count: u64) -> Result<u64, Error> {
        let first = self.next_slot;
        let end = first.checked_add(count).ok_or(Error::NoMemory)?;
        if end > self.slots_end {
            return Err(Error::NoMemory);
        }
        self.next_slot = end;
        Ok(first)
    }

    /// Addresses that nobody uses, from a multiple of 2 MiB on.
    pub fn addresses(&mut self, bytes: u64) -> u64 {
        let at = self.next_address;
        self.next_address = (at + bytes + 4096).next_multiple_of(1 << 21);
        at
    }

    /// A new object.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn object(&mut self, kind: ObjectKind, size: u8) -> Result<Cap, Error> {
        let slot = self.slot()?;
        self.untyped.retype(kind, size, 1, self.node, slot)?;
        Ok(self.cap(slot))
    }

    /// A copy of a capability, with fewer rights, and a badge if it is not 0.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn mint(&mut self, from: Cap, rights: Rights, badge: u64) -> Result<Cap, Error> {
        let slot = self.slot()?;
        self.node.mint(slot, from, rights, badge)?;
        Ok(self.cap(slot))
    }

    /// A new endpoint.
    ///
    /// # Errors
    /// What the kernel says; as in the other functions.
    pub fn endpoint(&mut self) -> Result<Endpoint, Error> {
        self.object(ObjectKind::Endpoint, 0).map(Endpoint)
    }

    /// A new notification.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn notification(&mut self) -> Result<Notification, Error> {
        self.object(ObjectKind::Notification, 0).map(Notification)
    }

    /// A new reply object.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn reply(&mut self) -> Result<Reply, Error> {
        self.object(ObjectKind::Reply, 0).map(Reply)
    }

    /// A new queue in 2^bits bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn queue(&mut self, bits: u8) -> Result<Queue, Error> {
        self.object(ObjectKind::Queue, bits).map(Queue)
    }

    /// A new thread.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn thread(&mut self) -> Result<Thread, Error> {
        self.object(ObjectKind::Thread, 0).map(Thread)
    }

    /// New time.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn context(&mut self) -> Result<SchedulingContext, Error> {
        self.object(ObjectKind::SchedulingContext, 0)
            .map(SchedulingContext)
    }

    /// A new page of 4 KiB.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn frame(&mut self) -> Result<Frame, Error> {
        self.object(ObjectKind::Frame, 12).map(Frame)
    }

    /// A new node of 2^bits slots.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new_node(&mut self, bits: u8) -> Result<Node, Error> {
        self.object(ObjectKind::Node, bits).map(Node)
    }

    /// A new address space, with its root.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new_space(&mut self) -> Result<AddressSpace, Error> {
        let space = AddressSpace(self.object(ObjectKind::AddressSpace, 0)?);
        let root = PageTable(self.object(ObjectKind::PageTable, 0)?);
        root.map(space, 0)?;
        Ok(space)
    }

    /// Maps a page in a space, with whatever tables are missing.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn map(
        &mut self,
        frame: Frame,
        space: AddressSpace,
        address: u64,
        rights: Rights,
    ) -> Result<(), Error> {
        loop {
            match frame.map(space, address, rights) {
                Err(Error::NoTable) => {
                    let table = PageTable(self.object(ObjectKind::PageTable, 0)?);
                    table.map(space, address)?;
                }
                result => return result,
            }
        }
    }

    /// Maps `pages` new pages in this space, and gives the address.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn memory(&mut self, pages: u64) -> Result<u64, Error> {
        let at = self.addresses(pages << 12);
        for page in 0..pages {
            let frame = self.frame()?;
            let rights = Rights::READ.or(Rights::WRITE);
            self.map(frame, self.space, at + (page << 12), rights)?;
        }
        Ok(at)
    }

    /// Maps `count` new large pages, 2 MiB each, in this space, and gives the address.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn large_memory(&mut self, count: u64) -> Result<u64, Error> {
        let at = self.addresses(count << 21);
        for index in 0..count {
            let frame = Frame(self.object(ObjectKind::Frame, 21)?);
            let rights = Rights::READ.or(Rights::WRITE);
            self.map(frame, self.space, at + (index << 21), rights)?;
        }
        Ok(at)
    }
}

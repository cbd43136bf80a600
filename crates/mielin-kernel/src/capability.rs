//! What a slot can hold.

use crate::abi::{Error, Rights};
use crate::machine::Page;
use crate::objects::{AddressSpace, Endpoint, Notification, Queue, Reply, SchedulingContext, Slot};
use crate::reference::Ref;
use crate::thread::Thread;

/// The authority over an object: 16 bytes, so that a slot with its place in the derivation tree has 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Nothing.
    Null,
    /// Memory that can become objects. There is one capability for each: it is never copied.
    Untyped {
        /// Its physical address.
        base: u64,
        /// It has 2^bits bytes.
        bits: u8,
        /// Registers of devices, which can become frames only.
        device: bool,
        /// Units of [`UNIT_BYTES`](crate::UNIT_BYTES) from the beginning that were made objects since it was last empty.
        used: u32,
    },
    /// A node of slots.
    Node {
        /// Its slot 0.
        node: Ref<Slot>,
        /// It has 2^bits slots.
        bits: u8,
        /// What may be done: [`Rights::WRITE`] is to change it.
        rights: Rights,
    },
    /// In slot 0 of a node, which nobody can address.
    Header {
        /// How many capabilities there are for the node.
        count: u32,
        /// It has 2^bits slots.
        bits: u8,
    },
    /// In slot 0 of a node that has no other capability left: it takes the last one's place until all slots are empty.
    Dying {
        /// It has 2^bits slots.
        bits: u8,
        /// The next node that is dying.
        next: Option<Ref<Slot>>,
        /// The slots from this one on are empty.
        left: u32,
    },
    /// An endpoint.
    Endpoint {
        /// The object.
        endpoint: Ref<Endpoint>,
        /// What may be done.
        rights: Rights,
        /// What receivers see of messages that were sent by this capability.
        badge: u64,
    },
    /// A notification.
    Notification {
        /// The object.
        notification: Ref<Notification>,
        /// What may be done.
        rights: Rights,
        /// The bits that signals by this capability raise.
        badge: u64,
    },
    /// A queue.
    Queue {
        /// The object.
        queue: Ref<Queue>,
        /// What may be done.
        rights: Rights,
        /// What comes with messages that were pushed by this capability.
        badge: u64,
    },
    /// A thread.
    Thread {
        /// The object.
        thread: Ref<Thread>,
    },
    /// In a thread's slot: its address space.
    SpaceOf {
        /// The thread.
        thread: Ref<Thread>,
        /// The object.
        space: Ref<AddressSpace>,
    },
    /// In a thread's slot: the page with its message buffer.
    BufferOf {
        /// The thread.
        thread: Ref<Thread>,
        /// The page.
        page: u32,
    },
    /// An address space.
    AddressSpace {
        /// The object.
        space: Ref<AddressSpace>,
    },
    /// A table of the MMU. There is one capability for each: it is never copied.
    PageTable {
        /// The table.
        table: Ref<Page>,
        /// The level of the entry that leads to it; one more than the root's for the root.
        level: u8,
        /// The identifier of the address space; 0 if it is mapped nowhere.
        space: u16,
        /// The first virtual address that it decides, in pages of 4 KiB.
        at: u32,
    },
    /// Memory of programs.
    Frame {
        /// Its physical address, in pages of 4 KiB.
        page: u32,
        /// What it is, and may be.
        form: FrameForm,
        /// The identifier of the address space in which it is mapped; 0 if it is in none.
        space: u16,
        /// The virtual address there, in pages of 4 KiB.
        at: u32,
    },
    /// Time on the processor.
    SchedulingContext {
        /// The object.
        context: Ref<SchedulingContext>,
    },
    /// The obligation to answer.
    Reply {
        /// The object.
        reply: Ref<Reply>,
    },
    /// The right to say who has how much time.
    SchedulingControl {
        /// The highest priority that it allows.
        priority_max: u8,
    },
    /// The right to end the machine.
    Power,
    /// The right to give out interrupt lines.
    InterruptControl,
    /// An interrupt line. There is one capability for each: it is never copied.
    Interrupt {
        /// Its number, as the interrupt controller counts.
        line: u32,
    },
    /// I/O ports.
    Ports {
        /// The first.
        first: u16,
        /// The last.
        last: u16,
    },
}

/// Size and rights of a frame, in a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameForm(u8);

impl FrameForm {
    const LARGE: u8 = 1 << 4;
    const DEVICE: u8 = 1 << 5;

    /// A page of 4 KiB, or of 2 MiB; a device's registers, or memory.
    #[must_use]
    pub const fn new(large: bool, device: bool, rights: Rights) -> Self {
        let large = if large { Self::LARGE } else { 0 };
        let device = if device { Self::DEVICE } else { 0 };
        Self(rights.0 & 15 | large | device)
    }

    /// Whether it has 2 MiB.
    #[must_use]
    pub const fn is_large(self) -> bool {
        self.0 & Self::LARGE != 0
    }

    /// Whether it is a device's registers.
    #[must_use]
    pub const fn is_device(self) -> bool {
        self.0 & Self::DEVICE != 0
    }

    /// What may be done with it.
    #[must_use]
    pub const fn rights(self) -> Rights {
        Rights(self.0 & 15)
    }

    const fn with_rights(self, rights: Rights) -> Self {
        Self(self.0 & !15 | rights.0 & 15)
    }
}

impl Capability {
    /// The capability that a copy of this one is: with those rights that both this one and `rights` have, with `badge` if it is
    /// not 0, and mapped nowhere.
    pub(crate) fn derived(self, rights: Rights, badge: u64) -> Result<Self, Error> {
        let badged = |old: u64| match (old, badge) {
            (old, 0) => Ok(old),
            (0, new) => Ok(new),
            // Who has a badge cannot pass for another.
            _ => Err(Error::Denied),
        };
        let unbadged = |made: Self| match badge {
            0 => Ok(made),
            _ => Err(Error::InvalidArgument),
        };
        match self {
            Self::Null => Err(Error::NoCapability),
            Self::Untyped { .. } | Self::PageTable { .. } | Self::Interrupt { .. } => {
                Err(Error::NotCopyable)
            }
            Self::Header { .. }
            | Self::Dying { .. }
            | Self::SpaceOf { .. }
            | Self::BufferOf { .. } => Err(Error::NoCapability),
            Self::Endpoint {
                endpoint,
                rights: old,
                badge: own,
            } => Ok(Self::Endpoint {
                endpoint,
                rights: old.and(rights),
                badge: badged(own)?,
            }),
            Self::Notification {
                notification,
                rights: old,
                badge: own,
            } => Ok(Self::Notification {
                notification,
                rights: old.and(rights),
                badge: badged(own)?,
            }),
            Self::Queue {
                queue,
                rights: old,
                badge: own,
            } => Ok(Self::Queue {
                queue,
                rights: old.and(rights),
                badge: badged(own)?,
            }),
            Self::Node {
                node,
                bits,
                rights: old,
            } => unbadged(Self::Node {
                node,
                bits,
                rights: old.and(rights),
            }),
            Self::Frame { page, form, .. } => unbadged(Self::Frame {
                page,
                form: form.with_rights(form.rights().and(rights)),
                space: 0,
                at: 0,
            }),
            // The badge is the new limit.
            Self::SchedulingControl { priority_max } => match u8::try_from(badge) {
                Ok(0) => Ok(self),
                Ok(lower) if lower <= priority_max => Ok(Self::SchedulingControl {
                    priority_max: lower,
                }),
                _ => Err(Error::Denied),
            },
            // The badge is the new first and last port.
            Self::Ports { first, last } => {
                let (new_first, new_last) = ((badge >> 16) as u16, badge as u16);
                match badge {
                    0 => Ok(self),
                    1..=0xffff_ffff
                        if first <= new_first && new_first <= new_last && new_last <= last =>
                    {
                        Ok(Self::Ports {
                            first: new_first,
                            last: new_last,
                        })
                    }
                    _ => Err(Error::Denied),
                }
            }
            Self::Thread { .. }
            | Self::AddressSpace { .. }
            | Self::SchedulingContext { .. }
            | Self::Reply { .. }
            | Self::Power
            | Self::InterruptControl => unbadged(self),
        }
    }
}

//! What programs and the kernel agree upon: numbers of calls and methods, errors, the form of messages.
//!
//! A system call has eight arguments, in registers: its number, the address of a capability, a [`MessageInfo`], the first
//! four words of the message, and the address of a [reply](ObjectKind::Reply) capability; those that may wait for a given time
//! only have a ninth, the deadline. It gives back an [`Error`] (0 is success), a [`MessageInfo`], four words and a badge. Which
//! registers these are: [`registers`](crate::registers).

/// An enum of which every variant has a number, by which programs and the kernel name it.
macro_rules! numbered {
    (
        $(#[$doc:meta])*
        pub enum $name:ident {
            $($(#[$variant_doc:meta])* $variant:ident = $number:literal,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u64)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $number,)*
        }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: [Self; [$($number,)*].len()] = [$(Self::$variant,)*];

            /// The one with this number, if there is one.
            #[must_use]
            #[inline]
            pub const fn from_number(number: u64) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

/// Words of a message that travel in registers.
pub const REGISTER_WORDS: usize = 4;

/// Words that a message can have.
pub const MESSAGE_WORDS_MAX: usize = 120;

/// Capabilities that a message can carry.
pub const MESSAGE_CAPABILITIES_MAX: usize = 3;

/// A message buffer, in bytes; it begins at a multiple of them. Its words are, in order: [`MESSAGE_WORDS_MAX`] words of the
/// message, of which the first [`REGISTER_WORDS`] are not used, and those that follow here.
pub const BUFFER_BYTES: u64 = 1024;

/// In a message buffer, the word where the addresses of capabilities to be sent begin.
pub const BUFFER_CAPABILITIES: usize = 120;

/// In a message buffer, the word with the address of the node that is to get capabilities that come with a message.
pub const BUFFER_NODE: usize = 123;

/// In a message buffer, the word with the index in that node where the first of them goes; the next ones go behind it.
pub const BUFFER_INDEX: usize = 124;

/// Bytes of a slot for a capability: a node of 2^n slots has 2^n times as many.
pub const SLOT_BYTES: u64 = 32;

/// The smallest page, and a table of the MMU.
pub const PAGE_BITS: u8 = 12;

/// The largest untyped: 32 GiB.
pub const UNTYPED_BITS_MAX: u8 = 35;

/// The most objects that one call makes.
pub const RETYPE_MAX: u64 = 256;

numbered! {
    /// A system call.
    pub enum SystemCall {
        /// Sends a message to an endpoint and waits for the answer.
        Call = 0,
        /// Answers whom the reply capability owes an answer, if anybody, and receives the next message.
        ReplyReceive = 1,
        /// Sends a message to an endpoint, when somebody takes it.
        Send = 2,
        /// Waits for a message of an endpoint, or for a notification.
        Receive = 3,
        /// As [`SystemCall::Call`], until a deadline.
        CallUntil = 4,
        /// As [`SystemCall::ReplyReceive`], until a deadline.
        ReplyReceiveUntil = 5,
        /// As [`SystemCall::Send`], until a deadline. One that has passed sends only if somebody waits.
        SendUntil = 6,
        /// As [`SystemCall::Receive`], until a deadline. One that has passed polls.
        ReceiveUntil = 7,
        /// Answers whom the reply capability owes an answer.
        Reply = 8,
        /// Raises a notification.
        Signal = 9,
        /// Gives up the rest of the time slice, or of the budget until it is filled again.
        Yield = 10,
        /// Puts a message into a queue.
        Push = 11,
        /// Takes a message out of a queue.
        Pop = 12,
        /// Has the kernel do something with an object: the label of the message is a [`Method`].
        Invoke = 13,
    }
}

numbered! {
    /// Why a system call did not do what was asked. Nothing was changed then, but for what the variant says.
    pub enum Error {
        /// There is no such system call.
        UnknownCall = 1,
        /// No capability is at an address that was given.
        NoCapability = 2,
        /// A capability is for another kind of object than the call wants.
        WrongKind = 3,
        /// A capability lacks a right.
        Denied = 4,
        /// An argument makes no sense.
        InvalidArgument = 5,
        /// The deadline has passed. An answer that went before ([`SystemCall::ReplyReceiveUntil`]) has arrived.
        TimedOut = 6,
        /// What was waited for is no more: the endpoint, or the reply capability that would have been answered by.
        Gone = 7,
        /// Nobody waits for an answer here; or the message was taken by somebody who cannot answer.
        NoReply = 8,
        /// The reply capability still owes an answer to somebody else.
        ReplyInUse = 9,
        /// The untyped has not so much memory left.
        NoMemory = 10,
        /// There is a capability already.
        SlotTaken = 11,
        /// An address is not a multiple of what it must be one of, or not a program's.
        BadAddress = 12,
        /// Something is mapped there already, or this is mapped already.
        AlreadyMapped = 13,
        /// A table of the MMU is missing on the way to the address.
        NoTable = 14,
        /// The queue has no room.
        Full = 15,
        /// The queue has no message.
        Empty = 16,
        /// The object is bound to another.
        Bound = 17,
        /// The object is not bound, or lacks what the operation needs.
        NotBound = 18,
        /// The kernel's table of such objects is full.
        NoIdentifier = 19,
        /// This capability cannot be copied.
        NotCopyable = 20,
        /// The wait was ended by whoever controls the thread.
        Canceled = 21,
    }
}

impl Error {
    /// What a call gave back: 0 is success, and so `None`, as is a number that the kernel never gives.
    #[must_use]
    #[inline]
    pub const fn from_result(number: u64) -> Option<Self> {
        match number {
            0 => None,
            error => Self::from_number(error),
        }
    }
}

/// What a message is: a label, which means something to whom it is for, how many words, and how many capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct MessageInfo(pub u64);

impl MessageInfo {
    /// So many words with a label of at most 48 bits.
    #[must_use]
    #[inline]
    pub const fn new(label: u64, words: usize) -> Self {
        Self(label << 16 | words as u64 & 0xff)
    }

    /// The same with so many capabilities.
    #[must_use]
    #[inline]
    pub const fn with_capabilities(self, count: usize) -> Self {
        Self(self.0 & !0xff00 | (count as u64 & 0xff) << 8)
    }

    /// The label.
    #[must_use]
    #[inline]
    pub const fn label(self) -> u64 {
        self.0 >> 16
    }

    /// The words: at most [`MESSAGE_WORDS_MAX`], whatever was claimed.
    #[must_use]
    #[inline]
    pub const fn words(self) -> usize {
        let claimed = (self.0 & 0xff) as usize;
        if claimed > MESSAGE_WORDS_MAX {
            MESSAGE_WORDS_MAX
        } else {
            claimed
        }
    }

    /// The capabilities: at most [`MESSAGE_CAPABILITIES_MAX`], whatever was claimed.
    #[must_use]
    #[inline]
    pub const fn capabilities(self) -> usize {
        let claimed = (self.0 >> 8 & 0xff) as usize;
        if claimed > MESSAGE_CAPABILITIES_MAX {
            MESSAGE_CAPABILITIES_MAX
        } else {
            claimed
        }
    }

    /// Whether it is the whole message in registers: no capabilities, and at most [`REGISTER_WORDS`] words.
    #[must_use]
    #[inline]
    pub const fn is_short(self) -> bool {
        self.0 & 0xffff <= REGISTER_WORDS as u64
    }
}

/// What may be done by a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Rights(pub u8);

impl Rights {
    /// Receive, wait, pop; read a page.
    pub const READ: Self = Self(1);
    /// Send, signal, push; write a page; change a node.
    pub const WRITE: Self = Self(2);
    /// Have capabilities go with a message, and be answered: the right to call.
    pub const GRANT: Self = Self(4);
    /// Execute a page.
    pub const EXECUTE: Self = Self(8);
    /// All of them.
    pub const ALL: Self = Self(15);

    /// Whether all of `other` are among these.
    #[must_use]
    #[inline]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those that both have.
    #[must_use]
    #[inline]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that any of both has.
    #[must_use]
    #[inline]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

numbered! {
    /// What untyped memory can become.
    pub enum ObjectKind {
        /// Memory of its own, 2^size bytes of it.
        Untyped = 0,
        /// A node of 2^size slots for capabilities. Slot 0 is the kernel's.
        Node = 1,
        /// Where threads meet for messages.
        Endpoint = 2,
        /// A word of bits that can be raised and waited for.
        Notification = 3,
        /// A bounded queue of messages, in 2^size bytes.
        Queue = 4,
        /// A thread.
        Thread = 5,
        /// Which pages a thread sees.
        AddressSpace = 6,
        /// A table of the MMU.
        PageTable = 7,
        /// A page of 2^size bytes, of those sizes that the MMU has.
        Frame = 8,
        /// Time on the processor.
        SchedulingContext = 9,
        /// The obligation to answer a caller.
        Reply = 10,
    }
}

impl ObjectKind {
    /// The object's bytes as a power of two, for the size that was given. `None` if there is no such size.
    #[must_use]
    pub const fn bits(self, size: u8) -> Option<u8> {
        match self {
            Self::Untyped if size >= 5 && size <= UNTYPED_BITS_MAX => Some(size),
            Self::Node if size >= 1 && size <= 16 => Some(size + 5),
            Self::Queue if size >= 8 && size <= 16 => Some(size),
            Self::Frame if size == 12 || size == 21 => Some(size),
            Self::Endpoint | Self::AddressSpace => Some(5),
            Self::Notification | Self::Reply => Some(6),
            Self::SchedulingContext => Some(8),
            Self::Thread => Some(11),
            Self::PageTable => Some(PAGE_BITS),
            _ => None,
        }
    }
}

/// What is to be made of an untyped: a kind, a size and a number of objects in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Retype(pub u64);

impl Retype {
    /// So many objects (at most [`RETYPE_MAX`]) of a kind; `size` is what [`ObjectKind`] says of it, or 0.
    #[must_use]
    #[inline]
    pub const fn new(kind: ObjectKind, size: u8, count: u64) -> Self {
        Self(kind as u64 | (size as u64) << 8 | count << 16)
    }

    /// The number of the kind, whatever it is.
    #[must_use]
    pub const fn kind(self) -> u64 {
        self.0 & 0xff
    }

    /// The size.
    #[must_use]
    pub const fn size(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// How many.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.0 >> 16
    }
}

numbered! {
    /// What the kernel does with an object, by [`SystemCall::Invoke`]: the words of the message are its arguments.
    pub enum Method {
        /// Untyped: makes objects. Words: a [`Retype`], the address of the node that gets the capabilities, the index of the first.
        Retype = 0,
        /// Node: copies a capability into the slot with an index. Words: index, address of what is copied.
        Copy = 1,
        /// Node: copies with fewer rights or with a badge. Words: index, address, rights, badge. A badge of 0 keeps the one that is there; for
        /// a scheduling control the badge is the highest priority, and for I/O ports the first port and the last (first << 16 | last), and
        /// 0 keeps these, too: there are no copies for priority 0 or port 0 alone.
        Mint = 2,
        /// Node: moves a capability from an address, out of a node that may be changed, too. Words: index, address.
        Move = 3,
        /// Node: empties a slot. Words: index.
        Delete = 4,
        /// Node: deletes all that was derived from the capability in a slot. Words: index. If the node's own address is lost with it,
        /// the error is [`Error::NoCapability`], and something may be left.
        Revoke = 5,
        /// Thread: gives it one of its capabilities. Words: a [`ThreadSlot`], address, and for the buffer its offset in the page.
        Equip = 6,
        /// Thread: sets a register. Words: register, value.
        WriteRegister = 7,
        /// Thread: reads a register. Words: register. Gives the value.
        ReadRegister = 8,
        /// Thread: has it run, if it can.
        Resume = 9,
        /// Thread: has it stop.
        Suspend = 10,
        /// Thread: sets its priority. Words: priority, address of a control that allows it, 1 if the thread uses the floating-point unit.
        SetPriority = 11,
        /// Thread: has a notification come as a message to whatever it receives from. Words: address, or 0 to unbind.
        BindNotification = 12,
        /// Scheduling control: sets a context's time. Words: address of the context, budget and period in ticks; a period of 0 is
        /// a time slice, without limit. A budget has 10 microseconds at least.
        Configure = 13,
        /// Scheduling context: gives its time to a thread. Words: address, or 0 to unbind.
        BindThread = 14,
        /// Scheduling context: how many ticks it has consumed.
        Consumed = 15,
        /// Page table, frame: maps it. Words: address of the space, virtual address, and for frames rights.
        Map = 16,
        /// Page table, frame: unmaps it.
        Unmap = 17,
        /// Frame: where it is. Gives the physical address, for devices that read and write memory themselves.
        Address = 18,
        /// Interrupt control: makes a capability for a line. Words: line, node, index.
        Claim = 19,
        /// Interrupt: has it raise a notification. Words: address, or 0 to unbind.
        BindInterrupt = 20,
        /// Interrupt: it may come again.
        Acknowledge = 21,
        /// Queue: has a notification raised when it has something (words: 0, address) or room again (1, address).
        BindQueue = 22,
        /// I/O ports: reads. Words: port, bytes. Gives the value.
        ReadPort = 23,
        /// I/O ports: writes. Words: port, bytes, value.
        WritePort = 24,
        /// Untyped: where it is. Gives the physical address, size and how much of it is used.
        Describe = 25,
        /// Power: ends the machine. Words: 0 if all went well, else 1.
        ShutDown = 26,
    }
}

numbered! {
    /// The capabilities that a thread itself has.
    pub enum ThreadSlot {
        /// The node in which its addresses of capabilities are looked up.
        Node = 0,
        /// What it sees of memory.
        AddressSpace = 1,
        /// The page with its message buffer.
        Buffer = 2,
        /// The endpoint that is told of its faults.
        FaultEndpoint = 3,
        /// The endpoint that is told when its budget is used up.
        TimeoutEndpoint = 4,
    }
}

/// The label of a message that tells of a fault. Anybody can send one with this label: whoever receives from an endpoint to which others
/// send, too, tells them apart by the badge. Its words: a [`FaultKind`], the program counter, the address that was used
/// (page) or what the processor says of it, and 1 for a write, 2 for an instruction fetch. An answer lets the thread go on, at the
/// same instruction; its label 1 sets the program counter to its first word before.
pub const FAULT_LABEL: u64 = 0xffff_ffff_0001;

/// The label of what a thread gets that receives from an endpoint when the notification is raised that is bound to it: no words, and
/// the raised bits as the badge.
pub const NOTIFICATION_LABEL: u64 = 0xffff_ffff_0002;

numbered! {
    /// What a thread has done.
    pub enum FaultKind {
        /// It used memory that it may not use so.
        Page = 1,
        /// It executed something that it may not.
        Instruction = 2,
        /// It has used up its budget.
        Budget = 3,
        /// It came upon a breakpoint.
        Breakpoint = 4,
    }
}

/// What the first thread gets from the kernel: where its capabilities are, and what they are for.
pub mod boot {
    /// The first thread's own node.
    pub const NODE: u64 = 1;
    /// The thread itself.
    pub const THREAD: u64 = 2;
    /// Its address space.
    pub const ADDRESS_SPACE: u64 = 3;
    /// Its time.
    pub const SCHEDULING_CONTEXT: u64 = 4;
    /// All interrupt lines.
    pub const INTERRUPT_CONTROL: u64 = 5;
    /// All priorities.
    pub const SCHEDULING_CONTROL: u64 = 6;
    /// All I/O ports, where there are any.
    pub const PORTS: u64 = 7;
    /// The page with its message buffer, and that of the information that follows here.
    pub const PAGE: u64 = 8;
    /// The machine's end.
    pub const POWER: u64 = 9;
    /// The first of its untypeds.
    pub const UNTYPED_FIRST: u64 = 16;

    /// What the first word of the information is.
    pub const MAGIC: u64 = u64::from_le_bytes(*b"mielin01");
    /// Words of the information, by index: [`MAGIC`]; then
    pub const TICKS_PER_SECOND: usize = 1;
    /// how many untypeds there are;
    pub const UNTYPED_COUNT: usize = 2;
    /// the first slot of the node that is empty, as all behind it;
    pub const FREE_FIRST: usize = 3;
    /// the node's bits;
    pub const NODE_BITS: usize = 4;
    /// where the archive is mapped, readable;
    pub const ARCHIVE: usize = 5;
    /// its bytes;
    pub const ARCHIVE_BYTES: usize = 6;
    /// where what firmware says of the machine (a device tree) is mapped, readable; 0 if it says nothing;
    pub const FIRMWARE: usize = 7;
    /// its bytes;
    pub const FIRMWARE_BYTES: usize = 8;
    /// the bytes of memory that the kernel itself uses;
    pub const KERNEL_BYTES: usize = 9;
    /// the virtual address behind everything that is mapped;
    pub const FREE_ADDRESS: usize = 10;
    /// an identifier of the architecture: ELF's `e_machine`;
    pub const ARCHITECTURE: usize = 11;
    /// two words for each untyped: its physical address; its bits, and 256 more for a device's registers.
    pub const UNTYPEDS: usize = 16;
    /// The most untypeds that there are.
    pub const UNTYPEDS_MAX: usize = 180;
}

//! Objects of the kernel, and what can be done with them.
//!
//! Each function makes one system call. The errors are the kernel's: [`Error`] says what each means.

use mielin_kernel::abi::{
    Error, MessageInfo, Method, ObjectKind, Retype, Rights, SystemCall, ThreadSlot,
};

use crate::system_call::{Arguments, Received, make};

/// The address of a capability in the thread's own node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap(pub u64);

macro_rules! objects {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $name(pub Cap);
        )*
    };
}

objects! {
    /// Memory that can become objects.
    Untyped;
    /// Slots for capabilities.
    Node;
    /// Where threads meet for messages.
    Endpoint;
    /// Bits that can be raised and waited for.
    Notification;
    /// A bounded queue of messages.
    Queue;
    /// A thread.
    Thread;
    /// What a thread sees of memory.
    AddressSpace;
    /// A table of the MMU.
    PageTable;
    /// A page.
    Frame;
    /// Time.
    SchedulingContext;
    /// The obligation to answer.
    Reply;
    /// The right to say who has how much time.
    SchedulingControl;
    /// The right to give out interrupt lines.
    InterruptControl;
    /// An interrupt line.
    Interrupt;
    /// I/O ports.
    Ports;
    /// The right to end the machine.
    Power;
}

/// Has the kernel do something with an object.
///
/// # Errors
/// What the kernel says.
pub fn invoke(cap: Cap, method: Method, words: [u64; 4]) -> Result<[u64; 4], Error> {
    let arguments = Arguments {
        capability: cap.0,
        info: MessageInfo::new(method as u64, 4),
        words,
        ..Arguments::default()
    };
    make(SystemCall::Invoke, &arguments).map(|received| received.words)
}

fn done(cap: Cap, method: Method, words: [u64; 4]) -> Result<(), Error> {
    invoke(cap, method, words).map(|_| ())
}

impl Untyped {
    /// Makes `count` objects of a kind, with capabilities in a node from an index on.
    ///
    /// # Errors
    /// [`Error::NoMemory`], [`Error::SlotTaken`], [`Error::InvalidArgument`], [`Error::NoIdentifier`].
    pub fn retype(
        self,
        kind: ObjectKind,
        size: u8,
        count: u64,
        node: Node,
        index: u64,
    ) -> Result<(), Error> {
        let what = Retype::new(kind, size, count);
        done(self.0, Method::Retype, [what.0, node.0.0, index, 0])
    }

    /// Its physical address, its bits, and how many of its bytes are used.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn describe(self) -> Result<(u64, u8, u64), Error> {
        let [base, bits, used, _] = invoke(self.0, Method::Describe, [0; 4])?;
        Ok((base, bits as u8, used))
    }
}

impl Node {
    /// Copies a capability.
    ///
    /// # Errors
    /// [`Error::NotCopyable`], [`Error::SlotTaken`].
    pub fn copy(self, index: u64, from: Cap) -> Result<(), Error> {
        done(self.0, Method::Copy, [index, from.0, 0, 0])
    }

    /// Copies a capability with fewer rights, and a badge if it is not 0.
    ///
    /// # Errors
    /// [`Error::NotCopyable`], [`Error::SlotTaken`], [`Error::Denied`] if it has a badge already.
    pub fn mint(self, index: u64, from: Cap, rights: Rights, badge: u64) -> Result<(), Error> {
        done(
            self.0,
            Method::Mint,
            [index, from.0, u64::from(rights.0), badge],
        )
    }

    /// Moves a capability.
    ///
    /// # Errors
    /// [`Error::SlotTaken`].
    pub fn take(self, index: u64, from: Cap) -> Result<(), Error> {
        done(self.0, Method::Move, [index, from.0, 0, 0])
    }

    /// Deletes the capability in a slot.
    ///
    /// # Errors
    /// What the kernel says; an empty slot is none.
    pub fn delete(self, index: u64) -> Result<(), Error> {
        done(self.0, Method::Delete, [index, 0, 0, 0])
    }

    /// Deletes all that was derived from the capability in a slot.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn revoke(self, index: u64) -> Result<(), Error> {
        done(self.0, Method::Revoke, [index, 0, 0, 0])
    }
}

/// A message of at most four words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What the words mean.
    pub label: u64,
    /// How many words there are, also in the buffer.
    pub len: usize,
    /// Capabilities in the buffer that go with it.
    pub capabilities: usize,
    /// The first of them.
    pub words: [u64; 4],
}

impl Message {
    /// With these words.
    #[must_use]
    pub fn new<const N: usize>(label: u64, words: [u64; N]) -> Self {
        const { assert!(N <= 4) };
        let mut all = [0; 4];
        all[..N].copy_from_slice(&words);
        Self {
            label,
            len: N,
            capabilities: 0,
            words: all,
        }
    }

    /// With words in the buffer, too.
    #[must_use]
    pub fn long(self, len: usize) -> Self {
        Self { len, ..self }
    }

    /// With capabilities.
    #[must_use]
    pub fn with_capabilities(self, capabilities: usize) -> Self {
        Self {
            capabilities,
            ..self
        }
    }

    fn info(&self) -> MessageInfo {
        MessageInfo::new(self.label, self.len).with_capabilities(self.capabilities)
    }
}

impl Endpoint {
    fn arguments(self, message: &Message) -> Arguments {
        Arguments {
            capability: self.0.0,
            info: message.info(),
            words: message.words,
            ..Arguments::default()
        }
    }

    /// Sends a message and waits for the answer.
    ///
    /// # Errors
    /// [`Error::Gone`] if nobody will answer any more; [`Error::NoReply`], [`Error::Denied`].
    pub fn call(self, message: &Message) -> Result<Received, Error> {
        make(SystemCall::Call, &self.arguments(message))
    }

    /// The same until a deadline.
    ///
    /// # Errors
    /// Also [`Error::TimedOut`].
    pub fn call_until(self, message: &Message, deadline: u64) -> Result<Received, Error> {
        let arguments = Arguments {
            deadline,
            ..self.arguments(message)
        };
        make(SystemCall::CallUntil, &arguments)
    }

    /// Sends a message when somebody takes it.
    ///
    /// # Errors
    /// [`Error::Gone`], [`Error::Denied`].
    pub fn send(self, message: &Message) -> Result<(), Error> {
        make(SystemCall::Send, &self.arguments(message)).map(|_| ())
    }

    /// The same until a deadline; 0 sends only if somebody waits.
    ///
    /// # Errors
    /// Also [`Error::TimedOut`].
    pub fn send_until(self, message: &Message, deadline: u64) -> Result<(), Error> {
        let arguments = Arguments {
            deadline,
            ..self.arguments(message)
        };
        make(SystemCall::SendUntil, &arguments).map(|_| ())
    }

    /// Waits for a message. Calls can be answered if there is a reply object.
    ///
    /// # Errors
    /// [`Error::Gone`], [`Error::Denied`], [`Error::ReplyInUse`].
    pub fn receive(self, reply: Option<Reply>) -> Result<Received, Error> {
        receive(self.0, reply)
    }

    /// The same until a deadline; 0 looks only.
    ///
    /// # Errors
    /// Also [`Error::TimedOut`].
    pub fn receive_until(self, reply: Option<Reply>, deadline: u64) -> Result<Received, Error> {
        receive_until(self.0, reply, deadline)
    }

    /// Answers, and waits for the next message.
    ///
    /// # Errors
    /// As for [`Endpoint::receive`].
    pub fn reply_receive(self, reply: Reply, answer: &Message) -> Result<Received, Error> {
        let arguments = Arguments {
            reply: reply.0.0,
            ..self.arguments(answer)
        };
        make(SystemCall::ReplyReceive, &arguments)
    }

    /// The same until a deadline; 0 answers, and looks only.
    ///
    /// # Errors
    /// Also [`Error::TimedOut`]; the answer was given then.
    pub fn reply_receive_until(
        self,
        reply: Reply,
        answer: &Message,
        deadline: u64,
    ) -> Result<Received, Error> {
        let arguments = Arguments {
            reply: reply.0.0,
            deadline,
            ..self.arguments(answer)
        };
        make(SystemCall::ReplyReceiveUntil, &arguments)
    }
}

fn receive(cap: Cap, reply: Option<Reply>) -> Result<Received, Error> {
    let arguments = Arguments {
        capability: cap.0,
        reply: reply.map_or(0, |reply| reply.0.0),
        ..Arguments::default()
    };
    make(SystemCall::Receive, &arguments)
}

fn receive_until(cap: Cap, reply: Option<Reply>, deadline: u64) -> Result<Received, Error> {
    let arguments = Arguments {
        capability: cap.0,
        reply: reply.map_or(0, |reply| reply.0.0),
        deadline,
        ..Arguments::default()
    };
    make(SystemCall::ReceiveUntil, &arguments)
}

impl Reply {
    /// Answers.
    ///
    /// # Errors
    /// [`Error::NoReply`] if nobody waits.
    pub fn send(self, answer: &Message) -> Result<(), Error> {
        let arguments = Arguments {
            info: answer.info(),
            words: answer.words,
            reply: self.0.0,
            ..Arguments::default()
        };
        make(SystemCall::Reply, &arguments).map(|_| ())
    }
}

impl Notification {
    /// Raises the bits of this capability's badge.
    ///
    /// # Errors
    /// [`Error::Denied`].
    pub fn signal(self) -> Result<(), Error> {
        let arguments = Arguments {
            capability: self.0.0,
            ..Arguments::default()
        };
        make(SystemCall::Signal, &arguments).map(|_| ())
    }

    /// Waits for bits, and takes them.
    ///
    /// # Errors
    /// [`Error::Gone`], [`Error::Denied`].
    pub fn wait(self) -> Result<u64, Error> {
        receive(self.0, None).map(|received| received.badge)
    }

    /// The same until a deadline; 0 looks only.
    ///
    /// # Errors
    /// Also [`Error::TimedOut`].
    pub fn wait_until(self, deadline: u64) -> Result<u64, Error> {
        receive_until(self.0, None, deadline).map(|received| received.badge)
    }
}

impl Queue {
    /// Puts a message in.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Denied`], [`Error::InvalidArgument`] for what does not travel in registers.
    pub fn push(self, message: &Message) -> Result<(), Error> {
        let arguments = Arguments {
            capability: self.0.0,
            info: message.info(),
            words: message.words,
            ..Arguments::default()
        };
        make(SystemCall::Push, &arguments).map(|_| ())
    }

    /// Takes a message out.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Denied`].
    pub fn pop(self) -> Result<Received, Error> {
        let arguments = Arguments {
            capability: self.0.0,
            ..Arguments::default()
        };
        make(SystemCall::Pop, &arguments)
    }

    /// Has a notification raised when a message comes into the empty queue.
    ///
    /// # Errors
    /// [`Error::SlotTaken`] if another one is.
    pub fn tell_of_messages(self, notification: Option<Notification>) -> Result<(), Error> {
        let address = notification.map_or(0, |notification| notification.0.0);
        done(self.0, Method::BindQueue, [0, address, 0, 0])
    }

    /// Has a notification raised when the full queue has room again.
    ///
    /// # Errors
    /// [`Error::SlotTaken`] if another one is.
    pub fn tell_of_room(self, notification: Option<Notification>) -> Result<(), Error> {
        let address = notification.map_or(0, |notification| notification.0.0);
        done(self.0, Method::BindQueue, [1, address, 0, 0])
    }
}

impl Thread {
    /// Gives it one of its own capabilities; `offset` is that of the buffer in its page.
    ///
    /// # Errors
    /// [`Error::SlotTaken`] if it has one, [`Error::WrongKind`], [`Error::Denied`].
    pub fn equip(self, which: ThreadSlot, cap: Cap, offset: u64) -> Result<(), Error> {
        done(self.0, Method::Equip, [which as u64, cap.0, offset, 0])
    }

    /// Sets a register, by its index of [`mielin_kernel::registers`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is none.
    pub fn write_register(self, register: usize, value: u64) -> Result<(), Error> {
        done(
            self.0,
            Method::WriteRegister,
            [register as u64, value, 0, 0],
        )
    }

    /// Reads a register.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is none.
    pub fn read_register(self, register: usize) -> Result<u64, Error> {
        invoke(self.0, Method::ReadRegister, [register as u64, 0, 0, 0]).map(|words| words[0])
    }

    /// Lets it run.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn resume(self) -> Result<(), Error> {
        done(self.0, Method::Resume, [0; 4])
    }

    /// Stops it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn suspend(self) -> Result<(), Error> {
        done(self.0, Method::Suspend, [0; 4])
    }

    /// Sets its priority, and whether it uses the floating-point unit.
    ///
    /// # Errors
    /// [`Error::Denied`] if the control does not allow it.
    pub fn set_priority(
        self,
        priority: u8,
        control: SchedulingControl,
        floats: bool,
    ) -> Result<(), Error> {
        let words = [u64::from(priority), control.0.0, u64::from(floats), 0];
        done(self.0, Method::SetPriority, words)
    }

    /// Has a notification come as a message to whatever it receives from.
    ///
    /// # Errors
    /// [`Error::Bound`] if one of both is bound.
    pub fn bind(self, notification: Option<Notification>) -> Result<(), Error> {
        let address = notification.map_or(0, |notification| notification.0.0);
        done(self.0, Method::BindNotification, [address, 0, 0, 0])
    }
}

impl SchedulingControl {
    /// Sets a budget in ticks for each period; a period of 0 makes it a time slice, without limit.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a budget of 0, or one that is longer than its period.
    pub fn configure(
        self,
        context: SchedulingContext,
        budget: u64,
        period: u64,
    ) -> Result<(), Error> {
        done(self.0, Method::Configure, [context.0.0, budget, period, 0])
    }
}

impl SchedulingContext {
    /// Gives its time to a thread, or takes it back.
    ///
    /// # Errors
    /// [`Error::Bound`].
    pub fn bind(self, thread: Option<Thread>) -> Result<(), Error> {
        let address = thread.map_or(0, |thread| thread.0.0);
        done(self.0, Method::BindThread, [address, 0, 0, 0])
    }

    /// Ticks that were used since the last time this was asked.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn consumed(self) -> Result<u64, Error> {
        invoke(self.0, Method::Consumed, [0; 4]).map(|words| words[0])
    }
}

impl PageTable {
    /// Maps it where a table is missing on the way to an address.
    ///
    /// # Errors
    /// [`Error::AlreadyMapped`] if none is missing or it is mapped, [`Error::BadAddress`].
    pub fn map(self, space: AddressSpace, address: u64) -> Result<(), Error> {
        done(self.0, Method::Map, [space.0.0, address, 0, 0])
    }

    /// Takes it out, and empties it.
    ///
    /// # Errors
    /// [`Error::NotBound`] if it is not mapped.
    pub fn unmap(self) -> Result<(), Error> {
        done(self.0, Method::Unmap, [0; 4])
    }
}

impl Frame {
    /// Maps it.
    ///
    /// # Errors
    /// [`Error::NoTable`], [`Error::AlreadyMapped`], [`Error::BadAddress`], [`Error::Denied`]; [`Error::InvalidArgument`]
    /// for rights that no page can have.
    pub fn map(self, space: AddressSpace, address: u64, rights: Rights) -> Result<(), Error> {
        done(
            self.0,
            Method::Map,
            [space.0.0, address, u64::from(rights.0), 0],
        )
    }

    /// Takes it out.
    ///
    /// # Errors
    /// [`Error::NotBound`] if it is not mapped.
    pub fn unmap(self) -> Result<(), Error> {
        done(self.0, Method::Unmap, [0; 4])
    }

    /// Its physical address.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn address(self) -> Result<u64, Error> {
        invoke(self.0, Method::Address, [0; 4]).map(|words| words[0])
    }
}

impl InterruptControl {
    /// Makes a capability for a line.
    ///
    /// # Errors
    /// [`Error::Bound`] if somebody has it, [`Error::InvalidArgument`] if there is none.
    pub fn claim(self, line: u32, node: Node, index: u64) -> Result<(), Error> {
        done(self.0, Method::Claim, [u64::from(line), node.0.0, index, 0])
    }
}

impl Interrupt {
    /// Has it raise a notification, and lets it come.
    ///
    /// # Errors
    /// [`Error::SlotTaken`] if it raises another.
    pub fn bind(self, notification: Option<Notification>) -> Result<(), Error> {
        let address = notification.map_or(0, |notification| notification.0.0);
        done(self.0, Method::BindInterrupt, [address, 0, 0, 0])
    }

    /// It was served: it may come again.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn acknowledge(self) -> Result<(), Error> {
        done(self.0, Method::Acknowledge, [0; 4])
    }
}

impl Ports {
    /// Reads 1, 2 or 4 bytes.
    ///
    /// # Errors
    /// [`Error::Denied`] for other ports than its own, [`Error::InvalidArgument`] where there are none.
    pub fn read(self, port: u16, bytes: u8) -> Result<u32, Error> {
        let words = [u64::from(port), u64::from(bytes), 0, 0];
        invoke(self.0, Method::ReadPort, words).map(|words| words[0] as u32)
    }

    /// Writes 1, 2 or 4 bytes.
    ///
    /// # Errors
    /// As for [`Ports::read`].
    pub fn write(self, port: u16, bytes: u8, value: u32) -> Result<(), Error> {
        let words = [u64::from(port), u64::from(bytes), u64::from(value), 0];
        done(self.0, Method::WritePort, words)
    }
}

impl Power {
    /// Ends the machine, and says whether all went well.
    ///
    /// # Errors
    /// What the kernel says, if it cannot.
    pub fn shut_down(self, success: bool) -> Result<(), Error> {
        done(self.0, Method::ShutDown, [u64::from(!success), 0, 0, 0])
    }
}

/// Gives up the rest of the time slice.
pub fn give_way() {
    // It cannot fail.
    let _ = make(SystemCall::Yield, &Arguments::default());
}

//! The kernel: what is the same for all objects, and who runs.

use core::cell::Cell;

use crate::abi::{Error, FaultKind, MessageInfo, Rights, SystemCall, ThreadSlot};
use crate::alarms::Alarms;
use crate::budget::Left;
use crate::capability::Capability;
use crate::lines::Runnable;
use crate::machine::Machine;
use crate::objects::{AddressSpace, Object, Reply, SchedulingContext, Slot};
use crate::reference::Ref;
use crate::registers;
use crate::thread::{self, Fault, State, Thread};

/// Address spaces that there can be at once. x86-64 tells 4,096 apart (process-context identifiers).
pub const SPACES_MAX: usize = 4096;

/// Interrupt lines that programs can have.
pub const LINES_MAX: u32 = 256;

/// The arguments of a system call, as they came in registers.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Which call.
    pub number: u64,
    /// The address of a capability.
    pub capability: u64,
    /// What the message is.
    pub info: MessageInfo,
    /// Its first words.
    pub words: [u64; 4],
    /// The address of a reply capability.
    pub reply: u64,
}

/// Why a call does not end with success now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It failed.
    Error(Error),
    /// The thread waits; whoever wakes it says how it ended.
    Blocked,
    /// Something more urgent is to be served; then it is made again.
    Again,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// How a call went so far.
pub(crate) type Served = Result<(), Stop>;

/// The kernel of a machine with one processor.
#[derive(Debug)]
pub struct Kernel<M> {
    pub(crate) machine: M,
    pub(crate) current: Cell<Option<Ref<Thread>>>,
    /// The address space that the MMU uses, by its root register.
    pub(crate) loaded: Cell<u64>,
    pub(crate) runnable: Runnable,
    pub(crate) alarms: Alarms,
    /// Who pays for the time since `since`.
    pub(crate) charged: Cell<Option<Ref<SchedulingContext>>>,
    pub(crate) since: Cell<u64>,
    /// When the machine's alarm comes.
    pub(crate) alarm: Cell<u64>,
    /// The smallest budget, in ticks: with a smaller one the kernel would do nothing but count it.
    pub(crate) budget_min: Cell<u64>,
    /// Nodes without a capability that still have capabilities in their slots.
    pub(crate) dying: Cell<Option<Ref<Slot>>>,
    pub(crate) spaces: [Cell<Option<Ref<AddressSpace>>>; SPACES_MAX],
    /// Where the search for a free identifier begins.
    pub(crate) next_space: Cell<u16>,
    /// A slot for each interrupt line, with the notification that it raises.
    pub(crate) lines: Ref<Slot>,
    /// Which of them somebody has.
    pub(crate) claimed: [Cell<bool>; LINES_MAX as usize],
}

impl<M: Machine> Kernel<M> {
    /// A kernel without any objects. `lines` is memory for [`LINES_MAX`] slots, which have been placed.
    pub const fn new(machine: M, lines: Ref<Slot>) -> Self {
        Self {
            machine,
            current: Cell::new(None),
            loaded: Cell::new(0),
            runnable: Runnable::new(),
            alarms: Alarms::new(),
            charged: Cell::new(None),
            since: Cell::new(0),
            alarm: Cell::new(u64::MAX),
            budget_min: Cell::new(1),
            dying: Cell::new(None),
            spaces: [const { Cell::new(None) }; SPACES_MAX],
            next_space: Cell::new(1),
            lines,
            claimed: [const { Cell::new(false) }; LINES_MAX as usize],
        }
    }

    /// The machine.
    #[inline(always)]
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The thread that is to run. `None` if nobody can: then the processor rests until an interrupt.
    #[inline(always)]
    pub fn current(&self) -> Option<Ref<Thread>> {
        self.current.get()
    }

    /// Who pays for the time now.
    pub fn charged(&self) -> Option<Ref<SchedulingContext>> {
        self.charged.get()
    }

    /// Serves a system call of the current thread, whose other registers have been saved in it.
    #[inline(always)]
    pub fn system_call(&self, request: Request) {
        if !self.system_call_fast(&request) {
            self.system_call_slow(request);
        }
    }

    /// Serves it if a fast path can; otherwise changes nothing, and gives `false`.
    #[inline(always)]
    pub fn system_call_fast(&self, request: &Request) -> bool {
        match request.number {
            n if n == SystemCall::Call as u64 => self.call_fast(request),
            n if n == SystemCall::ReplyReceive as u64 => self.reply_receive_fast(request),
            n if n == SystemCall::Yield as u64 => self.give_way_fast(),
            _ => false,
        }
    }

    /// The same without the fast paths: it ends in the same state.
    #[inline(never)]
    pub fn system_call_slow(&self, request: Request) {
        let Some(thread) = self.current.get() else {
            return;
        };
        let saved = self.object(thread).registers();
        saved.set(registers::NUMBER, request.number);
        saved.set(registers::CAPABILITY, request.capability);
        saved.set(registers::INFO, request.info.0);
        for (register, word) in registers::WORDS.into_iter().zip(request.words) {
            saved.set(register, word);
        }
        saved.set(registers::REPLY, request.reply);

        let served = match SystemCall::from_number(request.number) {
            Some(call) => self.serve(thread, call, &request),
            None => Err(Error::UnknownCall.into()),
        };
        // It may have ended its own thread.
        if self.current.get() == Some(thread) {
            let saved = self.object(thread).registers();
            match served {
                Ok(()) => saved.set(registers::ERROR, 0),
                Err(Stop::Error(error)) => saved.set(registers::ERROR, error as u64),
                Err(Stop::Blocked) => {}
                Err(Stop::Again) => {
                    let behind = saved.get(registers::PROGRAM_COUNTER);
                    let again = behind.wrapping_sub(registers::CALL_BYTES);
                    saved.set(registers::PROGRAM_COUNTER, again);
                }
            }
        }
        self.settle();
    }

    fn serve(&self, thread: Ref<Thread>, call: SystemCall, request: &Request) -> Served {
        let until = || Some(self.object(thread).registers().get(registers::DEADLINE));
        match call {
            SystemCall::Call => self.send(thread, request, true, None),
            SystemCall::CallUntil => self.send(thread, request, true, until()),
            SystemCall::Send => self.send(thread, request, false, None),
            SystemCall::SendUntil => self.send(thread, request, false, until()),
            SystemCall::Receive => self.receive(thread, request, None),
            SystemCall::ReceiveUntil => self.receive(thread, request, until()),
            SystemCall::ReplyReceive => self.reply_receive(thread, request, None),
            SystemCall::ReplyReceiveUntil => self.reply_receive(thread, request, until()),
            SystemCall::Reply => self.reply(thread, request),
            SystemCall::Signal => self.signal_by(thread, request.capability),
            SystemCall::Yield => {
                self.give_up_time(thread);
                Ok(())
            }
            SystemCall::Push => self.push(thread, request),
            SystemCall::Pop => self.pop(thread, request),
            SystemCall::Invoke => self.invoke(thread, request),
        }
    }

    /// The alarm has come, or time has passed.
    pub fn tick(&self) {
        self.alarm.set(u64::MAX);
        let now = self.machine.now();
        self.charge(now);
        while let Some((thread, at)) = self.alarms.first(&self.machine) {
            if at > now {
                break;
            }
            self.wake(thread);
        }
        self.settle();
        self.arm_for_current();
        self.arm_for_alarms();
    }

    /// An interrupt line asks to be served.
    pub fn interrupt(&self, line: u32) {
        self.machine.enable_line(line, false);
        if let Some(slot) = self.line(line)
            && let Capability::Notification {
                notification,
                badge,
                ..
            } = self.object(slot).capability()
        {
            self.signal(notification, badge);
        }
        self.settle();
    }

    /// The current thread has done something that it cannot go on with.
    pub fn fault(&self, fault: Fault) {
        if let Some(thread) = self.current.get() {
            self.raise(thread, fault);
        }
        self.settle();
    }

    /// The thread's moment has come.
    fn wake(&self, thread: Ref<Thread>) {
        self.alarms.remove(&self.machine, thread);
        if self.object(thread).state.get() == State::Ready {
            self.make_ready(thread);
        } else {
            self.end_wait(thread, Error::TimedOut);
        }
    }

    /// A thread's wait comes to nothing.
    pub(crate) fn end_wait(&self, thread: Ref<Thread>, error: Error) {
        self.cancel(thread);
        let object = self.object(thread);
        // A fault that nobody was told of stops the thread.
        if object.fault.get().is_some() {
            object.state.set(State::Inactive);
            return;
        }
        object.registers().set(registers::ERROR, error as u64);
        self.make_ready(thread);
    }

    /// Takes a thread out of whatever it waits for.
    pub(crate) fn cancel(&self, thread: Ref<Thread>) {
        let object = self.object(thread);
        self.alarms.remove(&self.machine, thread);
        match object.state.get() {
            State::Inactive => {}
            State::Ready => {
                if object.queued.get() {
                    self.runnable.remove(&self.machine, thread);
                }
            }
            State::Sending => self.leave_endpoint(thread),
            State::Receiving => {
                self.leave_endpoint(thread);
                self.drop_reply(thread);
            }
            State::Waiting => self.leave_notification(thread),
            State::Called => {
                if let Some(reply) = object.reply.get() {
                    self.release(reply);
                }
            }
        }
        object.state.set(State::Inactive);
    }

    /// Ends the obligation of a reply: its caller, if it has one, is let go, and gets the time back that it lent.
    pub(crate) fn release(&self, reply: Ref<Reply>) -> Option<Ref<Thread>> {
        let object = self.object(reply);
        let caller = object.caller.take();
        let context = self.pop_lender(reply);
        if let Some(caller) = caller {
            let thread = self.object(caller);
            thread.reply.set(None);
            if let Some(context) = context {
                self.give_time(context, caller);
            }
        }
        caller
    }

    /// A thread has the processor no more, by its own will.
    fn give_up_time(&self, thread: Ref<Thread>) {
        let now = self.machine.now();
        self.charge(now);
        let object = self.object(thread);
        let Some(context) = object.context.get() else {
            return;
        };
        // Charging may have ended its slice, and put it into the line, or told somebody that its budget is used up.
        if object.state.get() != State::Ready || object.queued.get() || object.heap.linked.get() {
            return;
        }
        self.spent(thread, self.object(context).give_up(now));
    }

    /// Notes the time that was used until now.
    pub(crate) fn charge(&self, now: u64) {
        let used = now.saturating_sub(self.since.replace(now));
        let Some(context) = self.charged.get() else {
            return;
        };
        let object = self.object(context);
        if !object.is_configured() {
            return;
        }
        let left = object.charge(used, now);
        if left != Left::Some
            && let Some(thread) = object.thread.get()
            && self.object(thread).state.get() == State::Ready
        {
            self.spent(thread, left);
        }
    }

    /// A thread that would run has used up what it had.
    #[inline(never)]
    fn spent(&self, thread: Ref<Thread>, left: Left) {
        let object = self.object(thread);
        if object.queued.get() {
            self.runnable.remove(&self.machine, thread);
        }
        match left {
            Left::Some | Left::NextSlice => self.runnable.push_last(&self.machine, thread),
            Left::NothingUntil(at) => {
                self.alarms.remove(&self.machine, thread);
                let told = thread::slot(thread, ThreadSlot::TimeoutEndpoint);
                match self.object(told).capability() {
                    Capability::Null => {
                        self.alarms.insert(&self.machine, thread, at);
                        self.arm(at);
                    }
                    _ => self.raise(
                        thread,
                        Fault {
                            kind: FaultKind::Budget,
                            address: at,
                            access: 0,
                        },
                    ),
                }
            }
        }
    }

    /// A thread can go on: it stands in line if it has time, else it waits for it.
    pub(crate) fn make_ready(&self, thread: Ref<Thread>) {
        let object = self.object(thread);
        object.state.set(State::Ready);
        if object.queued.get() || self.current.get() == Some(thread) {
            return;
        }
        let Some(context) = object.context.get() else {
            return;
        };
        let time = self.object(context);
        if !time.is_configured() {
            return;
        }
        if !time.is_slice() {
            let at = time.available_at();
            if at > self.machine.now() {
                self.alarms.remove(&self.machine, thread);
                self.alarms.insert(&self.machine, thread, at);
                self.arm(at);
                return;
            }
        }
        // Whoever was given the time of the thread that ran goes on in its place.
        match self.charged.get() == Some(context) {
            true => self.runnable.push_first(&self.machine, thread),
            false => self.runnable.push_last(&self.machine, thread),
        }
    }

    /// Gives time to a thread. Who had it before has none now.
    pub(crate) fn give_time(&self, context: Ref<SchedulingContext>, to: Ref<Thread>) {
        self.take_time(context);
        if self.object(to).context.get().is_some() {
            return;
        }
        self.object(context).thread.set(Some(to));
        self.object(to).context.set(Some(context));
    }

    /// Takes time from whoever has it.
    pub(crate) fn take_time(&self, context: Ref<SchedulingContext>) {
        let Some(holder) = self.object(context).thread.take() else {
            return;
        };
        let object = self.object(holder);
        object.context.set(None);
        if object.state.get() == State::Ready {
            if object.queued.get() {
                self.runnable.remove(&self.machine, holder);
            }
            self.alarms.remove(&self.machine, holder);
        }
    }

    /// Decides who runs, and who pays for it. At the end of each entry of the kernel.
    pub(crate) fn settle(&self) {
        let mut next = self.choose();
        if self.payer(next) != self.charged.get() {
            // Whoever ran until now pays, and that can change who is next.
            let now = self.machine.now();
            self.charge(now);
            self.charged.set(None);
            next = self.choose();
            let payer = self.payer(next);
            self.charged.set(payer);
            if let Some(payer) = payer {
                self.object(payer).begin(now);
            }
            self.arm_for_current();
        }
        if let Some(thread) = next {
            self.enter_space(self.object(thread));
        }
    }

    /// Who runs: the current thread if it can and nobody comes before it, else the first of those in line.
    #[inline(always)]
    fn choose(&self) -> Option<Ref<Thread>> {
        if let Some(thread) = self.current.get()
            && self.goes_on(thread)
        {
            if !self.runnable.outranks(self.object(thread).priority.get()) {
                return Some(thread);
            }
            self.runnable.push_first(&self.machine, thread);
        }
        self.current.set(self.runnable.pop(&self.machine));
        self.current.get()
    }

    /// Whether the current thread can go on.
    #[inline(always)]
    fn goes_on(&self, thread: Ref<Thread>) -> bool {
        let object = self.object(thread);
        let time = object.context.get();
        object.state.get() == State::Ready
            && time.is_some_and(|context| self.object(context).is_configured())
            && !object.queued.get()
            && !object.heap.linked.get()
    }

    #[inline(always)]
    fn payer(&self, thread: Option<Ref<Thread>>) -> Option<Ref<SchedulingContext>> {
        thread.and_then(|thread| self.object(thread).context.get())
    }

    /// Has the MMU use a thread's address space.
    #[inline(always)]
    pub(crate) fn enter_space(&self, thread: &Thread) {
        let root = match thread.space.get() {
            Some(space) => self.object(space).value.get(),
            None => 0,
        };
        if root != self.loaded.get() {
            self.loaded.set(root);
            self.machine.load_root(root);
        }
    }

    /// A scheduling context is no more, or was given another budget: it does not pay for what was until now.
    pub(crate) fn stop_charging(&self, context: Ref<SchedulingContext>) {
        if self.charged.get() == Some(context) {
            self.charge(self.machine.now());
            self.charged.set(None);
        }
    }

    fn arm_for_current(&self) {
        if let Some(context) = self.charged.get() {
            let stretch = self.object(context).stretch();
            self.arm(self.since.get().saturating_add(stretch));
        }
    }

    fn arm_for_alarms(&self) {
        if let Some((_, at)) = self.alarms.first(&self.machine) {
            self.arm(at);
        }
    }

    /// Has the alarm come at this time at the latest. One that is too early does no harm: then it is set again.
    #[inline(always)]
    pub(crate) fn arm(&self, at: u64) {
        if at < self.alarm.get() {
            self.alarm.set(at);
            self.machine.set_alarm(at);
        }
    }

    /// The slot at this address, as the thread sees it.
    ///
    /// The lowest bits of an address are an index into the thread's node, as many as the node has bits. If the others are not 0,
    /// that slot holds another node, in which they are looked up the same way. Slot 0 is never meant, so an address without
    /// further bits ends. Each node takes a bit at least, so there are at most 64 steps.
    #[inline]
    pub(crate) fn slot_at(&self, thread: Ref<Thread>, address: u64) -> Result<Ref<Slot>, Error> {
        let (slot, _) = self.slot_and_rights_at(thread, address)?;
        Ok(slot)
    }

    /// The same, with what the node's capability allows that led to it.
    pub(crate) fn slot_and_rights_at(
        &self,
        thread: Ref<Thread>,
        address: u64,
    ) -> Result<(Ref<Slot>, Rights), Error> {
        let root = thread::slot(thread, ThreadSlot::Node);
        let mut capability = self.object(root).capability();
        let mut rest = address;
        loop {
            let Capability::Node { node, bits, rights } = capability else {
                return Err(Error::NoCapability);
            };
            let slot = in_node(node, bits, rest).ok_or(Error::NoCapability)?;
            rest >>= bits;
            if rest == 0 {
                return Ok((slot, rights));
            }
            capability = self.object(slot).capability();
        }
    }

    /// The capability at this address.
    pub(crate) fn capability_at(
        &self,
        thread: Ref<Thread>,
        address: u64,
    ) -> Result<Capability, Error> {
        match self.object(self.slot_at(thread, address)?).capability() {
            Capability::Null => Err(Error::NoCapability),
            capability => Ok(capability),
        }
    }

    pub(crate) fn line(&self, line: u32) -> Option<Ref<Slot>> {
        (line < LINES_MAX).then(|| self.lines.offset(line as i32 * 2))
    }

    #[inline(always)]
    pub(crate) fn object<T: Object>(&self, at: Ref<T>) -> &T {
        self.machine.object(at)
    }
}

/// The slot of a node that the lowest bits of an address mean.
#[inline(always)]
pub(crate) fn in_node(node: Ref<Slot>, bits: u8, address: u64) -> Option<Ref<Slot>> {
    let index = address & ((1 << bits) - 1);
    (index != 0).then(|| node.after(index as u32 * 2))
}

//! Messages between threads: sending, receiving, answering, and the messages of the kernel itself about faults.

use crate::abi::{
    BUFFER_CAPABILITIES, BUFFER_INDEX, BUFFER_NODE, Error, FAULT_LABEL, MessageInfo,
    NOTIFICATION_LABEL, REGISTER_WORDS, Rights, ThreadSlot,
};
use crate::capability::Capability;
use crate::kernel::{Kernel, Request, Served, Stop, in_node};
use crate::machine::{Machine, Page};
use crate::objects::{Above, Endpoint, Reply, SchedulingContext, Waiting};
use crate::reference::Ref;
use crate::registers;
use crate::thread::{self, Fault, State, Thread};

/// The label of an answer to a fault that says where to go on.
const RESUME_AT: u64 = 1;

impl<M: Machine> Kernel<M> {
    pub(crate) fn send(
        &self,
        sender: Ref<Thread>,
        request: &Request,
        calls: bool,
        until: Option<u64>,
    ) -> Served {
        let capability = self.capability_at(sender, request.capability)?;
        let Capability::Endpoint {
            endpoint,
            rights,
            badge,
        } = capability
        else {
            return Err(Error::WrongKind.into());
        };
        let needed = match calls {
            true => Rights::WRITE.or(Rights::GRANT),
            false => Rights::WRITE,
        };
        if !rights.has(needed) {
            return Err(Error::Denied.into());
        }
        let object = self.object(sender);
        object.badge.set(badge);
        object.calls.set(calls);
        object.grants.set(rights.has(Rights::GRANT));
        self.send_to(sender, endpoint, until)
    }

    /// Hands a message over, if somebody waits for it; else waits for somebody.
    fn send_to(&self, sender: Ref<Thread>, endpoint: Ref<Endpoint>, until: Option<u64>) -> Served {
        let object = self.object(endpoint);
        if object.waiting.get() == Waiting::Receivers
            && let Some(receiver) = object.line.first()
        {
            self.leave_endpoint(receiver);
            let handed = self.hand_over(sender, receiver);
            if let (Err(Stop::Blocked), Some(until)) = (handed, until) {
                self.wait_until(sender, until);
            }
            self.make_ready(receiver);
            return handed;
        }
        self.enter_endpoint(sender, endpoint, State::Sending, until)
    }

    pub(crate) fn receive(
        &self,
        receiver: Ref<Thread>,
        request: &Request,
        until: Option<u64>,
    ) -> Served {
        match self.capability_at(receiver, request.capability)? {
            Capability::Endpoint {
                endpoint, rights, ..
            } => {
                if !rights.has(Rights::READ) {
                    return Err(Error::Denied.into());
                }
                let reply = match request.reply {
                    0 => None,
                    address => Some(self.reply_at(receiver, address)?),
                };
                if let Some(reply) = reply {
                    let reply = self.object(reply);
                    if reply.caller.get().is_some() || reply.receiver.get().is_some() {
                        return Err(Error::ReplyInUse.into());
                    }
                }
                self.receive_from(receiver, endpoint, reply, until)
            }
            Capability::Notification {
                notification,
                rights,
                ..
            } => {
                if !rights.has(Rights::READ) {
                    return Err(Error::Denied.into());
                }
                self.wait_for(receiver, notification, until)
            }
            _ => Err(Error::WrongKind.into()),
        }
    }

    pub(crate) fn reply_receive(
        &self,
        server: Ref<Thread>,
        request: &Request,
        until: Option<u64>,
    ) -> Served {
        // What cannot be received is not answered either, so that the call can be made again.
        let capability = self.capability_at(server, request.capability)?;
        let Capability::Endpoint {
            endpoint, rights, ..
        } = capability
        else {
            return Err(Error::WrongKind.into());
        };
        if !rights.has(Rights::READ) {
            return Err(Error::Denied.into());
        }
        let reply = self.reply_at(server, request.reply)?;
        if self.object(reply).receiver.get().is_some() {
            return Err(Error::ReplyInUse.into());
        }
        if self.object(reply).caller.get().is_some() {
            self.answer(server, reply);
        }
        self.receive_from(server, endpoint, Some(reply), until)
    }

    pub(crate) fn reply(&self, server: Ref<Thread>, request: &Request) -> Served {
        let reply = self.reply_at(server, request.reply)?;
        if self.object(reply).caller.get().is_none() {
            return Err(Error::NoReply.into());
        }
        self.answer(server, reply);
        Ok(())
    }

    fn reply_at(&self, thread: Ref<Thread>, address: u64) -> Result<Ref<Reply>, Error> {
        match self.capability_at(thread, address)? {
            Capability::Reply { reply } => Ok(reply),
            _ => Err(Error::WrongKind),
        }
    }

    /// Lets the caller of a reply go on, with the server's message. There is one.
    fn answer(&self, server: Ref<Thread>, reply: Ref<Reply>) {
        let Some(caller) = self.object(reply).caller.get() else {
            return;
        };
        let object = self.object(caller);
        self.alarms.remove(&self.machine, caller);
        if object.fault.take().is_some() {
            let from = self.object(server).registers();
            let to = object.registers();
            if MessageInfo(from.get(registers::INFO)).label() == RESUME_AT {
                to.set(registers::PROGRAM_COUNTER, from.get(registers::WORDS[0]));
            }
        } else {
            self.copy_message(server, caller, true);
            object.registers().set(registers::BADGE, 0);
            object.registers().set(registers::ERROR, 0);
        }
        self.release(reply);
        self.make_ready(caller);
    }

    fn receive_from(
        &self,
        receiver: Ref<Thread>,
        endpoint: Ref<Endpoint>,
        reply: Option<Ref<Reply>>,
        until: Option<u64>,
    ) -> Served {
        let object = self.object(receiver);
        if let Some(bound) = object.bound.get() {
            let raised = self.object(bound).raised.take();
            if raised != 0 {
                self.tell_of_notification(receiver, raised);
                return Ok(());
            }
        }
        object.reply.set(reply);
        if let Some(reply) = reply {
            self.object(reply).receiver.set(Some(receiver));
        }
        let waiting = self.object(endpoint);
        if waiting.waiting.get() == Waiting::Senders
            && let Some(sender) = waiting.line.first()
        {
            self.leave_endpoint(sender);
            let until = self.object(sender).alarm();
            self.alarms.remove(&self.machine, sender);
            match self.hand_over(sender, receiver) {
                // Its deadline is that of the answer, too.
                Err(Stop::Blocked) => {
                    if let Some(until) = until {
                        self.wait_until(sender, until);
                    }
                    self.wait_for_time(receiver);
                }
                Err(Stop::Error(error)) => self.end_wait(sender, error),
                Ok(()) | Err(Stop::Again) => {
                    self.object(sender).registers().set(registers::ERROR, 0);
                    self.make_ready(sender);
                }
            }
            return Ok(());
        }
        self.enter_endpoint(receiver, endpoint, State::Receiving, until)
    }

    /// The current thread may have been lent time that is used up: it goes on when there is some again.
    fn wait_for_time(&self, thread: Ref<Thread>) {
        let Some(context) = self.object(thread).context.get() else {
            return;
        };
        let time = self.object(context);
        if time.is_slice() || !time.is_configured() {
            return;
        }
        let at = time.available_at();
        if at > self.machine.now() {
            self.alarms.insert(&self.machine, thread, at);
            self.arm(at);
        }
    }

    /// Gives a message to a receiver, which waits no more. `Blocked` says that the sender waits for the answer.
    fn hand_over(&self, sender: Ref<Thread>, receiver: Ref<Thread>) -> Served {
        let (from, to) = (self.object(sender), self.object(receiver));
        match from.fault.get() {
            Some(fault) => self.tell_of_fault(sender, fault, receiver),
            None => self.copy_message(sender, receiver, from.grants.get()),
        }
        let registers = to.registers();
        registers.set(registers::BADGE, from.badge.get());
        registers.set(registers::ERROR, 0);
        let reply = to.reply.take();
        if let Some(reply) = reply {
            self.object(reply).receiver.set(None);
        }
        if !from.calls.get() {
            return Ok(());
        }
        let Some(reply) = reply else {
            return Err(Error::NoReply.into());
        };
        self.object(reply).caller.set(Some(sender));
        from.reply.set(Some(reply));
        from.state.set(State::Called);
        if to.context.get().is_none()
            && let Some(context) = from.context.get()
        {
            self.push_lender(reply, context);
            self.give_time(context, receiver);
        }
        Err(Stop::Blocked)
    }

    /// Copies what the sender's registers say: the words in registers, all of them; those in buffers, if both have one; the
    /// capabilities, if they may go with it.
    fn copy_message(&self, sender: Ref<Thread>, receiver: Ref<Thread>, grants: bool) {
        let (from, to) = (self.object(sender), self.object(receiver));
        let info = MessageInfo(from.registers().get(registers::INFO));
        for register in registers::WORDS {
            to.registers().set(register, from.registers().get(register));
        }
        let mut words = info.words();
        let mut capabilities = 0;
        if words > REGISTER_WORDS || info.capabilities() > 0 {
            match (self.buffer(from), self.buffer(to)) {
                (Some(source), Some(target)) => {
                    if words > REGISTER_WORDS {
                        for (source, target) in source[REGISTER_WORDS..words]
                            .iter()
                            .zip(&target[REGISTER_WORDS..words])
                        {
                            target.set(source.get());
                        }
                    }
                    if grants {
                        capabilities =
                            self.copy_capabilities(sender, receiver, info.capabilities());
                    }
                }
                _ => words = words.min(REGISTER_WORDS),
            }
        }
        let info = MessageInfo::new(info.label(), words).with_capabilities(capabilities);
        to.registers().set(registers::INFO, info.0);
    }

    /// Copies capabilities into the receiver's node, until one does not go. Gives their number.
    fn copy_capabilities(&self, sender: Ref<Thread>, receiver: Ref<Thread>, count: usize) -> usize {
        let (from, to) = (self.object(sender), self.object(receiver));
        let (Some(source), Some(target)) = (self.buffer(from), self.buffer(to)) else {
            return 0;
        };
        let Ok(Capability::Node { node, bits, rights }) =
            self.capability_at(receiver, target[BUFFER_NODE].get())
        else {
            return 0;
        };
        if !rights.has(Rights::WRITE) {
            return 0;
        }
        for done in 0..count {
            let address = source[BUFFER_CAPABILITIES + done].get();
            let index = target[BUFFER_INDEX].get().wrapping_add(done as u64);
            let inside = index >> bits == 0;
            let (Ok(original), Some(place)) =
                (self.slot_at(sender, address), in_node(node, bits, index))
            else {
                return done;
            };
            if !inside || self.derive(original, place, Rights::ALL, 0).is_err() {
                return done;
            }
        }
        count
    }

    /// The words of a thread's message buffer.
    fn buffer(&self, thread: &Thread) -> Option<&[core::cell::Cell<u64>]> {
        let address = thread.buffer.get();
        let page: Ref<Page> = Ref::at(address & !0xfff)?;
        let first = (address & 0xfff) as usize / 8;
        self.object(page).get(first..)
    }

    /// Has the kernel itself send a message for a thread that cannot go on. Without anybody to tell, the thread stops.
    pub(crate) fn raise(&self, thread: Ref<Thread>, fault: Fault) {
        let object = self.object(thread);
        object.fault.set(Some(fault));
        let which = match fault.kind {
            crate::abi::FaultKind::Budget => ThreadSlot::TimeoutEndpoint,
            _ => ThreadSlot::FaultEndpoint,
        };
        let told = self.object(thread::slot(thread, which)).capability();
        let Capability::Endpoint {
            endpoint, badge, ..
        } = told
        else {
            object.state.set(State::Inactive);
            return;
        };
        object.badge.set(badge);
        object.calls.set(true);
        object.grants.set(false);
        if let Err(Stop::Error(_)) = self.send_to(thread, endpoint, None) {
            // Whoever was told cannot answer.
            object.state.set(State::Inactive);
        }
    }

    fn tell_of_fault(&self, sender: Ref<Thread>, fault: Fault, receiver: Ref<Thread>) {
        let counter = self
            .object(sender)
            .registers()
            .get(registers::PROGRAM_COUNTER);
        let words = [
            fault.kind as u64,
            counter,
            fault.address,
            u64::from(fault.access),
        ];
        let to = self.object(receiver).registers();
        for (register, word) in registers::WORDS.into_iter().zip(words) {
            to.set(register, word);
        }
        to.set(
            registers::INFO,
            MessageInfo::new(FAULT_LABEL, words.len()).0,
        );
    }

    /// Gives a receiver the bits of the notification that is bound to it, in place of a message.
    pub(crate) fn tell_of_notification(&self, receiver: Ref<Thread>, raised: u64) {
        self.drop_reply(receiver);
        let to = self.object(receiver).registers();
        to.set(registers::INFO, MessageInfo::new(NOTIFICATION_LABEL, 0).0);
        to.set(registers::BADGE, raised);
        to.set(registers::ERROR, 0);
    }

    fn enter_endpoint(
        &self,
        thread: Ref<Thread>,
        endpoint: Ref<Endpoint>,
        state: State,
        until: Option<u64>,
    ) -> Served {
        let object = self.object(thread);
        if until.is_some_and(|until| until <= self.machine.now()) {
            self.drop_reply(thread);
            return Err(Error::TimedOut.into());
        }
        object.state.set(state);
        object.endpoint.set(Some(endpoint));
        let line = self.object(endpoint);
        line.waiting.set(match state {
            State::Sending => Waiting::Senders,
            _ => Waiting::Receivers,
        });
        line.line.push_last(&self.machine, thread);
        if let Some(until) = until {
            self.wait_until(thread, until);
        }
        Err(Stop::Blocked)
    }

    /// Takes a thread out of the line of its endpoint.
    pub(crate) fn leave_endpoint(&self, thread: Ref<Thread>) {
        let object = self.object(thread);
        if let Some(endpoint) = object.endpoint.take() {
            let endpoint = self.object(endpoint);
            endpoint.line.remove(&self.machine, thread);
            if endpoint.line.first().is_none() {
                endpoint.waiting.set(Waiting::Nobody);
            }
        }
        if object.state.get() == State::Receiving {
            // A message comes, or the wait ends; `hand_over` takes the reply object itself.
            self.alarms.remove(&self.machine, thread);
        }
    }

    /// Gives the reply object back that a thread has at hand to receive with.
    pub(crate) fn drop_reply(&self, thread: Ref<Thread>) {
        if let Some(reply) = self.object(thread).reply.take() {
            self.object(reply).receiver.set(None);
        }
    }

    pub(crate) fn wait_until(&self, thread: Ref<Thread>, until: u64) {
        // Who has lent its time waits for it.
        let object = self.object(thread);
        if object.state.get() == State::Called && object.context.get().is_none() {
            return;
        }
        self.alarms.insert(&self.machine, thread, until);
        self.arm(until);
    }

    /// Puts a reply on top of the stack of those who lent this time.
    fn push_lender(&self, reply: Ref<Reply>, context: Ref<SchedulingContext>) {
        let (lender, time) = (self.object(reply), self.object(context));
        let below = time.top.replace(Some(reply));
        if let Some(below) = below {
            self.object(below).above.set(Above::Reply(reply));
        }
        lender.below.set(below);
        lender.above.set(Above::Top(context));
    }

    /// Takes a reply out of the stack it is in. Gives the time that was lent, if its caller was the last who lent it.
    pub(crate) fn pop_lender(&self, reply: Ref<Reply>) -> Option<Ref<SchedulingContext>> {
        let lender = self.object(reply);
        let (above, below) = (lender.above.replace(Above::Nothing), lender.below.take());
        if let Some(below) = below {
            self.object(below).above.set(above);
        }
        match above {
            Above::Nothing => None,
            Above::Reply(next) => {
                self.object(next).below.set(below);
                None
            }
            Above::Top(context) => {
                self.object(context).top.set(below);
                Some(context)
            }
        }
    }
}

//! What the kernel does with objects on demand.

use crate::abi::{Error, Method, Rights, ThreadSlot};
use crate::capability::Capability;
use crate::kernel::{Kernel, Request, Served, in_node};
use crate::machine::Machine;
use crate::objects::{Notification, SchedulingContext, Slot};
use crate::queues;
use crate::reference::Ref;
use crate::registers;
use crate::thread::{self, State, Thread};

impl<M: Machine> Kernel<M> {
    pub(crate) fn invoke(&self, by: Ref<Thread>, request: &Request) -> Served {
        let method = Method::from_number(request.info.label()).ok_or(Error::InvalidArgument)?;
        let slot = self.slot_at(by, request.capability)?;
        let words = request.words;
        match (self.object(slot).capability(), method) {
            (Capability::Null, _) => Err(Error::NoCapability.into()),
            (Capability::Untyped { .. }, Method::Retype) => self.retype(by, slot, words),
            (
                Capability::Untyped {
                    base, bits, used, ..
                },
                Method::Describe,
            ) => self.give(
                by,
                [base, u64::from(bits), u64::from(used) * crate::UNIT_BYTES],
            ),
            (Capability::Node { node, bits, rights }, _) => {
                self.invoke_node(by, method, (node, bits, rights), request)
            }
            (Capability::Thread { thread }, _) => self.invoke_thread(by, thread, method, words),
            (Capability::SchedulingControl { .. }, Method::Configure) => self.configure(by, words),
            (Capability::SchedulingContext { context }, Method::BindThread) => {
                self.bind_thread(by, context, words[0])
            }
            (Capability::SchedulingContext { context }, Method::Consumed) => {
                if self.charged() == Some(context) {
                    self.charge(self.machine.now());
                }
                let consumed = self.object(context).consumed.take();
                self.give(by, [consumed, 0, 0])
            }
            (Capability::PageTable { .. }, Method::Map) => self.map_table(by, slot, words),
            (Capability::PageTable { .. }, Method::Unmap) => self.unmap_page_table(slot),
            (Capability::Frame { .. }, Method::Map) => self.map_frame(by, slot, words),
            (Capability::Frame { .. }, Method::Unmap) => self.unmap_page(slot),
            (Capability::Frame { page, .. }, Method::Address) => {
                self.give(by, [u64::from(page) << crate::abi::PAGE_BITS, 0, 0])
            }
            (Capability::InterruptControl, Method::Claim) => self.claim_line(by, slot, words),
            (Capability::Interrupt { line }, Method::BindInterrupt) => {
                self.bind_line(by, line, words[0])
            }
            (Capability::Interrupt { line }, Method::Acknowledge) => {
                self.machine.enable_line(line, true);
                Ok(())
            }
            (Capability::Queue { queue, rights, .. }, Method::BindQueue) => {
                if !rights.has(Rights::READ.or(Rights::WRITE)) {
                    return Err(Error::Denied.into());
                }
                let which = match words[0] {
                    0 => queues::HAS_MESSAGE,
                    1 => queues::HAS_ROOM,
                    _ => return Err(Error::InvalidArgument.into()),
                };
                self.bind_slot(by, queues::slot(queue, which), words[1])
            }
            (Capability::Power, Method::ShutDown) => {
                self.machine.shut_down(words[0] == 0);
                Ok(())
            }
            (Capability::Ports { first, last }, Method::ReadPort | Method::WritePort) => {
                self.access_port(by, (first, last), method == Method::WritePort, words)
            }
            _ => Err(Error::WrongKind.into()),
        }
    }

    /// The first words of the answer of a call that succeeds.
    pub(crate) fn give(&self, to: Ref<Thread>, words: [u64; 3]) -> Served {
        let registers = self.object(to).registers();
        for (register, word) in registers::WORDS.into_iter().zip(words) {
            registers.set(register, word);
        }
        Ok(())
    }

    fn invoke_node(
        &self,
        by: Ref<Thread>,
        method: Method,
        (node, bits, rights): (Ref<Slot>, u8, Rights),
        request: &Request,
    ) -> Served {
        let [index, address, mint_rights, badge] = request.words;
        if !rights.has(Rights::WRITE) {
            return Err(Error::Denied.into());
        }
        let place = place_in(node, bits, index)?;
        match method {
            Method::Copy => self.derive(self.slot_at(by, address)?, place, Rights::ALL, 0)?,
            Method::Mint => {
                let rights = Rights((mint_rights & 0xff) as u8);
                self.derive(self.slot_at(by, address)?, place, rights, badge)?;
            }
            Method::Move => {
                let (from, held) = self.slot_and_rights_at(by, address)?;
                if !held.has(Rights::WRITE) {
                    return Err(Error::Denied.into());
                }
                self.move_capability(from, place)?;
            }
            Method::Delete => {
                self.bury()?;
                if self.current() == Some(by) {
                    self.look_again(by, request.capability, (node, bits, rights))?;
                    return self.delete(place);
                }
            }
            Method::Revoke => {
                // Whatever may be deleted in between, this thread and this node included, ends it.
                while self.current() == Some(by) {
                    self.bury()?;
                    if self.current() != Some(by) {
                        break;
                    }
                    // What led to the slot was derived itself, so something may be left.
                    self.look_again(by, request.capability, (node, bits, rights))?;
                    if self.revoke_one(place)? {
                        break;
                    }
                    if self.machine.interrupted() {
                        return Err(crate::kernel::Stop::Again);
                    }
                }
            }
            _ => return Err(Error::WrongKind.into()),
        }
        Ok(())
    }

    /// Whether the capability for a node is still at its address, after something was deleted.
    fn look_again(
        &self,
        by: Ref<Thread>,
        address: u64,
        (node, bits, rights): (Ref<Slot>, u8, Rights),
    ) -> Result<(), Error> {
        match self.capability_at(by, address)? {
            found if found == (Capability::Node { node, bits, rights }) => Ok(()),
            _ => Err(Error::NoCapability),
        }
    }

    /// Makes a capability from another one, as its child.
    pub(crate) fn derive(
        &self,
        from: Ref<Slot>,
        to: Ref<Slot>,
        rights: Rights,
        badge: u64,
    ) -> Result<(), Error> {
        if !self.object(to).is_empty() {
            return Err(Error::SlotTaken);
        }
        let made = self.object(from).capability().derived(rights, badge)?;
        self.count(made);
        self.object(to).set(made);
        crate::derivation::adopt(&self.machine, from, to);
        Ok(())
    }

    /// There is one more capability for an object.
    pub(crate) fn count(&self, capability: Capability) {
        let count = match capability {
            Capability::Node { node, .. } => {
                if let Capability::Header { count, bits } = self.object(node).capability() {
                    let count = count + 1;
                    self.object(node).set(Capability::Header { count, bits });
                }
                return;
            }
            Capability::Endpoint { endpoint, .. } => &self.object(endpoint).count,
            Capability::Notification { notification, .. } => &self.object(notification).count,
            Capability::Queue { queue, .. } => &self.object(queue).count,
            Capability::Thread { thread } => &self.object(thread).count,
            Capability::AddressSpace { space } | Capability::SpaceOf { space, .. } => {
                &self.object(space).count
            }
            Capability::SchedulingContext { context } => &self.object(context).count,
            Capability::Reply { reply } => &self.object(reply).count,
            _ => return,
        };
        count.set(count.get() + 1);
    }

    fn move_capability(&self, from: Ref<Slot>, to: Ref<Slot>) -> Result<(), Error> {
        let (source, target) = (self.object(from), self.object(to));
        if source.is_empty() {
            return Err(Error::NoCapability);
        }
        if !target.is_empty() {
            return Err(Error::SlotTaken);
        }
        target.set(source.capability());
        source.set(Capability::Null);
        crate::derivation::relocate(&self.machine, from, to);
        Ok(())
    }

    fn invoke_thread(
        &self,
        by: Ref<Thread>,
        thread: Ref<Thread>,
        method: Method,
        words: [u64; 4],
    ) -> Served {
        let object = self.object(thread);
        let register = |index: u64| match usize::try_from(index) {
            Ok(index) if index < registers::COUNT => Ok(index),
            _ => Err(Error::InvalidArgument),
        };
        match method {
            Method::Equip => self.equip(by, thread, words)?,
            Method::WriteRegister => object.registers().set(register(words[0])?, words[1]),
            Method::ReadRegister => {
                let value = object.registers().get(register(words[0])?);
                return self.give(by, [value, 0, 0]);
            }
            Method::Resume => {
                if object.state.get() == State::Inactive {
                    object.fault.set(None);
                    self.make_ready(thread);
                }
            }
            Method::Suspend => self.suspend(thread),
            Method::SetPriority => self.set_priority(by, thread, words)?,
            Method::BindNotification => self.bind_notification(by, thread, words[0])?,
            _ => return Err(Error::WrongKind.into()),
        }
        Ok(())
    }

    /// Stops a thread. One that waited gets an error when it is resumed.
    fn suspend(&self, thread: Ref<Thread>) {
        let object = self.object(thread);
        let waited = !matches!(object.state.get(), State::Inactive | State::Ready);
        self.cancel(thread);
        if waited && object.fault.get().is_none() {
            object
                .registers()
                .set(registers::ERROR, Error::Canceled as u64);
        }
    }

    fn set_priority(
        &self,
        by: Ref<Thread>,
        thread: Ref<Thread>,
        [priority, control, floats, _]: [u64; 4],
    ) -> Result<(), Error> {
        let Capability::SchedulingControl { priority_max } = self.capability_at(by, control)?
        else {
            return Err(Error::WrongKind);
        };
        let priority = u8::try_from(priority).map_err(|_| Error::InvalidArgument)?;
        if priority > priority_max {
            return Err(Error::Denied);
        }
        let object = self.object(thread);
        object.uses_floats.set(floats & 1 != 0);
        let queued = object.queued.get();
        if queued {
            self.runnable.remove(&self.machine, thread);
        }
        object.priority.set(priority);
        if queued {
            self.runnable.push_last(&self.machine, thread);
        }
        Ok(())
    }

    fn equip(
        &self,
        by: Ref<Thread>,
        thread: Ref<Thread>,
        [which, address, offset, _]: [u64; 4],
    ) -> Result<(), Error> {
        let which = ThreadSlot::from_number(which).ok_or(Error::InvalidArgument)?;
        let place = thread::slot(thread, which);
        if !self.object(place).is_empty() {
            return Err(Error::SlotTaken);
        }
        let from = self.slot_at(by, address)?;
        let object = self.object(thread);
        match (which, self.object(from).capability()) {
            (_, Capability::Null) => Err(Error::NoCapability),
            (ThreadSlot::Node, Capability::Node { .. })
            | (
                ThreadSlot::FaultEndpoint | ThreadSlot::TimeoutEndpoint,
                Capability::Endpoint { .. },
            ) => {
                if let Capability::Endpoint { rights, .. } = self.object(from).capability()
                    && !rights.has(Rights::WRITE.or(Rights::GRANT))
                {
                    return Err(Error::Denied);
                }
                self.derive(from, place, Rights::ALL, 0)
            }
            (ThreadSlot::AddressSpace, Capability::AddressSpace { space }) => {
                self.put(from, place, Capability::SpaceOf { thread, space });
                object.space.set(Some(space));
                if self.current() == Some(thread) {
                    self.enter_space(object);
                }
                Ok(())
            }
            (ThreadSlot::Buffer, Capability::Frame { page, form, .. }) => {
                let bytes = self.frame_bytes(form);
                let base = u64::from(page) << crate::abi::PAGE_BITS;
                let inside = offset % crate::abi::BUFFER_BYTES == 0 && offset < bytes;
                if form.is_device() || base + bytes > crate::reference::OBJECTS_END || !inside {
                    return Err(Error::InvalidArgument);
                }
                if !form.rights().has(Rights::READ.or(Rights::WRITE)) {
                    return Err(Error::Denied);
                }
                self.put(from, place, Capability::BufferOf { thread, page });
                object.buffer.set(base + offset);
                Ok(())
            }
            _ => Err(Error::WrongKind),
        }
    }

    /// Puts a capability that was made from another one into an empty slot.
    pub(crate) fn put(&self, parent: Ref<Slot>, slot: Ref<Slot>, capability: Capability) {
        self.count(capability);
        self.object(slot).set(capability);
        crate::derivation::adopt(&self.machine, parent, slot);
    }

    fn notification_at(
        &self,
        by: Ref<Thread>,
        address: u64,
        needed: Rights,
    ) -> Result<Ref<Notification>, Error> {
        match self.capability_at(by, address)? {
            Capability::Notification {
                notification,
                rights,
                ..
            } if rights.has(needed) => Ok(notification),
            Capability::Notification { .. } => Err(Error::Denied),
            _ => Err(Error::WrongKind),
        }
    }

    fn bind_notification(
        &self,
        by: Ref<Thread>,
        thread: Ref<Thread>,
        address: u64,
    ) -> Result<(), Error> {
        if address == 0 {
            self.unbind_notification(thread);
            return Ok(());
        }
        let notification = self.notification_at(by, address, Rights::READ)?;
        let (object, bound) = (self.object(thread), self.object(notification));
        if object.bound.get().is_some() || bound.bound.get().is_some() {
            return Err(Error::Bound);
        }
        object.bound.set(Some(notification));
        bound.bound.set(Some(thread));
        if bound.raised.get() != 0 && object.state.get() == State::Receiving {
            let raised = bound.raised.take();
            self.signal(notification, raised);
        }
        Ok(())
    }

    /// Has a slot of the kernel's own hold a copy of a notification's capability.
    fn bind_slot(&self, by: Ref<Thread>, place: Ref<Slot>, address: u64) -> Served {
        if address == 0 {
            return self.delete(place);
        }
        self.notification_at(by, address, Rights::WRITE)?;
        self.derive(self.slot_at(by, address)?, place, Rights::ALL, 0)?;
        Ok(())
    }

    fn configure(&self, by: Ref<Thread>, [address, budget, period, _]: [u64; 4]) -> Served {
        let Capability::SchedulingContext { context } = self.capability_at(by, address)? else {
            return Err(Error::WrongKind.into());
        };
        if budget < self.budget_min.get() || (period != 0 && budget > period) {
            return Err(Error::InvalidArgument.into());
        }
        self.stop_charging(context);
        let holder = self.object(context).thread.get();
        // Who waits for the old budget stands in line anew.
        if let Some(thread) = holder {
            self.take_time(context);
            self.configure_now(context, budget, period);
            self.grant(context, thread);
        } else {
            self.configure_now(context, budget, period);
        }
        Ok(())
    }

    fn configure_now(&self, context: Ref<SchedulingContext>, budget: u64, period: u64) {
        let now = self.machine.now();
        self.object(context).configure(budget, period, now);
    }

    /// Gives time to a thread that has none, and lets it use it.
    fn grant(&self, context: Ref<SchedulingContext>, thread: Ref<Thread>) {
        self.give_time(context, thread);
        if self.object(thread).state.get() == State::Ready {
            self.make_ready(thread);
        }
    }

    fn bind_thread(
        &self,
        by: Ref<Thread>,
        context: Ref<SchedulingContext>,
        address: u64,
    ) -> Served {
        if address == 0 {
            self.stop_charging(context);
            self.take_time(context);
            return Ok(());
        }
        let Capability::Thread { thread } = self.capability_at(by, address)? else {
            return Err(Error::WrongKind.into());
        };
        let (time, object) = (self.object(context), self.object(thread));
        if time.thread.get().is_some() || time.top.get().is_some() || object.context.get().is_some()
        {
            return Err(Error::Bound.into());
        }
        self.grant(context, thread);
        Ok(())
    }

    fn access_port(
        &self,
        by: Ref<Thread>,
        (first, last): (u16, u16),
        writes: bool,
        [port, bytes, value, _]: [u64; 4],
    ) -> Served {
        let port = u16::try_from(port).map_err(|_| Error::InvalidArgument)?;
        let width = match bytes {
            1 | 2 | 4 => bytes as u8,
            _ => return Err(Error::InvalidArgument.into()),
        };
        let end = port.checked_add(u16::from(width) - 1);
        if port < first || end.is_none_or(|end| end > last) {
            return Err(Error::Denied.into());
        }
        let write = writes.then_some(value as u32);
        match self.machine.port(port, width, write) {
            Some(read) => self.give(by, [u64::from(read), 0, 0]),
            None => Err(Error::InvalidArgument.into()),
        }
    }

    fn claim_line(
        &self,
        by: Ref<Thread>,
        control: Ref<Slot>,
        [line, node, index, _]: [u64; 4],
    ) -> Served {
        let line = match u32::try_from(line) {
            Ok(line) if line < crate::kernel::LINES_MAX && self.machine.has_line(line) => line,
            _ => return Err(Error::InvalidArgument.into()),
        };
        let place = self.place_at(by, node, index)?;
        let claimed = &self.claimed[line as usize];
        if claimed.get() {
            return Err(Error::Bound.into());
        }
        claimed.set(true);
        self.put(control, place, Capability::Interrupt { line });
        Ok(())
    }

    /// Says which notification a line raises, and lets it come.
    fn bind_line(&self, by: Ref<Thread>, line: u32, address: u64) -> Served {
        let place = self.line(line).ok_or(Error::InvalidArgument)?;
        self.bind_slot(by, place, address)?;
        self.machine.enable_line(line, address != 0);
        Ok(())
    }

    /// A line comes no more, and can be claimed again.
    pub(crate) fn end_line(&self, line: u32) {
        self.machine.enable_line(line, false);
        if let Some(slot) = self.line(line) {
            self.empty_own(slot);
        }
        if let Some(claimed) = self.claimed.get(line as usize) {
            claimed.set(false);
        }
    }

    /// An empty slot with this index, in the node at this address.
    pub(crate) fn place_at(
        &self,
        by: Ref<Thread>,
        address: u64,
        index: u64,
    ) -> Result<Ref<Slot>, Error> {
        let Capability::Node { node, bits, rights } = self.capability_at(by, address)? else {
            return Err(Error::WrongKind);
        };
        if !rights.has(Rights::WRITE) {
            return Err(Error::Denied);
        }
        let place = place_in(node, bits, index)?;
        match self.object(place).is_empty() {
            true => Ok(place),
            false => Err(Error::SlotTaken),
        }
    }
}

/// The slot of a node with this index.
fn place_in(node: Ref<Slot>, bits: u8, index: u64) -> Result<Ref<Slot>, Error> {
    match index >> bits {
        0 => in_node(node, bits, index).ok_or(Error::InvalidArgument),
        _ => Err(Error::InvalidArgument),
    }
}

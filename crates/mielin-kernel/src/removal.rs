//! How capabilities and objects end.
//!
//! An object ends with its last capability. A node of slots can hold the last capabilities of other nodes, and so on; so that
//! this takes neither a deep stack nor a long time without interrupts, the last capability of a node moves into the node's own
//! slot 0, where it still keeps the memory from being used again, and the node joins a list of dying ones, which is worked
//! off slot by slot.

use core::cell::Cell;

use crate::abi::{Error, ThreadSlot};
use crate::capability::Capability;
use crate::derivation;
use crate::kernel::{Kernel, Served, Stop};
use crate::machine::Machine;
use crate::objects::{
    AddressSpace, Endpoint, Entry, Notification, Queue, Reply, SchedulingContext, Slot,
};
use crate::queues;
use crate::reference::Ref;
use crate::thread::{self, State, Thread};

impl<M: Machine> Kernel<M> {
    /// Empties a slot, and all that ends with its capability. What was derived from it stays.
    ///
    /// Can stop for something more urgent; then it is called again, also if the slot is empty already. Nodes that are dying are
    /// emptied before ([`Kernel::bury`]): the slot could be in one.
    pub(crate) fn delete(&self, slot: Ref<Slot>) -> Served {
        self.empty(slot)?;
        self.bury()
    }

    /// Deletes what was derived from a slot's capability, once: `Ok(true)` says that nothing is left.
    ///
    /// Nodes that are dying are emptied before ([`Kernel::bury`]): the slot could be in one. It may be gone afterwards, with the node it
    /// is in.
    pub(crate) fn revoke_one(&self, slot: Ref<Slot>) -> Result<bool, Stop> {
        // What was derived from that comes in its place.
        let Some(child) = self.object(slot).first_child() else {
            return Ok(true);
        };
        self.empty(child)?;
        self.bury()?;
        Ok(false)
    }

    /// Whether a long operation is to stop here.
    fn pause(&self) -> Served {
        match self.machine.interrupted() {
            true => Err(Stop::Again),
            false => Ok(()),
        }
    }

    /// Empties the nodes that are dying.
    pub(crate) fn bury(&self) -> Served {
        while let Some(node) = self.dying.get() {
            let header = self.object(node);
            let Capability::Dying { bits, next, left } = header.capability() else {
                unreachable!("only `end_node` puts nodes into the list");
            };
            if left <= 1 {
                self.dying.set(next);
                derivation::unlink(&self.machine, node);
                header.set(Capability::Null);
                for index in 0..1 << bits {
                    self.machine.remove(node.offset::<Slot>(index * 2));
                }
                continue;
            }
            let slot: Ref<Slot> = node.offset((left as i32 - 1) * 2);
            header.set(Capability::Dying {
                bits,
                next,
                left: left - 1,
            });
            if !self.object(slot).is_empty() {
                // If it stops, the slot is looked at again.
                if let Err(stop) = self.empty(slot) {
                    header.set(Capability::Dying { bits, next, left });
                    return Err(stop);
                }
                self.pause()?;
            }
        }
        Ok(())
    }

    /// Takes the capability out of a slot; if it was the last one for an object, the object ends.
    fn empty(&self, slot: Ref<Slot>) -> Served {
        let place = self.object(slot);
        let capability = place.capability();
        match capability {
            Capability::Null | Capability::Header { .. } | Capability::Dying { .. } => {
                return Ok(());
            }
            Capability::Endpoint { endpoint, .. } => {
                let count = &self.object(endpoint).count;
                // What can stop comes while the capability is still there.
                if count.get() == 1 {
                    self.end_endpoint(endpoint)?;
                }
                if is_last(count) {
                    self.machine.remove(endpoint);
                }
            }
            Capability::Notification { notification, .. } => {
                let count = &self.object(notification).count;
                // What can stop comes while the capability is still there.
                if count.get() == 1 {
                    self.end_notification(notification)?;
                }
                if is_last(count) {
                    self.machine.remove(notification);
                }
            }
            Capability::Node { node, bits, .. } => {
                if self.release_node(node) {
                    self.end_node(slot, node, bits);
                    return Ok(());
                }
            }
            Capability::Thread { thread } => {
                if is_last(&self.object(thread).count) {
                    self.end_thread(thread);
                }
            }
            Capability::Queue { queue, .. } => {
                if is_last(&self.object(queue).count) {
                    self.end_queue(queue);
                }
            }
            Capability::AddressSpace { space } => self.release_space(space),
            Capability::SpaceOf { thread, space } => {
                self.object(thread).space.set(None);
                if self.current.get() == Some(thread) {
                    self.enter_space(self.object(thread));
                }
                self.release_space(space);
            }
            Capability::BufferOf { thread, .. } => self.object(thread).buffer.set(0),
            Capability::SchedulingContext { context } => {
                if is_last(&self.object(context).count) {
                    self.end_context(context);
                }
            }
            Capability::Reply { reply } => {
                if is_last(&self.object(reply).count) {
                    self.end_reply(reply);
                }
            }
            Capability::PageTable {
                table,
                level,
                space,
                at,
            } => {
                self.unmap_table(table, level, space, at);
                self.machine.remove(table);
            }
            Capability::Frame {
                page,
                form,
                space,
                at,
            } => {
                self.unmap_frame(page, form, space, at);
            }
            Capability::Interrupt { line } => self.end_line(line),
            Capability::Untyped { .. }
            | Capability::SchedulingControl { .. }
            | Capability::InterruptControl
            | Capability::Power
            | Capability::Ports { .. } => {}
        }
        self.take_out(slot);
        Ok(())
    }

    fn take_out(&self, slot: Ref<Slot>) {
        derivation::unlink(&self.machine, slot);
        self.object(slot).set(Capability::Null);
    }

    /// One capability less for a node. Whether it was the last.
    fn release_node(&self, node: Ref<Slot>) -> bool {
        let header = self.object(node);
        let Capability::Header { count, bits } = header.capability() else {
            unreachable!("a node that has capabilities is not dying");
        };
        let count = count - 1;
        header.set(Capability::Header { count, bits });
        count == 0
    }

    /// The last capability for a node leaves its slot and takes its place in the node itself.
    fn end_node(&self, slot: Ref<Slot>, node: Ref<Slot>, bits: u8) {
        derivation::relocate(&self.machine, slot, node);
        self.object(slot).set(Capability::Null);
        self.object(node).set(Capability::Dying {
            bits,
            next: self.dying.replace(Some(node)),
            left: 1 << bits,
        });
    }

    /// Whoever waits at the endpoint waits in vain.
    fn end_endpoint(&self, endpoint: Ref<Endpoint>) -> Served {
        while let Some(thread) = self.object(endpoint).line.first() {
            self.end_wait(thread, Error::Gone);
            if self.object(endpoint).line.first().is_some() {
                self.pause()?;
            }
        }
        Ok(())
    }

    fn end_notification(&self, notification: Ref<Notification>) -> Served {
        let object = self.object(notification);
        if let Some(thread) = object.bound.take() {
            self.object(thread).bound.set(None);
        }
        while let Some(thread) = object.line.first() {
            self.end_wait(thread, Error::Gone);
            if object.line.first().is_some() {
                self.pause()?;
            }
        }
        Ok(())
    }

    fn end_thread(&self, thread: Ref<Thread>) {
        self.cancel(thread);
        self.unbind_notification(thread);
        if let Some(context) = self.object(thread).context.take() {
            self.object(context).thread.set(None);
        }
        for which in ThreadSlot::ALL {
            self.empty_own(thread::slot(thread, which));
        }
        if self.current.get() == Some(thread) {
            self.current.set(None);
        }
        self.machine.forget(thread);
        for which in ThreadSlot::ALL {
            self.machine.remove(thread::slot(thread, which));
        }
        self.machine.remove(thread);
    }

    /// Empties a slot of the kernel's own. It does not stop: only the last capability of an endpoint or a notification could, and only
    /// while threads wait there.
    pub(crate) fn empty_own(&self, slot: Ref<Slot>) {
        while let Err(Stop::Again) = self.empty(slot) {}
    }

    fn end_queue(&self, queue: Ref<Queue>) {
        let slots = [queues::HAS_MESSAGE, queues::HAS_ROOM];
        for which in slots {
            self.empty_own(queues::slot(queue, which));
        }
        for which in slots {
            self.machine.remove(queues::slot(queue, which));
        }
        for index in 0..self.object(queue).capacity.get() {
            self.machine.remove::<Entry>(queues::entry(queue, index));
        }
        self.machine.remove(queue);
    }

    fn release_space(&self, space: Ref<AddressSpace>) {
        if is_last(&self.object(space).count) {
            self.end_space(space);
            self.machine.remove(space);
        }
    }

    /// A thread loses the time, and so do those who lent it.
    fn end_context(&self, context: Ref<SchedulingContext>) {
        self.stop_charging(context);
        self.take_time(context);
        let mut lender = self.object(context).top.take();
        while let Some(reply) = lender {
            let object = self.object(reply);
            object.above.set(crate::objects::Above::Nothing);
            lender = object.below.take();
        }
        self.machine.remove(context);
    }

    /// Whoever waits for an answer gets none; whoever has the object at hand to receive with, receives without.
    fn end_reply(&self, reply: Ref<Reply>) {
        if let Some(receiver) = self.object(reply).receiver.take() {
            self.object(receiver).reply.set(None);
        }
        if let Some(caller) = self.release(reply) {
            let object = self.object(caller);
            self.alarms.remove(&self.machine, caller);
            object.state.set(State::Inactive);
            self.end_wait(caller, Error::Gone);
        }
        self.machine.remove(reply);
    }
}

/// One capability less for an object. Whether it was the last.
fn is_last(count: &Cell<u32>) -> bool {
    count.set(count.get() - 1);
    count.get() == 0
}

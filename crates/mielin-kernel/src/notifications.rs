//! Notifications: words of bits that are raised by programs and interrupts, and waited for.

use crate::abi::{Error, Rights};
use crate::capability::Capability;
use crate::kernel::{Kernel, Served, Stop};
use crate::machine::Machine;
use crate::objects::Notification;
use crate::reference::Ref;
use crate::registers;
use crate::thread::{State, Thread};

impl<M: Machine> Kernel<M> {
    #[inline(always)]
    pub(crate) fn signal_by(&self, thread: Ref<Thread>, address: u64) -> Served {
        let Capability::Notification {
            notification,
            rights,
            badge,
        } = self.capability_at(thread, address)?
        else {
            return Err(Error::WrongKind.into());
        };
        if !rights.has(Rights::WRITE) {
            return Err(Error::Denied.into());
        }
        self.signal(notification, badge);
        Ok(())
    }

    /// Raises the bits of a badge; one without a badge raises the lowest.
    pub(crate) fn signal(&self, notification: Ref<Notification>, badge: u64) {
        let object = self.object(notification);
        let badge = if badge == 0 { 1 } else { badge };
        if let Some(bound) = object.bound.get()
            && self.object(bound).state.get() == State::Receiving
        {
            self.leave_endpoint(bound);
            self.tell_of_notification(bound, badge);
            self.make_ready(bound);
            return;
        }
        match object.line.first() {
            Some(first) => {
                self.leave_notification(first);
                self.alarms.remove(&self.machine, first);
                let registers = self.object(first).registers();
                registers.set(registers::BADGE, badge);
                registers.set(registers::ERROR, 0);
                self.make_ready(first);
            }
            None => object.raised.set(object.raised.get() | badge),
        }
    }

    /// Takes what is raised, or waits for it.
    #[inline(always)]
    pub(crate) fn wait_for(
        &self,
        thread: Ref<Thread>,
        notification: Ref<Notification>,
        until: Option<u64>,
    ) -> Served {
        let (waiter, object) = (self.object(thread), self.object(notification));
        let raised = object.raised.take();
        if raised != 0 {
            waiter.registers().set(registers::BADGE, raised);
            return Ok(());
        }
        if until.is_some_and(|until| until <= self.machine.now()) {
            return Err(Error::TimedOut.into());
        }
        waiter.state.set(State::Waiting);
        waiter.notification.set(Some(notification));
        object.line.push_last(&self.machine, thread);
        if let Some(until) = until {
            self.wait_until(thread, until);
        }
        Err(Stop::Blocked)
    }

    /// Takes a thread out of the line of the notification that it waits for.
    pub(crate) fn leave_notification(&self, thread: Ref<Thread>) {
        if let Some(notification) = self.object(thread).notification.take() {
            let object = self.object(notification);
            object.line.remove(&self.machine, thread);
        }
    }

    /// Ends the bond between a thread and the notification that it gets as a message.
    pub(crate) fn unbind_notification(&self, thread: Ref<Thread>) {
        if let Some(notification) = self.object(thread).bound.take() {
            self.object(notification).bound.set(None);
        }
    }
}

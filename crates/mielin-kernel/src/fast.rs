//! The fast paths: a call to a server that waits without time of its own, and the answer to it, when the message is in registers
//! and nobody else comes first; and giving way to an equal.
//!
//! All checks come first and change nothing; then comes what cannot fail. Where a check fails, the slow path does the
//! whole call, and where none fails, it would end in the same state: tests compare the two.

use crate::abi::{Rights, ThreadSlot};
use crate::capability::Capability;
use crate::kernel::{Kernel, Request};
use crate::machine::Machine;
use crate::objects::{Above, Slot, Waiting};
use crate::reference::Ref;
use crate::registers;
use crate::thread::{self, Registers, State, Thread};

impl<M: Machine> Kernel<M> {
    /// A call. `false` if the slow path has to do it.
    #[inline(always)]
    pub(crate) fn call_fast(&self, request: &Request) -> bool {
        let Some(caller) = self.current.get() else {
            return false;
        };
        if !request.info.is_short() {
            return false;
        }
        let Some(Capability::Endpoint {
            endpoint,
            rights,
            badge,
        }) = self.near(caller, request.capability)
        else {
            return false;
        };
        let line = self.object(endpoint);
        if !rights.has(Rights::WRITE.or(Rights::GRANT)) || line.waiting.get() != Waiting::Receivers
        {
            return false;
        }
        let Some(server) = line.line.first() else {
            return false;
        };
        let (from, to) = (self.object(caller), self.object(server));
        let (Some(context), Some(reply)) = (from.context.get(), to.reply.get()) else {
            return false;
        };
        if to.context.get().is_some()
            || to.heap.linked.get()
            || self.runnable.outranks(to.priority.get())
        {
            return false;
        }

        let after = to.after.take();
        line.line.first.set(after);
        match after {
            Some(after) => self.object(after).before.set(None),
            None => {
                line.line.last.set(None);
                line.waiting.set(Waiting::Nobody);
            }
        }
        let (lender, time) = (self.object(reply), self.object(context));
        lender.receiver.set(None);
        lender.caller.set(Some(caller));
        let below = time.top.replace(Some(reply));
        if let Some(below) = below {
            self.object(below).above.set(Above::Reply(reply));
        }
        lender.below.set(below);
        lender.above.set(Above::Top(context));
        time.thread.set(Some(server));
        from.context.set(None);
        from.reply.set(Some(reply));
        from.state.set(State::Called);
        to.context.set(Some(context));
        to.reply.set(None);
        to.endpoint.set(None);
        to.state.set(State::Ready);
        give(to.registers(), request, badge);
        self.current.set(Some(server));
        self.enter_space(to);
        true
    }

    /// An answer to whoever lent the time for it, and the wait for the next message. `false` if the slow path has to do it.
    #[inline(always)]
    pub(crate) fn reply_receive_fast(&self, request: &Request) -> bool {
        let Some(server) = self.current.get() else {
            return false;
        };
        if !request.info.is_short() {
            return false;
        }
        let (
            Some(Capability::Endpoint {
                endpoint, rights, ..
            }),
            Some(Capability::Reply { reply }),
        ) = (
            self.near(server, request.capability),
            self.near(server, request.reply),
        )
        else {
            return false;
        };
        let line = self.object(endpoint);
        if !rights.has(Rights::READ) || line.waiting.get() == Waiting::Senders {
            return false;
        }
        let lender = self.object(reply);
        let (Some(caller), Above::Top(context)) = (lender.caller.get(), lender.above.get()) else {
            return false;
        };
        let (from, to) = (self.object(server), self.object(caller));
        if from.context.get() != Some(context)
            || to.context.get().is_some()
            || to.fault.get().is_some()
            || to.heap.linked.get()
            || self.runnable.outranks(to.priority.get())
        {
            return false;
        }
        if let Some(bound) = from.bound.get()
            && self.object(bound).raised.get() != 0
        {
            return false;
        }

        let time = self.object(context);
        let below = lender.below.take();
        time.top.set(below);
        if let Some(below) = below {
            self.object(below).above.set(Above::Top(context));
        }
        lender.above.set(Above::Nothing);
        lender.caller.set(None);
        lender.receiver.set(Some(server));
        time.thread.set(Some(caller));
        from.context.set(None);
        from.reply.set(Some(reply));
        from.endpoint.set(Some(endpoint));
        from.state.set(State::Receiving);
        line.waiting.set(Waiting::Receivers);
        line.line.push_last(&self.machine, server);
        to.context.set(Some(context));
        to.reply.set(None);
        to.state.set(State::Ready);
        give(to.registers(), request, 0);
        self.current.set(Some(caller));
        self.enter_space(to);
        true
    }

    /// A thread with a time slice gives way to the next of its priority. `false` if the slow path has to do it.
    #[inline(never)]
    pub(crate) fn give_way_fast(&self) -> bool {
        let Some(thread) = self.current.get() else {
            return false;
        };
        let from = self.object(thread);
        let (Some(context), Some(next)) = (
            from.context.get(),
            self.runnable.first_of(from.priority.get()),
        ) else {
            return false;
        };
        let to = self.object(next);
        let Some(next_context) = to.context.get() else {
            return false;
        };
        let (time, next_time) = (self.object(context), self.object(next_context));
        let slices = time.is_slice() && next_time.is_slice();
        if !slices || !time.is_configured() || self.charged.get() != Some(context) {
            return false;
        }

        let now = self.machine.now();
        time.end_slice(now.saturating_sub(self.since.replace(now)));
        self.runnable.rotate(&self.machine, next, thread);
        from.registers().set(registers::ERROR, 0);
        self.current.set(Some(next));
        self.charged.set(Some(next_context));
        self.arm(now.saturating_add(next_time.stretch()));
        self.enter_space(to);
        true
    }

    /// The capability at an address within the thread's own node.
    #[inline(always)]
    fn near(&self, thread: Ref<Thread>, address: u64) -> Option<Capability> {
        let root = self.object(thread::slot(thread, ThreadSlot::Node));
        let Capability::Node { node, bits, .. } = root.capability() else {
            return None;
        };
        // Then the address is the index.
        if address == 0 || address >> bits != 0 {
            return None;
        }
        let slot: Ref<Slot> = node.after(address as u32 * 2);
        Some(self.object(slot).capability())
    }
}

/// A message of a few words.
#[inline(always)]
fn give(to: &Registers, request: &Request, badge: u64) {
    to.set(registers::ERROR, 0);
    to.set(registers::INFO, request.info.0);
    to.set(registers::WORDS[0], request.words[0]);
    to.set(registers::WORDS[1], request.words[1]);
    to.set(registers::WORDS[2], request.words[2]);
    to.set(registers::WORDS[3], request.words[3]);
    to.set(registers::BADGE, badge);
}

//! All of a kernel's state that can ever make a difference, as text.

use std::fmt::Write;

use mielin_hal::paging::PageTables;
use mielin_kernel::{
    AddressSpace, Capability, Endpoint, Line, Machine, Notification, Queue, Reply,
    SchedulingContext, Slot, State, Thread, registers,
};

use crate::world::World;

impl<P: PageTables> World<P> {
    /// Two kernels with the same text behave the same from then on.
    pub(crate) fn observe(&self) -> String {
        let mut text = String::with_capacity(4096);
        self.write(&mut text).expect("a string takes all");
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let (arena, kernel) = (self.arena(), &self.kernel);
        writeln!(
            out,
            "runs {:?} pays {:?} since {} alarm {} {} root {:#x} {:#x} now {}",
            kernel.current(),
            kernel.charged(),
            kernel.charged_until(),
            kernel.alarm_at(),
            arena.alarm.get(),
            kernel.loaded_root(),
            arena.root.get(),
            arena.now(),
        )?;
        for at in arena.all::<Slot>() {
            let slot = arena.object(at);
            match slot.capability() {
                Capability::Null => {}
                capability => writeln!(
                    out,
                    "{at:?} {capability:?} {:?} {:?} {:?}",
                    slot.before(),
                    slot.after(),
                    slot.first_child()
                )?,
            }
        }
        for at in arena.all::<Thread>() {
            let thread = arena.object(at);
            write!(
                out,
                "thread {at:?} {:?} {} {} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
                thread.state(),
                thread.priority(),
                thread.queued(),
                thread.context(),
                thread.reply(),
                thread.bound(),
                thread.endpoint(),
                thread.notification(),
                thread.alarm(),
                thread.fault(),
                thread.buffer(),
            )?;
            if thread.state() == State::Sending {
                write!(out, " {:?}", thread.message())?;
            }
            for register in 0..registers::COUNT {
                write!(out, " {:x}", thread.registers().get(register))?;
            }
            writeln!(out)?;
        }
        for at in arena.all::<Endpoint>() {
            let endpoint = arena.object(at);
            write!(out, "endpoint {at:?} {:?}", endpoint.waiting())?;
            self.write_line(out, endpoint.line())?;
        }
        for at in arena.all::<Notification>() {
            let notification = arena.object(at);
            let (raised, bound) = (notification.raised(), notification.bound());
            write!(out, "notification {at:?} {raised} {bound:?}")?;
            self.write_line(out, notification.line())?;
        }
        for at in arena.all::<Queue>() {
            writeln!(out, "queue {at:?} {:?}", arena.object(at))?;
        }
        for at in arena.all::<SchedulingContext>() {
            let context = arena.object(at);
            let refills: Vec<_> = context.refills().collect();
            writeln!(
                out,
                "time {at:?} {:?} {:?} {} {} {} {refills:?}",
                context.thread(),
                context.top(),
                context.budget(),
                context.period(),
                context.consumed(),
            )?;
        }
        for at in arena.all::<Reply>() {
            writeln!(out, "reply {at:?} {:?}", arena.object(at))?;
        }
        for at in arena.all::<AddressSpace>() {
            writeln!(out, "space {at:?} {:?}", arena.object(at))?;
        }
        for priority in 0..=255 {
            let line = kernel.runnable(priority);
            if line.first().is_some() {
                write!(out, "priority {priority}")?;
                self.write_line(out, line)?;
            }
        }
        let moments: Vec<_> = kernel.waiting_for_moments().take(100).collect();
        writeln!(out, "moments {moments:?}")
    }

    fn write_line(&self, out: &mut String, line: &Line) -> std::fmt::Result {
        let mut next = line.first();
        for _ in 0..100 {
            let Some(thread) = next else { break };
            write!(out, " {thread:?}")?;
            next = self.arena().object(thread).after();
        }
        writeln!(out)
    }
}

/// The first lines in which two texts differ.
pub(crate) fn difference(a: &str, b: &str) -> String {
    let differing = a.lines().zip(b.lines()).filter(|(a, b)| a != b);
    differing
        .map(|(a, b)| format!("- {a}\n+ {b}\n"))
        .take(6)
        .collect()
}

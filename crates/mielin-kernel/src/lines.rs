//! Threads in lines: those that would run, by priority, and those that wait at an endpoint or for a notification. A thread is in
//! one line at most.

use core::cell::Cell;

use crate::machine::Machine;
use crate::objects::Line;
use crate::reference::Ref;
use crate::thread::Thread;

/// Priorities: a higher number runs first.
pub const PRIORITIES: usize = 256;

impl Line {
    #[inline(always)]
    pub(crate) fn push_last<M: Machine>(&self, machine: &M, thread: Ref<Thread>) {
        let links = machine.object(thread);
        links.after.set(None);
        links.before.set(self.last.get());
        match self.last.get() {
            Some(last) => machine.object(last).after.set(Some(thread)),
            None => self.first.set(Some(thread)),
        }
        self.last.set(Some(thread));
    }

    pub(crate) fn push_first<M: Machine>(&self, machine: &M, thread: Ref<Thread>) {
        let links = machine.object(thread);
        links.before.set(None);
        links.after.set(self.first.get());
        match self.first.get() {
            Some(first) => machine.object(first).before.set(Some(thread)),
            None => self.last.set(Some(thread)),
        }
        self.first.set(Some(thread));
    }

    pub(crate) fn remove<M: Machine>(&self, machine: &M, thread: Ref<Thread>) {
        let links = machine.object(thread);
        let (before, after) = (links.before.get(), links.after.get());
        match before {
            Some(before) => machine.object(before).after.set(after),
            None => self.first.set(after),
        }
        match after {
            Some(after) => machine.object(after).before.set(before),
            None => self.last.set(before),
        }
        links.before.set(None);
        links.after.set(None);
    }
}

/// The threads that would run, round robin within each priority.
#[derive(Debug)]
pub(crate) struct Runnable {
    lines: [Line; PRIORITIES],
    /// A bit for each line that has somebody.
    map: [Cell<u64>; PRIORITIES / 64],
    /// One more than the highest priority of them; 0 if there is nobody.
    top: Cell<u16>,
}

impl Runnable {
    pub(crate) const fn new() -> Self {
        Self {
            lines: [const { Line::empty() }; PRIORITIES],
            map: [const { Cell::new(0) }; PRIORITIES / 64],
            top: Cell::new(0),
        }
    }

    #[inline(always)]
    pub(crate) fn push_last<M: Machine>(&self, machine: &M, thread: Ref<Thread>) {
        let priority = self.entering(machine, thread);
        self.lines[usize::from(priority)].push_last(machine, thread);
    }

    #[inline(always)]
    pub(crate) fn push_first<M: Machine>(&self, machine: &M, thread: Ref<Thread>) {
        let priority = self.entering(machine, thread);
        self.lines[usize::from(priority)].push_first(machine, thread);
    }

    pub(crate) fn remove<M: Machine>(&self, machine: &M, thread: Ref<Thread>) {
        let object = machine.object(thread);
        let priority = object.priority.get();
        object.queued.set(false);
        let line = &self.lines[usize::from(priority)];
        line.remove(machine, thread);
        if line.first.get().is_none() {
            let word = &self.map[usize::from(priority / 64)];
            word.set(word.get() & !(1 << (priority % 64)));
            if u16::from(priority) + 1 == self.top.get() {
                self.top.set(self.highest());
            }
        }
    }

    /// Takes out the first of those with the highest priority.
    #[inline(always)]
    pub(crate) fn pop<M: Machine>(&self, machine: &M) -> Option<Ref<Thread>> {
        let priority = self.top.get().checked_sub(1)?;
        let thread = self.lines[usize::from(priority as u8)].first.get()?;
        self.remove(machine, thread);
        Some(thread)
    }

    /// Whether somebody has a higher priority than this.
    #[inline(always)]
    pub(crate) fn outranks(&self, priority: u8) -> bool {
        self.top.get() > u16::from(priority) + 1
    }

    pub(crate) fn line(&self, priority: u8) -> &Line {
        &self.lines[usize::from(priority)]
    }

    /// The highest priority of them. `None` if there is nobody.
    pub(crate) fn top(&self) -> Option<u8> {
        self.top.get().checked_sub(1).map(|top| top as u8)
    }

    /// The first of those with this priority, if nobody who waits has a higher one.
    #[inline(always)]
    pub(crate) fn first_of(&self, priority: u8) -> Option<Ref<Thread>> {
        match self.top.get() == u16::from(priority) + 1 {
            true => self.lines[usize::from(priority)].first.get(),
            false => None,
        }
    }

    /// The first of a priority leaves its line, and another one of the same priority enters it at the end.
    #[inline(always)]
    pub(crate) fn rotate<M: Machine>(&self, machine: &M, first: Ref<Thread>, last: Ref<Thread>) {
        let (leaving, entering) = (machine.object(first), machine.object(last));
        let line = &self.lines[usize::from(entering.priority.get())];
        line.remove(machine, first);
        line.push_last(machine, last);
        leaving.queued.set(false);
        entering.queued.set(true);
    }

    #[inline(always)]
    fn entering<M: Machine>(&self, machine: &M, thread: Ref<Thread>) -> u8 {
        let object = machine.object(thread);
        let priority = object.priority.get();
        object.queued.set(true);
        let word = &self.map[usize::from(priority / 64)];
        word.set(word.get() | 1 << (priority % 64));
        self.top.set(self.top.get().max(u16::from(priority) + 1));
        priority
    }

    fn highest(&self) -> u16 {
        for (index, word) in self.map.iter().enumerate().rev() {
            if word.get() != 0 {
                return (index as u16 + 1) * 64 - word.get().leading_zeros() as u16;
            }
        }
        0
    }
}

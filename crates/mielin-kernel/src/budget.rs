//! What a scheduling context has left: the rules of a sporadic server.
//!
//! A budget is a list of refills, each with the moment from which it can be used. What is used at some time comes back one
//! period after that time, so that in no period more than the budget is used (Sprunt, Sha and Lehoczky, 1989; with the corrections of
//! Stanovich, Baker, Wang and Harbour, 2010: time that a refill has waited is not made up for, and when there is no room
//! for another refill, the last ones become one at the later time).
//!
//! With a period of 0 the budget is a time slice: used up, there is another one at once.

use crate::objects::{REFILLS_MAX, Refill, SchedulingContext};

/// What was found when time was charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// There is time left.
    Some,
    /// The slice is over.
    NextSlice,
    /// There is none until then.
    NothingUntil(u64),
}

impl SchedulingContext {
    /// Gives it a whole new budget.
    pub(crate) fn configure(&self, budget: u64, period: u64, now: u64) {
        self.budget.set(budget);
        self.period.set(period);
        self.head.set(0);
        self.len.set(1);
        self.refills[0].at.set(now);
        self.refills[0].ticks.set(budget);
    }

    /// Whether it was ever given time.
    #[inline]
    pub(crate) fn is_configured(&self) -> bool {
        self.len.get() != 0
    }

    /// Whether its budget is a time slice.
    #[inline]
    pub(crate) fn is_slice(&self) -> bool {
        self.period.get() == 0
    }

    /// The ticks that can be used at a stretch from now on.
    #[inline]
    pub(crate) fn stretch(&self) -> u64 {
        self.refill(0).ticks.get()
    }

    /// From when on there is time.
    pub(crate) fn available_at(&self) -> u64 {
        match self.is_slice() {
            true => 0,
            false => self.refill(0).at.get(),
        }
    }

    /// It is used from now on, after it was not: time that could have been used before counts from now.
    pub(crate) fn begin(&self, now: u64) {
        if self.is_slice() || self.refill(0).at.get() > now {
            return;
        }
        self.refill(0).at.set(now);
        // What would come in while the first can be used is one with it.
        while self.len.get() > 1 {
            let (first, second) = (self.refill(0), self.refill(1));
            if second.at.get() > now.saturating_add(first.ticks.get()) {
                break;
            }
            second.ticks.set(second.ticks.get() + first.ticks.get());
            second.at.set(now);
            self.drop_first();
        }
    }

    /// Notes that so many ticks were used, until now.
    pub(crate) fn charge(&self, used: u64, now: u64) -> Left {
        self.consumed.set(self.consumed.get().saturating_add(used));
        if self.is_slice() {
            let first = self.refill(0);
            if used < first.ticks.get() {
                first.ticks.set(first.ticks.get() - used);
                return Left::Some;
            }
            first.ticks.set(self.budget.get());
            return Left::NextSlice;
        }
        // Whole budgets move every part by as many periods.
        let budget = self.budget.get();
        let later = self.period.get().saturating_mul(used / budget);
        if later > 0 {
            for index in 0..self.len.get() {
                let at = &self.refill(index).at;
                at.set(at.get().saturating_add(later));
            }
        }
        let mut used = used % budget;
        while used > 0 && used >= self.refill(0).ticks.get() {
            let (at, ticks) = (self.refill(0).at.get(), self.refill(0).ticks.get());
            used -= ticks;
            self.drop_first();
            self.add_last(at.saturating_add(self.period.get()), ticks);
        }
        if used > 0 {
            let first = self.refill(0);
            let at = first.at.get();
            first.ticks.set(first.ticks.get() - used);
            first.at.set(at.saturating_add(used));
            self.add_last(at.saturating_add(self.period.get()), used);
        }
        match self.refill(0).at.get() {
            at if at > now => Left::NothingUntil(at),
            _ => Left::Some,
        }
    }

    /// Gives up what could be used now.
    pub(crate) fn give_up(&self, now: u64) -> Left {
        let left = self.stretch();
        let consumed = self.consumed.get();
        let left = self.charge(left, now);
        // It was given up, not used.
        self.consumed.set(consumed);
        left
    }

    /// The ticks of all refills: the budget, always.
    #[must_use]
    pub fn refills_sum(&self) -> u64 {
        (0..self.len.get())
            .map(|i| self.refill(i).ticks.get())
            .sum()
    }

    /// The moments of its refills and their ticks, in order.
    pub fn refills(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        (0..self.len.get()).map(|i| (self.refill(i).at.get(), self.refill(i).ticks.get()))
    }

    #[inline]
    fn refill(&self, index: u8) -> &Refill {
        let at = usize::from(self.head.get()) + usize::from(index);
        &self.refills[if at < REFILLS_MAX {
            at
        } else {
            at - REFILLS_MAX
        } % REFILLS_MAX]
    }

    fn drop_first(&self) {
        self.head.set((self.head.get() + 1) % REFILLS_MAX as u8);
        self.len.set(self.len.get() - 1);
    }

    fn add_last(&self, at: u64, ticks: u64) {
        let len = self.len.get();
        if len > 0 {
            let last = self.refill(len - 1);
            let joins = last.at.get().saturating_add(last.ticks.get()) == at;
            if joins {
                last.ticks.set(last.ticks.get() + ticks);
                return;
            }
            if usize::from(len) == REFILLS_MAX {
                last.ticks.set(last.ticks.get() + ticks);
                last.at.set(last.at.get().max(at));
                return;
            }
        }
        self.len.set(len + 1);
        let last = self.refill(len);
        last.at.set(at);
        last.ticks.set(ticks);
    }
}

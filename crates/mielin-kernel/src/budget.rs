//! What a scheduling context has left: the rules of a sporadic server.
//!
//! A budget is a list of refills, each with the moment from which it can be used. What is used at some time comes back one
//! period after that time, so that in no period more than the budget is used (Sprunt, Sha and Lehoczky, 1989; with the corrections of
//! Stanovich, Baker, Wang and Harbour, 2010: time that a refill has waited is not made up for). Two refills become one at the later
//! time when there is no room for another one, and when the first is hardly worth coming to it: those two by which the least is
//! lost. The last two would not do: a whole budget would wait for what was used beyond it by the timer's delay.
//!
//! With a period of 0 the budget is a time slice: used up, there is another one at once.

use crate::objects::{REFILLS_MAX, Refill, SchedulingContext};

/// A first refill of less than the budget by this becomes one with the second.
const SMALLEST_PART: u64 = 64;

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
    #[inline(always)]
    pub(crate) fn begin(&self, now: u64) {
        if !self.is_slice() {
            self.begin_refills(now);
        }
    }

    #[inline(never)]
    fn begin_refills(&self, now: u64) {
        if self.refill(0).at.get() > now {
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
    #[inline(always)]
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
        self.charge_refills(used, now)
    }

    /// A slice of which so much was used is over.
    #[inline(always)]
    pub(crate) fn end_slice(&self, used: u64) {
        self.consumed.set(self.consumed.get().saturating_add(used));
        self.refill(0).ticks.set(self.budget.get());
    }

    #[inline(never)]
    fn charge_refills(&self, used: u64, now: u64) -> Left {
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
        while self.len.get() > 1 && self.refill(0).ticks.get() < budget / SMALLEST_PART {
            self.join(0);
        }
        match self.refill(0).at.get() {
            at if at > now => Left::NothingUntil(at),
            _ => Left::Some,
        }
    }

    /// Gives up what is left, until all of it can be used again.
    pub(crate) fn give_up(&self, now: u64) -> Left {
        let left = self.stretch();
        let consumed = self.consumed.get();
        let left = self.charge(left, now);
        // It was given up, not used.
        self.consumed.set(consumed);
        if self.is_slice() {
            return left;
        }
        let last = self.refill(self.len.get() - 1).at.get();
        self.configure(self.budget.get(), self.period.get(), last);
        match last > now {
            true => Left::NothingUntil(last),
            false => Left::Some,
        }
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
        &self.refills[usize::from(self.head.get().wrapping_add(index)) % REFILLS_MAX]
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
                // How much would wait, for how long, if a refill became one with the next.
                let cost = |index: u8| {
                    let next = match index + 1 < len {
                        true => self.refill(index + 1).at.get(),
                        false => at,
                    };
                    let refill = self.refill(index);
                    let wait = next.saturating_sub(refill.at.get());
                    u128::from(refill.ticks.get()) * u128::from(wait)
                };
                let cheapest = (0..len).min_by_key(|index| cost(*index)).unwrap_or(0);
                if cheapest + 1 == len {
                    last.ticks.set(last.ticks.get() + ticks);
                    last.at.set(last.at.get().max(at));
                    return;
                }
                self.join(cheapest);
            }
        }
        let len = self.len.get();
        self.len.set(len + 1);
        let last = self.refill(len);
        last.at.set(at);
        last.ticks.set(ticks);
    }

    /// Has a refill wait for the next one.
    fn join(&self, index: u8) {
        let (refill, next) = (self.refill(index), self.refill(index + 1));
        next.ticks.set(next.ticks.get() + refill.ticks.get());
        for index in (0..index).rev() {
            let (from, to) = (self.refill(index), self.refill(index + 1));
            to.at.set(from.at.get());
            to.ticks.set(from.ticks.get());
        }
        self.drop_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Object;

    /// Numbers that look random.
    fn next(seed: &mut u64) -> u64 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed >> 11
    }

    fn check(context: &SchedulingContext) {
        assert_eq!(context.refills_sum(), context.budget());
        let mut last = 0;
        for (at, ticks) in context.refills() {
            assert!(ticks > 0 && at >= last, "{context:?}");
            last = at;
        }
    }

    /// The ticks that a thread uses that always would run, when alarms come up to `late` ticks late and the kernel is entered at
    /// other times, too; and how long it took.
    fn run(budget: u64, period: u64, late: u64, seed: &mut u64) -> (u64, u64) {
        let context = SchedulingContext::fresh();
        let mut now = 1000;
        context.configure(budget, period, now);
        let begin = now;
        while now < begin + 500 * period {
            now = now.max(context.available_at()) + next(seed) % (late + 1);
            context.begin(now);
            loop {
                // Something else enters the kernel, or the alarm does.
                let stretch = context.stretch();
                let used = match next(seed).is_multiple_of(3) {
                    true => next(seed) % stretch,
                    false => stretch + next(seed) % (late + 1),
                };
                now += used;
                let left = context.charge(used, now);
                check(&context);
                if left != Left::Some {
                    break;
                }
            }
        }
        (context.consumed(), now - begin)
    }

    #[test]
    fn late_alarms_lose_no_budget() {
        let mut seed = 0x9e37_79b9_7f4a_7c15;
        for (budget, period) in [(10_000, 100_000), (50_000, 100_000), (20_000, 50_000)] {
            for late in [0, 1, 10, 100, 150] {
                let (used, passed) = run(budget, period, late, &mut seed);
                let fair = passed * budget / period;
                // Coming to it late costs a delay in each period.
                assert!(
                    used.abs_diff(fair) * 40 <= fair,
                    "{used} of {passed} ticks, with {budget} in {period}, alarms {late} late"
                );
            }
        }
    }

    #[test]
    fn whoever_gives_up_comes_back_once_in_a_period() {
        let mut seed = 0x2545_f491_4f6c_dd1d;
        let context = SchedulingContext::fresh();
        let mut now = 5;
        context.configure(1000, 10_000, now);
        for round in 0..1000 {
            context.begin(now);
            let used = next(&mut seed) % 1000;
            now += used;
            if context.charge(used, now) == Left::Some && round % 2 == 0 {
                now += 50;
                let Left::NothingUntil(at) = context.give_up(now) else {
                    panic!("it has time left: {context:?}");
                };
                check(&context);
                assert_eq!(context.refills().count(), 1);
                assert!(at > now && at <= now + 10_000);
            }
            now = now.max(context.available_at()) + next(&mut seed) % 30;
        }
        assert!(now > 5 + 990 * 4_000, "{now}");
    }
}

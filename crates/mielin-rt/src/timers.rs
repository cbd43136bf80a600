//! What the loop waits for.

use heapless::Vec;

/// At most `CAPACITY` times at which the loop wants to be called, each with a key that says why.
///
/// Times are ticks of a clock that the caller reads. All operations look at all timers: there are few on a microcontroller, and a list without order is
/// smaller than a heap.
#[derive(Debug)]
pub struct Timers<K, const CAPACITY: usize> {
    set: Vec<Timer<K>, CAPACITY>,
    next_id: u32,
}

/// A timer that has been set. After it has come, or was taken back, it means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerId(u32);

#[derive(Clone, Copy, Debug)]
struct Timer<K> {
    at: u64,
    /// It comes again after so many ticks; 0 for one that comes once.
    period: u64,
    id: TimerId,
    key: K,
}

impl<K: Copy, const CAPACITY: usize> Timers<K, CAPACITY> {
    /// None set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            set: Vec::new(),
            next_id: 0,
        }
    }

    /// Has `key` come once, at `at` or as soon after it as [`Timers::poll`] is called; `None` when all timers are in use.
    pub fn once(&mut self, at: u64, key: K) -> Option<TimerId> {
        self.add(at, 0, key)
    }

    /// Has `key` come at `first`, and then every `period` ticks (at least 1). When it was not polled for several periods it comes once for all of
    /// them, and keeps its rhythm: what comes late does not make what follows later. `None` when all timers are in use.
    pub fn every(&mut self, first: u64, period: u64, key: K) -> Option<TimerId> {
        self.add(first, period.max(1), key)
    }

    fn add(&mut self, at: u64, period: u64, key: K) -> Option<TimerId> {
        let id = TimerId(self.next_id);
        let timer = Timer {
            at,
            period,
            id,
            key,
        };
        self.set.push(timer).ok()?;
        self.next_id = self.next_id.wrapping_add(1);
        Some(id)
    }

    /// Takes a timer back. Returns whether it was still set.
    pub fn cancel(&mut self, id: TimerId) -> bool {
        let place = self.set.iter().position(|timer| timer.id == id);
        place.map(|place| self.set.swap_remove(place)).is_some()
    }

    /// A timer that has come: of several the one that was due first, of those due at the same time the one that was set first. Ask again until there is none.
    pub fn poll(&mut self, now: u64) -> Option<K> {
        let first = self.first().filter(|place| self.set[*place].at <= now)?;
        let timer = &mut self.set[first];
        let key = timer.key;
        match (now - timer.at).checked_div(timer.period) {
            None => {
                self.set.swap_remove(first);
            }
            Some(missed) => timer.at += (missed + 1) * timer.period,
        }
        Some(key)
    }

    /// When the next one comes.
    #[must_use]
    pub fn next_at(&self) -> Option<u64> {
        self.first().map(|place| self.set[place].at)
    }

    fn first(&self) -> Option<usize> {
        let order = |place: &usize| (self.set[*place].at, self.set[*place].id);
        (0..self.set.len()).min_by_key(order)
    }
}

impl<K: Copy, const CAPACITY: usize> Default for Timers<K, CAPACITY> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_period_keeps_its_rhythm() {
        let mut timers = Timers::<char, 2>::new();
        timers.every(10, 10, 'p').expect("there is room");
        assert_eq!(timers.poll(9), None);
        assert_eq!(timers.poll(10), Some('p'));
        // Late, and for three periods at once.
        assert_eq!(timers.poll(47), Some('p'));
        assert_eq!((timers.poll(47), timers.next_at()), (None, Some(50)));
    }

    #[test]
    fn in_order_and_no_more_than_there_is_room_for() {
        let mut timers = Timers::<char, 3>::new();
        let late = timers.once(30, 'c').expect("there is room");
        timers.once(20, 'a').expect("there is room");
        timers.once(20, 'b').expect("there is room");
        assert_eq!(timers.once(1, 'd'), None);
        assert_eq!(timers.next_at(), Some(20));
        assert_eq!((timers.poll(100), timers.poll(100)), (Some('a'), Some('b')));
        assert!(timers.cancel(late));
        assert!(!timers.cancel(late));
        assert_eq!((timers.poll(100), timers.next_at()), (None, None));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Once(u16),
        Every(u16, u8),
        Cancel(u8),
        Pass(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            any::<u16>().prop_map(Step::Once),
            (any::<u16>(), 1_u8..).prop_map(|(first, period)| Step::Every(first, period)),
            any::<u8>().prop_map(Step::Cancel),
            any::<u8>().prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// Against a list that is looked through at every tick.
        #[test]
        fn as_a_list_of_times(steps in prop::collection::vec(step(), 0..80)) {
            let mut timers = Timers::<usize, 6>::new();
            let mut model: std::vec::Vec<(u64, Option<u64>, TimerId, usize)> = std::vec::Vec::new();
            let mut now = 0;
            for (key, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Once(after) => {
                        let at = now + u64::from(after) % 300;
                        let id = timers.once(at, key);
                        prop_assert_eq!(id.is_some(), model.len() < 6);
                        model.extend(id.map(|id| (at, None, id, key)));
                    }
                    Step::Every(after, period) => {
                        let at = now + u64::from(after) % 300;
                        let id = timers.every(at, period.into(), key);
                        prop_assert_eq!(id.is_some(), model.len() < 6);
                        model.extend(id.map(|id| (at, Some(period.into()), id, key)));
                    }
                    Step::Cancel(which) if !model.is_empty() => {
                        let (_, _, id, _) = model.remove(usize::from(which) % model.len());
                        prop_assert!(timers.cancel(id));
                    }
                    Step::Cancel(_) => {}
                    Step::Pass(ticks) => {
                        now += u64::from(ticks);
                        let mut due: std::vec::Vec<_> =
                            model.iter().filter(|timer| timer.0 <= now).map(|timer| (timer.0, timer.2, timer.3)).collect();
                        due.sort_unstable();
                        for (_, _, key) in due {
                            prop_assert_eq!(timers.poll(now), Some(key));
                        }
                        prop_assert_eq!(timers.poll(now), None);
                        model.retain_mut(|(at, period, _, _)| {
                            while let Some(period) = period && *at <= now {
                                *at += *period;
                            }
                            *at > now
                        });
                    }
                }
                prop_assert_eq!(timers.next_at(), model.iter().map(|timer| timer.0).min());
            }
        }
    }
}

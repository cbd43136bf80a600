//! Which packets of a connection have been here already.

/// The newest packets of a connection and whether each has been here: the sliding window of RFC 4303, section 3.4.3.
/// What is older than the window counts as seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReplayWindow {
    /// One more than the highest counter seen.
    end: u32,
    /// Bit `i` says that the packet with counter `end - 1 - i` was here.
    seen: u64,
}

/// Packets in the window.
const WINDOW: u32 = u64::BITS;

impl ReplayWindow {
    /// Whether a packet with this counter has not been here. To be asked before the packet is deciphered.
    pub(super) fn is_fresh(&self, counter: u32) -> bool {
        match self.end.checked_sub(counter) {
            None | Some(0) => true,
            Some(age) => age <= WINDOW && self.seen >> (age - 1) & 1 == 0,
        }
    }

    /// Notes a genuine, fresh packet; whether it is the newest so far.
    pub(super) fn note(&mut self, counter: u32) -> bool {
        match self.end.checked_sub(counter) {
            None | Some(0) => {
                let ahead = counter - self.end + 1;
                self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
                self.end = counter + 1;
                true
            }
            Some(age) => {
                self.seen |= 1 << (age - 1);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a set of all counters: nothing twice, nothing refused that is new and within the window.
        #[test]
        fn each_counter_passes_once(steps in prop::collection::vec(0_u32..200, 1..400), jump in 0_u32..1000) {
            let (mut window, mut all) = (ReplayWindow::default(), BTreeSet::new());
            for (index, step) in steps.into_iter().enumerate() {
                let counter = u32::try_from(index).unwrap() / 4 + step + if index > 200 { jump } else { 0 };
                let newest: Option<u32> = all.last().copied();
                let old = newest.is_some_and(|newest| newest >= counter + WINDOW);
                prop_assert_eq!(window.is_fresh(counter), !old && !all.contains(&counter));
                if window.is_fresh(counter) {
                    prop_assert_eq!(window.note(counter), newest.is_none_or(|newest| counter > newest));
                    all.insert(counter);
                }
            }
        }
    }

    #[test]
    fn the_ends_of_the_counter_are_counters_too() {
        let mut window = ReplayWindow::default();
        assert!(window.is_fresh(0) && window.note(0) && !window.is_fresh(0));
        let last = u32::MAX - 1;
        assert!(window.is_fresh(last) && window.note(last) && !window.is_fresh(last));
        assert!(window.is_fresh(last - 63) && !window.is_fresh(last - 64) && !window.is_fresh(0));
    }
}

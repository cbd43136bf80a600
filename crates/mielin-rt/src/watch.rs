//! A watchdog that is fed only while everything is alive.

/// Collects signs of life, so that a watchdog is fed only when all parts of a firmware have given one.
///
/// A loop that feeds its watchdog by itself proves only that the loop turns. Here each part, of at most 32, has to report within every
/// [`Watch::feed`]; a part that hangs, or that others keep from its turn, lets the processor be reset.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    expected: u32,
    alive: u32,
}

impl Watch {
    /// Expects signs of life of parts `0..parts`.
    ///
    /// # Panics
    /// If these are more than 32.
    #[must_use]
    pub const fn new(parts: u32) -> Self {
        assert!(parts <= 32, "there is one bit for each part");
        Self {
            expected: ((1_u64 << parts) - 1) as u32,
            alive: 0,
        }
    }

    /// A part is alive. One that is not expected changes nothing.
    pub fn alive(&mut self, part: u32) {
        self.alive |= 1_u32.checked_shl(part).unwrap_or(0);
    }

    /// Calls `feed` if all parts were alive since it was called last, and begins anew.
    pub fn feed(&mut self, feed: impl FnOnce()) {
        if self.alive & self.expected == self.expected {
            self.alive = 0;
            feed();
        }
    }

    /// The lowest part that has not been alive since the watchdog was fed.
    #[must_use]
    pub fn silent(&self) -> Option<u32> {
        let silent = self.expected & !self.alive;
        (silent != 0).then(|| silent.trailing_zeros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_fed(watch: &mut Watch) -> bool {
        let mut fed = false;
        watch.feed(|| fed = true);
        fed
    }

    #[test]
    fn all_have_to_be_alive_each_time() {
        let mut watch = Watch::new(3);
        watch.alive(0);
        watch.alive(2);
        watch.alive(40);
        assert_eq!((is_fed(&mut watch), watch.silent()), (false, Some(1)));
        watch.alive(1);
        assert_eq!((watch.silent(), is_fed(&mut watch)), (None, true));
        assert_eq!((is_fed(&mut watch), watch.silent()), (false, Some(0)));
    }

    #[test]
    fn the_smallest_and_the_largest() {
        assert!(is_fed(&mut Watch::new(0)));
        let mut all = Watch::new(32);
        for part in 0..32 {
            assert!(!is_fed(&mut all));
            all.alive(part);
        }
        assert!(is_fed(&mut all));
    }
}

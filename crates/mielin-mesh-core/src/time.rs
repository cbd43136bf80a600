//! The cores' notion of time: a duration since a start that the driver chose.

use core::ops::Add;
use core::time::Duration;

/// A point in time, counted from whatever start the driver chose for this process.
///
/// Only the driver reads a clock. Instants of different nodes cannot be compared, so none is ever sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Duration);

impl Instant {
    /// The driver's start.
    pub const START: Instant = Instant(Duration::ZERO);

    /// The point that lies `since_start` after the driver's start.
    #[must_use]
    pub const fn from_start(since_start: Duration) -> Instant {
        Instant(since_start)
    }

    /// How long after the driver's start this is.
    #[must_use]
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// How long this is after `earlier`; zero if it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Instant) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, wait: Duration) -> Instant {
        Instant(self.0.saturating_add(wait))
    }
}

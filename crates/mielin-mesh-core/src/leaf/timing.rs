//! How long to wait for an answer: RFC 6298.

use core::time::Duration;

use crate::limits::{LEAF_RETRY_INITIAL, LEAF_RETRY_MAX, LEAF_RETRY_MIN};

/// The granularity of the clock, G in the RFC: a driver that looks once in 10 ms is good enough.
const GRANULARITY_US: u32 = 10_000;

/// The estimate of the way there and back, and the retransmission timeout that follows from it.
///
/// Microseconds in 32 bits, because a microcontroller pays for each division of 64.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoundTrip {
    /// SRTT and RTTVAR, once something was measured.
    measured: Option<(u32, u32)>,
    /// RTO.
    timeout_us: u32,
}

impl RoundTrip {
    pub(super) const fn new() -> RoundTrip {
        RoundTrip {
            measured: None,
            timeout_us: micros(LEAF_RETRY_INITIAL),
        }
    }

    /// How long the next transmission waits.
    pub(super) const fn timeout(&self) -> Duration {
        Duration::from_micros(self.timeout_us as u64)
    }

    /// Takes in how long an answer took to something that was sent once (section 2.2 and 2.3; Karn's rule is the
    /// caller's).
    pub(super) fn measure(&mut self, took: Duration) {
        let took = micros(took);
        let (smoothed, variance) = match self.measured {
            None => (took, took / 2),
            Some((smoothed, variance)) => (
                smoothed - smoothed / 8 + took / 8,
                variance - variance / 4 + smoothed.abs_diff(took) / 4,
            ),
        };
        self.measured = Some((smoothed, variance));
        self.settle();
    }

    /// Nothing came in time (section 5.5).
    pub(super) fn back_off(&mut self) {
        self.timeout_us = (2 * self.timeout_us).min(micros(LEAF_RETRY_MAX));
    }

    /// Ends the backing off: a handshake has shown that the line is good.
    pub(super) fn settle(&mut self) {
        self.timeout_us = match self.measured {
            None => micros(LEAF_RETRY_INITIAL),
            Some((smoothed, variance)) => (smoothed + GRANULARITY_US.max(4 * variance))
                .clamp(micros(LEAF_RETRY_MIN), micros(LEAF_RETRY_MAX)),
        };
    }
}

/// Microseconds, at most a minute's: so nothing here overflows.
const fn micros(time: Duration) -> u32 {
    const MAX: u128 = 60_000_000;
    let micros = time.as_micros();
    (if micros < MAX { micros } else { MAX }) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The formulas of section 2, worked by hand.
    #[test]
    fn the_numbers_of_the_rfc() {
        let mut trip = RoundTrip::new();
        assert_eq!(trip.timeout(), ms(1000));
        trip.back_off();
        assert_eq!(trip.timeout(), ms(2000));
        // SRTT = 400, RTTVAR = 200: 400 + 4 * 200.
        trip.measure(ms(400));
        assert_eq!(trip.timeout(), ms(1200));
        // RTTVAR = 3/4 * 200 + 1/4 * 400 = 250, SRTT = 7/8 * 400 + 1/8 * 800 = 450: 450 + 4 * 250.
        trip.measure(ms(800));
        assert_eq!(trip.timeout(), ms(1450));
        // RTTVAR = 3/4 * 250 + 1/4 * 50 = 200, SRTT = 7/8 * 450 + 1/8 * 400 = 443.75.
        trip.measure(ms(400));
        assert_eq!(trip.timeout(), Duration::from_micros(1_243_750));
        trip.back_off();
        trip.back_off();
        assert_eq!(trip.timeout(), Duration::from_micros(4_975_000));
        trip.back_off();
        assert_eq!(trip.timeout(), LEAF_RETRY_MAX);
        trip.settle();
        assert_eq!(trip.timeout(), Duration::from_micros(1_243_750));
        for _ in 0..100 {
            trip.measure(ms(20));
        }
        assert_eq!(trip.timeout(), LEAF_RETRY_MIN);
        trip.measure(Duration::MAX);
        trip.back_off();
        assert_eq!(trip.timeout(), LEAF_RETRY_MAX);
    }
}

//! How many handshakes a host computes.

use crate::Instant;
use crate::limits::{LEAF_HANDSHAKES_BURST, LEAF_HANDSHAKES_PER_SECOND};

/// A token bucket, full at the start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    tokens: u32,
    /// Up to when tokens have been given.
    filled: Instant,
}

impl Bucket {
    pub(super) const fn new() -> Bucket {
        Bucket {
            tokens: LEAF_HANDSHAKES_BURST,
            filled: Instant::START,
        }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let pause = core::time::Duration::from_secs(1) / LEAF_HANDSHAKES_PER_SECOND;
        let fresh = now.since(self.filled).as_micros() / pause.as_micros();
        let room = LEAF_HANDSHAKES_BURST - self.tokens;
        match u32::try_from(fresh) {
            Ok(fresh) if fresh < room => {
                self.tokens += fresh;
                self.filled = self.filled + pause * fresh;
            }
            _ => {
                self.tokens = LEAF_HANDSHAKES_BURST;
                self.filled = now;
            }
        }
        let taken = self.tokens.checked_sub(1);
        self.tokens = taken.unwrap_or(0);
        taken.is_some()
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn a_burst_and_then_as_many_as_time_gives() {
        let mut bucket = Bucket::new();
        let mut now = Instant::START + Duration::from_secs(9);
        let taken =
            |bucket: &mut Bucket, now| (0..1000).filter(|_| bucket.take(now)).count() as u32;
        assert_eq!(taken(&mut bucket, now), LEAF_HANDSHAKES_BURST);
        // Whoever asks often gets no more than whoever asks seldom.
        let mut all = 0;
        for _ in 0..1000 {
            now = now + Duration::from_millis(2);
            all += taken(&mut bucket, now);
        }
        assert_eq!(all, 2 * LEAF_HANDSHAKES_PER_SECOND);
        now = now + Duration::from_secs(3600);
        assert_eq!(taken(&mut bucket, now), LEAF_HANDSHAKES_BURST);
    }
}

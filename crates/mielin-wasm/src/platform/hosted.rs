//! The clocks and random numbers of an operating system.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{NoRandomBytes, Platform};

/// The operating system below this process: the standard library's clocks, and getrandom.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hosted;

impl Platform for Hosted {
    fn monotonic_ns(&self) -> u64 {
        /// An [`Instant`] is no number; the first that was asked for counts as zero.
        static START: OnceLock<Instant> = OnceLock::new();
        let elapsed = START.get_or_init(Instant::now).elapsed();
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
    }

    fn realtime_ns(&self) -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn fill_random(&self, out: &mut [u8]) -> Result<(), NoRandomBytes> {
        getrandom::fill(out).map_err(|error| NoRandomBytes {
            reason: error.to_string(),
        })
    }

    fn sleep(&self, at_most: Duration) {
        thread::park_timeout(at_most);
    }
}

//! What the crate needs from the machine below it.

#[cfg(feature = "std")]
mod hosted;

use alloc::string::String;
use core::fmt;
use core::time::Duration;

#[cfg(feature = "std")]
pub use hosted::Hosted;

/// Time and chance. A [`HostState`](crate::HostState) is made on one, and reaches it for as long as it is in this
/// process; a snapshot has nothing of it.
///
/// On a host this is [`Hosted`](crate::Hosted), and nobody needs to name it. A bare node gives its own. Called from the
/// thread that runs the program.
pub trait Platform: fmt::Debug + Send + Sync {
    /// Nanoseconds since a moment that stays the same while the machine runs. Never goes back.
    fn monotonic_ns(&self) -> u64;

    /// Nanoseconds since 1970; 0 where nobody knows.
    fn realtime_ns(&self) -> u64;

    /// Fills `out` with bytes that nobody can foresee. Programs get them, and keys are made of them.
    ///
    /// # Errors
    /// There are none. What `out` holds is undefined then.
    fn fill_random(&self, out: &mut [u8]) -> Result<(), NoRandomBytes>;

    /// Lets the thread sleep until so much time has passed; may come back early. Only a program that cannot be suspended
    /// ([`Plain`](crate::Plain)) waits inside of its calls.
    fn sleep(&self, at_most: Duration) {
        let _ = at_most;
        core::hint::spin_loop();
    }
}

/// A machine has no random bytes to give.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NoRandomBytes {
    /// Its own words.
    pub reason: String,
}

//! How long a call waits that is issued again whenever the program goes on.

use super::Call;
use super::errno::Errno;

/// The patience of a call with a timeout in nanoseconds, of which a negative one never ends.
pub(super) struct Patience {
    deadline_ns: Option<u64>,
    now_ns: u64,
    only_looks: bool,
}

impl Patience {
    /// Until when the call waits: `begun` is what it was given when it was issued for the first time, if it was.
    pub(super) fn of(call: &Call<'_>, timeout_ns: u64, begun: Option<Option<u64>>) -> Patience {
        let now_ns = call.state.now_ns();
        let timeout_ns = u64::try_from(timeout_ns.cast_signed()).ok();
        let first = || timeout_ns.map(|timeout_ns| now_ns.saturating_add(timeout_ns));
        Patience {
            deadline_ns: begun.unwrap_or_else(first),
            now_ns,
            only_looks: timeout_ns == Some(0),
        }
    }

    /// When what is waited for must have come, if ever; an error if that is over.
    pub(super) fn left(&self) -> Result<Option<u64>, Errno> {
        match self.deadline_ns {
            Some(deadline_ns) if deadline_ns <= self.now_ns => Err(if self.only_looks {
                Errno::Again
            } else {
                Errno::Timedout
            }),
            deadline_ns => Ok(deadline_ns),
        }
    }
}

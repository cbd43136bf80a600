//! Everything that the host knows about a program, as data that a snapshot can hold.

pub(crate) mod bytes;
mod descriptors;
#[cfg(feature = "std")]
mod hosted;
mod sections;
#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::filesystem::FileSystem;
use crate::{Address, Grants, Outcome, Platform, Trap};

pub(crate) use descriptors::{Descriptor, FDFLAGS_APPEND, Object, Stream, rights};
pub use sections::StateError;

/// The host's side of one program: what it was given (arguments, environment, standard input,
/// grants), and what has come of it (`/data`, descriptors, clock, the call that it waits in, how it ended).
///
/// No native file, socket or other handle is in here, so that
/// [`to_sections`](Self::to_sections) and [`from_sections`](Self::from_sections) lose nothing.
#[derive(Clone, Debug)]
pub struct HostState {
    pub(crate) platform: &'static dyn Platform,
    /// The program's own address.
    pub address: Address,
    /// Its arguments; the first is its name. None may contain a zero byte.
    pub args: Vec<Vec<u8>>,
    /// Its environment as `NAME=VALUE`. None may contain a zero byte.
    pub env: Vec<Vec<u8>>,
    /// What it may do. Granting `data` here does not make `/data`:
    /// [`with_grants`](Self::with_grants) does.
    pub grants: Grants,
    pub(crate) stdin: Arc<[u8]>,
    pub(crate) stdin_position: usize,
    /// The standard streams come first; the last of those beyond is open.
    pub(crate) descriptors: Vec<Option<Descriptor>>,
    /// `/data`, if it was granted.
    pub(crate) data: Option<FileSystem>,
    pub(crate) clock: Clock,
    pub(crate) pending: Option<Pending>,
    pub(crate) unanswered: VecDeque<(Address, u64)>,
    pub(crate) end: Option<End>,
}

/// The received messages that a program can still reply to; older ones are forgotten.
pub(crate) const UNANSWERED_MAX: usize = 4096;

/// The call that a blocked program will issue again, with what must not start anew when it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    /// `poll_oneoff`, first issued at this time on the monotonic clock.
    Poll { since_ns: u64 },
    /// `mielin.receive` until this time.
    Receive { deadline_ns: Option<u64> },
    /// `mielin.send`, waiting for room.
    Send,
    /// A tensor function, of which so many rows are done.
    Tensor { rows: u64 },
    /// `mielin.sense` until this time.
    Sense { deadline_ns: Option<u64> },
    /// `mielin.actuate`, waiting for the device's answer.
    Actuate,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Exited(i32),
    Trapped(Trap),
}

impl End {
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Exited(code) => Outcome::Exited(*code),
            Self::Trapped(trap) => Outcome::Trapped(trap.clone()),
        }
    }
}

/// A monotonic clock that goes on from a number instead of from the machine's start. It stands
/// still while it is only bytes in a snapshot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base_ns: u64,
    /// When it began, on the platform's clock.
    since_ns: u64,
}

impl Clock {
    fn starting_at(platform: &dyn Platform, base_ns: u64) -> Self {
        Self {
            base_ns,
            since_ns: platform.monotonic_ns(),
        }
    }

    fn now_ns(&self, platform: &dyn Platform) -> u64 {
        let elapsed = platform.monotonic_ns().saturating_sub(self.since_ns);
        self.base_ns.saturating_add(elapsed)
    }
}

impl HostState {
    /// A program with this address, without arguments, environment, input or grants, whose clocks and random numbers are
    /// those of this platform.
    pub fn on(platform: &'static dyn Platform, address: Address) -> Self {
        Self {
            platform,
            address,
            args: Vec::new(),
            env: Vec::new(),
            grants: Grants::none(),
            stdin: Arc::from([]),
            stdin_position: 0,
            descriptors: Descriptor::standard(),
            data: None,
            clock: Clock::starting_at(platform, 0),
            pending: None,
            unanswered: VecDeque::new(),
            end: None,
        }
    }

    /// With these arguments, of which the first is the program's name.
    #[must_use]
    pub fn with_args<A: Into<Vec<u8>>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// With this environment of `NAME=VALUE` entries.
    #[must_use]
    pub fn with_env<A: Into<Vec<u8>>>(mut self, env: impl IntoIterator<Item = A>) -> Self {
        self.env = env.into_iter().map(Into::into).collect();
        self
    }

    /// With these bytes as standard input.
    #[must_use]
    pub fn with_stdin(mut self, bytes: impl Into<Arc<[u8]>>) -> Self {
        self.stdin = bytes.into();
        self.stdin_position = 0;
        self
    }

    /// With these capabilities, and `/data` empty if it is among them.
    #[must_use]
    pub fn with_grants(mut self, grants: Grants) -> Self {
        self.grants = grants;
        self.make_data();
        self
    }

    /// The program's monotonic clock: starts at 0, runs while the state is in a process (parked or
    /// not), stands still while it is only bytes unless it is [advanced](Self::advance), and never goes back.
    pub fn now_ns(&self) -> u64 {
        self.clock.now_ns(self.platform)
    }

    /// Lets time pass on the program's monotonic clock that it has been only bytes for.
    pub fn advance(&mut self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.clock.base_ns = self.clock.base_ns.saturating_add(by);
    }

    /// How long it is until a [`Wait`](crate::Wait)'s deadline; zero if it has passed.
    pub fn until(&self, deadline_ns: u64) -> Duration {
        Duration::from_nanos(deadline_ns.saturating_sub(self.now_ns()))
    }

    /// The code with which the program ended, if it did so of its own accord.
    pub fn exit_code(&self) -> Option<i32> {
        match self.end {
            Some(End::Exited(code)) => Some(code),
            _ => None,
        }
    }

    /// How many bytes of standard input the program has read, and how many there are.
    pub fn stdin_progress(&self) -> (usize, usize) {
        (self.stdin_position, self.stdin.len())
    }

    /// The bytes that count against [`Limits::input_bytes`](crate::Limits::input_bytes).
    pub fn input_bytes(&self) -> usize {
        let strings = self.args.iter().chain(&self.env);
        strings
            .map(|text| text.len() + 1)
            .sum::<usize>()
            .saturating_add(self.stdin.len())
    }

    pub(crate) fn note_received(&mut self, from: Address, sequence: u64) {
        if self.unanswered.len() == UNANSWERED_MAX {
            self.unanswered.pop_front();
        }
        self.unanswered.push_back((from, sequence));
    }
}

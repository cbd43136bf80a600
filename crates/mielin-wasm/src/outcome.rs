//! How a run ends.

/// Why [`Instance::run`](crate::Instance::run) came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The program ended with this code (0 if it returned). Running again gives the same.
    Exited(i32),
    /// It was asked to stop, and can go on.
    Stopped,
    /// It waits inside a host call, and can go on at any time; before what it waits for has come,
    /// running it only gives this outcome again.
    Blocked(Wait),
    /// It did something that WebAssembly forbids, and has ended. Running again gives the same.
    Trapped(Trap),
}

/// What a blocked program waits for: whatever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// A time on the program's own monotonic clock
    /// ([`HostState::until`](crate::HostState::until) gives the time that is left).
    pub deadline_ns: Option<u64>,
    /// Whether a message ends the wait.
    pub message: bool,
}

/// What went wrong in a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Trap {
    /// The engine's own words, with the innermost function where it knows it.
    pub message: String,
}

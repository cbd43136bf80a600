//! How a run ends.

use alloc::string::String;
use core::fmt;

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
    /// Whether a reading of a sensor or an actuator's answer ends the wait.
    pub reading: bool,
}

/// What went wrong in a program, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trap {
    /// What went wrong.
    pub kind: TrapKind,
    /// The function in which it did, where the engine and the module know its name.
    pub function: Option<String>,
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        match &self.function {
            Some(name) => write!(f, " (in the function {name})"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for Trap {}

/// What WebAssembly forbids, or a program cannot have; in the same words on every engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrapKind {
    /// More calls were open than the engine's stack has room for.
    #[error("the program's stack is exhausted: it called too deep")]
    StackExhausted,
    /// The program was to stop, and what its open calls keep is more than the frames memory holds.
    #[error("the program called too deep to be stopped: its frames do not fit")]
    FramesFull,
    /// A load, a store or a bulk operation reached outside of the memory.
    #[error("the program reached beyond the end of its memory")]
    MemoryOutOfBounds,
    /// An index was outside of a table.
    #[error("the program reached beyond the end of a table")]
    TableOutOfBounds,
    /// An indirect call found nothing in the table.
    #[error("the program called an empty element of a table")]
    CallToNull,
    /// An indirect call found a function of another type.
    #[error("the program called a function by another type than it has")]
    CallTypeMismatch,
    /// An integer was divided by zero.
    #[error("the program divided an integer by zero")]
    DivisionByZero,
    /// A conversion of a number that is too large, or the smallest integer by −1.
    #[error("the program computed an integer that its type cannot hold")]
    IntegerOverflow,
    /// A NaN was converted to an integer.
    #[error("the program converted a NaN to an integer")]
    NanToInteger,
    /// The instruction `unreachable`, with which compilers end what must not go on: a panic in Rust,
    /// `abort` in C.
    #[error("the program gave itself up: it executed `unreachable`")]
    Unreachable,
    /// A plain program waited for a message or a device without a time limit; it cannot be suspended for that.
    #[error("a plain program cannot wait for a message or a device without end")]
    EndlessWait,
    /// Something else, in the engine's own words.
    #[error("{0}")]
    Other(String),
}

impl TrapKind {
    /// All kinds but the last. A kind's index stands for it in snapshots, so new ones come last.
    pub(crate) const NUMBERED: [Self; 11] = [
        Self::StackExhausted,
        Self::FramesFull,
        Self::MemoryOutOfBounds,
        Self::TableOutOfBounds,
        Self::CallToNull,
        Self::CallTypeMismatch,
        Self::DivisionByZero,
        Self::IntegerOverflow,
        Self::NanToInteger,
        Self::Unreachable,
        Self::EndlessWait,
    ];
}

impl From<TrapKind> for Trap {
    fn from(kind: TrapKind) -> Self {
        Self {
            kind,
            function: None,
        }
    }
}

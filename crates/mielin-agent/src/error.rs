//! Why a call failed.

use std::fmt;

use crate::ffi::NOT_AN_AGENT;

/// What the node answered to a call that failed. The call had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The agent was not granted the capability that this call needs.
    Denied,
    /// The payload or text is over the node's limit.
    TooLarge,
    /// No agent has this address.
    Unknown,
    /// The message that a reply answers was answered before, never arrived, or is
    /// forgotten: the node remembers the last 4,096.
    NothingToAnswer,
    /// The node accepts no messages any more.
    Closed,
    /// This program is not running as an agent.
    NotAnAgent,
    /// Another error number of WASI preview 1.
    Other(u32),
}

impl Error {
    /// What an error number says; 0 is success.
    pub(crate) fn check(errno: u32) -> Result<(), Self> {
        match errno {
            0 => Ok(()),
            ERRNO_HOSTUNREACH => Err(Self::Unknown),
            ERRNO_MSGSIZE => Err(Self::TooLarge),
            ERRNO_NOENT => Err(Self::NothingToAnswer),
            ERRNO_PIPE => Err(Self::Closed),
            ERRNO_NOTCAPABLE => Err(Self::Denied),
            NOT_AN_AGENT => Err(Self::NotAnAgent),
            other => Err(Self::Other(other)),
        }
    }
}

// The error numbers of WASI preview 1 that docs/AGENT_ABI.md uses.
pub(crate) const ERRNO_AGAIN: u32 = 6;
const ERRNO_HOSTUNREACH: u32 = 23;
pub(crate) const ERRNO_MSGSIZE: u32 = 35;
const ERRNO_NOENT: u32 = 44;
const ERRNO_PIPE: u32 = 64;
pub(crate) const ERRNO_TIMEDOUT: u32 = 73;
const ERRNO_NOTCAPABLE: u32 = 76;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => f.write_str("the agent was not granted this"),
            Self::TooLarge => f.write_str("over the node's limit"),
            Self::Unknown => f.write_str("no agent has this address"),
            Self::NothingToAnswer => f.write_str("there is no such message to answer"),
            Self::Closed => f.write_str("the node accepts no messages any more"),
            Self::NotAnAgent => f.write_str("this program does not run as an agent"),
            Self::Other(errno) => write!(f, "error number {errno} of WASI preview 1"),
        }
    }
}

impl std::error::Error for Error {}

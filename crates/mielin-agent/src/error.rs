//! Why a call failed.

use core::fmt;

use crate::ffi::NOT_AN_AGENT;

/// What the node answered to a call that failed. The call had no effect, but for [`Unreachable`](Self::Unreachable).
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
    /// There is no such sensor or actuator where the agent is.
    Absent,
    /// The device refuses the value that an actuator was to be set to.
    Refused,
    /// The device does not answer; whether its actuator was set is not known.
    Unreachable,
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
            ERRNO_NODEV => Err(Self::Absent),
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
pub(crate) const ERRNO_HOSTUNREACH: u32 = 23;
pub(crate) const ERRNO_INVAL: u32 = 28;
pub(crate) const ERRNO_MSGSIZE: u32 = 35;
const ERRNO_NODEV: u32 = 43;
const ERRNO_NOENT: u32 = 44;
pub(crate) const ERRNO_NOSPC: u32 = 51;
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
            Self::Absent => f.write_str("there is no such sensor or actuator here"),
            Self::Refused => f.write_str("the device refuses the value"),
            Self::Unreachable => f.write_str("the device does not answer"),
            Self::NotAnAgent => f.write_str("this program does not run as an agent"),
            Self::Other(errno) => write!(f, "error number {errno} of WASI preview 1"),
        }
    }
}

impl core::error::Error for Error {}

//! The error numbers of WASI preview 1, which `mielin` uses too.

/// A reason why a host call failed. The numbers are the standard's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Errno {
    Again = 6,
    Badf = 8,
    Fault = 21,
    Hostunreach = 23,
    Inval = 28,
    Msgsize = 35,
    Noent = 44,
    Nospc = 51,
    Nosys = 52,
    Notdir = 54,
    Notsock = 57,
    Notsup = 58,
    Overflow = 61,
    Pipe = 64,
    Io = 29,
    Spipe = 70,
    Timedout = 73,
    Notcapable = 76,
}

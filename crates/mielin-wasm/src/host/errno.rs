//! The error numbers of WASI preview 1, which `mielin` uses too.

/// A reason why a host call failed. The numbers are the standard's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Errno {
    Again = 6,
    Badf = 8,
    Exist = 20,
    Fault = 21,
    Fbig = 22,
    Hostunreach = 23,
    Ilseq = 25,
    Inval = 28,
    Io = 29,
    Isdir = 31,
    Mfile = 33,
    Mlink = 34,
    Msgsize = 35,
    Nametoolong = 37,
    Nodev = 43,
    Noent = 44,
    Nospc = 51,
    Nosys = 52,
    Notdir = 54,
    Notempty = 55,
    Notsock = 57,
    Notsup = 58,
    Overflow = 61,
    Perm = 63,
    Pipe = 64,
    Spipe = 70,
    Timedout = 73,
    Notcapable = 76,
}

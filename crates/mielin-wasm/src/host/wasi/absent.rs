//! Files, paths and sockets: linkable, and never there. Which error they give depends only on whether
//! the descriptor is open (a stream is neither a file, a directory nor a socket) or not.

use super::super::Call;
use super::super::errno::Errno;
use super::descriptor::open;

/// A call that needs a place in a file.
pub(crate) fn needs_position(call: &Call<'_>, fd: u32) -> Result<(), Errno> {
    open(call, fd)?;
    Err(Errno::Spipe)
}

/// A call that needs a file whose size can be set.
pub(crate) fn needs_size(call: &Call<'_>, fd: u32) -> Result<(), Errno> {
    open(call, fd)?;
    Err(Errno::Inval)
}

/// A call that needs a file on a disk.
pub(crate) fn needs_file(call: &Call<'_>, fd: u32) -> Result<(), Errno> {
    open(call, fd)?;
    Err(Errno::Notsup)
}

/// A call that needs a directory.
pub(crate) fn needs_directory(call: &Call<'_>, fd: u32) -> Result<(), Errno> {
    open(call, fd)?;
    Err(Errno::Notdir)
}

/// A call that needs a socket.
pub(crate) fn needs_socket(call: &Call<'_>, fd: u32) -> Result<(), Errno> {
    open(call, fd)?;
    Err(Errno::Notsock)
}

/// No descriptor is a directory that was opened beforehand, which is how a C library finds out that
/// there are none: it asks for 3, 4, … until `EBADF`.
pub(crate) fn no_directories(_call: &Call<'_>) -> Result<(), Errno> {
    Err(Errno::Badf)
}

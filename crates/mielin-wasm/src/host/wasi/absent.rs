//! Paths and sockets: linkable, and never there. Which error they give depends only on whether the
//! descriptor is open (a stream is neither a directory nor a socket) or not.

use super::super::Call;
use super::super::errno::Errno;
use super::descriptor::open;

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

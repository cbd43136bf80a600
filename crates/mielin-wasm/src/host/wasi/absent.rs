//! Sockets and symbolic links: linkable, and never there.

use super::super::Call;
use super::super::errno::Errno;
use super::descriptor::open;

/// A call that needs a socket.
pub(crate) fn needs_socket(call: &Call<'_>, fd: u32) -> Result<(), Errno> {
    open(call, fd)?;
    Err(Errno::Notsock)
}

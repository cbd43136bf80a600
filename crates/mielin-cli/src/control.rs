//! The control socket: where it is, and how both sides open it.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

const SOCKET_FILE: &str = "control.sock";
/// The kernel keeps a socket's path in 108 bytes, the last of them zero (`unix(7)`).
const PATH_LEN_MAX: usize = 107;

/// A path to the socket that is short enough for the kernel, however deep the directory lies.
///
/// A long one goes through the directory's entry in `/proc/self/fd`, which lives as long as the
/// file held here.
struct SocketPath {
    path: PathBuf,
    _dir: Option<File>,
}

impl SocketPath {
    fn new(data_dir: &Path) -> io::Result<SocketPath> {
        let path = data_dir.join(SOCKET_FILE);
        if path.as_os_str().as_bytes().len() <= PATH_LEN_MAX {
            return Ok(SocketPath { path, _dir: None });
        }
        let dir = File::open(data_dir)?;
        let path = format!("/proc/self/fd/{}/{SOCKET_FILE}", dir.as_raw_fd()).into();
        Ok(SocketPath {
            path,
            _dir: Some(dir),
        })
    }
}

/// Connects to the daemon of a data directory.
pub(crate) async fn connect(data_dir: &Path) -> io::Result<UnixStream> {
    let socket = SocketPath::new(data_dir)?;
    UnixStream::connect(&socket.path).await
}

/// Opens the control socket for its user alone.
///
/// The caller holds the directory's lock, so a socket that is there already is left over from a
/// daemon that was killed, and is removed.
pub(crate) fn listen(data_dir: &Path) -> io::Result<UnixListener> {
    let socket = SocketPath::new(data_dir)?;
    match fs::remove_file(&socket.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Nobody can connect before the mode is set: the directory is closed to others.
    let listener = UnixListener::bind(&socket.path)?;
    fs::set_permissions(&socket.path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Removes the socket when the daemon stops.
pub(crate) fn remove(data_dir: &Path) {
    // If it is gone already there is nothing to do.
    let _ = fs::remove_file(data_dir.join(SOCKET_FILE));
}

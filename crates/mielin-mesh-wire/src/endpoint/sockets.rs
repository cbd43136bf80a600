//! The sockets of an endpoint: UDP and TCP on one port.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use super::WireError;

/// Packets that may wait for this process, and for the network.
const UDP_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Tries to find a port that is free for both TCP and UDP.
const BIND_ATTEMPTS: usize = 32;

/// Port 0 takes one that is free for both.
pub(super) fn bind_sockets(address: SocketAddr) -> Result<(UdpSocket, TcpListener), WireError> {
    let failure = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => WireError::AddressInUse { address },
        _ => WireError::Bind { address, source },
    };
    let mut attempts = if address.port() == 0 {
        BIND_ATTEMPTS
    } else {
        1
    };
    loop {
        attempts -= 1;
        let udp = UdpSocket::bind(address).map_err(failure)?;
        let bound = udp.local_addr().map_err(failure)?;
        match TcpListener::bind(bound) {
            Ok(tcp) => {
                enlarge_buffers(&udp);
                tcp.set_nonblocking(true).map_err(failure)?;
                return Ok((udp, tcp));
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
            Err(error) => return Err(failure(error)),
        }
    }
}

/// Asks for room for a burst while this process does not run. The default of
/// Linux holds some 150 packets, and a lost last packet of a burst costs a probe
/// timeout. The system may grant less, so nothing is expected of it.
fn enlarge_buffers(udp: &UdpSocket) {
    let socket = socket2::SockRef::from(udp);
    let granted = socket
        .set_recv_buffer_size(UDP_BUFFER_BYTES)
        .and_then(|()| socket.set_send_buffer_size(UDP_BUFFER_BYTES));
    if let Err(error) = granted {
        tracing::debug!(%error, "the system keeps its UDP buffers small");
    }
}

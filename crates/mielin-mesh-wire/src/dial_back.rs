//! Whether a node can be dialled, tried from a fresh socket.
//!
//! A packet from the endpoint's own socket would pass a firewall that has let the node's packets out to us, so the
//! question is asked from a socket that the node has never sent to. No handshake is made: a QUIC packet of a
//! version that nobody speaks is answered with the versions that are spoken, and shows by its connection ids that
//! the question arrived (RFC 9000, sections 6 and 17.2.1; RFC 8999, section 6). The answer is smaller than the
//! question.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

/// A version of the form that is reserved for this (RFC 9000, section 15).
const UNSPOKEN_VERSION: u32 = 0x2a3a_4a5a;
/// Smaller packets of unknown versions are not answered (RFC 9000, section 14.1).
const QUESTION_BYTES: usize = 1200;
const ID_BYTES: usize = 8;
/// A question, or its answer, may be lost.
const ATTEMPTS: u32 = 3;
const ATTEMPT_LIMIT: Duration = Duration::from_millis(700);

/// Whether a QUIC endpoint at `address` answers a packet that it did not ask for; takes at most some two seconds.
///
/// # Errors
/// This system gives no socket or no random numbers; nothing is known then.
pub async fn answers_unasked(address: SocketAddr) -> io::Result<bool> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(address).await?;
    let mut ids = [[0_u8; ID_BYTES]; 2];
    for id in &mut ids {
        getrandom::fill(id).map_err(|_| io::Error::other("no random numbers"))?;
    }
    let [destination, source] = ids;
    let question = question(&destination, &source);
    let mut answer = [0; QUESTION_BYTES];
    for _ in 0..ATTEMPTS {
        // An earlier refusal of the port shows here; another attempt may fare better.
        let _ = socket.send(&question).await;
        let receive = async {
            loop {
                let len = socket.recv(&mut answer).await?;
                if is_answer(&answer[..len], &destination, &source) {
                    return Ok::<_, io::Error>(());
                }
            }
        };
        match timeout(ATTEMPT_LIMIT, receive).await {
            Ok(Ok(())) => return Ok(true),
            // The port is closed.
            Ok(Err(_)) => return Ok(false),
            Err(_) => {}
        }
    }
    Ok(false)
}

fn question(destination: &[u8; ID_BYTES], source: &[u8; ID_BYTES]) -> [u8; QUESTION_BYTES] {
    let mut packet = [0; QUESTION_BYTES];
    let mut header = vec![0xc0];
    header.extend(UNSPOKEN_VERSION.to_be_bytes());
    for id in [destination, source] {
        header.push(ID_BYTES as u8);
        header.extend(id);
    }
    packet[..header.len()].copy_from_slice(&header);
    packet
}

/// Whether a packet is a version negotiation for our question: version 0, our ids in exchanged places.
pub(crate) fn is_answer(
    packet: &[u8],
    destination: &[u8; ID_BYTES],
    source: &[u8; ID_BYTES],
) -> bool {
    let mut expected = vec![0, 0, 0, 0];
    for id in [source, destination] {
        expected.push(ID_BYTES as u8);
        expected.extend(id);
    }
    packet
        .split_first()
        .is_some_and(|(first, rest)| first & 0x80 != 0 && rest.starts_with(&expected))
}

//! Who may begin a handshake, and what a connection may do afterwards.
//!
//! A handshake costs this side two signatures, and memory until it ends, and
//! its first packet may bear any address. So when many are in progress, whoever
//! has not shown that it receives at its address is asked to (QUIC's Retry,
//! RFC 9000, section 8.1.2), which costs this side nothing; and those who have
//! get so many for each host.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{CLOSE_NO_HELLO, CLOSE_NOT_A_MEMBER, CONNECT_LIMIT, Shared};
use crate::buckets::Buckets;
use crate::circuit::is_virtual;
use crate::tls::{ALPN_JOIN, ALPN_MESH};

/// Handshakes in progress; further ones are refused.
pub(super) const HANDSHAKES_MAX: usize = 256;
/// With so many in progress an address has to be proved first.
const UNPROVED_MAX: usize = 64;
/// Handshakes that a host may begin at once when many are in progress, and
/// after what time one more. Behind one address may be many nodes.
const HOST_BURST: u32 = 64;
const HOST_PERIOD: Duration = Duration::from_millis(50);

/// Lets handshakes begin, or not.
struct Gate {
    places: Arc<Semaphore>,
    hosts: Mutex<Buckets>,
}

/// What is to be done with the first packet of a connection.
#[derive(Debug)]
enum Verdict {
    Begin(OwnedSemaphorePermit),
    ProveAddress,
    Refuse,
}

impl Gate {
    fn new() -> Gate {
        Gate {
            places: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            hosts: Mutex::new(Buckets::new(HOST_BURST, HOST_PERIOD)),
        }
    }

    /// `proved` says that the host receives at its address.
    fn judge(&self, now: Instant, host: IpAddr, proved: bool) -> Verdict {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Verdict::Refuse;
        };
        if HANDSHAKES_MAX - self.places.available_permits() <= UNPROVED_MAX {
            return Verdict::Begin(place);
        }
        if !proved {
            return Verdict::ProveAddress;
        }
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if !hosts.wait(now, host).is_zero() {
            return Verdict::Refuse;
        }
        hosts.note(now, host);
        Verdict::Begin(place)
    }
}

pub(super) async fn accept(shared: Arc<Shared>) {
    let gate = Gate::new();
    while let Some(incoming) = shared.quinn.accept().await {
        let from = incoming.remote_address();
        // The far end of a circuit is a peer's word, and bounded with circuits.
        let proved = incoming.remote_address_validated() || is_virtual(&from);
        let place = match gate.judge(Instant::now(), from.ip(), proved) {
            Verdict::Begin(place) => place,
            Verdict::ProveAddress => {
                // Who has been asked already is proved.
                let _ = incoming.retry();
                continue;
            }
            Verdict::Refuse => {
                incoming.refuse();
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let handshake = async {
                let connecting = if is_virtual(&from) {
                    let config = Arc::clone(&shared.configs().circuit_server);
                    incoming.accept_with(config)?
                } else {
                    incoming.accept()?
                };
                connecting.await
            };
            match timeout(CONNECT_LIMIT, handshake).await {
                Ok(Ok(connection)) => {
                    drop(place);
                    receive(shared, connection).await;
                }
                Ok(Err(error)) => tracing::debug!(%from, %error, "a handshake failed"),
                Err(_) => tracing::debug!(%from, "a handshake took too long"),
            }
        });
    }
}

/// Decides by the negotiated protocol what an incoming connection may do.
async fn receive(shared: Arc<Shared>, connection: quinn::Connection) {
    let from = connection.remote_address();
    let protocol = connection
        .handshake_data()
        .and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok())
        .and_then(|data| data.protocol);
    match protocol.as_deref() {
        Some(ALPN_JOIN) => shared.desk.serve(connection).await,
        Some(ALPN_MESH) if shared.shows_own_key(&connection) => {
            shared.receive_own(connection).await;
        }
        Some(ALPN_MESH) if shared.gives_way() => super::copy::close(&connection),
        Some(ALPN_MESH) => match shared.identify(&connection, from) {
            Ok(certificate) => match timeout(CONNECT_LIMIT, shared.greet(&connection, 0)).await {
                Ok(Some(hello)) => {
                    let peer = shared.peer(certificate, hello, connection);
                    shared.admit(peer).await;
                }
                Ok(None) => tracing::debug!(%from, "a peer did not say hello"),
                Err(_) => connection.close(CLOSE_NO_HELLO, b"no hello"),
            },
            Err(error) => shared.log_refused(from, &error),
        },
        _ => connection.close(CLOSE_NOT_A_MEMBER, b"unknown protocol"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    /// Fills the gate with hosts that have proved nothing, up to where they are let in.
    fn crowded(now: Instant) -> (Gate, Vec<OwnedSemaphorePermit>) {
        let gate = Gate::new();
        let mut places = Vec::new();
        while let Verdict::Begin(place) = gate.judge(now, host(1), false) {
            places.push(place);
        }
        assert_eq!(places.len(), UNPROVED_MAX);
        (gate, places)
    }

    #[test]
    fn with_many_in_progress_an_address_has_to_be_proved() {
        let now = Instant::now();
        let (gate, mut places) = crowded(now);
        let unproved = gate.judge(now, host(2), false);
        assert!(matches!(unproved, Verdict::ProveAddress), "{unproved:?}");
        let proved = gate.judge(now, host(2), true);
        assert!(matches!(proved, Verdict::Begin(_)), "{proved:?}");
        drop(proved);
        places.pop();
        let again = gate.judge(now, host(2), false);
        assert!(matches!(again, Verdict::Begin(_)), "{again:?}");
    }

    #[test]
    fn one_host_does_not_take_all_places_and_not_for_ever() {
        let now = Instant::now();
        let (gate, mut places) = crowded(now);
        for _ in 0..HOST_BURST {
            match gate.judge(now, host(2), true) {
                Verdict::Begin(place) => places.push(place),
                verdict => panic!("{verdict:?}"),
            }
        }
        let greedy = gate.judge(now, host(2), true);
        assert!(matches!(greedy, Verdict::Refuse), "{greedy:?}");
        let other = gate.judge(now, host(3), true);
        assert!(matches!(other, Verdict::Begin(_)), "{other:?}");
        let later = gate.judge(now + HOST_PERIOD, host(2), true);
        assert!(matches!(later, Verdict::Begin(_)), "{later:?}");
    }

    #[test]
    fn all_places_taken_are_taken_for_everybody() {
        let gate = Gate::new();
        let all = Arc::clone(&gate.places).try_acquire_many_owned(HANDSHAKES_MAX as u32);
        assert!(all.is_ok());
        let refused = gate.judge(Instant::now(), host(1), true);
        assert!(matches!(refused, Verdict::Refuse), "{refused:?}");
    }
}

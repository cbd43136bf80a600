//! The QUIC endpoint of a node: one socket that listens and dials, and the
//! pool of its connections.
//!
//! There is one connection per peer. Two nodes that dial each other in the same
//! moment get two: both choose the same one for all that is new, and the other is
//! closed when what was said on it has come to its end (`pool`). A connection
//! that nobody uses is closed, and made again when it is wanted.

mod backoff;
mod copy;
mod error;
mod gate;
mod hello;
mod pool;
mod refused;
mod sockets;
mod tending;
mod traffic;
mod transport;

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use mielin_mesh_core::{NodeId, SignedRevocation};
use quinn::{ConnectionError, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::certificate::{CertificateError, MEMBER_NAME, NodeCertificate};
use crate::circuit::{CircuitSocket, Circuits, is_virtual};
use crate::class::{ClassCounters, ClassTraffic, TrafficClass};
use crate::credentials::NodeCredentials;
use crate::exchange::JoinDesk;
use crate::introduction;
use crate::peer::{Incoming, Peer, WireEvent};
use crate::revoked::Revoked;
use crate::socket::Socket;
use crate::stream::MeshStream;
use backoff::Backoff;
pub use error::{WireError, revocation_said, says_revoked};
pub(crate) use error::{close_reason_is_other_mesh, says_unused};
use error::{dial_error, says_idle};
pub use hello::Features;
pub(crate) use hello::{Hello, Instance};
use pool::Pool;
use refused::Refused;
use sockets::bind_sockets;
pub use traffic::Traffic;
pub use transport::Liveness;
use transport::{Configs, PACKET_BYTES, server_config};

/// From the first packet to a verified peer.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// From the opening of a stream to its protocol number.
const STREAM_OPEN_LIMIT: Duration = Duration::from_secs(10);
/// How long closing waits for the peers to be told.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// Streams and requests of one peer that are served at once.
const STREAMS_PER_PEER: usize = 256;
/// Events that wait to be taken before the endpoint stops reading.
const EVENTS_QUEUED: usize = 1024;

const CLOSE_SHUTDOWN: VarInt = VarInt::from_u32(0);
const CLOSE_NOT_A_MEMBER: VarInt = VarInt::from_u32(17);
const CLOSE_ITSELF: VarInt = VarInt::from_u32(18);
/// Another connection stands, and nothing was going on over this one.
const CLOSE_SUPERSEDED: VarInt = VarInt::from_u32(19);
const CLOSE_REVOKED: VarInt = VarInt::from_u32(20);
const CLOSE_NO_HELLO: VarInt = VarInt::from_u32(21);
/// Nothing was going on.
const CLOSE_IDLE: VarInt = VarInt::from_u32(22);
/// Another connection stands; streams may have been open on this one.
const CLOSE_REPLACED: VarInt = VarInt::from_u32(23);

/// Listens and dials; clones share it.
#[derive(Clone)]
pub struct Endpoint {
    shared: Arc<Shared>,
}

struct Shared {
    quinn: quinn::Endpoint,
    local: NodeId,
    address: SocketAddr,
    liveness: Liveness,
    /// What this endpoint says of itself.
    hello: Hello,
    /// Connections dialled so far.
    dials: AtomicU64,
    /// Changes of the host's address so far.
    moves: AtomicU64,
    /// Another process with this node's key is in its place.
    gives_way: AtomicBool,
    configs: Mutex<Configs>,
    circuits: Circuits,
    revoked: Revoked,
    counters: ClassCounters,
    pool: Mutex<Pool>,
    backoff: Mutex<Backoff>,
    refused: Mutex<Refused>,
    desk: Arc<JoinDesk>,
    events: mpsc::Sender<WireEvent>,
    introduction: AbortHandle,
}

impl Endpoint {
    /// Listens on `address`: UDP for QUIC, and TCP for introductions on the
    /// same port. Port 0 takes one that is free for both. Peers are told what
    /// this node serves.
    ///
    /// # Errors
    /// [`WireError::AddressInUse`] and [`WireError::Bind`]; nothing is open then.
    pub async fn bind(
        address: SocketAddr,
        credentials: &NodeCredentials,
        liveness: Liveness,
        features: Features,
    ) -> Result<(Self, mpsc::Receiver<WireEvent>), WireError> {
        let (udp, tcp) = bind_sockets(address)?;
        let cannot_bind = |source| WireError::Bind { address, source };
        let random = getrandom::u32();
        let random = random.map_err(|_| cannot_bind(io::Error::other("no random numbers")))?;
        let instance = Instance::begun(SystemTime::now(), random);
        let real = Arc::new(Socket::new(udp).map_err(cannot_bind)?);
        let circuits = Circuits::default();
        let mut config = quinn::EndpointConfig::default();
        let takes = config.max_udp_payload_size(PACKET_BYTES);
        takes.expect("it is above the least that QUIC allows");
        let quinn = quinn::Endpoint::new_with_abstract_socket(
            config,
            Some(server_config(credentials, liveness)?),
            Arc::new(CircuitSocket::new(real, circuits.clone())),
            Arc::new(quinn::TokioRuntime),
        )
        .map_err(cannot_bind)?;
        let bound = quinn.local_addr().map_err(cannot_bind)?;
        let tcp = TcpListener::from_std(tcp).map_err(cannot_bind)?;
        let serving = tokio::spawn(introduction::serve(tcp, credentials.root().clone()));
        let (events, taken) = mpsc::channel(EVENTS_QUEUED);
        let desk = JoinDesk::new(credentials.mesh_id(), credentials.authority().cloned());
        let shared = Arc::new(Shared {
            quinn,
            local: credentials.id(),
            address: bound,
            liveness,
            hello: Hello::new(features, instance),
            dials: AtomicU64::new(0),
            moves: AtomicU64::new(0),
            gives_way: AtomicBool::new(false),
            configs: Mutex::new(Configs::new(credentials, liveness)?),
            circuits,
            revoked: credentials.revoked().clone(),
            counters: ClassCounters::default(),
            pool: Mutex::new(Pool::new(credentials.id())),
            backoff: Mutex::default(),
            refused: Mutex::default(),
            desk: Arc::new(desk),
            events,
            introduction: serving.abort_handle(),
        });
        tokio::spawn(gate::accept(Arc::clone(&shared)));
        tokio::spawn(tending::tend(Arc::downgrade(&shared), liveness.unused));
        Ok((Endpoint { shared }, taken))
    }

    /// Where it listens; the address may be unspecified, the port is not 0.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.shared.address
    }

    /// A connection to `node`, dialled at `address` when there is none. A node that could not be dialled there is left
    /// alone for 0.1 s, doubling to 10 s; whoever wants it meanwhile is told so at once.
    ///
    /// # Errors
    /// [`WireError`], [`WireError::Pausing`] among them; the pool is as before.
    pub async fn connect(&self, node: &NodeId, address: SocketAddr) -> Result<Peer, WireError> {
        if let Some(peer) = self.peer(node) {
            return Ok(peer);
        }
        self.dial_node(node, address, |peer| peer).await
    }

    /// A connection to `node` that goes over no relay, dialled at `address` when there is none.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_directly(
        &self,
        node: &NodeId,
        address: SocketAddr,
    ) -> Result<Peer, WireError> {
        let direct = |peer: Option<Peer>| peer.filter(|peer| !peer.is_relayed());
        if let Some(peer) = direct(self.peer(node)) {
            return Ok(peer);
        }
        self.dial_node(node, address, direct).await
    }

    /// A connection to `node` over the circuits to it, when there is none. It outlives a circuit for as long as
    /// silence may last; another circuit takes over.
    ///
    /// # Errors
    /// [`WireError`]; the pool is as before.
    pub async fn connect_over_circuit(&self, node: &NodeId) -> Result<Peer, WireError> {
        if let Some(peer) = self.peer(node) {
            return Ok(peer);
        }
        let address = self.shared.circuits.address(node);
        let address = address.ok_or(WireError::NoCircuit { node: *node })?;
        self.dial_checked(node, address).await
    }

    /// Lets a node be dialled at once, though it could not be a moment ago: a person asks, or whoever asks makes
    /// pauses of his own.
    pub fn hurry(&self, node: &NodeId) {
        self.shared.backoff().forget(node);
    }

    /// The circuits through relays.
    #[must_use]
    pub fn circuits(&self) -> &Circuits {
        &self.shared.circuits
    }

    async fn dial_node(
        &self,
        node: &NodeId,
        address: SocketAddr,
        suits: impl Fn(Option<Peer>) -> Option<Peer>,
    ) -> Result<Peer, WireError> {
        // Only one dial per node at a time: those who wait find the first one's
        // connection.
        let turn = self.shared.pool().turn(node);
        let _turn = timeout(CONNECT_LIMIT, turn.lock())
            .await
            .map_err(|_| WireError::Timeout {
                address,
                limit: CONNECT_LIMIT,
            })?;
        if let Some(peer) = suits(self.peer(node)) {
            return Ok(peer);
        }
        self.shared.backoff().pause(Instant::now(), node, address)?;
        let dialled = self.dial_checked(node, address).await;
        if let Err(reason) = &dialled
            && reason.may_pass()
        {
            let now = Instant::now();
            let mut backoff = self.shared.backoff();
            backoff.failed(now, node, address, reason, jitter());
        }
        dialled
    }

    async fn dial_checked(&self, node: &NodeId, address: SocketAddr) -> Result<Peer, WireError> {
        if *node == self.shared.local {
            return Err(WireError::Itself { address });
        }
        if self.is_revoked(node) {
            return Err(WireError::Revoked { node: *node });
        }
        let peer = self.shared.dial(address, &node.server_name()).await?;
        if peer.node() != *node {
            peer.connection().close(CLOSE_NOT_A_MEMBER, b"another node");
            let (expected, actual) = (*node, peer.node());
            return Err(WireError::OtherNode {
                address,
                expected,
                actual,
            });
        }
        Ok(self.shared.admit(peer).await)
    }

    /// Dials whichever member listens at `address`. If it was connected already, that connection may be given.
    ///
    /// # Errors
    /// [`WireError`]; the pool is as before.
    pub async fn connect_any(&self, address: SocketAddr) -> Result<Peer, WireError> {
        let peer = self.shared.dial(address, MEMBER_NAME).await?;
        Ok(self.shared.admit(peer).await)
    }

    /// Says that packets to the address at which peers have dialled this node arrive no more: its host has another one.
    /// Peers learn it from the next connection with them, and then end what stood before.
    pub fn has_moved(&self) {
        self.shared.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes a connection anew that a peer has dialled at an address which this node [has no
    /// more](Self::has_moved), and ends that one: only who has dialled can go on (RFC 9000, section 9).
    ///
    /// # Errors
    /// [`WireError`]; the old connection stays as it was.
    pub async fn replace(&self, old: &Peer, address: SocketAddr) -> Result<(), WireError> {
        self.dial_checked(&old.node(), address).await?;
        old.connection()
            .close(CLOSE_REPLACED, b"from another address");
        Ok(())
    }

    /// The preferred live connection to a node.
    #[must_use]
    pub fn peer(&self, node: &NodeId) -> Option<Peer> {
        self.shared.pool().preferred(node)
    }

    /// The preferred live connection to every node that has one.
    #[must_use]
    pub fn peers(&self) -> Vec<Peer> {
        self.shared.pool().peers()
    }

    /// What went over all connections with members so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.shared.pool().traffic()
    }

    /// What went over the streams of a class so far.
    #[must_use]
    pub fn traffic_of(&self, class: TrafficClass) -> ClassTraffic {
        self.shared.counters.of(class)
    }

    /// Closes every connection to a node.
    pub fn disconnect(&self, node: &NodeId) {
        for peer in self.shared.pool().of(node) {
            peer.connection().close(CLOSE_SHUTDOWN, b"left");
        }
    }

    /// Shuts a node out for good: its connections are closed, with the proof, and it is neither dialled nor let in
    /// again. If it is this node itself, it dials nobody any more.
    pub fn revoke(&self, signed: &SignedRevocation) {
        let node = &signed.revocation().node;
        self.shared.revoked.insert(signed.clone());
        for peer in self.shared.pool().of(node) {
            self.shared.close_revoked(node, peer.connection());
        }
    }

    /// Whether a node is shut out.
    #[must_use]
    pub fn is_revoked(&self, node: &NodeId) -> bool {
        self.shared.revoked.contains(node)
    }

    /// Tells joiners who come here where the holder of the root is.
    pub fn issuer_is_at(&self, address: Option<SocketAddr>) {
        self.shared.desk.issuer_is_at(address);
    }

    /// Uses renewed credentials for every connection from now on; those that
    /// stand are not touched.
    ///
    /// # Errors
    /// [`WireError::Tls`]; the old credentials stay in use.
    pub fn renew(&self, credentials: &NodeCredentials) -> Result<(), WireError> {
        let server = server_config(credentials, self.shared.liveness)?;
        let configs = Configs::new(credentials, self.shared.liveness)?;
        self.shared.quinn.set_server_config(Some(server));
        *self.shared.configs() = configs;
        Ok(())
    }

    /// Closes everything and frees the port; takes at most two seconds.
    pub async fn close(&self) {
        self.shared.introduction.abort();
        self.shared.quinn.close(CLOSE_SHUTDOWN, b"shutting down");
        let _ = timeout(CLOSE_LIMIT, self.shared.quinn.wait_idle()).await;
    }
}

impl Shared {
    async fn dial(&self, address: SocketAddr, server: &str) -> Result<Peer, WireError> {
        if self.gives_way() && server != self.local.server_name() {
            return Err(WireError::GivesWay);
        }
        if self.revoked.contains(&self.local) {
            return Err(WireError::ShutOut);
        }
        let config = if is_virtual(&address) {
            self.configs().circuit_client.clone()
        } else {
            self.configs().client.clone()
        };
        let connecting = self
            .quinn
            .connect_with(config, address, server)
            .map_err(|source| WireError::Address { address, source })?;
        let handshake = async {
            let connection = connecting.await?;
            let dial = self.dials.fetch_add(1, Ordering::Relaxed) + 1;
            match self.greet(&connection, dial).await {
                // The order is the dialler's, that is ours.
                Some(heard) => Ok((connection, Hello { dial, ..heard })),
                None => Err(connection.closed().await),
            }
        };
        let began = Instant::now();
        let (connection, hello) = match timeout(CONNECT_LIMIT, handshake).await {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(source)) => {
                if let Some(signed) = revocation_said(&source) {
                    let _ = self.events.send(WireEvent::SaidRevoked(signed)).await;
                }
                return Err(dial_error(address, began.elapsed(), source));
            }
            Err(_) => {
                let limit = CONNECT_LIMIT;
                return Err(WireError::Timeout { address, limit });
            }
        };
        if self.shows_own_key(&connection) {
            let met = self.met_own_key(address, hello.instance).await;
            connection.close(CLOSE_ITSELF, b"itself");
            return Err(met);
        }
        let certificate = self.identify(&connection, address)?;
        let peer = self.peer(certificate, hello, connection);
        Ok(peer)
    }

    /// Exchanges hellos; `dial` is 0 for who was dialled. Without the peer's the connection is closed, and the
    /// reason says whose fault that is.
    async fn greet(&self, connection: &quinn::Connection, dial: u64) -> Option<Hello> {
        let said = Hello {
            dial,
            instance: self
                .hello
                .instance
                .after(self.moves.load(Ordering::Relaxed)),
            ..self.hello.clone()
        };
        let (_, heard) = tokio::join!(said.send(connection), Hello::receive(connection));
        if heard.is_none() && connection.close_reason().is_none() {
            connection.close(CLOSE_NO_HELLO, b"no hello");
        }
        heard
    }

    fn peer(
        &self,
        certificate: NodeCertificate,
        mut hello: Hello,
        connection: quinn::Connection,
    ) -> Peer {
        hello.features = hello.features.common(self.hello.features);
        Peer::new(certificate, hello, connection, self.counters.clone())
    }

    /// Computes who is at the other end. WebPKI has verified its certificate's
    /// chain before; here its id is compared with its key.
    fn identify(
        &self,
        connection: &quinn::Connection,
        address: SocketAddr,
    ) -> Result<NodeCertificate, WireError> {
        let missing = || CertificateError::Malformed("no certificate was shown".into());
        let checked = peer_certificate(connection)
            .ok_or_else(missing)
            .and_then(|certificate| NodeCertificate::check(&certificate));
        match checked {
            Ok(seen) if self.revoked.contains(&seen.id) => {
                self.close_revoked(&seen.id, connection);
                Err(WireError::Revoked { node: seen.id })
            }
            Ok(seen) => Ok(seen),
            Err(source) => {
                connection.close(CLOSE_NOT_A_MEMBER, b"not a member");
                Err(WireError::NotAMember { address, source })
            }
        }
    }

    /// Adds a verified peer to the pool and begins to listen to it. Gives the
    /// connection that stays if there are several.
    async fn admit(self: &Arc<Self>, peer: Peer) -> Peer {
        if !peer.is_relayed() {
            self.backoff().forget(&peer.node());
        }
        // The events of a peer are sent in the order in which its connections come and go.
        let event = self.events.reserve().await;
        let (places, preferred) = {
            let mut pool = self.pool();
            let (first, places) = pool.insert(Instant::now(), &peer, STREAMS_PER_PEER);
            if first && let Ok(event) = event {
                event.send(WireEvent::Connected(peer.clone()));
            }
            (places, pool.preferred(&peer.node()))
        };
        // Shut out since it was identified: whoever did so may have looked into
        // the pool too early.
        if self.revoked.contains(&peer.node()) {
            self.close_revoked(&peer.node(), peer.connection());
        }
        // Likewise.
        if self.gives_way() {
            copy::close(peer.connection());
        }
        tokio::spawn(listen(Arc::clone(self), peer.clone(), places));
        preferred.unwrap_or(peer)
    }

    /// Ends a connection with a node that is shut out, and shows it why.
    fn close_revoked(&self, node: &NodeId, connection: &quinn::Connection) {
        connection.close(CLOSE_REVOKED, &self.revoked.proof(node));
    }

    fn configs(&self) -> MutexGuard<'_, Configs> {
        self.configs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn backoff(&self) -> MutexGuard<'_, Backoff> {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Between 0 and 1; 1 when the system gives no random numbers.
fn jitter() -> f64 {
    let random = getrandom::u32().unwrap_or(u32::MAX);
    f64::from(random) / f64::from(u32::MAX)
}

/// Takes what a peer sends until its connection ends.
async fn listen(shared: Arc<Shared>, peer: Peer, places: Arc<Semaphore>) {
    let reason = tokio::select! {
        reason = take_datagrams(&shared, &peer) => reason,
        reason = take_streams(&shared, &peer, places) => reason,
    };
    let event = shared.events.reserve().await;
    let mut pool = shared.pool();
    if says_idle(&reason) {
        pool.note_idle();
    }
    if pool.remove(&peer)
        && let Ok(event) = event
    {
        let node = peer.node();
        let unused = peer.usage().is_given_up() || says_unused(&reason);
        event.send(match unused {
            true => WireEvent::Released { node },
            false => WireEvent::Lost { node, reason },
        });
    }
}

async fn take_datagrams(shared: &Shared, peer: &Peer) -> ConnectionError {
    loop {
        match peer.connection().read_datagram().await {
            Ok(bytes) => {
                peer.counters().received(TrafficClass::Control, bytes.len());
                let datagram = WireEvent::Datagram {
                    from: peer.node(),
                    bytes,
                };
                if shared.events.try_send(datagram).is_err() {
                    tracing::debug!(peer = ?peer.node(), "a datagram was dropped");
                }
            }
            Err(reason) => return reason,
        }
    }
}

async fn take_streams(shared: &Shared, peer: &Peer, places: Arc<Semaphore>) -> ConnectionError {
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let place = place.expect("nobody closes the semaphore");
        let (send, mut recv) = match peer.connection().accept_bi().await {
            Ok(stream) => stream,
            Err(reason) => return reason,
        };
        // Given up in this moment: the peer is about to hear that nothing was heard.
        let Some(in_use) = peer.usage().begin() else {
            return peer.connection().closed().await;
        };
        let (events, connection) = (shared.events.clone(), peer.clone());
        let counters = shared.counters.clone();
        tokio::spawn(async move {
            let mut number = [0; 2];
            let read = timeout(STREAM_OPEN_LIMIT, recv.read_exact(&mut number)).await;
            if let Ok(Ok(())) = read {
                let protocol = u16::from_be_bytes(number);
                let stream = MeshStream::new(connection.node(), protocol, send, recv, counters);
                let incoming = Incoming {
                    stream: stream.in_use(in_use),
                    connection,
                    place,
                };
                let _ = events.send(WireEvent::Stream(Box::new(incoming))).await;
            }
        });
    }
}

/// The certificate that the peer has shown in the handshake.
pub(crate) fn peer_certificate(connection: &quinn::Connection) -> Option<CertificateDer<'static>> {
    let identity: Box<dyn Any> = connection.peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.first().cloned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

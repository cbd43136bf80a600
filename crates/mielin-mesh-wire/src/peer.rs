//! A connected peer, and what arrives from it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mielin_mesh_core::{NodeId, NodeRole, SignedRevocation};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::certificate::NodeCertificate;
use crate::circuit::is_virtual;
use crate::class::{ClassCounters, TrafficClass};
use crate::endpoint::{Features, Hello, Instance};
use crate::stream::{MeshStream, StreamError};
use crate::usage::Usage;

/// Bulk streams of one connection that send at once. What their windows hold when
/// the peer does not read is 24 MiB of the connection's 32: control and messages
/// still pass.
const BULK_STREAMS_MAX: usize = 3;

/// Streams of messages and of commands on agents that are open at once on one
/// connection: half of those that a peer serves, so that control has the others.
pub(crate) const MESSAGE_STREAMS_MAX: usize = 128;

/// A live connection to a member that has proved its id; clones share it.
#[derive(Clone, Debug)]
pub struct Peer {
    node: NodeId,
    role: NodeRole,
    issuer: bool,
    hello: Arc<Hello>,
    connection: quinn::Connection,
    counters: ClassCounters,
    bulk: Arc<Semaphore>,
    messages: Arc<Semaphore>,
    usage: Usage,
}

/// What an endpoint reports.
#[derive(Debug)]
pub enum WireEvent {
    /// The first connection to a peer stands.
    Connected(Peer),
    /// The last connection to a peer was closed because nobody used it. That says
    /// nothing about the peer.
    Released {
        /// Who.
        node: NodeId,
    },
    /// The last connection to a peer is gone.
    Lost {
        /// Who.
        node: NodeId,
        /// Why.
        reason: quinn::ConnectionError,
    },
    /// Another process that bears this node's own key, and lives: it has made a handshake.
    Copy {
        /// Where it listens.
        address: SocketAddr,
        /// Whether it was started before this one, by the clocks of both.
        elder: bool,
    },
    /// Who was dialled shows that this node was shut out, if the root's signature is good.
    SaidRevoked(Box<SignedRevocation>),
    /// A datagram. Datagrams are dropped when nobody takes the events in time.
    Datagram {
        /// Who sent it.
        from: NodeId,
        /// What.
        bytes: Bytes,
    },
    /// A peer opened a stream.
    Stream(Box<Incoming>),
}

/// A stream that a peer has opened.
#[derive(Debug)]
pub struct Incoming {
    /// The stream; it says from whom and for which protocol.
    pub stream: MeshStream,
    /// The connection that it is on.
    pub connection: Peer,
    /// The place among the streams that one peer may have served at once. Keep
    /// it until the work for this stream has ended, however the stream ends.
    pub place: OwnedSemaphorePermit,
}

/// Why a datagram was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// The path takes smaller datagrams only; use a stream.
    #[error("a datagram of {len} bytes is above the path's limit of {limit}")]
    TooLarge {
        /// Its length.
        len: usize,
        /// What would fit.
        limit: usize,
    },
    /// The connection is gone.
    #[error("the connection was lost: {0}")]
    ConnectionLost(quinn::ConnectionError),
}

impl Peer {
    pub(crate) fn new(
        certificate: NodeCertificate,
        hello: Hello,
        connection: quinn::Connection,
        counters: ClassCounters,
    ) -> Self {
        Peer {
            node: certificate.id,
            role: certificate.role,
            issuer: certificate.issuer,
            hello: Arc::new(hello),
            connection,
            counters,
            bulk: Arc::new(Semaphore::new(BULK_STREAMS_MAX)),
            messages: Arc::new(Semaphore::new(MESSAGE_STREAMS_MAX)),
            usage: Usage::default(),
        }
    }

    pub(crate) fn is_dialled(&self) -> bool {
        !self.has_dialled()
    }

    pub(crate) fn instance(&self) -> Instance {
        self.hello.instance
    }

    /// Ascends with the connections that its dialler has dialled.
    pub(crate) fn dial(&self) -> u64 {
        self.hello.dial
    }

    pub(crate) fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Whether something new may be said on the connection.
    pub(crate) fn is_usable(&self) -> bool {
        self.is_live() && !self.usage.is_given_up()
    }

    /// Its id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The role in its certificate.
    #[must_use]
    pub fn role(&self) -> NodeRole {
        self.role
    }

    /// Whether its certificate says that it holds the root.
    #[must_use]
    pub fn is_issuer(&self) -> bool {
        self.issuer
    }

    /// What both it and this node serve.
    #[must_use]
    pub fn features(&self) -> Features {
        self.hello.features
    }

    /// The version of its program.
    #[must_use]
    pub fn version(&self) -> &str {
        self.hello.program.as_str()
    }

    /// Where its packets come from; it need not be where it listens.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        let address = self.connection.remote_address();
        SocketAddr::new(address.ip().to_canonical(), address.port())
    }

    /// Whether its packets come over circuits through a relay; [`remote_address`](Self::remote_address) means
    /// nothing then.
    #[must_use]
    pub fn is_relayed(&self) -> bool {
        is_virtual(&self.connection.remote_address())
    }

    /// Whether the peer has dialled this node, and not this node the peer. Only who has dialled may go on from another
    /// address (RFC 9000, section 9).
    #[must_use]
    pub fn has_dialled(&self) -> bool {
        self.connection.side().is_server()
    }

    /// The estimated round trip time.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// Whether the connection still stood a moment ago.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Whether this and another are the same connection, and not only to the same node.
    #[must_use]
    pub fn is_same_connection(&self, other: &Peer) -> bool {
        self.connection.stable_id() == other.connection.stable_id()
    }

    /// Opens a stream for `protocol`, whose [`TrafficClass`] follows from the
    /// number. Waits when the peer has as many open streams as it allows, and for
    /// a bulk stream (200 to 299) or one of messages while as many are open as leave
    /// room for others.
    ///
    /// # Errors
    /// [`StreamError::ConnectionLost`].
    pub async fn open(&self, protocol: u16) -> Result<MeshStream, StreamError> {
        let in_use = self.usage.begin();
        let in_use = in_use.ok_or(StreamError::ConnectionLost(
            quinn::ConnectionError::LocallyClosed,
        ))?;
        let place = match TrafficClass::of(protocol) {
            TrafficClass::Bulk if (200..300).contains(&protocol) => Some(&self.bulk),
            TrafficClass::Messages => Some(&self.messages),
            _ => None,
        };
        let place = match place {
            Some(places) => Arc::clone(places).acquire_owned().await.ok(),
            None => None,
        };
        let (mut send, recv) = self
            .connection
            .open_bi()
            .await
            .map_err(StreamError::ConnectionLost)?;
        send.write_all(&protocol.to_be_bytes())
            .await
            .map_err(|error| match error {
                quinn::WriteError::ConnectionLost(lost) => StreamError::ConnectionLost(lost),
                _ => StreamError::Closed,
            })?;
        let counters = self.counters.clone();
        let stream = MeshStream::new(self.node, protocol, send, recv, counters);
        let stream = stream.on(&self.connection);
        Ok(stream.with_place(place).in_use(in_use))
    }

    /// Sends a datagram; it may be lost.
    ///
    /// # Errors
    /// [`DatagramError`]; it was certainly not sent.
    pub fn send_datagram(&self, bytes: Bytes) -> Result<(), DatagramError> {
        let len = bytes.len();
        self.counters.sent(TrafficClass::Control, len);
        self.connection
            .send_datagram(bytes)
            .map_err(|error| match error {
                quinn::SendDatagramError::ConnectionLost(lost) => {
                    DatagramError::ConnectionLost(lost)
                }
                // Peers that speak our protocol always take datagrams; one that
                // does not is served by streams.
                quinn::SendDatagramError::TooLarge
                | quinn::SendDatagramError::UnsupportedByPeer
                | quinn::SendDatagramError::Disabled => DatagramError::TooLarge {
                    len,
                    limit: self.connection.max_datagram_size().unwrap_or(0),
                },
            })
    }

    pub(crate) fn counters(&self) -> &ClassCounters {
        &self.counters
    }

    pub(crate) fn connection(&self) -> &quinn::Connection {
        &self.connection
    }
}

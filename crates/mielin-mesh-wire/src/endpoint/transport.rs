//! What connections are made with.

use std::sync::Arc;
use std::time::Duration;

use quinn::VarInt;

use super::{STREAMS_PER_PEER, gate};
use crate::circuit::CIRCUIT_WINDOW;
use crate::credentials::NodeCredentials;
use crate::tls::{self, TlsError};

/// Largest packet that is looked for on a path (RFC 8899): jumbo frames and
/// loopback take it, and it is 4.4 times an Ethernet frame.
pub(super) const PACKET_BYTES: u16 = 6400;
/// Largest packet over circuits, whatever the way to the relay takes.
const CIRCUIT_PACKET_BYTES: u16 = 1452;
/// Packets that may arrive before they are acknowledged (draft-ietf-quic-ack-frequency);
/// without it every other packet would be. A gap is told at once, and the last packets of
/// a burst after 25 ms at most.
const UNACKNOWLEDGED_MAX: u32 = 9;
/// A bulk stream must not wait for window updates on a long path.
const STREAM_WINDOW: u32 = 8 * 1024 * 1024;
pub(super) const CONNECTION_WINDOW: u32 = 32 * 1024 * 1024;
/// A connection over circuits outlives the silence that ends a relay's by this factor, so that another can take over.
const CIRCUIT_PATIENCE: u32 = 3;

/// When silence ends a connection, and when idleness does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    /// Silence after which a connection counts as lost.
    pub idle: Duration,
    /// Silence after which a sign of life is sent; less than half of `idle`.
    pub keep_alive: Duration,
    /// Without use for so long a connection is closed: no stream is open on it, and nothing but signs of life was
    /// said. That is no loss; whoever wants something dials again.
    pub unused: Duration,
}

/// What connections are made with, from the newest credentials.
pub(super) struct Configs {
    pub(super) client: quinn::ClientConfig,
    pub(super) circuit_client: quinn::ClientConfig,
    pub(super) circuit_server: Arc<quinn::ServerConfig>,
}

impl Configs {
    pub(super) fn new(
        credentials: &NodeCredentials,
        liveness: Liveness,
    ) -> Result<Configs, TlsError> {
        let over_circuits = Arc::new(liveness.circuit_transport());
        let client = client_config(credentials, liveness)?;
        let mut circuit_client = client.clone();
        circuit_client.transport_config(Arc::clone(&over_circuits));
        let mut circuit_server = server_config(credentials, liveness)?;
        circuit_server.transport_config(over_circuits);
        Ok(Configs {
            client,
            circuit_client,
            circuit_server: Arc::new(circuit_server),
        })
    }
}

impl Liveness {
    pub(crate) fn transport(&self) -> quinn::TransportConfig {
        let mut transport = quinn::TransportConfig::default();
        transport
            .max_idle_timeout(self.idle.try_into().ok())
            .keep_alive_interval(Some(self.keep_alive))
            .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_PER_PEER as u32))
            .max_concurrent_uni_streams(VarInt::from_u32(1))
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
            .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
            .send_window(u64::from(CONNECTION_WINDOW))
            .mtu_discovery_config(Some(mtu_discovery(PACKET_BYTES)))
            .ack_frequency_config(Some(acknowledgements()));
        transport
    }

    /// For connections over circuits: little on its way, and patience while one circuit replaces another.
    fn circuit_transport(&self) -> quinn::TransportConfig {
        let patient = Liveness {
            idle: self.idle * CIRCUIT_PATIENCE,
            ..*self
        };
        let mut transport = patient.transport();
        transport
            .stream_receive_window(VarInt::from_u32(CIRCUIT_WINDOW))
            .receive_window(VarInt::from_u32(CIRCUIT_WINDOW))
            .send_window(u64::from(CIRCUIT_WINDOW))
            .mtu_discovery_config(Some(mtu_discovery(CIRCUIT_PACKET_BYTES)));
        transport
    }
}

fn acknowledgements() -> quinn::AckFrequencyConfig {
    let mut frequency = quinn::AckFrequencyConfig::default();
    frequency.ack_eliciting_threshold(VarInt::from_u32(UNACKNOWLEDGED_MAX));
    frequency
}

fn mtu_discovery(upper_bound: u16) -> quinn::MtuDiscoveryConfig {
    let mut discovery = quinn::MtuDiscoveryConfig::default();
    discovery.upper_bound(upper_bound);
    discovery
}

pub(super) fn server_config(
    credentials: &NodeCredentials,
    liveness: Liveness,
) -> Result<quinn::ServerConfig, TlsError> {
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls::server(credentials)?));
    config
        .transport_config(Arc::new(liveness.transport()))
        .max_incoming(gate::HANDSHAKES_MAX);
    Ok(config)
}

pub(super) fn client_config(
    credentials: &NodeCredentials,
    liveness: Liveness,
) -> Result<quinn::ClientConfig, TlsError> {
    let mut config = quinn::ClientConfig::new(Arc::new(tls::member_client(credentials)?));
    config.transport_config(Arc::new(liveness.transport()));
    Ok(config)
}

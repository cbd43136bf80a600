//! Raw quinn without framing: as it comes, and tuned.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};

use crate::work::{BUFFER_BYTES, BULK_BYTES, HEADER_BYTES, Kind, RoundTrips, SMALL_BYTES, Work};

/// How quinn is set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    /// Defaults, `write_all` and `read`.
    AsItComes,
    /// MTU discovery to 6400, windows of 8 MiB, socket buffers of 4 MiB,
    /// `write_chunk` and `read_chunk`.
    Tuned,
}

fn transport(setting: Setting) -> Arc<quinn::TransportConfig> {
    let mut transport = quinn::TransportConfig::default();
    if setting == Setting::Tuned {
        let mut discovery = quinn::MtuDiscoveryConfig::default();
        discovery.upper_bound(6400);
        transport
            .mtu_discovery_config(Some(discovery))
            .stream_receive_window((8_u32 << 20).into())
            .send_window(32 << 20);
    }
    Arc::new(transport)
}

fn endpoint(setting: Setting, server: Option<quinn::ServerConfig>) -> Result<quinn::Endpoint> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let mut config = quinn::EndpointConfig::default();
    if setting == Setting::Tuned {
        let buffers = socket2::SockRef::from(&socket);
        buffers.set_recv_buffer_size(4 << 20)?;
        buffers.set_send_buffer_size(4 << 20)?;
        config.max_udp_payload_size(65_527)?;
    }
    let runtime = Arc::new(quinn::TokioRuntime);
    Ok(quinn::Endpoint::new(config, server, socket, runtime)?)
}

/// Listens and answers on the current runtime.
pub(crate) fn serve(setting: Setting, tls: rustls::ServerConfig) -> Result<SocketAddr> {
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport(setting));
    let endpoint = endpoint(setting, Some(config))?;
    let address = endpoint.local_addr()?;
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                let connection = incoming.await?;
                loop {
                    let (send, recv) = connection.accept_bi().await?;
                    // A stream ends with an error when its client goes away.
                    tokio::spawn(answer(setting, send, recv));
                }
                #[allow(unreachable_code, reason = "gives the block its error type")]
                Ok::<(), quinn::ConnectionError>(())
            });
        }
    });
    Ok(address)
}

async fn answer(
    setting: Setting,
    mut send: quinn::SendStream,
    mut recv: quinn::RecvStream,
) -> Result<()> {
    let mut header = [0; HEADER_BYTES];
    recv.read_exact(&mut header).await?;
    let work = Work::parse(header);
    if work.kind == Kind::RoundTrip {
        let mut message = [0; SMALL_BYTES];
        for _ in 0..work.count {
            recv.read_exact(&mut message).await?;
            send.write_all(&message).await?;
        }
    } else {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut left = work.bytes();
        while left > 0 {
            let read = if setting == Setting::Tuned {
                let chunk = recv.read_chunk(BUFFER_BYTES, true).await?;
                chunk.map(|chunk| chunk.bytes.len())
            } else {
                recv.read(&mut buffer).await?
            };
            left -= read.context("the client went away")? as u64;
        }
        send.write_all(&[1]).await?;
    }
    send.finish()?;
    Ok(())
}

/// Dials with an endpoint of its own.
pub(crate) fn client(setting: Setting, tls: rustls::ClientConfig) -> Result<quinn::Endpoint> {
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport(setting));
    let mut endpoint = endpoint(setting, None)?;
    endpoint.set_default_client_config(config);
    Ok(endpoint)
}

/// The client's part of a piece of work, on a stream of its own.
pub(crate) async fn run(
    setting: Setting,
    connection: &quinn::Connection,
    work: Work,
) -> Result<RoundTrips> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&work.header()).await?;
    let mut times = RoundTrips::new();
    match work.kind {
        Kind::Bulk => {
            let payload = Bytes::from(vec![7; BULK_BYTES]);
            for _ in 0..work.count {
                match setting {
                    Setting::Tuned => send.write_chunk(payload.clone()).await?,
                    Setting::AsItComes => send.write_all(&payload).await?,
                }
            }
        }
        Kind::Small => {
            let mut buffer = BytesMut::with_capacity(BUFFER_BYTES);
            for _ in 0..work.count {
                buffer.extend_from_slice(&[7; SMALL_BYTES]);
                if buffer.len() >= BUFFER_BYTES {
                    send.write_chunk(buffer.split().freeze()).await?;
                    buffer.reserve(BUFFER_BYTES);
                }
            }
            send.write_chunk(buffer.freeze()).await?;
        }
        Kind::RoundTrip => {
            let mut answer = [0; SMALL_BYTES];
            for _ in 0..work.count {
                let begun = Instant::now();
                send.write_all(&[7; SMALL_BYTES]).await?;
                recv.read_exact(&mut answer).await?;
                times.push(begun.elapsed());
            }
            return Ok(times);
        }
    }
    recv.read_exact(&mut [0; 1]).await?;
    Ok(times)
}

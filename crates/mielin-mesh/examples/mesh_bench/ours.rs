//! The mesh's own wire: two members, and frames on streams.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use mielin_mesh_core::NodeRole;
use mielin_mesh_wire::{
    Endpoint, Features, FrameLimit, JoinRequest, JoinToken, Liveness, MeshStream, NodeCredentials,
    Peer, WireEvent, join,
};
use tokio::sync::mpsc::Receiver;

use crate::work::{BULK_BYTES, HEADER_BYTES, Kind, RoundTrips, SMALL_BYTES, Work};

const PROTOCOL: u16 = 100;
const LIVENESS: Liveness = Liveness {
    idle: Duration::from_secs(120),
    keep_alive: Duration::from_secs(30),
    unused: Duration::from_secs(300),
};

/// Opens the endpoint of a member.
pub(crate) async fn bind(credentials: &NodeCredentials) -> Result<Endpoint> {
    let address = "127.0.0.1:0".parse()?;
    let (endpoint, events) = Endpoint::bind(address, credentials, LIVENESS, Features::NONE).await?;
    tokio::spawn(serve(events));
    Ok(endpoint)
}

/// Becomes a member of the mesh whose founder listens at `founder`.
pub(crate) async fn become_member(
    path: &Path,
    founder: &str,
    token: JoinToken,
) -> Result<NodeCredentials> {
    let request = JoinRequest {
        address: founder.parse()?,
        token: Some(token),
        name: format!(
            "bench-{}",
            path.file_name().and_then(|n| n.to_str()).unwrap_or("peer")
        ),
        role: NodeRole::Edge,
    };
    Ok(join(path, request, |_| {}).await?)
}

async fn serve(mut events: Receiver<WireEvent>) {
    while let Some(event) = events.recv().await {
        if let WireEvent::Stream(incoming) = event {
            tokio::spawn(async move {
                let _place = incoming.place;
                // A stream ends with an error when its client goes away.
                let _ = answer(incoming.stream).await;
            });
        }
    }
}

async fn answer(mut stream: MeshStream) -> Result<()> {
    let limit = FrameLimit::default();
    let first = stream.recv_frame(limit).await?.context("no header")?;
    let work = Work::parse(first.header.as_ref().try_into()?);
    for _ in 0..work.count {
        let head = stream.recv_head(limit).await?.context("no message")?;
        anyhow::ensure!(head.payload_len == work.item_bytes(), "a wrong length");
        if work.kind == Kind::RoundTrip {
            let payload = stream.recv_payload(&head).await?;
            stream.send_frame_bytes(&[], payload).await?;
        } else {
            stream.recv_pieces(&head).await?;
        }
    }
    stream.send_frame(&[1], &[]).await?;
    stream.finish()?;
    Ok(())
}

/// The client's part of a piece of work, on a stream of its own.
pub(crate) async fn run(peer: &Peer, work: Work) -> Result<RoundTrips> {
    let header: [u8; HEADER_BYTES] = work.header();
    let limit = FrameLimit::default();
    let mut stream = peer.open(PROTOCOL).await?;
    stream.send_frame(&header, &[]).await?;
    let mut times = RoundTrips::new();
    match work.kind {
        Kind::Bulk => {
            let payload = Bytes::from(vec![7; BULK_BYTES]);
            for _ in 0..work.count {
                stream.send_frame_bytes(&[], payload.clone()).await?;
            }
        }
        Kind::Small => {
            let payload = Bytes::from_static(&[7; SMALL_BYTES]);
            for _ in 0..work.count {
                stream.feed_frame_bytes(&[], payload.clone()).await?;
            }
            stream.flush_frames().await?;
        }
        Kind::RoundTrip => {
            for _ in 0..work.count {
                let begun = Instant::now();
                stream.send_frame(&[], &[7; SMALL_BYTES]).await?;
                stream.recv_frame(limit).await?.context("no answer")?;
                times.push(begun.elapsed());
            }
        }
    }
    stream.recv_frame(limit).await?.context("no end")?;
    stream.finish()?;
    Ok(times)
}

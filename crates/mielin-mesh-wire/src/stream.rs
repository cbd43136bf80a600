//! Framed bidirectional streams between two nodes.
//!
//! A stream begins with the number of its protocol (u16, big endian), sent by
//! the side that opened it. After that either side may send frames, or use the
//! halves as plain byte streams. A frame is
//!
//! ```text
//! header length: u16 BE | payload length: u32 BE | header | payload
//! ```
//!
//! The header is small and meant for OxiCode; the payload is raw bytes that no
//! codec touches. Lengths are checked against the reader's limit before
//! anything is stored, and the buffer grows with the bytes that really arrive.

mod ahead;
mod receiving;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use mielin_mesh_core::NodeId;
use mielin_mesh_core::limits::PAYLOAD_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

use crate::class::{ClassCounters, TrafficClass};
use crate::endpoint::says_unused;
use crate::usage::InUse;
use ahead::Ahead;
pub use receiving::Pieces;

/// Length of the two length fields before a frame.
const PREFIX_BYTES: usize = 6;
/// Payloads up to this are copied behind their header, so that a small frame is
/// one write and one packet.
const ONE_WRITE_BYTES: usize = 16 * 1024;
/// Frames that are fed gather up to this before they are written.
const BATCH_BYTES: usize = 64 * 1024;
/// What is reserved for a frame before any of it has arrived; then four times what has.
const GATHER_BYTES: usize = 64 * 1024;

/// Smaller pieces of a payload are joined.
const PIECE_MIN: usize = 1024;

/// The stream is stopped or reset with one of these codes; they are part of
/// the protocol.
pub(crate) mod code {
    use quinn::VarInt;

    /// The reader refused a frame above its limit.
    pub(crate) const OVERSIZED: VarInt = VarInt::from_u32(1);
    /// Nobody serves the protocol that the stream asked for.
    pub(crate) const UNKNOWN_PROTOCOL: VarInt = VarInt::from_u32(2);
    /// The side that was serving the stream gave up on it.
    pub(crate) const ABANDONED: VarInt = VarInt::from_u32(3);
}

/// How much of a frame a reader is willing to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimit {
    /// Largest header, at most 65,535 bytes.
    pub header_bytes: u16,
    /// Largest payload; values above [`PAYLOAD_BYTES_MAX`] count as that.
    pub payload_bytes: usize,
}

impl FrameLimit {
    /// Headers up to 64 KiB and payloads up to `payload_bytes`.
    #[must_use]
    pub fn payload(payload_bytes: usize) -> Self {
        FrameLimit {
            header_bytes: u16::MAX,
            payload_bytes,
        }
    }
}

impl Default for FrameLimit {
    fn default() -> Self {
        FrameLimit::payload(PAYLOAD_BYTES_MAX)
    }
}

/// One frame as it arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The small structured part.
    pub header: Bytes,
    /// The raw part.
    pub payload: Bytes,
}

/// The beginning of a frame whose payload has not been taken yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// The small structured part.
    pub header: Bytes,
    /// Length of the payload, within the limit that was given.
    pub payload_len: usize,
}

/// Why a stream could not go on. The stream is unusable afterwards, the
/// connection is not affected unless the variant says so.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The frame offered by the peer, or by the caller, is above the limit.
    #[error("a frame part of {len} bytes is above the limit of {limit} bytes")]
    Oversized {
        /// Length that was claimed or offered.
        len: usize,
        /// Length that was allowed.
        limit: usize,
    },
    /// The peer ended the stream inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// The peer serves no such protocol.
    #[error("{peer} does not serve protocol {protocol}")]
    UnknownProtocol {
        /// Who refused.
        peer: NodeId,
        /// What was asked for.
        protocol: u16,
    },
    /// The peer refused a frame of ours as too large.
    #[error("the peer refused a frame as oversized")]
    RefusedAsOversized,
    /// The peer stopped or reset the stream.
    #[error("the peer broke off the exchange")]
    Abandoned {
        /// Its reason.
        code: u64,
    },
    /// The connection underneath is gone.
    #[error("the connection was lost: {0}")]
    ConnectionLost(quinn::ConnectionError),
    /// Frames that were fed to the stream have not been flushed.
    #[error("frames that were fed to the stream have not been flushed")]
    Unflushed,
    /// This side already finished or stopped the stream.
    #[error("the stream is already closed on this side")]
    Closed,
}

impl StreamError {
    /// Whether the peer has closed the connection while it knew of no stream on it: what was said on this one was
    /// not heard, and can be said once more over a new connection.
    #[must_use]
    pub fn was_unheard(&self) -> bool {
        matches!(self, StreamError::ConnectionLost(reason) if says_unused(reason))
    }
}

/// A bidirectional stream to one peer.
#[derive(Debug)]
pub struct MeshStream {
    send: SendHalf,
    recv: RecvHalf,
}

/// The writing half of a [`MeshStream`]. Dropping it without
/// [`finish`](SendHalf::finish) abandons the stream: a task that panics or is
/// cancelled must not look to the peer like one that has said everything.
#[derive(Debug)]
pub struct SendHalf {
    peer: NodeId,
    protocol: u16,
    inner: quinn::SendStream,
    counters: ClassCounters,
    /// Of a stream that this side opened.
    connection: Option<quinn::Connection>,
    /// A place among the streams of its class on the connection, until both sides are
    /// done with this half.
    _place: Option<OwnedSemaphorePermit>,
    _in_use: Option<InUse>,
    /// Frames that were fed and not yet written; at most about [`BATCH_BYTES`].
    batch: BytesMut,
    finished: bool,
}

/// The reading half of a [`MeshStream`]; dropping it stops the peer's writing.
#[derive(Debug)]
pub struct RecvHalf {
    peer: NodeId,
    protocol: u16,
    inner: quinn::RecvStream,
    counters: ClassCounters,
    /// What has arrived behind the last frame that was given out.
    ahead: Ahead,
    _in_use: Option<InUse>,
}

impl MeshStream {
    pub(crate) fn new(
        peer: NodeId,
        protocol: u16,
        send: quinn::SendStream,
        recv: quinn::RecvStream,
        counters: ClassCounters,
    ) -> Self {
        let priority = TrafficClass::of(protocol).priority();
        // An error says that the peer does not want to hear anything.
        let _ = send.set_priority(priority);
        MeshStream {
            send: SendHalf {
                peer,
                protocol,
                inner: send,
                counters: counters.clone(),
                connection: None,
                _place: None,
                _in_use: None,
                batch: BytesMut::new(),
                finished: false,
            },
            recv: RecvHalf {
                peer,
                protocol,
                inner: recv,
                counters,
                ahead: Ahead::default(),
                _in_use: None,
            },
        }
    }

    /// Lets the sender see what its connection has done.
    pub(crate) fn on(mut self, connection: &quinn::Connection) -> Self {
        self.send.connection = Some(connection.clone());
        self
    }

    /// Keeps a place among the streams of its class for as long as this side sends.
    pub(crate) fn with_place(mut self, place: Option<OwnedSemaphorePermit>) -> Self {
        self.send._place = place;
        self
    }

    /// Keeps the connection in use for as long as one of the halves lives.
    pub(crate) fn in_use(mut self, in_use: InUse) -> Self {
        self.send._in_use = Some(in_use.clone());
        self.recv._in_use = Some(in_use);
        self
    }

    /// What the stream is for.
    #[must_use]
    pub fn class(&self) -> TrafficClass {
        TrafficClass::of(self.protocol())
    }

    /// The node at the other end, as its certificate says.
    #[must_use]
    pub fn peer(&self) -> NodeId {
        self.send.peer
    }

    /// The protocol number the stream was opened with.
    #[must_use]
    pub fn protocol(&self) -> u16 {
        self.send.protocol
    }

    /// Separates the two directions, so that two tasks can own one each.
    #[must_use]
    pub fn split(self) -> (SendHalf, RecvHalf) {
        (self.send, self.recv)
    }

    /// See [`SendHalf::send_frame`].
    ///
    /// # Errors
    /// As [`SendHalf::send_frame`].
    pub async fn send_frame(&mut self, header: &[u8], payload: &[u8]) -> Result<(), StreamError> {
        self.send.send_frame(header, payload).await
    }

    /// See [`SendHalf::send_frame_bytes`].
    ///
    /// # Errors
    /// As [`SendHalf::send_frame_bytes`].
    pub async fn send_frame_bytes(
        &mut self,
        header: &[u8],
        payload: Bytes,
    ) -> Result<(), StreamError> {
        self.send.send_frame_bytes(header, payload).await
    }

    /// See [`SendHalf::feed_frame_bytes`].
    ///
    /// # Errors
    /// As [`SendHalf::feed_frame_bytes`].
    pub async fn feed_frame_bytes(
        &mut self,
        header: &[u8],
        payload: Bytes,
    ) -> Result<(), StreamError> {
        self.send.feed_frame_bytes(header, payload).await
    }

    /// See [`SendHalf::flush_frames`].
    ///
    /// # Errors
    /// As [`SendHalf::flush_frames`].
    pub async fn flush_frames(&mut self) -> Result<(), StreamError> {
        self.send.flush_frames().await
    }

    /// See [`RecvHalf::recv_frame`].
    ///
    /// # Errors
    /// As [`RecvHalf::recv_frame`].
    pub async fn recv_frame(&mut self, limit: FrameLimit) -> Result<Option<Frame>, StreamError> {
        self.recv.recv_frame(limit).await
    }

    /// See [`RecvHalf::recv_head`].
    ///
    /// # Errors
    /// As [`RecvHalf::recv_head`].
    pub async fn recv_head(&mut self, limit: FrameLimit) -> Result<Option<FrameHead>, StreamError> {
        self.recv.recv_head(limit).await
    }

    /// See [`RecvHalf::recv_pieces`].
    ///
    /// # Errors
    /// As [`RecvHalf::recv_pieces`].
    pub async fn recv_pieces(&mut self, head: &FrameHead) -> Result<Pieces, StreamError> {
        self.recv.recv_pieces(head).await
    }

    /// See [`RecvHalf::recv_payload`].
    ///
    /// # Errors
    /// As [`RecvHalf::recv_payload`].
    pub async fn recv_payload(&mut self, head: &FrameHead) -> Result<Bytes, StreamError> {
        self.recv.recv_payload(head).await
    }

    /// See [`SendHalf::finish`].
    ///
    /// # Errors
    /// As [`SendHalf::finish`].
    pub fn finish(&mut self) -> Result<(), StreamError> {
        self.send.finish()
    }

    /// Ends both directions at once, telling the peer that nobody serves the
    /// protocol.
    pub fn refuse_protocol(mut self) {
        let _ = self.recv.inner.stop(code::UNKNOWN_PROTOCOL);
        let _ = self.send.inner.reset(code::UNKNOWN_PROTOCOL);
    }

    /// Ends both directions at once; the peer sees
    /// [`StreamError::Abandoned`].
    pub fn abandon(mut self) {
        let _ = self.recv.inner.stop(code::ABANDONED);
        let _ = self.send.inner.reset(code::ABANDONED);
    }
}

impl SendHalf {
    /// Bytes that have left this machine so far on the connection of a stream that this side has opened: those of all its
    /// streams, with headers and with what was sent again. What a sender hands over leaves later, as fast as the way
    /// to the peer takes it.
    #[must_use]
    pub fn transmitted_bytes(&self) -> Option<u64> {
        let connection = self.connection.as_ref()?;
        Some(connection.stats().udp_tx.bytes)
    }

    /// Sends one frame; returns when the transport has taken it, which may be
    /// before the peer has read it. Not cancel safe: a frame whose sending was
    /// dropped half-way leaves the stream unusable.
    ///
    /// # Errors
    /// [`StreamError::Oversized`] leaves the stream as it was, every other
    /// error ends it.
    pub async fn send_frame(&mut self, header: &[u8], payload: &[u8]) -> Result<(), StreamError> {
        let fits = payload.len() <= ONE_WRITE_BYTES;
        self.put_start(header, payload.len(), if fits { payload.len() } else { 0 })?;
        if fits {
            self.batch.extend_from_slice(payload);
            return self.flush_frames().await;
        }
        self.flush_frames().await?;
        self.count_sent(payload.len());
        self.inner
            .write_all(payload)
            .await
            .map_err(|e| self.write_error(e))
    }

    /// Like [`send_frame`](Self::send_frame), handing a shared buffer to the
    /// transport without copying it, unless it is small.
    ///
    /// # Errors
    /// As [`send_frame`](Self::send_frame).
    pub async fn send_frame_bytes(
        &mut self,
        header: &[u8],
        payload: Bytes,
    ) -> Result<(), StreamError> {
        self.feed_frame_bytes(header, payload).await?;
        self.flush_frames().await
    }

    /// Puts a frame behind those that wait to be written, and writes them when
    /// there is enough. Whoever feeds calls [`flush_frames`](Self::flush_frames)
    /// when it has no more to feed at once: then nothing waits while the sender
    /// is idle. Not cancel safe.
    ///
    /// # Errors
    /// As [`send_frame`](Self::send_frame).
    pub async fn feed_frame_bytes(
        &mut self,
        header: &[u8],
        payload: Bytes,
    ) -> Result<(), StreamError> {
        if payload.len() <= ONE_WRITE_BYTES {
            self.put_start(header, payload.len(), payload.len())?;
            self.batch.extend_from_slice(&payload);
            if self.batch.len() < BATCH_BYTES {
                return Ok(());
            }
            return self.flush_frames().await;
        }
        self.put_start(header, payload.len(), 0)?;
        let start = self.batch.split().freeze();
        self.count_sent(start.len() + payload.len());
        self.inner
            .write_all_chunks(&mut [start, payload])
            .await
            .map_err(|e| self.write_error(e))
    }

    /// Puts a frame behind those that wait to be written, without writing; whoever
    /// does so bounds [`fed`](Self::fed).
    ///
    /// # Errors
    /// [`StreamError::Oversized`], which leaves the stream as it was.
    pub fn put_frame(&mut self, header: &[u8], payload: &[u8]) -> Result<(), StreamError> {
        self.put_start(header, payload.len(), payload.len())?;
        self.batch.extend_from_slice(payload);
        Ok(())
    }

    /// Bytes of the frames that were fed and not yet written.
    #[must_use]
    pub fn fed(&self) -> usize {
        self.batch.len()
    }

    /// Writes the frames that were fed, as far as the transport takes them.
    ///
    /// # Errors
    /// As [`send_frame`](Self::send_frame).
    pub fn poll_flush_frames(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        while !self.batch.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.batch));
            let written = written.map_err(|e| self.write_error(e))?;
            self.count_sent(written);
            if written == self.batch.len() {
                self.batch.clear();
            } else {
                self.batch.advance(written);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the frames that were fed.
    ///
    /// # Errors
    /// As [`send_frame`](Self::send_frame).
    pub async fn flush_frames(&mut self) -> Result<(), StreamError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = self.batch.split().freeze();
        self.count_sent(batch.len());
        self.inner
            .write_chunk(batch)
            .await
            .map_err(|e| self.write_error(e))
    }

    /// Says that nothing more will be sent. Data already handed over still
    /// arrives.
    ///
    /// # Errors
    /// [`StreamError::Closed`] when it was said before, and
    /// [`StreamError::Unflushed`], which leaves the stream as it was.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        if !self.batch.is_empty() {
            return Err(StreamError::Unflushed);
        }
        self.finished = true;
        self.inner.finish().map_err(|_| StreamError::Closed)
    }

    /// Lets every other stream of the connection go first, of whatever class.
    pub fn yield_to_others(&self) {
        // An error says that the stream has ended already.
        let _ = self.inner.set_priority(-1);
    }

    /// Waits until the peer's transport has acknowledged everything after
    /// [`finish`](Self::finish), or has stopped reading.
    ///
    /// # Errors
    /// The connection went away, or the peer stopped the stream.
    pub async fn delivered(&mut self) -> Result<(), StreamError> {
        match self.inner.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(self.stop_error(code)),
            Err(quinn::StoppedError::ConnectionLost(lost)) => {
                Err(StreamError::ConnectionLost(lost))
            }
            Err(quinn::StoppedError::ZeroRttRejected) => Err(StreamError::Closed),
        }
    }

    fn count_sent(&self, bytes: usize) {
        self.counters.sent(TrafficClass::of(self.protocol), bytes);
    }

    /// Puts a frame's lengths and header into the batch, with room for `room`
    /// bytes more.
    fn put_start(
        &mut self,
        header: &[u8],
        payload_len: usize,
        room: usize,
    ) -> Result<(), StreamError> {
        let header_len = u16::try_from(header.len()).map_err(|_| StreamError::Oversized {
            len: header.len(),
            limit: usize::from(u16::MAX),
        })?;
        if payload_len > PAYLOAD_BYTES_MAX {
            return Err(StreamError::Oversized {
                len: payload_len,
                limit: PAYLOAD_BYTES_MAX,
            });
        }
        let batch = &mut self.batch;
        batch.reserve(PREFIX_BYTES + header.len() + room);
        batch.extend_from_slice(&header_len.to_be_bytes());
        batch.extend_from_slice(&(payload_len as u32).to_be_bytes());
        batch.extend_from_slice(header);
        Ok(())
    }

    fn write_error(&self, error: quinn::WriteError) -> StreamError {
        match error {
            quinn::WriteError::Stopped(code) => self.stop_error(code),
            quinn::WriteError::ConnectionLost(lost) => StreamError::ConnectionLost(lost),
            quinn::WriteError::ClosedStream | quinn::WriteError::ZeroRttRejected => {
                StreamError::Closed
            }
        }
    }

    fn stop_error(&self, stopped: quinn::VarInt) -> StreamError {
        stop_error(self.peer, self.protocol, stopped)
    }
}

fn stop_error(peer: NodeId, protocol: u16, stopped: quinn::VarInt) -> StreamError {
    match stopped {
        code::OVERSIZED => StreamError::RefusedAsOversized,
        code::UNKNOWN_PROTOCOL => StreamError::UnknownProtocol { peer, protocol },
        other => StreamError::Abandoned {
            code: other.into_inner(),
        },
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if !self.finished {
            // An error says that the stream has ended already.
            let _ = self.inner.reset(code::ABANDONED);
        }
    }
}

impl AsyncWrite for SendHalf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.batch.is_empty() {
            return Poll::Ready(Err(io::Error::other(StreamError::Unflushed)));
        }
        let polled = AsyncWrite::poll_write(Pin::new(&mut self.inner), cx, buf);
        if let Poll::Ready(Ok(written)) = &polled {
            self.count_sent(*written);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.inner), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finished = true;
        AsyncWrite::poll_shutdown(Pin::new(&mut self.inner), cx)
    }
}

impl AsyncRead for MeshStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.recv).poll_read(cx, buf)
    }
}

impl AsyncWrite for MeshStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_shutdown(cx)
    }
}

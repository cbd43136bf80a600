//! The reading half: frames out of what has arrived.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use mielin_mesh_core::limits::PAYLOAD_BYTES_MAX;
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    CHUNKS_AT_ONCE, Frame, FrameHead, FrameLimit, GATHER_BYTES, PREFIX_BYTES, RecvHalf,
    StreamError, code, stop_error,
};
use crate::class::TrafficClass;

impl RecvHalf {
    /// Receives one frame, or `None` when the peer finished the stream between
    /// frames. Not cancel safe.
    ///
    /// # Errors
    /// [`StreamError::Oversized`] stops the stream with a code that the peer
    /// sees as [`StreamError::RefusedAsOversized`].
    pub async fn recv_frame(&mut self, limit: FrameLimit) -> Result<Option<Frame>, StreamError> {
        let Some(head) = self.recv_head(limit).await? else {
            return Ok(None);
        };
        let payload = self.recv_payload(&head).await?;
        let FrameHead { header, .. } = head;
        Ok(Some(Frame { header, payload }))
    }

    /// Receives a frame up to its payload, for whoever has to make room for that;
    /// [`recv_payload`](Self::recv_payload) must follow. Not cancel safe.
    ///
    /// # Errors
    /// As [`recv_frame`](Self::recv_frame).
    pub async fn recv_head(&mut self, limit: FrameLimit) -> Result<Option<FrameHead>, StreamError> {
        if self.ahead.is_empty() && !self.more().await? {
            return Ok(None);
        }
        let mut prefix = [0_u8; PREFIX_BYTES];
        prefix.copy_from_slice(&self.take(PREFIX_BYTES).await?);
        let [header_len, payload_len] = lengths(&prefix);
        self.check(header_len, payload_len, limit)?;
        let header = self.take(header_len).await?;
        Ok(Some(FrameHead {
            header,
            payload_len,
        }))
    }

    /// Receives the payload of a frame. Not cancel safe.
    ///
    /// # Errors
    /// As [`recv_frame`](Self::recv_frame).
    pub async fn recv_payload(&mut self, head: &FrameHead) -> Result<Bytes, StreamError> {
        self.take(head.payload_len).await
    }

    /// The next frame if all of it was taken in by [`poll_more`](Self::poll_more).
    ///
    /// # Errors
    /// As [`recv_frame`](Self::recv_frame).
    pub fn frame_at_hand(&mut self, limit: FrameLimit) -> Result<Option<Frame>, StreamError> {
        let Some(first) = self.ahead.front() else {
            return Ok(None);
        };
        let [header_len, payload_len] = match first.first_chunk() {
            Some(prefix) => lengths(prefix),
            None => {
                let mut prefix = [0; PREFIX_BYTES];
                let mut bytes = self.ahead.iter().flatten();
                for place in &mut prefix {
                    let Some(byte) = bytes.next() else {
                        return Ok(None);
                    };
                    *place = *byte;
                }
                lengths(&prefix)
            }
        };
        let first_len = first.len();
        self.check(header_len, payload_len, limit)?;
        let len = PREFIX_BYTES + header_len + payload_len;
        if first_len < len && self.ahead.iter().map(Bytes::len).sum::<usize>() < len {
            return Ok(None);
        }
        let mut frame = match self.piece(len) {
            Some(piece) => piece,
            None => {
                let mut gathered = BytesMut::with_capacity(len);
                self.gather(&mut gathered, len);
                gathered.freeze()
            }
        };
        frame.advance(PREFIX_BYTES);
        let header = frame.split_to(header_len);
        Ok(Some(Frame {
            header,
            payload: frame,
        }))
    }

    /// Takes in what has arrived, a bounded part of it, as soon as there is any: each turn takes the connection's lock.
    /// `false` when the peer has finished.
    ///
    /// # Errors
    /// Any that ends a stream, and [`StreamError::Truncated`] when it ended inside a frame.
    pub fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, StreamError>> {
        let mut chunks: [Bytes; CHUNKS_AT_ONCE] = Default::default();
        let read = ready!(pin!(self.inner.read_chunks(&mut chunks)).poll(cx));
        let Some(read) = read.map_err(|error| self.read_error(error))? else {
            return Poll::Ready(if self.ahead.is_empty() {
                Ok(false)
            } else {
                Err(StreamError::Truncated)
            });
        };
        let bytes = chunks[..read].iter().map(Bytes::len).sum();
        self.count_received(bytes);
        let arrived = chunks.into_iter().take(read);
        self.ahead.extend(arrived.filter(|chunk| !chunk.is_empty()));
        Poll::Ready(Ok(true))
    }

    async fn more(&mut self) -> Result<bool, StreamError> {
        poll_fn(|cx| self.poll_more(cx)).await
    }

    fn check(
        &mut self,
        header_len: usize,
        payload_len: usize,
        limit: FrameLimit,
    ) -> Result<(), StreamError> {
        let payload_limit = limit.payload_bytes.min(PAYLOAD_BYTES_MAX);
        if header_len > limit.header_bytes.into() {
            return Err(self.oversized(header_len, limit.header_bytes.into()));
        }
        if payload_len > payload_limit {
            return Err(self.oversized(payload_len, payload_limit));
        }
        Ok(())
    }

    /// The next `len` bytes, if they lie in one piece.
    fn piece(&mut self, len: usize) -> Option<Bytes> {
        match self.ahead.front_mut() {
            Some(first) if first.len() > len => Some(first.split_to(len)),
            _ => self.ahead.pop_front_if(|first| first.len() == len),
        }
    }

    /// Moves what has arrived until there are `len` bytes.
    fn gather(&mut self, gathered: &mut BytesMut, len: usize) {
        while gathered.len() < len
            && let Some(mut first) = self.ahead.pop_front()
        {
            let wanted = (len - gathered.len()).min(first.len());
            gathered.extend_from_slice(&first.split_to(wanted));
            if !first.is_empty() {
                self.ahead.push_front(first);
            }
        }
    }

    fn oversized(&mut self, len: usize, limit: usize) -> StreamError {
        let _ = self.inner.stop(code::OVERSIZED);
        StreamError::Oversized { len, limit }
    }

    /// Exactly `len` bytes; memory follows what has arrived, not `len`.
    async fn take(&mut self, len: usize) -> Result<Bytes, StreamError> {
        if self.ahead.is_empty() && len > 0 && !self.more().await? {
            return Err(StreamError::Truncated);
        }
        if let Some(piece) = self.piece(len) {
            return Ok(piece);
        }
        let mut gathered = BytesMut::with_capacity(len.min(GATHER_BYTES));
        loop {
            self.gather(&mut gathered, len);
            if gathered.len() == len {
                return Ok(gathered.freeze());
            }
            if !self.more().await? {
                return Err(StreamError::Truncated);
            }
        }
    }

    fn count_received(&self, bytes: usize) {
        let class = TrafficClass::of(self.protocol);
        self.counters.received(class, bytes);
    }

    fn read_error(&self, error: quinn::ReadError) -> StreamError {
        match error {
            quinn::ReadError::Reset(code) => stop_error(self.peer, self.protocol, code),
            quinn::ReadError::ConnectionLost(lost) => StreamError::ConnectionLost(lost),
            quinn::ReadError::ClosedStream
            | quinn::ReadError::IllegalOrderedRead
            | quinn::ReadError::ZeroRttRejected => StreamError::Closed,
        }
    }
}

impl AsyncRead for RecvHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(mut first) = self.ahead.pop_front() {
            let len = first.len().min(buf.remaining());
            buf.put_slice(&first.split_to(len));
            if !first.is_empty() {
                self.ahead.push_front(first);
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = AsyncRead::poll_read(Pin::new(&mut self.inner), cx, buf);
        self.count_received(buf.filled().len() - before);
        polled
    }
}

/// The lengths of a frame's header and payload.
fn lengths(prefix: &[u8; PREFIX_BYTES]) -> [usize; 2] {
    let [h0, h1, p0, p1, p2, p3] = *prefix;
    let header = u16::from_be_bytes([h0, h1]);
    let payload = u32::from_be_bytes([p0, p1, p2, p3]);
    [header.into(), payload as usize]
}

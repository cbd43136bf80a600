//! The reading half: frames out of what has arrived.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use mielin_mesh_core::limits::PAYLOAD_BYTES_MAX;
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    Frame, FrameHead, FrameLimit, GATHER_BYTES, PIECE_MIN, PREFIX_BYTES, RecvHalf, StreamError,
    code, stop_error,
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

    /// Receives the payload of a frame as it arrives in pieces, for whoever copies it to its place anyway. Not cancel
    /// safe.
    ///
    /// # Errors
    /// As [`recv_frame`](Self::recv_frame).
    pub async fn recv_pieces(&mut self, head: &FrameHead) -> Result<Pieces, StreamError> {
        let mut pieces = Pieces::default();
        while pieces.left < head.payload_len {
            let missing = head.payload_len - pieces.left;
            if let Some(piece) = self.ahead.next_piece(missing) {
                pieces.push(piece);
            } else if !self.more().await? {
                return Err(StreamError::Truncated);
            }
        }
        Ok(pieces)
    }

    /// The next frame if all of it was taken in by [`poll_more`](Self::poll_more).
    ///
    /// # Errors
    /// As [`recv_frame`](Self::recv_frame).
    pub fn frame_at_hand(&mut self, limit: FrameLimit) -> Result<Option<Frame>, StreamError> {
        let pieces = self.ahead.pieces();
        let Some(first) = pieces.first() else {
            return Ok(None);
        };
        let [header_len, payload_len] = match first.first_chunk() {
            Some(prefix) => lengths(prefix),
            None => {
                let mut prefix = [0; PREFIX_BYTES];
                let mut bytes = pieces.iter().flatten();
                for place in &mut prefix {
                    let Some(byte) = bytes.next() else {
                        return Ok(None);
                    };
                    *place = *byte;
                }
                lengths(&prefix)
            }
        };
        self.check(header_len, payload_len, limit)?;
        let len = PREFIX_BYTES + header_len + payload_len;
        let mut frame = match self.ahead.piece(len) {
            Some(piece) => piece,
            None if self.ahead.pieces().iter().map(Bytes::len).sum::<usize>() < len => {
                return Ok(None);
            }
            None => {
                let mut gathered = BytesMut::with_capacity(len);
                self.ahead.gather(&mut gathered, len);
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
        let room = self.ahead.room();
        let read = ready!(pin!(self.inner.read_chunks(room)).poll(cx));
        let Some(read) = read.map_err(|error| self.read_error(error))? else {
            return Poll::Ready(if self.ahead.is_empty() {
                Ok(false)
            } else {
                Err(StreamError::Truncated)
            });
        };
        let room = self.ahead.room();
        let bytes = room[..read].iter().map(Bytes::len).sum();
        self.ahead.fill(read);
        self.count_received(bytes);
        Poll::Ready(Ok(true))
    }

    /// Packets of which something is held here.
    #[cfg(test)]
    pub(crate) fn pieces(&self) -> usize {
        self.ahead.pieces().len()
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

    fn oversized(&mut self, len: usize, limit: usize) -> StreamError {
        let _ = self.inner.stop(code::OVERSIZED);
        StreamError::Oversized { len, limit }
    }

    /// Exactly `len` bytes; memory follows what has arrived, not `len`.
    async fn take(&mut self, len: usize) -> Result<Bytes, StreamError> {
        if self.ahead.is_empty() && len > 0 && !self.more().await? {
            return Err(StreamError::Truncated);
        }
        if let Some(piece) = self.ahead.piece(len) {
            return Ok(piece);
        }
        let mut gathered = BytesMut::with_capacity(len.min(GATHER_BYTES));
        loop {
            let room = gathered.capacity().min(len);
            self.ahead.gather(&mut gathered, room);
            if gathered.len() == len {
                return Ok(gathered.freeze());
            }
            if gathered.len() == room {
                gathered.reserve((3 * room).min(len - room));
            } else if !self.more().await? {
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

/// The payload of a frame, in the pieces in which it arrived. Read it as a [`Buf`].
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    pieces: VecDeque<Bytes>,
    left: usize,
}

impl Pieces {
    fn push(&mut self, piece: Bytes) {
        self.left += piece.len();
        if piece.len() < PIECE_MIN {
            // It holds the whole packet: what a peer sends in crumbs must not keep many times its size.
            let last = self.pieces.pop_back_if(|last| last.len() < PIECE_MIN);
            let mut joined = last.map_or_else(BytesMut::new, BytesMut::from);
            joined.extend_from_slice(&piece);
            self.pieces.push_back(joined.freeze());
        } else {
            self.pieces.push_back(piece);
        }
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.left, "behind the end");
        self.left -= count;
        while count > 0
            && let Some(first) = self.pieces.front_mut()
        {
            let here = count.min(first.len());
            first.advance(here);
            count -= here;
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
    }
}

impl AsyncRead for RecvHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(first) = self.ahead.pieces().first() {
            let len = first.len().min(buf.remaining());
            if let Some(piece) = self.ahead.piece(len) {
                buf.put_slice(&piece);
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

#[cfg(test)]
mod tests;

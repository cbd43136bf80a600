//! What has arrived on a stream and was not asked for yet.

use bytes::{Buf, Bytes, BytesMut};

/// How many chunks are taken from the transport at a time.
const CHUNKS_AT_ONCE: usize = 16;
/// More pieces than this are joined: each holds the memory of the packet that it came in, however short it is.
const PIECES_MAX: usize = 2 * CHUNKS_AT_ONCE;

/// Bytes in pieces that are not empty, and places to read more into, which are kept: a small frame is one piece, and to
/// make sixteen places for it would cost as much as to take it in.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// The pieces lie from `first` up to `end`; all the others are empty.
    places: Vec<Bytes>,
    first: usize,
    end: usize,
}

impl Ahead {
    pub(super) fn is_empty(&self) -> bool {
        self.first == self.end
    }

    pub(super) fn pieces(&self) -> &[Bytes] {
        &self.places[self.first..self.end]
    }

    /// Places for what comes next; [`fill`](Self::fill) is to be told how many of them were used.
    pub(super) fn room(&mut self) -> &mut [Bytes] {
        if self.places.len() < self.end + CHUNKS_AT_ONCE {
            self.places.drain(..self.first);
            self.end -= self.first;
            self.first = 0;
            self.places.resize(self.end + CHUNKS_AT_ONCE, Bytes::new());
        }
        &mut self.places[self.end..][..CHUNKS_AT_ONCE]
    }

    pub(super) fn fill(&mut self, count: usize) {
        self.end += count;
        if self.end - self.first > PIECES_MAX {
            let len = self.pieces().iter().map(Bytes::len).sum();
            let mut joined = BytesMut::with_capacity(len);
            self.gather(&mut joined, len);
            self.places[0] = joined.freeze();
            self.end = 1;
        }
    }

    /// The next `len` bytes, if they lie in one piece.
    pub(super) fn piece(&mut self, len: usize) -> Option<Bytes> {
        let first = self.first_mut()?;
        if first.len() > len {
            return Some(first.split_to(len));
        }
        (first.len() == len).then(|| self.pop())
    }

    /// The next piece, or its first `len_max` bytes.
    pub(super) fn next_piece(&mut self, len_max: usize) -> Option<Bytes> {
        let len = self.first_mut()?.len().min(len_max);
        self.piece(len)
    }

    /// Moves pieces until `gathered` has `len` bytes, or nothing is left.
    pub(super) fn gather(&mut self, gathered: &mut BytesMut, len: usize) {
        while gathered.len() < len
            && let Some(first) = self.first_mut()
        {
            let wanted = len - gathered.len();
            if first.len() > wanted {
                gathered.extend_from_slice(&first[..wanted]);
                first.advance(wanted);
            } else {
                gathered.extend_from_slice(&self.pop());
            }
        }
    }

    fn first_mut(&mut self) -> Option<&mut Bytes> {
        self.places[self.first..self.end].first_mut()
    }

    fn pop(&mut self) -> Bytes {
        let piece = std::mem::take(&mut self.places[self.first]);
        self.first += 1;
        if self.is_empty() {
            (self.first, self.end) = (0, 0);
        }
        piece
    }
}

#[cfg(test)]
mod tests;
